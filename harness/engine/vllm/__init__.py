"""The engine of vLLM: the same texts as from the own engine, up to rounding, for models that need its speed and memory."""
