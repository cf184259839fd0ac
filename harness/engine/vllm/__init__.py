"""vLLM as the engine: the texts of the own one up to rounding, for models that need its speed and memory."""
