"""Paired differences of entries with intervals, p-values and minimum detectable effects.

Strata (a task in a language) are fixed; generation seeds are drawn anew in every stratum; test examples are
shared by all entries and seeds, and by strata that hold translations of one another. How variances follow
from that: ``harness.ranking.stats.variance``; why, and how well it holds: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Direction
from harness.core.types import FloatArray, IntArray
from harness.ranking.stats.variance import (
    ALPHA,
    Contrasts,
    LinearContrasts,
    Moments,
    PairContrasts,
    Stratum,
    build_stratum,
    moments,
)

POWER = 0.8
"""With which the minimum detectable effect is found."""


@dataclass(frozen=True)
class CompleteValues:
    """One metric of entries that lack nothing.

    ``values`` (entries, strata, generation seeds): mean over classifier seeds. ``draws`` (as values,
    resamples): the same under resamples of the test examples, see ``draw_weights`` and ``inflate_variance``; None for
    a metric without test examples. ``examples``: their number in the stratum with the fewest. ``fixed``: no
    seed decides a value. ``by_seed`` (entries): whose strata are not independent over seeds
    (``harness.ranking.stats.sharing``); None for nobody's.
    Raises ValueError for numbers that are not finite and shapes that do not fit.
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
            raise ValueError("a value is not finite: an entry that lacks cells belongs to no panel")
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

    def moments(self, family: Contrasts) -> Moments:
        """Return the moments of contrasts."""
        return moments(self.strata, self.examples, family)


