"""How much of the texts occurs in text that their method or model has seen, or must not have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.bounds import share_interval
from harness.scoring.folding import hides, normalise_for_matching
from harness.scoring.metrics import COPIED, HIDDEN, OVERLAP, Metric
from harness.scoring.ngrams import Keys, Ngrams, distinct
from harness.scoring.scorer import PerContext, ScorerOutput, ScoringContext, TextSample
from harness.scoring.subsampling import mean_interval

CORPORA = ("demonstrations", "train", "validation", "test", "vectors")
"""What texts are compared with: the suite's few-shot demonstrations of the same label (in zero-shot cells too,
where they show the level of chance), the labelled splits, and the text that vectors are made of."""

NGRAM = 8
"""Characters of an n-gram of ``OVERLAP``. Of human text that was not shown, at most 3 % is found in the five
demonstrations of its label (11 languages); with 5 characters it is up to 13 %."""
RUN = 50
"""Characters of a run that people do not write twice by chance."""
PART = 1 / 3
"""Share of a text in such runs from which it is a copy."""
GRAM = 5
"""Characters of the n-grams of words."""
ALIKE = 0.7
"""Share of the shorter text's n-grams of words that two texts have in common, from which one is a copy."""
LEAST = 20
"""Different n-grams of words, below which short common phrases would pass for copies."""
RATIO = 2
"""How many times the n-grams of the shorter text the longer one may have."""
RARE = 0.7
"""Share of a text's n-grams, the rarest in the corpus, by which candidates are found."""
_PAIRS = 2_000_000  # pairs of text and corpus text in memory at once
_COMPARED = 20_000  # of these, compared in full at once
_FEW = 1_000_000  # pairs, and n-grams in common, of which all are counted: no candidates are looked for
_HASH_BITS, _HASH_MASK = np.uint64(40), np.uint64(2**40 - 1)


@dataclass(frozen=True)
class NgramBags:
    """The different n-grams of words of each text: pairs of text and hash, ``sizes`` of them per text.

    The order of words does not matter. Hashes have 40 bits, so that a pair is one number.
    """

    texts: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> NgramBags:
        """Return the bags of at most 16 million texts (``normalise_for_matching``)."""
        grams = Ngrams.of_words(texts, GRAM)
        rows = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(grams.starts))
        pairs = distinct((rows << _HASH_BITS) | (grams.hashes >> np.uint64(64 - 40)))
        found = (pairs >> _HASH_BITS).astype(np.int64)
        return cls(found, pairs & _HASH_MASK, np.bincount(found, minlength=len(texts)))

    @cached_property
    def keys(self) -> Keys:
        """The hashes, ready to be looked up."""
        return Keys.of(self.hashes)


@dataclass(frozen=True)
class QueryNgrams:
    """Texts (``normalise_for_matching``) with all that they are looked up by, in several corpora."""

    overlap: Ngrams
    runs: Ngrams
    bags: NgramBags

    @classmethod
    def of(cls, texts: Sequence[str]) -> QueryNgrams:
        """Return the n-grams of texts."""
        return cls(Ngrams.of(texts, NGRAM), Ngrams.of(texts, RUN), NgramBags.of(texts))


