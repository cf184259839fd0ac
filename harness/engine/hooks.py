"""Applying interventions: always-on hooks at two sites of every decoder layer, driven by buffers.

A hook computes ``h x F[row] + V[row]`` out of place. Rows of one batch can carry different steering; a
row without steering, and every position outside of a row's range, stays as it is, bit for bit. Hooks are
attached once, before anything else, so that captures and compiled graphs see the steered state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
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
    """What one site of one layer does to each row: tables [rows, size] and a range of positions.

    ``used``: which rows are steered at all; ``start`` and ``stop`` bound their positions, and the
    positions from ``pad`` up to ``width`` are padding on the right. ``everywhere``: the tables hold for all
    positions, with what changes nothing for rows that are not steered; a table of one row is for all.
    """

    used: Tensor
    start: Tensor
    stop: Tensor
    pad: Tensor
    width: int
    everywhere: bool = False
    tables: dict[_Effect, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return next(iter(self.tables.values())).shape[1]

    def apply(self, state: Tensor, past: int, measure: str) -> Tensor:
        """Return ``state`` [rows, positions, size] with the tables applied inside the ranges."""
        if state.ndim != 3 or not (state.shape[0] == len(self.used) or (self.everywhere and len(self.used) == 1)):
            raise ValueError(f"steering {len(self.used)} rows, got a state of {tuple(state.shape)}")
        if state.shape[2] != self.size:
            raise UserError(
                f"the vector has {self.size} numbers, the model's {measure} is {state.shape[2]}. Fit it on this model."
            )
        for effect, table in self.tables.items():  # moved once, in the first pass
            self.tables[effect] = table.to(state.device, state.dtype)
        if self.everywhere:
            return self._steered(state)
        for name in ("used", "start", "stop", "pad"):
            setattr(self, name, getattr(self, name).to(state.device))
        position = past + torch.arange(state.shape[1], device=state.device)[None, :]
        within = (position >= self.start[:, None]) & (position < self.stop[:, None])
        padding = (position >= self.pad[:, None]) & (position < self.width)
        return torch.where((self.used[:, None] & within & ~padding)[:, :, None], self._steered(state), state)

    def _steered(self, state: Tensor) -> Tensor:
        if "factor" in self.tables:
            state = state * self.tables["factor"][:, None, :]
        if "add" in self.tables:
            state = state + self.tables["add"][:, None, :]
        return state


SteeringTables = dict[tuple[Site, int], _HookSlot]
"""What is done at each site of each layer."""


class SteeringHooks:
    """The hooks of one model. State lives in the instance: two models never interfere."""

    def __init__(self, decoder: nn.Module, layers: nn.ModuleList) -> None:
        self._layers = layers
        self._slots: SteeringTables = {}
        self._past = 0
        decoder.register_forward_pre_hook(self._note_past, prepend=True, with_kwargs=True)
        for index, layer in enumerate(layers):
            after = partial(self._hook, ("layer_output", index), "hidden size")
            layer.register_forward_hook(lambda module, args, output, steer=after: steer(output), prepend=True)
            projection = down_projection(layer)
            if projection is not None:
                before = partial(self._hook, ("mlp_neurons", index), "number of MLP neurons")
                projection.register_forward_pre_hook(lambda module, args, steer=before: steer(args), prepend=True)

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
        with self.use({}):
            self._set(rows, attention_mask, prompt_ends)
            yield

    def tables_after_prompts(self, rows: Sequence[Steering]) -> SteeringTables:
        """Return the tables that steer every position after the rows' prompts, for ``use``.

        Raises ``UserError`` as ``steer`` does.
        """
        distinct = list({id(steering): steering for steering in rows}.values())
        after = [tuple(item for item in steering.interventions if item.positions != "prompt") for steering in distinct]
        ends = torch.ones(len(distinct), dtype=torch.int64)
        slots: SteeringTables = {}
        for i, items in enumerate(after):
            for item in items:
                self._enter(self._slot(slots, item, ends, 1), i, item, 0, 1)
        number = {id(steering): i for i, steering in enumerate(distinct)}
        index = torch.tensor([number[id(steering)] for steering in rows])
        for slot in slots.values():
            slot.everywhere = True
            if len(distinct) > 1:  # one row for all is broadcast
                slot.used = slot.used[index]
                slot.tables = {effect: table[index] for effect, table in slot.tables.items()}
        return slots

    @contextmanager
    def use(self, tables: SteeringTables) -> Iterator[None]:
        """Steer every forward pass inside the block by ``tables``; a block within a block steers alone."""
        outer, self._slots = self._slots, tables
        try:
            yield
        finally:
            self._slots = outer

    @property
    def active(self) -> bool:
        """Whether any layer is steered now."""
        return bool(self._slots)

    def _set(self, rows: Sequence[Steering], mask: Tensor, prompt_ends: Sequence[int] | None) -> None:
        if len(rows) != len(mask):
            raise ValueError(f"{len(rows)} steerings for {len(mask)} rows")
        real = mask.to("cpu", torch.int64)
        first = real.argmax(dim=1).tolist()  # index of the first token that is not padding
        end = (real * torch.arange(1, mask.shape[1] + 1)).amax(dim=1)  # after the last one; 0 for none
        stops = end.tolist() if prompt_ends is None else list(prompt_ends)
        if len(stops) != len(rows):
            raise ValueError(f"{len(stops)} ends of prompts for {len(rows)} rows")
        for i, steering in enumerate(rows):
            if prompt_ends is not None and not first[i] < stops[i] <= end[i]:
                raise ValueError(f"row {i}: the prompt ends at {stops[i]}, its text is {first[i]} to {int(end[i])}")
            for item in steering.interventions:
                self._enter(self._slot(self._slots, item, end, mask.shape[1]), i, item, first[i], stops[i])

    def _slot(self, slots: SteeringTables, item: Intervention, end: Tensor, width: int) -> _HookSlot:
        """Return the slot of an intervention's site, made where it is the first one there."""
        if not 0 <= item.layer < len(self._layers):
            raise UserError(
                f"the steering is for layer {item.layer}, this model has layers 0 to "
                f"{len(self._layers) - 1}. Fit it on this model."
            )
        if item.site == "mlp_neurons":
            down_projection(self._layers[item.layer], required=item.layer)
        rows, size = len(end), len(item.vector)
        slot = slots.get((item.site, item.layer))
        if slot is None:
            zeros = torch.zeros(rows, dtype=torch.int64)
            slot = _HookSlot(zeros.bool(), zeros.clone(), zeros.clone(), end, width)
            slots[item.site, item.layer] = slot
        if slot.tables and slot.size != size:
            raise UserError(f"vectors of two sizes at layer {item.layer}: {slot.size} and {size}.")
        effect: _Effect = "add" if item.operation == "add" else "factor"
        if effect not in slot.tables:
            slot.tables[effect] = torch.full((rows, size), _NEUTRAL[effect])
        return slot

    @staticmethod
    def _enter(slot: _HookSlot, row: int, item: Intervention, first: int, end: int) -> None:
        """Put one intervention into the row's entry of the slot's tables."""
        start, stop = position_range(item.positions, first, end)
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
        named at all, so it is recognised by its method.
        """
        cache = next((v for v in (*args, *kwargs.values()) if hasattr(v, "get_seq_length")), None)
        try:
            self._past = int(cache.get_seq_length()) if cache is not None else 0
        except ValueError:  # a cache of states alone counts no positions; ``use`` needs none
            self._past = 0

    def _hook(self, site: tuple[Site, int], measure: str, value: Any) -> Any:
        """Return a layer's output, or a projection's arguments, steered: a tensor, or a tuple that starts with one."""
        slot = self._slots.get(site)
        if slot is None:
            return value
        if isinstance(value, Tensor):
            return slot.apply(value, self._past, measure)
        return (slot.apply(value[0], self._past, measure), *value[1:])


def position_range(positions: Positions, first: int, end: int) -> tuple[int, int]:
    """Return the half-open range of steered positions of a row whose prompt is first to end."""
    if positions == "prompt":
        return first, end - 1
    return (end - 1 if positions == "generated" else first), _FOREVER


def down_projection(layer: nn.Module, required: int | None = None) -> nn.Module | None:
    """Return ``down_proj`` of a layer's gated MLP, or None where it has none.

    Its input is act(gate(h)) x up(h), the neurons of arXiv 2601.16390, in every family with a gated MLP,
    whether gate and up are two matrices (Llama, Gemma, Qwen, Mistral) or one (Phi-3).
    With ``required``, the layer's index, raises ``UnsupportedError`` instead of returning None.
    """
    mlp: Any = getattr(layer, "mlp", None)
    gated = any(hasattr(mlp, name) for name in ("gate_proj", "gate_up_proj"))
    if gated and hasattr(mlp, "down_proj") and not hasattr(mlp, "experts"):
        projection: nn.Module = mlp.down_proj
        return projection
    if required is None:
        return None
    experts = [name for name, _ in layer.named_modules() if name.split(".")[-1] == "experts"]
    if experts:
        raise UnsupportedError(
            f"layer {required} of this model is a mixture of experts ({type(layer).__name__}, {experts[0]}): "
            "which neurons a token meets is the router's choice, so they have no mean over texts. "
            "Use a dense model, or a method that adds a vector."
        )
    kind = type(mlp).__name__ if mlp is not None else f"no 'mlp' in {type(layer).__name__}"
    raise UnsupportedError(
        f"layer {required} of this model has no gated MLP with a down_proj ({kind}). Neuron steering needs "
        "one, as Llama, Gemma, Qwen, Mistral and Phi-3 have; use a method that adds a vector."
    )


def has_sandwich_norm(layer: nn.Module) -> bool:
    """Return whether a norm follows the MLP inside the layer (Gemma 2 and 3, GLM-4).

    There only the relative change between neurons reaches the residual stream, so that gains saturate.
    """
    return any(hasattr(layer, name) for name in ("post_feedforward_layernorm", "post_mlp_layernorm"))
