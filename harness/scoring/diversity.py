"""How different the texts of a cell are from one another, at fixed budgets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from harness.records import Score
from harness.scoring.metrics import DISTINCT_2, SELF_CHRF
from harness.suite import ChrfSettings, DistinctSettings

_WORD = re.compile(r"\w+|[^\w\s]")
_HEBREW_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")


def words(text: str) -> list[str]:
    """Return words and punctuation marks: NFC, Hebrew points removed, Unicode letters of any script."""
    return _WORD.findall(_HEBREW_POINTS.sub("", unicodedata.normalize("NFC", text)))


def distinct_2(texts: Sequence[str], settings: DistinctSettings) -> Score:
    """Return distinct-2 at a fixed budget: mean over seeded subsamples of unique / budget.

    A subsample takes texts in random order until it holds exactly ``budget`` word pairs; pairs never
    cross a text's end. No value where the texts hold fewer pairs than the budget.
    """
    signature = (
        f"distinct-2|budget:{settings.budget}|subsamples:{settings.subsamples}"
        "|tok:unicode-words|norm:NFC|case:mixed|seed:0|version:1"
    )
    pairs = []
    for text in texts:
        tokens = words(text)
        pairs.append(list(pairwise(tokens)))
    total = sum(len(group) for group in pairs)
    if total < settings.budget:
        note = f"only {total} of the {settings.budget} word pairs of the budget"
        return DISTINCT_2.score(None, signature, note)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(settings.subsamples):
        kept: list[tuple[str, str]] = []
        for i in rng.permutation(len(pairs)):
            kept += pairs[i]
            if len(kept) >= settings.budget:
                break
        shares.append(len(set(kept[: settings.budget])) / settings.budget)
    return DISTINCT_2.score(float(np.mean(shares)), signature)


def self_chrf(texts: Sequence[str], settings: ChrfSettings) -> Score:
    """Return the mean sentence chrF of every text against fixed numbers of seeded others.

    With several references sacrebleu takes the best match. No value with too few texts.
    """
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    count = settings.references
    signature = f"self-chrF|references:{count}|seed:0|version:1"
    if len(texts) <= count:
        return SELF_CHRF.score(None, signature, f"only {len(texts)} texts for {count} references")
    rng = np.random.default_rng(0)
    values = []
    for i, text in enumerate(texts):
        others = rng.choice(len(texts) - 1, size=count, replace=False)
        references = [texts[j + (j >= i)] for j in others]
        values.append(chrf.sentence_score(text, references).score)
    recipe = chrf.get_signature().format()
    return SELF_CHRF.score(float(np.mean(values)), f"{signature}|{recipe}")
