"""Estimate the difference of two runs in one metric of one entry, and the smallest loss that would be detected.

Common seeds share the noise of sampling. With the same seeds the runs are paired by task, language and seed, as in
``harness.ranking.stats.estimates``; seeds that only one of them has count by double sampling. Without common seeds both
sides are independent within every task and language. The test examples stay paired in every case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.ranking.stats.estimates import POWER
from harness.ranking.stats.variance import ALPHA, Contrasts, Moments, build_stratum, moments

_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero
_DIFFERENT = 0.01  # p of variances that are not pooled


@dataclass(frozen=True)
class SideValues:
    """One entry of one run: ``values`` (stratum, seed) and ``draws`` (stratum, seed, resample), if any."""

    values: FloatArray
    draws: NDArray[np.float32] | None = None
    examples: int | None = None

    @property
    def seeds(self) -> int:
        """Number of generation seeds."""
        return int(self.values.shape[1])

    def of(self, columns: Sequence[int]) -> SideValues:
        """Return some seeds, by index and in that order."""
        draws = None if self.draws is None else self.draws[:, columns]
        return SideValues(self.values[:, columns], draws, self.examples)

    def minus(self, other: SideValues, times: float) -> SideValues:
        """Return this less ``times`` another side of the same seeds."""
        draws = None
        if self.draws is not None and other.draws is not None and self.examples == other.examples:
            draws = self.draws - np.float32(times) * other.draws
        return SideValues(self.values - times * other.values, draws, self.examples)


@dataclass(frozen=True)
class SeedVariance:
    """The share of one side's ``seeds`` in the variance of a difference, and its degrees of freedom."""

    variance: float
    df: float
    seeds: int

    def at(self, seeds: int) -> SeedVariance:
        """Return the share of another number of seeds."""
        df = self.df * (seeds - 1) / (self.seeds - 1)
        return SeedVariance(self.variance * self.seeds / seeds, df, seeds)


@dataclass(frozen=True)
class GateDifference:
    """Run minus baseline: its moments, and the share of each side's seeds in the variance to expect.

    The moments use each side's own seeds, as a test must not assume equal spread. The variance to expect, and so the
    minimum detectable loss, pools the seeds of both sides unless they differ: a variance from three seeds alone is
    wrong by a quarter.
    """

    moments: Moments
    base: SeedVariance
    new: SeedVariance

    def at(self, seeds: int) -> Moments:
        """Return the moments to expect from a run with this many seeds and a baseline with at least as many."""
        sides = (self.base.at(max(seeds, self.base.seeds)), self.new.at(seeds))
        variance, df = _sum_variances(sides)
        shape = (self.moments.shape[0], min(side.seeds for side in sides))
        return replace(self.moments, shape=shape, seeds=np.array([variance]), seeds_df=np.array([df]))


def difference(base: SideValues, new: SideValues, common: Sequence[tuple[int, int]]) -> GateDifference:
    """Return run minus baseline; ``common``: index in the baseline and in the run of every common seed.

    All seeds of one side must be common, or none.
    """
    if not common:
        return independent(base, new)
    mine, yours = ([pair[side] for pair in common] for side in (0, 1))
    if base.seeds == new.seeds:
        found = paired(base.of(mine), new.of(yours))
        own = SeedVariance(float(found.seeds[0]), float(found.seeds_df[0]), new.seeds)
        return GateDifference(found, SeedVariance(0.0, 1.0, base.seeds), own)
    if base.seeds > new.seeds:
        return _double_sampling(base, new.of(yours), mine)
    turned = _double_sampling(new, base.of(mine), yours)
    moments = replace(turned.moments, mean=-turned.moments.mean)
    return GateDifference(moments, turned.new, turned.base)


