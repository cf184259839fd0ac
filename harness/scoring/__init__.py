"""Scores of a cell: diversity, validity, downstream performance."""
