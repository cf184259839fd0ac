"""The variance of means over strata, from generation seeds and test examples, and what follows from it.

Seed and example are crossed random factors, so their interaction is in the variance over seeds and in the
bootstrap over examples; it is subtracted once (McCullagh 2000; Owen 2007):

    seeds     = 1/S^2 sum_s var_g(d[s, g]) / G
    together  = var_b(mean_sg draws[s, g, b])
    both      = 1/S^2 sum_s sum_gb (draws[s, g, b] - mean_g draws[s, g, b])^2 / ((G - 1) G (B - 1))
    examples  = max(together - both, 0)

where draws stand for their deviations from the mean over b. Where an entry's seeds move all strata together
(``harness.ranking.stats.sharing``), ``seeds`` is at least the variance between the seeds' means over strata.

``docs/statistics.md`` says why, and what coverage was measured.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray, IntArray

ALPHA = 0.05
"""Level of every test; intervals hold 1 - ALPHA."""

_GRID = 2.0**18  # bootstrap values become multiples of 1 / 2^18: their products then add up exactly
_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero
_SMALLEST = 1e-290  # of the p-values that are told apart
_LOG_2 = 0.6931471805599453
_STEPS = 100  # more than halving alone would take
_AGREE = 1e-12  # logarithms of p-values that agree
_CLOSE = 1e-15  # relative: nothing is left between


class Contrasts(Protocol):
    """Contrasts of entries: arrays of one axis."""

    def linear(self, values: FloatArray) -> FloatArray:
        """Return the contrasts of values (entries)."""
        ...

    def size(self, values: FloatArray) -> FloatArray:
        """Return the contrasts of absolute values (entries) with all terms positive."""
        ...

    def squares(self, products: FloatArray) -> FloatArray:
        """Return the sums of squares of the contrasts of rows, from the rows' products (entries, entries)."""
        ...


class PairContrasts:
    """Each of some entries (``rows``) minus each later one, in the order of ``numpy.triu_indices``."""

    def __init__(self, rows: IntArray) -> None:
        first, second = np.triu_indices(len(rows), 1)
        self._first, self._second = rows[first], rows[second]

    def linear(self, values: FloatArray) -> FloatArray:
        """Return all differences."""
        return values[self._first] - values[self._second]

    def size(self, values: FloatArray) -> FloatArray:
        """Return all sums."""
        return values[self._first] + values[self._second]

    def squares(self, products: FloatArray) -> FloatArray:
        """Return all squared distances."""
        own = np.diag(products)
        found: FloatArray = own[self._first] + own[self._second] - 2 * products[self._first, self._second]
        return found


class LinearContrasts:
    """Weighted sums of entries, of as many terms each: ``terms`` are (entries, weights), of one axis."""

    def __init__(self, terms: Sequence[tuple[IntArray, FloatArray]]) -> None:
        self._terms = terms

    def linear(self, values: FloatArray) -> FloatArray:
        """Return the weighted sums."""
        return ordered_sum(weights * values[entries] for entries, weights in self._terms)

    def size(self, values: FloatArray) -> FloatArray:
        """Return the sums with absolute weights."""
        return ordered_sum(np.abs(weights) * values[entries] for entries, weights in self._terms)

    def squares(self, products: FloatArray) -> FloatArray:
        """Return the sums of squares of the weighted sums, never below 0."""
        own = ordered_sum(np.square(weights) * products[entries, entries] for entries, weights in self._terms)
        mixed = [
            2 * (weights * others) * products[entries, partners]
            for (entries, weights), (partners, others) in combinations(self._terms, 2)
        ]
        return np.maximum(ordered_sum([own, *mixed]), 0.0)


