"""The difference of two runs in one metric of one entry, and the smallest loss that would have been seen.

With common generation seeds both runs share the noise of sampling: they are paired by task, language and
seed, as everywhere (``harness.ranking.stats``). With other seeds the seeds of both sides are independent
within every task and language; the test examples stay paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ranking.stats import POWER, Panel, sums
from harness.ranking.variance import ALPHA, Moments

Floats = NDArray[np.float64]

_ROUNDING = 1e-12  # relative; what is smaller is the rounding of a zero


@dataclass(frozen=True)
class Side:
    """One entry of one run: ``values`` (stratum, seed) and ``draws`` (stratum, seed, resample), if any."""

    values: Floats
    draws: NDArray[np.float32] | None = None
    examples: int | None = None


def paired(base: Side, new: Side) -> Moments:
    """Return new minus base of runs with the same seeds in the same order."""
    values = np.stack([base.values, new.values])
    if base.draws is None or new.draws is None or base.examples != new.examples:
        panel = Panel(values)
    else:
        panel = Panel(values, np.stack([base.draws, new.draws]), base.examples)
    return panel.moments(sums([{1: 1.0, 0: -1.0}]))


def independent(base: Side, new: Side) -> Moments:
    """Return new minus base of runs with other seeds (Welch 1947, over seeds within strata).

    The variance of both sides adds up; that of the test examples is of the difference, without what both
    have from the interplay of seeds and examples, which is in the variance between seeds already.
    """
    sides, strata = (base, new), len(base.values)
    size = float(np.abs(base.values).max() + np.abs(new.values).max())
    mean = float(new.values.mean() - base.values.mean())
    mean = 0.0 if abs(mean) <= _ROUNDING * size else mean
    parts = np.concatenate(
        [side.values.var(axis=1, ddof=1) / side.values.shape[1] / strata**2 for side in sides]
    )
    parts = np.where(np.sqrt(parts) <= _ROUNDING * size, 0.0, parts)
    freedom = np.repeat([side.values.shape[1] - 1.0 for side in sides], strata)
    seeds, fourth = float(parts.sum()), float((parts**2 / freedom).sum())
    df = seeds**2 / fourth if fourth > 0 else float(freedom.sum())
    examples, examples_df = _examples(base, new)
    fewest = min(side.values.shape[1] for side in sides)
    return Moments(
        (strata, fewest),
        np.array([mean]),
        np.array([seeds]),
        np.array([df]),
        np.array([examples]),
        examples_df,
    )


def _examples(base: Side, new: Side) -> tuple[float, float]:
    """Return the variance from test examples alone and its degrees of freedom."""
    if base.draws is None or new.draws is None or base.examples is None or base.examples != new.examples:
        return 0.0, 1.0
    strata, interaction, means = len(base.draws), 0.0, []
    for side in (base, new):
        assert side.draws is not None
        draws = side.draws.astype(np.float64)
        draws -= draws.mean(axis=2, keepdims=True)
        over_seeds = draws.mean(axis=1, keepdims=True)
        seeds, count = draws.shape[1:]
        rest = float(np.square(draws - over_seeds).sum())
        interaction += rest / ((seeds - 1) * seeds * (count - 1) * strata**2)
        means.append(over_seeds.mean(axis=(0, 1)))
    together = float(np.var(means[1] - means[0], ddof=1))
    return max(together - interaction, 0.0), base.examples - 1.0


def critical(found: Moments, level: float) -> float:
    """Return how many standard errors a difference needs for a p of ``level`` (see ``Moments.p``)."""
    from scipy.special import stdtrit

    single = float(stdtrit(found.df[0], 1 - level / 2))
    total = float(found.seeds[0] + found.examples[0])
    if level >= ALPHA or total == 0:
        return single
    share = float(found.seeds[0]) / total
    squares = [float(stdtrit(df, 1 - level / 2)) ** 2 for df in (found.seeds_df[0], found.examples_df)]
    return max(single, float(np.sqrt(share * squares[0] + (1 - share) * squares[1])))


def findable(found: Moments, level: float, bound: float) -> float:
    """Return the smallest loss that would have been called one in 80 of 100 such comparisons.

    It must be significant at ``level`` and exceed ``bound``, and chance must not hide it. Infinite where
    nothing varies and the cells are too few for any verdict.
    """
    se = float(found.se[0])
    if se == 0:
        strata, seeds = found.shape
        return bound if 2.0 ** (1 - strata * seeds) <= level else float("inf")
    return max(critical(found, level) * se, bound) + float(found.quantile(POWER)[0]) * se
