"""Gains: every entry against another row of its own model, paired by task, language and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.types import FloatArray
from harness.ranking.results import EntryRow, ResultSet
from harness.ranking.stats import ranks
from harness.ranking.stats.estimates import Estimate, difference_contrasts, estimates
from harness.ranking.stats.multiplicity import benjamini_hochberg
from harness.ranking.stats.variance import LinearContrasts, moments
from harness.ranking.values import MetricArray
from harness.scoring.metrics import Metric

FEW_SHOT = "few-shot"
"""The other unsteered method."""

LEVEL = 0.05
"""Of every test: chance of any false difference of tiers, share of false discoveries of the grid."""


@dataclass(frozen=True)
class LanguageGain:
    """The gain over zero-shot in one language.

    ``p``: adjusted over the whole grid of entries and languages; None for rows outside of it.
    """

    gain: Estimate
    p: float | None = None

    @property
    def found(self) -> bool:
        """Whether the gain, up or down, is a discovery at the rate ``LEVEL``."""
        return self.p is not None and self.p <= LEVEL


@dataclass(frozen=True)
class Correlation:
    """Rank correlation over entries: gain in diversity (positive is more diverse) and gain in the metric."""

    diversity: Metric
    found: ranks.RankCorrelation


def baseline_of(cellset: ResultSet, row: EntryRow, method: str) -> str | None:
    """Return the entry of a method without options, such as ``zero-shot``, on the row's own model.

    Rows without a model take that of the only model. None for the row itself, and where none or several fit.
    """
    return _peer([other for other in cellset.entries.values() if other.entry.method.name == method], row)


def _peer(named: Sequence[EntryRow], row: EntryRow) -> str | None:
    model = row.entry.model
    found = [other.id for other in named if model is None or other.entry.model == model]
    return found[0] if len(found) == 1 and found[0] != row.id else None


def baselines(cellset: ResultSet, method: str) -> dict[str, str]:
    """Return entry -> its peer (see ``baseline_of``), for those that have one."""
    named = [row for row in cellset.entries.values() if row.entry.method.name == method]
    found = {row.id: _peer(named, row) for row in cellset.entries.values()}
    return {name: other for name, other in found.items() if other is not None}


def entry_means(evidence: MetricArray) -> dict[str, Estimate]:
    """Return the mean of every complete entry."""
    rows = np.arange(len(evidence.entries))
    found = moments(evidence.strata, evidence.examples, LinearContrasts([(rows, np.ones(len(rows)))]))
    known = zip(evidence.entries, estimates(found), strict=True)
    return {name: estimate for name, estimate in known if name in evidence.complete}


def gains(evidence: MetricArray, bases: Mapping[str, str]) -> dict[str, Estimate]:
    """Return entry -> its gain over its base, where both lack nothing."""
    names = [name for name in evidence.entries if evidence.complete.issuperset({name, bases.get(name, "")})]
    if not names:  # such as in a language of which nothing is there yet
        return {}
    rows, others = (
        np.array([evidence.position[name] for name in side], dtype=np.int64)
        for side in (names, [bases[name] for name in names])
    )
    found = estimates(moments(evidence.strata, evidence.examples, difference_contrasts(rows, others)))
    return dict(zip(names, found, strict=True))


def mean_gains(evidence: MetricArray, names: Sequence[str], bases: Mapping[str, str]) -> FloatArray:
    """Return the mean gains of entries over their bases by stratum and seed: (entries, strata, seeds)."""
    rows = [evidence.position[name] for name in names]
    others = [evidence.position[bases.get(name, name)] for name in names]
    return evidence.values[rows] - evidence.values[others]


def gains_by_language(
    evidence: MetricArray, bases: Mapping[str, str], family: Sequence[str]
) -> dict[str, dict[str, LanguageGain]]:
    """Return entry -> language -> gain, for entries with a base and where all values are there.

    ``family``: the entries over whose gains Benjamini and Hochberg adjust, all languages together.
    """
    cells: dict[tuple[str, str], Estimate] = {}
    for code in dict.fromkeys(code for _, code in evidence.task_languages):
        own = gains(evidence.select(languages=[code]), bases)
        cells |= {(name, code): found for name, found in own.items()}
    members = set(family)
    tested = [place for place in cells if place[0] in members and cells[place].p is not None]
    adjusted = benjamini_hochberg(np.array([cells[place].p for place in tested], dtype=np.float64))
    p = {place: float(value) for place, value in zip(tested, adjusted, strict=True)}
    table: dict[str, dict[str, LanguageGain]] = {name: {} for name in evidence.entries}
    for (name, code), estimated in cells.items():
        table[name][code] = LanguageGain(estimated, p.get((name, code)))
    return table


def correlation(
    diversity: MetricArray, downstream: MetricArray, bases: Mapping[str, str], names: Sequence[str]
) -> Correlation | None:
    """Return how the gains of entries in diversity and downstream go together.

    None where fewer than four of them have both, or where one side is all the same.
    """
    whole = diversity.complete & downstream.complete
    chosen = [name for name in names if name in bases and {name, bases[name]} <= whole]
    if not chosen:
        return None
    x, y = (mean_gains(side, chosen, bases).mean(axis=(1, 2)) for side in (diversity, downstream))
    sign = -1.0 if diversity.metric.direction == "down" else 1.0
    found = ranks.rank_correlation(sign * x, y)
    return None if found is None else Correlation(diversity.metric, found)
