"""The variance of means over strata, from generation seeds and test examples, and what follows from it.

Seed and example are crossed random factors, so their interaction is in the variance over seeds and in the
bootstrap over examples; it is subtracted once (McCullagh 2000; Owen 2007):

    seeds     = 1/S^2 sum_s var_g(d[s, g]) / G
    together  = var_b(mean_sg draws[s, g, b])
    both      = 1/S^2 sum_s sum_gb (draws[s, g, b] - mean_g draws[s, g, b])^2 / ((G - 1) G (B - 1))
    examples  = max(together - both, 0)

where draws stand for their deviations from the mean over b. Where an entry's seeds move all strata together
(``harness.ranking.stats.sharing``), ``seeds`` is at least the variance between the seeds' means over strata.

Every number of a contrast depends on its own entries alone, bit for bit, not on which others are computed with
it: sums are in the order of strata and seeds, element by element, or of whole numbers.
``docs/statistics.md`` explains why, and reports the measured coverage.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray, IntArray
from harness.ranking.stats.roots import find_roots

ALPHA = 0.05
"""Level of every test; intervals hold 1 - ALPHA."""

_GRID = 2.0**18  # bootstrap values become multiples of 1 / 2^18: their products then add up exactly
_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero
_SMALLEST = 1e-290  # of the p-values that are distinguished


class Contrasts:
    """Weighted sums of entries, of as many terms each: ``terms`` are (entries, weights), of one axis."""

    def __init__(self, terms: Sequence[tuple[IntArray, FloatArray]]) -> None:
        self._terms = terms

    @classmethod
    def means(cls, rows: IntArray) -> Contrasts:
        """Return the entries themselves."""
        return cls([(rows, np.ones(len(rows)))])

    @classmethod
    def differences(cls, first: IntArray, second: IntArray) -> Contrasts:
        """Return entries minus others."""
        return cls([(first, np.ones(len(first))), (second, -np.ones(len(second)))])

    @classmethod
    def pairs(cls, rows: IntArray) -> Contrasts:
        """Return each of some entries minus each later one, in the order of ``numpy.triu_indices``."""
        first, second = np.triu_indices(len(rows), 1)
        return cls.differences(rows[first], rows[second])

    def linear(self, values: FloatArray) -> FloatArray:
        """Return the weighted sums of values (entries)."""
        return ordered_sum(weights * values[entries] for entries, weights in self._terms)

    def size(self, values: FloatArray) -> FloatArray:
        """Return the sums of values with absolute weights."""
        return ordered_sum(np.abs(weights) * values[entries] for entries, weights in self._terms)

    def squares(self, products: FloatArray) -> FloatArray:
        """Return the sums of squares of the contrasts of rows, never below 0, from the rows' products."""
        own = ordered_sum(np.square(weights) * products[entries, entries] for entries, weights in self._terms)
        mixed = [
            2 * (weights * others) * products[entries, partners]
            for (entries, weights), (partners, others) in combinations(self._terms, 2)
        ]
        return np.maximum(ordered_sum([own, *mixed]), 0.0)


@dataclass(frozen=True)
class Moments:
    """Means of contrasts, and two variances of each with their degrees of freedom.

    ``seeds``: from generation and training, ``examples``: from test examples alone. All but the mean are NaN if
    there is one seed of values that depend on seeds. ``shape``: numbers of strata and of seeds. ``by_seed``:
    which contrasts have strata that move together; None for none of them.
    """

    shape: tuple[int, int]
    mean: FloatArray
    seeds: FloatArray
    seeds_df: FloatArray
    examples: FloatArray
    examples_df: float
    by_seed: NDArray[np.bool_] | None = None

    @property
    def se(self) -> FloatArray:
        """The standard error."""
        return np.sqrt(self.seeds + self.examples)

    @property
    def df(self) -> FloatArray:
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

    @property
    def ci_half_width(self) -> FloatArray:
        """Half the width of the 95 % interval."""
        return self.quantile(1 - ALPHA / 2) * self.se

    def quantile(self, probability: float) -> FloatArray:
        """Return this quantile of Student's t for the degrees of freedom."""
        from scipy.special import stdtrit

        return np.asarray(stdtrit(self.df, probability))

    @property
    def p(self) -> FloatArray:
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
        careful = _two_component_p(t[far], share[far], self.seeds_df[far], self.examples_df)
        single[far] = np.maximum(single[far], np.minimum(careful, ALPHA))
        strata, seeds = self.shape
        cells = strata * seeds if self.by_seed is None else np.where(self.by_seed, seeds, strata * seeds)
        signs = np.where((self.se == 0) & (self.mean != 0), 2.0 ** (1.0 - cells), single)
        return np.where(np.isnan(self.se), np.nan, signs)


