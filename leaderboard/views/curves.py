"""Data-size curves as small multiples: macro-F1 by texts per label, next to the curve of human-written text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from harness.core.languages import language
from harness.ranking.curves import Curve, CurvePoint, CurveSet
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_number
from leaderboard.boards import Board
from leaderboard.rendering import TableCell, sort_value
from leaderboard.text import counted, name_of
from leaderboard.views.curve_charts import HEIGHT, WIDTH, CurveAxes, curve_axes, curve_chart, measured, mixed, together
from leaderboard.views.slices import kind_of

_ON_INDEX, _ON_METHOD, _ON_LANGUAGE = 12, 12, 6  # charts of one group, at most
_JOINED = "\N{NO-BREAK SPACE}"
_BEYOND = 1e6  # sorts what lies above the human curve behind everything on it


def index_curves(board: Board) -> dict[str, Any] | None:
    """Return the charts of the best ranked entries, over all tasks and languages; None without curves."""
    rows = [row for row in board.standings.rows if not row.reference and not row.flags]
    return _section(board, [("", board.curves(), rows)], _ON_INDEX)


def method_curves(board: Board, method: str) -> dict[str, Any] | None:
    """Return the charts of a method's entries, task by task; None without curves."""
    rows = [row for row in board.standings.rows if row.row.entry.method.name == method]
    tasks = board.axes["task"]
    groups = [(name_of(task) if len(tasks) > 1 else "", board.curves(task), rows) for task in tasks]
    return _section(board, groups, _ON_METHOD)


def language_curves(board: Board, code: str, order: Sequence[str]) -> dict[str, Any] | None:
    """Return the charts of the best entries in one language; ``order``: entry ids, the best there first."""
    rows = {row.row.id: row for row in board.standings.rows if not row.reference and not row.flags}
    best = [rows[name] for name in order if name in rows]
    return _section(board, [("", board.curves(language=code), best)], _ON_LANGUAGE, name_of(language(code).name))


def curve_cells(board: Board, entry: str) -> dict[str, TableCell]:
    """Return the cells of an entry in the ranking: human-equivalent n, and area; empty where there is none."""
    found = board.curves()
    curve = found.entries.get(entry) if found else None
    if found is None or curve is None:
        return {"equivalent": TableCell("–"), "area": TableCell("–")}
    return {"equivalent": _equivalent_cell(curve, found.human), "area": _cell(curve.area)}


def _section(
    board: Board,
    groups: Iterable[tuple[str, CurveSet | None, Sequence[RankedEntry]]],
    most: int,
    where: str = "",
) -> dict[str, Any] | None:
    """Lay out groups of charts (title, curves, entries in their order), all on the same axes.

    A group has at most ``most`` charts, and a table of all its entries; ``more``: how many have no chart.
    ``where``: what the numbers are of, if not of all tasks and languages.
    """
    known = [(title, curves, rows) for title, curves, rows in groups if curves is not None]
    drawn = [
        (title, curves, [row for row in rows if row.row.id in curves.entries and measured(curves.entries[row.row.id])])
        for title, curves, rows in known
    ]
    drawn = [(title, curves, rows) for title, curves, rows in drawn if rows]
    if not drawn:
        return None
    shown = [(curves, [curves.entries[row.row.id] for row in rows[:most]]) for _, curves, rows in drawn]
    axes = curve_axes([curve for curves, own in shown for curve in [*own, *([curves.human] if curves.human else [])]])
    human = board.curve_settings.get("human")
    few = str(human) if isinstance(human, int) else ""
    return {
        "classifier": name_of(drawn[0][1].classifier),
        "mixed": (few or "a few") if any(mixed(curve) for _, own in shown for curve in own) else "",
        "human": any(curves.human for curves, _ in shown),
        "axes": axes,
        "width": WIDTH,
        "height": HEIGHT,
        "groups": [
            {
                "title": title,
                "panels": [
                    _panel(board, row, curves, axes, few, ", ".join(filter(None, (title, where))))
                    for row in rows[:most]
                ],
                "more": max(len(rows) - most, 0),
                "table": _table(board, rows, curves, few),
            }
            for title, curves, rows in drawn
        ],
    }


def _panel(board: Board, row: RankedEntry, curves: CurveSet, axes: CurveAxes, few: str, where: str) -> dict[str, Any]:
    """Return what a chart shows; ``where``: what its numbers are of, if not of all tasks and languages."""
    curve, name = curves.entries[row.row.id], board.names[row.row.id]
    found = _equivalent(curve, curves.human)
    return {
        "id": row.row.id,
        "name": name,
        "page": board.page(row.row.id),
        "kind": kind_of(board, row),
        "title": f"{name}{f', {where}' if where else ''}: macro-F1 by texts per label",
        "equivalent": found.sentence if found else "",
        **curve_chart(curve, curves.human, axes, few),
    }


