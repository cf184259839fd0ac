"""Two entries head to head: paired differences by scope, for the page and for its script."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from harness.languages import language
from harness.ranking.scopes import Field, Scope
from harness.ranking.stats import Estimate
from harness.ranking.summary import plain, spanned
from leaderboard.boards import Board
from leaderboard.charts.forest import Strip, axis, strip
from leaderboard.charts.scale import Scale
from leaderboard.text import name_of

UNKNOWN = 65_535
"""Half widths are handed to the page in two bytes: steps of the scope's unit, rounded up, or this."""


@dataclass(frozen=True)
class DuelRow:
    """One scope: both means, the difference A - B with its interval, and what follows from it."""

    scope: str
    a: str
    b: str
    difference: str
    verdict: str
    strip: Strip | None


@dataclass(frozen=True)
class Duel:
    """The pair that the page opens with, and the numbers of all pairs for its script."""

    names: list[tuple[str, str]]
    a: str
    b: str
    rows: list[DuelRow]
    axis: Scale
    data: dict[str, object]


def duel(board: Board) -> Duel | None:
    """Return the page's data; None where fewer than two entries are complete anywhere."""
    single = [field for field in board.fields if field.scope.task is None or field.scope.language is None]
    fields = sorted(single, key=lambda field: field.scope.language is not None)  # all, tasks, languages
    order = [row.row.id for row in board.standings.rows]
    known = {name for field in fields for name in field.entries}
    names = [(name, name_of(board.cellset.entries[name].name, 120)) for name in order if name in known]
    if len(names) < 2:
        return None
    a, b = _opening(board, [name for name, _ in names])
    found = [(field, field.estimate(a, b)) for field in fields]
    on = axis(estimate for _, estimate in found)
    down = board.headline.direction == "down"
    rows = [_row(field, estimate, a, b, on, down) for field, estimate in found]
    data = {
        "down": down,
        "entries": [name for name, _ in names],
        "names": [title for _, title in names],
        "scopes": [_packed(field, [name for name, _ in names]) for field in fields],
    }
    return Duel(names, a, b, rows, on, data)


def _opening(board: Board, names: list[str]) -> tuple[str, str]:
    """Return the best entry that models wrote and the next one; without flags, where there are two such."""
    rows = [row for row in board.standings.rows if row.row.id in names]
    rows.sort(key=lambda row: (row.reference, bool(row.flags)))
    return rows[0].row.id, rows[1].row.id


def scope_name(scope: Scope) -> str:
    """Return what a scope covers, in words."""
    words = [language(scope.language).name] if scope.language else []
    words += [name_of(scope.task)] if scope.task else []
    return ", ".join(words) or "all"


def _row(field: Field, estimate: Estimate | None, a: str, b: str, on: Scale, down: bool) -> DuelRow:
    level = {name: plain(float(field.mean[i])) for i, name in enumerate(field.entries) if name in (a, b)}
    return DuelRow(
        scope=scope_name(field.scope),
        a=level.get(a, "–"),
        b=level.get(b, "–"),
        difference=spanned(estimate),
        verdict=verdict(estimate, down),
        strip=strip(estimate, on),
    )


def verdict(estimate: Estimate | None, down: bool) -> str:
    """Say in two words which entry is better, by the interval of A - B; the page's script says the same."""
    if estimate is None:
        return "not measured"
    if estimate.low is None or estimate.high is None:
        return "no interval"
    if estimate.low <= 0 <= estimate.high:
        return "cannot tell"
    return "A better" if (estimate.mean > 0) != down else "B better"


def _packed(field: Field, names: list[str]) -> dict[str, object]:
    """Return a scope for the script: means, null where unknown, and packed half widths of pairs a < b."""
    rows = [field.position.get(name, -1) for name in names]
    means = [None if row < 0 else round(float(field.mean[row]), 9) for row in rows]
    index = np.array(rows)
    half = np.full((len(names), len(names)), np.nan)
    there = np.flatnonzero(index >= 0)
    half[np.ix_(there, there)] = field.half[np.ix_(index[there], index[there])]
    upper = half[np.triu_indices(len(names), 1)]
    known = ~np.isnan(upper)
    unit = float(upper[known].max(initial=0.0)) / (UNKNOWN - 1) or 1.0
    steps = np.full(len(upper), UNKNOWN)
    steps[known] = np.minimum(np.ceil(upper[known] / unit), UNKNOWN - 1)
    packed = base64.b64encode(steps.astype("<u2").tobytes()).decode()
    return {"name": scope_name(field.scope), "means": means, "unit": unit, "half": packed}