def _two_component_p(t: FloatArray, share: FloatArray, seeds_df: FloatArray, examples_df: float) -> FloatArray:
    """Return Banerjee's p, at which t^2 = share * t_1(p)^2 + (1 - share) * t_2(p)^2; t_1, t_2 are quantiles.

    t_1^2 = t^2 w / share and t_2^2 = t^2 (1 - w) / (1 - share) fit for every w; the root is the w at which both
    have the same p, which lies between the p of one source alone.
    """
    from scipy.special import stdtr, xlogy

    ends = [np.asarray(2 * stdtr(df, -t)) for df in (seeds_df, examples_df)]
    found = np.where(share == 1, ends[0], ends[1])
    both = (share > 0) & (share < 1) & np.isfinite(t)
    if not both.any():
        return found
    t, share, seeds_df = t[both], share[both], seeds_df[both]

    def p_of_seeds(w: FloatArray, t: FloatArray, share: FloatArray, df: FloatArray) -> FloatArray:
        return np.asarray(np.maximum(2 * stdtr(df, -t * np.sqrt(w / share)), _SMALLEST))

    def apart(w: FloatArray, t: FloatArray, share: FloatArray, df: FloatArray) -> FloatArray:
        of_examples = np.maximum(2 * stdtr(examples_df, -t * np.sqrt((1 - w) / (1 - share))), _SMALLEST)
        # xlogy is the logarithm of scipy, number by number: the last bit of numpy's depends on the neighbours
        return np.asarray(xlogy(1.0, p_of_seeds(w, t, share, df)) - xlogy(1.0, of_examples))

    few = seeds_df < examples_df
    root = find_roots(apart, np.where(few, share, 0.0), np.where(few, 1.0, share), (t, share, seeds_df))
    found[both] = p_of_seeds(root, t, share, seeds_df)
    return found


@dataclass(frozen=True)
class Stratum:
    """One stratum: ``values`` (entries, seeds), and of their draws what variances are made of.

    ``drawn`` (entries, resamples): the sum over seeds. ``products`` (entries, entries): of the deviations
    from the mean over seeds, in steps of the grid. Both None without draws, or with one seed of values that
    depend on seeds. ``fixed``: no seed decides a value, so that the variance of one seed's is that of examples.
    ``by_seed`` (entries): whether seeds move an entry here as in the other strata; None for nowhere.
    Where an entry has missing values its own numbers are NaN, and no others.
    """

    values: FloatArray
    drawn: FloatArray | None
    products: FloatArray | None
    fixed: bool = False
    by_seed: NDArray[np.bool_] | None = None


def build_stratum(
    values: FloatArray, draws: NDArray[np.float32] | None, fixed: bool = False, by_seed: NDArray[np.bool_] | None = None
) -> Stratum:
    """Return a stratum, from values (entries, seeds) and draws (entries, seeds, resamples)."""
    seeds = values.shape[1]
    if draws is None or (seeds == 1 and not fixed):
        return Stratum(values, None, None, fixed, by_seed)
    steps = draws.astype(np.float64)
    drawn = ordered_sum(steps[:, g] for g in range(seeds))
    steps = steps - (drawn / seeds)[:, None]  # a copy: of one seed the sum is a view
    rest = _quantise(steps).reshape(len(steps), -1)
    return Stratum(values, drawn, rest @ rest.T, fixed, by_seed)


def means(strata: Sequence[Stratum], contrasts: Contrasts) -> FloatArray:
    """Return the means of contrasts over strata and seeds; the rounding of a zero is a zero."""
    return _mean_and_rounding(_by_seed(strata, contrasts), strata, contrasts)[0]


