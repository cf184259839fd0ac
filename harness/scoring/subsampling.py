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
    """Return the random generator of the named axes: the same in every process, so that equal axes stay paired."""
    return np.random.default_rng(int(digest([str(axis) for axis in axes], 16), 16))


def permutations(n: int, count: int, *axes: object) -> list[NDArray[np.int64]]:
    """Return ``count`` seeded permutations of ``n`` texts."""
    draw = generator("subsamples", n, *axes)
    return [draw.permutation(n) for _ in range(count)]


@dataclass(frozen=True)
class Subsamples:
    """Subsamples as (text, how much of it counts), and the number of permutations that they were cut from.

    ``texts``: mean effective number of texts of one (Kish 1965), since a part of a text is still one draw.
    """

    subsamples: Sequence[Sequence[tuple[int, int]]]
    n_permutations: int
    texts: float

    def interval(self, values: Sequence[float], n: int, most: float, least: float = 0.0) -> Range | None:
        """Return a 95 % interval of the mean of ``values``, one per subsample of ``n`` texts; see ``interval``."""
        return interval(values, self.texts, n, self.n_permutations, within=(least, most))


def draw_subsamples(sizes: Sequence[int], budget: int, count: int, *axes: object) -> Subsamples:
    """Cut texts of ``sizes`` into at least ``count`` subsamples of exactly ``budget`` in total size.

    A seeded permutation is used up before the next one is drawn, each subsample starting with the text after the
    one before: subsamples of one permutation are disjoint, so that together they use all texts. Of the last text of
    a subsample only what fits counts. Raises ``ValueError`` where the sizes do not add up to the budget.
    """
    return _draw(tuple(sizes), budget, count, axes)


@lru_cache(maxsize=32)  # cells of one suite mostly have equally many texts
def _draw(sizes: tuple[int, ...], budget: int, count: int, axes: tuple[object, ...]) -> Subsamples:
    if sum(sizes) < budget:
        raise ValueError(f"the texts do not fill the budget of {budget}")
    draw = generator("subsamples", len(sizes), *axes)
    found: list[list[tuple[int, int]]] = []
    n_permutations = 0
    while len(found) < count:
        n_permutations += 1
        subsample: list[tuple[int, int]] = []
        left = budget
        for i in draw.permutation(len(sizes)).tolist():
            taken = min(sizes[i], left)
            subsample.append((i, taken))
            left -= taken
            if left == 0:
                found.append(subsample)
                subsample, left = [], budget
    shares = [[taken / sizes[i] if sizes[i] else 1.0 for i, taken in subsample] for subsample in found]
    effective = [sum(own) ** 2 / sum(share * share for share in own) for own in shares]
    return Subsamples(found, n_permutations, float(np.mean(effective)))


def interval(
    values: Sequence[float], used: float, n: int, n_permutations: int | None = None, within: Range = ANY
) -> Range | None:
    """Return a 95 % interval of the mean of ``values``, one per subsample of ``used`` of ``n`` texts.

    ``n_permutations``: how many the subsamples were cut from; by default one each. With s² the variance that
    disjoint subsamples would have, estimated from those at hand, and g of them per permutation, the variance of the
    mean is s² (used / n + (1 / g - used / n) / n_permutations). The first part is the delete-d jackknife of Shao
    and Wu (1989), which allows for overlap; the second is the Monte Carlo error of few subsamples. Student's t has
    the degrees of freedom of the smaller number, texts or subsamples. Drawing with replacement would create
    duplicates and bias every measure of diversity. None where nothing is left out, or where the values do not
    differ: they then say nothing about the spread.
    """
    count = len(values)
    if n - used < 1 or count < 2 or min(values) == max(values):
        return None
    drawn = n_permutations or count
    overlapping = 1 - (count / drawn - 1) / (count - 1)
    spread = float(np.var(values, ddof=1)) / (1 - overlapping * used / n)
    variance = spread * (used / n + max(drawn / count - used / n, 0.0) / drawn)
    return _student(float(np.mean(values)), variance, min(n, count) - 1, within)


def mean_interval(values: Sequence[float], within: Range = ANY) -> Range | None:
    """Return a 95 % interval (Student's t) of the mean of independent values; None if they do not differ."""
    count = len(values)
    if count < 2 or min(values) == max(values):
        return None
    return _student(float(np.mean(values)), float(np.var(values, ddof=1)) / count, count - 1, within)


def _student(mean: float, variance: float, freedom: int, within: Range) -> Range:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, 0.975)) * variance**0.5
    return (max(mean - half, within[0]), min(mean + half, within[1]))
