"""Paired differences of entries, with what is uncertain about them.

Strata (a task in a language) are fixed; generation seeds are drawn anew in every stratum; test examples are
shared by all entries and seeds, and by strata that hold translations of one another. The variance of a mean
difference is that of two crossed random factors, seed and example, so that nothing counts twice:

    seeds         1/S^2 sum_s var_g(d[s, g]) / G                 noise of generation and of training
    examples      var_b(mean_sg draws[s, g, b])                  bootstrap over test examples
    both          1/S^2 sum_s W_s / G, W_s = sum_gb (draws[s, g, b] - mean_g)^2 / (G - 1)(B - 1)
    variance      seeds + max(examples - both, 0)

because the interaction of seed and example is in each of the first two (Owen 2007; McCullagh 2000). The
variance over seeds is the closed form of a bootstrap of them with the correction for few (Rao and Wu 1988).
Student's t with the degrees of freedom of Satterthwaite (1946).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.records import Direction
from harness.scoring.subsampling import generator

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Of every interval."""

POWER = 0.8
"""With which the minimum detectable effect is found."""

_GRID = 2.0**18  # bootstrap values become multiples of 1 / 2^18: their products then add up exactly
_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero


@dataclass(frozen=True)
class Panel:
    """One metric of entries that lack nothing.

    ``values`` (entries, strata, generation seeds): mean over classifier seeds. ``draws`` (as values,
    resamples): the same under resamples of the test examples, see ``draw_weights``; None for a metric
    without test examples. ``examples``: the number of test examples of the stratum with the fewest.
    Raises ValueError for numbers that are not finite or shapes that do not fit.
    """

    values: Floats
    draws: NDArray[np.float32] | None = None
    examples: int | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or not self.values.size:
            raise ValueError(f"values have shape {self.values.shape}, not (entries, strata, seeds)")
        if not np.isfinite(self.values).all():
            raise ValueError("a value is not finite: an entry that lacks cells belongs to no panel")
        if self.draws is None:
            return
        if self.draws.shape[:3] != self.values.shape or self.draws.ndim != 4 or self.draws.shape[3] < 2:
            raise ValueError(f"draws have shape {self.draws.shape}, values {self.values.shape}")
        if not (np.abs(self.draws) <= 2).all():
            raise ValueError("a draw is not finite or beyond 2")
        if self.examples is None or self.examples < 2:
            raise ValueError(f"draws need two test examples or more, not {self.examples}")


