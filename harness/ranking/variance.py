"""The variance of means over strata, from generation seeds and test examples, and what follows from it.

Seed and example are crossed random factors, so their interaction is in the variance over seeds and in the
bootstrap over examples; it is subtracted once (McCullagh 2000; Owen 2007):

    seeds     = 1/S^2 sum_s var_g(d[s, g]) / G
    together  = var_b(mean_sg draws[s, g, b])
    both      = 1/S^2 sum_s sum_gb (draws[s, g, b] - mean_g draws[s, g, b])^2 / ((G - 1) G (B - 1))
    examples  = max(together - both, 0)

where draws stand for their deviations from the mean over b.

``docs/statistics.md`` says why, and what coverage was measured.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 0.05
"""Level of every test; intervals hold 1 - ALPHA."""

_GRID = 2.0**18  # bootstrap values become multiples of 1 / 2^18: their products then add up exactly
_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero
_HALVINGS = 50
_SMALLEST = 1e-290  # of the p-values that are told apart


class Family(Protocol):
    """Contrasts of entries: one, or all pairs."""

    def linear(self, values: Floats) -> Floats:
        """Return the contrasts of values."""
        ...

    def size(self, values: Floats) -> Floats:
        """Return the contrasts with all terms positive."""
        ...

    def squares(self, rows: Floats) -> Floats:
        """Return the sums of squares of the contrasts of rows."""
        ...


class Pairs:
    """Every entry minus every entry: arrays (entries, entries)."""

    def linear(self, values: Floats) -> Floats:
        """Return all differences of values (entries)."""
        return values[:, None] - values[None]

    def size(self, values: Floats) -> Floats:
        """Return all sums of absolute values (entries)."""
        return np.abs(values)[:, None] + np.abs(values)[None]

    def squares(self, rows: Floats) -> Floats:
        """Return all squared distances of rows (entries, n) of whole numbers."""
        products = rows @ rows.T
        own = np.diag(products)
        distances: Floats = own[:, None] + own[None] - 2 * products
        return distances


@dataclass(frozen=True)
class Contrast:
    """One weighted sum of entries: arrays without axes."""

    weights: Mapping[int, float]

    def linear(self, values: Floats) -> Floats:
        """Return the weighted sum of values (entries, ...)."""
        return added(weight * values[entry] for entry, weight in self.weights.items())

    def size(self, values: Floats) -> Floats:
        """Return the weighted sum of absolute values (entries)."""
        return added(abs(weight) * np.abs(values[entry]) for entry, weight in self.weights.items())

    def squares(self, rows: Floats) -> Floats:
        """Return the sum of squares of the weighted sum of rows (entries, n)."""
        return np.asarray(np.square(self.linear(rows)).sum())


@dataclass(frozen=True)
class Moments:
    """Means of contrasts, and two variances of each with their degrees of freedom.

    ``seeds``: from generation and training, ``examples``: from test examples alone. All NaN but the mean if
    there is one seed. ``shape``: numbers of strata and of seeds.
    """

    shape: tuple[int, int]
    mean: Floats
    seeds: Floats
    seeds_df: Floats
    examples: Floats
    examples_df: float

    @property
    def se(self) -> Floats:
        """The standard error."""
        return np.sqrt(self.seeds + self.examples)

    @property
    def df(self) -> Floats:
        """Degrees of freedom of the sum: the harmonic mean of both, weighted by the variances.

        Satterthwaite (1946) has squared weights; they let a seed variance that came out small by chance claim
        many degrees of freedom, and intervals from three seeds of one stratum then hold 92 %. Over strata,
        Satterthwaite's are too few, as squares of estimates are too large: half of Welch's (1947) correction.
        """
        per_stratum = self.shape[1] - 1
        total = self.seeds + self.examples
        with np.errstate(invalid="ignore", divide="ignore"):
            seeds_df = self.seeds_df * np.divide(per_stratum + 1, per_stratum) - 1
            mixed = total / (self.seeds / seeds_df + self.examples / self.examples_df)
        return np.asarray(np.where(total > 0, mixed, seeds_df))

    def half(self) -> Floats:
        """Return half the width of the 95 % interval."""
        return self.quantile(1 - ALPHA / 2) * self.se

    def quantile(self, probability: float) -> Floats:
        """Return this quantile of Student's t for the degrees of freedom."""
        from scipy.special import stdtrit

        return np.asarray(stdtrit(self.df, probability))

    @property
    def p(self) -> Floats:
        """Two-sided p of the hypothesis that the contrast is 0; 1 for what never differs.

        At most 0.05 exactly where the 95 % interval does not hold 0. Below that it is Banerjee's (1960),
        which keeps every level with unequal variances: far out, where corrections for many tests look, an
        approximation by one Student's t is wrong by a factor of up to fifty. Where nothing varies, as with
        shares of few texts, it is that of the sign test, all cells agreeing.
        """
        from scipy.special import stdtr

        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(self.mean == 0, 0.0, np.abs(self.mean) / self.se)
            share = np.where(t > 0, self.seeds / (self.seeds + self.examples), 1.0)
        single = np.asarray(2 * stdtr(self.df, -t))
        far = single < ALPHA
        careful = _banerjee(t[far], share[far], self.seeds_df[far], self.examples_df)
        single[far] = np.maximum(single[far], np.minimum(careful, ALPHA))
        signs = np.where(
            (self.se == 0) & (self.mean != 0), 2.0 ** (1 - self.shape[0] * self.shape[1]), single
        )
        return np.where(np.isnan(self.se), np.nan, signs)


