"""Whether languages that steering sets apart are those that it helps: a rank correlation over languages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.ranking.stats.ranks import RankCorrelation, rank_correlation


def separation_with_gain(changes: Mapping[str, float], gains: Mapping[str, float]) -> RankCorrelation | None:
    """Return Spearman's rank correlation of two figures over the languages that have both.

    ``changes``: language -> change of its silhouette; ``gains``: language -> gain over zero-shot. None
    below four languages, and where one side is the same in all. CLAS (arXiv 2601.16390) claims that it is
    positive.
    """
    both = [code for code in changes if code in gains]
    x, y = (np.array([side[code] for code in both], dtype=np.float64) for side in (changes, gains))
    return rank_correlation(x, y)
