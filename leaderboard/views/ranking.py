"""The ranking of a board: its columns, and one row per entry with all that readers sort, filter and compare by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from harness.core.languages import language
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import CORRECTION
from harness.ranking.summary import describe_rivalry, digits_of, format_interval, format_number, format_signed, tier_of
from harness.scoring.metrics import RELEVANCE, SELF_CHRF, TARGET_SHARE, Metric, harmonic
from leaderboard.boards import Board
from leaderboard.charts import Scale, interval_axis, interval_bar
from leaderboard.rendering import BETTER, TableCell, sort_value
from leaderboard.text import WORDS, name_of
from leaderboard.views.curves import curve_cells
from leaderboard.views.origins import EntryOrigin
from leaderboard.views.slices import headline, shapes_axis

_ALWAYS = ("tier", "entry", "gain", "cells")


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
    headline, texts, found = board.headline, board.track == "generation", []
    better = f"{BETTER[headline.direction].capitalize()}."
    for fields in WORDS["columns"]:
        key = fields["key"]
        if key == "headline":
            found.append(_of_metric(headline, headline.group == "downstream"))
        elif key == "secondary":
            found += [_of_metric(side, texts, more=side == SELF_CHRF) for side in board.secondary]
        elif fields.get("track", board.track) == board.track:
            way = headline.direction if fields.get("better") == "headline" else fields.get("better", "none")
            for code in board.checks if key == "check" else [""]:
                said = {"title": headline.title, "better": better, "correction": CORRECTION}
                said |= {"name": name_of(language(code).name) if code else ""}
                found.append(
                    RankingColumn(
                        f"check-{code}" if code else key,
                        fields["title"].format(**said),
                        fields["hint"].format(**said),
                        way,
                        **{name: fields.get(name, False) for name in ("more", "whole", "text")},
                    )
                )
    return found


def _of_metric(metric: Metric, human: bool, more: bool = False) -> RankingColumn:
    hint = f"{metric.definition} {metric.unit}; {BETTER[metric.direction]}."
    hint += " Small print: human-written text." if human else ""
    return RankingColumn(metric.name, metric.title.replace(" (tfidf)", ""), hint, metric.direction, more)


def overview(board: Board, origins: dict[str, EntryOrigin]) -> dict[str, Any]:
    """Return the ranking of a board with its headline; ``origins``: by entry id."""
    ranked, whole, selection = board.standings, board.slice(), board.result_set.manifest.selection
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
        "rivalry": describe_rivalry(board.rivalry, board.names, board.headline),
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
        "name": board.names[standing.row.id],
        "short": name_of(standing.row.name.removesuffix(f", {model.name}") if model else standing.row.name, 160),
        "page": board.page(standing.row.id),
        "family": board.kind(standing.row.id),
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
            **curve_cells(board, standing.row.id),
            "badge": TableCell(origin.badge, origin.badge, title=origin.checked),
            "date": TableCell(origin.date, origin.date),
        },
        "notes": [name_of(note, 400) for note in (standing.note, origin.contrast) if note],
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
