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
    (1989), which knows that subsamples overlap, with Student's t for n - 1 texts. Drawing with replacement
    would create duplicates and bias every measure of diversity. None where there is nothing left out.
    """
    from scipy.special import stdtrit

    if n - used < 1 or len(values) < 2:
        return None
    mean = float(np.mean(values))
    error = float(np.sqrt(used / (n - used) * np.var(values)))
    half = float(stdtrit(n - 1, 0.975)) * error
    return (mean - half, mean + half)
