"""Contrast text by machine translation: sentences there and back, with word noise after every hop."""
