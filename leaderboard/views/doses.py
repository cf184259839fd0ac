"""The dose of every method, chosen or configured, and what was measured along the dose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from harness.core.languages import language
from harness.core.records import DoseScores, Entry, GridPoint
from harness.core.schema import Options
from harness.ranking.summary import format_number
from harness.scoring.metrics import DISTINCT_2, LABEL_FIDELITY, LANGUAGE_FIDELITY, VALID_SHARE, macro_f1
from leaderboard.boards import Board
from leaderboard.charts import multiples
from leaderboard.text import name_of

STRENGTH = "strength"
DOSE = ("layer", STRENGTH, "unit")
"""Fields of a config that have a column; others that were tuned share one."""

_COLUMNS = (*DOSE, "other tuned options")

SWEEP, ENTRIES = "validation sweep", "entries of this board"
_MEASURES = {
    "macro_f1": ("macro-F1 (tfidf)", macro_f1("tfidf")),
    "valid": ("valid share", VALID_SHARE),
    "language_fidelity": ("language fidelity", LANGUAGE_FIDELITY),
    "label_fidelity": ("label fidelity", LABEL_FIDELITY),
    "distinct_2": ("distinct-2", DISTINCT_2),
}
"""Field of a point -> its title, and the metric that an entry has it from."""

_POINTS = 1000  # of a method, at most
_LARGEST = 1e6  # a strength beyond it has no place on an axis
_ALL = "all"
_FIGURES = 30  # of a method, at most
_DOTS = 150  # of a line chart, at most


class Dose(NamedTuple):
    """What was measured at one dose. ``values``: by field of ``_MEASURES``."""

    options: Options
    values: Mapping[str, float | None]
    chosen: bool = False
    eligible: bool = True


class DoseRow(NamedTuple):
    """The dose of an entry, in all languages or in one. ``values``: by ``_COLUMNS``; ``source``: what decided it."""

    method: str
    name: str
    page: str
    language: str
    values: dict[str, str]
    source: str


def doses(board: Board, surfaces: Iterable[tuple[str, list[GridPoint]]]) -> dict[str, Any] | None:
    """Return the doses of a board, None where it has none; ``surfaces``: grid results, each with its model's name.

    ``rows``: the dose of every steering entry that has a strength or was tuned. ``along``: per method and model what
    was measured at every dose, on validation text or, where it was not swept, by entries that differ in strength only.
    """
    entries = {row.row.id: row.row.entry for row in board.standings.rows if board.kind(row.row.id) == "steering"}
    rows = [line for name, entry in entries.items() for line in _rows(board, name, entry)]
    along, swept = [], set()
    for of, points in surfaces:
        by_method: dict[str, list[GridPoint]] = {}
        for point in points:
            if point.options:
                by_method.setdefault(point.method, []).append(point)
        for name, own in sorted(by_method.items()):
            swept.add((name, of))
            shown = own[:_POINTS]
            by_language = {_ALL: [_dose(point, point.options) for point in shown]}
            for point in shown:
                for code, scores in list(point.languages.items())[:_POINTS]:
                    by_language.setdefault(code, []).append(_dose(scores, point.options))
            along.append(_along(name, of, SWEEP, by_language, len(own) - len(shown)))
    for (name, of, setting), found in _by_strength(board, entries).items():
        if (name, of) not in swept:
            along.append(_along(name, f"{of}, {setting}" if of else setting, ENTRIES, {_ALL: found}))
    return _tables(rows, along)


def of_method(found: dict[str, Any] | None, method: str) -> dict[str, Any] | None:
    """Return the part of a board's doses that is of one method; None where that is nothing."""
    if found is None:
        return None
    rows = [row for row in found["rows"] if row.method == method]
    along = [item for item in found["along"] if item["method"] == method]
    return _tables(rows, along)


def _tables(rows: list[DoseRow], along: list[dict[str, Any]]) -> dict[str, Any] | None:
    columns = [column for column in _COLUMNS if any(row.values[column] != _value(None) for row in rows)]
    return {"rows": rows, "columns": columns, "along": along} if rows or along else None


def _rows(board: Board, entry_id: str, entry: Entry) -> list[DoseRow]:
    """Return the dose of an entry: one row, or one per language where a value is a mapping; none without a dose."""
    config, tuned = entry.method.config, _tuned(board, entry)
    if STRENGTH not in config and not tuned:
        return []
    chosen = {field: config.get(field) for field in [*DOSE, *(tuned or {})]}
    mapped = any(isinstance(value, dict) for value in chosen.values())
    found = []
    for code in board.axes["language"] if mapped else [_ALL]:
        own = {field: value.get(code) if isinstance(value, dict) else value for field, value in chosen.items()}
        others = [f"{name_of(field)}: {_value(value)}" for field, value in own.items() if field not in DOSE]
        found.append(
            DoseRow(
                entry.method.name,
                board.names[entry_id],
                f"{board.page(entry_id)}#entry-{entry_id}",
                _language(code),
                {**{field: _value(own[field]) for field in DOSE}, _COLUMNS[-1]: ", ".join(others) or _value(None)},
                "default" if tuned is None else SWEEP,
            )
        )
    return found


