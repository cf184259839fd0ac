"""Submissions: their format, and how they are packed, read, checked, rescored and reproduced."""