class CopyDetector:
    """Finds n-grams and copies of ``texts`` (``normalise_for_matching``) in other texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        own = QueryNgrams.of(texts)
        self.empty = not len(texts)
        self._overlap = distinct(own.overlap.hashes)
        self._runs = distinct(own.runs.hashes)
        self._vocabulary = distinct(own.bags.hashes)
        self._rows = self._matrix(own.bags, own.bags.keys.locate(self._vocabulary))
        self._columns = self._rows.T.tocsr()
        self._frequency = np.diff(self._columns.indptr)
        self._sizes = own.bags.sizes

    def overlap(self, query: QueryNgrams) -> NDArray[np.float64]:
        """Return for each text the share of its n-grams that occur in the corpus; 0 for a blank one."""
        return query.overlap.mean(query.overlap.keys.locate(self._overlap) >= 0)

    def copied(self, query: QueryNgrams) -> NDArray[np.bool_]:
        """Return which texts are copies of one of the corpus. There are two cases.

        1. At least a third of the text lies in runs of 50 characters that occur in the corpus; a shorter text must
           equal one of the corpus.
        2. The text and one of the corpus have the same words, in whatever order: in common are 70 % of the n-grams
           of words of the one that has fewer, which are at least 20 and at least half of the other's. This finds
           copies with words left out, added, exchanged or shuffled.
        """
        return self._in_runs(query.runs) | self._same_words(query.bags)

    def _in_runs(self, runs: Ngrams) -> NDArray[np.bool_]:
        found = np.flatnonzero(runs.keys.locate(self._runs) >= 0)
        of_text = np.searchsorted(runs.starts, found, side="right") - 1
        # A window adds its whole length, or the distance to the next window of the same text.
        step = np.diff(found, append=0)
        step[np.diff(of_text, append=-1) != 0] = RUN
        covered = np.bincount(of_text, weights=np.minimum(step, RUN), minlength=len(runs.starts) - 1)
        windows = np.diff(runs.starts)
        return (windows > 0) & (covered >= PART * (windows + RUN - 1))

    def _same_words(self, bags: NgramBags) -> NDArray[np.bool_]:
        copies = np.zeros(len(bags.sizes), dtype=np.bool_)
        positions = bags.keys.locate(self._vocabulary)
        known = np.bincount(bags.texts[positions >= 0], minlength=len(bags.sizes))
        able = (bags.sizes >= LEAST) & (known >= ALIKE * np.maximum(LEAST, bags.sizes / RATIO))
        if not able.any():
            return copies
        positions[~able[bags.texts]] = -1
        shared = int(self._frequency[positions[positions >= 0]].sum())
        if max(shared, copies.size * len(self._sizes)) <= _FEW:
            common = self._in_common(bags, positions)
            np.any(common >= _needed(bags.sizes[:, None], self._sizes), axis=1, out=copies)
            return copies
        rare = self._rarest(bags, positions)
        left_out = bags.sizes - np.bincount(bags.texts[rare], minlength=len(bags.sizes))
        whole, part = self._matrix(bags, positions), self._matrix(bags, np.where(rare, positions, -1))
        block = max(_PAIRS // max(len(self._sizes), 1), 1)
        for first in range(0, len(bags.sizes), block):
            common = (part[first : first + block] @ self._columns).tocoo()
            row, column = common.row + first, common.col
            need = _needed(bags.sizes[row], self._sizes[column])
            short = need - common.data
            likely = np.flatnonzero(short <= left_out[row])
            likely = likely[np.argsort(short[likely], kind="stable")]
            for start in range(0, likely.size, _COMPARED):
                pairs = likely[start : start + _COMPARED]
                pairs = pairs[~copies[row[pairs]]]  # one text of the corpus is enough
                exact = whole[row[pairs]].multiply(self._rows[column[pairs]]).sum(axis=1)
                copies[row[pairs][np.asarray(exact).ravel() >= need[pairs]]] = True
        return copies

    def _in_common(self, bags: NgramBags, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many n-grams each text and each of the corpus have in common, [texts, corpus texts]."""
        # For the few texts of a small cell, sparse matrices would take longer to set up than all of this.
        there = positions >= 0
        found = positions[there]
        times = self._frequency[found]
        before = np.cumsum(times) - times
        holders = self._columns.indices[np.arange(times.sum()) + np.repeat(self._columns.indptr[found] - before, times)]
        pairs = np.repeat(bags.texts[there], times) * len(self._sizes) + holders
        shape = (len(bags.sizes), len(self._sizes))
        return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)

    def _rarest(self, bags: NgramBags, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each pair of text and n-gram whether it is among those that are rarest in the corpus."""
        # Prefix filter (Chaudhuri, Ganti and Kaushik 2006): common n-grams join almost every two texts and take most
        # of the time. The least share in common is ALIKE / RATIO, so among the rarest 70 % at least 5 % are common.
        frequency = np.zeros(positions.size, dtype=np.int64)
        frequency[positions >= 0] = self._frequency[positions[positions >= 0]]
        order = np.lexsort((frequency, bags.texts))
        starts = np.concatenate([[0], np.cumsum(bags.sizes)])[:-1]
        rank = np.empty(order.size, dtype=np.int64)
        rank[order] = np.arange(order.size) - starts[bags.texts[order]]
        kept: NDArray[np.bool_] = rank < RARE * bags.sizes[bags.texts]
        return kept

    def _matrix(self, bags: NgramBags, positions: NDArray[np.int64]) -> Any:
        """Return a sparse matrix of texts by n-grams of the corpus, 1 where a text has one; position -1 is none."""
        from scipy.sparse import csr_matrix

        there = positions >= 0
        ones = np.ones(np.count_nonzero(there), dtype=np.float32)
        shape = (len(bags.sizes), self._vocabulary.size)
        return csr_matrix((ones, (bags.texts[there], positions[there])), shape=shape)


def _needed(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how many n-grams copies of these sizes have in common; infinity where the sizes rule a copy out."""
    fewer, more = np.minimum(one, other), np.maximum(one, other)
    return np.where((fewer >= LEAST) & (more <= RATIO * fewer), ALIKE * fewer, np.inf)


class LeakageScorer:
    """Overlap with text that was shown, trained on or held out, and copies of it, per corpus."""

    name = "leakage"
    human = True

    def __init__(self) -> None:
        form = "form:folded+letters|version:2"
        self._overlap_signature = f"overlap|characters:{NGRAM}|{form}"
        bounds = f"alike:{ALIKE}|least:{LEAST}|ratio:{RATIO}"
        self._copied_signature = f"copied|runs:{RUN}x{PART:.3f}|words:{GRAM}-grams|{bounds}|{form}"
        self.signature = f"{self._copied_signature} {self._overlap_signature}"
        self._detectors = PerContext(_detectors)

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return ``COPIED`` and ``OVERLAP`` of every corpus; artifacts: which texts are copies, per corpus."""
        overlap = {corpus: np.zeros(len(sample.texts)) for corpus in CORPORA}
        copied = {corpus: np.zeros(len(sample.texts), dtype=np.bool_) for corpus in CORPORA}
        query = QueryNgrams.of([normalise_for_matching(text) for text in sample.texts])
        detectors = self._detectors(context)
        for corpus, label, detector in detectors:
            chosen = np.array([label in (None, own) for own in sample.labels], dtype=np.bool_)
            overlap[corpus][chosen] = detector.overlap(query)[chosen]
            copied[corpus][chosen] = detector.copied(query)[chosen]
        known = {corpus for corpus, _, detector in detectors if not detector.empty}
        scores = []
        for corpus in CORPORA:
            note = f"no text of {corpus}" if corpus not in known else "" if sample.texts else "no texts"
            scores.append(_share(COPIED.for_provider(corpus), copied[corpus], self._copied_signature, note, "copies"))
            metric, values = OVERLAP.for_provider(corpus), overlap[corpus]
            mean, span = (None, None) if note else (float(values.mean()), mean_interval(values.tolist()))
            scores.append(metric.score(mean, self._overlap_signature, note, interval=span))
        return ScorerOutput(scores, {f"copied/{corpus}": copied[corpus].tolist() for corpus in CORPORA})


def _detectors(context: ScoringContext) -> list[tuple[str, str | None, CopyDetector]]:
    """Return (corpus, the label that it is for or None for all, detector)."""
    splits = {"train": context.train, "validation": context.validation, "test": context.test}
    texts: list[tuple[str, str | None, Sequence[str]]] = [
        *((split, None, [text for text, _ in rows]) for split, rows in splits.items()),
        ("vectors", None, context.vectors),
        *(("demonstrations", label, shown) for label, shown in context.demonstrations.items()),
    ]
    return [
        (corpus, label, CopyDetector([normalise_for_matching(text) for text in dict.fromkeys(group)]))
        for corpus, label, group in texts
    ]


class HiddenTextScorer:
    """The share of texts with characters that a reader does not see, or look-alike letters; see ``hides``."""

    name = "hidden"
    human = True
    signature = "hidden|ignorable+controls+stray-marks+look-alikes|version:1"

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return ``HIDDEN``; artifacts: which texts hide something."""
        found = [hides(text) for text in sample.texts]
        score = _share(HIDDEN, np.array(found, dtype=np.bool_), self.signature, "" if found else "no texts")
        return ScorerOutput([score], {"hides": found} if found else {})


def _share(metric: Metric, flags: NDArray[np.bool_], signature: str, note: str, count_as: str = "") -> Score:
    if note:
        return metric.score(None, signature, note)
    count, n = int(flags.sum()), flags.size
    detail = {count_as: count, "texts": n} if count_as else {"texts": n}
    return metric.score(count / n, signature, interval=share_interval(count, n), detail=detail)
