"""The board: from result files to one HTML page."""
