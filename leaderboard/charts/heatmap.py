"""A sweep as a heat map: one cell per configuration, coloured by gain, drawn as SVG by a template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.core.records import GridPoint
from harness.ranking.summary import format_number, format_signed
from leaderboard.text import name_of

TEMPLATES = Path(__file__).parent.parent / "templates"

_CELL, _ROW, _LEFT, _TOP = 92, 44, 150, 78
_LETTER = 8  # pixels, a wide one at 13 pixels
_LEGEND = 600  # pixels of the longest line below the squares
_LONGEST = 40  # letters of a name
_WORSE, _EQUAL, _BETTER = (228, 160, 105), (246, 246, 244), (125, 178, 224)  # pale: dark text is on them


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
