"""Whether texts know the test split: are they nearer to it than to validation text, which nobody scores on?

Texts of somebody who has not seen the test split are as near to it as to validation text of one source.
Texts made of test text are nearer, whatever was done to them: cut up, misspelt, put in another order.
(The idea is that of membership inference, Shokri et al. 2017, with texts in the role of the model.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records import Score
from harness.scoring.folding import bare
from harness.scoring.metrics import MEMBERSHIP
from harness.scoring.parts import Place, Sample, Scored
from harness.scoring.subsampling import mean_interval

GRAMS = (2, 3)
"""Lengths of the character n-grams that texts are compared by."""

_WIDE = 1.5  # times the usual length, from which a text is looked at in windows
_WINDOWS = 64  # of a text, at most
_FITTED = 1000  # train texts that the weights of n-grams come from, beside all validation and test text
_BLOCK = 500
_RARE = 1e-6


@dataclass(frozen=True)
class _Split:
    """Texts of a split as columns, and how much the nearest, the second nearest ... counts."""

    columns: Any
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Any, drawn: int) -> _Split:
        """Return a split of which ``drawn`` texts are drawn at a time."""
        return cls(rows.T.tocsr(), _weights(rows.shape[0], drawn))

    def near(self, rows: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return for each row the expected cosine with the nearest drawn text, and the nearest of all."""
        values, nearest = [], []
        for first in range(0, rows.shape[0], _BLOCK):
            found = (rows[first : first + _BLOCK] @ self.columns).toarray()
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


class _Index:
    """The validation and test text of a place, ready for look-ups.

    ``usual``: how much nearer train text is to test text. Small splits may differ in what they are about;
    where validation text is nearer, nothing is made of it.
    """

    def __init__(self, place: Place) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        validation, test = ([bare(text) for text, _ in rows] for rows in (place.validation, place.test))
        train = [bare(text) for text, _ in place.train[:: max(len(place.train) // _FITTED, 1)]]
        self._size = max(int(np.median([len(text) for text in (*validation, *test)])), 1)
        self._vectors = TfidfVectorizer(
            analyzer="char", ngram_range=GRAMS, sublinear_tf=True, lowercase=False, dtype=np.float32
        ).fit([*train, *validation, *test])
        drawn = min(len(validation), len(test))
        self._validation, self._test = (
            _Split.of(self._vectors.transform(texts), drawn) for texts in (validation, test)
        )
        self.usual = max(float(self.differences(train)[0].mean()), 0.0) if train else 0.0

    def differences(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return for each text how much nearer it is to test text, and which test text is the nearest."""
        windows = [self._windows(bare(text)) for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in windows])])[:-1]
        rows = self._vectors.transform([window for own in windows for window in own])
        test, nearest = self._test.near(rows)
        validation, _ = self._validation.near(rows)
        difference = np.maximum.reduceat(test, starts) - np.maximum.reduceat(validation, starts)
        return difference, nearest[starts]

    def _windows(self, text: str) -> list[str]:
        """Return a text, and where it is long, pieces of the usual length of a text that overlap by half."""
        if len(text) <= _WIDE * self._size:
            return [text]
        step = max(self._size // 2, -(-len(text) // _WINDOWS))
        return [text, *(text[i : i + self._size] for i in range(0, len(text) - self._size // 2, step))]


class MembershipPart:
    """How much nearer texts are to test text than to validation text; see ``Part``."""

    name = "membership"
    human = True

    def __init__(self) -> None:
        from importlib.metadata import version

        self.signature = (
            f"membership|char:{GRAMS[0]}-{GRAMS[1]}|tfidf:sublinear|windows:half-overlap|form:folded"
            f"|sklearn:{version('scikit-learn')}|version:1"
        )
        self._place: Place | None = None
        self._index: _Index | None = None

    def score(self, sample: Sample, place: Place) -> Scored:
        """Return ``MEMBERSHIP``. In the detail ``texts``: how many independent texts the mean is worth."""
        return Scored([self._score(sample, place)])

    def _score(self, sample: Sample, place: Place) -> Score:
        texts = [text for text in sample.texts if bare(text)]
        if not texts or not place.validation or not place.test:
            return MEMBERSHIP.score(None, self.signature, "no texts" if not texts else "no held-out text")
        if place is not self._place or self._index is None:
            self._place, self._index = place, _Index(place)
        found, nearest = self._index.differences(texts)
        found -= self._index.usual
        detail = {"texts": independent(nearest)}
        interval = mean_interval(found.tolist())
        return MEMBERSHIP.score(float(found.mean()), self.signature, interval=interval, detail=detail)


def independent(groups: NDArray[np.int64]) -> float:
    """Return how many groups of equal size would vary as much as these (Kish's effective number).

    Texts whose nearest test text is the same say the same: what is repeated with small changes must not
    count as often as it is repeated.
    """
    counts = np.unique(groups, return_counts=True)[1].astype(float)
    return float(counts.sum() ** 2 / (counts**2).sum())
