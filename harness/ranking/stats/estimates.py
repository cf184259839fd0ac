"""Paired differences of entries with intervals, p-values and minimum detectable effects.

Strata (a task in a language) are fixed; generation seeds are drawn again in every stratum; test examples are
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
from harness.core.types import FloatArray
from harness.ranking.stats.variance import ALPHA, Contrasts, Moments, Stratum, build_stratum, moments

POWER = 0.8
"""The power that the minimum detectable effect is for."""


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


def to_square(pairs: FloatArray, count: int, diagonal: float, sign: float = 1.0) -> FloatArray:
    """Return numbers of pairs, in the order of ``Contrasts.pairs``, as a square; below the diagonal times ``sign``."""
    rows, columns = np.triu_indices(count, 1)
    full = np.full((count, count), diagonal)
    full[rows, columns], full[columns, rows] = pairs, 0.0 + sign * pairs  # no negative zero
    return full


def estimate(panel: CompleteValues, weights: Mapping[int, float]) -> Estimate:
    """Return the weighted sum of entries: ``{entry: 1, baseline: -1}`` for a difference."""
    [found] = estimates(panel.moments(sums([weights])))
    return found


def sums(weights: Sequence[Mapping[int, float]]) -> Contrasts:
    """Return weighted sums of entries, all of as many terms, as contrasts."""
    columns = [np.array(list(each.items()), dtype=np.float64) for each in weights]
    return Contrasts([(term[:, 0].astype(np.int64), term[:, 1]) for term in np.stack(columns, axis=1)])


def estimates(found: Moments) -> list[Estimate]:
    """Return moments as estimates, one by one."""
    half = found.ci_half_width
    columns = (found.mean, found.se, found.df, found.p, half, found.quantile(POWER) * found.se)
    return [_estimate(*numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)]


def _estimate(mean: float, se: float, df: float, p: float, half: float, powered: float) -> Estimate:
    if np.isnan(se):
        return Estimate(mean)
    if se == 0:
        return Estimate(mean, se, df, p=p)
    return Estimate(mean, se, df, mean - half, mean + half, p, half + powered)


def gaps_closed(
    strata: Sequence[Stratum], examples: int | None, triples: Sequence[tuple[int, int, int]], better: Direction = "up"
) -> list[Estimate | None]:
    """Return by how many percent entries close the gaps from baselines to ceilings.

    ``triples``: their rows, (entry, baseline, ceiling).

    The interval is Fieller's (1954): all ratios r for which (entry - baseline) - r (ceiling - baseline) does
    not differ from 0. There is no p and no minimum detectable effect. None where the ceiling is not clearly
    better than the baseline: the interval is then unbounded and the ratio means nothing.
    """
    if not triples:
        return []
    entry, baseline, ceiling = np.array(triples, dtype=np.int64).T
    gap, gain, rest = (
        moments(strata, examples, Contrasts.differences(first, second))
        for first, second in ((ceiling, baseline), (entry, baseline), (entry, ceiling))
    )
    clear = np.isfinite(gap.se) & ((-gap.mean if better == "down" else gap.mean) > gap.ci_half_width)
    ratio = gain.mean / np.where(clear, gap.mean, 1.0)
    terms = [(entry, np.ones(len(entry))), (baseline, ratio - 1.0), (ceiling, -ratio)]
    at_ratio = moments(strata, examples, Contrasts(terms))
    square = at_ratio.quantile(1 - ALPHA / 2) ** 2
    covariance = (gain.se**2 + gap.se**2 - rest.se**2) / 2
    # the ends are the roots of a r^2 - 2 b r + c
    a = gap.mean**2 - square * gap.se**2
    b = gain.mean * gap.mean - square * covariance
    c = gain.mean**2 - square * gain.se**2
    root = np.sqrt(np.maximum(b * b - a * c, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        se, ends = 100 * (at_ratio.se / np.abs(gap.mean)), [100 * (b - root) / a, 100 * (b + root) / a]
    columns = (100 * ratio, se, at_ratio.df, *ends, clear & (a > 0))
    return [
        None if not known else Estimate(mean, se, df, low, high) if se else Estimate(mean, se, df)
        for mean, se, df, low, high, known in zip(*(column.tolist() for column in columns), strict=True)
    ]
