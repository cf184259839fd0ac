"""The overview of a board: one row per entry with everything a reader sorts, filters and compares by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.languages import Language, language
from harness.ranking.cost import Cost
from harness.ranking.leaderboard_rows import RankedEntry, Ranking
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of, format_interval, format_number, format_signed
from harness.scoring.metrics import RELEVANCE, TARGET_SHARE, Metric, harmonic
from leaderboard.boards import Board
from leaderboard.charts.forest import IntervalBar, axis, interval_bar
from leaderboard.charts.scale import Scale
from leaderboard.families import row_kind
from leaderboard.rendering import sort_value
from leaderboard.text import name_of
from leaderboard.views.columns import RankingColumn, columns, secondary_metrics
from leaderboard.views.headline import Headline, headline
from leaderboard.views.matrix import Matrix
from leaderboard.views.sources import EntryOrigin

_ALWAYS = ("tier", "entry", "gain", "cells")


@dataclass(frozen=True)
class OverviewCell:
    """What one cell shows, and what it is sorted by (nothing for unknown: always last)."""

    text: str
    sort: str = ""
    small: str = ""
    title: str = ""


@dataclass(frozen=True)
class OverviewRow:
    """One entry: its marks for the filters, its cells by the key of their column, its strip.

    ``short``: the name without the model. ``notes``: what a reader of the row must know.
    """

    id: str
    name: str
    short: str
    page: str
    family: str
    setting: str
    model: str
    badge: str
    flagged: bool
    reason: str
    opens: bool
    strip: IntervalBar | None
    cells: dict[str, OverviewCell]
    notes: list[str]


@dataclass(frozen=True)
class Overview:
    """Everything about one board that its overview shows in words and in the ranking."""

    headline: Headline
    remarks: list[str]
    columns: list[RankingColumn]
    rows: list[OverviewRow]
    axis: Scale
    models: list[str]
    settings: list[str]
    families: list[str]
    tasks: list[str]
    languages: list[Language]


def overview(board: Board, means: Matrix, sources: dict[str, EntryOrigin], pages: dict[str, str]) -> Overview:
    """Return the overview. ``pages``: entry id -> address of its method's page."""
    ranked, whole = board.standings, board.field()
    assert whole is not None  # every ranking has the scope of all
    on = axis(row.over_zero_shot for row in ranked.rows if shapes_axis(row))
    rows, tier = [], None
    for standing in ranked.rows:
        opens = standing.tier is not None and standing.tier != tier
        tier = standing.tier if standing.tier is not None else tier
        rows.append(_row(board, means, standing, sources, pages, on, opens))
    selection = board.cellset.manifest.selection
    return Overview(
        headline=headline(board, whole),
        remarks=[*ranked.notes, *_flags(ranked)],
        columns=[column for column in columns(board) if _says_something(column, rows, means)],
        rows=rows,
        axis=on,
        models=_values(row.model for row in rows),
        settings=_values(row.setting for row in rows),
        families=_values(row.family for row in rows),
        tasks=list(selection.tasks),
        languages=[language(code) for code in selection.languages],
    )


def _row(
    board: Board,
    means: Matrix,
    standing: RankedEntry,
    sources: dict[str, EntryOrigin],
    pages: dict[str, str],
    on: Scale,
    opens: bool,
) -> OverviewRow:
    entry, source = standing.row.entry, sources[standing.row.id]
    gain = standing.over_zero_shot
    return OverviewRow(
        id=standing.row.id,
        name=name_of(standing.row.name, 160),
        short=short_name(standing),
        page=pages[standing.row.id],
        family=row_kind(entry),
        setting=entry.setting,
        model=name_of(entry.model.name) if entry.model else "",
        badge=source.badge,
        flagged=standing.flagged,
        reason=_reason(standing),
        opens=opens,
        strip=interval_bar(gain, on),
        cells={
            **_of_standing(standing),
            board.headline.name: _number(standing.mean.mean if standing.mean else None, format_number),
            **{f"check-{code}": _checked(found.get(standing.row.id)) for code, found in board.checks.items()},
            **{side.name: _side(means, side, standing.row.id) for side in secondary_metrics(board)},
            "together": _number(_together(board, means, standing.row.id), format_number),
            **_of_cost(None if standing.reference else board.costs.get(standing.row.id)),
            "badge": OverviewCell(source.badge, source.badge, title=source.checked),
            "date": OverviewCell(source.date, source.date),
        },
        notes=[name_of(standing.note, 400)] if standing.note else [],
    )


