"""Does steering beat what needs no access to activations? The best entries of both sides, on the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from harness.core.records import IMPORTED, Entry
from harness.ranking.eligibility import Eligibility
from harness.ranking.gains import FEW_SHOT, LEVEL
from harness.ranking.results import BASELINE
from harness.ranking.stats.estimates import Estimate, estimates
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.variance import Contrasts
from harness.ranking.values import MetricArray

RowKind = Literal["steering", "prompting", "imported", "baseline", "control", "reference"]

FAMILIES: tuple[RowKind, ...] = get_args(RowKind)
"""All kinds of rows, in the order in which they are listed."""


def row_kind(entry: Entry, steered: bool | None = None) -> RowKind:
    """Return what an entry is there for; pages colour and filter by it. ``steered``: see ``ResultSet.steered``.

    ``reference``: no model wrote the texts. ``baseline``: zero-shot and few-shot, unsteered. ``control``: a
    method that shows what remains without another method's claim. ``imported``: texts that were made elsewhere.
    ``prompting``: none of its cells was written with a steering, so it needs no access to activations. ``steering``:
    everything else.
    """
    if entry.setting == "none":
        return "reference"
    if entry.method.version == IMPORTED:
        return "imported"
    if entry.method.name in {BASELINE, FEW_SHOT}:
        return "baseline"
    if "of" in entry.method.config:
        return "control"
    return "prompting" if steered is False else "steering"


@dataclass(frozen=True)
class Rivalry:
    """The best steering entry against the best entry of its model without access to activations, by their means.

    ``difference``: the first minus the second, on the same cells; its interval takes the two as given. ``p``: corrected
    for the choice of both among ``pairs`` pairs (Holm), None where one seed gives none.
    """

    steering: str
    rival: str
    difference: Estimate
    p: float | None
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether the two differ significantly."""
        return self.p is not None and self.p <= LEVEL


def find_rivalry(array: MetricArray, rules: Eligibility) -> Rivalry | None:
    """Return the comparison of both sides by a metric; None where one has no complete entry without a flag."""
    results, better = rules.results, array.metric.direction
    if better == "none" or array.mixed:
        return None
    kinds = {
        name: row_kind(results.entries[name].entry, results.steered.get(name))
        for name in array.complete
        if not rules.flags[name]
    }
    sign = -1.0 if better == "down" else 1.0

    def ordered(*wanted: RowKind) -> list[str]:
        return sorted(
            (name for name, kind in kinds.items() if kind in wanted),
            key=lambda name: (-sign * float(array.values[array.position[name]].mean()), name),
        )

    steering, rivals = ordered("steering"), ordered("baseline", "prompting")
    model = results.entries[steering[0]].entry.model if steering else None
    steering, rivals = (
        [name for name in side if results.entries[name].entry.model == model] for side in (steering, rivals)
    )
    if not steering or not rivals:
        return None
    pairs = [(own, other) for own in steering for other in rivals]
    found = _differences(array, pairs)
    p = holm(np.array([np.nan if each.p is None else each.p for each in found], dtype=np.float64))
    corrected = None if np.isnan(p[0]) else float(p[0])
    return Rivalry(steering[0], rivals[0], found[0], corrected, len(pairs))


def _differences(array: MetricArray, pairs: Sequence[tuple[str, str]]) -> list[Estimate]:
    first, second = zip(*pairs, strict=True)
    return estimates(array.moments(Contrasts.differences(array.rows(first), array.rows(second))))
