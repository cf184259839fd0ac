"""A cache whose rows come and go: texts of unlike length share one batch, and a new text takes the row of an old one.

All rows end at the same position and begin with padding: a text that enters is written so that its last token is
the cache's last, and attention masks what lies before its first. Padding that all rows share is cut off. Layers
without positions (convolutions and recurrences) hold one state per row.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

_EmptyLayer: Any = getattr(cache_utils, "DummyLayer", ())  # new in transformers 5.20
_ROOM = 32  # positions that can be written before keys and values are copied


class _Positions:
    """Mixed into transformers' layers: keys and values are written in place, into buffers with room to spare.

    ``keys`` and ``values``, [rows, heads, positions, size], hold ``used`` positions and then room, which the causal
    mask hides. Concatenation, as in transformers, would copy the whole cache for every token, and a view of what is
    used would not be contiguous, which attention on a CPU copies first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys: Any = None
        self.values: Any = None
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new positions; return all keys and values, after the first call with room."""
        new, more = (key_states, value_states), key_states.shape[-2]
        empty = self.keys is None
        if empty:
            self.keys, self.values = (_with_room(part, more) for part in new)
            self.is_initialized = True
        for buffer, part in zip((self.keys, self.values), new, strict=True):
            buffer[:, :, self.used : self.used + more] = part
        self.used += more
        return new if empty else (self.keys, self.values)

    def get_seq_length(self) -> int:
        """Return the number of positions in use."""
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next ``update`` gives, and the position of the first."""
        return (query_length if self.keys is None else self.keys.shape[-2]), 0

    def repack(self, rows: Tensor | None, drop: int) -> None:
        """Keep these rows in this order (a row may be repeated; None for all), without the first ``drop`` positions.

        A negative ``drop`` puts padding in front.
        """
        if self.keys is None:
            return
        length = self.used - drop
        found = []
        for old in (self.keys, self.values):
            kept = old[:, :, max(drop, 0) : self.used]
            kept = kept if rows is None else kept[rows.to(old.device)]  # layers may be on several devices
            new = _with_room(kept, length)
            new[:, :, : max(-drop, 0)] = 0
            new[:, :, max(-drop, 0) : length] = kept
            found.append(new)
        (self.keys, self.values), self.used = found, length

    def write(self, rows: Tensor, source: Any, of: Tensor, positions: int) -> None:
        """Replace the last positions of ``rows[i]`` by those of row ``of[i]`` of another layer."""
        if self.keys is not None:
            rows, of = rows.to(self.keys.device), of.to(self.keys.device)
            for buffer, new in zip((self.keys, self.values), (source.keys, source.values), strict=True):
                buffer[rows, :, self.used - positions : self.used] = new[of, :, source.used - positions : source.used]


def _with_room(like: Tensor, positions: int) -> Tensor:
    """Return a buffer of so many positions, which are to be written, and room."""
    buffer = like.new_empty(*like.shape[:2], positions + _ROOM, like.shape[3])
    buffer[:, :, positions:] = 0  # what the mask hides is still multiplied, by 0, so it must be finite
    return buffer


class _States:
    """Mixed into layers with convolutions or recurrences, whose states begin with the rows."""

    conv_states: dict[int, Tensor | None]
    recurrent_states: dict[int, Tensor | None]

    def repack(self, rows: Tensor | None, drop: int) -> None:
        """Keep these rows, as positions do."""
        if rows is not None:
            for states in (self.conv_states, self.recurrent_states):
                states.update({i: state[rows.to(state.device)] for i, state in states.items() if state is not None})
        if isinstance(self, _Positions):
            super().repack(rows, drop)  # type: ignore[misc]

    def write(self, rows: Tensor, source: Any, of: Tensor, positions: int) -> None:
        """Replace ``rows[i]`` by row ``of[i]`` of another layer."""
        for states, others in (
            (self.conv_states, source.conv_states),
            (self.recurrent_states, source.recurrent_states),
        ):
            for i, state in states.items():
                if state is not None:
                    state[rows.to(state.device)] = others[i][of.to(state.device)]
        if isinstance(self, _Positions):
            super().write(rows, source, of, positions)  # type: ignore[misc]


