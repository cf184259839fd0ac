"""The plots of a board: diversity and cost against gain, with their Pareto fronts; and the sweeps as heat maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from harness.core.records import IMPORTED, GridPoint
from harness.ranking.results import BASELINE
from harness.ranking.summary import digits_of, format_interval, format_number
from harness.scoring.metrics import VENDI
from leaderboard.boards import Board
from leaderboard.charts import heatmap, scale, without_outliers
from leaderboard.rendering import BETTER
from leaderboard.text import name_of
from leaderboard.views.slices import kind_of

WIDTH, HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 18, 48
_LETTER, _WIDE_LETTER = 6.6, 12.5  # pixels of one at 12 pixels: of Latin, and of all other scripts
_RINGS = (10, 20, 32, 46, 62)  # pixels between a point and its name; from the second on a line joins them
_NAMED = 14  # points that get their name written, at most
_LONGEST = 34

_DOT = 7  # pixels from the middle of a point that no name may cover
_WAYS = ((1, 0), (-1, 0), (0.7, -1), (0.7, 1), (-0.7, -1), (-0.7, 1), (0, -1.2), (0, 1.2))

Way = Literal["up", "down"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_POINTS = 1000  # of a sweep, at most


class Sweep(NamedTuple):
    """The grid results of one method; ``of``: the model."""

    method: str
    of: str
    map: dict[str, Any]


def diversity(board: Board) -> dict[str, Any] | None:
    """Return diversity (Vendi) against the gain over zero-shot, with the Pareto front."""
    metric = VENDI.for_provider("tfidf")
    levels = {row.row.id: board.level(metric, row.row.id) for row in board.standings.rows}
    shown = {name: f"{metric.title} {format_number(x, digits_of(metric.name))}" for name, x in levels.items()}
    return _against_gain(board, levels, shown, f"{metric.title} ({BETTER[metric.direction]})", "up")


def cost(board: Board) -> dict[str, Any] | None:
    """Return seconds per 1,000 valid texts against the gain over zero-shot."""
    seconds = {
        row.row.id: board.costs[row.row.id].seconds_per_1000_valid
        for row in board.standings.rows
        if row.row.id in board.costs and not row.reference
    }
    shown = {name: f"{x:,.0f} s for 1,000 valid texts" for name, x in seconds.items() if x is not None}
    return _against_gain(board, seconds, shown, "seconds for 1,000 valid texts (lower is better)", "down")


def _against_gain(
    board: Board, levels: Mapping[str, float | None], shown: Mapping[str, str], title: str, better: Way
) -> dict[str, Any] | None:
    """Return a plot of a quantity of entries (``levels``, ``shown`` in words) against their gain with its interval."""
    items = []
    for standing in board.standings.rows:
        row, gain = standing.row, standing.over_zero_shot
        x = levels.get(row.id)
        y = gain.mean if gain else 0.0 if standing.mean and row.entry.method.name == BASELINE else None
        if x is None or y is None:
            continue
        name = name_of(row.name)
        words = f"{name}: {shown[row.id]}, gain {format_interval(gain) if gain else '0 by definition'}"
        low, high = (gain.low, gain.high) if gain else (None, None)
        items.append(ScatterItem(name, x, y, kind_of(board, standing), words, board.page(row.id), low, high))
    gains = f"gain over zero-shot in {board.headline.title}"
    return scatter(items, title, gains, better, "down" if board.headline.direction == "down" else "up")


def sweeps(surfaces: Iterable[tuple[str, list[GridPoint]]]) -> list[Sweep]:
    """Return the heat maps of tuned methods; ``surfaces``: where a sweep comes from, and its points.

    A method with more than ``_POINTS`` of them, or with points of different fields, has none.
    """
    found = []
    for of, points in surfaces:
        by_method: dict[str, list[GridPoint]] = {}
        for point in points:
            by_method.setdefault(point.method, []).append(point)
        found += [
            Sweep(method, of, heatmap(method, own))
            for method, own in sorted(by_method.items())
            if len(own) <= _POINTS
            and own[0].options
            and all(point.options.keys() == own[0].options.keys() for point in own)
        ]
    return found


# Scatter plots


class ScatterItem(NamedTuple):
    """One entry: two quantities; ``low`` and ``high`` are the interval of y. ``kind``: of row, or flagged."""

    name: str
    x: float
    y: float
    kind: str
    title: str
    href: str = ""
    low: float | None = None
    high: float | None = None


class Label(NamedTuple):
    """A name next to a point, in pixels: ``x`` is where it is anchored; ``line`` joins it to the point."""

    x: float
    y: float
    anchor: str
    text: str
    line: str = ""


def scatter(
    items: Sequence[ScatterItem], x_title: str, y_title: str, x_better: Way = "up", y_better: Way = "up"
) -> dict[str, Any] | None:
    """Lay out items, in pixels; None where fewer than two are there.

    The axes hold the field, without flagged entries and outliers; what is beyond stands at the border with
    an arrow, as human-written text would squash the rest. ``front``: the corners of the line through the entries
    that no other beats, of those that a model wrote and that have no flag.
    """
    known = [item for item in items if math.isfinite(item.x) and math.isfinite(item.y)]
    written = [item for item in known if item.kind != "reference"]
    eligible = [item for item in written if item.kind != "flagged"]
    if len(written) < 2:
        return None
    field = eligible if len(eligible) > 1 else written
    x = scale(without_outliers(item.x for item in field), _LEFT, WIDTH - _RIGHT)
    ends = [end for item in field for end in (item.y, item.low, item.high) if end is not None]
    y = scale(without_outliers(ends), HEIGHT - _BOTTOM, _TOP)
    front = pareto(eligible, x_better, y_better)
    named = _named(written, front, y_better)
    drawn = sorted(known, key=lambda item: (item in front, item.kind != "reference"))  # the front on top
    taken = [(x.at(i.x) - _DOT, y.at(i.y) - _DOT, x.at(i.x) + _DOT, y.at(i.y) + _DOT) for i in drawn]
    beyond = {item: _ARROWS[y.beyond(item.y)][x.beyond(item.x) + 1] for item in drawn}
    labels = {}
    for item in [*front, *(item for item in reversed(drawn) if item not in front)]:
        if item in named or item.kind == "reference":
            name = item.name if len(item.name) <= _LONGEST else f"{item.name[: _LONGEST - 1]}…"
            labels[item] = _label(f"{name} {beyond[item]}".rstrip(), x.at(item.x), y.at(item.y), taken)
    points = [
        {
            "item": item,
            "x": x.at(item.x),
            "y": y.at(item.y),
            "low": None if item.low is None else y.at(item.low),
            "high": None if item.high is None else y.at(item.high),
            "front": item in front,
            "beyond": beyond[item],
            "label": labels.get(item),
        }
        for item in drawn
    ]
    corners = " ".join(f"{x.at(item.x)},{y.at(item.y)}" for item in front)
    axes = {"x": x, "y": y, "x_title": x_title, "y_title": y_title, "width": WIDTH, "height": HEIGHT}
    rare = {kind: any(item.kind == kind for item in drawn) for kind in ("prompting", IMPORTED)}  # named where it is
    return {**axes, "points": points, "front": corners, **rare}


def pareto(items: Sequence[ScatterItem], x_better: Way = "up", y_better: Way = "up") -> list[ScatterItem]:
    """Return the items that no other equals or beats in both figures and beats in one, from left to right."""
    right, up = (1 if way == "up" else -1 for way in (x_better, y_better))
    front: list[ScatterItem] = []
    for item in sorted(items, key=lambda it: (-right * it.x, -up * it.y, it.name)):
        if not front or up * item.y > up * front[-1].y or (item.x, item.y) == (front[-1].x, front[-1].y):
            front.append(item)
    return sorted(front, key=lambda it: (it.x, it.y, it.name))


def _named(items: Sequence[ScatterItem], front: Sequence[ScatterItem], better: Way) -> list[ScatterItem]:
    """Return the items whose names are worth room: all of few, else the front and the best."""
    if len(items) <= _NAMED:
        return list(items)
    sign = -1 if better == "up" else 1
    best = sorted(items, key=lambda item: sign * item.y)
    return [*front, *(item for item in best if item not in front)][:_NAMED]


_ARROWS = {1: "↖↑↗", 0: ("←", "", "→"), -1: "↙↓↘"}


def _label(text: str, x: float, y: float, taken: list[Box]) -> Label | None:
    """Return a name as near to its point as it fits without lying on another name or point; else None."""
    wide = sum(_LETTER if letter < "\u0250" else _WIDE_LETTER for letter in text)
    for ring in _RINGS:
        for across, down in _WAYS:
            at, base = x + across * ring, y + 4 + down * ring
            left = at if across > 0 else at - wide if across < 0 else at - wide / 2
            box = (left, base - 13, left + wide, base + 4)
            inside = box[0] >= _LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - _BOTTOM
            if inside and not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
            ):
                taken.append(box)
                anchor = {1: "start", -1: "end", 0: "middle"}[(across > 0) - (across < 0)]
                line = f"M{x:.1f} {y:.1f}L{at:.1f} {base - 4:.1f}" if ring > _RINGS[0] else ""
                return Label(round(at, 1), round(base, 1), anchor, text, line)
    return None
