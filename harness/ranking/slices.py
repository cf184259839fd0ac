"""Rankings of every part of a suite: all, each task, each language, each task in each language."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.core.threads import limit_blas_threads
from harness.core.types import FloatArray
from harness.ranking.eligibility import Eligibility, ranked
from harness.ranking.gains import gains
from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import Estimate, to_square
from harness.ranking.stats.variance import LinearContrasts, Moments, PairContrasts, means, moments
from harness.ranking.values import MetricArray, collect_metric
from harness.scoring.metrics import Metric

_THREADS = 4


@dataclass(frozen=True)
class Slice:
    """A part of a suite: one task or all (None), one language or all (None)."""

    task: str | None
    language: str | None


@dataclass(frozen=True)
class SliceRanking:
    """What is known of one scope, as if nothing else had been run.

    One thing is known from all of the suite: whose strata are not independent (``sharing``).

    ``entries``: ids of those that lack nothing in it, sorted; the arrays are in their order. ``mean`` (n) is
    in the metric's unit, as are ``difference`` (n, n), row minus column, and ``half`` (n, n), half the width
    of its 95 % interval: NaN where there is none (one seed), 0 on the diagonal and where nothing varies.
    ``pairs``: what the differences and intervals were made of.

    ``tiers``: entry -> tier, by the rules of ``standings``: without references, flagged entries, and entries
    of a model without complete zero-shot row; empty for the ``reason`` given. ``p`` (n, n): of the
    differences that tiers are made of, adjusted over the pairs of ranked entries (``of_pairs``), 1 on their
    diagonal, NaN outside of them. With several models these are differences of gains over the own model's
    zero-shot.
    """

    scope: Slice
    entries: list[str]
    mean: FloatArray
    difference: FloatArray
    ci_half_width: FloatArray
    pairs: Moments
    p: FloatArray
    tiers: dict[str, int]
    reason: str
    comparisons: int
    """How many tests the tiers are corrected for."""
    gains: dict[str, Estimate]
    """Entry -> gain over the zero-shot of its model, where both lack nothing."""

    @cached_property
    def position(self) -> dict[str, int]:
        """Entry -> its place in ``entries``."""
        return {name: i for i, name in enumerate(self.entries)}

    @cached_property
    def pair_p(self) -> FloatArray:
        """The two-sided p of every difference by itself, not adjusted: (n, n), NaN where there is none."""
        return to_square(self.pairs.p, len(self.entries), 1.0)

    def estimate(self, entry: str, other: str | None) -> Estimate | None:
        """Return entry minus other with its 95 % interval, in the metric's unit.

        None where one of them is not among ``entries``; without interval where there is none.
        """
        i, j = self.position.get(entry), self.position.get(other or "")
        if i is None or j is None:
            return None
        mean, half = float(self.difference[i, j]), float(self.ci_half_width[i, j])
        return Estimate(mean) if np.isnan(half) else Estimate(mean, low=mean - half, high=mean + half)


def rank_slices(
    cellset: ResultSet, metric: Metric, evidence: MetricArray | None = None, rules: Eligibility | None = None
) -> list[SliceRanking]:
    """Return what is known of a metric: of all, of each task, each language, each task in each language.

    Of a suite with one task or one language what would be the same comes once, in the wider scope.
    ``evidence``: what ``collect_metric`` found of the metric in all tasks; else it is gathered.
    ``rules``: those of the cellset, if they are made.
    """
    known = collect_metric(cellset, metric) if evidence is None else evidence
    rules = rules or Eligibility.of(cellset)
    with limit_blas_threads(), ThreadPoolExecutor(_THREADS) as pool:
        _ = known.strata, rules.strata(known)  # made here, once, before threads ask for them
        return list(pool.map(lambda scope: _field(rules, _part(known, scope), scope), slices_of(known)))


def _part(evidence: MetricArray, scope: Slice) -> MetricArray:
    tasks = None if scope.task is None else [scope.task]
    return evidence.select(tasks, None if scope.language is None else [scope.language])


def slices_of(evidence: MetricArray) -> list[Slice]:
    """Return the scopes of evidence, the widest first; none twice under another name."""
    tasks, languages = (list(dict.fromkeys(axis)) for axis in zip(*evidence.task_languages, strict=True))
    some_tasks = tasks if len(tasks) > 1 else []
    some_languages = languages if len(languages) > 1 else []
    return [
        Slice(None, None),
        *(Slice(task, None) for task in some_tasks),
        *(Slice(None, code) for code in some_languages),
        *(Slice(task, code) for task, code in evidence.task_languages if some_tasks and some_languages),
    ]


def _field(rules: Eligibility, evidence: MetricArray, scope: Slice) -> SliceRanking:
    """Return what is known of one scope; ``evidence``: of that scope alone."""
    names = sorted(evidence.complete)
    rows = np.array([evidence.position[name] for name in names], dtype=np.int64)
    found = moments(evidence.strata, evidence.examples, PairContrasts(rows))
    tiers, p, reason, comparisons = _ranking(rules, evidence, names)
    return SliceRanking(
        scope=scope,
        entries=names,
        mean=means(evidence.strata, LinearContrasts([(rows, np.ones(len(rows)))])),
        difference=to_square(found.mean, len(rows), 0.0, sign=-1.0),
        ci_half_width=to_square(found.ci_half_width, len(rows), 0.0),
        pairs=found,
        p=p,
        tiers=tiers,
        reason=reason,
        comparisons=comparisons,
        gains=gains(evidence, rules.zero_shot),
    )


def _ranking(
    rules: Eligibility, evidence: MetricArray, names: list[str]
) -> tuple[dict[str, int], FloatArray, str, int]:
    """Return tiers of those that are ranked, p between them among ``names``, why nobody is; comparisons."""
    p = np.full((len(names), len(names)), np.nan)
    field = rules.eligible(evidence)
    reason = rules.reason(evidence, field)
    if reason:
        return {}, p, reason, 0
    rows = np.array([evidence.position[name] for name in field], dtype=np.int64)
    found = ranked(rules.strata(evidence), evidence.examples, rows, evidence.metric.direction)
    inside = [names.index(name) for name in field]
    p[np.ix_(inside, inside)] = found.p
    return dict(zip(field, found.tiers, strict=True)), p, "", found.comparisons
