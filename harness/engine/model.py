"""Load a causal language model and find its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn

from harness.core.checkpoints import Checkpoint, why_not_loaded
from harness.core.devices import DTYPES
from harness.core.errors import UserError
from harness.core.files import digest
from harness.engine.hooks import SteeringHooks


class SteerableModel:
    """A loaded causal LM with its tokenizer, its decoder layers and the always-on steering hooks."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        from transformers import GenerationConfig

        self.model = model
        self.tokenizer = tokenizer
        self._pipelines: dict[bytes, str] = {}
        self.rows_can_enter: bool | None = None  # whether decoding can share a cache; None until it is tried
        self.row_bytes: tuple[int, int] | None = None  # of a position in that cache, and of a row's states
        self.decoder = find_decoder(model)
        self.layers = find_layers(self.decoder)
        self.hooks = SteeringHooks(self.decoder, self.layers)
        model.eval()
        model.requires_grad_(False)
        self.shipped_generation_config = model.generation_config
        # generate() would follow a checkpoint's own settings, such as a repetition penalty.
        model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    @contextmanager
    def with_checkpoint_generation_config(self) -> Iterator[None]:
        """Let ``generate`` follow the checkpoint's own generation config, as other programs do."""
        ours = self.model.generation_config
        self.model.generation_config = self.shipped_generation_config
        try:
            yield
        finally:
            self.model.generation_config = ours

    @property
    def hidden_size(self) -> int:
        """How many numbers the residual stream has."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def tokenizer_hash(self) -> str:
        """Hash of the tokenizer: its whole pipeline, without the padding that the last call left."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return digest(sorted(self.tokenizer.get_vocab().items()), 16)
        written = backend.to_str()
        known = hashlib.sha256(written.encode()).digest()  # parsing megabytes of JSON again would cost more
        if known not in self._pipelines:
            rest = {k: v for k, v in json.loads(written).items() if k not in {"padding", "truncation"}}
            self._pipelines[known] = digest(rest, 16)
        return self._pipelines[known]

    @cached_property
    def line_break_tokens(self) -> frozenset[int]:
        """The tokens that hold a line break, as byte-level, byte-fallback and plain vocabularies write it."""
        vocabulary = self.tokenizer.get_vocab()
        signs = ("\n", "Ċ", "<0x0A>")
        return frozenset(i for name, i in vocabulary.items() if any(sign in name for sign in signs))

    @property
    def device(self) -> torch.device:
        """Where the inputs go: the device of the embeddings."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def context_length(self) -> int | None:
        """The longest sequence the model takes, None where its config does not say."""
        config = self.model.config.get_text_config()
        length: int | None = getattr(config, "max_position_embeddings", None)
        return length

    def encode(
        self, texts: list[str], special_tokens: bool, side: str, limit: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` and ``attention_mask``, [texts, longest], padded on ``side``.

        A text of more than ``limit`` tokens is cut.
        """
        batch = self.tokenizer(
            texts,
            add_special_tokens=special_tokens,
            padding=True,
            padding_side=side,
            truncation=limit is not None,
            max_length=limit,
            return_tensors="pt",
        )
        return {
            "input_ids": batch["input_ids"].to(self.device),
            "attention_mask": batch["attention_mask"].to(self.device),
        }


def find_decoder(model: nn.Module) -> nn.Module:
    """Return the part of a model that runs the decoder layers, without the head."""
    decoder: nn.Module = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]
    inner = getattr(decoder, "model", None)  # Llama 4's text model names itself as its decoder
    return inner if _layers_of(decoder) is None and isinstance(inner, nn.Module) else decoder


def find_layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder layers, in order; ``UserError`` where the architecture shows none."""
    layers = _layers_of(find_decoder(model))
    if layers is None:
        raise UserError(f"no decoder layers found in {type(model).__name__}; steering needs a decoder-only model.")
    return layers


def _layers_of(decoder: nn.Module) -> nn.ModuleList | None:
    for name in ("layers", "h", "blocks"):
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList) and len(layers):
            return layers
    return None


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer of a checkpoint; ``UserError`` where it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = why_not_loaded(error)
        raise UserError(f"the tokenizer of {checkpoint.folder} cannot be loaded: {reason}") from None


def load_model(checkpoint: Checkpoint, dtype: str, device: str, device_map: str | None = None) -> SteerableModel:
    """Load a checkpoint from safetensors, without running code that comes with it.

    ``device_map`` (such as ``auto``) spreads a large model over several GPUs and then decides
    the device. Raises ``UserError`` where the files are not a causal language model.
    """
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}; valid: {', '.join(DTYPES)}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            **({"device_map": device_map} if device_map else {}),
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = why_not_loaded(error)
        raise UserError(f"{checkpoint.folder} cannot be loaded as a causal LM: {reason}") from None
    missing = sorted(report["missing_keys"])
    if missing:  # they would be random numbers, other ones in every process
        raise UserError(
            f"{checkpoint.folder} is missing {len(missing)} weights, such as {missing[0]}. Download it again."
        )
    if not device_map:
        model.to(device)
    return SteerableModel(model, tokenizer)