@dataclass(frozen=True)
class Differences:
    """All pairs of entries, row minus column: arrays (entries, entries).

    ``mean`` over strata and seeds, standard error, degrees of freedom, two-sided ``p``. With one seed all
    but the mean are NaN. ``p`` is 1 on the diagonal and for entries that never differ.
    """

    mean: FloatArray
    se: FloatArray
    df: FloatArray
    p: FloatArray


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; what cannot be known is None.

    With one seed that is all but the mean; where no cell differs from the others (``se`` 0), the interval.
    ``p``: two-sided, of the hypothesis that it is 0; at most 0.05 exactly where the interval does not hold 0,
    and safe to correct for many tests. ``mde``: the minimum detectable effect, found with a power of 80 % by
    such a test in an experiment like this: (t_0.975 + t_0.80) standard errors (Bloom 1995; Card et al. 2020).
    """

    mean: float
    se: float | None = None
    df: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    mde: float | None = None


def differences(panel: CompleteValues) -> Differences:
    """Return the differences of all pairs of entries.

    A pair's numbers hang on its two entries alone, bit for bit: not on their order nor on the field.
    """
    count, strata, seeds = panel.values.shape
    found = panel.moments(PairContrasts(np.arange(count)))
    nothing, freedom = (0.0, strata * seeds - 1.0) if seeds > 1 else (np.nan, np.nan)
    return Differences(
        mean=to_square(found.mean, count, 0.0, sign=-1.0),
        se=to_square(found.se, count, nothing),
        df=to_square(found.df, count, freedom),
        p=to_square(found.p, count, 1.0),
    )


def to_square(pairs: FloatArray, count: int, diagonal: float, sign: float = 1.0) -> FloatArray:
    """Return numbers of pairs, in the order of ``PairContrasts``, as a square; below the diagonal times ``sign``."""
    rows, columns = np.triu_indices(count, 1)
    full = np.full((count, count), diagonal)
    full[rows, columns], full[columns, rows] = pairs, 0.0 + sign * pairs  # no negative zero
    return full


def estimate(panel: CompleteValues, weights: Mapping[int, float]) -> Estimate:
    """Return the weighted sum of entries: ``{entry: 1, baseline: -1}`` for a difference."""
    [found] = estimates(panel.moments(sums([weights])))
    return found


def sums(weights: Sequence[Mapping[int, float]]) -> LinearContrasts:
    """Return weighted sums of entries, all of as many terms, as a family."""
    columns = list(zip(*(each.items() for each in weights), strict=True))
    return LinearContrasts(
        [(np.array([i for i, _ in c]), np.array([w for _, w in c], dtype=np.float64)) for c in columns]
    )


def estimates(found: Moments) -> list[Estimate]:
    """Return moments as estimates, one by one."""
    half, wide = found.ci_half_width, found.quantile(POWER) * found.se
    columns = (found.mean, found.se, found.df, found.p, half, wide)
    return [_estimate(*numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)]


def _estimate(mean: float, se: float, df: float, p: float, half: float, wide: float) -> Estimate:
    if np.isnan(se):
        return Estimate(mean)
    if se == 0:
        return Estimate(mean, se, df, p=p)
    return Estimate(mean, se, df, mean - half, mean + half, p, half + wide)


def gap_closed(
    panel: CompleteValues, entry: int, baseline: int, ceiling: int, better: Direction = "up"
) -> Estimate | None:
    """Return by how many percent an entry closes the gap from baseline to ceiling; see ``gaps_closed``."""
    return gaps_closed(panel.strata, panel.examples, [(entry, baseline, ceiling)], better)[0]


def gaps_closed(
    layers: Sequence[Stratum],
    examples: int | None,
    places: Sequence[tuple[int, int, int]],
    better: Direction = "up",
) -> list[Estimate | None]:
    """Return by how many percent entries close the gaps from baselines to ceilings; ``places``: these three.

    The interval is Fieller's (1954): all ratios r for which (entry - baseline) - r (ceiling - baseline) does
    not differ from 0. There is no p and no minimum detectable effect. None where the ceiling is not clearly
    better than the baseline: the interval is then unbounded and the ratio means nothing.
    """
    if not places:
        return []
    entry, baseline, ceiling = np.array(places, dtype=np.int64).T
    gap, gain, rest = (
        moments(layers, examples, difference_contrasts(first, second))
        for first, second in ((ceiling, baseline), (entry, baseline), (entry, ceiling))
    )
    clear = np.isfinite(gap.se) & ((-gap.mean if better == "down" else gap.mean) > gap.ci_half_width)
    ratio = gain.mean / np.where(clear, gap.mean, 1.0)
    terms = [(entry, np.ones(len(entry))), (baseline, ratio - 1.0), (ceiling, -ratio)]
    at_ratio = moments(layers, examples, LinearContrasts(terms))
    covariance = (gain.se**2 + gap.se**2 - rest.se**2) / 2
    numbers = [gain.mean, gain.se, gap.mean, gap.se, covariance]
    numbers += [ratio, at_ratio.se, at_ratio.df, at_ratio.quantile(1 - ALPHA / 2)]
    lines = zip(clear.tolist(), *(column.tolist() for column in numbers), strict=True)
    return [_fieller(*line) if known else None for known, *line in lines]


def difference_contrasts(first: IntArray, second: IntArray) -> LinearContrasts:
    """Return differences of entries as a family."""
    return LinearContrasts([(first, np.ones(len(first))), (second, -np.ones(len(second)))])


def _fieller(
    gain: float,
    gain_se: float,
    gap: float,
    gap_se: float,
    covariance: float,
    ratio: float,
    ratio_se: float,
    df: float,
    quantile: float,
) -> Estimate | None:
    """Return the ratio of a gain to a gap, in percent; ``ratio_se``, ``df``: of the gain minus ratio gaps."""
    square = quantile**2
    a = gap**2 - square * gap_se**2
    b = gain * gap - square * covariance
    c = gain**2 - square * gain_se**2
    if a <= 0:
        return None
    root = max(b * b - a * c, 0.0) ** 0.5
    se = 100 * (ratio_se / abs(gap))
    if se == 0:
        return Estimate(100 * ratio, se, df)
    return Estimate(100 * ratio, se, df, 100 * (b - root) / a, 100 * (b + root) / a)