def _tuned(board: Board, entry: Entry) -> Options | None:
    """Return the options of an entry that ``tune`` chose; None where its config has others."""
    for manifest in board.result_set.manifests:
        tuned = manifest.tuning.get(entry.method.name) if entry in manifest.entries else None
        if tuned and tuned.options and all(entry.method.config.get(k) == v for k, v in tuned.options.items()):
            return tuned.options
    return None


def _by_strength(board: Board, entries: Mapping[str, Entry]) -> dict[tuple[str, str, str], list[Dose]]:
    """Return method, model and setting -> the doses of its entries, of those that differ in their strength alone."""
    groups: dict[tuple[str, str, str, str], list[Dose]] = {}
    for entry_id, entry in entries.items():
        config = entry.method.config
        if _number(config.get(STRENGTH)) is None:
            continue
        rest = repr(sorted((key, repr(value)) for key, value in config.items() if key != STRENGTH))
        values = {field: board.level(metric, entry_id) for field, (_, metric) in _MEASURES.items()}
        options = {key: config[key] for key in ("layer", STRENGTH) if key in config}
        of = name_of(entry.model.name) if entry.model else ""
        groups.setdefault((entry.method.name, of, entry.setting, rest), []).append(Dose(options, values))
    found: dict[tuple[str, str, str], list[Dose]] = {}
    for (method, of, setting, _), own in groups.items():
        if len(own) > 1:
            ordered = sorted(own, key=lambda dose: _number(dose.options[STRENGTH]) or 0.0)
            found.setdefault((method, of, setting), []).extend(ordered[:_POINTS])
    return found


def _dose(scores: DoseScores, options: Options) -> Dose:
    return Dose(options, {field: getattr(scores, field) for field in _MEASURES}, scores.chosen, scores.eligible)


def _along(
    method: str, of: str, source: str, by_language: Mapping[str, Sequence[Dose]], more: int = 0
) -> dict[str, Any]:
    """Return the table and the charts of one method: of all languages, and of each that had its own choice."""
    name, fields = name_of(method), list(by_language[_ALL][0].options)
    measures = [m for m in _MEASURES if any(dose.values[m] is not None for own in by_language.values() for dose in own)]
    names = sorted(by_language, key=lambda code: (code != _ALL, code))
    rows = [
        {
            "language": _language(code),
            "options": [_value(dose.options.get(field)) for field in fields],
            "values": [format_number(dose.values[measure]) for measure in measures],
            "mark": "chosen" if dose.chosen else "" if dose.eligible else "not eligible",
        }
        for code in names
        for dose in by_language[code]
    ]
    figures = [
        (_title(name, code), chart) for code in names[:_FIGURES] if (chart := _chart(by_language[code])) is not None
    ]
    return {
        "method": method,
        "name": name,
        "of": name_of(of, 160),
        "source": source,
        "fields": [name_of(field, 40) for field in fields],
        "measures": [_MEASURES[measure][0] for measure in measures],
        "rows": rows[:_POINTS],
        "more": more + len(rows[_POINTS:]),
        "figures": figures,
    }


def _title(name: str, code: str) -> str:
    return f"{name} along the dose" + ("" if code == _ALL else f", {_language(code)}")


def _chart(points: Sequence[Dose]) -> dict[str, Any] | None:
    """Return small multiples over the strength, a line per value of the other fields.

    None for fewer than two strengths, and for more than ``_DOTS`` points. Points that stand in one place are averaged.
    """
    if len(points) > _DOTS:
        return None
    fields = list(points[0].options)
    along = STRENGTH if STRENGTH in fields else fields[-1]
    lines: dict[str, dict[float, list[Dose]]] = {}
    for dose in points:
        x = _number(dose.options.get(along))
        if x is not None:
            rest = ", ".join(f"{field} {_value(dose.options.get(field))}" for field in fields if field != along)
            lines.setdefault(rest, {}).setdefault(x, []).append(dose)
    if len({x for line in lines.values() for x in line}) < 2:
        return None
    panels = []
    for field, (title, _) in _MEASURES.items():
        values = {
            rest: [(x, fmean(known)) for x in sorted(line) if (known := _known(line[x], field))]
            for rest, line in lines.items()
        }
        if any(values.values()):
            panels.append((title, values))
    marked = [(rest, x) for rest, line in lines.items() for x in line if any(dose.chosen for dose in line[x])]
    return multiples(panels, marked, name_of(along, 20)) if panels else None


def _known(found: Sequence[Dose], field: str) -> list[float]:
    return [value for dose in found if (value := dose.values[field]) is not None and math.isfinite(value)]


def _number(value: object) -> float | None:
    """Return a number that an axis can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value)


def _language(code: str) -> str:
    return "all" if code == _ALL else name_of(language(code).name)


def _value(value: object) -> str:
    return "–" if value is None else name_of(value, 60)
