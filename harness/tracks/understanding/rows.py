"""The rows of a batch: how each is steered, and which requests may not be computed as one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.interventions import Steering

UNSTEERED = Steering()


@dataclass(frozen=True)
class SteeredRow:
    """How one input of the model is steered: [length] tokens, the first ``end`` of them the context."""

    steering: Steering
    length: int
    end: int

    @property
    def kind(self) -> Hashable:
        """What two rows share that may be computed as one, their tokens being equal."""
        return id(self.steering), self.length, self.end


def incompatible(items: Sequence[tuple[Hashable, Hashable]]) -> list[list[int]]:
    """Return the positions of (key, kind) in as few parts as it takes for a key to have one kind in each."""
    parts: list[tuple[list[int], dict[Hashable, Hashable]]] = []
    for position, (key, kind) in enumerate(items):
        for members, kinds in parts:
            if kinds.setdefault(key, kind) == kind:
                members.append(position)
                break
        else:
            parts.append(([position], {key: kind}))
    return [members for members, _ in parts]


def split_batch(parts: list[list[int]], run: Callable[[list[int]], list[Any]]) -> list[Any]:
    """Return what ``run`` gives for the positions of every part, in the order of the positions."""
    found = {i: value for members in parts for i, value in zip(members, run(members), strict=True)}
    return [found[i] for i in range(len(found))]


def without_padding(tokens: list[int]) -> tuple[int, ...]:
    """Return tokens without the zeros at their end: these may be padding."""
    end = len(tokens)
    while end and tokens[end - 1] == 0:
        end -= 1
    return tuple(tokens[:end])


def nonzero(steering: Steering | None) -> Steering:
    """Return the steering, or the one empty steering where it changes nothing."""
    items = steering.interventions if steering else ()
    changes = any(item.raw_strength != 0 and item.vector.any() for item in items)
    return steering if steering and changes else UNSTEERED
