"""The language-forcing track: plain questions, and steering that should change the answer's language."""
