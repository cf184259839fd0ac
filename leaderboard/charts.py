"""Coordinates of the board's charts; the templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PLOT = 450  # room for the axis and the last figure
LABELS = (190, 420)  # room for the names, at least and at most
LETTER = 8.2  # a generous width of a letter at the labels' size
ROW = 26


@dataclass(frozen=True)
class PlotRow:
    """A value with its interval (None where unknown). ``kind``: ``ranked``, ``flagged`` or ``reference``."""

    name: str
    value: float
    low: float | None
    high: float | None
    text: str
    kind: str = "ranked"


@dataclass(frozen=True)
class Bar:
    """One row of the interval plot, in pixels; ``low`` and ``high`` are the ends of its interval."""

    name: str
    y: float
    x: float
    low: float
    high: float
    text: str
    kind: str


@dataclass(frozen=True)
class IntervalPlot:
    """Values with intervals on a common axis; ``baseline`` is the x of 0, where that is on the axis."""

    width: int
    height: int
    labels: int
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    baseline: float | None


def interval_plot(rows: Sequence[PlotRow]) -> IntervalPlot | None:
    """Lay out rows; None where there are none."""
    if not rows:
        return None
    low = min(row.value if row.low is None else row.low for row in rows)
    high = max(row.value if row.high is None else row.high for row in rows)
    step = _step(max(high - low, 1e-6))
    start, stop = math.floor(low / step) * step, math.ceil(high / step) * step
    stop = stop if stop > start else start + step

    longest = max(len(row.name) for row in rows)
    labels = round(min(max(LABELS[0], LETTER * longest + 12), LABELS[1]))

    def x(value: float) -> float:
        return round(labels + (PLOT - 60) * (value - start) / (stop - start), 1)

    bars = [
        Bar(
            name=_shortened(row.name),
            y=ROW * (i + 0.5),
            x=x(row.value),
            low=x(row.value if row.low is None else row.low),
            high=x(row.value if row.high is None else row.high),
            text=row.text,
            kind=row.kind,
        )
        for i, row in enumerate(rows)
    ]
    count = round((stop - start) / step)
    digits = max(0, -math.floor(math.log10(step)))
    ticks = [(x(start + i * step), f"{start + i * step:.{digits}f}") for i in range(count + 1)]
    zero = x(0.0) if start <= 0 <= stop else None
    return IntervalPlot(labels + PLOT, ROW * len(rows) + 30, labels, bars, ticks, zero)


def _shortened(name: str) -> str:
    room = int((LABELS[1] - 12) / LETTER)
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _step(span: float) -> float:
    """Return a tick distance of 1, 2 or 5 times a power of ten that gives four to nine ticks."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next((power * m for m in (1, 2, 5, 10) if span / (power * m) <= 8), power * 10)
