"""Estimates with intervals as strips on one common axis: one strip stands in every row of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.ranking.stats.estimates import Estimate
from leaderboard.charts.scale import Scale, tight, without_outliers

WIDTH = 168
"""Pixels of a strip; the script of the page draws with the same number."""

_MARGIN = 8
_NOTHING = 0.01  # how far an axis without any estimate reaches


@dataclass(frozen=True)
class IntervalBar:
    """One estimate, in pixels. ``beyond``: -1 or 1 where it lies off the axis and an arrow stands for it.

    ``open_low``, ``open_high``: whether the interval goes on beyond that end of the axis.
    """

    x: float
    low: float
    high: float
    beyond: int
    open_low: bool = False
    open_high: bool = False


def axis(estimates: Iterable[Estimate | None]) -> Scale:
    """Return an axis that holds 0 and the field: these estimates with their intervals, without outliers.

    One row that went wrong would otherwise squash all others into a corner.
    """
    ends = []
    for item in estimates:
        if item is not None:
            ends += [item.mean, *(end for end in (item.low, item.high) if end is not None)]
    shown = [0.0, *without_outliers(ends)]
    shown += [] if any(shown) else [-_NOTHING, _NOTHING]
    return tight(shown, _MARGIN, WIDTH - _MARGIN, ticks=2)


def interval_bar(estimate: Estimate | None, on: Scale) -> IntervalBar | None:
    """Return where an estimate lies; None for none."""
    if estimate is None:
        return None
    low = estimate.mean if estimate.low is None else estimate.low
    high = estimate.mean if estimate.high is None else estimate.high
    return IntervalBar(
        on.at(estimate.mean),
        on.at(low),
        on.at(high),
        on.beyond(estimate.mean),
        on.beyond(low) < 0,
        on.beyond(high) > 0,
    )
