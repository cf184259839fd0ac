"""A sweep as a picture: one cell per configuration, coloured by gain, drawn as SVG by a template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.core.records import GridPoint
from harness.ranking.summary import format_number, format_signed
from leaderboard.text import name_of

_CELL, _ROW, _LEFT, _TOP = 92, 44, 150, 78
_LETTER = 8  # pixels, a wide one at 13 pixels
_LEGEND = 600  # pixels of the longest line below the squares
_LONGEST = 40  # letters of a name
_WORSE, _EQUAL, _BETTER = (228, 160, 105), (246, 246, 244), (125, 178, 224)  # pale: dark text lies on them


@dataclass(frozen=True)
class Square:
    """One configuration, in pixels."""

    x: int
    y: int
    fill: str
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
    left: int
    cell: int
    row: int = _ROW
    top: int = _TOP


def heatmap(method: str, points: Sequence[GridPoint]) -> Heatmap:
    """Lay out the points of one method. All points name the same fields; at least one point and field."""
    *y_fields, x_field = points[0].options
    places = [(_name(p, [x_field]), _name(p, y_fields)) for p in points]
    columns, rows = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    title, x_title = _short(f"{method}: macro-F1 on validation text", 60), _short(x_field)
    y_title = _short(" and ".join(y_fields))
    left = max(_LEFT, 36 + _LETTER * max(len(_short(name)) for name in [*rows, y_title]))
    cell = max(_CELL, 12 + _LETTER * max(len(_short(name)) for name in columns))
    largest = max((abs(p.gain) for p in points if p.gain is not None), default=0.0) or 1.0
    squares = [
        _square(point, left + columns.index(column) * cell, _TOP + rows.index(row) * _ROW, largest)
        for point, (column, row) in zip(points, places, strict=True)
    ]
    return Heatmap(
        title=title,
        width=max(_LEGEND, 32 + 10 * len(title), left + 20 + max(len(columns) * cell, _LETTER * len(x_title))),
        height=_TOP + len(rows) * _ROW + 64,
        columns=[(left + i * cell + cell // 2, _short(name)) for i, name in enumerate(columns)],
        rows=[(_TOP + i * _ROW + _ROW // 2, _short(name)) for i, name in enumerate(rows)],
        x_title=x_title,
        y_title=y_title,
        squares=squares,
        left=left,
        cell=cell,
    )


def heatmap_svg(method: str, points: Sequence[GridPoint]) -> str:
    """Return the picture of a method's sweep as a stand-alone SVG, text escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("heatmap.svg.j2").render(map=heatmap(method, points))


def _square(point: GridPoint, x: int, y: int, largest: float) -> Square:
    share = 0.0 if point.gain is None else point.gain / largest
    fill = _mix(_EQUAL, _BETTER if share > 0 else _WORSE, abs(share))
    value = format_number(point.macro_f1)
    gain = "" if point.gain is None else format_signed(point.gain)
    settings = ", ".join(f"{field} {v}" for field, v in point.options.items())
    valid = "not measured" if point.valid is None else format_number(point.valid)
    cells = f"{point.cells} of {point.cells_expected} cells"
    title = f"{settings}: macro-F1 {value}, gain {gain or '–'}, valid share {valid}, {cells}"
    return Square(x, y, _hex(fill), value, gain, name_of(title, 400), point.eligible, point.chosen)


def _name(point: GridPoint, fields: Sequence[str]) -> str:
    """Return the values of some fields in words: layer 0 and depth 0.0 stay two."""
    return ", ".join(str(point.options[field]) for field in fields)


def _short(text: str, longest: int = _LONGEST) -> str:
    return name_of(text, longest)


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], share: float) -> list[int]:
    return [round(x + (y - x) * share) for x, y in zip(a, b, strict=True)]


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
