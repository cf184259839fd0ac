"""Exact and near-duplicates among the texts of a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import index

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.folding import plain
from harness.scoring.metrics import NEAR_DUPLICATES
from harness.scoring.ngrams import distinct

ALIKE = 0.8
"""Jaccard index from which two texts are near-duplicates."""
_SHINGLE = 5
_BANDS, _ROWS = 32, 4
"""Two texts at the bound share a band of MinHash values with probability 1 - (1 - 0.8^4)^32 = 1 - 5e-8."""
_VERIFIED = 32
"""Most candidates of a text that are compared in full: those of the most similar MinHash."""
_BLOCK = 10_000
_NO_CHARACTER = 0x110000
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def near_duplicates(texts: Sequence[str]) -> Score:
    """Return the share of texts with another text that is equal or nearly so; ``exact`` in the detail: equal.

    Two texts are nearly equal where their sets of character 5-grams have a Jaccard index of at least 0.8, after
    folding (``plain``), as they are or with their words in alphabetical order, so that reordered words count.
    MinHash (Broder 1997) finds the candidates, the grams themselves decide. Of more than 32 candidates the 32 most
    similar are compared, so a few texts at the bound may be missed where thousands are nearly alike. The more
    texts, the more have a partner: there is no fixed budget, compare cells of equal size only. No value for fewer
    than two texts.
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
    near = _near(unique, repeats > 1)
    near = _near([" ".join(sorted(text.split())) for text in unique], near)
    exact = float(repeats[repeats > 1].sum() / len(texts))
    return NEAR_DUPLICATES.score(float(repeats[near].sum() / len(texts)), signature, detail={"exact": exact})


def shingles(text: str) -> NDArray[np.uint64]:
    """Return the different character 5-grams of a text as sorted 64-bit hashes; a shorter text is one gram."""
    # 2,000,000 different grams collide with a probability of 1e-7.
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < _SHINGLE:
        codes = np.append(codes, np.full(_SHINGLE - len(codes), _NO_CHARACTER, dtype=np.uint64))
    grams = np.zeros(len(codes) - _SHINGLE + 1, dtype=np.uint64)
    for i in range(_SHINGLE):
        grams = (grams ^ codes[i : i + len(grams)]) * _FACTOR
        grams ^= grams >> np.uint64(29)
    return distinct(grams)


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Return the Jaccard index of two sets of grams."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _near(unique: Sequence[str], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of different texts are near-duplicates; those ``known`` to be are not compared again."""
    grams = [shingles(text) for text in unique]
    rows = _minhash(grams)
    found, crowded = known.copy(), set[int]()

    def verify(i: int, others: Iterable[int]) -> None:
        for j in others:
            if j != i and jaccard(grams[i], grams[j]) >= ALIKE:
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


def _minhash(grams: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint32]:
    """Return a row of MinHash values per set of grams."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=_BANDS * _ROWS, seed=1, hashfunc=index)  # which leaves a number as it is
    rows = np.empty((len(grams), _BANDS * _ROWS), dtype=np.uint32)
    for i, values in enumerate(grams):
        sketch.clear()
        halves = (values >> np.uint64(32)).astype(np.uint32)
        for start in range(0, len(halves), _BLOCK):  # a very long text would fill the memory
            sketch.update_batch(halves[start : start + _BLOCK].tolist())
        rows[i] = sketch.hashvalues
    return rows


def _buckets(rows: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Yield groups of two texts or more that share all values of a band."""
    # Not datasketch's MinHashLSH: the score depends on which candidates of a crowded text are compared.
    values = rows.tobytes()
    size, step = _ROWS * rows.itemsize, _BANDS * _ROWS * rows.itemsize
    for band in range(0, step, size):
        groups: dict[bytes, list[int]] = {}
        for i, start in enumerate(range(band, len(values), step)):
            groups.setdefault(values[start : start + size], []).append(i)
        if len(groups) < len(rows):
            yield from (group for group in groups.values() if len(group) > 1)


def _most_similar(signs: NDArray[np.uint8], i: int) -> list[int]:
    """Return the texts that share the most values with one, by the last byte of each; itself is the first."""
    shared = np.bitwise_count(np.packbits(signs == signs[i], axis=1).view(np.uint64)).sum(axis=1)
    best = np.argsort(-shared.astype(np.int64), kind="stable")
    return [int(j) for j in best[: _VERIFIED + 1]]
