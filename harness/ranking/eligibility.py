"""Who takes part in a ranking, by what, and who does not and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.core.records import Direction
from harness.core.types import FloatArray, IntArray
from harness.ranking.flags import Flag, flags
from harness.ranking.gains import FEW_SHOT, LEVEL, baseline_of, baselines
from harness.ranking.results import BASELINE, ResultSet
from harness.ranking.stats.estimates import to_square
from harness.ranking.stats.multiplicity import of_pairs
from harness.ranking.stats.ranks import tiers
from harness.ranking.stats.variance import PairContrasts, Stratum, moments
from harness.ranking.values import MetricArray

SEEDS = 3
"""Generation seeds that a ranking needs."""

TRAININGS = 5
"""Classifier seeds that a ranking needs where training hangs on a seed."""

_SEEDED = "hf:"  # how classifiers are named whose training hangs on a seed


@dataclass(frozen=True)
class Eligibility:
    """What all rankings of a cellset share, whatever the metric, tasks and languages.

    ``zero_shot``, ``few_shot``: entry -> that row of its model, where it has no flag. ``relative``: gains
    over the own model's zero-shot are ranked, as there are several models.
    """

    cellset: ResultSet
    zero_shot: dict[str, str]
    few_shot: dict[str, str]
    flags: dict[str, list[Flag]]
    relative: bool

    @classmethod
    def of(cls, cellset: ResultSet) -> Eligibility:
        """Return the rules of a cellset."""
        models = [row.entry.model for row in cellset.entries.values() if row.entry.model]
        flagged = flags(cellset)

        def sound(method: str) -> dict[str, str]:
            return {name: base for name, base in baselines(cellset, method).items() if not flagged[base]}

        return cls(
            cellset=cellset,
            zero_shot=sound(BASELINE),
            few_shot=sound(FEW_SHOT),
            flags=flagged,
            relative=len({model.model_dump_json() for model in models}) > 1,
        )

    def eligible(self, evidence: MetricArray) -> list[str]:
        """Return the entries that take part."""
        return [name for name in evidence.entries if not self.exclusion_reason(evidence, name)]

    def exclusion_reason(self, evidence: MetricArray, name: str) -> str:
        """Return why an entry stands outside of the ranking; empty where it takes part."""
        row = self.cellset.entries[name]
        if row.entry.setting == "none":
            return "references are not ranked"
        if name not in evidence.complete:
            values = evidence.values[evidence.position[name]]
            return f"{int(np.isnan(values).sum())} of {values.size} values are missing"
        if self.flags[name]:
            return self.flags[name][0].words
        if self.relative and row.entry.method.name != BASELINE:
            base = self.zero_shot.get(name)
            if base is None and baseline_of(self.cellset, row, BASELINE):
                return "its model's zero-shot row is flagged"
            if base not in evidence.complete:
                return "its model has no complete zero-shot row"
        return ""

    def reason(self, evidence: MetricArray, field: list[str]) -> str:
        """Return why nothing here can be ranked; empty where something can."""
        seeds, trainings = len(evidence.seeds), evidence.trainings
        provider = evidence.metric.name.partition("/")[2]
        if evidence.metric.direction == "none":
            return f"{evidence.metric.title} has no better and no worse"
        if evidence.mixed:
            more = f" (and {len(evidence.mixed) - 1} more)" if len(evidence.mixed) > 1 else ""
            return f"scored in different ways, {evidence.mixed[0]}{more}; score the runs again"
        if seeds < SEEDS and not evidence.fixed:
            return f"{_count(seeds, 'generation seed')}, {SEEDS} are needed"
        if provider.startswith(_SEEDED) and trainings < TRAININGS:
            return f"{_count(trainings, 'classifier seed')}, {TRAININGS} are needed"
        return "" if field else "no entry is complete and without flags"

    def strata(self, evidence: MetricArray) -> list[Stratum]:
        """Return the numbers that entries are ranked by: their own, or gains where models differ."""
        return evidence.strata_of_gains(self.zero_shot) if self.relative else evidence.strata


@dataclass(frozen=True)
class TieredEntries:
    """A field: ``values`` (entry, stratum, seed) that rank it, ``tiers``, and adjusted ``p`` of all pairs."""

    values: FloatArray
    tiers: list[int]
    p: FloatArray

    @property
    def comparisons(self) -> int:
        """How many tests the tiers are corrected for: one for every pair."""
        return len(self.tiers) * (len(self.tiers) - 1) // 2


def ranked(layers: list[Stratum], examples: int | None, rows: IntArray, better: Direction) -> TieredEntries:
    """Return tiers of some entries (``rows``) by their mean over layers; ``examples``: see ``moments``."""
    values = np.stack([each.values[rows] for each in layers], axis=1)
    p = of_pairs(to_square(moments(layers, examples, PairContrasts(rows)).p, len(rows), 1.0))
    return TieredEntries(values, tiers(values.mean(axis=(1, 2)), p, LEVEL, better), p)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
