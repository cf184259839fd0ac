"""The scatter plots of a board: diversity against use, cost against gain; and the sweeps as heatmaps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.ranking.standings import Standing
from harness.ranking.summary import digits_of, plain, spanned
from harness.records import SurfacePoint
from harness.scoring.metrics import VENDI, Metric
from leaderboard.boards import Board
from leaderboard.charts.heatmap import Heatmap, heatmap
from leaderboard.charts.scatter import Item, Scatter, Way, scatter
from leaderboard.families import family
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
    """Return diversity (Vendi) against the headline, with the front of those that no other beats in both."""
    side = VENDI.of("tfidf")
    items = []
    for standing in board.standings.rows:
        x, y = means.level(side, standing.row.id), standing.mean
        if x is None or y is None:
            continue
        words = f"{side.title} {plain(x, digits_of(side.name))}, {board.headline.title} {plain(y.mean)}"
        items.append(_item(standing, x, y.mean, words, pages))
    return scatter(items, _axis(side), _axis(board.headline), "up", _way(board.headline))


def cost(board: Board, pages: dict[str, str]) -> Scatter | None:
    """Return seconds per 1,000 valid texts against the gain over zero-shot, with its interval."""
    items = []
    for standing in board.standings.rows:
        spent, gain = board.costs.get(standing.row.id), standing.over_zero_shot
        x = spent.seconds_per_1000_valid if spent and not standing.reference else None
        if x is None:
            continue
        y = gain.mean if gain else 0.0 if standing.row.entry.method.name == "zero-shot" else None
        if y is not None:
            words = f"{x:,.0f} s for 1,000 valid texts, gain {spanned(gain) if gain else '0 by definition'}"
            low, high = (gain.low, gain.high) if gain else (None, None)
            items.append(_item(standing, x, y, words, pages, low, high))
    title = f"gain over zero-shot in {board.headline.title}"
    return scatter(
        items, "seconds for 1,000 valid texts (lower is better)", title, "down", _way(board.headline)
    )


def _item(
    standing: Standing,
    x: float,
    y: float,
    words: str,
    pages: dict[str, str],
    low: float | None = None,
    high: float | None = None,
) -> Item:
    name = name_of(standing.row.name)
    kind = "flagged" if standing.flags and not standing.reference else family(standing.row.entry)
    return Item(name, x, y, kind, f"{name}: {words}", pages[standing.row.id], low, high)


def _way(metric: Metric) -> Way:
    return "down" if metric.direction == "down" else "up"


def _axis(metric: Metric) -> str:
    words = {"up": " (higher is better)", "down": " (lower is better)", "none": ""}
    return f"{metric.title}{words[metric.direction]}"


def sweeps(board: Board, surfaces: Iterable[tuple[str, list[SurfacePoint]]]) -> list[Sweep]:
    """Return the heatmaps of what was tuned and of what the board itself has several configs of.

    ``surfaces``: where a sweep comes from, and its points; of more than ``_POINTS`` none is drawn.
    """
    found = []
    for of, points in surfaces:
        by_method: dict[str, list[SurfacePoint]] = {}
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
