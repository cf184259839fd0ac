"""Tiers and rank statistics; all of them depend on which entries are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import pandas as pd

from harness.core.records import Direction
from harness.core.types import FloatArray, IntArray
from harness.scoring.subsampling import generator

_EXACT = 7  # up to so many pairs all orders are tried: 5,040
_ORDERS = 9_999


def tiers(means: FloatArray, p: FloatArray, alpha: float = 0.05, better: Direction = "up") -> list[int]:
    """Return the tier of every entry, from 1; entries of a tier do not differ from its best.

    ``p`` (entries, entries): of the pairwise differences, adjusted for the choice of any (``of_pairs``). In the order
    of the means, an entry opens the next tier if it differs significantly from the head of the current one. Entries of
    equal mean that open a tier head it together, and another must differ from all of them; so the order of the input
    changes nothing, and identical entries share a tier. An unknown p (NaN) is not a difference.
    """
    oriented = _oriented(means, better)
    found = np.zeros(len(oriented), dtype=np.int64)
    heads = np.array([], dtype=np.int64)
    for mean in np.unique(oriented)[::-1]:
        tied = np.flatnonzero(oriented == mean)
        below = (p[np.ix_(tied, heads)] <= alpha).all(axis=1)  # all of them where there is no head yet
        found[tied] = found.max()
        if below.any():
            heads = tied[below]
            found[heads] += 1
    return [int(tier) for tier in found]


def win_rate(gains: FloatArray, better: Direction = "up") -> float:
    """Return the share of cases (mean paired gain per task and language) that improved; a tie is not a win.

    As in arXiv 2606.18389, which counts 70 of 88 cases as 79.54 %. Raises ValueError for no case or NaN.
    """
    if not len(gains):
        raise ValueError("no case to count")
    return float(np.mean(_oriented(gains, better) > 0))


def mean_rank(values: FloatArray, better: Direction = "up") -> FloatArray:
    """Return every entry's mean rank over cases, 1 for the best, from values (entries, cases)."""
    return np.asarray(_case_ranks(values, better).mean(axis=1), dtype=np.float64)


def borda(values: FloatArray, better: Direction = "up") -> FloatArray:
    """Return every entry's Borda count: over all cases, the entries that it beats, ties for a half.

    It is cases * (entries - mean rank), hence orders entries as the mean rank does.
    """
    return np.asarray((len(values) - _case_ranks(values, better)).sum(axis=1), dtype=np.float64)


def _case_ranks(values: FloatArray, better: Direction) -> FloatArray:
    """Return ranks (entries, cases) from 1, the best; tied entries share their mean rank."""
    return average_ranks(-_oriented(values, better))


def average_ranks(values: FloatArray) -> FloatArray:
    """Return ranks along the first axis from 1, the smallest; equal values share their mean rank."""
    return np.asarray(pd.DataFrame(values).rank(), dtype=np.float64).reshape(np.shape(values))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho of ``n`` pairs and its two-sided permutation ``p``."""

    rho: float
    p: float
    n: int


def rank_correlation(x: FloatArray, y: FloatArray) -> RankCorrelation | None:
    """Return Spearman's rank correlation (1904) with mean ranks for ties; None below four pairs.

    ``p``: the share of orders of ``y`` whose correlation is as strong: of all orders up to seven pairs, else
    of 9,999 random ones and the given one. None, too, where one side is constant.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values against {len(y)}")
    n = len(x)
    a, b = (average_ranks(_finite(side)) - (n + 1) / 2 for side in (x, y))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    if n < 4 or norm == 0:
        return None
    given = np.lexsort((b, a))  # the p-value must not depend on the order of the pairs
    a, b = a[given], b[given]
    strength = abs(a[_orders(n)] @ b)
    reached = int((strength >= abs(float(a @ b)) - 1e-9).sum())
    rho = max(-1.0, min(1.0, float(a @ b) / norm))
    return RankCorrelation(rho, reached / len(strength), n)


@lru_cache(maxsize=1)  # a table asks for several correlations of the same entries
def _orders(n: int) -> IntArray:
    """Return orders of ``n`` things, the given order first."""
    if n <= _EXACT:
        return np.array(list(permutations(range(n))), dtype=np.int64)
    draw = generator("rank correlation", n)
    rows = [np.arange(n), *(draw.permutation(n) for _ in range(_ORDERS))]
    return np.array(rows, dtype=np.int64)


def _oriented(values: FloatArray, better: Direction) -> FloatArray:
    """Return values of which more is better."""
    if better == "none":
        raise ValueError("a metric without a better direction ranks nothing")
    finite = _finite(values)
    return finite if better == "up" else -finite


def _finite(values: FloatArray) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError("a value is not finite")
    return found
