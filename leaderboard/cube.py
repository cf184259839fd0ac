"""All values of a board as one array: pages and downloads are made from it, not from a million look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.ranking.results import ResultSet


@dataclass(frozen=True)
class ValueArray:
    """Values and human values (entry, metric, task, language, seed), NaN where unknown or not finite.

    ``places``: the tasks and languages that there is data of.
    """

    entries: list[str]
    metrics: list[str]
    tasks: list[str]
    languages: list[str]
    seeds: list[int]
    values: FloatArray
    human: FloatArray
    places: list[tuple[str, str]]


def value_array(cellset: ResultSet, entries: Sequence[str]) -> ValueArray:
    """Return all values of the entries named, in their order; nothing outside of the selection."""
    chosen = cellset.manifest.selection
    axes: dict[str, list[Any]] = {
        "entry": list(entries),
        "metric": [metric.name for metric in cellset.metrics],
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
    return ValueArray(
        entries=axes["entry"],
        metrics=axes["metric"],
        tasks=axes["task"],
        languages=axes["language"],
        seeds=axes["seed"],
        values=arrays[0],
        human=arrays[1],
        places=chosen.places(),
    )


def places_on(column: Any, axis: Sequence[Any]) -> NDArray[np.int64]:
    """Return the place on an axis of every value of a column; -1 for those that are not on it."""
    numbers, different = pd.factorize(column)  # of a million lines a few hundred differ
    known = pd.Index(list(axis), dtype=object).get_indexer(pd.Index(different).astype(object))
    return np.asarray(np.append(known, -1)[numbers], dtype=np.int64)


def finite(column: Any) -> FloatArray:
    """Return a column of numbers with NaN for what is None or not finite."""
    found = np.array(pd.to_numeric(column), dtype=np.float64)  # a copy: it is written to
    found[~np.isfinite(found)] = np.nan
    return found
