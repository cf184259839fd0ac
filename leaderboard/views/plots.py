"""The scatter plots of a board: diversity against use, cost against gain; and the sweeps as heatmaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.core.records import GridPoint
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.results import BASELINE
from harness.ranking.summary import digits_of, format_interval, format_number
from harness.scoring.metrics import VENDI, Metric
from leaderboard.boards import Board
from leaderboard.charts.heatmap import Heatmap, heatmap
from leaderboard.charts.scatter import Scatter, ScatterItem, Way, scatter
from leaderboard.families import row_kind
from leaderboard.text import name_of
from leaderboard.views.matrix import Matrix

_POINTS = 1000


@dataclass(frozen=True)
class Sweep:
    """One method's sweep of two or more fields: where it was tried and what came of it."""

    method: str
    of: str
    map: Heatmap


def diversity(board: Board, means: Matrix, pages: dict[str, str]) -> Scatter | None:
    """Return diversity (Vendi) against the gain over zero-shot, with the front of what none beats."""
    side = VENDI.for_provider("tfidf")
    levels = {row.row.id: means.level(side, row.row.id) for row in board.standings.rows}
    shown = {name: f"{side.title} {format_number(x, digits_of(side.name))}" for name, x in levels.items()}
    return _against_gain(board, levels, shown, pages, _axis(side), "up")


def cost(board: Board, pages: dict[str, str]) -> Scatter | None:
    """Return seconds per 1,000 valid texts against the gain over zero-shot."""
    seconds = {
        row.row.id: board.costs[row.row.id].seconds_per_1000_valid
        for row in board.standings.rows
        if row.row.id in board.costs and not row.reference
    }
    shown = {name: f"{x:,.0f} s for 1,000 valid texts" for name, x in seconds.items() if x is not None}
    title = "seconds for 1,000 valid texts (lower is better)"
    return _against_gain(board, seconds, shown, pages, title, "down")


def _against_gain(
    board: Board,
    levels: Mapping[str, float | None],
    shown: Mapping[str, str],
    pages: Mapping[str, str],
    title: str,
    better: Way,
) -> Scatter | None:
    """Return a figure of entries (``levels``, ``shown`` in words) against their gain with its interval."""
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
        items.append(ScatterItem(name, x, y, kind_of(standing), words, pages[row.id], low, high))
    gains = f"gain over zero-shot in {board.headline.title}"
    return scatter(items, title, gains, better, "down" if board.headline.direction == "down" else "up")


def kind_of(standing: RankedEntry) -> str:
    """Return what a point is drawn as: its family, or that it is flagged."""
    return "flagged" if standing.flagged else row_kind(standing.row.entry)


def _axis(metric: Metric) -> str:
    words = {"up": " (higher is better)", "down": " (lower is better)", "none": ""}
    return f"{metric.title}{words[metric.direction]}"


def sweeps(board: Board, surfaces: Iterable[tuple[str, list[GridPoint]]]) -> list[Sweep]:
    """Return the heatmaps of what was tuned and of what the board itself has several configs of.

    ``surfaces``: where a sweep comes from, and its points; of more than ``_POINTS`` none is drawn.
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