def paired(base: SideValues, new: SideValues) -> Moments:
    """Return new minus base of runs with the same seeds in the same order."""
    values, draws = np.stack([base.values, new.values]), None
    if base.draws is not None and new.draws is not None and base.examples == new.examples:
        draws = np.stack([base.draws, new.draws])
    strata = [build_stratum(values[:, s], None if draws is None else draws[:, s]) for s in range(values.shape[1])]
    only = Contrasts.differences(np.array([1]), np.array([0]))
    return moments(strata, None if draws is None else base.examples, only)


def _double_sampling(more: SideValues, fewer: SideValues, columns: Sequence[int]) -> GateDifference:
    """Return ``fewer`` minus ``more``, whose seeds at ``columns`` are those of ``fewer``: double sampling.

    Cochran (1977, chapter 12): with b the slope of ``fewer`` on ``more`` over common seeds, the difference is the mean
    of (fewer - b common) minus the mean of (1 - b) more over all its seeds, and both are uncorrelated. b = 1 is
    pairing, b = 0 independent runs; it is the same for all strata. The cost of estimating b is added to the variance.
    """
    common = more.of(columns)
    slope, freedom = _slope(common.values, fewer.values)
    less, residual = more.minus(more, slope), fewer.minus(common, slope)
    found = independent(less, residual)
    share = 1 - len(columns) / more.seeds
    size = float(np.abs(more.values).max() + np.abs(fewer.values).max())
    rest, own = (_seed_variance(side, size) for side in (less, residual))
    dearer = (1 + share / freedom) * freedom / max(freedom - 1, 1)
    own = replace(own, variance=own.variance * dearer)
    variance, df = _sum_variances((rest, own))
    moments = replace(found.moments, seeds=np.array([variance]), seeds_df=np.array([df]))
    both = _pooled_variance(_seed_variance(more, size), _seed_variance(fewer, size))
    if both is None:
        return GateDifference(moments, rest, own)
    return GateDifference(
        moments,
        replace(rest, variance=both * (1 - slope) ** 2 / rest.seeds),
        replace(own, variance=both * (1 - slope**2) / own.seeds * dearer),
    )


def _slope(common: FloatArray, other: FloatArray) -> tuple[float, int]:
    """Return the slope within strata, from 0 to 1, and its degrees of freedom."""
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (common, other))
    square = float(np.square(x).sum())
    freedom = int(x.shape[0] * (x.shape[1] - 1))
    return (float(np.clip((x * y).sum() / square, 0.0, 1.0)) if square > 0 else 0.0), freedom


def independent(base: SideValues, new: SideValues) -> GateDifference:
    """Return new minus base of runs with different seeds (Welch 1947, over seeds within strata).

    The variances of both sides add up. That of the test examples is of the difference, without the interaction of
    seeds and examples, which the variance between seeds contains already.
    """
    sides, strata = (base, new), len(base.values)
    size = float(np.abs(base.values).max() + np.abs(new.values).max())
    mean = float(new.values.mean() - base.values.mean())
    mean = 0.0 if abs(mean) <= _ROUNDING * size else mean
    one, other = (_seed_variance(side, size) for side in sides)
    seeds, df = _sum_variances((one, other))
    examples, examples_df = _example_variance(base, new)
    moments = Moments(
        (strata, min(base.seeds, new.seeds)),
        np.array([mean]),
        np.array([seeds]),
        np.array([df]),
        np.array([examples]),
        examples_df,
    )
    both = _pooled_variance(one, other)
    if both is None:
        return GateDifference(moments, one, other)
    expected = (replace(side, variance=both / side.seeds) for side in (one, other))
    return GateDifference(moments, *expected)


def _pooled_variance(one: SeedVariance, other: SeedVariance) -> float | None:
    """Return the variance of one seed, pooled over both sides; None where an F test says that they differ."""
    from scipy.special import fdtrc

    single = [side.variance * side.seeds for side in (one, other)]
    if min(single) <= 0:
        return None if max(single) > 0 else 0.0
    tails = fdtrc(one.df, other.df, single[0] / single[1]), fdtrc(other.df, one.df, single[1] / single[0])
    if min(tails) < _DIFFERENT:
        return None
    weights = [side.seeds - 1 for side in (one, other)]
    return sum(w * own for w, own in zip(weights, single, strict=True)) / sum(weights)


