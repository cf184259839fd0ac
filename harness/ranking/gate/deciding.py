"""From differences to verdicts: families of one-sided tests, and what could have been found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.ranking.gate.estimating import GateDifference, chance, min_detectable_loss
from harness.ranking.gate.report import GateRow
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.variance import ALPHA
from harness.scoring.metrics import Metric

_HEADLINE, _OTHERS, _ALONE = (0.6, 0.1), (0.2, 0.1), (0.8, 0.2)
"""Of the chance that equal runs get any verdict but 'same': for losses and for gains, by family. Losses have
most of it, as they fail a run; a family alone has all of it."""

_MORE = (1, 2, 3)
"""Times the seeds of the run for which the chance of finding a loss is given."""


@dataclass(frozen=True)
class DraftLine:
    """A line, and where numbers have to decide, its difference and the bound by the seeds of both sides."""

    line: GateRow
    found: GateDifference | None = None
    bound: Callable[[int, int], float] = lambda base, new: 0.0

    @property
    def worse(self) -> float:
        """One-sided p of no loss; NaN where nothing is tested."""
        if self.found is None:
            return float("nan")
        mean, half = float(self.found.moments.mean[0]), float(self.found.moments.p[0]) / 2
        return half if _lost(mean, self.line.metric) else 1 - half


def _lost(mean: float, of: Metric) -> bool:
    return mean != 0 and (mean < 0) == (of.direction == "up")


def decided(first: Sequence[DraftLine], rest: Sequence[DraftLine]) -> list[GateRow]:
    """Return lines with their verdicts: ``first`` of the metrics that decide, ``rest`` of the others.

    Both are families of their own, tested one-sided for losses and for gains, each by Holm.
    """
    if not (first and rest):
        return _family([*first, *rest], _ALONE, True)
    return [*_family(first, _HEADLINE, True), *_family(rest, _OTHERS, False)]


def _family(drafts: Sequence[DraftLine], shares: tuple[float, float], decides: bool) -> list[GateRow]:
    """Return lines with their verdicts; ``shares``: of ``ALPHA``, for losses and for gains."""
    worse = np.array([draft.worse for draft in drafts], dtype=np.float64)
    tests = max(int((~np.isnan(worse)).sum()), 1)
    adjusted = np.minimum(np.stack([holm(worse) / shares[0], holm(1 - worse) / shares[1]]), 1.0)
    level = 2 * shares[0] * ALPHA / tests  # two-sided, as quantiles are taken
    return [
        draft.line if draft.found is None else _decided(draft, draft.found, (float(p[0]), float(p[1])), level, decides)
        for draft, p in zip(drafts, adjusted.T, strict=True)
    ]


def _decided(draft: DraftLine, found: GateDifference, p: tuple[float, float], level: float, decides: bool) -> GateRow:
    """Return a line with its verdict. ``p``: of no loss and of no gain; ``level``: of the smallest one."""
    line, mean = draft.line, float(found.moments.mean[0])
    size, tolerance = line.bound or 0.0, line.tolerance or 0.0
    lost = _lost(mean, line.metric)
    own = p[0] if lost else p[1]
    least = min_detectable_loss(found.at(found.new.seeds), level, size)
    line = replace(line, p=own, findable=least, decides=decides, chances=_chances(draft, found, level))
    if own <= ALPHA and abs(mean) > size:
        return replace(line, verdict="worse" if lost else "better")
    if least <= tolerance:
        return replace(line, verdict="same")
    reason = f"too few seeds to see a loss of {tolerance:.3g}"
    seen = f"the smallest that would have been found is {least:.3g}" if least < float("inf") else "or any"
    return replace(line, reason=f"{reason}; {seen}")


def _chances(draft: DraftLine, found: GateDifference, level: float) -> tuple[tuple[int, float], ...]:
    """Return how often a loss of the tolerance would be found, with the run's seeds and with more."""
    now, loss = found.new.seeds, draft.line.tolerance or 0.0
    known = []
    for seeds in (times * now for times in _MORE):
        size = draft.bound(max(seeds, found.base.seeds), seeds)
        known.append((seeds, chance(found.at(seeds), level, size, loss)))
    return tuple(known)
