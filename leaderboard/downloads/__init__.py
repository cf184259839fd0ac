"""Downloads of a board: the same numbers for programs, papers and spreadsheets."""
