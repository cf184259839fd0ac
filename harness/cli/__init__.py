"""The commands that are a group of their own; imports of weight happen inside the functions."""
