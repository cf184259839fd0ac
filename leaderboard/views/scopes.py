"""The ranking of every task and language, for the script of the overview: numbers alone, computed here."""

from __future__ import annotations

import math

from harness.ranking.scopes import Field
from harness.ranking.stats import Estimate
from harness.ranking.summary import digits_of
from leaderboard.boards import Board
from leaderboard.text import name_of
from leaderboard.views.columns import sides
from leaderboard.views.matrix import Matrix

_DIGITS = 9  # so many that rounding again to the three that are shown gives what Python shows


def scope_data(board: Board, means: Matrix) -> dict[str, object]:
    """Return, per scope, tier, level, gain, half width of its interval and the side metrics of all entries.

    Lists are in the order of ``entries``; null is unknown. ``reason``: why a scope has no tiers.
    """
    entries = [row.row.id for row in board.standings.rows]
    references = [row.reference for row in board.standings.rows]
    return {
        "entries": entries,
        "references": references,
        "headline": board.headline.name,
        "digits": {metric.name: digits_of(metric.name) for metric in (board.headline, *sides(board))},
        "scopes": [_scope(board, means, field, entries) for field in board.fields],
    }


def _scope(board: Board, means: Matrix, field: Field, entries: list[str]) -> dict[str, object]:
    gains = [field.estimate(name, board.zero_shot.get(name)) for name in entries]
    task, code = field.scope.task, field.scope.language
    metrics = [board.headline, *sides(board)]
    return {
        "task": task or "",
        "language": code or "",
        "reason": name_of(field.reason, 300),
        "tier": [field.tiers.get(name) for name in entries],
        "gain": [_number(found.mean if found else None) for found in gains],
        "half": [_number(_half(found)) for found in gains],
        "levels": {m.name: [_number(means.level(m, name, task, code)) for name in entries] for m in metrics},
    }


def _half(found: Estimate | None) -> float | None:
    return None if found is None or found.high is None else found.high - found.mean


def _number(value: float | None) -> float | None:
    return round(value, _DIGITS) if value is not None and math.isfinite(value) else None
