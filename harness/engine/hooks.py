"""Applying interventions: always-on hooks at two sites of every decoder layer, driven by buffers.

A hook computes ``h x F[row] + V[row]`` out of place. Rows of one batch can carry different steering; a
row without steering, and every position outside of a row's span, stays as it is, bit for bit. Hooks are
attached once, before anything else, so that captures and compiled graphs see the steered state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness.core.errors import UnsupportedError, UserError
from harness.core.interventions import Intervention, Positions, Site, Steering

_FOREVER = torch.iinfo(torch.int64).max
_Effect = Literal["add", "factor"]
_NEUTRAL: dict[_Effect, float] = {"add": -0.0, "factor": 1.0}
"""What leaves every number as it is, bit for bit: 0.0 would turn -0.0 into 0.0."""


@dataclass
class _HookSlot:
    """What one site of one layer does to each row: tables [rows, size] and a span of positions.

    ``used`` says which rows are steered at all; ``start`` and ``stop`` bound their positions, and the
    positions from ``pad`` up to ``width`` are padding on the right.
    """

    used: Tensor
    start: Tensor
    stop: Tensor
    pad: Tensor
    width: int
    tables: dict[_Effect, Tensor] = field(default_factory=dict)

    def to(self, state: Tensor) -> None:
        """Move the buffers to the state's device and the tables to its precision, once."""
        for effect, table in self.tables.items():
            if table.device != state.device or table.dtype != state.dtype:
                self.tables[effect] = table.to(state.device, state.dtype)
        if self.start.device != state.device:
            for buffer in ("used", "start", "stop", "pad"):
                setattr(self, buffer, getattr(self, buffer).to(state.device))

    @property
    def size(self) -> int:
        """How many numbers a vector of this slot has."""
        return next(iter(self.tables.values())).shape[1]

    def inside(self, position: Tensor) -> Tensor:
        """Return which [rows, positions] are steered."""
        within = (position >= self.start[:, None]) & (position < self.stop[:, None])
        padding = (position >= self.pad[:, None]) & (position < self.width)
        return self.used[:, None] & within & ~padding


