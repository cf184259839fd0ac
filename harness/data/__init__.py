"""Suites, human text, prompts, and text made from human text for contrast."""
