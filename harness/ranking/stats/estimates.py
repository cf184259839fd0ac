"""Paired differences of entries with intervals, p-values and minimum detectable effects.

Strata (a task in a language) are fixed; generation seeds are drawn again in every stratum; test examples are
shared by all entries and seeds, and by strata that hold translations of one another. How variances follow
from that: ``harness.ranking.stats.variance``; why, and how well it holds: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.records import Direction
from harness.core.types import FloatArray
from harness.ranking.stats.variance import ALPHA, Contrasts, Moments, Stratum, moments

POWER = 0.8
"""The power that the minimum detectable effect is for."""


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
