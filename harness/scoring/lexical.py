"""How different the texts of a cell are from one another in words and characters, at fixed budgets."""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from harness.core.records import Score
from harness.data.suite import Budgets
from harness.scoring.duplicates import near_duplicates
from harness.scoring.metrics import (
    COMPRESSION,
    DISTINCT_1,
    DISTINCT_2,
    DISTINCT_3,
    LENGTH,
    METRICS,
    SELF_REPETITION,
)
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample
from harness.scoring.similarity import self_bleu, self_chrf
from harness.scoring.subsampling import Range, Subsamples, draw_subsamples, interval, mean_interval
from harness.scoring.truncate import prefixes
from harness.scoring.words import words

_DISTINCT = {1: (DISTINCT_1, "words"), 2: (DISTINCT_2, "word pairs"), 3: (DISTINCT_3, "word triples")}
_RUN = 4
"""Words of a run that counts as repeated (Salkar et al. 2022)."""
_QUANTILES = (5, 25, 50, 75, 95)


class LexicalScorer:
    """Distinct-n, self-chrF, self-BLEU, compression, self-repetition, near-duplicates and length.

    The order of the texts matters to none of them.
    """

    name = "lexical"
    human = True

    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets
        settings = "|".join(f"{key}:{value}" for key, value in budgets.model_dump().items())
        self.signature = f"lexical|{settings}|sacrebleu:{version('sacrebleu')}|version:2"

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """Return the scores of all texts, and those of the valid ones."""
        everything = lexical_scores(sample.texts, self.budgets)
        valid = everything
        if not sample.valid.all():
            valid = lexical_scores(sample.subset(sample.valid).texts, self.budgets)
        renamed = [score.model_copy(update={"metric": METRICS[score.metric].on_valid_texts.name}) for score in valid]
        return ScorerOutput([*everything, *renamed])


def lexical_scores(texts: Sequence[str], budgets: Budgets) -> list[Score]:
    """Return every lexical score of the texts."""
    plain = [unicodedata.normalize("NFC", text) for text in texts]
    tokens = [words(text) for text in plain]
    beginnings, _ = prefixes(plain, budgets.window)
    return [
        *(distinct(k, tokens, budgets) for k in _DISTINCT),
        self_chrf(beginnings, budgets),
        self_bleu(beginnings, budgets),
        compression(plain, budgets),
        self_repetition(beginnings, budgets),
        near_duplicates(texts),
        length(plain),
    ]


def distinct(k: int, tokens: Sequence[list[str]], budgets: Budgets) -> Score:
    """Return distinct-k of tokenised texts, k from 1 to 3: the share of different k-grams.

    A subsample takes texts in seeded order until it holds exactly ``budgets.ngrams`` k-grams, which never
    cross the end of a text. No value where the texts hold fewer. Source: Li et al. 2016, there without a
    budget.
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
    dealt = draw_subsamples(sizes, budget, count, "texts")
    shares = []
    for hand in dealt.subsamples:
        found = {gram for i, size in hand for gram in zip(*(ordered[i][j : j + size] for j in range(k)), strict=True)}
        shares.append(len(found) / budget)
    return metric.score(float(np.mean(shares)), signature, interval=_interval(shares, dealt, len(ordered), 1.0))


def compression(texts: Sequence[str], budgets: Budgets) -> Score:
    """Return characters / size after deflate, mean over subsamples of ``budgets.characters`` characters.

    A subsample takes texts (NFC, single blanks) in seeded order, each ended by a blank, and is cut to the
    budget; with another mark than the blank, short texts would hold one symbol more than long ones and
    compress less. Every different character becomes one byte, so that no script is dearer than another:
    its rank by frequency, all from the 256th on sharing the last. Deflate finds repeats up to 32 KiB back;
    a budget above that would miss far ones. No value where the texts hold fewer characters.
    """
    budget, count = budgets.characters, budgets.subsamples
    library = "zlib-ng" if "ng" in zlib.ZLIB_RUNTIME_VERSION else "zlib"
    signature = f"compression|characters:{budget}|subsamples:{count}|symbols:256|norm:NFC|{library}:9|seed:0|version:1"
    ordered = sorted(" ".join(unicodedata.normalize("NFC", text).split()) + " " for text in texts)
    sizes = [len(text) for text in ordered]
    if sum(sizes) < budget:
        return COMPRESSION.score(None, signature, f"only {sum(sizes)} of the {budget} characters of the budget")
    dealt = draw_subsamples(sizes, budget, count, "texts")
    ratios = []
    for hand in dealt.subsamples:
        symbols = _to_byte_alphabet("".join(ordered[i][:size] for i, size in hand))
        ratios.append(budget / len(zlib.compress(symbols, 9)))
    span = _interval(ratios, dealt, len(ordered), math.inf)
    return COMPRESSION.score(float(np.mean(ratios)), signature, interval=span)


def self_repetition(beginnings: Sequence[str], budgets: Budgets) -> Score:
    """Return the mean log(1 + number of other texts that share a run of four words) of windows.

    The others are those of a subsample of ``budgets.texts`` windows; averaged over subsamples. No value
    with fewer windows. Source: Salkar et al. 2022, there over all texts and whole ones.
    """
    size, count = budgets.texts, budgets.subsamples
    signature = (
        f"self-repetition|texts:{size}|subsamples:{count}|window:{budgets.window}|run:{_RUN}"
        "|tok:unicode-words|norm:NFC|case:mixed|seed:0|version:1"
    )
    n = len(beginnings)
    if n < size:
        note = f"only {n} of {size} texts with {budgets.window} characters"
        return SELF_REPETITION.score(None, signature, note)
    runs = [_runs(text) for text in sorted(beginnings)]
    dealt = draw_subsamples([1] * n, size, count, "windows")
    values = [_repetition([runs[i] for i, _ in hand]) for hand in dealt.subsamples]
    span = _interval(values, dealt, n, math.log(size))
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


def _interval(values: Sequence[float], dealt: Subsamples, n: int, most: float) -> Range | None:
    return interval(values, dealt.texts, n, dealt.decks, within=(0.0, most))


def _to_byte_alphabet(text: str) -> bytes:
    """Return the text with every character as one byte: its rank by frequency, 255 at most."""
    ranked = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
    table = {character: min(rank, 255) for rank, (character, _) in enumerate(ranked)}
    return bytes(map(table.__getitem__, text))


def _runs(text: str) -> set[tuple[str, ...]]:
    tokens = words(text)
    return set(zip(*(tokens[j:] for j in range(_RUN)), strict=False))


def _repetition(texts: Sequence[set[tuple[str, ...]]]) -> float:
    """Return the mean over texts of log(1 + number of others that share a run)."""
    holders: dict[tuple[str, ...], set[int]] = {}
    for i, runs in enumerate(texts):
        for run in runs:
            holders.setdefault(run, set()).add(i)
    others = (len(set[int]().union(*(holders[run] for run in runs)) - {i}) for i, runs in enumerate(texts))
    return math.fsum(math.log1p(number) for number in others) / len(texts)
