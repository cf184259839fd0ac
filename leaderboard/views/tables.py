"""The tables of one language, of one metric, and of the gains by language."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from harness.core.languages import Language, language
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of, format_interval, format_number, format_signed
from harness.scoring.metrics import Metric
from leaderboard.boards import Board
from leaderboard.charts import interval_axis, interval_bar
from leaderboard.rendering import TableCell
from leaderboard.text import clean, slug
from leaderboard.views.ranking import interval, number
from leaderboard.views.slices import shapes_axis

_SIGNATURES = 4
_PLAIN = re.compile(r"[a-z0-9_]{1,40}(\.valid)?(/(?!valid$)[a-z0-9]{1,40})?")
_FULL = 0.08  # gain in F1 that is shown in the full colour, at the least; larger gains stretch it


def _head(board: Board, standing: RankedEntry) -> dict[str, Any]:
    """Return what the head of an entry's row shows."""
    return {
        "id": standing.row.id,
        "name": board.names[standing.row.id],
        "page": board.page(standing.row.id),
        "reference": standing.reference,
        "flagged": standing.flagged,
    }


def _level(board: Board, metric: Metric, entry: str, code: str | None, task: str | None = None) -> TableCell:
    return number(board.level(metric, entry, task, code), digits_of(metric.name))


def metric_file(metric: Metric) -> str:
    """Return the file name of a metric's page: plain for metrics that ship, marked where another could have it."""
    ours = metric.definition and _PLAIN.fullmatch(metric.name)
    return f"metric-{re.sub(r'[_/.]', '-', metric.name) if ours else slug(metric.name)}.html"


def metric_page(board: Board, metric: Metric) -> dict[str, Any]:
    """Return one metric of all entries in the order of the ranking: over all cells, and in languages with a value."""
    digits, rows = digits_of(metric.name), board.standings.rows
    levels = {
        code: [board.level(metric, row.row.id, language=code) for row in rows]
        for code in (None, *board.axes["language"])
    }
    codes = [code for code, values in levels.items() if code is None or any(value is not None for value in values)]
    columns = [[number(value, digits) for value in levels[code]] for code in codes]
    lines = [
        {**_head(board, row), "mean": cells[0], "cells": cells[1:]}
        for row, cells in zip(rows, zip(*columns, strict=True), strict=True)
        if any(cell.sort for cell in cells)
    ]
    human = [board.human(metric, code) for code in codes]
    signatures = board.result_set.signatures.get(metric.name, [])
    return {
        "metric": metric,
        "signatures": [clean(signature) for signature in signatures[:_SIGNATURES]],
        "more_signatures": max(len(signatures) - _SIGNATURES, 0),
        "languages": [language(code) for code in codes if code],
        "human": [format_number(value, digits) for value in human] if human != [None] * len(human) else [],
        "rows": lines,
        "left_out": len(rows) - len(lines),
    }


def language_page(board: Board, code: str) -> dict[str, Any]:
    """Return the ranking in one language: tiers and intervals are of this language alone."""
    ranking, standings, headline = board.slice(language=code), board.standings.rows, board.headline
    metrics = [
        metric
        for metric in board.result_set.metrics
        if metric.primary
        and metric != headline
        and any(board.level(metric, row.row.id, language=code) is not None for row in standings)
    ]
    gains = {
        name: ranking.estimate(name, board.zero_shot.get(name)) if ranking else None for name in board.axes["entry"]
    }
    axis = interval_axis(gains[row.row.id] for row in standings if shapes_axis(row))
    rows = []
    for row in standings:
        name = row.row.id
        tier = ranking.tiers.get(name) if ranking else None
        rows.append(
            {
                **_head(board, row),
                "tier": str(tier) if tier is not None else "flag" if row.flagged else "–",
                "gain": interval(gains[name]),
                "strip": interval_bar(gains[name], axis),
                "level": _level(board, headline, name, code),
                "tasks": [_level(board, headline, name, code, task) for task in board.axes["task"]],
                "others": [_level(board, metric, name, code) for metric in metrics],
            }
        )
    sign = 1 if headline.direction == "down" else -1
    rows.sort(key=lambda row: (not row["level"].sort, sign * float(row["level"].sort or 0), row["name"]))
    return {
        "language": language(code),
        "sentence": _leader(rows, headline, language(code)),
        "reason": ranking.reason if ranking else "no entry is complete here",
        "tasks": board.axes["task"],
        "metrics": metrics,
        "human": [format_number(board.human(metric, code), digits_of(metric.name)) for metric in metrics],
        "rows": rows,
        "axis": axis,
    }


def _leader(rows: list[dict[str, Any]], metric: Metric, spoken: Language) -> str:
    """Return which entry leads in a language, and whether it differs from others."""
    written = [row for row in rows if not row["reference"] and row["level"].sort]
    if not written:
        return f"No entry has all its {spoken.name} cells yet."
    first_tier = [row for row in written if row["tier"] == "1"]
    best = first_tier or [row for row in written if not row["flagged"]]
    if not best:
        return f"Every entry that has all its {spoken.name} cells is flagged."
    words = f"Highest {metric.title} in {spoken.name}: {best[0]['name']}, {best[0]['level'].text}."
    if not first_tier:
        return words
    peers = len(first_tier) - 1
    differs = f"{peers} more in its tier cannot be distinguished from it." if peers else ""
    return f"{words} {differs or 'It differs significantly from every other entry.'}"


class GridCell(NamedTuple):
    """One entry in one language. ``tint``: -1 to 1, the colour; ``mark``: ▲ or ▼ for a discovery."""

    gain: str
    level: str
    tint: float
    mark: str
    words: str


def gain_grid(board: Board) -> dict[str, Any]:
    """Return gains over zero-shot by language, in the order of the ranking.

    ``n``: cells behind one value. ``known``: whether any cell has a gain or a level.
    """
    selection, standings = board.result_set.manifest.selection, board.standings.rows
    n = len(selection.tasks) * len(selection.seeds)
    gains = [cell.gain.mean for row in standings if not row.reference for cell in row.languages.values()]
    full = max([_FULL, *map(abs, gains)]) * (-1 if board.headline.direction == "down" else 1)
    rows = []
    for row in standings:
        cells = []
        for code in selection.languages:
            level, found = board.level(board.headline, row.row.id, language=code), row.languages.get(code)
            cells.append(_grid_cell(level, found.gain if found else None, bool(found and found.found), full, n))
        rows.append({**_head(board, row), "cells": cells})
    return {
        "languages": [language(code) for code in selection.languages],
        "rows": rows,
        "n": n,
        "known": any(cell.gain or cell.words for row in rows for cell in row["cells"]),
    }


def _grid_cell(level: float | None, gain: Estimate | None, discovery: bool, full: float, n: int) -> GridCell:
    """Return a cell; ``full``: the gain of the full colour, negative where less is better."""
    shown = format_number(level)
    if gain is None:
        return GridCell("", shown, 0.0, "", f"{shown}, n = {n} cells" if level is not None else "")
    tint = round(max(-1.0, min(1.0, gain.mean / full)), 2)
    mark = ("▲" if gain.mean / full > 0 else "▼") if discovery else ""
    stands = ", significant after correction over the grid" if discovery else ""
    words = f"{format_interval(gain)}, level {shown}, n = {n} cells{stands}"
    return GridCell(format_signed(gain.mean), shown, tint, mark, words)
