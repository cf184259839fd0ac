"""Coordinates of charts: axes, intervals, lines, and sweeps as heat maps; the templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.core.records import GridPoint
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_number, format_signed
from leaderboard.text import name_of

WIDTH = 168
"""Pixels of an interval bar; the script of the page draws with the same number."""

LINES_WIDTH, LINES_HEIGHT = 440, 280
PANEL_WIDTH, PANEL_HEIGHT = 240, 210

_FEW = 6  # values, of which none is called an outlier
_MARGIN = 8
_NOTHING = 0.01  # half the range of an axis without any estimate
_LINES_LEFT, _LINES_RIGHT, _LINES_TOP, _LINES_BOTTOM = 52, 12, 36, 46
_PANEL_LEFT, _PANEL_TOP = 40, 28
_LAYER_TICKS = 10  # at most
_DOTTED = 60  # layers of which every one gets a dot

TEMPLATES = Path(__file__).parent / "templates"

_CELL, _ROW, _LEFT, _TOP = 92, 44, 150, 78
_LETTER = 8  # pixels, a wide one at 13 pixels
_LEGEND = 600  # pixels of the longest line below the squares
_LONGEST = 40  # letters of a name
_WORSE, _EQUAL, _BETTER = (228, 160, 105), (246, 246, 244), (125, 178, 224)  # pale: dark text is on them


@dataclass(frozen=True)
class Scale:
    """A stretch of numbers from ``start`` to ``stop`` on pixels from ``left`` to ``right``.

    ``left`` may lie right of ``right``, as on an axis that points up.
    """

    start: float
    stop: float
    step: float
    left: float
    right: float

    def at(self, value: float) -> float:
        """Return the pixel of a value; the end of the axis for a value beyond it."""
        share = (min(max(value, self.start), self.stop) - self.start) / (self.stop - self.start)
        return round(self.left + share * (self.right - self.left), 1)

    def beyond(self, value: float) -> int:
        """Return -1 or 1 for a value below or above the axis, 0 for one on it."""
        slack = 1e-9 * (self.stop - self.start)
        return -1 if value < self.start - slack else 1 if value > self.stop + slack else 0

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and text of every round number on the axis."""
        first, last = math.ceil(self.start / self.step - 1e-9), math.floor(self.stop / self.step + 1e-9)
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        values = [i * self.step for i in range(first, last + 1)]
        return [(self.at(value), format_number(value, digits)) for value in values]


