"""Applying interventions: one always-on hook per decoder layer, driven by buffers.

The hook computes ``h + V[row]`` out of place. Row 0 of the table V is exact zeros, so rows of one
batch can carry different steering, and a row without steering stays as it is, bit for bit. It is
attached once, before anything else, so that captures and compiled graphs see the steered state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.steering.interventions import Positions, Steering

_FOREVER = torch.iinfo(torch.int64).max


class SteeringHooks:
    """The hooks of one model. State lives in the instance: two models never interfere."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self._tables: list[Tensor | None] = [None] * len(layers)
        self._starts: list[Tensor | None] = [None] * len(layers)
        self._stops: list[Tensor | None] = [None] * len(layers)
        for index, layer in enumerate(layers):
            layer.register_forward_hook(self._hook(index), prepend=True, with_kwargs=True)

    @contextmanager
    def steer(self, rows: Sequence[Steering], attention_mask: Tensor) -> Iterator[None]:
        """Steer row i of every forward pass inside the block with ``rows[i]``.

        ``attention_mask``, [rows, prompt length], is the padded prompt's: padding is never
        steered, and ``generated`` starts at the last prompt position, which predicts the first new
        token. Raises ``UserError`` for a vector that does not fit the model.
        """
        try:
            self._set(rows, attention_mask)
            yield
        finally:
            self._tables = [None] * len(self._tables)
            self._starts = [None] * len(self._starts)
            self._stops = [None] * len(self._stops)

    @property
    def active(self) -> bool:
        """Say whether any layer is steered now."""
        return any(table is not None for table in self._tables)

    def _set(self, rows: Sequence[Steering], mask: Tensor) -> None:
        if len(rows) != len(mask):
            raise ValueError(f"{len(rows)} steerings for {len(mask)} rows")
        first = mask.to(torch.int64).argmax(dim=1)  # index of the first token that is no padding
        for i, steering in enumerate(rows):
            for item in steering.interventions:
                if not 0 <= item.layer < len(self._tables):
                    raise UserError(
                        f"the steering is for layer {item.layer}, this model has layers 0 to "
                        f"{len(self._tables) - 1}. Fit it on this model."
                    )
                self._add(i, item.layer, item, first, mask.shape[1])

    def _add(self, row: int, layer: int, item: Any, first: Tensor, width: int) -> None:
        """Add one intervention to the row's entry of the layer's table."""
        vector = torch.from_numpy(np.array(item.vector, dtype=np.float32, order="C")) * item.raw_strength
        table = self._tables[layer]
        start, stop = _span(item.positions, int(first[row]), width)
        if table is None:
            table = self._tables[layer] = torch.zeros(len(first), len(vector))
            self._starts[layer] = torch.full((len(first),), start, dtype=torch.int64)
            self._stops[layer] = torch.full((len(first),), stop, dtype=torch.int64)
        starts, stops = self._starts[layer], self._stops[layer]
        assert starts is not None and stops is not None
        if len(vector) != table.shape[1]:
            raise UserError(f"vectors of two sizes at layer {layer}: {table.shape[1]} and {len(vector)}.")
        if table[row].any() and (int(starts[row]), int(stops[row])) != (start, stop):
            raise UserError("two interventions at one layer must share their positions.")
        starts[row], stops[row] = start, stop
        table[row] += vector

    def _hook(self, index: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            if self._tables[index] is None:
                return output
            inputs = (*args, *kwargs.values())
            if isinstance(output, Tensor):
                return self._steered(index, output, inputs)
            return (self._steered(index, output[0], inputs), *output[1:])

        return hook

    def _steered(self, index: int, hidden: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        """Return ``hidden`` [rows, positions, size] plus the table, inside each row's span."""
        table, start, stop = self._local(index, hidden)
        if hidden.ndim != 3 or hidden.shape[0] != table.shape[0]:
            raise ValueError(f"steering {table.shape[0]} rows, got a state of {tuple(hidden.shape)}")
        if hidden.shape[2] != table.shape[1]:
            raise UserError(
                f"the vector has {table.shape[1]} numbers, the model's hidden size is "
                f"{hidden.shape[2]}. Fit it on this model."
            )
        position = self._offset(hidden, inputs) + torch.arange(hidden.shape[1], device=hidden.device)
        inside = (position >= start[:, None]) & (position < stop[:, None])
        return hidden + inside[:, :, None].to(hidden.dtype) * table[:, None, :]

    def _local(self, index: int, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's buffers, moved once to the layer's own device and dtype."""
        table, start, stop = self._tables[index], self._starts[index], self._stops[index]
        assert table is not None and start is not None and stop is not None
        if table.device != hidden.device or table.dtype != hidden.dtype:
            table = self._tables[index] = table.to(hidden.device, hidden.dtype)
            start = self._starts[index] = start.to(hidden.device)
            stop = self._stops[index] = stop.to(hidden.device)
        return table, start, stop

    @staticmethod
    def _offset(hidden: Tensor, inputs: tuple[Any, ...]) -> int:
        """Index of the first position of this pass: 0 without a cache, else after what it held.

        The layer has already written its keys when the hook runs. Families differ in the cache's name
        (``past_key_values``, ``layer_past``) and in whether it is named at all, so it is known by its kind.
        """
        cache = next((value for value in inputs if hasattr(value, "get_seq_length")), None)
        return int(cache.get_seq_length()) - hidden.shape[1] if cache is not None else 0


def _span(positions: Positions, first: int, width: int) -> tuple[int, int]:
    """Return the half-open range of steered positions of a row whose padding ends at ``first``."""
    if positions == "prompt":
        return first, width - 1
    if positions == "generated":
        return width - 1, _FOREVER
    return first, _FOREVER