class _FullLayer(_Positions, DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    pass


class _SlidingLayer(_Positions, DynamicSlidingWindowLayer):  # type: ignore[misc]
    pass


class _StateLayer(_States, LinearAttentionLayer):  # type: ignore[misc]
    pass


class _HybridLayer(_States, _Positions, LinearAttentionAndFullAttentionLayer):  # type: ignore[misc]
    pass


class _HybridSlidingLayer(_States, _Positions, LinearAttentionAndSlidingWindowAttentionLayer):  # type: ignore[misc]
    pass


_WITHOUT_WINDOW: dict[type, type] = {
    DynamicLayer: _FullLayer,
    LinearAttentionLayer: _StateLayer,
    LinearAttentionAndFullAttentionLayer: _HybridLayer,
}
_WITH_WINDOW: dict[type, type] = {
    DynamicSlidingWindowLayer: _SlidingLayer,
    LinearAttentionAndSlidingWindowAttentionLayer: _HybridSlidingLayer,
}


class PackedCache(DynamicCache):  # type: ignore[misc]
    """Keys, values and states of the texts of one batch, whose rows can be replaced.

    Raises ``TypeError`` for a config with a kind of layer that is not known here.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [_packed(layer) for layer in DynamicCache(config=config).layers]

    @property
    def has_states(self) -> bool:
        """Whether any layer has a state per row: such layers read padding as if it were text."""
        return any(isinstance(layer, _States) for layer in self.layers)

    def repack(self, rows: Tensor | None = None, drop: int = 0) -> None:
        """Keep these rows in this order (a row may be repeated; None for all), without the first ``drop`` positions.

        A negative ``drop`` puts padding in front. Afterwards there is room for new positions.
        """
        for layer in self.layers:
            if not isinstance(layer, _EmptyLayer):
                layer.repack(rows, drop)

    def write(self, rows: Tensor, source: PackedCache, of: Tensor, positions: int) -> None:
        """Replace the last ``positions`` of ``rows[i]``, and its states, by those of row ``of[i]`` of another cache."""
        for layer, other in zip(self.layers, source.layers, strict=True):
            if not isinstance(layer, _EmptyLayer):
                layer.write(rows, other, of, positions)

    def take(self, rows: Tensor, drop: int) -> PackedCache:
        """Return what ``repack`` would make of this cache, which stays as it is."""
        found = copy(self)
        found.layers = [copy(layer) for layer in self.layers]
        for layer in found.layers:
            if isinstance(layer, _States):
                layer.conv_states, layer.recurrent_states = dict(layer.conv_states), dict(layer.recurrent_states)
        found.repack(rows, drop)
        return found

    @property
    def width(self) -> int:
        """Number of positions that attention is given, room included; 0 where nothing was read."""
        layers = (layer for layer in self.layers if isinstance(layer, _Positions) and layer.keys is not None)
        return max((int(layer.keys.shape[-2]) for layer in layers), default=0)

    @property
    def full(self) -> bool:
        """Whether there is no room for another position."""
        return any(
            isinstance(layer, _Positions) and layer.keys is not None and layer.used == layer.keys.shape[-2]
            for layer in self.layers
        )

    def bytes_per_row(self) -> tuple[int, int]:
        """Return the size of one position of one row, and of one row's states."""
        positions = states = 0
        for layer in self.layers:
            if isinstance(layer, _Positions) and layer.keys is not None:
                positions += sum(b[0, :, 0].numel() * b.element_size() for b in (layer.keys, layer.values))
            if isinstance(layer, _States):
                found = [*layer.conv_states.values(), *layer.recurrent_states.values()]
                states += sum(s[0].numel() * s.element_size() for s in found if s is not None)
        return positions, states


def _packed(layer: Any) -> Any:
    """Return an empty layer of our own for one of transformers'."""
    kind = type(layer)
    if isinstance(layer, _EmptyLayer):
        return layer
    options = {"number_of_states": layer.number_of_states} if hasattr(layer, "number_of_states") else {}
    if kind in _WITHOUT_WINDOW:
        return _WITHOUT_WINDOW[kind](**options)
    if kind in _WITH_WINDOW:
        return _WITH_WINDOW[kind](sliding_window=layer.sliding_window, **options)
    raise TypeError(f"rows cannot enter a cache of {kind.__name__}")
