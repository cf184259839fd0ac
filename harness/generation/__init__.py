"""Writing the texts: keyed sampling and batched generation."""
