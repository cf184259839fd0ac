"""Gains: every entry minus another entry of its own model, paired by task, language and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.types import FloatArray
from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import Estimate, estimates
from harness.ranking.stats.multiplicity import benjamini_hochberg
from harness.ranking.stats.ranks import RankCorrelation, rank_correlation
from harness.ranking.stats.variance import Contrasts
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
    found: RankCorrelation


def baselines(results: ResultSet, method: str) -> dict[str, str]:
    """Return entry -> the entry of a method, such as ``zero-shot``, on its own model, where there is exactly one.

    Rows without a model take that of the only model. No entry is its own baseline.
    """
    named = [row for row in results.entries.values() if row.entry.method.name == method]
    found = {}
    for row in results.entries.values():
        model = row.entry.model
        own = [other.id for other in named if model is None or other.entry.model == model]
        if len(own) == 1 and own[0] != row.id:
            found[row.id] = own[0]
    return found


def entry_means(array: MetricArray) -> dict[str, Estimate]:
    """Return the mean of every complete entry."""
    found = estimates(array.moments(Contrasts.means(np.arange(len(array.entries)))))
    return {name: each for name, each in zip(array.entries, found, strict=True) if name in array.complete}


def gains(array: MetricArray, bases: Mapping[str, str]) -> dict[str, Estimate]:
    """Return the mean gain over the baseline for every entry whose own and baseline cells are complete.

    ``bases``: entry -> its baseline.
    """
    names = [name for name in array.entries if array.complete.issuperset({name, bases.get(name, "")})]
    if not names:  # such as in a language without any values yet
        return {}
    pairs = Contrasts.differences(array.rows(names), array.rows(bases[name] for name in names))
    return dict(zip(names, estimates(array.moments(pairs)), strict=True))


def mean_gains(array: MetricArray, names: Sequence[str], bases: Mapping[str, str]) -> FloatArray:
    """Return gains of entries over their baselines by stratum and seed: (entries, strata, seeds)."""
    return array.values[array.rows(names)] - array.values[array.rows(bases.get(name, name) for name in names)]


def gains_by_language(
    array: MetricArray, bases: Mapping[str, str], family: Sequence[str]
) -> dict[str, dict[str, LanguageGain]]:
    """Return entry -> language -> gain, for entries with a baseline and no missing value there.

    ``family``: the entries over whose gains the p-values are adjusted (Benjamini and Hochberg), all languages together.
    """
    languages = dict.fromkeys(code for _, code in array.task_languages)
    cells = {
        (name, code): found
        for code in languages
        for name, found in gains(array.select(languages=[code]), bases).items()
    }
    members = set(family)
    tested = {cell: found.p for cell, found in cells.items() if cell[0] in members and found.p is not None}
    adjusted = benjamini_hochberg(np.array(list(tested.values()), dtype=np.float64)).tolist()
    p = dict(zip(tested, adjusted, strict=True))
    table: dict[str, dict[str, LanguageGain]] = {name: {} for name in array.entries}
    for (name, code), found in cells.items():
        table[name][code] = LanguageGain(found, p.get((name, code)))
    return table


def correlation(
    diversity: MetricArray, downstream: MetricArray, bases: Mapping[str, str], names: Sequence[str]
) -> Correlation | None:
    """Return the rank correlation of the gains of entries in diversity and downstream.

    None where fewer than four of them have both, or where one side is constant.
    """
    whole = diversity.complete & downstream.complete
    chosen = [name for name in names if name in bases and {name, bases[name]} <= whole]
    if not chosen:
        return None
    x, y = (mean_gains(side, chosen, bases).mean(axis=(1, 2)) for side in (diversity, downstream))
    found = rank_correlation(-x if diversity.metric.direction == "down" else x, y)
    return None if found is None else Correlation(diversity.metric, found)
