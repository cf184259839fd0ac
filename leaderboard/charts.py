"""Coordinates of the board's charts; the templates draw them as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

PLOT = 450  # room for the axis and the last figure
LABELS = (190, 420)  # room for the names, at least and at most
LETTER = 8.2  # a generous width of a letter at the labels' size
ROW = 26


@dataclass(frozen=True)
class Bar:
    """One row of the interval plot, in pixels. ``low`` and ``high`` are mean minus and plus sd."""

    name: str
    y: float
    x: float
    low: float
    high: float
    text: str
    reference: bool


@dataclass(frozen=True)
class IntervalPlot:
    """Means with spreads on a common axis; ``baseline`` is the x of the zero-shot mean."""

    width: int
    height: int
    labels: int
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    baseline: float | None


def interval_plot(
    rows: list[tuple[str, float, float | None, bool]], baseline: float | None
) -> IntervalPlot | None:
    """Lay out rows of (name, mean, spread, is a reference); None where there are none."""
    if not rows:
        return None
    low = min(mean - (spread or 0) for _, mean, spread, _ in rows)
    high = max(mean + (spread or 0) for _, mean, spread, _ in rows)
    step = _step(max(high - low, 1e-6))
    start, stop = math.floor(low / step) * step, math.ceil(high / step) * step
    stop = stop if stop > start else start + step

    longest = max(len(name) for name, *_ in rows)
    labels = round(min(max(LABELS[0], LETTER * longest + 12), LABELS[1]))

    def x(value: float) -> float:
        return round(labels + (PLOT - 60) * (value - start) / (stop - start), 1)

    bars = [
        Bar(
            name=_shortened(name),
            y=ROW * (i + 0.5),
            x=x(mean),
            low=x(mean - (spread or 0)),
            high=x(mean + (spread or 0)),
            text=f"{mean:.3f}" + (f" ± {spread:.3f}" if spread is not None else ""),
            reference=reference,
        )
        for i, (name, mean, spread, reference) in enumerate(rows)
    ]
    count = round((stop - start) / step)
    digits = max(0, -math.floor(math.log10(step)))
    ticks = [(x(start + i * step), f"{start + i * step:.{digits}f}") for i in range(count + 1)]
    zero = x(baseline) if baseline is not None else None
    return IntervalPlot(labels + PLOT, ROW * len(rows) + 30, labels, bars, ticks, zero)


def _shortened(name: str) -> str:
    room = int((LABELS[1] - 12) / LETTER)
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _step(span: float) -> float:
    """Return a tick distance of 1, 2 or 5 times a power of ten that gives four to nine ticks."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next((power * m for m in (1, 2, 5, 10) if span / (power * m) <= 8), power * 10)
