"""Character n-grams of many texts at once, as hashes in numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.corpus import normalise

PAD = "\U0010ffff"  # a Unicode noncharacter
_SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of texts, in order; those of text i are ``hashes[starts[i]:starts[i + 1]]``.

    No n-gram crosses two texts. A text shorter than n is one n-gram; an empty text has none.
    """

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str], size: int) -> Ngrams:
        """Return the n-grams of ``size`` characters (code points) of texts as they are."""
        hashes, _, starts = _all(texts, size)
        return cls(hashes, starts)

    @classmethod
    def of_words(cls, texts: Sequence[str], size: int) -> Ngrams:
        """Return the n-grams within a word and the blanks (U+0020) around it, which are independent of word order.

        Words of ``size - 3`` characters and fewer have none.
        """
        hashes, blank, starts = _all([f" {text} " for text in texts], size)
        kept = ~blank
        return cls(hashes[kept], np.concatenate([[0], np.cumsum(kept)])[starts])

    @cached_property
    def keys(self) -> Keys:
        """The hashes, ready to be looked up."""
        return Keys.of(self.hashes)

    def mean(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the mean per text of a value per n-gram; 0 for a text without any."""
        sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return np.diff(sums[self.starts]) / np.maximum(np.diff(self.starts), 1)


def count_matrix(texts: Sequence[str], sizes: Sequence[int], bits: int, *, mix: bool) -> Any:
    """Return how often each hashed n-gram of ``sizes`` occurs in each text: sparse (CSR), [texts, 2**bits].

    ``mix``: take the upper bits of a mixed hash, which depend on all the others, instead of the lower bits.
    """
    from scipy.sparse import csr_array

    grams = [Ngrams.of(texts, size) for size in sizes]
    rows = np.concatenate([np.repeat(np.arange(len(texts)), np.diff(found.starts)) for found in grams])
    hashes = np.concatenate([found.hashes for found in grams])
    columns = (hashes * _SCRAMBLE) >> np.uint64(64 - bits) if mix else hashes % np.uint64(2**bits)
    # Equal cells are summed.
    return csr_array((np.ones(len(rows)), (rows, columns.astype(np.int32))), shape=(len(texts), 2**bits))


class TfidfWeights:
    """The inverse document frequencies of the n-grams (columns) of a count matrix of texts: sublinear TF-IDF.

    As scikit-learn's ``TfidfTransformer(sublinear_tf=True)``: smoothed by one text that contains everything. ``least``:
    how many of the texts must have a column; all others do not count, in whatever text.
    """

    def __init__(self, counts: Any, least: int = 0) -> None:
        n_texts, n_columns = counts.shape
        found = np.bincount(counts.indices, minlength=n_columns)
        self._used = np.flatnonzero(found >= least)
        self.idf = np.log((1 + n_texts) / (1 + found[self._used])) + 1

    def log_counts(self, counts: Any) -> Any:
        """Return 1 + log tf of the columns that count: sparse (CSR), [texts, columns]."""
        rows = counts.copy() if self._used.size == counts.shape[1] else counts[:, self._used]
        rows.data = 1 + np.log(rows.data)
        return rows

    def rows(self, counts: Any) -> Any:
        """Return (1 + log tf) * idf in rows of length 1: sparse (CSR), zeros for a text without any column."""
        rows = self.log_counts(counts)
        rows.data *= self.idf[rows.indices]
        sizes = np.diff(rows.indptr)
        squares = np.bincount(np.repeat(np.arange(len(sizes)), sizes), rows.data**2, len(sizes))
        rows.data /= np.repeat(np.sqrt(squares), sizes)
        return rows


class NgramIndex:
    """The n-grams of a set of texts, in normal form (``normalise``)."""

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self.size = size
        self.hashes = distinct(self._ngrams(texts).hashes)

    def known(self, texts: Sequence[str]) -> tuple[Ngrams, NDArray[np.bool_]]:
        """Return the n-grams of texts and, for each of them, whether it occurs here."""
        grams = self._ngrams(texts)
        return grams, grams.keys.locate(self.hashes) >= 0

    def _ngrams(self, texts: Sequence[str]) -> Ngrams:
        return Ngrams.of([normalise(text) for text in texts], self.size)


def distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the different values, sorted; many times faster than ``numpy.unique`` of numpy 2.4."""
    ordered = np.sort(values)
    first = np.ones(ordered.size, dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


@dataclass(frozen=True)
class Keys:
    """Values that are looked up in several arrays, sorted once."""

    order: NDArray[np.int64]
    ordered: NDArray[np.uint64]

    @classmethod
    def of(cls, values: NDArray[np.uint64]) -> Keys:
        """Return the keys of values in any order."""
        order = np.argsort(values)
        return cls(order, values[order])

    def locate(self, known: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return for each value its index in an array of different sorted values; -1 where it is missing."""
        found = np.searchsorted(known, self.ordered)
        there = found < known.size
        there[there] = known[found[there]] == self.ordered[there]
        positions = np.empty(self.order.size, dtype=np.int64)
        positions[self.order] = np.where(there, found, -1)
        return positions


def _all(texts: Sequence[str], size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.int64]]:
    """Return the hash of every n-gram, whether a blank is inside it, and where those of each text start."""
    padded = [text.ljust(size, PAD) if text else "" for text in texts]
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    counts = np.maximum(lengths - size + 1, 0)
    starts = np.concatenate([[0], np.cumsum(counts)])
    # The size - 1 windows that cross from one text to the next are left out.
    shift = np.concatenate([[0], np.cumsum(lengths)])[:-1] - starts[:-1]
    first = np.arange(starts[-1]) + np.repeat(shift, counts)
    blanks = np.concatenate([[0], np.cumsum(codes == ord(" "))])
    inside = blanks[first + size - 1] > blanks[first + 1]
    return window_hashes(codes, size)[first], inside, starts


def window_hashes(codes: NDArray[np.uint32], size: int) -> NDArray[np.uint64]:
    """Return a hash of every window of ``size`` codes: a polynomial modulo 2**64 of scrambled codes."""
    # Two neighbouring windows make one of twice the length, so the cost is logarithmic in ``size``. Two different
    # n-grams collide once in 2**64 pairs.
    power = codes.astype(np.uint64) + np.uint64(1)  # of windows of 1, 2, 4, ... codes
    power = (power ^ (power >> np.uint64(9))) * _SCRAMBLE
    power ^= power >> np.uint64(29)
    done, total, length, base = 0, np.zeros(codes.size + 1, dtype=np.uint64), 1, _BASE
    while done < size:
        if size & length:
            ends = power[done:]
            total = total[: ends.size] * base + ends
            done += length
        power = power[: max(power.size - length, 0)] * base + power[length:]
        base, length = np.uint64(int(base) ** 2 % 2**64), length * 2
    return total[: max(codes.size - size + 1, 0)]
