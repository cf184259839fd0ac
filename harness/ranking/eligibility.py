"""Which entries take part in a ranking and why others do not, and the tiers of those that do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.core.types import FloatArray
from harness.ranking.flags import flags
from harness.ranking.gains import FEW_SHOT, LEVEL, baselines
from harness.ranking.results import BASELINE, ResultSet
from harness.ranking.stats.estimates import to_square
from harness.ranking.stats.multiplicity import of_pairs
from harness.ranking.stats.ranks import tiers
from harness.ranking.stats.variance import Contrasts, Stratum, moments
from harness.ranking.values import MetricArray

SEEDS = 3
"""Generation seeds that a ranking needs."""

TRAININGS = 5
"""Classifier seeds that a ranking needs where training depends on a seed."""

_SEEDED = "hf:"  # prefix of the classifiers whose training depends on a seed


@dataclass(frozen=True)
class TieredEntries:
    """The entries that take part, with their tiers; no tiers for the ``reason`` given.

    ``values`` (entries, strata, seeds) rank them; ``p``: adjusted, of all pairs.
    """

    entries: list[str]
    reason: str
    tiers: list[int]
    values: FloatArray
    p: FloatArray

    @property
    def comparisons(self) -> int:
        """The number of tests that the tiers are corrected for: one for every pair."""
        return len(self.tiers) * (len(self.tiers) - 1) // 2


class Eligibility:
    """What all rankings of a result set share, whatever the metric, tasks and languages.

    ``zero_shot``, ``few_shot``: entry -> that row of its model, where it has no flag. ``relative``: gains over
    the own model's zero-shot are ranked, as there are several models.
    """

    def __init__(self, results: ResultSet) -> None:
        self.results, self.flags = results, flags(results)
        every = {method: baselines(results, method) for method in (BASELINE, FEW_SHOT)}
        self.zero_shot, self.few_shot = (
            {name: base for name, base in found.items() if not self.flags[base]} for found in every.values()
        )
        self._flagged_baseline = every[BASELINE].keys() - self.zero_shot.keys()
        models = [row.entry.model.model_dump_json() for row in results.entries.values() if row.entry.model]
        self.relative = len(set(models)) > 1

    def eligible(self, array: MetricArray) -> list[str]:
        """Return the entries that take part."""
        return [name for name in array.entries if not self.exclusion_reason(array, name)]

    def exclusion_reason(self, array: MetricArray, name: str) -> str:
        """Return why an entry is not ranked; empty where it takes part."""
        row = self.results.entries[name]
        if row.entry.setting == "none":
            return "references are not ranked"
        if name not in array.complete:
            values = array.values[array.position[name]]
            return f"{int(np.isnan(values).sum())} of {values.size} values are missing"
        if self.flags[name]:
            return self.flags[name][0].words
        if self.relative and row.entry.method.name != BASELINE:
            if name in self._flagged_baseline:
                return "its model's zero-shot row is flagged"
            if self.zero_shot.get(name) not in array.complete:
                return "its model has no complete zero-shot row"
        return ""

    def reason(self, array: MetricArray, eligible: list[str]) -> str:
        """Return why nothing can be ranked; empty where something can."""
        seeds, provider = len(array.seeds), array.metric.name.partition("/")[2]
        if array.metric.direction == "none":
            return f"{array.metric.title} has no better and no worse"
        if array.mixed:
            more = f" (and {len(array.mixed) - 1} more)" if len(array.mixed) > 1 else ""
            return f"scored in different ways, {array.mixed[0]}{more}; score the runs again"
        if seeds < SEEDS and not array.fixed:
            return f"{_count(seeds, 'generation seed')}, {SEEDS} are needed"
        if provider.startswith(_SEEDED) and array.trainings < TRAININGS:
            return f"{_count(array.trainings, 'classifier seed')}, {TRAININGS} are needed"
        return "" if eligible else "no entry is complete and without flags"

    def strata(self, array: MetricArray) -> list[Stratum]:
        """Return the numbers that entries are ranked by: their own, or gains where models differ."""
        return array.strata_of_gains(self.zero_shot if self.relative else {})

    def rank(self, array: MetricArray) -> TieredEntries:
        """Return the eligible entries with their tiers by the mean over strata."""
        names = self.eligible(array)
        if reason := self.reason(array, names):
            return TieredEntries(names, reason, [], np.empty((0, 0, 0)), np.empty((0, 0)))
        rows, strata = array.rows(names), self.strata(array)
        values = np.stack([each.values[rows] for each in strata], axis=1)
        p = of_pairs(to_square(moments(strata, array.examples, Contrasts.pairs(rows)).p, len(rows), 1.0))
        found = tiers(values.mean(axis=(1, 2)), p, LEVEL, array.metric.direction)
        return TieredEntries(names, "", found, values, p)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
