"""How far two runs of the same code lie apart, and the bound that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.ranking.gate.baseline import Spread

_WITHIN = 0.975  # of differences between equal runs, half of the rest on either side


@dataclass(frozen=True)
class MetricValues:
    """One metric of one run: ``values`` (entry, stratum, seed) of complete entries; task per stratum."""

    values: FloatArray
    tasks: list[str]


def spread(runs: Sequence[MetricValues]) -> Spread:
    """Return the spread of a metric from one run or several of the same code.

    Between seeds: the variance of a cell, mean over languages and over the entries that vary at all. From
    several runs, the variance of their means as well; the larger of both counts.
    """
    tasks, strata = runs[0].tasks, len(runs[0].tasks)
    seeds = [run.values.shape[2] for run in runs]
    free = sum(seeds) - len(runs)
    squares = sum(_squares(run.values) for run in runs)
    cells = np.asarray(squares) / max(free, 1)
    varying = cells.sum(axis=1) > 0
    pooled = cells[varying].mean(axis=0) if varying.any() else np.zeros(strata)
    variance = {
        task: float(np.mean([v for v, own in zip(pooled, tasks, strict=True) if own == task]))
        for task in dict.fromkeys(tasks)
    }
    within = Spread(variance=variance, df=max(free * strata, 1))
    found = _between(runs, within, varying, float(np.mean([1 / g for g in seeds]))) or within
    size = bound(found, tasks, seeds[0], seeds[0])
    return found.model_copy(update={"bound": size})


def _squares(values: FloatArray) -> FloatArray:
    centred: FloatArray = values - values.mean(axis=2, keepdims=True)
    squares: FloatArray = np.square(centred).sum(axis=2)
    return np.where(squares < 1e-24, 0.0, squares)


def _between(runs: Sequence[MetricValues], within: Spread, varying: NDArray[np.bool_], inverse: float) -> Spread | None:
    """Return the spread by the means of runs where they vary more than seeds alone would make them."""
    strata = runs[0].tasks
    expected = sum(within.variance[task] for task in strata) / len(strata) ** 2 * inverse
    if len(runs) < 2 or expected == 0:
        return None
    means = np.array([run.values[varying].mean(axis=(1, 2)) for run in runs])
    factor = float(means.var(axis=0, ddof=1).mean()) / expected
    if factor <= 1:
        return None
    return Spread(variance=within.variance, df=(len(runs) - 1) * means.shape[1], factor=factor)


def bound(found: Spread, tasks: Sequence[str], seeds: int, others: int) -> float:
    """Return what 19 of 20 differences between two runs of the same code stay below.

    ``tasks``: of every stratum that is averaged; ``seeds``, ``others``: generation seeds of both runs.
    """
    from scipy.special import stdtrit

    total = sum(found.variance.get(task, 0.0) for task in tasks) / len(tasks) ** 2
    variance = found.factor * total * (1 / seeds + 1 / others)
    return float(stdtrit(found.df, _WITHIN) * np.sqrt(variance))
