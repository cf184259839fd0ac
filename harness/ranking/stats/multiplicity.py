"""Many tests at once: p-values adjusted for their number, to be held against the level as they are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray

CORRECTION = "Tukey's and Holm's correction over all pairs"
"""Of the p-values that make tiers (``of_pairs``), as tables say it."""

_SMALLEST = 1e-290  # of the p-values that are told apart
_Z = np.linspace(0.0, 9.0, 601)  # of a table of p-values: the last is 2e-19
_AROUND = np.linspace(-9.0, 9.0, 241)  # of an integral: about the middle of a range, in standard deviations


def holm(p: FloatArray) -> FloatArray:
    """Return p-values adjusted by Holm (1979), in the shape given; NaN stays NaN and does not count.

    Rejecting what is at most alpha keeps the chance of any false rejection below alpha, whatever the
    dependence of the tests.
    """
    flat, known, order = _ordered(p)
    count = len(order)
    steps = np.maximum.accumulate(flat[known][order] * np.arange(count, 0, -1))
    return _placed(flat, known, order, steps).reshape(np.shape(p))


def benjamini_hochberg(p: FloatArray) -> FloatArray:
    """Return p-values adjusted by Benjamini and Hochberg (1995), in the shape given; NaN stays NaN.

    Rejecting what is at most q keeps the expected share of false ones among the rejections below q, for
    tests that are independent or positively dependent (Benjamini and Yekutieli 2001).
    """
    flat, known, order = _ordered(p)
    count = len(order)
    raised = flat[known][order] * (count / np.arange(1, count + 1))
    steps = np.minimum.accumulate(raised[::-1])[::-1]
    return _placed(flat, known, order, steps).reshape(np.shape(p))


def of_pairs(p: FloatArray) -> FloatArray:
    """Return symmetric p-values of all pairs (entries, entries), adjusted for the choice of any pair.

    The best of a sample is chosen by the numbers that it is then compared by. To compare it with the others
    is to compare extremes, so what counts is the range of all means, not the number of comparisons with the
    best. Two bounds hold whatever entries are truly equal, and the smaller counts: Holm's (1979) over all
    pairs, and how often normal numbers, one per entry, have so wide a range (Tukey 1953, Kramer 1956;
    conservative for unequal variances, Hayter 1984). It steps down, as Holm: a level depends only on how many
    hypotheses are left, and at the first false rejection all true ones are.
    """
    rows, columns = np.triu_indices(len(p), k=1)
    flat, known, order = _ordered(p[rows, columns])
    ascending = flat[known][order]
    steps = np.minimum(ascending * np.arange(len(order), 0, -1), range_p(ascending, len(p)))
    adjusted = np.array(p, dtype=np.float64)
    of_both = _placed(flat, known, order, np.maximum.accumulate(steps))
    adjusted[rows, columns] = adjusted[columns, rows] = of_both
    return adjusted


def range_p(p: FloatArray, count: int) -> FloatArray:
    """Return how often any two of ``count`` equal means differ as clearly as two with the p-value given.

    That is the survival function of the studentized range, with endless degrees of freedom, at sqrt(2) z of a
    two-sided p. Interpolated in a table, to 1 in 10,000; beyond its end it is p times the number of pairs.
    """
    from scipy.special import ndtri

    if count < 3:  # one pair, or none
        return p
    z = -ndtri(np.maximum(p, _SMALLEST) / 2)
    ratio = np.exp(np.interp(z, _Z, _log_ratios(count)))
    return np.asarray(np.minimum(p * ratio, 1.0))


@lru_cache(maxsize=64)  # a board ranks many parts of one field
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


def _ordered(p: FloatArray) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.int64]]:
    """Return the p-values in a row, which of them are known, and the order of those."""
    flat = np.asarray(p, dtype=np.float64).ravel()
    known = ~np.isnan(flat)
    if ((flat[known] < 0) | (flat[known] > 1)).any():
        raise ValueError("a p-value lies outside 0 to 1")
    return flat, known, np.argsort(flat[known], kind="stable")


def _placed(flat: FloatArray, known: NDArray[np.bool_], order: NDArray[np.int64], steps: FloatArray) -> FloatArray:
    """Return the adjusted values, at most 1, back in their places."""
    inner = np.empty(len(order))
    inner[order] = np.minimum(steps, 1.0)
    adjusted = flat.copy()
    adjusted[known] = inner
    return adjusted
