"""What runs show beyond scores: measured on the model, written beside the run, read without it."""