@dataclass(frozen=True)
class Differences:
    """All pairs of entries, row minus column: arrays (entries, entries).

    ``mean`` over strata and seeds, standard error, degrees of freedom, two-sided ``p``. With one seed all
    but the mean are NaN. ``p`` is 1 on the diagonal and for entries that never differ.
    """

    mean: Floats
    se: Floats
    df: Floats
    p: Floats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; what cannot be known (one seed) is None.

    ``p``: two-sided, of the hypothesis that it is 0. ``mde``: the minimum detectable effect, which a test
    at 5 % finds in 80 of 100 experiments like this one: (t_0.975 + t_0.80) standard errors (Bloom 1995;
    Card et al. 2020).
    """

    mean: float
    se: float | None = None
    df: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    mde: float | None = None


def differences(panel: Panel) -> Differences:
    """Return the differences of all pairs of entries.

    A pair's numbers hang on its two entries alone, bit for bit: not on their order nor on the field.
    """
    mean, se, df = _moments(panel, _Pairs())
    p = _p(mean, se, df)
    np.fill_diagonal(p, 1.0)
    return Differences(mean, se, df, p)


def estimate(panel: Panel, weights: Mapping[int, float]) -> Estimate:
    """Return the weighted sum of entries: ``{entry: 1, baseline: -1}`` for a difference."""
    mean, se, df = (float(part) for part in _moments(panel, _Contrast(weights)))
    if np.isnan(se):
        return Estimate(mean)
    half = _quantile(df, (1 + LEVEL) / 2) * se
    mde = half + _quantile(df, POWER) * se
    p = float(_p(*(np.array(part) for part in (mean, se, df))))
    return Estimate(mean, se, df, mean - half, mean + half, p, mde)


def gap_closed(
    panel: Panel, entry: int, baseline: int, ceiling: int, better: Direction = "up"
) -> Estimate | None:
    """Return by how many percent an entry closes the gap from a baseline to a ceiling.

    The interval is Fieller's (1954): all ratios r for which entry - baseline - r (ceiling - baseline) does
    not differ from 0. It holds no p and no minimum detectable effect. None where the ceiling is not clearly
    better than the baseline: the interval is then unbounded and the ratio without meaning.
    """
    gap = estimate(panel, {ceiling: 1.0, baseline: -1.0})
    sign = -1 if better == "down" else 1
    if gap.low is None or gap.high is None or min(sign * gap.low, sign * gap.high) <= 0:
        return None
    gain = estimate(panel, {entry: 1.0, baseline: -1.0})
    rest = estimate(panel, {entry: 1.0, ceiling: -1.0})
    assert gain.se is not None and gap.se is not None and rest.se is not None
    ratio = gain.mean / gap.mean
    at_ratio = estimate(panel, {entry: 1.0, baseline: ratio - 1.0, ceiling: -ratio})
    covariance = (gain.se**2 + gap.se**2 - rest.se**2) / 2
    assert at_ratio.df is not None and at_ratio.se is not None
    t = _quantile(at_ratio.df, (1 + LEVEL) / 2)
    a = gap.mean**2 - t**2 * gap.se**2
    b = gain.mean * gap.mean - t**2 * covariance
    c = gain.mean**2 - t**2 * gain.se**2
    if a <= 0:
        return None
    root = max(b * b - a * c, 0.0) ** 0.5
    low, high = 100 * (b - root) / a, 100 * (b + root) / a
    return Estimate(100 * ratio, 100 * at_ratio.se / abs(gap.mean), at_ratio.df, low, high)


def draw_weights(examples: str, n: int, count: int) -> NDArray[np.float32]:
    """Return the weights (count, n) of ``n`` test examples in ``count`` bootstrap resamples.

    ``examples``: the digest of the example set. The same weights for all entries, classifiers and runs,
    and for test sets that are translations of one another: differences stay paired.
    """
    draw = generator("test examples", examples, n, count)
    return draw.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float32)


class _Family(Protocol):
    """Contrasts of entries: linear in values (entries, ...), sums of squares of rows (entries, n)."""

    def linear(self, values: Floats) -> Floats: ...

    def size(self, values: Floats) -> Floats: ...

    def squares(self, rows: Floats) -> Floats: ...


class _Pairs:
    """Every entry minus every entry."""

    def linear(self, values: Floats) -> Floats:
        return values[:, None] - values[None]

    def size(self, values: Floats) -> Floats:
        return np.abs(values)[:, None] + np.abs(values)[None]

    def squares(self, rows: Floats) -> Floats:
        products = rows @ rows.T  # of whole numbers, so exact in any order of summation
        own = np.diag(products)
        return own[:, None] + own[None] - 2 * products


@dataclass(frozen=True)
class _Contrast:
    """One weighted sum of entries."""

    weights: Mapping[int, float]

    def linear(self, values: Floats) -> Floats:
        return _sum(weight * values[entry] for entry, weight in self.weights.items())

    def size(self, values: Floats) -> Floats:
        return _sum(abs(weight) * np.abs(values[entry]) for entry, weight in self.weights.items())

    def squares(self, rows: Floats) -> Floats:
        return np.asarray(np.square(self.linear(rows)).sum())


def _moments(panel: Panel, family: _Family) -> tuple[Floats, Floats, Floats]:
    """Return mean, standard error and degrees of freedom of contrasts; the latter NaN for one seed."""
    _, strata, seeds = panel.values.shape
    cells = [[family.linear(panel.values[:, s, g]) for g in range(seeds)] for s in range(strata)]
    means = [_sum(stratum) / seeds for stratum in cells]
    mean = _sum(means) / strata
    size = functools.reduce(
        np.maximum, (family.size(panel.values[:, s, g]) for s in range(strata) for g in range(seeds))
    )
    mean = np.where(np.abs(mean) <= _ROUNDING * size, 0.0, mean)
    if seeds == 1:
        unknown = np.full_like(mean, np.nan)
        return mean, unknown, unknown
    parts = [
        _sum(np.square(cell - own) for cell in stratum) / ((seeds - 1) * seeds * strata**2)
        for stratum, own in zip(cells, means, strict=True)
    ]
    tests = _example_variance(panel, family)
    variance = _sum(parts) + tests
    fourth = _sum(np.square(part) for part in parts) / (seeds - 1)
    if panel.examples is not None:
        fourth = fourth + np.square(tests) / (panel.examples - 1)
    error = np.sqrt(variance)
    error = np.where(error <= _ROUNDING * size, 0.0, error)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(fourth > 0, np.square(variance) / fourth, float(strata * (seeds - 1)))
    return mean, error, df


def _example_variance(panel: Panel, family: _Family) -> Floats:
    """Return the variance from test examples alone: the interaction with seeds is taken off, down to 0."""
    draws = panel.draws
    if draws is None:
        return np.zeros_like(family.linear(panel.values[:, 0, 0]))
    _, strata, seeds, count = draws.shape
    total = _sum(draws[:, s, g].astype(np.float64) for s in range(strata) for g in range(seeds))
    tests = family.squares(_whole(total / (strata * seeds)))
    both = np.zeros_like(tests)
    for s in range(strata):
        drawn = draws[:, s].astype(np.float64)
        own = _sum(drawn[:, g] for g in range(seeds)) / seeds
        rest = _whole(drawn - own[:, None])
        both = both + family.squares(rest.reshape(len(rest), -1))
    both = both / ((seeds - 1) * seeds * strata**2)
    return np.maximum(tests - both, 0.0) / ((count - 1) * _GRID**2)


def _whole(draws: Floats) -> Floats:
    """Return draws (..., resamples) around their mean, as whole numbers of steps of the grid.

    With whole numbers BLAS sums products without rounding, so that its order of summation, which hangs on
    the number of entries, of threads and on the machine, changes nothing. The grid is far finer than what
    one test example moves.
    """
    steps: Floats = np.rint((draws - draws.mean(axis=-1, keepdims=True)) * _GRID)
    return steps


def _sum(items: Iterable[Floats]) -> Floats:
    """Return the sum in the given order, element by element: the same bits for an array and for its parts."""
    total: Floats = functools.reduce(operator.add, items)
    return total


def _p(mean: Floats, se: Floats, df: Floats) -> Floats:
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / se)  # no variance at all: infinite, p 0
    p: Floats = np.where(np.isnan(se), np.nan, 2 * stdtr(df, -t))
    return p


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))
