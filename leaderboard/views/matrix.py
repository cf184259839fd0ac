"""Means of metrics by entry, task and language, computed once for all pages of a board."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from harness.core.types import FloatArray
from harness.scoring.metrics import Metric
from leaderboard.cube import ValueArray

Stratum = tuple[str, str]


@dataclass(frozen=True)
class Matrix:
    """Metrics of all entries: ``values`` (metric, entry, stratum) over all seeds, NaN where a seed lacks one.

    ``human``: the same of human text beside, NaN where a cell has none. A stratum is a task and a language.
    """

    metrics: list[str]
    entries: list[str]
    strata: list[Stratum]
    values: FloatArray
    human: FloatArray
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

    def level(self, metric: Metric, entry: str, task: str | None = None, language: str | None = None) -> float | None:
        """Return an entry's mean over the strata, None where a cell of them lacks a value."""
        return self._mean(self.values, metric, entry, task, language)

    def beside(self, metric: Metric, entry: str, task: str | None = None, language: str | None = None) -> float | None:
        """Return the mean of human text of the same cells, None where one lacks it."""
        return self._mean(self.human, metric, entry, task, language)

    def _mean(
        self, source: FloatArray, metric: Metric, entry: str, task: str | None, language: str | None
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


def matrix(found: ValueArray) -> Matrix:
    """Return the means over the seeds; NaN where one has no value."""
    values, human = (
        side.mean(axis=-1).swapaxes(0, 1).reshape(len(found.metrics), len(found.entries), -1)
        for side in (found.values, found.human)
    )
    strata = [(task, code) for task in found.tasks for code in found.languages]
    if len(found.places) < len(strata):  # of the others there is no data
        there = [i for i, place in enumerate(strata) if place in set(found.places)]
        strata, values, human = [strata[i] for i in there], values[:, :, there], human[:, :, there]
    return Matrix(found.metrics, found.entries, strata, values, human)
