"""Entries as points between two figures, and which of them no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from leaderboard.charts.scale import Scale, scale

WIDTH, HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 18, 48
_LETTER = 6.6  # pixels, a wide one at 12 pixels
_LINE = 15
_NAMED = 14  # points that get their name written, at most
_LONGEST = 34

Way = Literal["up", "down"]


@dataclass(frozen=True)
class Item:
    """What is to be drawn: two figures; ``low`` and ``high`` are the interval of y. ``kind``: the family."""

    name: str
    x: float
    y: float
    kind: str
    title: str
    href: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """An item in pixels; ``label`` is its name and where it stands, if there is room for it."""

    item: Item
    x: float
    y: float
    low: float | None
    high: float | None
    front: bool
    beyond: bool
    label: tuple[float, float, str, str] | None


@dataclass(frozen=True)
class Scatter:
    """Points between two axes. ``front``: corners of the line of those that no other beats."""

    x_title: str
    y_title: str
    x: Scale
    y: Scale
    points: list[Point]
    front: str
    width: int = WIDTH
    height: int = HEIGHT


def scatter(
    items: Sequence[Item], x_title: str, y_title: str, x_better: Way = "up", y_better: Way = "up"
) -> Scatter | None:
    """Lay out items; None where fewer than two are there.

    The axes hold what models wrote; a reference beyond stands at the border, as human text would squash the
    rest. The front is of entries that a model wrote and that carry no flag.
    """
    known = [item for item in items if math.isfinite(item.x) and math.isfinite(item.y)]
    written = [item for item in known if item.kind != "reference"]
    eligible = [item for item in written if item.kind != "flagged"]
    if len(written) < 2:
        return None
    x = scale((item.x for item in written), _LEFT, WIDTH - _RIGHT)
    ends = [end for item in written for end in (item.y, item.low, item.high) if end is not None]
    y = scale(ends, HEIGHT - _BOTTOM, _TOP)
    front = pareto(eligible, x_better, y_better)
    named = _named(written, front, y_better)
    taken: list[tuple[float, float, float, float]] = []
    points = [_point(item, x, y, item in front, item in named, taken) for item in _drawn(known, front)]
    return Scatter(x_title, y_title, x, y, points, _line(front, x, y))


def pareto(items: Sequence[Item], x_better: Way = "up", y_better: Way = "up") -> list[Item]:
    """Return the items that no other equals or beats in both figures and beats in one, from left to right."""
    right, up = (1 if way == "up" else -1 for way in (x_better, y_better))
    front: list[Item] = []
    for item in sorted(items, key=lambda it: (-right * it.x, -up * it.y, it.name)):
        if not front or up * item.y > up * front[-1].y or (item.x, item.y) == (front[-1].x, front[-1].y):
            front.append(item)
    return sorted(front, key=lambda it: (it.x, it.y, it.name))


def _drawn(items: Sequence[Item], front: Sequence[Item]) -> list[Item]:
    """Return items in the order of drawing: those of the front last, on top."""
    return sorted(items, key=lambda item: (item in front, item.kind != "reference"))


def _named(items: Sequence[Item], front: Sequence[Item], better: Way) -> list[Item]:
    """Return the items whose names are worth room: all of few, else the front and the best."""
    if len(items) <= _NAMED:
        return list(items)
    sign = -1 if better == "up" else 1
    best = sorted(items, key=lambda item: sign * item.y)
    return [*front, *(item for item in best if item not in front)][:_NAMED]


def _point(
    item: Item, x: Scale, y: Scale, front: bool, named: bool, taken: list[tuple[float, float, float, float]]
) -> Point:
    px, py = x.at(item.x), y.at(item.y)
    beyond = bool(x.beyond(item.x) or y.beyond(item.y))
    label = _label(item.name, px, py, taken) if named or item.kind == "reference" else None
    low, high = (None if end is None else y.at(end) for end in (item.low, item.high))
    return Point(item, px, py, low, high, front, beyond, label)


def _label(
    name: str, x: float, y: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, str, str] | None:
    """Return where a name fits beside its point without lying on another; None where it does not."""
    text = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    wide = _LETTER * len(text)
    places = [
        (x + side * 9, y + 4 + lift, "start" if side > 0 else "end")
        for lift in (0, -_LINE, _LINE, -2 * _LINE, 2 * _LINE)
        for side in (1, -1)
    ]
    for left, base, anchor in places:
        start = left if anchor == "start" else left - wide
        box = (start, base - 11, start + wide, base + 3)
        inside = box[0] >= _LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - _BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return round(left, 1), round(base, 1), anchor, text
    return None


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _line(front: Sequence[Item], x: Scale, y: Scale) -> str:
    return " ".join(f"{x.at(item.x)},{y.at(item.y)}" for item in front)
