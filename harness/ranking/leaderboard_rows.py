"""Entries in order: tiers, gains with intervals, and in words why something has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.threads import limit_blas_threads
from harness.ranking.eligibility import Eligibility, ranked
from harness.ranking.flags import Flag, is_floor
from harness.ranking.gains import (
    Correlation,
    LanguageGain,
    correlation,
    entry_means,
    gains,
    gains_by_language,
    mean_gains,
)
from harness.ranking.results import BASELINE, EntryRow, ResultSet
from harness.ranking.stats import ranks
from harness.ranking.stats.estimates import Estimate, gaps_closed
from harness.ranking.stats.sharing import BASE_BY_SEED, BY_SEED, noted
from harness.ranking.values import MetricArray, collect_metric, coverage
from harness.scoring.metrics import Metric

CEILING = "human"


@dataclass(frozen=True)
class RankedEntry:
    """One entry. ``tier`` is None for the ``reason`` given; other numbers are None where unknown.

    ``present`` of ``expected`` cells have a value; ``coverage`` says why not the others.
    ``over_zero_shot``, ``over_few_shot``: paired differences to the rows of the same model.
    ``gap_closed``: percent of the way from zero-shot to human text. ``win_share``: share of the cases
    (task and language) in which the entry beats zero-shot. ``borda``, ``mean_rank``: over those in tiers.
    ``languages``: gain over zero-shot per language, where it is known. ``note``: what limits the numbers of
    this entry, in words, such as why its intervals are by seed (``sharing``); else empty.
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
    note: str = ""

    @property
    def reference(self) -> bool:
        """Whether no model wrote the texts: shown for comparison, never ranked."""
        return self.row.entry.setting == "none"

    @property
    def flagged(self) -> bool:
        """Whether flags say anything of the entry: the floor repeats one text on purpose."""
        return bool(self.flags) and not is_floor(self.row.entry.method.name, self.row.entry.setting)


@dataclass(frozen=True)
class Ranking:
    """All entries by one metric, the best first. ``reason``: why nobody is ranked; empty where some are.

    ``relative``: tiers are of gains over the own model's zero-shot, as there are several models.
    ``notes``: what limits the numbers, in words. ``correlations``: of diversity with the gain.
    """

    metric: Metric
    tasks: list[str]
    languages: list[str]
    rows: list[RankedEntry]
    reason: str
    relative: bool
    notes: list[str]
    correlations: list[Correlation]

    @property
    def discoveries(self) -> list[tuple[str, str, float]]:
        """Entry id, language and mean gain of all gains that are discoveries, in the order of the rows."""
        return [
            (standing.row.id, code, cell.gain.mean)
            for standing in self.rows
            for code, cell in standing.languages.items()
            if cell.found
        ]


def rank_entries(
    cellset: ResultSet,
    metric: Metric,
    tasks: Sequence[str] | None = None,
    evidence: MetricArray | None = None,
    rules: Eligibility | None = None,
) -> Ranking:
    """Return all entries of a cellset by a metric, over all tasks or some.

    Tiers are given where there are at least ``SEEDS`` generation seeds and, for a classifier whose training
    hangs on a seed, ``TRAININGS`` of those. References, flagged and incomplete entries get none.
    ``evidence``: what ``collect_metric`` found of the metric, in these tasks or more; else it is gathered.
    ``rules``: those of the cellset, if they are made.
    """
    chosen = list(tasks or cellset.manifest.selection.tasks)
    known = collect_metric(cellset, metric, chosen) if evidence is None else evidence.select(tasks=chosen)
    with limit_blas_threads():
        ranking = _Ranker(cellset, known, rules or Eligibility.of(cellset))
        rows = ranking.rows()
    return Ranking(
        metric=metric,
        tasks=chosen,
        languages=list(cellset.manifest.selection.languages),
        rows=sorted(rows, key=ranking.order),
        reason=ranking.reason,
        relative=ranking.rules.relative,
        notes=[*([known.note] if known.note else []), *noted(ranking.by_seed())],
        correlations=ranking.correlations(),
    )


