"""Lexical diversity of the texts of a cell, in words and characters, at fixed budgets."""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from harness.core.records import Score
from harness.core.types import FloatArray
from harness.data.suite import Budgets
from harness.scoring.closeness import Groups, bleu_of_groups, chrf_of_groups
from harness.scoring.duplicates import Sketches, near_duplicates
from harness.scoring.metrics import (
    COMPRESSION,
    DISTINCT_1,
    DISTINCT_2,
    DISTINCT_3,
    LENGTH,
    SELF_BLEU,
    SELF_CHRF,
    SELF_REPETITION,
    Metric,
)
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample, scores_of_all_and_valid
from harness.scoring.subsampling import draw_subsamples, interval, mean_interval, permutations
from harness.scoring.text import prefixes, runs, words

_DISTINCT = {1: (DISTINCT_1, "words"), 2: (DISTINCT_2, "word pairs"), 3: (DISTINCT_3, "word triples")}
_RUN = 4
"""Words of a run that counts as repeated (Salkar et al. 2022)."""
_QUANTILES = (5, 25, 50, 75, 95)


class LexicalScorer:
    """Distinct-n, self-chrF, self-BLEU, compression, self-repetition, near-duplicates and length.

    All are independent of the order of the texts.
    """

    name = "lexical"
    human = True

    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets
        settings = "|".join(f"{key}:{value}" for key, value in budgets.model_dump().items())
        self.signature = f"lexical|{settings}|sacrebleu:{version('sacrebleu')}|version:2"

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return the scores of all texts, and those of the valid ones."""
        sketches = Sketches()  # the valid texts are among all texts
        return ScorerOutput(scores_of_all_and_valid(sample, lambda t: lexical_scores(t, self.budgets, sketches)))


def lexical_scores(texts: Sequence[str], budgets: Budgets, sketches: Sketches | None = None) -> list[Score]:
    """Return every lexical score of the texts; for ``sketches`` see ``near_duplicates``."""
    plain = [unicodedata.normalize("NFC", text) for text in texts]
    tokens = [words(text) for text in plain]
    beginnings, _ = prefixes(plain, budgets.window)
    return [
        *(distinct(k, tokens, budgets) for k in _DISTINCT),
        self_chrf(beginnings, budgets),
        self_bleu(beginnings, budgets),
        compression(plain, budgets),
        self_repetition(beginnings, budgets),
        near_duplicates(texts, sketches),
        length(plain),
    ]


def distinct(k: int, tokens: Sequence[list[str]], budgets: Budgets) -> Score:
    """Return distinct-k of tokenised texts, k from 1 to 3: the share of different k-grams.

    A subsample takes texts in seeded order until it holds exactly ``budgets.ngrams`` k-grams, none across two
    texts. No value where the texts hold fewer. Source: Li et al. 2016, there without a budget.
    """
    metric, name = _DISTINCT[k]
    budget, count = budgets.ngrams, budgets.subsamples
    signature = (
        f"distinct-{k}|budget:{budget}|subsamples:{count}|tok:unicode-words|norm:NFC|case:mixed|seed:0|version:2"
    )
    ordered = sorted(tokens)
    sizes = [max(len(text) - k + 1, 0) for text in ordered]
    if sum(sizes) < budget:
        return metric.score(None, signature, f"only {sum(sizes)} of the {budget} {name} of the budget")
    drawn = draw_subsamples(sizes, budget, count, "texts")
    shares = [
        len({gram for i, size in part for gram in zip(*(ordered[i][j : j + size] for j in range(k)), strict=True)})
        / budget
        for part in drawn.subsamples
    ]
    return metric.score(float(np.mean(shares)), signature, interval=drawn.interval(shares, len(ordered), 1.0))


def self_chrf(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-chrF, from 0 to 100 where all texts are equal: the mean chrF2 of each text against others.

    With several references sacrebleu takes the best match (Popović 2015).
    """
    from sacrebleu.metrics import CHRF

    return _mean_over_groups(SELF_CHRF, CHRF(), chrf_of_groups, "self-chrF", beginnings, budgets)


