"""Coordinates of charts; the templates draw them as SVG."""