@dataclass(frozen=True)
class Moments:
    """Means of contrasts, and two variances of each with their degrees of freedom.

    ``seeds``: from generation and training, ``examples``: from test examples alone. All NaN but the mean if
    there is one seed of values that hang on seeds. ``shape``: numbers of strata and of seeds. ``by_seed``:
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
    """Return the p at which t^2 = share * t_1(p)^2 + (1 - share) * t_2(p)^2; t_1 and t_2 are quantiles.

    It lies between the p of both.
    """
    from scipy.special import stdtr

    ends = [np.asarray(2 * stdtr(df, -t)) for df in (seeds_df, examples_df)]
    found = np.where(share == 1, ends[0], ends[1])
    mixed = (share > 0) & (share < 1) & np.isfinite(t)
    found[mixed] = _balanced(t[mixed], share[mixed], seeds_df[mixed], examples_df)
    return found


def _balanced(t: FloatArray, share: FloatArray, seeds_df: FloatArray, examples_df: float) -> FloatArray:
    """Return Banerjee's p where both sources count.

    t_1^2 = t^2 w / share and t_2^2 = t^2 (1 - w) / (1 - share) fit for every w; sought is the one at which
    both have the same p. Newton's steps, halving where one leaves the bracket. Every contrast takes them by
    itself until its two p agree, so that none hangs on others.
    """
    w, low, high = _bracket(t, share, seeds_df, examples_df)
    df, found, active = seeds_df, np.empty_like(t), np.arange(len(t))
    for _ in range(_STEPS):
        p, first, first_slope = _tail(df, t * np.sqrt(w / share))
        _, second, second_slope = _tail(examples_df, t * np.sqrt((1 - w) / (1 - share)))
        found[active], apart = p, first - second
        low, high = np.where(apart > 0, w, low), np.where(apart > 0, high, w)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            step = w + 2 * apart / (first_slope / w + second_slope / (1 - w))
        step = np.where((step > low) & (step < high), step, (low + high) / 2)
        going = (np.abs(apart) > _AGREE) & (high - low > _CLOSE * high)
        active = active[going]
        w, low, high, t, share, df = (part[going] for part in (step, low, high, t, share, df))
        if not len(active):
            break
    return found


def _bracket(
    t: FloatArray, share: FloatArray, seeds_df: FloatArray, examples_df: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return a first guess of w (see ``_balanced``) and the ends of where it lies.

    With few degrees of freedom of the seeds it is near 1, where t_2 is the quantile of the least possible p.
    """
    from scipy.special import stdtr, stdtrit

    least = np.maximum(stdtr(seeds_df, -t / np.sqrt(share)), _SMALLEST)
    guess = 1 - (1 - share) * np.square(stdtrit(examples_df, least) / t)
    few = seeds_df < examples_df
    return (
        np.where(few, np.maximum(guess, share), share),
        np.where(few, share, 0.0),
        np.where(few, 1.0, share),
    )


