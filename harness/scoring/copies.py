"""Which texts copy a text of a corpus: in runs of characters, or word for word in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.scoring.ngrams import Keys, Ngrams, distinct

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
"""Share of a text's n-grams, the rarest in the corpus, by which texts of the corpus are sought."""
_PAIRS = 2_000_000  # of texts and texts of the corpus that are held in memory at once
_COMPARED = 20_000  # of these, compared in full at once
_HASH_BITS, _HASH_MASK = np.uint64(40), np.uint64(2**40 - 1)


@dataclass(frozen=True)
class NgramBags:
    """The different n-grams of words of each text: pairs of text and hash, ``sizes`` of them per text.

    The order of words does not matter. Hashes have 40 bits here, so that a pair is one number.
    """

    texts: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> NgramBags:
        """Return the bags of bare texts, of 16 million at most."""
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
    """Bare texts with what their copies are found by; made once, to be looked up in several corpora."""

    runs: Ngrams
    bags: NgramBags

    @classmethod
    def of(cls, texts: Sequence[str]) -> QueryNgrams:
        """Return the probe of bare texts."""
        return cls(Ngrams.of(texts, RUN), NgramBags.of(texts))


class CopyDetector:
    """Finds the texts that copy one of ``texts`` (bare)."""

    def __init__(self, texts: Sequence[str]) -> None:
        probe = QueryNgrams.of(texts)
        self._runs = distinct(probe.runs.hashes)
        self._vocabulary = distinct(probe.bags.hashes)
        self._rows = self._matrix(probe.bags, probe.bags.keys.locate(self._vocabulary))
        self._columns = self._rows.T.tocsr()
        self._frequency = np.diff(self._columns.indptr)
        self._sizes = probe.bags.sizes

    def copied(self, probe: QueryNgrams) -> NDArray[np.bool_]:
        """Return which texts copy one of the corpus. A text is a copy in two cases.

        First, where a third of it lies in runs of 50 characters that stand in the corpus; a text of fewer
        characters, where it equals one of the corpus. Second, where it and one text of the corpus have the
        same words, in whatever order: in common are 70 % of the n-grams of words of the one that has fewer,
        which are 20 at least and half of the other's. The second finds copies with words left out, put in,
        exchanged or shuffled.
        """
        return self._in_runs(probe.runs) | self._same_words(probe.bags)

    def _in_runs(self, runs: Ngrams) -> NDArray[np.bool_]:
        found = np.flatnonzero(runs.keys.locate(self._runs) >= 0)
        of_text = np.searchsorted(runs.starts, found, side="right") - 1
        # A window adds its whole length, or what lies before the next window of the same text.
        step = np.diff(found, append=0)
        step[np.diff(of_text, append=-1) != 0] = RUN
        covered = np.bincount(of_text, weights=np.minimum(step, RUN), minlength=len(runs.starts) - 1)
        windows = np.diff(runs.starts)
        return (windows > 0) & (covered >= PART * (windows + RUN - 1))

    def _same_words(self, bags: NgramBags) -> NDArray[np.bool_]:
        copies = np.zeros(len(bags.sizes), dtype=np.bool_)
        places = bags.keys.locate(self._vocabulary)
        known = np.bincount(bags.texts[places >= 0], minlength=len(bags.sizes))
        least = ALIKE * np.maximum(LEAST, bags.sizes / RATIO)
        able = (bags.sizes >= LEAST) & (known >= least)
        if not able.any():
            return copies
        places[~able[bags.texts]] = -1
        rare = self._rarest(bags, places)
        left_out = bags.sizes - np.bincount(bags.texts[rare], minlength=len(bags.sizes))
        whole, part = self._matrix(bags, places), self._matrix(bags, np.where(rare, places, -1))
        block = max(_PAIRS // max(len(self._sizes), 1), 1)
        for first in range(0, len(bags.sizes), block):
            common = (part[first : first + block] @ self._columns).tocoo()
            row, column = common.row + first, common.col
            need = self._needed(bags.sizes[row], self._sizes[column])
            short = need - common.data
            likely = np.flatnonzero(short <= left_out[row])
            likely = likely[np.argsort(short[likely], kind="stable")]
            for start in range(0, likely.size, _COMPARED):
                pairs = likely[start : start + _COMPARED]
                pairs = pairs[~copies[row[pairs]]]  # one text of the corpus is enough
                exact = whole[row[pairs]].multiply(self._rows[column[pairs]]).sum(axis=1)
                copies[row[pairs][np.asarray(exact).ravel() >= need[pairs]]] = True
        return copies

    def _needed(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how many n-grams texts with so many must have in common; infinity where they never do."""
        fewer, more = np.minimum(one, other), np.maximum(one, other)
        return np.where((fewer >= LEAST) & (more <= RATIO * fewer), ALIKE * fewer, np.inf)

    def _rarest(self, bags: NgramBags, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each pair of text and n-gram whether it is among those that are rarest in the corpus.

        Common n-grams join almost every two texts and take most of the time. A text that shares enough with
        one of the corpus shares some of the rarest 70 %, so it is found without the others (prefix filter,
        Chaudhuri, Ganti and Kaushik 2006). ``ALIKE / RATIO`` is the least share; with 70 % of the n-grams at
        least 5 % are then common.
        """
        frequency = np.zeros(places.size, dtype=np.int64)
        frequency[places >= 0] = self._frequency[places[places >= 0]]
        order = np.lexsort((frequency, bags.texts))
        starts = np.concatenate([[0], np.cumsum(bags.sizes)])[:-1]
        rank = np.empty(order.size, dtype=np.int64)
        rank[order] = np.arange(order.size) - starts[bags.texts[order]]
        kept: NDArray[np.bool_] = rank < RARE * bags.sizes[bags.texts]
        return kept

    def _matrix(self, bags: NgramBags, places: NDArray[np.int64]) -> Any:
        """Return a sparse matrix of texts by n-grams of the corpus, 1 where a text has one; -1 is none."""
        from scipy.sparse import csr_matrix

        there = places >= 0
        ones = np.ones(np.count_nonzero(there), dtype=np.float32)
        shape = (len(bags.sizes), self._vocabulary.size)
        return csr_matrix((ones, (bags.texts[there], places[there])), shape=shape)