def scale(values: Iterable[float], left: float, right: float, ticks: int = 4) -> Scale:
    """Return an axis with about so many ticks that holds all values; 0 to 1 where there are none."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Scale(0.0, 1.0, 0.5, left, right)
    low, high = min(known), max(known)
    step = _step(max(high - low, 1e-3 * max(abs(low), abs(high), 1e-3)), ticks)
    start = math.floor(low / step + 1e-9) * step
    stop = math.ceil(high / step - 1e-9) * step
    return Scale(start, stop if stop > start else start + step, step, left, right)


def tight(values: Iterable[float], left: float, right: float, ticks: int = 4) -> Scale:
    """Return an axis that ends at the minimum and maximum of these values, with round ticks between."""
    known = list(values)
    low, high = min(known), max(known)
    return Scale(low, high, _step(high - low, ticks), left, right)


def without_outliers(values: Iterable[float]) -> list[float]:
    """Return the values within the outer fences of Tukey (1977): the middle half, and three times it around.

    All of them where they are few, where the middle half is one value, and where the others would take less
    than half of an axis.
    """
    known = [value for value in values if math.isfinite(value)]
    if len(known) < _FEW:
        return known
    lower, _, upper = quantiles(known, n=4, method="inclusive")
    reach = 3 * (upper - lower)
    inner = [value for value in known if lower - reach <= value <= upper + reach]
    squashed = max(known) - min(known) > 2 * (max(inner) - min(inner))
    return inner if reach and squashed else known


def _step(span: float, ticks: int) -> float:
    """Return 1, 2 or 5 times a power of ten, so that there are ``ticks`` to about twice as many."""
    power = 10.0 ** math.floor(math.log10(span / ticks))
    return next((power * m for m in (1, 2, 5, 10) if span / (power * m) <= 2 * ticks), power * 10)


class IntervalBar(NamedTuple):
    """One estimate, in pixels. ``beyond``: -1 or 1 where it is off the axis and an arrow stands for it.

    ``open_low``, ``open_high``: whether the interval goes on beyond that end of the axis.
    """

    x: float
    low: float
    high: float
    beyond: int
    open_low: bool = False
    open_high: bool = False


def interval_axis(estimates: Iterable[Estimate | None]) -> Scale:
    """Return an axis that holds 0 and these estimates with their intervals, without outliers.

    One row that went wrong would otherwise squash all others into a corner.
    """
    known = [item for item in estimates if item is not None]
    ends = [end for item in known for end in (item.mean, item.low, item.high) if end is not None]
    shown = [0.0, *without_outliers(ends)]
    shown += [] if any(shown) else [-_NOTHING, _NOTHING]
    return tight(shown, _MARGIN, WIDTH - _MARGIN, ticks=2)


def interval_bar(estimate: Estimate | None, axis: Scale) -> IntervalBar | None:
    """Return the pixels of an estimate on an axis; None for none."""
    if estimate is None:
        return None
    low = estimate.mean if estimate.low is None else estimate.low
    high = estimate.mean if estimate.high is None else estimate.high
    x, beyond = axis.at(estimate.mean), axis.beyond(estimate.mean)
    return IntervalBar(x, axis.at(low), axis.at(high), beyond, axis.beyond(low) < 0, axis.beyond(high) > 0)


def lines(before: Sequence[float], after: Sequence[float], marked: Iterable[int], y_title: str) -> dict[str, Any]:
    """Lay out two lines with one finite value per layer, counted from 0; at least one layer.

    ``before``, ``after``: their corners as SVG takes them. ``ticks``: x and text of round layers; ``dots``: x and
    y on the line after, and whether the layer is marked; ``bands``: left end and width of the runs of marked layers.
    """
    last, chosen = len(after) - 1, sorted({layer for layer in marked if 0 <= layer < len(after)})
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if last / step <= _LAYER_TICKS)
    x = Scale(0.0, float(max(last, 1)), float(step), _LINES_LEFT, LINES_WIDTH - _LINES_RIGHT)
    y = scale([*before, *after], LINES_HEIGHT - _LINES_BOTTOM, _LINES_TOP)
    starts = [layer for layer in chosen if layer - 1 not in chosen]
    ends = [layer for layer in chosen if layer + 1 not in chosen]
    edges = [(x.at(start - 0.5), x.at(end + 0.5)) for start, end in zip(starts, ends, strict=True)]
    return {
        "x": x,
        "y": y,
        "ticks": [(x.at(layer), str(layer)) for layer in range(0, last + 1, step)],
        "before": " ".join(f"{x.at(layer)},{y.at(value)}" for layer, value in enumerate(before)),
        "after": " ".join(f"{x.at(layer)},{y.at(value)}" for layer, value in enumerate(after)),
        "dots": [
            (x.at(layer), y.at(after[layer]), layer in chosen)
            for layer in (range(len(after)) if len(after) <= _DOTTED else chosen)
        ],
        "bands": [(left, round(right - left, 1)) for left, right in edges],
        "y_title": y_title,
        "width": LINES_WIDTH,
        "height": LINES_HEIGHT,
    }


Line = Sequence[tuple[float, float]]
"""Points of a line, from left to right."""


def multiples(
    panels: Sequence[tuple[str, Mapping[str, Line]]], marked: Sequence[tuple[str, float]], x_title: str
) -> dict[str, Any]:
    """Lay out small charts next to each other: lines by name over one x axis, y from 0 to 1; values beyond are cut.

    ``marked``: names of lines and their x with a ring; a line with one is drawn in front. At least one point.
    """
    xs = [x for _, lines in panels for line in lines.values() for x, _ in line]
    x = scale(xs, _PANEL_LEFT, PANEL_WIDTH - _LINES_RIGHT, ticks=2)
    y = Scale(0.0, 1.0, 0.5, PANEL_HEIGHT - _LINES_BOTTOM, _PANEL_TOP)
    front = {name for name, _ in marked}
    drawn = []
    for title, lines in panels:
        ordered = sorted((name for name, line in lines.items() if line), key=lambda name: name in front)
        drawn.append(
            {
                "title": title,
                "lines": [
                    {
                        "name": name,
                        "front": name in front,
                        "points": " ".join(f"{x.at(at)},{y.at(value)}" for at, value in lines[name]),
                        "dots": [(x.at(at), y.at(value), (name, at) in marked) for at, value in lines[name]],
                    }
                    for name in ordered
                ],
            }
        )
    return {"panels": drawn, "x": x, "y": y, "x_title": x_title, "width": PANEL_WIDTH, "height": PANEL_HEIGHT}


# Heat maps


def template_environment() -> Environment:
    """Return a new environment of the templates: everything is escaped, unknown names are errors."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def heatmap(method: str, points: Sequence[GridPoint]) -> dict[str, Any]:
    """Lay out the points of one method: columns by the last swept field, rows by all others, in pixels.

    All points name the same fields; at least one point and field.
    """
    *y_fields, x_field = points[0].options
    places = [(_name(p, [x_field]), _name(p, y_fields)) for p in points]
    columns, rows = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    title, x_title = name_of(f"{method}: macro-F1 on validation text", 60), _short(x_field)
    y_title = _short(" and ".join(y_fields))
    left = max(_LEFT, 36 + _LETTER * max(len(_short(name)) for name in [*rows, y_title]))
    cell = max(_CELL, 12 + _LETTER * max(len(_short(name)) for name in columns))
    largest = max((abs(p.gain) for p in points if p.gain is not None), default=0.0) or 1.0
    return {
        "title": title,
        "width": max(_LEGEND, 32 + 10 * len(title), left + 20 + max(len(columns) * cell, _LETTER * len(x_title))),
        "height": _TOP + len(rows) * _ROW + 64,
        "columns": [(left + i * cell + cell // 2, _short(name)) for i, name in enumerate(columns)],
        "rows": [(_TOP + i * _ROW + _ROW // 2, _short(name)) for i, name in enumerate(rows)],
        "x_title": x_title,
        "y_title": y_title,
        "squares": [
            {
                "x": left + columns.index(column) * cell,
                "y": _TOP + rows.index(row) * _ROW,
                "eligible": point.eligible,
                "chosen": point.chosen,
                **_square(point, largest),
            }
            for point, (column, row) in zip(points, places, strict=True)
        ],
        "left": left,
        "cell": cell,
        "row": _ROW,
        "top": _TOP,
    }


def heatmap_svg(method: str, points: Sequence[GridPoint]) -> str:
    """Return the heat map of a method's sweep as a stand-alone SVG, text escaped."""
    return template_environment().get_template("heatmap.svg.j2").render(map=heatmap(method, points))


def _square(point: GridPoint, largest: float) -> dict[str, str]:
    share = 0.0 if point.gain is None else point.gain / largest
    end = _BETTER if share > 0 else _WORSE
    colour = [round(x + (y - x) * abs(share)) for x, y in zip(_EQUAL, end, strict=True)]
    value = format_number(point.macro_f1)
    gain = "" if point.gain is None else format_signed(point.gain)
    settings = ", ".join(f"{field} {v}" for field, v in point.options.items())
    valid = "not measured" if point.valid is None else format_number(point.valid)
    cells = f"{point.cells} of {point.cells_expected} cells"
    title = f"{settings}: macro-F1 {value}, gain {gain or '–'}, valid share {valid}, {cells}"
    return {"fill": f"#{bytes(colour).hex()}", "value": value, "gain": gain, "title": name_of(title, 400)}


def _name(point: GridPoint, fields: Sequence[str]) -> str:
    """Return the values of some fields in words: layer 0 and depth 0.0 stay two."""
    return ", ".join(str(point.options[field]) for field in fields)


def _short(text: str) -> str:
    return name_of(text, _LONGEST)
