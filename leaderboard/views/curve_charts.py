"""The charts of data-size curves in pixels: lines, bands and their names on axes that all charts of a section share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from harness.ranking.curves import Curve
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_number
from leaderboard.charts import Scale, scale

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 36, 90, 22, 36

_LINE = 13  # pixels between two labels
_TICK = 26  # pixels between two ticks

Known = Sequence[tuple[int, Estimate | None]]
"""A line: n, and what was measured there."""


class EndLabel(NamedTuple):
    """The name of a line at its right end, in pixels; ``kind``: ``own``, ``mixed`` or ``human``."""

    kind: str
    x: float
    y: float
    text: str


class CurveAxes(NamedTuple):
    """The axes that all charts of a section share: log10 of n, and macro-F1. ``ticks``: of n, pixel and text."""

    x: Scale
    y: Scale
    ticks: list[tuple[float, str]]

    def at(self, n: int) -> float:
        """Return the pixel of so many texts per label."""
        return self.x.at(math.log10(n))


def curve_axes(curves: Sequence[Curve]) -> CurveAxes:
    """Return axes that hold all lines and bands."""
    numbers = sorted({point.n for curve in curves for point in curve.points})
    start, stop = math.log10(numbers[0]), math.log10(numbers[-1])
    if start == stop:
        start, stop = start - 0.5, stop + 0.5
    x = Scale(start, stop, 1.0, LEFT, WIDTH - RIGHT)
    found = [estimate for curve in curves for _, estimate in (*_value(curve), *mixed(curve)) if estimate]
    ends = [end for item in found for end in (item.mean, item.low, item.high) if end is not None]
    ends = [min(max(end, 0.0), 1.0) for end in ends]  # an interval may leave the range of macro-F1, the axis does not
    ticks: list[tuple[float, str]] = []
    for n in numbers:
        at = x.at(math.log10(n))
        if not ticks or at - ticks[-1][0] >= _TICK:
            ticks.append((at, f"{n:,}"))
    return CurveAxes(x, scale(ends, HEIGHT - BOTTOM, TOP, ticks=3), ticks)


def curve_chart(curve: Curve, human: Curve | None, axes: CurveAxes, few: str) -> dict[str, Any]:
    """Lay out an entry's lines and band over those of human-written text.

    ``few``: how many human-written texts the mixed line adds, in words. ``lines``, ``bands``: paths of SVG by kind
    (``own``, ``mixed``, ``human``); ``dots``: x and y; ``labels``; ``words``: all numbers of the lines, as a text.
    """
    lines: dict[str, tuple[Known, str]] = {
        "own": (_value(curve), "synthetic"),
        "mixed": (mixed(curve), together(few, "n")),
    }
    if human:
        lines["human"] = (_value(human), "human")
    return {
        "words": " ".join(_in_words(points, said) for points, said in lines.values() if points),
        "lines": {kind: _line(points, axes) for kind, (points, _) in lines.items()},
        "bands": {kind: _band(lines[kind][0], axes) for kind in ("own", "human") if kind in lines},
        "dots": [(axes.at(n), axes.y.at(estimate.mean)) for n, estimate in lines["own"][0] if estimate],
        "labels": _labels(lines, axes),
    }


def together(few: str, n: str) -> str:
    """Return the name of a few human-written texts with n of an entry."""
    return f"{few} human + {n}".lstrip()


def _value(curve: Curve) -> Known:
    return [(point.n, point.value) for point in curve.points]


def mixed(curve: Curve) -> Known:
    """Return the line of an entry's texts with a few human-written ones; empty without any."""
    found = [(point.n, point.mixed) for point in curve.points]
    return found if any(estimate for _, estimate in found) else []


def measured(curve: Curve) -> bool:
    """Return whether a curve has any point."""
    return any(point.value for point in curve.points)


def _runs(points: Known, interval: bool = False) -> list[list[tuple[int, Estimate]]]:
    """Return the stretches of a line without a gap; ``interval``: a point without one is a gap."""
    found = groupby(points, key=lambda point: point[1] is not None and (not interval or point[1].low is not None))
    return [[(n, estimate) for n, estimate in run if estimate] for known, run in found if known]


def _line(points: Known, axes: CurveAxes) -> str:
    runs = [[f"{axes.at(n)} {axes.y.at(estimate.mean)}" for n, estimate in run] for run in _runs(points)]
    return "".join("M" + "L".join(run) for run in runs)


def _band(points: Known, axes: CurveAxes) -> str:
    """Return the 95 % band of a line: along its upper ends, then back along the lower ones."""
    found = ""
    for run in _runs(points, interval=True):
        upper = [(axes.at(n), axes.y.at(item.mean if item.high is None else item.high)) for n, item in run]
        lower = [(axes.at(n), axes.y.at(item.mean if item.low is None else item.low)) for n, item in reversed(run)]
        found += "M" + "L".join(f"{x} {y}" for x, y in [*upper, *lower]) + "Z"
    return found


def _labels(lines: dict[str, tuple[Known, str]], axes: CurveAxes) -> list[EndLabel]:
    """Return the names of the lines at their right ends, moved apart where they would lie on one another."""
    ends = []
    for kind, (points, text) in lines.items():
        known = [(n, estimate) for n, estimate in points if estimate]
        if known:
            ends.append(EndLabel(kind, axes.at(known[-1][0]) + 6, axes.y.at(known[-1][1].mean), text))
    ends.sort(key=lambda label: label.y)
    top = TOP + 4.0
    placed = []
    for i, label in enumerate(ends):
        lowest = HEIGHT - BOTTOM - _LINE * (len(ends) - 1 - i)  # leaves room for those below
        y = max(top, min(label.y + 4, lowest))
        placed.append(label._replace(y=round(y, 1)))
        top = y + _LINE
    return placed


def _in_words(points: Known, name: str) -> str:
    said = ", ".join(f"{format_number(item.mean)} at {n}" for n, item in points if item)
    return f"{name[:1].upper()}{name[1:]}: {said}."