class SteeringHooks:
    """The hooks of one model. State lives in the instance: two models never interfere."""

    def __init__(self, decoder: nn.Module, layers: nn.ModuleList) -> None:
        self._layers = layers
        self._slots: dict[tuple[Site, int], _HookSlot] = {}
        self._past = 0
        decoder.register_forward_pre_hook(self._note_past, prepend=True, with_kwargs=True)
        for index, layer in enumerate(layers):
            layer.register_forward_hook(self._after_layer(index), prepend=True)
            projection = down_projection(layer)
            if projection is not None:
                projection.register_forward_pre_hook(self._before_projection(index), prepend=True)

    @contextmanager
    def steer(
        self, rows: Sequence[Steering], attention_mask: Tensor, prompt_ends: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Steer row i of every forward pass inside the block with ``rows[i]``.

        ``attention_mask``, [rows, prompt length], is the padded prompt's, on either side. Padding is
        never steered. ``generated`` means: the row's last prompt token, which predicts the first new
        one, and every position after the prompt; on the right, the pads between are left out.
        Where the mask covers more than the prompt, text that is only scored, ``prompt_ends[i]`` is the
        position after the last prompt token of row i, pads on the left counted.
        A block within a block steers alone. Raises ``UserError`` for a vector or a site that does not
        fit the model.
        """
        outer, self._slots = self._slots, {}
        try:
            self._set(rows, attention_mask, prompt_ends)
            yield
        finally:
            self._slots = outer

    @property
    def active(self) -> bool:
        """Say whether any layer is steered now."""
        return bool(self._slots)

    def _set(self, rows: Sequence[Steering], mask: Tensor, prompt_ends: Sequence[int] | None) -> None:
        if len(rows) != len(mask):
            raise ValueError(f"{len(rows)} steerings for {len(mask)} rows")
        real = mask.to("cpu", torch.int64)
        first = real.argmax(dim=1)  # index of the first token that is no padding
        end = (real * torch.arange(1, mask.shape[1] + 1)).amax(dim=1)  # after the last one; 0 for none
        prompts = _prompts(prompt_ends, first.tolist(), end.tolist())
        for i, steering in enumerate(rows):
            for item in steering.interventions:
                self._check(item)
                slot = self._slot(item, len(rows), end, mask.shape[1])
                self._enter(slot, i, item, *prompts[i])

    def _check(self, item: Intervention) -> None:
        if not 0 <= item.layer < len(self._layers):
            raise UserError(
                f"the steering is for layer {item.layer}, this model has layers 0 to "
                f"{len(self._layers) - 1}. Fit it on this model."
            )
        if item.site == "mlp_neurons":
            down_projection(self._layers[item.layer], required=item.layer)

    def _slot(self, item: Intervention, rows: int, end: Tensor, width: int) -> _HookSlot:
        """Return the slot of an intervention's site, made where it is the first one there."""
        place = (item.site, item.layer)
        if place not in self._slots:
            zeros = torch.zeros(rows, dtype=torch.int64)
            self._slots[place] = _HookSlot(zeros.bool(), zeros.clone(), zeros.clone(), end, width)
        slot = self._slots[place]
        effect: _Effect = "add" if item.operation == "add" else "factor"
        size = len(item.vector)
        if slot.tables and slot.size != size:
            raise UserError(f"vectors of two sizes at layer {item.layer}: {slot.size} and {size}.")
        if effect not in slot.tables:
            slot.tables[effect] = torch.full((rows, size), _NEUTRAL[effect])
        return slot

    @staticmethod
    def _enter(slot: _HookSlot, row: int, item: Intervention, first: int, end: int) -> None:
        """Put one intervention into the row's entry of the slot's tables."""
        start, stop = _position_range(item.positions, first, end)
        if slot.used[row] and (int(slot.start[row]), int(slot.stop[row])) != (start, stop):
            raise UserError("two interventions at one layer must share their positions.")
        vector = torch.from_numpy(np.array(item.vector, dtype=np.float32, order="C")) * item.raw_strength
        if item.operation == "add":
            total = slot.tables["add"][row] + vector
            slot.tables["add"][row] = total.masked_fill(total == 0, _NEUTRAL["add"])
        else:
            slot.tables["factor"][row] *= 1 + vector
        slot.used[row], slot.start[row], slot.stop[row] = True, start, stop

    def _note_past(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Note how many positions the cache holds before this pass: 0 without a cache.

        Families differ in the cache's name (``past_key_values``, ``layer_past``) and in whether it is
        named at all, so it is known by its kind.
        """
        cache = next((v for v in (*args, *kwargs.values()) if hasattr(v, "get_seq_length")), None)
        self._past = int(cache.get_seq_length()) if cache is not None else 0

    def _after_layer(self, index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            slot = self._slots.get(("layer_output", index))
            if slot is None:
                return output
            if isinstance(output, Tensor):
                return self._steered(slot, output, "hidden size")
            return (self._steered(slot, output[0], "hidden size"), *output[1:])

        return hook

    def _before_projection(self, index: int) -> Any:
        def hook(module: nn.Module, args: Any) -> Any:
            slot = self._slots.get(("mlp_neurons", index))
            if slot is None:
                return args
            return (self._steered(slot, args[0], "number of MLP neurons"), *args[1:])

        return hook

    def _steered(self, slot: _HookSlot, state: Tensor, measure: str) -> Tensor:
        """Return ``state`` [rows, positions, size] with the slot's tables applied inside the spans."""
        slot.to(state)
        if state.ndim != 3 or state.shape[0] != slot.used.shape[0]:
            raise ValueError(f"steering {slot.used.shape[0]} rows, got a state of {tuple(state.shape)}")
        if state.shape[2] != slot.size:
            raise UserError(
                f"the vector has {slot.size} numbers, the model's {measure} is {state.shape[2]}. Fit it on this model."
            )
        position = self._past + torch.arange(state.shape[1], device=state.device)
        steered = state
        if "factor" in slot.tables:
            steered = steered * slot.tables["factor"][:, None, :]
        if "add" in slot.tables:
            steered = steered + slot.tables["add"][:, None, :]
        return torch.where(slot.inside(position[None, :])[:, :, None], steered, state)


def _prompts(ends: Sequence[int] | None, first: list[int], end: list[int]) -> list[tuple[int, int]]:
    """Return where the prompt of every row begins and where it has ended."""
    if ends is None:
        return list(zip(first, end, strict=True))
    if len(ends) != len(end):
        raise ValueError(f"{len(ends)} ends of prompts for {len(end)} rows")
    for i, stop in enumerate(ends):
        if not first[i] < stop <= end[i]:
            raise ValueError(f"row {i}: the prompt ends at {stop}, its text is {first[i]} to {end[i]}")
    return list(zip(first, ends, strict=True))


def _position_range(positions: Positions, first: int, end: int) -> tuple[int, int]:
    """Return the half-open range of steered positions of a row whose prompt is first to end."""
    if positions == "prompt":
        return first, end - 1
    if positions == "generated":
        return end - 1, _FOREVER
    return first, _FOREVER


def down_projection(layer: nn.Module, required: int | None = None) -> nn.Module | None:
    """Return ``down_proj`` of a layer's gated MLP, or None where it has none.

    With ``required``, the layer's index, raises ``UnsupportedError`` instead, saying what stands there.
    """
    mlp: Any = getattr(layer, "mlp", None)
    gated = any(hasattr(mlp, name) for name in ("gate_proj", "gate_up_proj"))
    if gated and hasattr(mlp, "down_proj") and not hasattr(mlp, "experts"):
        projection: nn.Module = mlp.down_proj
        return projection
    if required is None:
        return None
    raise UnsupportedError(_refusal(layer, mlp, required))


def _refusal(layer: nn.Module, mlp: Any, index: int) -> str:
    experts = [name for name, _ in layer.named_modules() if name.split(".")[-1] == "experts"]
    if experts:
        return (
            f"layer {index} of this model is a mixture of experts ({type(layer).__name__}, {experts[0]}): "
            "which neurons a token meets is the router's choice, so they have no mean over texts. "
            "Use a dense model, or a method that adds a vector."
        )
    kind = type(mlp).__name__ if mlp is not None else f"no 'mlp' in {type(layer).__name__}"
    return (
        f"layer {index} of this model has no gated MLP with a down_proj ({kind}). Neuron steering needs "
        "one, as Llama, Gemma, Qwen, Mistral and Phi-3 have; use a method that adds a vector."
    )


def has_sandwich_norm(layer: nn.Module) -> bool:
    """Say whether a norm follows the MLP inside the layer (Gemma 2 and 3, GLM-4).

    There only the relative change between neurons reaches the residual stream, so that gains saturate.
    """
    names = ("post_feedforward_layernorm", "post_mlp_layernorm")
    return any(hasattr(layer, name) for name in names)
