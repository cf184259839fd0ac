"""Entries in order: tiers, gains with intervals, and in words why something has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.ranking import ranks
from harness.ranking.evidence import Evidence, gather, lacking
from harness.ranking.flags import Flag, flags
from harness.ranking.gains import (
    FEW_SHOT,
    LEVEL,
    Correlation,
    LanguageGain,
    combined,
    correlation,
    gain,
    gains_panel,
    grid,
    peers,
)
from harness.ranking.multiplicity import holm_pairs
from harness.ranking.stats import Estimate, Panel, differences, gap_closed
from harness.ranking.tables import BASELINE, Cellset, EntryRow
from harness.scoring.metrics import Metric

SEEDS = 3
"""Generation seeds that a ranking needs."""

TRAININGS = 5
"""Classifier seeds that a ranking needs where training hangs on a seed."""

CEILING = "human"
_SEEDED = "hf:"  # how classifiers are named whose training hangs on a seed


@dataclass(frozen=True)
class Standing:
    """One entry. ``tier`` is None for the ``reason`` given; other numbers are None where unknown.

    ``present`` of ``expected`` cells have a value; ``lacking`` says why not the others.
    ``over_zero_shot``, ``over_few_shot``: paired differences to the rows of the same model.
    ``gap_closed``: percent of the way from zero-shot to human text. ``win_share``: share of the cases
    (task and language) in which the entry beats zero-shot. ``borda``, ``mean_rank``: over those in tiers.
    ``languages``: gain over zero-shot per language, where it is known.
    """

    row: EntryRow
    present: int
    expected: int
    lacking: list[str]
    flags: list[Flag]
    mean: Estimate | None
    over_zero_shot: Estimate | None
    over_few_shot: Estimate | None
    gap_closed: Estimate | None
    win_share: float | None
    languages: dict[str, LanguageGain]
    reason: str = ""
    tier: int | None = None
    borda: float | None = None
    mean_rank: float | None = None

    @property
    def reference(self) -> bool:
        """Whether no model wrote the texts: shown for comparison, never ranked."""
        return self.row.entry.setting == "none"


@dataclass(frozen=True)
class Standings:
    """All entries by one metric, the best first. ``reason``: why nobody is ranked; empty where some are.

    ``relative``: tiers are of gains over the own model's zero-shot, as there are several models.
    ``notes``: what limits the numbers, in words. ``correlations``: of diversity with the gain.
    """

    metric: Metric
    tasks: list[str]
    languages: list[str]
    rows: list[Standing]
    reason: str
    relative: bool
    notes: list[str]
    correlations: list[Correlation]

    def gains_of(self, entry: str) -> dict[str, LanguageGain]:
        """Return language -> gain over zero-shot of one entry; empty for an entry that is not there."""
        return next((row.languages for row in self.rows if row.row.id == entry), {})

    @property
    def discoveries(self) -> list[tuple[str, str, float]]:
        """Entry id, language and mean gain of all gains that are discoveries, in the order of the rows."""
        return [
            (standing.row.id, code, cell.gain.mean)
            for standing in self.rows
            for code, cell in standing.languages.items()
            if cell.found
        ]


def standings(cellset: Cellset, metric: Metric, tasks: Sequence[str] | None = None) -> Standings:
    """Return all entries of a cellset by a metric, over all tasks or some.

    Tiers are given where there are at least ``SEEDS`` generation seeds and, for a classifier whose training
    hangs on a seed, ``TRAININGS`` of those. References, flagged and incomplete entries get none.
    """
    chosen = list(tasks or cellset.manifest.selection.tasks)
    evidence = gather(cellset, metric, chosen)
    ranking = _Ranking(cellset, evidence)
    rows = ranking.rows()
    return Standings(
        metric=metric,
        tasks=chosen,
        languages=list(cellset.manifest.selection.languages),
        rows=sorted(rows, key=ranking.order),
        reason=ranking.reason,
        relative=ranking.relative,
        notes=[evidence.note] if evidence.note else [],
        correlations=ranking.correlations(),
    )


class _Ranking:
    """What the rows of one table share."""

    def __init__(self, cellset: Cellset, evidence: Evidence) -> None:
        self.cellset = cellset
        self.evidence = evidence
        self.zero_shot = peers(cellset, BASELINE)
        self.few_shot = peers(cellset, FEW_SHOT)
        self.flags = flags(cellset)
        models = [row.entry.model for row in cellset.entries.values() if row.entry.model]
        self.relative = len({model.model_dump_json() for model in models}) > 1
        self.field = [name for name in evidence.entries if not self.excluded(name)]
        self.reason = self.rule()

    def rule(self) -> str:
        """Return why nothing here can be ranked; empty where something can."""
        evidence = self.evidence
        seeds, trainings = len(evidence.seeds), evidence.trainings
        provider = evidence.metric.name.partition("/")[2]
        if evidence.metric.direction == "none":
            return f"{evidence.metric.title} has no better and no worse"
        if evidence.mixed:
            more = f" (and {len(evidence.mixed) - 1} more)" if len(evidence.mixed) > 1 else ""
            return f"scored in different ways, {evidence.mixed[0]}{more}; score the runs again"
        if seeds < SEEDS:
            return f"{_count(seeds, 'generation seed')}, {SEEDS} are needed"
        if provider.startswith(_SEEDED) and trainings < TRAININGS:
            return f"{_count(trainings, 'classifier seed')}, {TRAININGS} are needed"
        return "" if self.field else "no entry is complete and without flags"

    def excluded(self, name: str) -> str:
        """Return why an entry stands outside of the ranking; empty where it takes part."""
        row = self.cellset.entries[name]
        if row.entry.setting == "none":
            return "a reference"
        if name not in self.evidence.complete:
            values = self.evidence.values[self.evidence.position[name]]
            return f"{int(np.isnan(values).sum())} of {values.size} values are missing"
        if self.flags[name]:
            return self.flags[name][0].words
        if self.relative and row.entry.method.name != BASELINE:
            base = self.zero_shot.get(name)
            if base not in self.evidence.complete:
                return "its model has no complete zero-shot row"
        return ""

    def rows(self) -> list[Standing]:
        """Return the standings of all entries, in no order."""
        languages = grid(self.evidence, self.zero_shot, self.field)
        places = {} if self.reason else self.places()
        return [self.row(name, languages[name], *places.get(name, ())) for name in self.evidence.entries]

    def row(
        self,
        name: str,
        languages: dict[str, LanguageGain],
        tier: int | None = None,
        borda: float | None = None,
        mean_rank: float | None = None,
    ) -> Standing:
        """Return one entry's numbers."""
        evidence = self.evidence
        lacks = lacking(self.cellset, evidence, name)
        return Standing(
            row=self.cellset.entries[name],
            present=lacks.n,
            expected=lacks.expected,
            lacking=lacks.reasons,
            flags=self.flags[name],
            mean=combined(evidence, {name: 1.0}),
            over_zero_shot=gain(evidence, name, self.zero_shot.get(name)),
            over_few_shot=gain(evidence, name, self.few_shot.get(name)),
            gap_closed=self.gap_closed(name),
            win_share=self.win_share(name),
            languages=languages,
            reason="" if tier else (self.excluded(name) or self.reason),
            tier=tier,
            borda=borda,
            mean_rank=mean_rank,
        )

    def places(self) -> dict[str, tuple[int, float, float]]:
        """Return tier, Borda count and mean rank of the entries that take part."""
        panel, better = self.panel(), self.evidence.metric.direction
        p = holm_pairs(differences(panel).p)
        by_case = panel.values.mean(axis=2)
        found = (
            ranks.tiers(panel.values.mean(axis=(1, 2)), p, LEVEL, better),
            ranks.borda(by_case, better).tolist(),
            ranks.mean_rank(by_case, better).tolist(),
        )
        return dict(zip(self.field, zip(*found, strict=True), strict=True))

    def panel(self) -> Panel:
        """Return the numbers that entries are ranked by: their own, or gains where models differ."""
        if not self.relative:
            return self.evidence.panel(self.field)
        return gains_panel(self.evidence, self.field, self.zero_shot)

    def gap_closed(self, name: str) -> Estimate | None:
        """Return how far an entry comes from its zero-shot to human text, in percent."""
        three = [name, self.zero_shot.get(name, ""), self.only(CEILING)]
        names = [entry for entry in three if entry in self.evidence.complete]
        if len(set(names)) < 3:
            return None
        return gap_closed(self.evidence.panel(names), 0, 1, 2, self.evidence.metric.direction)

    def only(self, method: str) -> str:
        """Return the only reference of a name; empty where none or several are there."""
        entries = self.cellset.entries.values()
        found = [row.id for row in entries if row.entry.setting == "none" and row.entry.method.name == method]
        return found[0] if len(found) == 1 else ""

    def win_share(self, name: str) -> float | None:
        """Return the share of cases that the entry improves over zero-shot."""
        base, better = self.zero_shot.get(name, name), self.evidence.metric.direction
        if base == name or better == "none" or not self.evidence.complete.issuperset({name, base}):
            return None
        cases = gains_panel(self.evidence, [name], self.zero_shot).values[0].mean(axis=1)
        return ranks.win_share(cases, better)

    def correlations(self) -> list[Correlation]:
        """Return how each primary metric of diversity goes with this one, where enough is known."""
        others = [m for m in self.cellset.metrics if m.group == "diversity" and m.primary]
        tasks = list(dict.fromkeys(task for task, _ in self.evidence.strata))
        found = [
            correlation(gather(self.cellset, other, tasks), self.evidence, self.zero_shot, self.field)
            for other in others
            if other != self.evidence.metric
        ]
        return [item for item in found if item is not None]

    def order(self, standing: Standing) -> tuple[object, ...]:
        """Return the key that sorts rows: by what is ranked, the best first, the incomplete last."""
        sign = 1.0 if self.evidence.metric.direction == "down" else -1.0
        mean = standing.mean.mean if standing.mean else None
        ranked = self.ranked_by(standing) if self.relative else mean
        value = next((known for known in (ranked, mean) if known is not None), 0.0)
        return (ranked is None, mean is None, sign * value, standing.row.name, standing.row.id)

    def ranked_by(self, standing: Standing) -> float | None:
        """Return the gain of a row where models differ: 0 for a baseline."""
        if standing.over_zero_shot:
            return standing.over_zero_shot.mean
        return 0.0 if standing.mean and standing.row.entry.method.name == BASELINE else None


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
