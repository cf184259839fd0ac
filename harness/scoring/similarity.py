"""How alike the texts of a cell are, two by two, by the metrics of machine translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.records import Score
from harness.scoring.metrics import SELF_BLEU, SELF_CHRF, Metric
from harness.scoring.subsampling import mean_interval, orders
from harness.suite import Budgets


def self_chrf(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-chrF of windows, from 0 to 100 where all are equal: the mean chrF2 of each against others.

    With several references sacrebleu takes the best match (Popović 2015). See ``_among_themselves``.
    """
    from sacrebleu.metrics import CHRF

    return _among_themselves(SELF_CHRF, CHRF(), "self-chrF", beginnings, budgets)


def self_bleu(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-BLEU of windows, from 0 to 100 where all are equal: the mean BLEU of each against others.

    Source: Zhu et al. 2018. Without effective order short texts would get 0, however alike. See
    ``_among_themselves``.
    """
    from sacrebleu.metrics import BLEU

    bleu = BLEU(tokenize="intl", effective_order=True, smooth_method="exp")
    return _among_themselves(SELF_BLEU, bleu, "self-BLEU", beginnings, budgets)


def _among_themselves(
    metric: Metric, measure: Any, name: str, beginnings: Sequence[str], budgets: Budgets
) -> Score:
    """Return the mean score of every window against the others of its group.

    At most ``budgets.panel`` windows are dealt, in seeded order, into groups of ``budgets.references`` + 1;
    those that fill no group are left out. More references would raise the score, hence always as many.
    Groups share no text, so that their means are independent and give the interval. No value where the
    windows fill no group.
    """
    size = budgets.references + 1
    ordered = sorted(beginnings)
    n = len(ordered)
    groups = min(n, budgets.panel) // size
    means = []
    if groups:
        dealt = orders(n, 1, "panel")[0][: groups * size].reshape(groups, size)
        means = [_mean_score(measure, [ordered[i] for i in group]) for group in dealt]
    else:
        measure.sentence_score("", [""] * budgets.references)  # its signature counts them
    signature = (
        f"{name}|window:{budgets.window}|panel:{budgets.panel}|norm:NFC|seed:0|version:2"
        f"|{measure.get_signature().format()}"
    )
    if not groups:
        note = f"only {n} of {size} texts with {budgets.window} characters"
        return metric.score(None, signature, note)
    detail = {"texts": n, "groups": groups}
    return metric.score(
        float(np.mean(means)), signature, interval=mean_interval(means, within=(0.0, 100.0)), detail=detail
    )


def _mean_score(measure: Any, group: Sequence[str]) -> float:
    scores = [
        measure.sentence_score(text, [*group[:i], *group[i + 1 :]]).score for i, text in enumerate(group)
    ]
    return float(np.mean(scores))
