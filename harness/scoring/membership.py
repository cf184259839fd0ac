"""Whether texts know the test split: are they nearer to it than to validation text, which nobody scores on?

Texts of somebody who has not seen the test split are as near to it as to validation text of one source.
Texts made of test text are nearer, whatever was done to them: cut up, misspelt, put in another order.
(The idea is that of membership inference, Shokri et al. 2017, with texts in the role of the model.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.folding import normalise_for_matching
from harness.scoring.metrics import MEMBERSHIP
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample
from harness.scoring.subsampling import mean_interval

GRAMS = (2, 3)
"""Lengths of the character n-grams that texts are compared by."""
BESIDE = {"test": "validation", "validation": "train"}
"""Split -> the one that it is compared with: who has seen neither is as near to one as to the other.

Nobody scores on validation text, but texts made of both would be as near to one as to the other; so
validation text is compared with train text, of which methods may be made.
"""

_WIDE = 1.5  # times the usual length, from which a text is looked at in windows
_WINDOWS = 64  # of a text, at most
_FITTED = 1000  # train texts that the weights of n-grams come from, beside all validation and test text
_BLOCK = 500
_RARE = 1e-6
_SAME = 0.999  # cosine from which a text is the one that it is compared with


@dataclass(frozen=True)
class _Split:
    """Texts of a split as columns, and how much the nearest, the second nearest ... counts.

    ``itself``: whether a text may be one of the split, which then does not count.
    """

    columns: Any
    weights: NDArray[np.float64]
    itself: bool = False

    @classmethod
    def of(cls, rows: Any, drawn: int, itself: bool = False) -> _Split:
        """Return a split of which ``drawn`` texts are drawn at a time."""
        return cls(rows.T.tocsr(), _weights(rows.shape[0], drawn), itself)

    def near(self, rows: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
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


def _weights(n: int, drawn: int) -> NDArray[np.float64]:
    """Return the probability that the k-th nearest of ``n`` texts is the nearest of ``drawn`` of them.

    So the mean over all draws is exact, and none has to be made. What is left of less than 1e-6 is cut off.
    """
    left, found = 1.0, []
    for k in range(n - drawn + 1):
        found.append(left * drawn / (n - k))
        left -= found[-1]
        if left < _RARE:
            break
    return np.array(found)


@dataclass(frozen=True)
class _Nearness:
    """Of texts: how much nearer they are to one split than to another, and the nearest text of the first."""

    difference: NDArray[np.float64]
    nearest: NDArray[np.int64]


class _Index:
    """The human text of a place, ready for look-ups.

    ``usual``: how much nearer train text is to each split. Small splits may differ in what they are about;
    where the other split is nearer, nothing is made of it.
    """

    def __init__(self, place: ScoringContext) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        every = max(len(place.train) // _FITTED, 1)
        train, validation, test = (
            [normalise_for_matching(text) for text, _ in rows]
            for rows in (place.train[::every], place.validation, place.test)
        )
        self._size = max(int(np.median([len(text) for text in (*validation, *test)])), 1)
        self._vectors = TfidfVectorizer(
            analyzer="char", ngram_range=GRAMS, sublinear_tf=True, lowercase=False, dtype=np.float32
        ).fit([*train, *validation, *test])
        rows = {"train": train[::2], "validation": validation, "test": test}
        drawn = min(len(texts) for texts in rows.values() if texts)
        self._splits = {
            split: _Split.of(self._vectors.transform(texts), drawn, itself=split == "train")
            for split, texts in rows.items()
            if texts
        }
        self.usual = dict.fromkeys(BESIDE, 0.0)
        if train[1::2]:
            found = self.nearness(train[1::2])
            self.usual = {split: max(float(found[split].difference.mean()), 0.0) for split in found}

    def nearness(self, texts: Sequence[str]) -> dict[str, _Nearness]:
        """Return split -> how much nearer texts are to it than to the one beside it."""
        windows = [self._windows(normalise_for_matching(text)) for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in windows])])[:-1]
        rows = self._vectors.transform([window for own in windows for window in own])
        near = {split: _best(*index.near(rows), starts) for split, index in self._splits.items()}
        return {
            split: _Nearness(near[split][0] - near[other][0], near[split][1])
            for split, other in BESIDE.items()
            if split in near and other in near
        }

    def _windows(self, text: str) -> list[str]:
        """Return a text, and where it is long, pieces of the usual length of a text that overlap by half."""
        if len(text) <= _WIDE * self._size:
            return [text]
        step = max(self._size // 2, -(-len(text) // _WINDOWS))
        return [text, *(text[i : i + self._size] for i in range(0, len(text) - self._size // 2, step))]


def _best(
    values: NDArray[np.float64], nearest: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the highest value among the windows of each text, and what that window is nearest to."""
    highest = np.maximum.reduceat(values, starts)
    of_text = np.repeat(np.arange(starts.size), np.diff(starts, append=values.size))
    where = np.flatnonzero(values == highest[of_text])
    return highest, nearest[where[np.searchsorted(of_text[where], np.arange(starts.size))]]


class MembershipScorer:
    """How much nearer texts are to held-out text than to other human text; see ``Part``."""

    name = "membership"
    human = True

    def __init__(self) -> None:
        from importlib.metadata import version

        self.signature = (
            f"membership|char:{GRAMS[0]}-{GRAMS[1]}|tfidf:sublinear|windows:half-overlap|form:folded"
            f"|sklearn:{version('scikit-learn')}|version:1"
        )
        self._place: ScoringContext | None = None
        self._index: _Index | None = None

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """Return ``MEMBERSHIP`` of test and validation text.

        In the detail ``texts``: how many independent texts the mean is worth.
        """
        texts = [text for text in sample.texts if normalise_for_matching(text)]
        if not texts or not place.validation or not place.test:
            note = "no texts" if not texts else "no held-out text"
            return ScorerOutput([MEMBERSHIP.for_provider(split).score(None, self.signature, note) for split in BESIDE])
        if place is not self._place or self._index is None:
            self._place, self._index = place, _Index(place)
        found = self._index.nearness(texts)
        return ScorerOutput([self._score(split, found.get(split), self._index.usual) for split in BESIDE])

    def _score(self, split: str, found: _Nearness | None, usual: Mapping[str, float]) -> Score:
        metric = MEMBERSHIP.for_provider(split)
        if found is None:
            return metric.score(None, self.signature, f"no {BESIDE[split]} text")
        values = found.difference - usual[split]
        detail = {"texts": independent(found.nearest)}
        interval = mean_interval(values.tolist())
        return metric.score(float(values.mean()), self.signature, interval=interval, detail=detail)


def independent(groups: NDArray[np.int64]) -> float:
    """Return how many groups of equal size would vary as much as these (Kish's effective number).

    Texts whose nearest test text is the same say the same: what is repeated with small changes must not
    count as often as it is repeated.
    """
    counts = np.unique(groups, return_counts=True)[1].astype(float)
    return float(counts.sum() ** 2 / (counts**2).sum())
