"""What a reader can take away from a board: the same numbers for programs, papers and spreadsheets."""