class _Ranker:
    """What the rows of one table share."""

    def __init__(self, cellset: ResultSet, evidence: MetricArray, rules: Eligibility) -> None:
        self.cellset = cellset
        self.evidence = evidence
        self.rules = rules
        self.field = self.rules.eligible(evidence)
        self.reason = self.rules.reason(evidence, self.field)
        self.zero_shot = self.rules.zero_shot
        self.means = entry_means(evidence)
        self.over_zero_shot = gains(evidence, self.zero_shot)
        self.over_few_shot = gains(evidence, self.rules.few_shot)
        self.gaps = self.gaps_closed()

    def rows(self) -> list[RankedEntry]:
        """Return the standings of all entries, in no order."""
        languages = gains_by_language(self.evidence, self.zero_shot, self.field)
        places = {} if self.reason else self.places()
        return [self.row(name, languages[name], *places.get(name, ())) for name in self.evidence.entries]

    def row(
        self,
        name: str,
        languages: dict[str, LanguageGain],
        tier: int | None = None,
        borda: float | None = None,
        mean_rank: float | None = None,
    ) -> RankedEntry:
        """Return one entry's numbers."""
        lacks = coverage(self.cellset, self.evidence, name)
        return RankedEntry(
            row=self.cellset.entries[name],
            present=lacks.n,
            expected=lacks.expected,
            lacking=lacks.reasons,
            flags=self.rules.flags[name],
            mean=self.means.get(name),
            over_zero_shot=self.over_zero_shot.get(name),
            over_few_shot=self.over_few_shot.get(name),
            gap_closed=self.gaps.get(name),
            win_share=self.win_share(name),
            languages=languages,
            reason="" if tier else (self.rules.exclusion_reason(self.evidence, name) or self.reason),
            tier=tier,
            borda=borda,
            mean_rank=mean_rank,
            note=self.note(name),
        )

    def note(self, name: str) -> str:
        """Return in words what limits an entry's numbers: that its intervals are by seed; else nothing."""
        shared = self.evidence.by_seed
        return BY_SEED if name in shared else BASE_BY_SEED if self.zero_shot.get(name) in shared else ""

    def by_seed(self) -> list[str]:
        """Return the titles of the entries whose strata are not independent."""
        return [self.cellset.entries[name].name for name in sorted(self.evidence.by_seed)]

    def places(self) -> dict[str, tuple[int, float, float]]:
        """Return tier, Borda count and mean rank of the entries that take part."""
        evidence, better = self.evidence, self.evidence.metric.direction
        rows = np.array([evidence.position[name] for name in self.field], dtype=np.int64)
        found = ranked(self.rules.strata(evidence), evidence.examples, rows, better)
        by_case = found.values.mean(axis=2)
        numbers = (
            found.tiers,
            ranks.borda(by_case, better).tolist(),
            ranks.mean_rank(by_case, better).tolist(),
        )
        return dict(zip(self.field, zip(*numbers, strict=True), strict=True))

    def gaps_closed(self) -> dict[str, Estimate | None]:
        """Return how far entries come from their zero-shot to human text, in percent, where that is known."""
        evidence, ceiling = self.evidence, self.only(CEILING)
        found = [
            (name, self.zero_shot[name], ceiling)
            for name in evidence.entries
            if name in self.zero_shot and evidence.complete.issuperset({name, self.zero_shot[name], ceiling})
        ]
        three = [place for place in found if len(set(place)) == 3]
        places = [(evidence.position[a], evidence.position[b], evidence.position[c]) for a, b, c in three]
        better = evidence.metric.direction
        closed = gaps_closed(evidence.strata, evidence.examples, places, better)
        return dict(zip([name for name, _, _ in three], closed, strict=True))

    def only(self, method: str) -> str:
        """Return the only reference of a name; empty where none or several are there."""
        entries = self.cellset.entries.values()
        found = [row.id for row in entries if row.entry.setting == "none" and row.entry.method.name == method]
        return found[0] if len(found) == 1 else ""

    def win_share(self, name: str) -> float | None:
        """Return the share of cases that the entry improves over zero-shot; None for a flagged one."""
        base, better = self.zero_shot.get(name, name), self.evidence.metric.direction
        if (
            self.rules.flags[name]
            or base == name
            or better == "none"
            or not self.evidence.complete.issuperset({name, base})
        ):
            return None
        cases = mean_gains(self.evidence, [name], self.zero_shot)[0].mean(axis=1)
        return ranks.win_rate(cases, better)

    def correlations(self) -> list[Correlation]:
        """Return how each primary metric of diversity goes with this one, where enough is known."""
        others = [m for m in self.cellset.metrics if m.group == "diversity" and m.primary]
        tasks = list(dict.fromkeys(task for task, _ in self.evidence.task_languages))
        found = [
            correlation(collect_metric(self.cellset, other, tasks), self.evidence, self.zero_shot, self.field)
            for other in others
            if other != self.evidence.metric
        ]
        return [item for item in found if item is not None]

    def order(self, standing: RankedEntry) -> tuple[object, ...]:
        """Return the key that sorts rows: by what is ranked, the best first, the incomplete last."""
        sign = 1.0 if self.evidence.metric.direction == "down" else -1.0
        mean = standing.mean.mean if standing.mean else None
        value = self.ranked_by(standing) if self.rules.relative else mean
        shown = next((known for known in (value, mean) if known is not None), 0.0)
        return (value is None, mean is None, sign * shown, standing.row.name, standing.row.id)

    def ranked_by(self, standing: RankedEntry) -> float | None:
        """Return the gain of a row where models differ: 0 for a baseline."""
        if standing.over_zero_shot:
            return standing.over_zero_shot.mean
        return 0.0 if standing.mean and standing.row.entry.method.name == BASELINE else None
