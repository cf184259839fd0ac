"""Statistics of a panel of complete values, as the tests and simulations ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Direction
from harness.core.types import FloatArray
from harness.ranking.stats.estimates import Estimate, estimates, gaps_closed, to_square
from harness.ranking.stats.variance import Contrasts, Moments, Stratum, build_stratum, moments
from harness.ranking.values import MetricArray


@dataclass(frozen=True)
class CompleteValues:
    """One metric of entries without missing values.

    ``values`` (entries, strata, generation seeds): mean over classifier seeds. ``draws`` (as values, resamples):
    the same under resamples of the test examples, see ``draw_weights`` and ``inflate_variance``; None for a metric
    without test examples. ``examples``: their number in the stratum with the fewest. ``fixed``: no seed decides a
    value. ``by_seed`` (entries): whose strata are not independent over seeds (``harness.ranking.stats.sharing``);
    None if all are. Raises ValueError for numbers that are not finite and shapes that do not fit.
    """

    values: FloatArray
    draws: NDArray[np.float32] | None = None
    examples: int | None = None
    fixed: bool = False
    by_seed: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or not self.values.size:
            raise ValueError(f"values have shape {self.values.shape}, not (entries, strata, seeds)")
        if not np.isfinite(self.values).all():
            raise ValueError("a value is not finite: entries with missing cells have no place here")
        if self.draws is None:
            return
        if self.draws.shape[:3] != self.values.shape or self.draws.ndim != 4 or self.draws.shape[3] < 2:
            raise ValueError(f"draws have shape {self.draws.shape}, values {self.values.shape}")
        if not (self.draws.min() >= -4 and self.draws.max() <= 4):  # beyond, sums of products were not exact
            raise ValueError("a draw is not finite or beyond 4")
        if self.examples is None or self.examples < 2:
            raise ValueError(f"draws need two test examples or more, not {self.examples}")

    @cached_property
    def strata(self) -> list[Stratum]:
        """The strata."""
        draws = self.draws
        return [
            build_stratum(self.values[:, s], None if draws is None else draws[:, s], self.fixed, self.by_seed)
            for s in range(self.values.shape[1])
        ]

    def moments(self, contrasts: Contrasts) -> Moments:
        """Return the moments of contrasts."""
        return moments(self.strata, self.examples, contrasts)


def estimate(panel: CompleteValues, weights: Mapping[int, float]) -> Estimate:
    """Return the weighted sum of entries: ``{entry: 1, baseline: -1}`` for a difference."""
    [found] = estimates(panel.moments(sums([weights])))
    return found


def sums(weights: Sequence[Mapping[int, float]]) -> Contrasts:
    """Return weighted sums of entries, all of as many terms, as contrasts."""
    columns = [np.array(list(each.items()), dtype=np.float64) for each in weights]
    return Contrasts([(term[:, 0].astype(np.int64), term[:, 1]) for term in np.stack(columns, axis=1)])


def panel_of(array: MetricArray, entries: Sequence[str]) -> CompleteValues:
    """Return the numbers of some complete entries, in the order given."""
    rows = [array.position[name] for name in entries]
    draws = None
    if array.examples is not None:
        draws = np.stack([part.draws[rows] for part in array.parts if part.draws is not None], axis=1)
    by_seed = np.array([name in array.by_seed for name in entries])
    return CompleteValues(array.values[rows], draws, array.examples, array.fixed, by_seed)


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
