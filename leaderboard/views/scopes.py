"""The ranking of every task and language, for the script of the overview: numbers alone, computed here."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.ranking.results import BASELINE
from harness.ranking.slices import SliceRanking
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of
from leaderboard.boards import Board
from leaderboard.charts.forest import axis
from leaderboard.text import name_of
from leaderboard.views.columns import secondary_metrics
from leaderboard.views.headline import headline
from leaderboard.views.matrix import Matrix
from leaderboard.views.overview import shapes_axis
from leaderboard.views.plots import kind_of

_DIGITS = 7  # so many that rounding again to the three that are shown gives what Python shows


def scope_data(board: Board, means: Matrix, pages: Mapping[str, str]) -> dict[str, object]:
    """Return, per scope, tier, level, gain, half width of its interval and the side metrics of all entries.

    Lists are in the order of ``entries``; null is unknown. ``reason``: why a scope has no tiers. ``cells``:
    how many strata a scope has, the weight of a language in a mean of several. ``marked``: positions of the
    entries that ``note`` is about. ``axis``: start, stop and step of that of the gains. The first scope is
    the whole. ``kinds``, ``names``, ``pages`` and ``seconds`` (for 1,000 valid texts) are for the plots.
    """
    rows = board.standings.rows
    return {
        "entries": [row.row.id for row in rows],
        "names": [name_of(row.row.name) for row in rows],
        "kinds": [kind_of(row) for row in rows],
        "pages": [pages[row.row.id] for row in rows],
        "zero": [row.row.entry.method.name == BASELINE for row in rows],
        "seconds": [_seconds(board, row.row.id) for row in rows],
        "relative": board.standings.relative,
        "headline": board.headline.name,
        "better": board.headline.direction,
        "digits": {metric.name: digits_of(metric.name) for metric in (board.headline, *secondary_metrics(board))},
        "scopes": [_scope(board, means, field) for field in board.fields],
    }


def _scope(board: Board, means: Matrix, field: SliceRanking) -> dict[str, object]:
    rows = board.standings.rows
    entries = [row.row.id for row in rows]
    gains = [field.gains.get(name) for name in entries]
    task, code = field.scope.task, field.scope.language
    metrics = [board.headline, *secondary_metrics(board)]
    words = headline(board, field)
    on = axis(gain for gain, row in zip(gains, rows, strict=True) if shapes_axis(row))
    return {
        "task": task or "",
        "language": code or "",
        "cells": len(means.chosen(task, code)),
        "reason": name_of(field.reason, 300),
        "verdict": words.verdict,
        "words": words.words,
        "ranking": words.ranking,
        "rules": words.rules,
        "note": words.note,
        "marked": [i for i, name in enumerate(entries) if name in set(words.marked)],
        "axis": [_number(on.start), _number(on.stop), _number(on.step)],
        "tier": [field.tiers.get(name) for name in entries],
        "gain": [_number(found.mean if found else None) for found in gains],
        "half": [_number(_half(found)) for found in gains],
        "levels": {m.name: [_number(means.level(m, name, task, code)) for name in entries] for m in metrics},
    }


def _seconds(board: Board, entry: str) -> float | None:
    spent = board.costs.get(entry)
    found = spent.seconds_per_1000_valid if spent else None
    return None if found is None else round(found, 3)


def _half(found: Estimate | None) -> float | None:
    return None if found is None or found.high is None else found.high - found.mean


def _number(value: float | None) -> float | None:
    return round(value, _DIGITS) if value is not None and math.isfinite(value) else None