def _seed_variance(side: SideValues, size: float) -> SeedVariance:
    parts = side.values.var(axis=1, ddof=1) / side.seeds / len(side.values) ** 2
    parts = np.where(np.sqrt(parts) <= _ROUNDING * size, 0.0, parts)
    total, fourth = float(parts.sum()), float(np.square(parts).sum()) / (side.seeds - 1)
    df = total**2 / fourth if fourth > 0 else float(len(parts) * (side.seeds - 1))
    return SeedVariance(total, df, side.seeds)


def _sum_variances(sides: Sequence[SeedVariance]) -> tuple[float, float]:
    """Return the sum of variances and its degrees of freedom (Satterthwaite 1946)."""
    total = sum(side.variance for side in sides)
    fourth = sum(side.variance**2 / side.df for side in sides)
    return total, total**2 / fourth if fourth > 0 else sum(side.df for side in sides)


def _example_variance(base: SideValues, new: SideValues) -> tuple[float, float]:
    """Return the variance from test examples alone and its degrees of freedom."""
    if base.draws is None or new.draws is None or base.examples is None or base.examples != new.examples:
        return 0.0, 1.0
    strata, interaction, means = len(base.draws), 0.0, []
    for side in (base, new):
        assert side.draws is not None
        draws = side.draws.astype(np.float64)
        draws -= draws.mean(axis=2, keepdims=True)
        over_seeds = draws.mean(axis=1, keepdims=True)
        seeds, count = draws.shape[1:]
        rest = float(np.square(draws - over_seeds).sum())
        interaction += rest / ((seeds - 1) * seeds * (count - 1) * strata**2)
        means.append(over_seeds.mean(axis=(0, 1)))
    together = float(np.var(means[1] - means[0], ddof=1))
    return max(together - interaction, 0.0), base.examples - 1.0


def critical(found: Moments, level: float) -> float:
    """Return how many standard errors a difference needs for a p of ``level`` (see ``Moments.p``)."""
    from scipy.special import stdtrit

    single = float(stdtrit(found.df[0], 1 - level / 2))
    total = float(found.seeds[0] + found.examples[0])
    if level >= ALPHA or total == 0:
        return single
    share = float(found.seeds[0]) / total
    squares = [float(stdtrit(df, 1 - level / 2)) ** 2 for df in (found.seeds_df[0], found.examples_df)]
    return max(single, float(np.sqrt(share * squares[0] + (1 - share) * squares[1])))


def min_detectable_loss(found: Moments, level: float, bound: float) -> float:
    """Return the smallest loss that 80 of 100 such comparisons would detect (the MDE, for losses).

    To be detected it must be significant at ``level`` (two-sided) and exceed ``bound``. Infinite where nothing varies
    and the cells are too few for any verdict.
    """
    se = float(found.se[0])
    if se == 0:
        return bound if _signs_suffice(found, level) else float("inf")
    return max(critical(found, level) * se, bound) + float(found.quantile(POWER)[0]) * se


def power(found: Moments, level: float, bound: float, loss: float) -> float:
    """Return the power, from 0 to 1: how often such comparisons would detect a loss of this size."""
    from scipy.special import stdtr

    se = float(found.se[0])
    if se == 0:
        return float(loss > bound and _signs_suffice(found, level))
    return float(stdtr(found.df[0], (loss - max(critical(found, level) * se, bound)) / se))


def _signs_suffice(found: Moments, level: float) -> bool:
    """Say whether a sign test over all cells can reach the level."""
    strata, seeds = found.shape
    return bool(2.0 ** (1 - strata * seeds) <= level)
