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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 0.05
"""Level of every test; intervals hold 1 - ALPHA."""

_GRID = 2.0**18  # bootstrap values become multiples of 1 / 2^18: their products then add up exactly
_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero
_SMALLEST = 1e-290  # of the p-values that are told apart
_LOG_2 = 0.6931471805599453
_STEPS = 100  # more than halving alone would take
_AGREE = 1e-12  # logarithms of p-values that agree
_CLOSE = 1e-15  # relative: nothing is left between


class Family(Protocol):
    """Contrasts of entries: arrays of one axis."""

    def linear(self, values: Floats) -> Floats:
        """Return the contrasts of values (entries, ...)."""
        ...

    def size(self, values: Floats) -> Floats:
        """Return the contrasts of values (entries) with all terms positive."""
        ...

    def squares(self, rows: Floats) -> Floats:
        """Return the sums of squares of the contrasts of rows (entries, n) of whole numbers."""
        ...


class Pairs:
    """Every entry minus every later one, in the order of ``numpy.triu_indices(count, 1)``."""

    def __init__(self, count: int) -> None:
        self.rows, self.columns = np.triu_indices(count, 1)

    def linear(self, values: Floats) -> Floats:
        """Return all differences."""
        return values[self.rows] - values[self.columns]

    def size(self, values: Floats) -> Floats:
        """Return all sums of absolute values."""
        return np.abs(values)[self.rows] + np.abs(values)[self.columns]

    def squares(self, rows: Floats) -> Floats:
        """Return all squared distances."""
        products = rows @ rows.T
        own = np.diag(products)
        distances: Floats = own[self.rows] + own[self.columns] - 2 * products[self.rows, self.columns]
        return distances


class Sums:
    """Weighted sums of entries, of as many terms each: ``terms`` are (entries, weights), of one axis."""

    def __init__(self, terms: Sequence[tuple[NDArray[np.int64], Floats]]) -> None:
        self._terms = terms

    def linear(self, values: Floats) -> Floats:
        """Return the weighted sums."""
        axes = (1,) * (values.ndim - 1)
        return added(weights.reshape(-1, *axes) * values[entries] for entries, weights in self._terms)

    def size(self, values: Floats) -> Floats:
        """Return the weighted sums of absolute values."""
        return added(np.abs(weights) * np.abs(values[entries]) for entries, weights in self._terms)

    def squares(self, rows: Floats) -> Floats:
        """Return the sums of squares of the weighted sums."""
        return np.asarray(np.square(self.linear(rows)).sum(axis=-1))


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

    It lies between the p of both.
    """
    from scipy.special import stdtr

    ends = [np.asarray(2 * stdtr(df, -t)) for df in (seeds_df, examples_df)]
    found = np.where(share == 1, ends[0], ends[1])
    mixed = (share > 0) & (share < 1) & np.isfinite(t)
    found[mixed] = _balanced(t[mixed], share[mixed], seeds_df[mixed], examples_df)
    return found


def _balanced(t: Floats, share: Floats, seeds_df: Floats, examples_df: float) -> Floats:
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


def _bracket(t: Floats, share: Floats, seeds_df: Floats, examples_df: float) -> tuple[Floats, Floats, Floats]:
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


def _tail(df: Floats | float, t: Floats) -> tuple[Floats, Floats, Floats]:
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
class Layer:
    """What one stratum has to do with the moments of contrasts, over its seeds.

    ``total``: sum; ``squares``: sum of squared deviations from the mean; ``size``: the largest number that
    was added up. ``drawn`` (entries, resamples): sum of the draws of entries; ``both``: sum of squares of
    contrasts of draws around their mean over seeds; both None without draws.
    """

    total: Floats
    squares: Floats
    size: Floats
    drawn: Floats | None
    both: Floats | None


def layer(values: Floats, draws: NDArray[np.float32] | None, family: Family) -> Layer:
    """Return what a stratum has to do with contrasts: values (entries, seeds), draws (..., resamples)."""
    seeds = values.shape[1]
    cells = [family.linear(values[:, g]) for g in range(seeds)]
    total = added(cells)
    squares = added(np.square(cell - total / seeds) for cell in cells)
    size = functools.reduce(np.maximum, (family.size(values[:, g]) for g in range(seeds)))
    if draws is None or seeds == 1:
        return Layer(total, squares, size, None, None)
    steps = draws.astype(np.float64)
    drawn = added(steps[:, g] for g in range(seeds))
    rest = _whole(steps - (drawn / seeds)[:, None])
    return Layer(total, squares, size, drawn, family.squares(rest.reshape(len(rest), -1)))


def moments(layers: Sequence[Layer], seeds: int, examples: int | None, family: Family) -> Moments:
    """Return the moments of contrasts over strata; ``examples``: of the stratum with the fewest.

    A contrast's numbers hang on its entries alone, bit for bit: everything is added up in the order of strata
    and seeds, element by element, or is a whole number.
    """
    strata = len(layers)
    rounding = _ROUNDING * functools.reduce(np.maximum, (each.size for each in layers))
    mean = added(each.total / seeds for each in layers) / strata
    mean = np.where(np.abs(mean) <= rounding, 0.0, mean)
    if seeds == 1:
        unknown = np.full_like(mean, np.nan)
        return Moments((strata, seeds), mean, unknown, unknown, unknown, np.nan)
    variance, df = _seed_variance([each.squares for each in layers], seeds, rounding)
    drawn = [each.drawn for each in layers if each.drawn is not None]
    both = [each.both for each in layers if each.both is not None]
    if examples is None or not drawn:
        return Moments((strata, seeds), mean, variance, df, np.zeros_like(mean), 1.0)
    tests = _example_variance(drawn, both, seeds, family)
    return Moments((strata, seeds), mean, variance, df, tests, examples - 1.0)


def added(items: Iterable[Floats]) -> Floats:
    """Return the sum in the given order, element by element: the same bits for an array and for its parts."""
    total: Floats = functools.reduce(operator.add, items)
    return total


def _seed_variance(squares: Sequence[Floats], seeds: int, rounding: Floats) -> tuple[Floats, Floats]:
    """Return the variance that seeds give contrasts, and its degrees of freedom, from squares per stratum."""
    strata = len(squares)
    parts = [each / ((seeds - 1) * seeds * strata**2) for each in squares]
    parts = [np.where(np.sqrt(part) <= rounding, 0.0, part) for part in parts]
    variance, fourth = added(parts), added(np.square(part) for part in parts) / (seeds - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(fourth > 0, np.square(variance) / fourth, float(strata * (seeds - 1)))
    return variance, df


def _example_variance(drawn: Sequence[Floats], both: Sequence[Floats], seeds: int, family: Family) -> Floats:
    """Return the variance from test examples alone: the interaction with seeds is taken off, down to 0."""
    strata, count = len(drawn), drawn[0].shape[1]
    together = family.squares(_whole(added(drawn) / (strata * seeds)))
    interaction = added(both) / ((seeds - 1) * seeds * strata**2)
    return np.asarray(np.maximum(together - interaction, 0.0) / ((count - 1) * _GRID**2))


def _whole(draws: Floats) -> Floats:
    """Return draws (..., resamples) around their mean, as whole numbers of steps of the grid.

    BLAS sums products of whole numbers without rounding, so that its order of summation, which hangs on the
    number of entries and threads and on the machine, changes nothing. The grid is far finer than what one
    test example moves.
    """
    steps: Floats = np.rint((draws - draws.mean(axis=-1, keepdims=True)) * _GRID)
    return steps
