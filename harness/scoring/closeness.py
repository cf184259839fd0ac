"""chrF and BLEU of every text of a group against the others, of all groups at once.

The values are sacrebleu's ``sentence_score``, bit for bit. It counts the n-grams of every reference again for every
hypothesis, which took more than half of the time of scoring a small cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.scoring.ngrams import window_hashes

Groups = NDArray[np.int64]
"""Positions of different texts, [groups, texts of a group]."""
Codes = NDArray[np.uint32]
"""A text as numbers, one per character or per word."""

_CHRF_ORDERS, _BLEU_ORDERS = range(1, 7), range(1, 5)
_RECALL = 4  # sacrebleu's beta**2
_TOGETHER = 400  # texts that are compared at once
_MIX = np.uint64(0x9E3779B97F4A7C15)


def chrf_of_groups(texts: Sequence[str], groups: Groups) -> FloatArray:
    """Return chrF2 of each text against its best match in its group, 0 to 100: [groups, texts of a group]."""
    lines = ["".join(text.split()).encode("utf-32-le", "surrogatepass") for text in texts]
    return _by_parts([np.frombuffer(line, dtype=np.uint32) for line in lines], groups, _chrf)


def bleu_of_groups(texts: Sequence[str], groups: Groups, bleu: Any) -> FloatArray:
    """Return BLEU of each text against all others of its group; ``bleu``: sacrebleu's metric."""
    lines = [bleu.tokenizer(text.rstrip()).split() for text in texts]
    number = {word: i for i, word in enumerate(dict.fromkeys(word for line in lines for word in line))}
    codes = [np.array([number[word] for word in line], dtype=np.uint32) for line in lines]

    @cache  # few texts have much in common
    def score(*counts: int) -> float:
        correct, total, (size, closest) = list(counts[:4]), list(counts[4:8]), counts[8:]
        method, value = bleu.smooth_method, bleu.smooth_value
        found = bleu.compute_bleu(correct, total, size, closest, method, value, bleu.effective_order)
        return float(found.score)

    return _by_parts(codes, groups, lambda chosen, part: _bleu(chosen, part, score))


def _by_parts(
    codes: Sequence[Codes], groups: Groups, measure: Callable[[Sequence[Codes], Groups], FloatArray]
) -> FloatArray:
    """Return what ``measure`` gives for groups, as many at once as bounds the memory."""
    step = len(groups) if len(codes) <= _TOGETHER else max(_TOGETHER // groups.shape[1], 1)
    found = []
    for start in range(0, len(groups), step):
        used, part = np.unique(groups[start : start + step], return_inverse=True)
        found.append(measure([codes[i] for i in used], part.reshape(-1, groups.shape[1])))
    return np.concatenate(found)


def _chrf(codes: Sequence[Codes], groups: Groups) -> FloatArray:
    shares, orders = np.zeros((len(codes), len(codes))), np.zeros((len(codes), len(codes)))
    for size in _CHRF_ORDERS:
        bags, total = _bags(codes, size)
        there = (total > 0)[:, None] & (total > 0)
        shares += np.where(there, bags @ bags.T / np.maximum(total, 1)[:, None], 0.0)
        orders += there
    shares /= np.maximum(orders, 1)  # of the n-grams of one text, those that the other has
    precision, recall = shares, shares.T
    scores = (1 + _RECALL) * precision * recall
    scores /= np.where(scores > 0, _RECALL * precision + recall, 1.0)
    pairs = (100 * scores)[groups[:, :, None], groups[:, None, :]]
    pairs[:, np.eye(groups.shape[1], dtype=np.bool_)] = 0.0
    best: FloatArray = pairs.max(axis=2)
    return best


def _bleu(codes: Sequence[Codes], groups: Groups, score: Callable[..., float]) -> FloatArray:
    correct, totals = [], []
    for size in _BLEU_ORDERS:
        bags, total = _bags(codes, size)
        own = bags[groups]
        shared = own.sum(axis=1) > 1
        correct.append(np.matmul(own, shared[:, :, None].astype(own.dtype))[:, :, 0].astype(np.int64))
        totals.append(total[groups])
    lengths = totals[0]
    # The nearest length of the others, of two equally near ones the smaller.
    most = int(lengths.max(initial=0)) + 1
    near = np.abs(lengths[:, :, None] - lengths[:, None, :]) * most + lengths[:, None, :]
    near[:, np.eye(groups.shape[1], dtype=np.bool_)] = most * most
    counts = np.stack([*correct, *totals, lengths, near.min(axis=2) % most], axis=2)
    return np.array([[score(*row) for row in group] for group in counts.tolist()])


def _bags(codes: Sequence[Codes], size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return which n-grams of ``size`` each text has, [texts, n-grams that several texts have], and how many in all.

    The second time that an n-gram occurs in a text it counts as another one: two texts have as many in common as
    their multisets have. N-grams are known by 64-bit hashes.
    """
    lengths = np.array([len(own) for own in codes], dtype=np.int64)
    total = np.maximum(lengths - size + 1, 0)
    first = np.repeat(np.cumsum(lengths) - lengths - (np.cumsum(total) - total), total) + np.arange(total.sum())
    hashes, texts = window_hashes(np.concatenate(codes), size)[first], np.repeat(np.arange(len(codes)), total)
    order = np.lexsort((hashes, texts))  # by text, then by n-gram
    ordered = hashes[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]) | (np.diff(texts) > 0)
    places = np.arange(len(order))
    times = places - np.maximum.accumulate(np.where(new, places, 0))
    _, column, texts_with = np.unique(ordered + times.astype(np.uint64) * _MIX, return_inverse=True, return_counts=True)
    several = texts_with > 1
    bags = np.zeros((len(codes), int(several.sum())), dtype=np.float32)
    kept = several[column]
    bags[texts[kept], (np.cumsum(several) - 1)[column[kept]]] = 1.0
    return bags, total
