"""The ranking of every task and language, for the script of the overview: numbers alone, computed here."""

from __future__ import annotations

import math

from harness.ranking.scopes import Field
from leaderboard.boards import Board
from leaderboard.text import name_of
from leaderboard.views.columns import SIDES
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
        "scopes": [_scope(board, means, field, entries) for field in board.fields],
    }


def _scope(board: Board, means: Matrix, field: Field, entries: list[str]) -> dict[str, object]:
    place = {name: i for i, name in enumerate(field.entries)}
    gain: list[float | None] = []
    half: list[float | None] = []
    for name in entries:
        i, j = place.get(name, -1), place.get(board.zero_shot.get(name, ""), -1)
        known = i >= 0 and j >= 0
        gain.append(_number(float(field.difference[i, j])) if known else None)
        half.append(_number(float(field.half[i, j])) if known else None)
    task, code = field.scope.task, field.scope.language
    metrics = [board.headline, *SIDES]
    return {
        "task": task or "",
        "language": code or "",
        "reason": name_of(field.reason, 300),
        "tier": [field.tiers.get(name) for name in entries],
        "gain": gain,
        "half": half,
        "levels": {m.name: [_number(means.level(m, name, task, code)) for name in entries] for m in metrics},
    }


def _number(value: float | None) -> float | None:
    return round(value, _DIGITS) if value is not None and math.isfinite(value) else None