def _banerjee(t: Floats, share: Floats, seeds_df: Floats, examples_df: float) -> Floats:
    """Return the p at which t^2 = share * t_1(p)^2 + (1 - share) * t_2(p)^2; t_1 and t_2 are quantiles.

    It lies between the p of both, and is found by halving: as often for all, so that none hangs on others.
    """
    from scipy.special import stdtr, stdtrit

    ends = [2 * stdtr(df, -t) for df in (seeds_df, examples_df)]
    low, high = (np.maximum(end, _SMALLEST) for end in (np.minimum(*ends), np.maximum(*ends)))
    with np.errstate(invalid="ignore", over="ignore"):
        for _ in range(_HALVINGS):
            middle = np.sqrt(low) * np.sqrt(high)
            first, second = (stdtrit(df, middle / 2) for df in (seeds_df, examples_df))
            beyond = share * np.square(first) + (1 - share) * np.square(second) > np.square(t)
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    one_source = np.where(share == 1, ends[0], ends[1])
    return np.asarray(np.where((share == 1) | (share == 0) | np.isinf(t), one_source, high))


def moments(
    values: Floats, draws: NDArray[np.float32] | None, examples: int | None, family: Family
) -> Moments:
    """Return the moments of contrasts, from the arrays of a ``Panel``.

    A contrast's numbers hang on its entries alone, bit for bit: everything is added up in the order of strata
    and seeds, element by element, or is a whole number.
    """
    _, strata, seeds = values.shape
    cells = [[family.linear(values[:, s, g]) for g in range(seeds)] for s in range(strata)]
    sizes = (family.size(values[:, s, g]) for s in range(strata) for g in range(seeds))
    rounding = _ROUNDING * functools.reduce(np.maximum, sizes)
    mean = added(added(stratum) / seeds for stratum in cells) / strata
    mean = np.where(np.abs(mean) <= rounding, 0.0, mean)
    if seeds == 1:
        unknown = np.full_like(mean, np.nan)
        return Moments((strata, seeds), mean, unknown, unknown, unknown, np.nan)
    variance, df = _seed_variance(cells, rounding)
    if draws is None or examples is None:
        return Moments((strata, seeds), mean, variance, df, np.zeros_like(mean), 1.0)
    tests = _example_variance(draws, family)
    return Moments((strata, seeds), mean, variance, df, tests, examples - 1.0)


def added(items: Iterable[Floats]) -> Floats:
    """Return the sum in the given order, element by element: the same bits for an array and for its parts."""
    total: Floats = functools.reduce(operator.add, items)
    return total


def _seed_variance(cells: list[list[Floats]], rounding: Floats) -> tuple[Floats, Floats]:
    """Return the variance that seeds give contrasts (strata, seeds), and its degrees of freedom."""
    strata, seeds = len(cells), len(cells[0])
    parts = []
    for stratum in cells:
        mean = added(stratum) / seeds
        part = added(np.square(cell - mean) for cell in stratum) / ((seeds - 1) * seeds * strata**2)
        parts.append(np.where(np.sqrt(part) <= rounding, 0.0, part))
    variance, fourth = added(parts), added(np.square(part) for part in parts) / (seeds - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(fourth > 0, np.square(variance) / fourth, float(strata * (seeds - 1)))
    return variance, df


def _example_variance(draws: NDArray[np.float32], family: Family) -> Floats:
    """Return the variance from test examples alone: the interaction with seeds is taken off, down to 0."""
    _, strata, seeds, count = draws.shape
    total = added(draws[:, s, g].astype(np.float64) for s in range(strata) for g in range(seeds))
    together = family.squares(_whole(total / (strata * seeds)))
    both = np.zeros_like(together)
    for s in range(strata):
        drawn = draws[:, s].astype(np.float64)
        own = added(drawn[:, g] for g in range(seeds)) / seeds
        rest = _whole(drawn - own[:, None])
        both = both + family.squares(rest.reshape(len(rest), -1))
    both = both / ((seeds - 1) * seeds * strata**2)
    return np.asarray(np.maximum(together - both, 0.0) / ((count - 1) * _GRID**2))


def _whole(draws: Floats) -> Floats:
    """Return draws (..., resamples) around their mean, as whole numbers of steps of the grid.

    BLAS sums products of whole numbers without rounding, so that its order of summation, which hangs on the
    number of entries and threads and on the machine, changes nothing. The grid is far finer than what one
    test example moves.
    """
    steps: Floats = np.rint((draws - draws.mean(axis=-1, keepdims=True)) * _GRID)
    return steps
