"""Means of metrics by entry, task and language, computed once for all pages of a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.ranking.tables import Cellset
from harness.scoring.metrics import Metric

Floats = NDArray[np.float64]
Stratum = tuple[str, str]


@dataclass(frozen=True)
class Matrix:
    """Metrics of all entries: ``values`` (metric, entry, stratum) over all seeds, NaN where a seed lacks one.

    ``human``: the same of human text beside, NaN where a cell has none. A stratum is a task and a language.
    """

    metrics: list[str]
    entries: list[str]
    strata: list[Stratum]
    values: Floats
    human: Floats
    _made: dict[tuple[bool, str | None, str | None], list[list[float | None]]] = field(default_factory=dict)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.entries)}

    @cached_property
    def _layers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.metrics)}

    def chosen(self, task: str | None, language: str | None) -> list[int]:
        """Return the positions of the strata of a task, a language, or both."""
        return [
            i
            for i, (own_task, own_language) in enumerate(self.strata)
            if task in (None, own_task) and language in (None, own_language)
        ]

    def level(
        self, metric: Metric, entry: str, task: str | None = None, language: str | None = None
    ) -> float | None:
        """Return an entry's mean over the strata, None where a cell of them lacks a value."""
        return self._mean(self.values, metric, entry, task, language)

    def beside(
        self, metric: Metric, entry: str, task: str | None = None, language: str | None = None
    ) -> float | None:
        """Return the mean of human text of the same cells, None where one lacks it."""
        return self._mean(self.human, metric, entry, task, language)

    def _mean(
        self, source: Floats, metric: Metric, entry: str, task: str | None, language: str | None
    ) -> float | None:
        layer = self._layers.get(metric.name)
        if layer is None:
            return None
        means = self._means(source is self.human, task, language)
        return means[layer][self._rows[entry]] if means else None

    def _means(self, human: bool, task: str | None, language: str | None) -> list[list[float | None]]:
        """Return the means over some strata by metric and entry, made once; empty where there are none."""
        place = (human, task, language)
        if place not in self._made:
            strata = self.chosen(task, language)
            source = self.human if human else self.values
            means = source[:, :, strata].mean(axis=2) if strata else np.empty((0, 0))
            self._made[place] = [[None if x != x else x for x in row] for row in means.tolist()]
        return self._made[place]


def matrix(cellset: Cellset) -> Matrix:
    """Return the means of all metrics of a cellset."""
    selection = cellset.manifest.selection
    strata = [(task, code) for task in selection.tasks for code in selection.languages]
    metrics = [metric.name for metric in cellset.metrics]
    entries = list(cellset.entries)
    shape = (len(metrics), len(entries), len(strata))
    axes: tuple[Sequence[object], ...] = (metrics, entries, strata)
    places = [{name: i for i, name in enumerate(axis)} for axis in axes]
    values, human = np.full(shape, np.nan), np.full(shape, np.nan)
    lines = cellset.scores
    lines = lines[lines["seed"].isin(selection.seeds)]
    groups = lines.groupby(["metric", "entry", "task", "language"], observed=True, sort=False)
    means = groups.agg(
        mean=("value", "mean"), n=("value", "count"), human=("human", "mean"), beside=("human", "count")
    )
    for line in means.reset_index().itertuples(index=False):
        stratum = places[2].get((line.task, line.language))
        if stratum is None or line.metric not in places[0] or line.entry not in places[1]:
            continue
        place = places[0][line.metric], places[1][line.entry], stratum
        if line.n == len(selection.seeds):
            values[place] = line.mean
        if line.beside == len(selection.seeds):
            human[place] = line.human
    return Matrix(metrics, entries, strata, values, human)
