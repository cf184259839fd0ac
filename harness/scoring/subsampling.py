"""Subsamples of texts at a fixed budget, and intervals from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.files import digest


def generator(*axes: object) -> np.random.Generator:
    """Return the random generator of the named axes, the same in every process.

    Two texts, entries or runs that share the axes share the draw, so that they stay paired.
    """
    return np.random.default_rng(int(digest([str(axis) for axis in axes], 16), 16))


def orders(n: int, count: int, *axes: object) -> list[NDArray[np.int64]]:
    """Return ``count`` seeded orders of ``n`` texts; a subsample is the beginning of one."""
    draw = generator("subsamples", n, *axes)
    return [draw.permutation(n) for _ in range(count)]


def interval(values: Sequence[float], used: float, n: int) -> tuple[float, float] | None:
    """Return a 95 % interval of the mean of ``values``, one per subsample of ``used`` of ``n`` texts.

    The variance of the subsamples is scaled by used / (n - used): the delete-d jackknife of Shao and Wu
    (1989), which knows that subsamples overlap. To it comes the variance of the mean over so few of all
    subsamples, which is what remains where the texts are many. Student's t has the degrees of freedom of
    the smaller number, texts or subsamples. Drawing with replacement would create duplicates and bias
    every measure of diversity. None where nothing is left out, and where the values do not differ: the
    texts then do not tell how far others would lie.
    """
    if n - used < 1 or len(values) < 2:
        return None
    variance = float(np.var(values, ddof=1)) * (used / (n - used) + 1 / len(values))
    return _around(float(np.mean(values)), variance, min(n, len(values)) - 1)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return a 95 % interval (Student's t) of the mean of independent values; None if they do not differ."""
    if len(values) < 2:
        return None
    return _around(float(np.mean(values)), float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def _around(mean: float, variance: float, freedom: int) -> tuple[float, float] | None:
    from scipy.special import stdtrit

    if variance == 0 or freedom < 1:
        return None
    half = float(stdtrit(freedom, 0.975)) * variance**0.5
    return (mean - half, mean + half)
