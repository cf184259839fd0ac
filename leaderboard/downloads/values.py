"""All values of a board as one array, and as the compact nested lists of the result file.

A board of 200 entries holds a million values: they are pivoted at once, not looked up one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.ranking.tables import Cellset
from harness.scoring.metrics import Metric, metric, order
from leaderboard.downloads.records import ByMetric

Floats = NDArray[np.float64]

_DIGITS = 6
_EXACT = 22  # powers of ten up to this one are exact in double precision


@dataclass(frozen=True)
class Cube:
    """Values and human values (entry, metric, task, language, seed), NaN where unknown or not finite."""

    entries: list[str]
    metrics: list[str]
    tasks: list[str]
    languages: list[str]
    seeds: list[int]
    values: Floats
    human: Floats


def cube(cellset: Cellset, entries: Sequence[str]) -> Cube:
    """Return all values of the entries named, in their order; nothing outside of the selection."""
    chosen = cellset.manifest.selection
    axes: dict[str, list[Any]] = {
        "entry": list(entries),
        "metric": [metric.name for metric in metrics_of(cellset)],
        "task": list(chosen.tasks),
        "language": list(chosen.languages),
        "seed": list(chosen.seeds),
    }
    places = [places_on(cellset.scores[name], axis) for name, axis in axes.items()]
    inside = np.logical_and.reduce([place >= 0 for place in places])
    where = tuple(place[inside] for place in places)
    shape = [len(axis) for axis in axes.values()]
    arrays = []
    for column in ("value", "human"):
        array = np.full(shape, np.nan)
        found = finite(cellset.scores[column])
        array[where] = found[inside]
        arrays.append(array)
    return Cube(
        entries=axes["entry"],
        metrics=axes["metric"],
        tasks=axes["task"],
        languages=axes["language"],
        seeds=axes["seed"],
        values=arrays[0],
        human=arrays[1],
    )


def metrics_of(cellset: Cellset) -> list[Metric]:
    """Return the metrics that were measured, in the order of the board; quickly, of a million lines."""
    return [metric(name) for name in sorted(cellset.scores["metric"].unique().tolist(), key=order)]


def places_on(column: Any, axis: Sequence[Any]) -> NDArray[np.int64]:
    """Return the place on an axis of every value of a column; -1 for those that are not on it."""
    numbers, different = pd.factorize(column)  # of a million lines a few hundred differ
    known = pd.Index(list(axis), dtype=object).get_indexer(pd.Index(different).astype(object))
    return np.asarray(np.append(known, -1)[numbers], dtype=np.int64)


def finite(column: Any) -> Floats:
    """Return a column of numbers with NaN for what is None or not finite."""
    found = np.array(pd.to_numeric(column), dtype=np.float64)  # a copy: it is written to
    found[~np.isfinite(found)] = np.nan
    return found


def significant(values: Floats) -> Floats:
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


def values_by_entry(found: Cube) -> dict[str, ByMetric]:
    """Return entry -> metric -> task -> language -> value per seed, without metrics that have no value."""
    return _by_entry(found, found.values)


def human_by_metric(found: Cube) -> tuple[ByMetric, dict[str, ByMetric]]:
    """Return the human values that all entries share, and by entry those places where they differ."""
    known = np.isfinite(found.human)
    low = np.where(known, found.human, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, found.human, -np.inf).max(axis=0, initial=-np.inf)
    shared = np.where(low == high, low, np.nan)
    differing = np.where(low < high, found.human, np.nan)
    nested = _nested(shared)
    common = {
        metric: _named(found, nested[i])
        for i, metric in enumerate(found.metrics)
        if np.isfinite(shared[i]).any()
    }
    return common, _by_entry(found, differing)


def _by_entry(found: Cube, values: Floats) -> dict[str, ByMetric]:
    by_entry: dict[str, ByMetric] = {}
    for entry, own in zip(found.entries, values, strict=True):
        known = np.asarray(np.isfinite(own).any(axis=(1, 2, 3)))
        if known.any():
            nested = _nested(own)
            names = [(i, name) for i, name in enumerate(found.metrics) if known[i]]
            by_entry[entry] = {name: _named(found, nested[i]) for i, name in names}
    return by_entry


def _nested(values: Floats) -> list[Any]:
    """Return an array as nested lists with None for what is not known."""
    numbers = significant(values)
    plain = numbers.astype(object)
    plain[np.isnan(numbers)] = None
    return list(plain.tolist())


def _named(found: Cube, nested: list[list[list[float | None]]]) -> dict[str, dict[str, list[float | None]]]:
    return {
        task: dict(zip(found.languages, by_code, strict=True))
        for task, by_code in zip(found.tasks, nested, strict=True)
    }
