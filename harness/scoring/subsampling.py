"""Subsamples of texts at a fixed budget, and intervals from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.core.files import digest

Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)


def generator(*axes: object) -> np.random.Generator:
    """Return the random generator of the named axes, the same in every process.

    Two texts, entries or runs that share the axes share the draw, so that they stay paired.
    """
    return np.random.default_rng(int(digest([str(axis) for axis in axes], 16), 16))


def permutations(n: int, count: int, *axes: object) -> list[NDArray[np.int64]]:
    """Return ``count`` seeded orders of ``n`` texts; a subsample is the beginning of one."""
    draw = generator("subsamples", n, *axes)
    return [draw.permutation(n) for _ in range(count)]


@dataclass(frozen=True)
class Subsamples:
    """Subsamples: the texts of each with how much of them counts; how many orders they were dealt from.

    ``texts``: mean effective number of texts of one (Kish 1965), since a part of a text is one draw still.
    """

    subsamples: Sequence[Sequence[tuple[int, int]]]
    decks: int
    texts: float


def draw_subsamples(sizes: Sequence[int], budget: int, count: int, *axes: object) -> Subsamples:
    """Deal texts of ``sizes`` into at least ``count`` subsamples of exactly ``budget`` in total size.

    A seeded order is dealt to its end, each subsample beginning with the text after the one before, then
    another order: subsamples of one order share no text, so that together they tell as much as all texts
    do. Of the last text of a subsample only what fits counts. Raises ``ValueError`` where the sizes do not
    add up to the budget.
    """
    return _dealt(tuple(sizes), budget, count, axes)


@lru_cache(maxsize=32)  # cells of one suite mostly have as many texts, dealt alike where every text counts 1
def _dealt(sizes: tuple[int, ...], budget: int, count: int, axes: tuple[object, ...]) -> Subsamples:
    if sum(sizes) < budget:
        raise ValueError(f"the texts do not fill the budget of {budget}")
    draw = generator("subsamples", len(sizes), *axes)
    found: list[list[tuple[int, int]]] = []
    decks = 0
    while len(found) < count:
        decks += 1
        hand: list[tuple[int, int]] = []
        left = budget
        for i in draw.permutation(len(sizes)).tolist():
            taken = min(sizes[i], left)
            hand.append((i, taken))
            left -= taken
            if left == 0:
                found.append(hand)
                hand, left = [], budget
    return Subsamples(found, decks, float(np.mean([_effective(hand, sizes) for hand in found])))


def _effective(hand: Sequence[tuple[int, int]], sizes: Sequence[int]) -> float:
    """Return how many texts a subsample is worth: (sum of shares)**2 / sum of squared shares."""
    shares = [taken / sizes[i] if sizes[i] else 1.0 for i, taken in hand]
    return sum(shares) ** 2 / sum(share * share for share in shares)


def interval(
    values: Sequence[float], used: float, n: int, decks: int | None = None, within: Range = ANY
) -> Range | None:
    """Return a 95 % interval of the mean of ``values``, one per subsample of ``used`` of ``n`` texts.

    ``decks``: the number of orders that they were dealt from, if not one each. With s² the variance that
    disjoint subsamples would have, estimated from those at hand, and g of them from an order, the variance
    of the mean is s² (used / n + (1 / g - used / n) / decks). The first part is the delete-d jackknife of
    Shao and Wu (1989), which knows that subsamples overlap; the second is what few subsamples of all that
    there are leave open. Student's t has the degrees of freedom of the smaller number, texts or
    subsamples. Drawing with replacement would create duplicates and bias every measure of diversity. None
    where nothing is left out, and where the values do not differ: the texts then do not tell how far
    others would lie. The bounds stay ``within`` the range of the metric.
    """
    count = len(values)
    if n - used < 1 or count < 2 or min(values) == max(values):
        return None
    decks = decks or count
    overlapping = 1 - (count / decks - 1) / (count - 1)
    spread = float(np.var(values, ddof=1)) / (1 - overlapping * used / n)
    variance = spread * (used / n + max(decks / count - used / n, 0.0) / decks)
    return _around(float(np.mean(values)), variance, min(n, count) - 1, within)


def mean_interval(values: Sequence[float], within: Range = ANY) -> Range | None:
    """Return a 95 % interval (Student's t) of the mean of independent values; None if they do not differ."""
    count = len(values)
    if count < 2 or min(values) == max(values):
        return None
    return _around(float(np.mean(values)), float(np.var(values, ddof=1)) / count, count - 1, within)


def _around(mean: float, variance: float, freedom: int, within: Range) -> Range:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, 0.975)) * variance**0.5
    return (max(mean - half, within[0]), min(mean + half, within[1]))
