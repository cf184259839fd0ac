"""The ranking of a board: its columns, and one row per entry with all that readers sort, filter and compare by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from harness.core.languages import language
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import CORRECTION
from harness.ranking.summary import digits_of, format_interval, format_number, format_signed, tier_of
from harness.scoring.metrics import RELEVANCE, SELF_CHRF, TARGET_SHARE, Metric, harmonic
from leaderboard.boards import Board, row_kind
from leaderboard.charts.axes import Scale, interval_axis, interval_bar
from leaderboard.rendering import BETTER, sort_value
from leaderboard.text import name_of
from leaderboard.views.origins import EntryOrigin
from leaderboard.views.slices import headline, shapes_axis

_ALWAYS = ("tier", "entry", "gain", "cells")

_HINTS = {
    "tier": "Entries of a tier do not differ significantly from its best: paired differences with two-way intervals "
    f"over seeds and test examples, {CORRECTION}, 5 %.",
    "entry": "Method, and its options where several entries of a method differ.",
    "gain": "Mean paired difference in {title} to unsteered zero-shot of the same model, task, language and seed, "
    "with its 95 % interval. {better}",
    "few": "As the gain, against unsteered few-shot, in {title}. {better}",
    "gap": "Percent of the way from zero-shot to human-written text of the same size; nothing where human-written "
    "text is not clearly better. Higher is better.",
    "check": "Mean gain in {title} in {name}, which is excluded from averages: a method must not pay for the others "
    "with it. {better}",
    "together": "Harmonic mean of share and relevance, each averaged over all cells first (arXiv 2601.08331). Rows are "
    "ranked by the mean of the cells' own harmonic means, which has an interval. Higher is better.",
    "wins": "Percent of the cases (a task in a language) with a mean gain over zero-shot. Depends on the cases; "
    "secondary. Higher is better.",
    "mde": "Minimum detectable effect: the smallest true difference to zero-shot that such an experiment finds in 80 "
    "of 100 repeats. Lower is better.",
    "borda": "Over all cases, the number of ranked entries that it beats, ties for a half. Depends on which entries "
    "are shown; secondary. Higher is better.",
    "rank": "Mean rank over the cases, 1 is best. Depends on which entries are shown; secondary. Lower is better.",
    "seconds": "Seconds for 1,000 valid texts: generation with redraws, fits and tuning. Not comparable between "
    "devices. Lower is better.",
    "tokens": "Tokens for 1,000 valid texts: prompts, texts, fits and tuning. Lower is better.",
    "cells": "Cells with a value of cells planned. A row without all of them has no mean. Higher is better.",
    "badge": "How far the numbers were checked: 'own run' was generated and scored by whoever built this page; "
    "'self-reported' was submitted; 'rescored': its texts were rescored; 'reproduced': some texts, too.",
    "date": "When the newest run of the entry was started.",
}
"""Key of a column -> its definition, with the fields of the headline's ``title`` and which way is ``better``."""


class TableCell(NamedTuple):
    """The text of a cell, and what it is sorted by (empty for unknown: always last)."""

    text: str
    sort: str = ""
    small: str = ""
    title: str = ""


class RankingColumn(NamedTuple):
    """A column of the ranking. ``more``: shown on request; ``whole``: only of all tasks and languages.

    ``hint``: definition, unit and which way is better.
    """

    key: str
    title: str
    hint: str
    better: str = "none"
    more: bool = False
    whole: bool = False
    text: bool = False


def columns(board: Board) -> list[RankingColumn]:
    """Return the columns of the ranking, in their order."""
    headline, texts = board.headline, board.track == "generation"
    way, better = headline.direction, f"{BETTER[headline.direction].capitalize()}."

    def column(
        key: str, title: str, better_way: str = "none", more: bool = False, whole: bool = True, name: str = ""
    ) -> RankingColumn:
        hint = _HINTS[key.partition("-")[0]].format(title=headline.title, better=better, name=name)
        return RankingColumn(key, title, hint, better_way, more, whole, text=better_way == "none")

    checks = [(code, name_of(language(code).name)) for code in board.checks]
    return [
        column("tier", "tier", "down", whole=False),
        column("entry", "entry", whole=False),
        column("gain", "gain over zero-shot", way, whole=False)._replace(text=False),
        _of_metric(headline, headline.group == "downstream"),
        *([column("few", "vs few-shot", way, more=True), column("gap", "gap closed %", "up")] if texts else []),
        *(column(f"check-{code}", f"{name} check", way, name=name)._replace(text=False) for code, name in checks),
        *([column("together", "forcing, all answers", "up")] if board.track == "forcing" else []),
        column("wins", "win rate", "up", more=True),
        column("mde", "MDE", "down", more=True),
        column("borda", "Borda", "up", more=True),
        column("rank", "mean rank", "down", more=True),
        *(_of_metric(side, texts, more=side == SELF_CHRF) for side in board.secondary),
        *([column("seconds", "s / 1,000", "down")] if texts else []),
        *([column("tokens", "tokens / 1,000", "down", more=True)] if texts else []),
        column("cells", "cells", "up"),
        column("badge", "checked"),
        column("date", "date"),
    ]


def _of_metric(metric: Metric, human: bool, more: bool = False) -> RankingColumn:
    hint = f"{metric.definition} {metric.unit}; {BETTER[metric.direction]}."
    hint += " Small print: human-written text." if human else ""
    return RankingColumn(metric.name, metric.title.replace(" (tfidf)", ""), hint, metric.direction, more)


