"""Whether any steering is better than zero-shot: the question of a whole table, with its correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.core.records import Direction
from harness.ranking.gains import LEVEL
from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import holm
from harness.ranking.summary import format_interval, p_equals

AnswerVerdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class SteeringAnswer:
    """Whether any of ``compared`` entries is better than zero-shot.

    ``yes``: one or more are, by Holm's correction over all that are compared. ``no``: all are worse, by the
    same rule. ``unknown``: neither; also where one seed gives no p-value and where nothing is compared.
    ``best``: the largest gain of those that are better, else of all; ``gain`` and the corrected ``p`` are its
    own. ``better``: how many are.
    """

    verdict: AnswerVerdict
    best: str = ""
    gain: Estimate | None = None
    p: float | None = None
    compared: int = 0
    better: int = 0


def answer(gains: Mapping[str, Estimate], direction: Direction) -> SteeringAnswer:
    """Return the answer of gains over zero-shot by entry: those of steering alone, unflagged and complete."""
    if not gains or direction == "none":
        return SteeringAnswer("unknown")
    sign = -1.0 if direction == "down" else 1.0
    names = sorted(gains, key=lambda name: (-sign * gains[name].mean, name))
    known = [gains[name].p for name in names]
    p = holm(np.array([np.nan if each is None else each for each in known], dtype=np.float64))
    apart = {name: bool(found <= LEVEL) for name, found in zip(names, p, strict=True)}
    better = [name for name in names if apart[name] and sign * gains[name].mean > 0]
    worse = [name for name in names if apart[name] and sign * gains[name].mean < 0]
    best = (better or names)[0]
    corrected = float(p[names.index(best)])
    return SteeringAnswer(
        verdict="yes" if better else "no" if len(worse) == len(names) else "unknown",
        best=best,
        gain=gains[best],
        p=None if np.isnan(corrected) else corrected,
        compared=len(names),
        better=len(better),
    )


def in_words(found: SteeringAnswer, names: Mapping[str, str], metric: str) -> tuple[str, str]:
    """Return the answer (Yes, No, Cannot be said) and the sentence that says by how much and how sure.

    ``names``: what entries are called. ``metric``: its title.
    """
    if found.gain is None:
        return "Cannot be said", "no steering with all its cells is there to compare."
    entry, gain = names[found.best], f"{format_interval(found.gain)} in {metric}"
    if found.p is None:
        return "Cannot be said", f"there is no interval. The largest gain is that of {entry}: {gain}."
    many = found.compared > 1
    corrected = p_equals(found.p) + (f", corrected for {found.compared} compared entries" if many else "")
    if found.verdict == "yes":
        count = f" {found.better} of {found.compared} compared are better." if many else ""
        return "Yes", f"{entry} gains {gain} ({corrected}).{count}"
    if found.verdict == "no":
        least = f"all {found.compared} are worse, the least {entry}" if many else f"{entry} is worse"
        return "No", f"{least}: {gain} ({corrected})."
    largest = "The largest gain is that of " if many else ""
    return "Cannot be said", f"{largest}{entry}: {gain} ({corrected})."