# Words and numbers


def _reach(human: Curve) -> tuple[int, int]:
    """Return the least and the greatest n of the human curve."""
    numbers = [point.n for point in human.points if point.value]
    return min(numbers), max(numbers)


def _bounded(value: float, human: Curve) -> str:
    """Return an end of an interval: a whole number, or beyond which end of the human curve it lies.

    What is beyond is given as that end.
    """
    least, most = _reach(human)
    return _below(least) if value <= least else _above(most) if value >= most else f"{value:,.0f}"


def _below(least: int) -> str:
    return f"<{_JOINED}{least:,}"


def _above(most: int) -> str:
    return f">{_JOINED}{most:,}"


class _Equivalent(NamedTuple):
    """A human-equivalent n: as a figure, in a sentence, and what it is sorted by."""

    figure: str
    sentence: str
    sort: float


def _equivalent(curve: Curve, human: Curve | None) -> _Equivalent | None:
    """Return how many human-written texts an entry's texts are worth; None where that is unknown."""
    found = curve.human_equivalent
    if human is None or not measured(human) or (found is None and not curve.censored):
        return None
    least, most = _reach(human)
    if curve.censored == "below":
        figure, count, sort = _below(least), f"fewer than {counted(least, 'human text')}", 0.0
    elif curve.censored == "above":
        figure, count, sort = _above(most), f"more than {counted(most, 'human text')}", _BEYOND
    else:
        assert found is not None
        figure, count, sort = f"{found.mean:,.0f}", counted(round(found.mean), "human text"), found.mean
    ends = [] if found is None or found.low is None or found.high is None else [found.low, found.high]
    said = [_bounded(end, human) for end in ends]
    beyond = set(said) == {figure}  # nothing more to say
    interval = f" [{f',{_JOINED}'.join(said)}]" if said and not beyond else ""
    return _Equivalent(figure + interval, f"as good as {count} per label{interval}", sort)


def _equivalent_cell(curve: Curve, human: Curve | None) -> TableCell:
    found = _equivalent(curve, human)
    return TableCell(found.figure, sort_value(found.sort)) if found else TableCell("–")


def _cell(estimate: Estimate | None) -> TableCell:
    """Return the cell of a level with its interval."""
    text = format_number(estimate.mean if estimate else None)
    if estimate and estimate.low is not None and estimate.high is not None:
        text += f" [{format_number(estimate.low)}, {format_number(estimate.high)}]"
    return TableCell(text, sort_value(estimate))


def _table(board: Board, rows: Sequence[RankedEntry], curves: CurveSet, few: str) -> dict[str, Any]:
    """Return the numbers behind the charts; a column without any is left out.

    ``columns``: key and title. ``rows``: entries with their cells; ``human``: the cells of human-written text.
    """
    own = [curves.entries[row.row.id] for row in rows]
    numbers = sorted({point.n for curve in [*own, *([curves.human] if curves.human else [])] for point in curve.points})
    columns = [
        *((f"n-{n}", f"n = {n:,}") for n in numbers),
        *((f"mixed-{n}", together(few, f"{n:,}")) for n in numbers),
        ("area", "area"),
        ("equivalent", "human-equivalent n"),
    ]
    lines = [_line_of(curve, curves.human, numbers) for curve in own]
    human = _line_of(curves.human, None, numbers) if curves.human else None
    kept = [i for i in range(len(columns)) if any(line[i].sort for line in [*lines, *([human] if human else [])])]
    return {
        "columns": [columns[i] for i in kept],
        "rows": [
            {
                "id": row.row.id,
                "name": board.names[row.row.id],
                "page": board.page(row.row.id),
                "kind": kind_of(board, row),
                "cells": [line[i] for i in kept],
            }
            for row, line in zip(rows, lines, strict=True)
        ],
        "human": [human[i] for i in kept] if human else [],
    }


def _line_of(curve: Curve, human: Curve | None, numbers: Sequence[int]) -> list[TableCell]:
    points = {point.n: point for point in curve.points}
    nothing = CurvePoint(0, None, None)
    found = [points.get(n, nothing) for n in numbers]
    cells = [*(_cell(point.value) for point in found), *(_cell(point.mixed) for point in found)]
    return [*cells, _cell(curve.area), _equivalent_cell(curve, human)]