def overview(board: Board, origins: dict[str, EntryOrigin]) -> dict[str, Any]:
    """Return the ranking of a board with its headline; ``origins``: by entry id."""
    ranked, whole, selection = board.standings, board.slice(), board.cellset.manifest.selection
    assert whole is not None  # every ranking has the slice of all
    axis = interval_axis(row.over_zero_shot for row in ranked.rows if shapes_axis(row))
    rows, tier = [], None
    for standing in ranked.rows:
        opens = standing.tier is not None and standing.tier != tier
        tier = standing.tier if standing.tier is not None else tier
        rows.append({**_row(board, standing, origins[standing.row.id], axis), "opens": opens})
    shown = [
        column
        for column in columns(board)
        if (board.measured(column.key) if column.key in board.axes["metric"] else column.key in _ALWAYS)
        or (column.key not in board.axes["metric"] and any(row["cells"][column.key].sort for row in rows))
    ]
    flagged = (row for row in ranked.rows if row.flagged)
    return {
        "headline": headline(board, whole),
        "remarks": [*ranked.notes, *(f"flag: {r.row.name}: {flag.words}" for r in flagged for flag in r.flags)],
        "columns": shown,
        "rows": rows,
        "axis": axis,
        "models": _values(row["model"] for row in rows),
        "settings": _values(row["setting"] for row in rows),
        "families": _values(row["family"] for row in rows),
        "tasks": list(selection.tasks),
        "languages": [language(code) for code in selection.languages],
    }


def _row(board: Board, standing: RankedEntry, origin: EntryOrigin, axis: Scale) -> dict[str, Any]:
    """Return one entry: values of the filters, its cells by the key of their column, its interval."""
    entry, model = standing.row.entry, standing.row.entry.model
    words = [standing.reason, *(flag.words for flag in standing.flags)]
    return {
        "id": standing.row.id,
        "name": name_of(standing.row.name, 160),
        "short": name_of(standing.row.name.removesuffix(f", {model.name}") if model else standing.row.name, 160),
        "page": board.page(standing.row.id),
        "family": row_kind(entry),
        "setting": entry.setting,
        "model": name_of(model.name) if model else "",
        "badge": origin.badge,
        "flagged": standing.flagged,
        "reason": name_of("; ".join(dict.fromkeys(word for word in words if word)), 400),
        "strip": interval_bar(standing.over_zero_shot, axis),
        "cells": {
            **_of_standing(standing),
            board.headline.name: number(standing.mean.mean if standing.mean else None),
            **{f"check-{code}": _of_check(gains.get(standing.row.id)) for code, gains in board.checks.items()},
            **{metric.name: _of_level(board, metric, standing.row.id) for metric in board.secondary},
            "together": number(_together(board, standing.row.id)),
            **_of_cost(board, standing),
            "badge": TableCell(origin.badge, origin.badge, title=origin.checked),
            "date": TableCell(origin.date, origin.date),
        },
        "notes": [name_of(standing.note, 400)] if standing.note else [],
    }


def number(value: float | None, digits: int = 3) -> TableCell:
    """Return the cell of a number."""
    return TableCell(format_number(value, digits), sort_value(value))


def interval(gain: Estimate | None, title: str = "") -> TableCell:
    """Return the cell of a difference with its interval."""
    return TableCell(format_interval(gain), sort_value(gain), title=title)


def _of_standing(standing: RankedEntry) -> dict[str, TableCell]:
    gain, gap, wins = standing.over_zero_shot, standing.gap_closed, standing.win_rate
    share = standing.present / standing.expected
    closed = format_signed(gap.mean if gap else None, 0)
    return {
        "tier": TableCell(tier_of(standing), "" if standing.tier is None else str(standing.tier)),
        "gain": interval(gain, standing.note),
        "few": interval(standing.over_few_shot),
        "gap": TableCell(closed, sort_value(gap), title=format_interval(gap, 0) if gap else ""),
        "wins": number(None if wins is None else 100 * wins, 0),
        "mde": number(gain.mde if gain else None),
        "borda": number(standing.borda, 1),
        "rank": number(standing.mean_rank, 1),
        "cells": TableCell(f"{standing.present}/{standing.expected}", f"{share:.6g}"),
    }


def _together(board: Board, entry: str) -> float | None:
    """Return the harmonic mean of an entry's mean share and mean relevance; None for other tracks."""
    if board.track != "forcing":
        return None
    share = board.level(TARGET_SHARE, entry)
    relevance = board.level(RELEVANCE.for_provider(board.headline.name.partition("/")[2]), entry)
    return None if share is None or relevance is None else harmonic(share, relevance)


def _of_check(gain: Estimate | None) -> TableCell:
    """Return the gain in a language that must not get worse; marked where it clearly does."""
    if gain is None:
        return TableCell("–")
    worse = gain.high is not None and gain.high < 0
    cell = interval(gain, f"{'' if worse else 'not '}clearly worse than zero-shot here")
    return cell._replace(text=f"▼ {cell.text}") if worse else cell


def _of_cost(board: Board, standing: RankedEntry) -> dict[str, TableCell]:
    cost = None if standing.reference else board.costs.get(standing.row.id)
    values = (cost.seconds_per_1000_valid, cost.tokens_per_1000_valid) if cost else (None, None)
    cells = (TableCell("–" if value is None else f"{value:,.0f}", sort_value(value)) for value in values)
    return dict(zip(("seconds", "tokens"), cells, strict=True))


def _of_level(board: Board, metric: Metric, entry: str) -> TableCell:
    value, human = board.level(metric, entry), board.level(metric, entry, column="human")
    cell = number(value, digits_of(metric.name))
    small = format_number(human, digits_of(metric.name)) if value is not None and human is not None else ""
    return cell._replace(small=small)


def _values(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name})
