"""Gains: every entry against another row of its own model, paired by task, language and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.ranking import ranks
from harness.ranking.evidence import Evidence
from harness.ranking.multiplicity import benjamini_hochberg
from harness.ranking.stats import Estimate, Panel, estimate
from harness.ranking.tables import Cellset, EntryRow
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


def peer(cellset: Cellset, row: EntryRow, method: str) -> str | None:
    """Return the entry of a method without options, such as ``zero-shot``, on the row's own model.

    Rows without a model take that of the only model. None for the row itself, and where none or several fit.
    """
    found = [
        other.id
        for other in cellset.entries.values()
        if other.entry.method.name == method
        and (row.entry.model is None or other.entry.model == row.entry.model)
    ]
    return found[0] if len(found) == 1 and found[0] != row.id else None


def peers(cellset: Cellset, method: str) -> dict[str, str]:
    """Return entry -> its peer (see ``peer``), for those that have one."""
    found = {row.id: peer(cellset, row, method) for row in cellset.entries.values()}
    return {name: other for name, other in found.items() if other is not None}


def combined(evidence: Evidence, weights: Mapping[str, float]) -> Estimate | None:
    """Return the weighted sum of entries; None where one of them lacks a value."""
    if not evidence.complete.issuperset(weights):
        return None
    return estimate(evidence.panel(list(weights)), dict(enumerate(weights.values())))


def gain(evidence: Evidence, name: str, other: str | None) -> Estimate | None:
    """Return entry minus other, None where there is no other or either lacks a value."""
    return None if other is None else combined(evidence, {name: 1.0, other: -1.0})


def gains_panel(evidence: Evidence, names: Sequence[str], bases: Mapping[str, str]) -> Panel:
    """Return the gains of entries as a panel of their own; a row without a base is its own: gain 0."""
    own, base = evidence.panel(names), evidence.panel([bases.get(name, name) for name in names])
    draws = None if own.draws is None or base.draws is None else own.draws - base.draws
    return Panel(own.values - base.values, draws, own.examples)


def grid(
    evidence: Evidence, bases: Mapping[str, str], family: Sequence[str]
) -> dict[str, dict[str, LanguageGain]]:
    """Return entry -> language -> gain, for entries with a base and where all values are there.

    ``family``: the entries over whose gains Benjamini and Hochberg adjust, all languages together.
    """
    cells: dict[tuple[str, str], Estimate] = {}
    for code in dict.fromkeys(code for _, code in evidence.strata):
        part = evidence.language(code)
        for name in evidence.entries:
            found = gain(part, name, bases.get(name))
            if found is not None:
                cells[name, code] = found
    tested = [place for place in cells if place[0] in set(family) and cells[place].p is not None]
    adjusted = benjamini_hochberg(np.array([cells[place].p for place in tested], dtype=np.float64))
    p = {place: float(value) for place, value in zip(tested, adjusted, strict=True)}
    table: dict[str, dict[str, LanguageGain]] = {name: {} for name in evidence.entries}
    for (name, code), estimated in cells.items():
        table[name][code] = LanguageGain(estimated, p.get((name, code)))
    return table


def correlation(
    diversity: Evidence, downstream: Evidence, bases: Mapping[str, str], names: Sequence[str]
) -> Correlation | None:
    """Return how the gains of entries in diversity and downstream go together.

    None where fewer than four of them have both, or where one side is all the same.
    """
    whole = diversity.complete & downstream.complete
    chosen = [name for name in names if name in bases and {name, bases[name]} <= whole]
    if not chosen:
        return None
    x, y = (gains_panel(side, chosen, bases).values.mean(axis=(1, 2)) for side in (diversity, downstream))
    sign = -1.0 if diversity.metric.direction == "down" else 1.0
    found = ranks.rank_correlation(sign * x, y)
    return None if found is None else Correlation(diversity.metric, found)
