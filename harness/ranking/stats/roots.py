"""Roots of many functions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from harness.core.types import FloatArray

_STEPS = 100  # halving an interval of doubles ends before
_CLOSE, _NARROW = 1e-12, 1e-15  # of a value that is a root, and of a bracket, relative


@np.errstate(divide="ignore", invalid="ignore")  # of unknown numbers
def find_roots(
    function: Callable[..., FloatArray], low: FloatArray, high: FloatArray, args: Sequence[FloatArray]
) -> FloatArray:
    """Return where ``function(x, *args)`` is 0 between ``low`` and ``high``, at which its signs differ.

    The false position of Anderson and Bjorck (1973), a half where that leaves the bracket. Every root depends on its
    own numbers alone, bit for bit; scipy's takes twice as long, and its import as long as a comparison.
    """
    a, b, found = low, high, np.array(high, dtype=np.float64)
    at_a, at_b = function(a, *args), function(b, *args)
    rows = np.arange(len(found))
    start = np.abs(at_a) <= _CLOSE
    found[start] = a[start]
    left = ~start & ~(np.abs(at_b) <= _CLOSE)
    for _ in range(_STEPS):
        rows, a, b, at_a, at_b = rows[left], a[left], b[left], at_a[left], at_b[left]
        args = [values[left] for values in args]
        if not len(rows):
            break
        x = b - at_b * ((b - a) / (at_b - at_a))
        x = np.where((x > np.minimum(a, b)) & (x < np.maximum(a, b)), x, (a + b) / 2)
        at_x = function(x, *args)
        found[rows] = x
        crossed = np.sign(at_x) != np.sign(at_b)  # the root is between x and b, else x and a, whose weight shrinks
        weight = 1 - at_x / at_b
        a, at_a = np.where(crossed, b, a), np.where(crossed, at_b, at_a * np.where(weight > 0, weight, 0.5))
        b, at_b = x, at_x
        left = ~((np.abs(at_x) <= _CLOSE) | (np.abs(b - a) <= _NARROW * np.abs(b)))
    return found
