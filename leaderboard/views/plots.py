"""The scatter plots of a board: diversity and cost against gain; and the sweeps as heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from harness.core.records import GridPoint
from harness.ranking.results import BASELINE
from harness.ranking.summary import digits_of, format_interval, format_number
from harness.scoring.metrics import VENDI
from leaderboard.boards import Board
from leaderboard.charts.heatmap import heatmap
from leaderboard.charts.scatter import ScatterItem, Way, scatter
from leaderboard.rendering import BETTER
from leaderboard.text import name_of
from leaderboard.views.slices import kind_of

_POINTS = 1000


class Sweep(NamedTuple):
    """The grid results of one method; ``of``: the model."""

    method: str
    of: str
    map: dict[str, Any]


def diversity(board: Board) -> dict[str, Any] | None:
    """Return diversity (Vendi) against the gain over zero-shot, with the Pareto front."""
    metric = VENDI.for_provider("tfidf")
    levels = {row.row.id: board.level(metric, row.row.id) for row in board.standings.rows}
    shown = {name: f"{metric.title} {format_number(x, digits_of(metric.name))}" for name, x in levels.items()}
    return _against_gain(board, levels, shown, f"{metric.title} ({BETTER[metric.direction]})", "up")


def cost(board: Board) -> dict[str, Any] | None:
    """Return seconds per 1,000 valid texts against the gain over zero-shot."""
    seconds = {
        row.row.id: board.costs[row.row.id].seconds_per_1000_valid
        for row in board.standings.rows
        if row.row.id in board.costs and not row.reference
    }
    shown = {name: f"{x:,.0f} s for 1,000 valid texts" for name, x in seconds.items() if x is not None}
    return _against_gain(board, seconds, shown, "seconds for 1,000 valid texts (lower is better)", "down")


def _against_gain(
    board: Board, levels: Mapping[str, float | None], shown: Mapping[str, str], title: str, better: Way
) -> dict[str, Any] | None:
    """Return a plot of a quantity of entries (``levels``, ``shown`` in words) against their gain with its interval."""
    items = []
    for standing in board.standings.rows:
        row, gain = standing.row, standing.over_zero_shot
        x = levels.get(row.id)
        y = gain.mean if gain else 0.0 if standing.mean and row.entry.method.name == BASELINE else None
        if x is None or y is None:
            continue
        name = name_of(row.name)
        words = f"{name}: {shown[row.id]}, gain {format_interval(gain) if gain else '0 by definition'}"
        low, high = (gain.low, gain.high) if gain else (None, None)
        items.append(ScatterItem(name, x, y, kind_of(standing), words, board.page(row.id), low, high))
    gains = f"gain over zero-shot in {board.headline.title}"
    return scatter(items, title, gains, better, "down" if board.headline.direction == "down" else "up")


def sweeps(surfaces: Iterable[tuple[str, list[GridPoint]]]) -> list[Sweep]:
    """Return the heat maps of tuned methods; ``surfaces``: where a sweep comes from, and its points.

    A method with more than ``_POINTS`` of them, or with points of different fields, has none.
    """
    found = []
    for of, points in surfaces:
        by_method: dict[str, list[GridPoint]] = {}
        for point in points:
            by_method.setdefault(point.method, []).append(point)
        found += [
            Sweep(method, of, heatmap(method, own))
            for method, own in sorted(by_method.items())
            if len(own) <= _POINTS
            and own[0].options
            and all(point.options.keys() == own[0].options.keys() for point in own)
        ]
    return found
