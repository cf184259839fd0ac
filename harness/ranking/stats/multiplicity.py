"""Many tests at once: p-values adjusted for their number, to be compared with the level as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from harness.core.types import FloatArray

CORRECTION = "Tukey's and Holm's correction over all pairs"
"""The correction of the p-values behind tiers (``of_pairs``), as tables state it."""

_SMALLEST = 1e-290  # of the p-values that are distinguished
_Z = np.linspace(0.0, 9.0, 601)  # of a table of p-values: the last is 2e-19
_AROUND = np.linspace(-9.0, 9.0, 241)  # of an integral: about the middle of a range, in standard deviations


def holm(p: FloatArray) -> FloatArray:
    """Return p-values adjusted by Holm (1979), in the same shape; NaN stays NaN and does not count.

    Rejecting those of at most alpha keeps the chance of any false rejection below alpha, whatever the
    dependence of the tests.
    """
    return _step(p, lambda ascending: np.maximum.accumulate(ascending * np.arange(len(ascending), 0, -1)))


def benjamini_hochberg(p: FloatArray) -> FloatArray:
    """Return p-values adjusted by Benjamini and Hochberg (1995), in the same shape; NaN stays NaN.

    Rejecting those of at most q keeps the expected share of false ones among the rejections below q, for
    tests that are independent or positively dependent (Benjamini and Yekutieli 2001).
    """

    def step_up(ascending: FloatArray) -> FloatArray:  # as scipy.stats, whose import takes longer than a whole table
        raised = ascending * (len(ascending) / np.arange(1, len(ascending) + 1))
        return np.minimum.accumulate(raised[::-1])[::-1]

    return _step(p, step_up)


def of_pairs(p: FloatArray) -> FloatArray:
    """Return symmetric p-values of all pairs (entries, entries), adjusted for the choice of any pair.

    The best of a sample is chosen by the numbers that it is then compared by. To compare it with the others
    is to compare extremes, so what counts is the range of all means, not the number of comparisons with the
    best. Two bounds hold whatever entries are truly equal, and the smaller counts: Holm's (1979) over all
    pairs, and how often normal numbers, one per entry, have so wide a range (Tukey 1953, Kramer 1956;
    conservative for unequal variances, Hayter 1984). It steps down, as Holm: a level depends only on how many
    hypotheses are left, and at the first false rejection all true ones are.
    """

    def both(ascending: FloatArray) -> FloatArray:
        steps = np.minimum(ascending * np.arange(len(ascending), 0, -1), range_p(ascending, len(p)))
        return np.maximum.accumulate(steps)

    rows, columns = np.triu_indices(len(p), k=1)
    adjusted = np.array(p, dtype=np.float64)
    adjusted[rows, columns] = adjusted[columns, rows] = _step(p[rows, columns], both)
    return adjusted


def range_p(p: FloatArray, count: int) -> FloatArray:
    """Return how often any two of ``count`` equal means differ as clearly as two with the p-value given.

    That is the survival function of the studentized range, with infinite degrees of freedom, at sqrt(2) z of a
    two-sided p. Interpolated in a table, to 1 in 10,000 (scipy's integrates again for every p: too slow
    for all pairs); beyond the table's end it is p times the number of pairs.
    """
    from scipy.special import ndtri

    if count < 3:  # one pair, or none
        return p
    z = -ndtri(np.maximum(p, _SMALLEST) / 2)
    ratio = np.exp(np.interp(z, _Z, _log_ratios(count)))
    return np.asarray(np.minimum(p * ratio, 1.0))


@lru_cache(maxsize=64)  # a board ranks many slices of the same entries
def _log_ratios(count: int) -> FloatArray:
    """Return the logarithm of ``range_p`` over p at the values ``_Z``.

    The integral over the largest of the numbers, the others lying below it but not all within the range.
    """
    from scipy.special import ndtr

    width = np.sqrt(2) * _Z[:, None]
    largest = width / 2 + _AROUND
    below, outside = ndtr(largest), ndtr(largest - width)
    with np.errstate(divide="ignore"):  # of a range of 0
        others = -(below ** (count - 1)) * np.expm1((count - 1) * np.log1p(-outside / below))
    density = np.exp(-np.square(largest) / 2) / np.sqrt(2 * np.pi)
    tail = count * (density * others).sum(axis=1) * (_AROUND[1] - _AROUND[0])
    return np.asarray(np.log(tail / (2 * ndtr(-_Z))))


def _step(p: FloatArray, adjust: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return p-values adjusted in ascending order, at most 1, in the shape given; NaN stays NaN."""
    adjusted = np.array(p, dtype=np.float64)
    known = ~np.isnan(adjusted)
    found = adjusted[known]
    if ((found < 0) | (found > 1)).any():
        raise ValueError("a p-value lies outside 0 to 1")
    order = np.argsort(found, kind="stable")
    found[order] = np.minimum(adjust(found[order]), 1.0)
    adjusted[known] = found
    return adjusted
