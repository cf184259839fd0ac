"""Do the seeds of an entry move all strata together, as where texts were written once and translated?

The noise of our own engine is keyed by task and language, so that strata vary independently. Texts from elsewhere need
not: a random choice may be shared by all languages. An entry's mean then varies more than its strata suggest. What the
test finds, and what it misses: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.ranking.stats.variance import ordered_sum
from harness.scoring.subsampling import generator

LEVEL = 0.01
"""Chance that an entry with independent strata is found to share seeds."""

BY_SEED = "seeds move all languages together: interval by seed"
"""Shown next to an entry whose strata are not independent."""

BASE_BY_SEED = "seeds of its zero-shot move all languages together: gain by seed"
"""Shown next to an entry whose baseline is such a one."""

_PERMUTATIONS = 499
_ROUNDING = 1e-9  # relative: equal values, and permutations that give equal sums in another order


def sharing_p(values: FloatArray, tasks: Sequence[str]) -> float:
    """Return the p-value of the hypothesis that strata vary independently over seeds.

    ``values`` (metrics, strata, seeds): of one entry; strata with a NaN are left out of a metric. ``tasks``:
    of the strata. A permutation test: seeds change places within every stratum, in all metrics alike, so that
    it holds for any distributions, unequal variances and correlated metrics. Of each metric the ratios of the
    variance by seed to that by stratum, over all strata and over those of each task, are added up; the
    statistic is the sum of the squares over metrics, so that one that moves is not lost among many that do
    not. One-sided, as only positive correlation makes intervals too short. 1 where nothing can be tested.
    """
    deviations = values - values.mean(axis=2, keepdims=True)
    deviations = np.where(np.abs(deviations) > _ROUNDING * np.abs(values), deviations, 0.0)  # NaN is 0, too
    own = [[s for s, task in enumerate(tasks) if task == name] for name in dict.fromkeys(tasks)]
    sums = [_permuted_sums(deviations, strata) for strata in own]
    squares = [np.square(deviations[:, strata]).sum(axis=(1, 2)) for strata in own]
    if len(own) > 1:
        sums, squares = [*sums, ordered_sum(sums)], [*squares, ordered_sum(squares)]
    ratios = ordered_sum(
        np.square(part).sum(axis=1) * np.divide(1, total, out=np.zeros_like(total), where=total > 0)
        for part, total in zip(sums, squares, strict=True)
    )
    found = np.square(ratios).sum(axis=1)
    return float((found >= found[0] * (1 - _ROUNDING)).mean())


def noted(names: Sequence[str]) -> list[str]:
    """Return a note for a table with such entries, given their names; nothing without any."""
    return [f"{BY_SEED}: {', '.join(names)}"] if names else []


def _permuted_sums(deviations: FloatArray, strata: Sequence[int]) -> FloatArray:
    """Return the sums of deviations (metrics, strata, seeds) over strata: (permutation, seed, metric)."""
    orders = _orders(*deviations.shape[1:])
    return ordered_sum(deviations[:, s].T[orders[:, s]] for s in strata)


@lru_cache(maxsize=4)
def _orders(strata: int, seeds: int) -> NDArray[np.int64]:
    """Return orders of the seeds in every stratum: (permutation, stratum, seed), the one given first."""
    draw = generator("seeds within strata", strata, seeds)
    given = np.broadcast_to(np.arange(seeds), (_PERMUTATIONS, strata, seeds))
    return np.concatenate([given[:1], draw.permuted(given, axis=2)])
