"""What a model takes: parameters, memory of weights and of texts that are written, operations. From files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from harness.core.checkpoints import Checkpoint
from harness.core.devices import has_gpu
from harness.core.reading import read_bytes, read_json

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS = {"F64", "F32", "F16", "BF16"}  # of safetensors; other types are quantised and stay as they are
_SHAPE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "max_position_embeddings"),
)
_GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
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


def read_shape(checkpoint: Checkpoint) -> Any:
    """Return the text part of a model's config: as its file has it, else with the defaults of its class.

    transformers takes seconds to import. Its errors pass.
    """
    given: Any = checkpoint.config.get("text_config", checkpoint.config)
    if isinstance(given, dict) and all(isinstance(given.get(name), int) for name in _SHAPE):
        return SimpleNamespace(**given)
    from harness.engine.weights import load_config

    return load_config(checkpoint).get_text_config()


def measure(checkpoint: Checkpoint, text: Any, parameters: int, dtype: str) -> Footprint:
    """Return what a model takes in a precision, by the text part of its config; 0 for what that does not say."""
    size = BYTES[dtype]
    heads = getattr(text, "num_attention_heads", None) or 0
    groups = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
    weights = parameters * size
    if checkpoint.quantised:
        stored = [(entry["dtype"], entry["shape"], entry["data_offsets"]) for entry in _entries(checkpoint)]
        sizes = (math.prod(shape) * size if kind in _FLOATS else end - start for kind, shape, (start, end) in stored)
        weights = sum(sizes) or weights
    return Footprint(weights, 2 * text.num_hidden_layers * groups * width * size, _LOGITS * text.vocab_size)


def count_parameters(checkpoint: Checkpoint, text: Any) -> int | None:
    """Return the number of parameters by the heads of safetensors files, else by the config, None if that fails.

    ``text``: the text part of the config. Of the usual shape its numbers are enough, of others a model without weights
    is made, which takes seconds of imports.
    """
    count = 0 if checkpoint.quantised else sum(math.prod(entry["shape"]) for entry in _entries(checkpoint))
    count = count or _count_by_shape(text)
    if count:
        return count
    import torch
    from transformers import AutoModelForCausalLM

    from harness.engine.weights import load_config

    try:
        config = load_config(checkpoint)
        with torch.device("meta"):  # shapes alone
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return sum(int(part.numel()) for part in model.parameters())
    except (ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError, NotImplementedError):
        return None


def _count_by_shape(text: Any) -> int:
    """Return the parameters of a decoder with grouped queries and a gated feed-forward block; 0 for other families.

    Without biases and the norms of queries and keys, less than a thousandth.
    """
    if getattr(text, "model_type", "") not in _GATED or not text.num_attention_heads:
        return 0
    size, heads = text.hidden_size, text.num_attention_heads
    width = getattr(text, "head_dim", None) or size // heads
    attention = 2 * size * width * (heads + (getattr(text, "num_key_value_heads", None) or heads))
    layer = attention + 3 * size * text.intermediate_size + 2 * size
    tied = getattr(text, "tie_word_embeddings", text.model_type.startswith("gemma"))
    return int(text.num_hidden_layers * layer + size + text.vocab_size * size * (1 if tied else 2))


def _entries(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield what the heads of safetensors files say of every tensor."""
    for path in [] if checkpoint.gguf else (checkpoint.base or checkpoint).folder.glob("*.safetensors"):
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        yield from (entry for name, entry in header.items() if name != "__metadata__")


def load_counter(checkpoint: Checkpoint) -> Any:
    """Return a tokenizer that counts as the model's own does, with its chat template.

    The class that the model names takes seconds to import, and its ``from_pretrained`` reads a large tokenizer.json
    twice. Where the files are not the usual ones it is loaded all the same. Errors of transformers pass.
    """
    folder = checkpoint.folder
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    apart = folder / "chat_template.jinja"
    template = read_bytes(apart).decode("utf-8", "replace") if apart.is_file() else settings.get("chat_template")
    usual = (folder / "tokenizer.json").is_file() and not (folder / "additional_chat_templates").exists()
    if checkpoint.base or checkpoint.gguf or not usual or not isinstance(template, str | None):
        from harness.engine.weights import load_tokenizer

        return load_tokenizer(checkpoint)
    from transformers import PreTrainedTokenizerFast

    given = {name: settings.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    tokens = {name: token["content"] if isinstance(token, dict) else token for name, token in given.items() if token}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), chat_template=template, name_or_path=str(folder), **tokens
    )


def gpus_for(found: Footprint, length: int, texts: int | None) -> tuple[int, int, float]:
    """Return how many GPUs hold a model with so many texts at once, that number of texts, and the bytes of a GPU.

    The GPU is the first one here, else one of 80 GB; a tenth of it is left free.
    """
    size = _USUAL
    if has_gpu():
        import torch

        size = float(torch.cuda.get_device_properties(0).total_memory)
    texts = texts or _TEXTS
    return math.ceil(found.total(texts, length) / (_USABLE * size)), texts, size


def gpu_hours(tokens: int, throughput: float, gpus: int) -> float:
    """Return the hours of GPUs that read or write so many tokens, together so many a second."""
    return gpus * tokens / throughput / 3600
