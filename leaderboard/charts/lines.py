"""Two lines over the layers of a model, before and after, with some layers marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leaderboard.charts.scale import Scale, scale

WIDTH, HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 36, 46
_MOST = 10  # steps of the axis of layers
_STEPS = (1, 2, 5, 10, 20, 50, 100)
_DOTTED = 60  # layers of which every one gets a dot


@dataclass(frozen=True)
class Lines:
    """Two axes and, in pixels, the corners of both lines as SVG takes them.

    ``ticks``: x and text of round layers; ``dots``: x and y on the line after, and whether the layer is
    marked; ``bands``: left end and width of the runs of marked layers.
    """

    x: Scale
    y: Scale
    ticks: list[tuple[float, str]]
    before: str
    after: str
    dots: list[tuple[float, float, bool]]
    bands: list[tuple[float, float]]
    y_title: str
    width: int = WIDTH
    height: int = HEIGHT


def lines(before: Sequence[float], after: Sequence[float], marked: Iterable[int], y_title: str) -> Lines:
    """Lay out two lines with one finite value per layer, counted from 0; at least one layer."""
    last, chosen = len(after) - 1, {layer for layer in marked if 0 <= layer < len(after)}
    step = next(step for step in _STEPS if last / step <= _MOST)
    x = Scale(0.0, float(max(last, 1)), float(step), _LEFT, WIDTH - _RIGHT)
    y = scale([*before, *after], HEIGHT - _BOTTOM, _TOP)
    dotted = range(len(after)) if len(after) <= _DOTTED else sorted(chosen)
    return Lines(
        x=x,
        y=y,
        ticks=[(x.at(layer), str(layer)) for layer in range(0, last + 1, step)],
        before=_corners(before, x, y),
        after=_corners(after, x, y),
        dots=[(x.at(layer), y.at(after[layer]), layer in chosen) for layer in dotted],
        bands=[_band(first, end, x) for first, end in _runs(chosen)],
        y_title=y_title,
    )


def _corners(values: Sequence[float], x: Scale, y: Scale) -> str:
    return " ".join(f"{x.at(layer)},{y.at(value)}" for layer, value in enumerate(values))


def _band(first: int, last: int, x: Scale) -> tuple[float, float]:
    """Return left end and width of a band that reaches half a layer beyond its layers."""
    left, right = x.at(first - 0.5), x.at(last + 0.5)
    return left, round(right - left, 1)


def _runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and last layer of every run of neighbours."""
    runs: list[tuple[int, int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return runs
