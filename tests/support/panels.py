"""Statistics of a panel of complete values, as the tests and simulations ask for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.core.records import Direction
from harness.core.types import FloatArray
from harness.ranking.stats.estimates import CompleteValues, Estimate, gaps_closed, to_square
from harness.ranking.stats.variance import Contrasts


@dataclass(frozen=True)
class Differences:
    """All pairs of entries, row minus column: arrays (entries, entries); see ``harness.ranking.stats.variance``."""

    mean: FloatArray
    se: FloatArray
    df: FloatArray
    p: FloatArray


def differences(panel: CompleteValues) -> Differences:
    """Return the differences of all pairs of entries; p is 1 on the diagonal."""
    count, strata, seeds = panel.values.shape
    found = panel.moments(Contrasts.pairs(np.arange(count)))
    nothing, freedom = (0.0, strata * seeds - 1.0) if seeds > 1 else (np.nan, np.nan)
    return Differences(
        mean=to_square(found.mean, count, 0.0, sign=-1.0),
        se=to_square(found.se, count, nothing),
        df=to_square(found.df, count, freedom),
        p=to_square(found.p, count, 1.0),
    )


def gap_closed(
    panel: CompleteValues, entry: int, baseline: int, ceiling: int, better: Direction = "up"
) -> Estimate | None:
    """Return by how many percent an entry closes the gap from baseline to ceiling."""
    return gaps_closed(panel.strata, panel.examples, [(entry, baseline, ceiling)], better)[0]
