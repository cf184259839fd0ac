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
    """Return self-chrF, from 0 to 100 where all texts are equal: the mean chrF2 of each text against others.

    With several references sacrebleu takes the best match (Popović 2015).
    """
    from sacrebleu.metrics import CHRF

    return _mean_over_groups(SELF_CHRF, CHRF(), "self-chrF", beginnings, budgets)


def self_bleu(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-BLEU, 0 to 100 where all texts are equal: mean BLEU of each against others (Zhu et al. 2018)."""
    from sacrebleu.metrics import BLEU

    # Without effective order short texts would score 0, however alike.
    bleu = BLEU(tokenize="intl", effective_order=True, smooth_method="exp")
    return _mean_over_groups(SELF_BLEU, bleu, "self-BLEU", beginnings, budgets)


def _mean_over_groups(metric: Metric, measure: Any, name: str, beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return the mean score of every text against the others of its group.

    Seeded permutations are cut into groups of ``budgets.references`` + 1; more references would raise the score,
    hence always the same number. At most ``budgets.panel`` texts are scored: fewer texts are permuted several
    times, since few groups would miss that two of many texts are alike. No value where the texts do not fill one group.
    """
    size, panel = budgets.references + 1, budgets.panel
    ordered = sorted(beginnings)
    n = len(ordered)
    measure.sentence_score("", [""] * budgets.references)  # its signature counts the references
    signature = (
        f"{name}|window:{budgets.window}|panel:{panel}|norm:NFC|seed:0|version:2|{measure.get_signature().format()}"
    )
    if min(n, panel) < size:
        return metric.score(None, signature, f"only {n} of {size} texts with {budgets.window} characters")
    orders = permutations(n, max(panel // n, 1), "panel")
    groups = [group for order in orders for group in order[: min(n, panel) // size * size].reshape(-1, size)]
    means = [_mean_score(measure, [ordered[i] for i in group]) for group in groups]
    span = interval(means, size, n, len(orders), within=(0.0, 100.0))
    return metric.score(float(np.mean(means)), signature, interval=span, detail={"texts": n, "groups": len(means)})


def _mean_score(measure: Any, group: Sequence[str]) -> float:
    scores = [measure.sentence_score(text, [*group[:i], *group[i + 1 :]]).score for i, text in enumerate(group)]
    return float(np.mean(scores))
