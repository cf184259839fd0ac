"""A sweep as a picture: one cell per configuration, coloured by gain, drawn as SVG by a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.records import SurfacePoint

_CELL, _ROW, _LEFT, _TOP = 92, 44, 150, 78
_WORSE, _EQUAL, _BETTER = (178, 80, 20), (246, 246, 244), (24, 92, 150)


@dataclass(frozen=True)
class Square:
    """One configuration, in pixels."""

    x: int
    y: int
    fill: str
    ink: str
    value: str
    gain: str
    title: str
    eligible: bool
    chosen: bool


@dataclass(frozen=True)
class Heatmap:
    """Squares by the last swept field (columns) and all others (rows)."""

    title: str
    width: int
    height: int
    columns: list[tuple[int, str]]
    rows: list[tuple[int, str]]
    x_title: str
    y_title: str
    squares: list[Square]
    cell: int = _CELL
    row: int = _ROW
    left: int = _LEFT
    top: int = _TOP


def heatmap(method: str, points: Sequence[SurfacePoint]) -> Heatmap:
    """Lay out the points of one method. All points name the same fields; at least one point."""
    fields = list(points[0].options)
    x_field, y_fields = fields[-1], fields[:-1]
    columns = list(dict.fromkeys(_plain(p.options[x_field]) for p in points))
    rows = list(dict.fromkeys(_row_name(p, y_fields) for p in points))
    largest = max((abs(p.gain) for p in points if p.gain is not None), default=0.0) or 1.0
    squares = []
    for point in points:
        column, row = columns.index(_plain(point.options[x_field])), rows.index(_row_name(point, y_fields))
        squares.append(_square(point, _LEFT + column * _CELL, _TOP + row * _ROW, largest))
    return Heatmap(
        title=f"{method}: macro-F1 on validation text",
        width=max(_LEFT + len(columns) * _CELL + 20, 560),
        height=_TOP + len(rows) * _ROW + 64,
        columns=[(_LEFT + i * _CELL + _CELL // 2, name) for i, name in enumerate(columns)],
        rows=[(_TOP + i * _ROW + _ROW // 2, name) for i, name in enumerate(rows)],
        x_title=x_field,
        y_title=" and ".join(y_fields),
        squares=squares,
    )


def heatmap_svg(method: str, points: Sequence[SurfacePoint]) -> str:
    """Return the picture of a method's sweep as a stand-alone SVG, text escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("heatmap.svg.j2").render(map=heatmap(method, points))


def _square(point: SurfacePoint, x: int, y: int, largest: float) -> Square:
    share = 0.0 if point.gain is None else point.gain / largest
    fill = _mix(_EQUAL, _BETTER if share > 0 else _WORSE, abs(share))
    value = "–" if point.macro_f1 is None else f"{point.macro_f1:.3f}"
    gain = "" if point.gain is None else f"{point.gain:+.3f}".replace("-", "−")
    settings = ", ".join(f"{field} {_plain(v)}" for field, v in point.options.items())
    valid = "not measured" if point.valid is None else f"{point.valid:.3f}"
    title = f"{settings}: macro-F1 {value}, gain {gain or '–'}, valid share {valid}, {point.cells} cells"
    ink = "#ffffff" if abs(share) > 0.6 else "#1a1a1a"
    return Square(x, y, _hex(fill), ink, value, gain, title, point.eligible, point.chosen)


def _row_name(point: SurfacePoint, fields: Sequence[str]) -> str:
    return ", ".join(_plain(point.options[field]) for field in fields)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], share: float) -> list[int]:
    return [round(x + (y - x) * share) for x, y in zip(a, b, strict=True)]


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