def moments(strata: Sequence[Stratum], examples: int | None, contrasts: Contrasts) -> Moments:
    """Return the moments of contrasts over strata; ``examples``: of the stratum with the fewest."""
    cells = _by_seed(strata, contrasts)
    shape = (len(strata), len(cells[0]))
    mean, rounding = _mean_and_rounding(cells, strata, contrasts)
    if shape[1] == 1 and (examples is None or not strata[0].fixed):
        unknown = np.full_like(mean, np.nan)
        return Moments(shape, mean, unknown, unknown, unknown, np.nan)
    variance, df = _seed_variance(cells, rounding)
    marks, by_seed = strata[0].by_seed, None
    if marks is not None and marks.any() and shape[1] > 1:
        by_seed = contrasts.size(marks.astype(np.float64)) > 0
        over_strata = [ordered_sum(column) / shape[0] for column in zip(*cells, strict=True)]
        together = np.maximum(variance, _variance_of_mean(over_strata, 1, rounding))
        variance, df = np.where(by_seed, together, variance), np.where(by_seed, shape[1] - 1.0, df)
    if examples is None:
        return Moments(shape, mean, variance, df, np.zeros_like(mean), 1.0, by_seed)
    of_examples = _example_variance(strata, contrasts)
    return Moments(shape, mean, variance, df, of_examples, examples - 1.0, by_seed)


def ordered_sum(items: Iterable[FloatArray]) -> FloatArray:
    """Return the sum in the given order, element by element: the same bits for an array and for its parts."""
    total: FloatArray = functools.reduce(operator.add, items)
    return total


def _by_seed(strata: Sequence[Stratum], contrasts: Contrasts) -> list[list[FloatArray]]:
    """Return the contrasts of values by stratum and seed."""
    return [[contrasts.linear(column) for column in each.values.T] for each in strata]


def _mean_and_rounding(
    cells: list[list[FloatArray]], strata: Sequence[Stratum], contrasts: Contrasts
) -> tuple[FloatArray, FloatArray]:
    """Return the means of contrasts, and how far rounding may move them."""
    sizes = (contrasts.size(np.abs(column)) for each in strata for column in each.values.T)
    rounding = _ROUNDING * functools.reduce(np.maximum, sizes)
    mean = ordered_sum(ordered_sum(stratum) / len(stratum) for stratum in cells) / len(cells)
    return np.where(np.abs(mean) <= rounding, 0.0, mean), rounding


def _seed_variance(cells: list[list[FloatArray]], rounding: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the variance of contrasts from seeds, and its degrees of freedom (Satterthwaite 1946)."""
    strata, seeds = len(cells), len(cells[0])
    if seeds == 1:  # only of values that no seed decides
        return np.zeros_like(rounding), np.ones_like(rounding)
    parts = [_variance_of_mean(stratum, strata, rounding) for stratum in cells]
    variance, fourth = ordered_sum(parts), ordered_sum(np.square(part) for part in parts) / (seeds - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(fourth > 0, np.square(variance) / fourth, float(strata * (seeds - 1)))
    return variance, df


def _variance_of_mean(seeds: Sequence[FloatArray], strata: int, rounding: FloatArray) -> FloatArray:
    """Return the variance of a mean over seeds, as a part of that over strata; 0 for the rounding of a zero."""
    n = len(seeds)
    mean = ordered_sum(seeds) / n
    variance = ordered_sum(np.square(each - mean) for each in seeds) / ((n - 1) * n * strata**2)
    return np.where(np.sqrt(variance) <= rounding, 0.0, variance)


def _example_variance(strata: Sequence[Stratum], contrasts: Contrasts) -> FloatArray:
    """Return the variance from test examples alone: the interaction with seeds is subtracted, down to 0."""
    n, seeds = len(strata), strata[0].values.shape[1]
    drawn = ordered_sum(each.drawn for each in strata if each.drawn is not None)
    rows = _quantise(drawn / (n * seeds))
    together = contrasts.squares(rows @ rows.T)
    if seeds == 1:  # nothing of it is the interaction with seeds
        return np.asarray(together / ((drawn.shape[1] - 1) * _GRID**2))
    both = contrasts.squares(ordered_sum(each.products for each in strata if each.products is not None))
    both = both / ((seeds - 1) * seeds * n**2)
    return np.asarray(np.maximum(together - both, 0.0) / ((drawn.shape[1] - 1) * _GRID**2))


def _quantise(draws: FloatArray) -> FloatArray:
    """Return draws (..., resamples) around their mean, as whole numbers of steps of the grid.

    BLAS sums products of whole numbers without rounding, so that its order of summation, which depends on the number of
    entries and threads and on the machine, changes nothing. The grid is far finer than the effect of one test example.
    """
    steps: FloatArray = np.rint((draws - draws.mean(axis=-1, keepdims=True)) * _GRID)
    return steps
