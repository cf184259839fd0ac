"""Variance components, intervals, multiplicity and ranks."""
