"""From the scores of cells to tables of entries."""
