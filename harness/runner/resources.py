"""What a model takes: parameters, memory of weights and of texts that are written, operations. From files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.core.checkpoints import Checkpoint

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS = {"F64", "F32", "F16", "BF16"}  # of safetensors; other types are quantised and stay as they are
_LOGITS = 6 * 4  # bytes of a token of the vocabulary, in float32, with what sampling needs
_USABLE = 0.9  # of a GPU's memory
_USUAL = 80e9  # bytes of a GPU, where none is here
_TEXTS = 64  # at once, where the user names no number


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes: ``weights``, ``position``: of one token of one text in the cache, ``logits`` of one text."""

    weights: int
    position: int
    logits: int

    def text(self, length: int) -> int:
        """Return what a text of so many tokens takes; the cache is counted twice, since it is copied when it grows."""
        return 2 * self.position * length + self.logits

    def total(self, texts: int, length: int) -> int:
        """Return what so many texts at once take with the weights."""
        return self.weights + texts * self.text(length)


def measure(checkpoint: Checkpoint, config: Any, parameters: int, dtype: str) -> Footprint:
    """Return what a model takes in a precision; 0 for what its config does not say."""
    text, size = config.get_text_config(), BYTES[dtype]
    heads = getattr(text, "num_attention_heads", None) or 0
    groups = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
    weights = parameters * size
    if checkpoint.quantised:
        stored = [(entry["dtype"], entry["shape"], entry["data_offsets"]) for entry in _entries(checkpoint)]
        sizes = (math.prod(shape) * size if kind in _FLOATS else end - start for kind, shape, (start, end) in stored)
        weights = sum(sizes) or weights
    return Footprint(weights, 2 * text.num_hidden_layers * groups * width * size, _LOGITS * text.vocab_size)


def count_parameters(checkpoint: Checkpoint, config: Any) -> int | None:
    """Return the number of parameters by the heads of safetensors files, else by the config, None if that fails."""
    count = 0 if checkpoint.quantised else sum(math.prod(entry["shape"]) for entry in _entries(checkpoint))
    if count:
        return count
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):  # shapes alone
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return sum(int(part.numel()) for part in model.parameters())
    except (ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError, NotImplementedError):
        return None


def _entries(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield what the heads of safetensors files say of every tensor."""
    for path in [] if checkpoint.gguf else (checkpoint.base or checkpoint).folder.glob("*.safetensors"):
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        yield from (entry for name, entry in header.items() if name != "__metadata__")


def gpus_for(found: Footprint, length: int, texts: int | None) -> tuple[int, int, float]:
    """Return how many GPUs hold a model with so many texts at once, that number of texts, and the bytes of a GPU.

    The GPU is the first one here, else one of 80 GB; a tenth of it is left free.
    """
    import torch

    size = float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else _USUAL
    texts = texts or _TEXTS
    return math.ceil(found.total(texts, length) / (_USABLE * size)), texts, size


def gpu_hours(tokens: int, throughput: float, gpus: int) -> float:
    """Return the hours of GPUs that read or write so many tokens, together so many a second."""
    return gpus * tokens / throughput / 3600
