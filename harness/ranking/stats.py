"""Paired differences of entries with intervals, p-values and minimum detectable effects.

Strata (a task in a language) are fixed; generation seeds are drawn anew in every stratum; test examples are
shared by all entries and seeds, and by strata that hold translations of one another. How variances follow
from that: ``harness.ranking.variance``; why, and how well it holds: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ranking.variance import ALPHA, Contrast, Floats, Moments, Pairs, moments
from harness.records import Direction
from harness.scoring.subsampling import generator

POWER = 0.8
"""With which the minimum detectable effect is found."""


@dataclass(frozen=True)
class Panel:
    """One metric of entries that lack nothing.

    ``values`` (entries, strata, generation seeds): mean over classifier seeds. ``draws`` (as values,
    resamples): the same under resamples of the test examples, see ``draw_weights`` and ``widened``; None for
    a metric without test examples. ``examples``: their number in the stratum with the fewest.
    Raises ValueError for numbers that are not finite and shapes that do not fit.
    """

    values: Floats
    draws: NDArray[np.float32] | None = None
    examples: int | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or not self.values.size:
            raise ValueError(f"values have shape {self.values.shape}, not (entries, strata, seeds)")
        if not np.isfinite(self.values).all():
            raise ValueError("a value is not finite: an entry that lacks cells belongs to no panel")
        if self.draws is None:
            return
        if self.draws.shape[:3] != self.values.shape or self.draws.ndim != 4 or self.draws.shape[3] < 2:
            raise ValueError(f"draws have shape {self.draws.shape}, values {self.values.shape}")
        if not (np.abs(self.draws) <= 4).all():  # beyond, sums of their products were no longer exact
            raise ValueError("a draw is not finite or beyond 4")
        if self.examples is None or self.examples < 2:
            raise ValueError(f"draws need two test examples or more, not {self.examples}")

    def moments(self, weights: Mapping[int, float]) -> Moments:
        """Return the moments of a weighted sum of entries."""
        rows = list(weights)
        draws = None if self.draws is None else self.draws[rows]
        contrast = Contrast(dict(enumerate(weights.values())))
        return moments(self.values[rows], draws, self.examples, contrast)


@dataclass(frozen=True)
class Differences:
    """All pairs of entries, row minus column: arrays (entries, entries).

    ``mean`` over strata and seeds, standard error, degrees of freedom, two-sided ``p``. With one seed all
    but the mean are NaN. ``p`` is 1 on the diagonal and for entries that never differ.
    """

    mean: Floats
    se: Floats
    df: Floats
    p: Floats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; what cannot be known is None.

    With one seed that is all but the mean; where no cell differs from the others (``se`` 0), the interval.
    ``p``: two-sided, of the hypothesis that it is 0; at most 0.05 exactly where the interval does not hold 0,
    and safe to correct for many tests. ``mde``: the minimum detectable effect, found with a power of 80 % by
    such a test in an experiment like this: (t_0.975 + t_0.80) standard errors (Bloom 1995; Card et al. 2020).
    """

    mean: float
    se: float | None = None
    df: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    mde: float | None = None


def differences(panel: Panel) -> Differences:
    """Return the differences of all pairs of entries.

    A pair's numbers hang on its two entries alone, bit for bit: not on their order nor on the field.
    """
    found = moments(panel.values, panel.draws, panel.examples, Pairs())
    p = found.p
    np.fill_diagonal(p, 1.0)
    return Differences(found.mean, found.se, found.df, p)


def estimate(panel: Panel, weights: Mapping[int, float]) -> Estimate:
    """Return the weighted sum of entries: ``{entry: 1, baseline: -1}`` for a difference."""
    found = panel.moments(weights)
    mean = float(found.mean)
    if np.isnan(found.se):
        return Estimate(mean)
    half, se, df, p = (float(part) for part in (found.half(), found.se, found.df, found.p))
    if se == 0:
        return Estimate(mean, se, df, p=p)
    mde = half + float(found.quantile(POWER)) * se
    return Estimate(mean, se, df, mean - half, mean + half, p, mde)


def gap_closed(
    panel: Panel, entry: int, baseline: int, ceiling: int, better: Direction = "up"
) -> Estimate | None:
    """Return by how many percent an entry closes the gap from a baseline to a ceiling.

    The interval is Fieller's (1954): all ratios r for which (entry - baseline) - r (ceiling - baseline) does
    not differ from 0. There is no p and no minimum detectable effect. None where the ceiling is not clearly
    better than the baseline: the interval is then unbounded and the ratio means nothing.
    """
    gap, gain, rest = (
        panel.moments(_summed((first, 1.0), (second, -1.0)))
        for first, second in ((ceiling, baseline), (entry, baseline), (entry, ceiling))
    )
    if not np.isfinite(gap.se) or (-1 if better == "down" else 1) * gap.mean <= gap.half():
        return None
    ratio = float(gain.mean / gap.mean)
    at_ratio = panel.moments(_summed((entry, 1.0), (baseline, ratio - 1.0), (ceiling, -ratio)))
    square = float(at_ratio.quantile(1 - ALPHA / 2)) ** 2
    covariance = (gain.se**2 + gap.se**2 - rest.se**2) / 2
    a = float(gap.mean**2 - square * gap.se**2)
    b = float(gain.mean * gap.mean - square * covariance)
    c = float(gain.mean**2 - square * gain.se**2)
    if a <= 0:
        return None
    root = max(b * b - a * c, 0.0) ** 0.5
    se, df = 100 * float(at_ratio.se / abs(gap.mean)), float(at_ratio.df)
    if se == 0:
        return Estimate(100 * ratio, se, df)
    return Estimate(100 * ratio, se, df, 100 * (b - root) / a, 100 * (b + root) / a)


def draw_weights(examples: str, n: int, count: int) -> NDArray[np.float32]:
    """Return how often each of ``n`` test examples is in each of ``count`` resamples: (count, n).

    ``examples``: the digest of the example set. The same resamples for all entries, classifiers and runs,
    and for test sets that are translations of one another, so that differences stay paired.
    """
    draw = generator("test examples", examples, n, count)
    return draw.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float32)


def widened(draws: NDArray[np.float32], n: int, labels: int = 1) -> NDArray[np.float32]:
    """Return bootstrap values (..., resamples) with their variance multiplied by n / (n - labels).

    A bootstrap of ``n`` examples estimates the variance of a mean as (n - 1) / n of what it is. Macro-F1
    over ``labels`` labels is a mean of as many ratios, each about its own centre, and loses as many degrees
    of freedom: with 30 examples of 7 labels the plain bootstrap finds three quarters of the variance.
    """
    centre = draws.mean(axis=-1, keepdims=True, dtype=np.float64)
    factor = (n / max(n - labels, 1)) ** 0.5
    return np.asarray(centre + (draws - centre) * factor, dtype=np.float32)


def _summed(*terms: tuple[int, float]) -> dict[int, float]:
    """Return weights by entry; an entry in several terms gets their sum."""
    weights: dict[int, float] = {}
    for entry, weight in terms:
        weights[entry] = weights.get(entry, 0.0) + weight
    return weights
