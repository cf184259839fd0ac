"""Many tests at once: p-values adjusted for their number, to be held against the level as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def holm(p: Floats) -> Floats:
    """Return p-values adjusted by Holm (1979), in the shape given; NaN stays NaN and does not count.

    Rejecting what is at most alpha keeps the chance of any false rejection below alpha, whatever the
    dependence of the tests.
    """
    flat, known, order = _ordered(p)
    count = len(order)
    steps = np.maximum.accumulate(flat[known][order] * np.arange(count, 0, -1))
    return _placed(flat, known, order, steps).reshape(np.shape(p))


def benjamini_hochberg(p: Floats) -> Floats:
    """Return p-values adjusted by Benjamini and Hochberg (1995), in the shape given; NaN stays NaN.

    Rejecting what is at most q keeps the expected share of false ones among the rejections below q, for
    tests that are independent or positively dependent (Benjamini and Yekutieli 2001).
    """
    flat, known, order = _ordered(p)
    count = len(order)
    raised = flat[known][order] * (count / np.arange(1, count + 1))
    steps = np.minimum.accumulate(raised[::-1])[::-1]
    return _placed(flat, known, order, steps).reshape(np.shape(p))


def holm_pairs(p: Floats) -> Floats:
    """Return symmetric p-values of all pairs (entries, entries) by Holm, every pair counted once."""
    rows, columns = np.triu_indices(len(p), k=1)
    adjusted = np.array(p, dtype=np.float64)
    adjusted[rows, columns] = adjusted[columns, rows] = holm(p[rows, columns])
    return adjusted


def _ordered(p: Floats) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Return the p-values in a row, which of them are known, and the order of those."""
    flat = np.asarray(p, dtype=np.float64).ravel()
    known = ~np.isnan(flat)
    if ((flat[known] < 0) | (flat[known] > 1)).any():
        raise ValueError("a p-value lies outside 0 to 1")
    return flat, known, np.argsort(flat[known], kind="stable")


def _placed(flat: Floats, known: NDArray[np.bool_], order: NDArray[np.int64], steps: Floats) -> Floats:
    """Return the adjusted values, at most 1, back in their places."""
    inner = np.empty(len(order))
    inner[order] = np.minimum(steps, 1.0)
    adjusted = flat.copy()
    adjusted[known] = inner
    return adjusted