def _says_something(column: RankingColumn, rows: Sequence[OverviewRow], means: Matrix) -> bool:
    """Return whether a column has a value in any row, of a metric in any task and language."""
    if column.key in means.metrics:
        return bool(np.isfinite(means.values[means.metrics.index(column.key)]).any())
    return column.key in _ALWAYS or any(row.cells[column.key].sort for row in rows)


def shapes_axis(standing: RankedEntry) -> bool:
    """Return whether the axis of gains is made for a row: not for references and flagged entries."""
    return not standing.reference and not standing.flags


def _flags(ranked: Ranking) -> list[str]:
    rows = [row for row in ranked.rows if row.flagged]
    return [f"flag: {row.row.name}: {flag.words}" for row in rows for flag in row.flags]


def _reason(standing: RankedEntry) -> str:
    """Say why an entry has no tier; each flag once."""
    words = [standing.reason, *(flag.words for flag in standing.flags)]
    return name_of("; ".join(dict.fromkeys(word for word in words if word)), 400)


def _of_standing(standing: RankedEntry) -> dict[str, OverviewCell]:
    gain, gap, wins = standing.over_zero_shot, standing.gap_closed, standing.win_rate
    tier = "flag" if standing.flagged else "–"
    tier = str(standing.tier) if standing.tier is not None else tier
    return {
        "tier": OverviewCell(tier, "" if standing.tier is None else str(standing.tier)),
        "gain": OverviewCell(format_interval(gain), sort_value(gain), title=standing.note),
        "few": OverviewCell(format_interval(standing.over_few_shot), sort_value(standing.over_few_shot)),
        "gap": OverviewCell(
            format_signed(gap.mean if gap else None, 0), sort_value(gap), title=format_interval(gap, 0) if gap else ""
        ),
        "wins": _number(None if wins is None else 100 * wins, lambda value: format_number(value, 0)),
        "mde": _number(gain.mde if gain else None, format_number),
        "borda": _number(standing.borda, lambda value: format_number(value, 1)),
        "rank": _number(standing.mean_rank, lambda value: format_number(value, 1)),
        "cells": OverviewCell(f"{standing.present}/{standing.expected}", f"{standing.present / standing.expected:.6g}"),
    }


def _together(board: Board, means: Matrix, entry: str) -> float | None:
    """Return the harmonic mean of an entry's mean share and mean relevance; None for other tracks."""
    if board.track != "forcing":
        return None
    share = means.level(TARGET_SHARE, entry)
    relevance = means.level(RELEVANCE.for_provider(board.headline.name.partition("/")[2]), entry)
    return None if share is None or relevance is None else harmonic(share, relevance)


def _checked(gain: Estimate | None) -> OverviewCell:
    """Return the gain in a language that must not get worse; marked where it clearly does."""
    if gain is None:
        return OverviewCell("–")
    worse = gain.high is not None and gain.high < 0
    words = "clearly worse than zero-shot here" if worse else "not clearly worse than zero-shot here"
    return OverviewCell(f"{'▼ ' if worse else ''}{format_interval(gain)}", sort_value(gain), title=words)


def _of_cost(cost: Cost | None) -> dict[str, OverviewCell]:
    seconds = cost.seconds_per_1000_valid if cost else None
    tokens = cost.tokens_per_1000_valid if cost else None
    return {
        "seconds": _number(seconds, lambda value: "–" if value is None else f"{value:,.0f}"),
        "tokens": _number(tokens, lambda value: "–" if value is None else f"{value:,.0f}"),
    }


def _side(means: Matrix, side: Metric, entry: str) -> OverviewCell:
    digits, value, human = digits_of(side.name), means.level(side, entry), means.beside(side, entry)
    small = format_number(human, digits) if value is not None and human is not None else ""
    return OverviewCell(format_number(value, digits), sort_value(value), small)


def _number(value: float | None, shown: Callable[[float | None], str]) -> OverviewCell:
    return OverviewCell(shown(value), sort_value(value))


def short_name(standing: RankedEntry) -> str:
    """Return the name of an entry without its model."""
    model = standing.row.entry.model
    return name_of(standing.row.name.removesuffix(f", {model.name}") if model else standing.row.name, 160)


def _values(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name})
