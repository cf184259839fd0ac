"""The answer in words and the ranking of every task and language: numbers of the page's script, computed here."""

from __future__ import annotations

import math
from statistics import median
from typing import Any, NamedTuple

from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.results import BASELINE
from harness.ranking.slices import SliceRanking
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import answer, digits_of, format_number, in_words
from leaderboard.boards import Board
from leaderboard.charts import interval_axis
from leaderboard.text import counted, name_of

QUESTION = "Is any steering better than zero-shot?"

_DIGITS = 7  # so many that rounding again to the three that are shown gives what Python shows


class Headline(NamedTuple):
    """The answer to ``QUESTION`` with its reasons, the entry with the highest mean, and the rules.

    ``marked``: entries whose interval excludes 0 though they share the tier of their zero-shot; ``note``
    explains why both can be right.
    """

    verdict: str
    words: str
    ranking: str
    rules: str
    marked: list[str]
    note: str


def headline(board: Board, ranking: SliceRanking) -> Headline:
    """Return the headline of one slice; all numbers are those of its ranking."""
    rows = board.standings.rows
    steering = {  # baselines, controls, references and flagged entries are not compared
        row.row.id: ranking.gains[row.row.id]
        for row in rows
        if row.row.id in ranking.gains and not row.flags and board.kind(row.row.id) == "steering"
    }
    found = answer(steering, board.headline.direction)
    verdict, words = in_words(found, board.names, name_of(board.headline.title))
    marked = [
        name
        for name, gain in ranking.gains.items()
        if name in ranking.tiers
        and ranking.tiers[name] == ranking.tiers.get(board.zero_shot.get(name, ""))
        and gain.low is not None
        and gain.high is not None
        and (gain.low > 0 or gain.high < 0)
    ]
    note = "† The interval excludes 0 although the entry shares the tier of zero-shot: tiers are corrected "
    note += f"for {counted(ranking.comparisons, 'comparison')}, intervals are not."
    return Headline(verdict, words, _leader(board, ranking), _rules(ranking), marked, note if marked else "")


def _rules(ranking: SliceRanking) -> str:
    """Return what makes a tier and how large a gain must be to be detected."""
    words = (
        f"Not ranked: {name_of(ranking.reason, 300)}."
        if ranking.reason
        else "Tiers: entries of a tier do not differ significantly from its first (paired differences, "
        f"corrected for {counted(ranking.comparisons, 'comparison')}, 5 %)."
    )
    effects = [gain.mde for gain in ranking.gains.values() if gain.mde]
    if effects:
        words += f" MDE against zero-shot: {format_number(median(effects))} (median; 80 % power, 5 %)."
    return words


def _leader(board: Board, ranking: SliceRanking) -> str:
    """Return which entry has the highest mean, and whether it differs from the next."""
    written = [row for row in board.standings.rows if not row.reference and row.row.id in ranking.position]
    if not written:
        return "No entry has all its cells here yet, so there is no mean to compare."
    rows = [row for row in written if not row.flags]
    if not rows:
        return "Every entry that has all its cells is flagged, so none is the best."
    rows.sort(key=lambda row: _order(board, ranking, row))
    first = rows[0]
    level = format_number(float(ranking.mean[ranking.position[first.row.id]]))
    words = f"Highest mean {name_of(board.headline.title)}: {board.names[first.row.id]}, {level}."
    if ranking.reason:
        return words
    peers = [board.names[row.row.id] for row in rows[1:] if ranking.tiers.get(row.row.id) == 1]
    if not peers:
        return f"{words} It differs significantly from every other entry."
    listed = ", ".join(peers[:3]) + (f" and {len(peers) - 3} more" if len(peers) > 3 else "")
    return f"{words} It does not differ significantly from {listed}: they share tier 1."


def _order(board: Board, ranking: SliceRanking, row: RankedEntry) -> tuple[bool, float]:
    """Return the key that brings the best of the first tier to the front."""
    name, sign = row.row.id, 1.0 if board.headline.direction == "down" else -1.0
    gain = ranking.gains.get(name)
    value = float(ranking.mean[ranking.position[name]])
    if board.standings.relative:
        value = gain.mean if gain else 0.0
    return (ranking.tiers.get(name) != 1, sign * value)


def kind_of(board: Board, standing: RankedEntry) -> str:
    """Return the kind of point that an entry is drawn as."""
    return "flagged" if standing.flagged else board.kind(standing.row.id)


def shapes_axis(standing: RankedEntry) -> bool:
    """Return whether the axis of gains is made for a row: not for references and flagged entries."""
    return not standing.reference and not standing.flags


def slice_data(board: Board) -> dict[str, Any]:
    """Return, per slice, tier, level, gain, half width of its interval and the secondary metrics of all entries.

    Lists are in the order of ``entries``; null is unknown. ``reason``: why a slice has no tiers. ``cells``:
    how many strata a slice has, the weight of a language in a mean of several. ``marked``: positions of the
    entries that ``note`` is about. ``axis``: start, stop and step of that of the gains. The first slice is
    the whole. ``kinds``, ``names``, ``pages`` and ``seconds`` (for 1,000 valid texts) are for the plots.
    """
    rows, metrics = board.standings.rows, [board.headline, *board.secondary]
    costs = [board.costs.get(row.row.id) for row in rows]
    return {
        "entries": board.axes["entry"],
        "names": [name_of(row.row.name) for row in rows],
        "kinds": [kind_of(board, row) for row in rows],
        "pages": [board.page(row.row.id) for row in rows],
        "zero": [row.row.entry.method.name == BASELINE for row in rows],
        "seconds": [_rounded(cost.seconds_per_1000_valid if cost else None, 3) for cost in costs],
        "relative": board.standings.relative,
        "headline": board.headline.name,
        "better": board.headline.direction,
        "digits": {metric.name: digits_of(metric.name) for metric in metrics},
        "scopes": [
            {
                **_slice(board, ranking),
                "levels": {
                    metric.name: [
                        _rounded(board.level(metric, name, ranking.scope.task, ranking.scope.language))
                        for name in board.axes["entry"]
                    ]
                    for metric in metrics
                },
            }
            for ranking in board.slices
        ],
    }


def _slice(board: Board, ranking: SliceRanking) -> dict[str, Any]:
    entries, scope = board.axes["entry"], ranking.scope
    gains = [ranking.gains.get(name) for name in entries]
    words = headline(board, ranking)
    axis = interval_axis(gain for gain, row in zip(gains, board.standings.rows, strict=True) if shapes_axis(row))
    return {
        "task": scope.task or "",
        "language": scope.language or "",
        "cells": len(board.chosen(scope.task, scope.language)),
        "reason": name_of(ranking.reason, 300),
        **{name: getattr(words, name) for name in ("verdict", "words", "ranking", "rules", "note")},
        "marked": [i for i, name in enumerate(entries) if name in set(words.marked)],
        "axis": [_rounded(value) for value in (axis.start, axis.stop, axis.step)],
        "tier": [ranking.tiers.get(name) for name in entries],
        "gain": [_rounded(gain.mean if gain else None) for gain in gains],
        "half": [_rounded(_half(gain)) for gain in gains],
    }


def _half(gain: Estimate | None) -> float | None:
    return None if gain is None or gain.high is None else gain.high - gain.mean


def _rounded(value: float | None, digits: int = _DIGITS) -> float | None:
    return round(value, digits) if value is not None and math.isfinite(value) else None
