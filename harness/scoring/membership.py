"""Whether texts know the test split: are they nearer to it than to validation text, which nobody scores on?

Texts of somebody who has not seen the test split are as near to it as to validation text of the same source.
Texts made of test text are nearer, whatever was done to them: cut up, misspelt, reordered. (The idea of membership
inference, Shokri et al. 2017, with texts in the role of the model.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.scoring.folding import normalise_for_matching
from harness.scoring.metrics import MEMBERSHIP
from harness.scoring.scorer import PerContext, ScorerOutput, ScoringContext, TextSample
from harness.scoring.subsampling import mean_interval
from harness.scoring.vectorizer import NgramTfidf

GRAMS = (2, 3)
"""Lengths of the character n-grams that texts are compared by."""
COUNTERPART = {"test": "validation", "validation": "train"}
"""Split -> the one that it is compared with: who has seen neither is as near to one as to the other.

Nobody scores on validation text, but texts made of both would be as near to one as to the other; so validation
text is compared with train text, of which methods may be made."""

_WIDE = 1.5  # times the usual length, from which a text is looked at in windows
_WINDOWS = 64  # of a text, at most
_FITTED = 1000  # train texts that the n-gram weights come from, besides all validation and test text
_BLOCK = 500
_RARE = 1e-6
_SAME = 0.999  # cosine from which two texts are the same one

Nearness = tuple[FloatArray, NDArray[np.int64]]
"""Per text: a cosine or a difference of cosines, and the nearest text of the split."""


@dataclass(frozen=True)
class _Split:
    """Texts of a split as columns, and the weights of the nearest, the second nearest ... of them.

    ``itself``: whether a text may be one of the split, which then does not count.
    """

    columns: Any
    weights: FloatArray
    itself: bool = False

    def near(self, rows: Any) -> Nearness:
        """Return for each row the expected cosine with the nearest drawn text, and the nearest of all."""
        values, nearest = [], []
        for first in range(0, rows.shape[0], _BLOCK):
            found = (rows[first : first + _BLOCK] @ self.columns).toarray()
            if self.itself:
                found[found > _SAME] = 0.0
            k = min(len(self.weights), found.shape[1])
            best = np.partition(found, found.shape[1] - k, axis=1)[:, found.shape[1] - k :]
            values.append(-np.sort(-best, axis=1) @ self.weights[:k])
            nearest.append(found.argmax(axis=1))
        return np.concatenate(values), np.concatenate(nearest)


def _weights(n: int, drawn: int) -> FloatArray:
    """Return the probability that the k-th nearest of ``n`` texts is the nearest of ``drawn`` of them.

    So the mean over all draws is exact, and none has to be made. A tail below 1e-6 is cut off.
    """
    left, found = 1.0, []
    for k in range(n - drawn + 1):
        found.append(left * drawn / (n - k))
        left -= found[-1]
        if left < _RARE:
            break
    return np.array(found)


class _Index:
    """The human-written text of a context, ready for look-ups.

    ``usual``: how much nearer train text is to each split. Small splits may differ in topic; where the counterpart
    is nearer, nothing is taken off.
    """

    def __init__(self, context: ScoringContext) -> None:
        every = max(len(context.train) // _FITTED, 1)
        train, validation, test = (
            [normalise_for_matching(text) for text, _ in rows]
            for rows in (context.train[::every], context.validation, context.test)
        )
        self._size = max(int(np.median([len(text) for text in (*validation, *test)])), 1)
        self._vectors = NgramTfidf(GRAMS, dtype=np.float32)
        self._vectors.fit([*train, *validation, *test])
        splits = {"train": train[::2], "validation": validation, "test": test}
        drawn = min(len(texts) for texts in splits.values() if texts)
        self._splits = {
            split: _Split(self._vectors.transform(texts).T.tocsr(), _weights(len(texts), drawn), split == "train")
            for split, texts in splits.items()
            if texts
        }
        self.usual = dict.fromkeys(COUNTERPART, 0.0)
        if train[1::2]:
            found = self.nearness(train[1::2])
            self.usual = {split: max(float(difference.mean()), 0.0) for split, (difference, _) in found.items()}

    def nearness(self, texts: Sequence[str]) -> dict[str, Nearness]:
        """Return split -> how much nearer texts are to it than to its counterpart."""
        windows = [self._windows(normalise_for_matching(text)) for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in windows])])[:-1]
        rows = self._vectors.transform([window for own in windows for window in own])
        near = {split: _best(*index.near(rows), starts) for split, index in self._splits.items()}
        return {
            split: (near[split][0] - near[other][0], near[split][1])
            for split, other in COUNTERPART.items()
            if split in near and other in near
        }

    def _windows(self, text: str) -> list[str]:
        """Return a text, and of a long one also windows of the usual length that overlap by half."""
        if len(text) <= _WIDE * self._size:
            return [text]
        step = max(self._size // 2, -(-len(text) // _WINDOWS))
        return [text, *(text[i : i + self._size] for i in range(0, len(text) - self._size // 2, step))]


def _best(values: FloatArray, nearest: NDArray[np.int64], starts: NDArray[np.int64]) -> Nearness:
    """Return the highest value among the windows of each text, and what that window is nearest to."""
    highest = np.maximum.reduceat(values, starts)
    of_text = np.repeat(np.arange(starts.size), np.diff(starts, append=values.size))
    where = np.flatnonzero(values == highest[of_text])
    return highest, nearest[where[np.searchsorted(of_text[where], np.arange(starts.size))]]


class MembershipScorer:
    """How much nearer texts are to held-out text than to other human-written text."""

    name = "membership"
    human = True

    def __init__(self) -> None:
        self.signature = (
            f"membership|char:{GRAMS[0]}-{GRAMS[1]}|tfidf:sublinear|windows:half-overlap|form:folded"
            f"|sklearn:{version('scikit-learn')}|version:1"
        )
        self._index = PerContext(_Index)

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return ``MEMBERSHIP`` of test and validation text.

        ``texts`` in the detail: how many independent texts the mean is worth.
        """
        texts = [text for text in sample.texts if normalise_for_matching(text)]
        note = "" if context.validation and context.test else "no held-out text"
        note = note if texts else "no texts"
        index = None if note else self._index(context)
        found, scores = index.nearness(texts) if index else {}, []
        for split, other in COUNTERPART.items():
            metric = MEMBERSHIP.for_provider(split)
            if index is None or split not in found:
                scores.append(metric.score(None, self.signature, note or f"no {other} text"))
                continue
            difference, nearest = found[split]
            values = difference - index.usual[split]
            span, detail = mean_interval(values.tolist()), {"texts": independent(nearest)}
            scores.append(metric.score(float(values.mean()), self.signature, interval=span, detail=detail))
        return ScorerOutput(scores)


def independent(groups: NDArray[np.int64]) -> float:
    """Return how many groups of equal size would vary as much as these (Kish's effective number).

    Texts with the same nearest test text say the same: what is repeated with small changes must not count as often
    as it is repeated.
    """
    counts = np.unique(groups, return_counts=True)[1].astype(float)
    return float(counts.sum() ** 2 / (counts**2).sum())
