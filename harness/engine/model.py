"""Load a causal language model and find its parts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn

from harness.core.checkpoints import DTYPES, Checkpoint, require_packages, why_not_loaded
from harness.core.devices import torch_dtype
from harness.core.errors import UserError, warn
from harness.core.files import digest
from harness.engine.hooks import SteeringHooks
from harness.engine.weights import end_tokens, load_network, load_tokenizer


class LanguageModel:
    """What the texts of any engine need of a model: its tokenizer, its config, and the tokens that end a text."""

    def __init__(self, config: Any, tokenizer: Any) -> None:
        self.config = config.get_text_config()
        self.tokenizer = tokenizer
        self._pipelines: dict[bytes, str] = {}

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        raise NotImplementedError

    @property
    def stops(self) -> int | list[int] | None:
        """The tokens that end a text, by the model's generation config."""
        raise NotImplementedError

    @property
    def end_tokens(self) -> set[int]:
        """The tokens that end a text, the tokenizer's own where the model names none."""
        stops = self.tokenizer.eos_token_id if self.stops is None else self.stops
        return {token for token in (stops if isinstance(stops, list) else [stops]) if token is not None}

    @property
    def hidden_size(self) -> int:
        """How many numbers the residual stream has."""
        return int(self.config.hidden_size)

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
    def context_length(self) -> int | None:
        """The longest sequence the model takes, None where its config does not say."""
        length: int | None = getattr(self.config, "max_position_embeddings", None)
        return length

    @property
    def _embeddings(self) -> int:
        return int(self.config.vocab_size)

    def token_ids(
        self, texts: Sequence[str], special_tokens: bool = False, limit: int | None = None
    ) -> list[list[int]]:
        """Return the tokens of texts, each cut after ``limit``; ``UserError`` for one without an embedding."""
        cut = {"truncation": True, "max_length": limit} if limit is not None else {}
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=special_tokens, **cut)["input_ids"]
        highest = max((token for row in rows for token in row), default=0)
        if highest >= self._embeddings:
            name = self.tokenizer.convert_ids_to_tokens(highest)
            raise UserError(
                f"the tokenizer writes {name!r} as token {highest}, but the model has {self._embeddings} embeddings. "
                "Give the model its own tokenizer."
            )
        return rows


class SteerableModel(LanguageModel):
    """A loaded causal LM with its tokenizer, its decoder layers and the always-on steering hooks."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        from transformers import GenerationConfig

        super().__init__(model.config, tokenizer)
        self.model = model
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
        if tokenizer.pad_token_id is None:  # lm-eval pads with it; see pad_id for rows of our own
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
    def device(self) -> torch.device:
        """Where the inputs go: the device of the embeddings."""
        return device_of(self.model.get_input_embeddings())

    @property
    def layer_shares(self) -> dict[torch.device, float]:
        """Which share of the layers every device computes."""
        counts = Counter(map(device_of, self.layers))
        return {device: count / len(self.layers) for device, count in counts.items()}

    @property
    def exact(self) -> bool:
        """Whether a state differs by rounding in float32 alone where its batch does.

        Some quantised layers round by what else is in the batch, so they count as half precision.
        """
        return self.model.dtype == torch.float32 and getattr(self.model, "hf_quantizer", None) is None

    @property
    def stops(self) -> int | list[int] | None:
        """See ``LanguageModel``."""
        stops: int | list[int] | None = self.model.generation_config.eos_token_id
        return stops

    @property
    def pad_id(self) -> int:
        """The token that rows are filled up with. It is masked, so any that has an embedding will do."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in known if token is not None and 0 <= token < self._embeddings)

    @property
    def _embeddings(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    def encode(
        self, texts: Sequence[str], special_tokens: bool, side: str, limit: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` and ``attention_mask``, [texts, longest], padded on ``side``.

        A text of more than ``limit`` tokens is cut.
        """
        ids, mask = self.padded(self.token_ids(texts, special_tokens, limit), side)
        return {"input_ids": ids.to(self.device), "attention_mask": mask.long().to(self.device)}

    def padded(self, rows: Sequence[Sequence[int]], side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens padded on a side and which of them are real, [texts, longest] each, on the CPU."""
        lengths = torch.tensor([[len(row)] for row in rows])
        position = torch.arange(int(lengths.max()))[None, :]
        mask = position >= position.shape[1] - lengths if side == "left" else position < lengths
        ids = torch.full(mask.shape, self.pad_id)
        ids[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
        return ids, mask


def device_of(module: nn.Module) -> torch.device:
    """Return where a module computes.

    Its weights may be elsewhere: those that do not fit are fetched by accelerate for the length of a pass.
    """
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            device = getattr(each, "execution_device", None)
            if device is not None:
                return torch.device(device)
    return next(module.parameters()).device


def find_decoder(model: nn.Module) -> nn.Module:
    """Return the part of a model that runs the decoder layers, without the head."""
    named: Any = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]
    # Llama 4's text model names itself as its decoder, ModernBERT's a part of its head.
    others = (named, getattr(named, "model", None), getattr(model, "base_model", None))
    found: nn.Module = next((part for part in others if isinstance(part, nn.Module) and _layers_of(part)), named)
    return found


def find_layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder layers, in order; ``UserError`` where the architecture shows none."""
    layers = _layers_of(find_decoder(model))
    if layers is None:
        raise UserError(
            f"no decoder layers found in {type(model).__name__}; steering needs one list of layers that run in turn."
        )
    return layers


def _layers_of(decoder: nn.Module) -> nn.ModuleList | None:
    for owner in (decoder, getattr(decoder, "encoder", None)):  # what was made from an encoder keeps its names
        for name in ("layers", "h", "blocks", "layer"):
            layers = getattr(owner, name, None)
            if isinstance(layers, nn.ModuleList) and len(layers):
                return layers
    return None


def load_model(checkpoint: Checkpoint, dtype: str, device: str, device_map: str | None = None) -> SteerableModel:
    """Load a checkpoint, without running code that comes with it.

    ``device_map`` (such as ``auto``) spreads a large model over several GPUs, the CPU's memory and the disk, and then
    decides the device. Raises ``UserError`` where the files are not a causal language model, where they need a package
    that is missing, and where their quantisation computes in another precision than ``dtype``.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}; valid: {', '.join(DTYPES)}.")
    require_packages(checkpoint, device_map)
    placed = device_map or (device if checkpoint.quantised else None)  # what is quantised is not moved afterwards
    try:
        tokenizer = load_tokenizer(checkpoint)  # first: it fails sooner
        model: Any = load_network(checkpoint, torch_dtype(dtype), placed)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{checkpoint.path} cannot be loaded as a causal LM: {why_not_loaded(error)}") from None
    if stops := end_tokens(checkpoint, tokenizer):
        model.generation_config.eos_token_id = stops
    if not placed:
        model.to(device)
    if model.dtype != torch_dtype(dtype):
        computes = str(model.dtype).removeprefix("torch.")
        raise UserError(
            f"{checkpoint.name} ({checkpoint.quantised}) computes in {computes}, not {dtype}. Give --dtype."
        )
    found = SteerableModel(model, tokenizer)
    elsewhere = sum(any(weight.is_meta for weight in layer.parameters()) for layer in found.layers)
    if elsewhere:
        warn(
            f"{elsewhere} of {len(found.layers)} layers do not fit on {found.device} and are fetched for every token, "
            "which is slow. More GPUs or a quantised checkpoint avoid it."
        )
    return found
