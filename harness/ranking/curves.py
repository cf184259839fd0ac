"""Data-size curves: macro-F1 after training on more and more texts, next to the curve of human-written text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import Estimate


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve: macro-F1 of ``n`` texts per label, mean over the strata and seeds in scope.

    ``mixed``: the same of a few human-written texts per label and ``n`` synthetic ones; None without.
    """

    n: int
    value: Estimate | None
    mixed: Estimate | None


@dataclass(frozen=True)
class Curve:
    """The curve of an entry; ``entry`` is None for human-written text.

    ``points``: in order of n, only those with data in every stratum of the scope. ``human_equivalent``: in texts per
    label; None for human-written text, and without its curve. ``censored``: on which side of the human curve the
    human-equivalent n lies, if it is not on it.
    """

    entry: str | None
    points: list[CurvePoint]
    area: Estimate | None
    human_equivalent: Estimate | None
    censored: Literal["", "below", "above"]


@dataclass(frozen=True)
class CurveSet:
    """The curves of results by one classifier, such as ``tfidf``; ``entries``: entry id -> curve."""

    classifier: str
    human: Curve | None
    entries: dict[str, Curve]


def curves_of(
    results: ResultSet, classifier: str, task: str | None = None, language: str | None = None
) -> CurveSet | None:
    """Return the curves of all entries, over all tasks and languages or one; None where the suite has no curve."""
    if not results.manifest.suite["metrics"].get("curve"):
        return None
    raise NotImplementedError
