"""TF-IDF over character n-grams as scikit-learn has it, counted in numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from harness.scoring.ngrams import window_hashes

_BLANKS = re.compile(r"\s\s+")
_BLOCK = 1000  # texts that are counted at once: bounds memory
_SIZES, _OFFSETS = 8, 2**24  # sizes of n-grams and offsets in a piece that a place can hold


@dataclass(frozen=True)
class _Grams:
    """The n-grams of texts: hash, text, and what orders them as scikit-learn meets them."""

    hashes: NDArray[np.uint64]
    texts: NDArray[np.int64]
    places: NDArray[np.int64]


class NgramTfidf:
    """``TfidfVectorizer(sublinear_tf=True, lowercase=False)`` of scikit-learn, bit for bit, several times faster.

    ``sizes``: characters of the n-grams, from and to. ``words``: n-grams lie within a word and a blank on either side
    (analyzer ``char_wb``, ``sizes`` up to 3), not across words. ``least``: how many texts must have an n-gram.
    N-grams are known by 64-bit hashes. ``fit`` comes first.
    """

    def __init__(
        self, sizes: tuple[int, int], *, words: bool = False, least: int = 1, dtype: DTypeLike = np.float64
    ) -> None:
        from sklearn.feature_extraction.text import TfidfTransformer

        self._sizes, self._words, self._least = range(sizes[0], sizes[1] + 1), words, least
        self._dtype = np.dtype(dtype)
        self._weights = TfidfTransformer(sublinear_tf=True)

    def fit(self, texts: Sequence[str]) -> Any:
        """Learn the n-grams of texts and their weights; return the rows of the texts, sparse (CSR)."""
        units, text_of = self._units(texts)
        grams = self._grams(units, text_of)
        self._known, group = np.unique(grams.hashes, return_inverse=True)
        counts = self._matrix(grams.texts, group, len(texts))
        kept = np.flatnonzero(np.bincount(counts.indices, minlength=self._known.size) >= self._least)
        first = np.full(self._known.size, np.iinfo(np.int64).max)
        np.minimum.at(first, group, grams.places)
        # Columns are in alphabetical order. Within a row of the fitted texts they are in the order in which n-grams
        # were met: sums of a row, and with them the last digits of what is trained on it, depend on that.
        ranks = np.empty(self._known.size, dtype=np.int64)
        met = kept[np.argsort(first[kept])]
        ranks[met] = np.arange(met.size)
        counts = counts[:, met]
        counts.sort_indices()
        names = [self._name(units, place) for place in first[met].tolist()]
        alphabetical = np.empty(met.size, dtype=np.int32)
        alphabetical[np.array(sorted(range(met.size), key=names.__getitem__), dtype=np.int64)] = np.arange(met.size)
        counts.indices = alphabetical[counts.indices]
        counts.has_sorted_indices = False
        self._known, self._columns = self._known[kept], alphabetical[ranks[kept]]
        return self._weights.fit(counts).transform(counts, copy=False)

    def transform(self, texts: Sequence[str]) -> Any:
        """Return the rows of texts, sparse (CSR): of length 1, zeros for a text without any known n-gram.

        At least one text is needed, as in scikit-learn.
        """
        from scipy.sparse import vstack
        from sklearn.utils.sparsefuncs_fast import inplace_csr_row_normalize_l2

        blocks = [self._counts(texts[i : i + _BLOCK]) for i in range(0, len(texts), _BLOCK)]
        rows = vstack(blocks, format="csr")
        # As ``TfidfTransformer.transform``, whose checks take longer than that for a few texts.
        np.log(rows.data, rows.data)
        rows.data += 1.0
        rows.data *= self._weights.idf_[rows.indices]
        inplace_csr_row_normalize_l2(rows)
        return rows

    def _counts(self, texts: Sequence[str]) -> Any:
        grams = self._grams(*self._units(texts))
        found = np.minimum(np.searchsorted(self._known, grams.hashes), self._known.size - 1)
        there = self._known[found] == grams.hashes
        return self._matrix(grams.texts[there], self._columns[found[there]], len(texts))

    def _matrix(self, rows: NDArray[np.int64], columns: NDArray[Any], n_texts: int) -> Any:
        from scipy.sparse import csr_matrix

        ones = np.ones(rows.size, dtype=self._dtype)
        return csr_matrix((ones, (rows.astype(np.int32), columns.astype(np.int32))), (n_texts, self._known.size))

    def _units(self, texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
        """Return the pieces that no n-gram crosses, and the text of each."""
        if not self._words:
            return list(texts), np.arange(len(texts))
        split = [text.split() for text in texts]
        return [f" {word} " for own in split for word in own], np.repeat(np.arange(len(texts)), [*map(len, split)])

    def _grams(self, units: Sequence[str], text_of: NDArray[np.int64]) -> _Grams:
        unit_of = np.repeat(np.arange(len(units)), np.fromiter(map(len, units), dtype=np.int64, count=len(units)))
        codes = np.frombuffer("".join(units).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        start_of = np.searchsorted(unit_of, np.arange(len(units)))
        parts = [*self._of_size(codes, unit_of, start_of)]
        hashes, owners, places = (np.concatenate(column) for column in zip(*parts, strict=True))
        return _Grams(hashes, text_of[owners], places)

    def _of_size(
        self, codes: NDArray[np.uint32], unit_of: NDArray[np.int64], start_of: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]]:
        """Yield for every size: hashes, units and places (unit, size, offset as one number)."""
        for size in self._sizes:
            last = max(codes.size - size + 1, 0)
            within = np.flatnonzero(unit_of[:last] == unit_of[size - 1 :])
            owners = unit_of[within]
            # The size is part of the hash: two n-grams of different lengths are never one.
            hashes = window_hashes(codes, size)[within] * np.uint64(2 * size + 1)
            yield hashes, owners, (owners * _SIZES + size) * _OFFSETS + within - start_of[owners]

    def _name(self, units: Sequence[str], place: int) -> str:
        """Return the n-gram at a place."""
        rest, offset = divmod(place, _OFFSETS)
        unit, size = divmod(rest, _SIZES)
        return units[unit][offset : offset + size]


def hashed_counts(texts: Sequence[str], sizes: Sequence[int], bits: int) -> Any:
    """Return what ``HashingVectorizer(analyzer="char", alternate_sign=False, norm=None)`` of scikit-learn counts.

    The texts by 2**``bits`` columns, sparse (CSR): the MurmurHash3 of the n-gram's UTF-8.
    """
    from scipy.sparse import csr_array

    plain = [_BLANKS.sub(" ", text.lower()) for text in texts]
    joined = "".join(plain).encode("utf-8", "surrogatepass") + bytes(4)
    data = np.frombuffer(joined, dtype=np.uint8)
    begins = np.flatnonzero((data & 0xC0) != 0x80)  # of characters
    words = np.lib.stride_tricks.sliding_window_view(data, 4).copy().view("<u4").ravel()
    text_of = np.repeat(np.arange(len(plain)), [*map(len, plain)])
    rows, columns = [], []
    for size in sizes:
        last = max(text_of.size - size + 1, 0)
        within = np.flatnonzero(text_of[:last] == text_of[size - 1 :])
        hashes = _murmur3(words, begins[within], begins[within + size] - begins[within])
        rows.append(text_of[within])
        columns.append(np.abs(hashes.view(np.int32).astype(np.int64)) % 2**bits)
    row, column = np.concatenate(rows), np.concatenate(columns)
    places = row.astype(np.int32), column.astype(np.int32)
    return csr_array((np.ones(row.size), places), shape=(len(texts), 2**bits))


def _murmur3(words: NDArray[np.uint32], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return MurmurHash3 (x86, 32 bits, seed 0) of runs of bytes; ``words``: the four bytes from each byte on."""

    def turned(values: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
        return (values << np.uint32(bits)) | (values >> np.uint32(32 - bits))

    def mixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return turned(values * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)

    whole, found = lengths // 4, np.zeros(starts.size, dtype=np.uint32)
    for i in range(int(whole.max(initial=0))):
        longer = np.flatnonzero(whole > i)
        block = turned(found[longer] ^ mixed(words[starts[longer] + 4 * i]), 13)
        found[longer] = block * np.uint32(5) + np.uint32(0xE6546B64)
    rest = (np.uint32(1) << (8 * (lengths % 4)).astype(np.uint32)) - np.uint32(1)
    found ^= mixed(words[starts + 4 * whole] & rest) ^ lengths.astype(np.uint32)
    found = (found ^ (found >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    found = (found ^ (found >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return found ^ (found >> np.uint32(16))
