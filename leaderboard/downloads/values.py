"""All values of a board as the compact nested lists of the result file."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.core.types import FloatArray
from leaderboard.cube import ValueArray
from leaderboard.downloads.records import ByMetric

_DIGITS = 6
_EXACT = 22  # powers of ten up to this one are exact in double precision


def significant(values: FloatArray) -> FloatArray:
    """Return numbers with six significant digits, each as near as a double can be; NaN stays NaN."""
    found = np.array(values, dtype=np.float64)
    known = np.isfinite(found) & (found != 0)
    numbers = found[known]
    shift = _DIGITS - 1 - np.floor(np.log10(np.abs(numbers))).astype(np.int64)
    # by exact powers alone: an integer over one is the double next to the decimal number
    up, down = 10.0 ** np.clip(shift, 0, _EXACT), 10.0 ** np.clip(-shift, 0, _EXACT)
    rounded = np.round(numbers * up / down) * down / up
    tiny = np.abs(shift) > _EXACT
    rounded[tiny] = [float(f"{number:.{_DIGITS}g}") for number in numbers[tiny]]
    found[known] = rounded
    return found


def values_by_entry(found: ValueArray) -> dict[str, ByMetric]:
    """Return entry -> metric -> task -> language -> value per seed, without metrics that have no value."""
    return _by_entry(found, found.values)


def human_by_metric(found: ValueArray) -> tuple[ByMetric, dict[str, ByMetric]]:
    """Return the human values that all entries share, and by entry those places where they differ."""
    known = np.isfinite(found.human)
    low = np.where(known, found.human, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, found.human, -np.inf).max(axis=0, initial=-np.inf)
    shared = np.where(low == high, low, np.nan)
    differing = np.where(low < high, found.human, np.nan)
    nested = _nested(shared)
    common = {
        metric: _named(found, nested[i]) for i, metric in enumerate(found.metrics) if np.isfinite(shared[i]).any()
    }
    return common, _by_entry(found, differing)


def _by_entry(found: ValueArray, values: FloatArray) -> dict[str, ByMetric]:
    by_entry: dict[str, ByMetric] = {}
    for entry, own in zip(found.entries, values, strict=True):
        known = np.asarray(np.isfinite(own).any(axis=(1, 2, 3)))
        if known.any():
            nested = _nested(own)
            names = [(i, name) for i, name in enumerate(found.metrics) if known[i]]
            by_entry[entry] = {name: _named(found, nested[i]) for i, name in names}
    return by_entry


def _nested(values: FloatArray) -> list[Any]:
    """Return an array as nested lists with None for what is not known."""
    numbers = significant(values)
    plain = numbers.astype(object)
    plain[np.isnan(numbers)] = None
    return list(plain.tolist())


def _named(found: ValueArray, nested: list[list[list[float | None]]]) -> dict[str, dict[str, list[float | None]]]:
    return {
        task: dict(zip(found.languages, by_code, strict=True))
        for task, by_code in zip(found.tasks, nested, strict=True)
    }
