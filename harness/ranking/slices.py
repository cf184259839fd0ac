"""Rankings of every part of a suite: all, each task, each language, each task in each language."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.core.threads import limit_blas_threads
from harness.core.types import FloatArray
from harness.ranking.eligibility import Eligibility
from harness.ranking.gains import gains
from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import Estimate, to_square
from harness.ranking.stats.variance import Contrasts, Moments, means
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
    """The ranking of one slice, as if nothing else had been run.

    Only whether an entry's strata are independent (``sharing``) is decided from all of the suite.

    ``entries``: ids of those without missing values in the slice, sorted; arrays are in their order. ``mean`` (n)
    is in the metric's unit, as are ``difference`` (n, n), row minus column, and ``ci_half_width`` (n, n), half the
    width of its 95 % interval: NaN where there is none (one seed), 0 on the diagonal and where nothing varies.
    ``pairs``: the moments behind the differences. ``gains``: entry -> gain over the zero-shot of its model.

    ``tiers``: entry -> tier, by the rules of ``rank_entries``: without references, flagged entries, and entries
    of a model without a complete zero-shot row; empty for the ``reason`` given. ``p`` (n, n): of the differences
    behind the tiers, adjusted over the pairs of ranked entries (``of_pairs``), 1 on their diagonal, NaN for
    entries that are not ranked. With several models these are differences of gains over the own model's zero-shot.
    ``comparisons``: the number of tests that the tiers are corrected for.
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
    gains: dict[str, Estimate]

    @cached_property
    def position(self) -> dict[str, int]:
        """Entry -> its index in ``entries``."""
        return {name: i for i, name in enumerate(self.entries)}

    @cached_property
    def pair_p(self) -> FloatArray:
        """The two-sided, unadjusted p of every difference: (n, n), NaN where there is none."""
        return to_square(self.pairs.p, len(self.entries), 1.0)

    def estimate(self, entry: str, other: str | None) -> Estimate | None:
        """Return entry minus other with its 95 % interval, in the metric's unit.

        None where one of them is not among ``entries``; without an interval where there is none.
        """
        i, j = self.position.get(entry), self.position.get(other or "")
        if i is None or j is None:
            return None
        mean, half = float(self.difference[i, j]), float(self.ci_half_width[i, j])
        return Estimate(mean) if np.isnan(half) else Estimate(mean, low=mean - half, high=mean + half)


def rank_slices(
    results: ResultSet, metric: Metric, array: MetricArray | None = None, eligibility: Eligibility | None = None
) -> list[SliceRanking]:
    """Return the rankings by a metric: of all, of each task, each language, each task in each language.

    In a suite with one task or one language, slices that would be the same come once, as the wider one.
    ``array``: the metric in all tasks, ``eligibility``: that of the result set, if they are known already.
    """
    known = collect_metric(results, metric) if array is None else array
    rules = eligibility or Eligibility(results)
    with limit_blas_threads(), ThreadPoolExecutor(_THREADS) as pool:
        _ = known.strata, rules.strata(known)  # computed here, once, before threads ask for them
        return list(pool.map(lambda scope: _rank_slice(rules, known, scope), _slices(known)))


def _slices(array: MetricArray) -> list[Slice]:
    """Return the slices, the widest first, none twice under another name."""
    tasks, languages = (list(dict.fromkeys(axis)) for axis in zip(*array.task_languages, strict=True))
    some_tasks, some_languages = (axis if len(axis) > 1 else [] for axis in (tasks, languages))
    return [
        Slice(None, None),
        *(Slice(task, None) for task in some_tasks),
        *(Slice(None, code) for code in some_languages),
        *(Slice(task, code) for task, code in array.task_languages if some_tasks and some_languages),
    ]


def _rank_slice(rules: Eligibility, whole: MetricArray, scope: Slice) -> SliceRanking:
    array = whole.select(scope.task and [scope.task], scope.language and [scope.language])
    names = sorted(array.complete)
    rows = array.rows(names)
    found = array.moments(Contrasts.pairs(rows))
    ranked = rules.rank(array)
    p = np.full((len(names), len(names)), np.nan)
    if ranked.tiers:
        inside = [names.index(name) for name in ranked.entries]
        p[np.ix_(inside, inside)] = ranked.p
    return SliceRanking(
        scope=scope,
        entries=names,
        mean=means(array.strata, Contrasts.means(rows)),
        difference=to_square(found.mean, len(rows), 0.0, sign=-1.0),
        ci_half_width=to_square(found.ci_half_width, len(rows), 0.0),
        pairs=found,
        p=p,
        tiers=dict(zip(ranked.entries, ranked.tiers, strict=False)),  # no tiers without a ranking
        reason=ranked.reason,
        comparisons=ranked.comparisons,
        gains=gains(array, rules.zero_shot),
    )
