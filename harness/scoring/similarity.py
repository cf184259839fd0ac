"""How alike the texts of a cell are, two by two, by the metrics of machine translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.core.records import Score
from harness.data.suite import Budgets
from harness.scoring.metrics import SELF_BLEU, SELF_CHRF, Metric
from harness.scoring.subsampling import interval, permutations


def self_chrf(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-chrF of windows, from 0 to 100 where all are equal: the mean chrF2 of each against others.

    With several references sacrebleu takes the best match (Popović 2015). See ``_among_themselves``.
    """
    from harness.scoring.cached_sacrebleu import CachedCHRF

    return _among_themselves(SELF_CHRF, CachedCHRF(), "self-chrF", beginnings, budgets)


def self_bleu(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-BLEU of windows, from 0 to 100 where all are equal: the mean BLEU of each against others.

    Source: Zhu et al. 2018. Without effective order short texts would get 0, however alike. See
    ``_among_themselves``.
    """
    from harness.scoring.cached_sacrebleu import CachedBLEU

    bleu = CachedBLEU(tokenize="intl", effective_order=True, smooth_method="exp")
    return _among_themselves(SELF_BLEU, bleu, "self-BLEU", beginnings, budgets)


def _among_themselves(metric: Metric, measure: Any, name: str, beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return the mean score of every window against the others of its group.

    Windows are dealt, in seeded order, into groups of ``budgets.references`` + 1; more references would
    raise the score, hence always as many. ``budgets.panel`` windows are scored at most: fewer windows are
    dealt several times, since few groups would miss that two of many texts are alike. Those that fill no
    group are left out of a deal. No value where they do not fill one.
    """
    size, panel = budgets.references + 1, budgets.panel
    ordered = sorted(beginnings)
    n = len(ordered)
    measure.sentence_score("", [""] * budgets.references)  # its signature counts the references
    signature = (
        f"{name}|window:{budgets.window}|panel:{panel}|norm:NFC|seed:0|version:2|{measure.get_signature().format()}"
    )
    if min(n, panel) < size:
        note = f"only {n} of {size} texts with {budgets.window} characters"
        return metric.score(None, signature, note)
    decks = permutations(n, max(panel // n, 1), "panel")
    dealt = [order[: min(n, panel) // size * size].reshape(-1, size) for order in decks]
    means = [_mean_score(measure, [ordered[i] for i in group]) for deck in dealt for group in deck]
    span = interval(means, size, n, len(decks), within=(0.0, 100.0))
    detail = {"texts": n, "groups": len(means)}
    return metric.score(float(np.mean(means)), signature, interval=span, detail=detail)


def _mean_score(measure: Any, group: Sequence[str]) -> float:
    scores = [measure.sentence_score(text, [*group[:i], *group[i + 1 :]]).score for i, text in enumerate(group)]
    return float(np.mean(scores))
