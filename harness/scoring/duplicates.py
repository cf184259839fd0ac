"""Exact and near-duplicates among the texts of a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.folding import plain
from harness.scoring.metrics import NEAR_DUPLICATES
from harness.scoring.ngrams import PAD, distinct

ALIKE = 0.8
"""Jaccard index from which two texts are near-duplicates."""
_SHINGLE = 5
_BANDS, _ROWS = 32, 4
"""Two texts at the bound share a band of MinHash values with probability 1 - (1 - 0.8^4)^32 = 1 - 5e-8."""
_VERIFIED = 32
"""Most candidates of a text that are compared in full: those of the most similar MinHash."""
_BLOCK = 512
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


Grams = NDArray[np.uint64]
Sketch = tuple[Grams, NDArray[np.uint32]]
"""The grams of a text in any order, with repeats (see ``shingles``), and their MinHash values."""


class Sketches:
    """Sketches of texts; those of a text are made once."""

    def __init__(self) -> None:
        self._known: dict[str, Sketch] = {}

    def __call__(self, texts: Sequence[str]) -> list[Sketch]:
        """Return the sketch of every text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            grams, starts = _grams(new)
            self._known |= zip(new, zip(np.split(grams, starts[1:]), _minhash(grams, starts), strict=True), strict=True)
        return [self._known[text] for text in texts]


def near_duplicates(texts: Sequence[str], sketches: Sketches | None = None) -> Score:
    """Return the share of texts with another text that is equal or nearly so; ``exact`` in the detail: equal.

    Two texts are nearly equal where their sets of character 5-grams have a Jaccard index of at least 0.8, after
    folding (``plain``), as they are or with their words in alphabetical order, so that reordered words count.
    MinHash (Broder 1997) finds the candidates, the grams themselves decide. Of more than 32 candidates the 32 most
    similar are compared, so a few texts at the bound may be missed where thousands are nearly alike. The more
    texts, the more have a partner: there is no fixed budget, compare cells of equal size only. No value for fewer
    than two texts. ``sketches``: kept by a caller that compares overlapping sets of texts.
    """
    signature = (
        f"near-duplicates|jaccard:{ALIKE}|shingle:{_SHINGLE}|minhash:{_BANDS}x{_ROWS}|seed:1"
        "|order:any|form:folded|version:3"
    )
    if len(texts) < 2:
        return NEAR_DUPLICATES.score(None, signature, "fewer than two texts")
    counts = Counter(plain(text) for text in texts)
    unique = sorted(counts)
    repeats = np.array([counts[text] for text in unique])
    sketches = sketches or Sketches()
    near = _near(sketches(unique), repeats > 1)
    near = _near(sketches([" ".join(sorted(text.split())) for text in unique]), near)
    exact = float(repeats[repeats > 1].sum() / len(texts))
    return NEAR_DUPLICATES.score(float(repeats[near].sum() / len(texts)), signature, detail={"exact": exact})


def shingles(text: str) -> Grams:
    """Return the different character 5-grams of a text as sorted 64-bit hashes; a shorter text is one gram."""
    return distinct(_grams([text])[0])


def _grams(texts: Sequence[str]) -> tuple[Grams, NDArray[np.int64]]:
    """Return the character 5-grams of texts as hashes, and where those of each text start."""
    # 2,000,000 different grams collide with a probability of 1e-7.
    padded = [text.ljust(_SHINGLE, PAD) for text in texts]
    lengths = np.array([*map(len, padded)], dtype=np.int64)
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    grams = np.zeros(len(codes) - _SHINGLE + 1, dtype=np.uint64)
    for i in range(_SHINGLE):
        grams = (grams ^ codes[i : i + len(grams)]) * _FACTOR
        grams ^= grams >> np.uint64(29)
    counts = lengths - _SHINGLE + 1
    starts = np.cumsum(counts) - counts
    # Between two texts lie the windows that cross from one to the other.
    crossing = (_SHINGLE - 1) * np.arange(len(texts))
    return grams[np.arange(counts.sum()) + np.repeat(crossing, counts)], starts


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Return the Jaccard index of two sets of grams."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _near(unique: Sequence[Sketch], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of different texts are near-duplicates; those ``known`` to be are not compared again."""
    grams = cache(lambda i: distinct(unique[i][0]))
    rows = np.stack([row for _, row in unique])
    found, crowded = known.copy(), set[int]()

    def verify(i: int, others: Iterable[int]) -> None:
        for j in others:
            if j != i and jaccard(grams(i), grams(j)) >= ALIKE:
                found[[i, j]] = True
                return

    for bucket in _buckets(rows):
        large_bucket = len(bucket) > _VERIFIED
        for at, i in enumerate(bucket):
            if not found[i]:
                verify(i, bucket[at - 1 : at] if large_bucket and at else bucket[:_VERIFIED])
                if large_bucket:
                    crowded.add(i)
    signs = rows.astype(np.uint8)
    for i in sorted(crowded):
        if not found[i]:
            verify(i, _most_similar(signs, i))
    return found


def _minhash(grams: Grams, starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the MinHash values of the grams of each text, [texts, values], as datasketch 2 has them."""
    # The library wants a Python number for every gram, which takes longer than the rest.
    hashes = (grams >> np.uint64(32)).astype(np.uint32)
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    hashes ^= hashes >> np.uint32(16)
    factor, offset = _permutations()
    cuts = np.union1d(starts, np.arange(0, len(grams), _BLOCK))
    ends = np.append(cuts[1:], len(grams))
    # One block after the other stays in the processor's cache.
    least = [(factor * hashes[i:j, None] + offset).min(axis=0) for i, j in zip(cuts, ends, strict=True)]
    found: NDArray[np.uint32] = np.minimum.reduceat(np.stack(least), np.searchsorted(cuts, starts))
    return found


@cache
def _permutations() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the factors, which are odd, and the offsets of the MinHash values."""
    draw = np.random.RandomState(1)  # numpy never changes its numbers
    factor = draw.randint(0, 2**31, _BANDS * _ROWS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factor, draw.randint(0, 2**32, _BANDS * _ROWS, dtype=np.uint32)


def _buckets(rows: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Yield groups of two texts or more that share all values of a band, in the order of their first texts."""
    # Not datasketch's MinHashLSH: the score depends on which candidates of a crowded text are compared.
    bands = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), _BANDS, -1)
    mixed = np.sort(bands[:, :, 0] * _FACTOR ^ bands[:, :, 1], axis=0)
    for band in np.flatnonzero((mixed[1:] == mixed[:-1]).any(axis=0)):  # in most bands no two texts are alike
        values = bands[:, band]
        order = np.lexsort((values[:, 1], values[:, 0]))
        ordered = values[order]
        edges = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
        starts = np.concatenate([[0], edges])
        ends = np.append(edges, len(rows))
        several = ends - starts > 1
        groups = [order[i:j].tolist() for i, j in zip(starts[several], ends[several], strict=True)]
        yield from sorted(groups, key=itemgetter(0))


def _most_similar(signs: NDArray[np.uint8], i: int) -> list[int]:
    """Return the texts that share the most values with one, by the last byte of each; itself is the first."""
    shared = np.bitwise_count(np.packbits(signs == signs[i], axis=1).view(np.uint64)).sum(axis=1)
    best = np.argsort(-shared.astype(np.int64), kind="stable")
    return [int(j) for j in best[: _VERIFIED + 1]]
