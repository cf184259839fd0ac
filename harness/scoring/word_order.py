"""Whether the words of texts are in an order of the language, or shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.metrics import WORD_ORDER
from harness.scoring.subsampling import generator, mean_interval
from harness.scoring.text import letters_of, lowercase

SHUFFLES, LEAST, MOST = 8, 4, 100
"""How often a text's words are shuffled; how many words a text needs, and how many of the first ones count."""

_COMMON, _CELLS, _SMOOTHING = 150, 2**20, 0.5
_START, _END = "\x02", "\x03"
_BATCH = 2**21  # pair features looked up at once
_MIX = np.uint64(0x9E3779B97F4A7C15)

Codes = NDArray[np.uint64]

SIGNATURE = f"pairs:4|common:{_COMMON}|shuffles:{SHUFFLES}|words:{LEAST}-{MOST}|version:1"


def word_order(above: NDArray[np.float64]) -> Score:
    """Return the mean over the texts that are long enough; ``texts`` in the detail: how many these are."""
    counted = above[~np.isnan(above)]
    if not counted.size:
        return WORD_ORDER.score(None, SIGNATURE, f"no text of {LEAST} words or more")
    interval = mean_interval(counted.tolist(), (0.0, 1.0))
    detail = {"texts": float(counted.size)}
    return WORD_ORDER.score(float(counted.mean()), SIGNATURE, interval=interval, detail=detail)


class WordOrder:
    """A model of the word pairs of human text (``texts``) against the same words shuffled.

    Every two neighbours, including the edges of a text, count in four ways: the words; common words and the last three
    letters of others; the end of one and the start of the next; the ends of both. The score of an order is the sum of
    log(seen / seen in shuffled text). Case, punctuation and numbers do not count.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        known = dict.fromkeys(filter(_enough, map(_words, texts)))
        counts = {word: 0 for words in known for word in words}
        for words in known:
            for word in words:
                counts[word] += 1
        self._common = set(sorted(counts, key=lambda word: (-counts[word], word))[:_COMMON])
        self._known = set(known)
        self._seen, self._shuffled = np.zeros(_CELLS), np.zeros(_CELLS)
        for _, cells in self._cells(list(known)):
            np.add.at(self._seen, cells[:, 0].ravel(), 1.0)
            np.add.at(self._shuffled, cells[:, 1:].ravel(), 1 / SHUFFLES)  # a power of two: sums are exact
        self._weights = _log_ratio(self._seen, self._shuffled)

    def above(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return, per text, the share of its shuffles that score below it, ties counting half.

        NaN for texts of fewer than ``LEAST`` words. What a known text has added to the counts is subtracted first:
        human and copied text have no advantage.
        """
        words = [_words(text) for text in texts]
        found = np.full(len(words), np.nan)
        counted = [i for i, row in enumerate(words) if _enough(row)]
        for rows, cells in self._cells([words[i] for i in counted]):
            scores = self._weights[cells].sum(axis=(2, 3))
            for at, row in enumerate(rows):
                if words[counted[row]] in self._known:
                    scores[at] = self._without(cells[at])
            won = (scores[:, :1] > scores[:, 1:]) + 0.5 * (scores[:, :1] == scores[:, 1:])
            found[[counted[row] for row in rows]] = won.mean(axis=1)
        return found

    def _without(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of a known text and of its shuffles, from the counts of all other texts."""
        used, where = np.unique(cells, return_inverse=True)
        where = where.reshape(cells.shape)
        own = np.bincount(where[0].ravel(), minlength=used.size)
        mixed = np.bincount(where[1:].ravel(), minlength=used.size) / SHUFFLES
        weights = _log_ratio(self._seen[used] - own, self._shuffled[used] - mixed)
        scores: NDArray[np.float64] = weights[where].sum(axis=(1, 2))
        return scores

    def _cells(self, rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
        """Yield batches of texts of one length: positions, and [text, order, pair, way] -> cell of counts.

        The first order is the text's own.
        """
        codes = {word: i for i, word in enumerate(dict.fromkeys(word for row in rows for word in row), 2)}
        left, right = self._codes([_START, _END, *codes])
        by_size: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            by_size.setdefault(len(row), []).append(i)
        for size, group in sorted(by_size.items()):
            step = max(_BATCH // ((SHUFFLES + 1) * (size + 1) * left.shape[1]), 1)
            for start in range(0, len(group), step):
                batch = group[start : start + step]
                orders = np.array([[codes[word] for word in rows[i]] for i in batch])[:, _orders(size)]
                ids = np.pad(orders, ((0, 0), (0, 0), (1, 1)), constant_values=((0, 0), (0, 0), (0, 1)))
                pairs = (left[ids[:, :, :-1]] * _MIX) ^ right[ids[:, :, 1:]]
                pairs = (pairs ^ (pairs >> np.uint64(29))) * _MIX
                yield batch, (pairs >> np.uint64(40)).astype(np.int64) % _CELLS

    def _codes(self, words: Sequence[str]) -> tuple[Codes, Codes]:
        """Return, per word, a hash for each of the four ways, as the first and as the second of a pair."""
        kinds = [word if word in self._common else f"-{word[-3:]}" for word in words]
        ends, starts = [word[-2:] for word in words], [word[:2] for word in words]
        return _hashed(words, kinds, ends, ends), _hashed(words, kinds, starts, ends)


def _words(text: str) -> tuple[str, ...]:
    """Return the first words, split at whitespace, letters only: ``l-istat`` is one word."""
    return tuple(islice(filter(None, map(letters_of, lowercase(text).split())), MOST))


def _enough(words: Sequence[str]) -> bool:
    return len(words) >= LEAST


def _log_ratio(seen: NDArray[np.float64], shuffled: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.log((seen + _SMOOTHING) / (shuffled + _SMOOTHING))
    return ratio


@lru_cache(maxsize=2 * MOST)
def _orders(size: int) -> NDArray[np.int64]:
    """Return the identity and ``SHUFFLES`` seeded permutations, the same for all texts of this size."""
    draw = generator("word order", size)
    return np.array([np.arange(size), *(draw.permutation(size) for _ in range(SHUFFLES))])


def _hashed(*ways: Sequence[str]) -> Codes:
    hashes = [
        [crc32(f"{way}{piece}".encode("utf-8", "surrogatepass")) for piece in pieces] for way, pieces in enumerate(ways)
    ]
    return np.array(hashes, dtype=np.uint64).T
