"""The version of steerboard, in a module that imports nothing."""

__version__ = "0.1.0"