def self_bleu(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return self-BLEU, 0 to 100 where all texts are equal: mean BLEU of each against others (Zhu et al. 2018)."""
    from sacrebleu.metrics import BLEU

    # Without effective order short texts would score 0, however alike.
    bleu = BLEU(tokenize="intl", effective_order=True, smooth_method="exp")
    score = partial(bleu_of_groups, bleu=bleu)
    return _mean_over_groups(SELF_BLEU, bleu, score, "self-BLEU", beginnings, budgets)


def _mean_over_groups(
    metric: Metric,
    measure: Any,
    score: Callable[[Sequence[str], Groups], FloatArray],
    name: str,
    beginnings: Sequence[str],
    budgets: Budgets,
) -> Score:
    """Return the mean score of every text against the others of its group; ``measure``: sacrebleu's metric.

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
    groups = np.concatenate([order[: min(n, panel) // size * size].reshape(-1, size) for order in orders])
    means = score(ordered, groups).mean(axis=1).tolist()
    span = interval(means, size, n, len(orders), within=(0.0, 100.0))
    return metric.score(float(np.mean(means)), signature, interval=span, detail={"texts": n, "groups": len(means)})


def compression(texts: Sequence[str], budgets: Budgets) -> Score:
    """Return characters / size after deflate, mean over subsamples of ``budgets.characters`` characters.

    A subsample takes texts (NFC, single blanks) in seeded order, each followed by a blank, and is cut to the budget.
    Every character becomes one byte, so that no script costs more than another: its rank by frequency, all from the
    256th on sharing the last. No value where the texts hold fewer characters.
    """
    # Another separator than the blank would add a symbol, and short texts would compress less for it. Deflate finds
    # repeats up to 32 KiB back: a larger budget would miss far ones.
    budget, count = budgets.characters, budgets.subsamples
    library = "zlib-ng" if "ng" in zlib.ZLIB_RUNTIME_VERSION else "zlib"
    signature = f"compression|characters:{budget}|subsamples:{count}|symbols:256|norm:NFC|{library}:9|seed:0|version:1"
    ordered = sorted(" ".join(unicodedata.normalize("NFC", text).split()) + " " for text in texts)
    sizes = [len(text) for text in ordered]
    if sum(sizes) < budget:
        return COMPRESSION.score(None, signature, f"only {sum(sizes)} of the {budget} characters of the budget")
    drawn = draw_subsamples(sizes, budget, count, "texts")
    parts = ["".join(ordered[i][:size] for i, size in part) for part in drawn.subsamples]
    ratios = [budget / len(zlib.compress(_to_byte_alphabet(part), 9)) for part in parts]
    span = drawn.interval(ratios, len(ordered), math.inf)
    return COMPRESSION.score(float(np.mean(ratios)), signature, interval=span)


def self_repetition(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return the mean log(1 + number of other texts that share a run of four words), over subsamples.

    The others are those of a subsample of ``budgets.texts``; no value with fewer. Source: Salkar et al. 2022, there
    over all texts and in full.
    """
    size, count = budgets.texts, budgets.subsamples
    signature = (
        f"self-repetition|texts:{size}|subsamples:{count}|window:{budgets.window}|run:{_RUN}"
        "|tok:unicode-words|norm:NFC|case:mixed|seed:0|version:1"
    )
    n = len(beginnings)
    if n < size:
        return SELF_REPETITION.score(None, signature, f"only {n} of {size} texts with {budgets.window} characters")
    found = [set(runs(words(text), _RUN)) for text in sorted(beginnings)]
    drawn = draw_subsamples([1] * n, size, count, "windows")
    values = [_repetition([found[i] for i, _ in part]) for part in drawn.subsamples]
    span = drawn.interval(values, n, math.log(size))
    return SELF_REPETITION.score(float(np.mean(values)), signature, interval=span, detail={"texts": n})


def length(texts: Sequence[str]) -> Score:
    """Return the mean number of characters (code points after NFC) of a text, with its distribution."""
    signature = "length|norm:NFC|version:1"
    if not texts:
        return LENGTH.score(None, signature, "no text")
    sizes = sorted(len(text) for text in texts)
    quantiles = np.percentile(sizes, _QUANTILES)
    detail = {f"p{q:02d}": float(value) for q, value in zip(_QUANTILES, quantiles, strict=True)}
    if len(sizes) > 1:
        detail["sd"] = float(np.std(sizes, ddof=1))
    return LENGTH.score(float(np.mean(sizes)), signature, interval=mean_interval(sizes), detail=detail)


def _to_byte_alphabet(text: str) -> bytes:
    """Return the text with every character as one byte: its rank by frequency, 255 at most."""
    ranked = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
    table = {character: min(rank, 255) for rank, (character, _) in enumerate(ranked)}
    return bytes(map(table.__getitem__, text))


def _repetition(texts: Sequence[set[tuple[str, ...]]]) -> float:
    """Return the mean over texts of log(1 + number of others that share a run)."""
    holders: dict[tuple[str, ...], set[int]] = {}
    for i, own in enumerate(texts):
        for run in own:
            holders.setdefault(run, set()).add(i)
    others = (len(set[int]().union(*(holders[run] for run in own)) - {i}) for i, own in enumerate(texts))
    return math.fsum(math.log1p(number) for number in others) / len(texts)
