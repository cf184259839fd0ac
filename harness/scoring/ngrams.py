"""Character n-grams of many texts at once, as hashes in numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.corpus import normalise

PAD = "\U0010ffff"  # a code point that Unicode keeps free for such uses
_SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of texts, in their order; those of text i are ``hashes[starts[i]:starts[i + 1]]``.

    An n-gram never crosses the end of a text. Of a text shorter than n the whole text counts as one; an
    empty text has none.
    """

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str], size: int) -> Ngrams:
        """Return the n-grams of ``size`` characters (code points) of texts as they are."""
        padded = [text.ljust(size, PAD) if text else "" for text in texts]
        counts = np.array([max(len(text) - size + 1, 0) for text in padded], dtype=np.int64)
        joined = "".join(padded).encode("utf-32-le", "surrogatepass")
        windows = _windows(np.frombuffer(joined, dtype=np.uint32), size)
        starts = np.concatenate([[0], np.cumsum(counts)])
        # Between the windows of two texts stand size - 1 that cross the border; they are left out.
        lengths = np.array([len(text) for text in padded], dtype=np.int64)
        shift = np.concatenate([[0], np.cumsum(lengths)])[:-1] - starts[:-1]
        return cls(windows[np.arange(starts[-1]) + np.repeat(shift, counts)], starts)

    def mean(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the mean per text of a value per n-gram; 0 for a text without any."""
        sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return np.diff(sums[self.starts]) / np.maximum(np.diff(self.starts), 1)


class NgramIndex:
    """Which n-grams occur in a set of texts. Texts are compared in their normal form (``normalise``)."""

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self.size = size
        self.hashes = np.unique(self._ngrams(texts).hashes)

    def known(self, texts: Sequence[str]) -> tuple[Ngrams, NDArray[np.bool_]]:
        """Return the n-grams of texts and, for each of them, whether it occurs here."""
        grams = self._ngrams(texts)
        return grams, member(grams.hashes, self.hashes)

    def share(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return, for each text, the share of its n-grams that occur here; 0 for an empty text."""
        grams, known = self.known(texts)
        return grams.mean(known)

    def _ngrams(self, texts: Sequence[str]) -> Ngrams:
        return Ngrams.of([normalise(text) for text in texts], self.size)


def member(values: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which values occur in a sorted array."""
    if not ordered.size:
        return np.zeros(values.size, dtype=np.bool_)
    found = np.minimum(np.searchsorted(ordered, values), ordered.size - 1)
    hits: NDArray[np.bool_] = ordered[found] == values
    return hits


def _windows(codes: NDArray[np.uint32], size: int) -> NDArray[np.uint64]:
    """Return a hash of every window of ``size`` codes: a polynomial modulo 2**64 of scrambled codes.

    Windows of twice the length are made of two neighbours, so a long window costs its logarithm. Two
    different n-grams meet by chance once in 2**64 pairs.
    """
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
