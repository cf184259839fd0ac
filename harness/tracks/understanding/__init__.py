"""Steered models on understanding tasks: the model type of lm-eval, and what is made of its results."""
