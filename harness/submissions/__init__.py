"""What others hand in: its format, and how it is read, packed, checked, re-scored and regenerated."""