def _tail(df: FloatArray | float, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return Student's two-sided p, its logarithm, and by how much that falls with the logarithm of t.

    Logarithms and powers are those of scipy.special, which takes numbers one by one: numpy's take several at
    once on some machines, and then a number's last bit might hang on those beside it.
    """
    from scipy.special import exp2, gammaln, stdtr, xlog1py, xlogy

    p = np.maximum(2 * stdtr(df, -t), _SMALLEST)
    log = xlogy(1.0, p)
    scale = gammaln((df + 1) / 2) - gammaln(df / 2) - xlogy(0.5, np.pi * df)
    density = scale - xlog1py((df + 1) / 2, np.square(t) / df)
    return p, log, 2 * t * exp2((density - log) / _LOG_2)


@dataclass(frozen=True)
class Stratum:
    """One stratum: ``values`` (entries, seeds), and of their draws what variances are made of.

    ``drawn`` (entries, resamples): the sum over seeds. ``products`` (entries, entries): of the deviations
    from the mean over seeds, in steps of the grid. Both None without draws, or with one seed of values that
    hang on seeds. ``fixed``: no seed decides a value, so that the variance of one seed's is that of examples.
    ``by_seed`` (entries): whether seeds move an entry here as in the other strata; None for nowhere.
    Where an entry lacks something its own numbers are NaN, and no others.
    """

    values: FloatArray
    drawn: FloatArray | None
    products: FloatArray | None
    fixed: bool = False
    by_seed: NDArray[np.bool_] | None = None


def build_stratum(
    values: FloatArray,
    draws: NDArray[np.float32] | None,
    fixed: bool = False,
    by_seed: NDArray[np.bool_] | None = None,
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


def means(layers: Sequence[Stratum], family: Contrasts) -> FloatArray:
    """Return the means of contrasts over strata and seeds; what is the rounding of a zero is one."""
    return _mean_and_rounding(layers, family)[0]


def moments(layers: Sequence[Stratum], examples: int | None, family: Contrasts) -> Moments:
    """Return the moments of contrasts over strata; ``examples``: of the stratum with the fewest.

    A contrast's numbers hang on its entries alone, bit for bit: everything is added up in the order of strata
    and seeds, element by element, or is a whole number.
    """
    shape = (len(layers), layers[0].values.shape[1])
    mean, rounding = _mean_and_rounding(layers, family)
    if shape[1] == 1 and (examples is None or not layers[0].fixed):
        unknown = np.full_like(mean, np.nan)
        return Moments(shape, mean, unknown, unknown, unknown, np.nan)
    variance, df = _seed_variance(layers, family, rounding)
    marks, by_seed = layers[0].by_seed, None
    if marks is not None and marks.any() and shape[1] > 1:
        by_seed = family.size(marks.astype(np.float64)) > 0
        together = np.maximum(variance, _between_seeds(layers, family, rounding))
        variance, df = np.where(by_seed, together, variance), np.where(by_seed, shape[1] - 1.0, df)
    if examples is None:
        return Moments(shape, mean, variance, df, np.zeros_like(mean), 1.0, by_seed)
    of_examples = _example_variance(layers, family)
    return Moments(shape, mean, variance, df, of_examples, examples - 1.0, by_seed)


def _mean_and_rounding(layers: Sequence[Stratum], family: Contrasts) -> tuple[FloatArray, FloatArray]:
    columns = [[each.values[:, g] for g in range(each.values.shape[1])] for each in layers]
    sizes = (family.size(np.abs(column)) for stratum in columns for column in stratum)
    rounding = _ROUNDING * functools.reduce(np.maximum, sizes)
    totals = (ordered_sum(family.linear(column) for column in stratum) / len(stratum) for stratum in columns)
    mean = ordered_sum(totals) / len(layers)
    return np.where(np.abs(mean) <= rounding, 0.0, mean), rounding


def ordered_sum(items: Iterable[FloatArray]) -> FloatArray:
    """Return the sum in the given order, element by element: the same bits for an array and for its parts."""
    total: FloatArray = functools.reduce(operator.add, items)
    return total


def _seed_variance(layers: Sequence[Stratum], family: Contrasts, rounding: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the variance that seeds give contrasts, and its degrees of freedom."""
    strata, seeds = len(layers), layers[0].values.shape[1]
    if seeds == 1:  # only of values that no seed decides
        return np.zeros_like(rounding), np.ones_like(rounding)
    parts = []
    for each in layers:
        cells = [family.linear(each.values[:, g]) for g in range(seeds)]
        mean = ordered_sum(cells) / seeds
        part = ordered_sum(np.square(cell - mean) for cell in cells) / ((seeds - 1) * seeds * strata**2)
        parts.append(np.where(np.sqrt(part) <= rounding, 0.0, part))
    variance, fourth = ordered_sum(parts), ordered_sum(np.square(part) for part in parts) / (seeds - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(fourth > 0, np.square(variance) / fourth, float(strata * (seeds - 1)))
    return variance, df


def _between_seeds(layers: Sequence[Stratum], family: Contrasts, rounding: FloatArray) -> FloatArray:
    """Return the variance of the mean from the seeds' means over strata, which need not be independent."""
    strata, seeds = len(layers), layers[0].values.shape[1]
    cells = [ordered_sum(family.linear(each.values[:, g]) for each in layers) / strata for g in range(seeds)]
    mean = ordered_sum(cells) / seeds
    variance = ordered_sum(np.square(cell - mean) for cell in cells) / ((seeds - 1) * seeds)
    return np.where(np.sqrt(variance) <= rounding, 0.0, variance)


def _example_variance(layers: Sequence[Stratum], family: Contrasts) -> FloatArray:
    """Return the variance from test examples alone: the interaction with seeds is taken off, down to 0."""
    strata, seeds = len(layers), layers[0].values.shape[1]
    drawn = ordered_sum(each.drawn for each in layers if each.drawn is not None)
    rows = _quantise(drawn / (strata * seeds))
    together = family.squares(rows @ rows.T)
    if seeds == 1:  # nothing of it is the interaction with seeds
        return np.asarray(together / ((drawn.shape[1] - 1) * _GRID**2))
    both = family.squares(ordered_sum(each.products for each in layers if each.products is not None))
    both = both / ((seeds - 1) * seeds * strata**2)
    return np.asarray(np.maximum(together - both, 0.0) / ((drawn.shape[1] - 1) * _GRID**2))


def _quantise(draws: FloatArray) -> FloatArray:
    """Return draws (..., resamples) around their mean, as whole numbers of steps of the grid.

    BLAS sums products of whole numbers without rounding, so that its order of summation, which hangs on the
    number of entries and threads and on the machine, changes nothing. The grid is far finer than what one
    test example moves.
    """
    steps: FloatArray = np.rint((draws - draws.mean(axis=-1, keepdims=True)) * _GRID)
    return steps
