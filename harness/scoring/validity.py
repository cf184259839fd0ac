"""Whether the texts are what was asked for."""
