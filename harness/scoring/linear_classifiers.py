"""The classifiers whose training is exact: logistic regression on n-grams or on sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.checkpoints import Checkpoint
from harness.scoring.dual_logreg import Probabilities, fit_dual
from harness.scoring.scorer import Rows, ScoringContext

_PENALTY = 10.0  # scikit-learn's C, tuned for neither of the two


class TfidfClassifier:
    """TF-IDF over character 2- to 5-grams and logistic regression: milliseconds on a CPU.

    The optimum is unique, so there is nothing that a seed could vary: one run.
    """

    name = "tfidf"
    signature = "tfidf-char-2-5-sublinear-hash18+logreg-C10|version:2"

    def __init__(self) -> None:
        self.seeds = [0]
        self._train, self._test = _Recent(self._log_counts), _Recent(self._log_counts)

    @cached_property
    def _counter(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(analyzer="char", ngram_range=(2, 5), n_features=2**18, alternate_sign=False, norm=None)

    def _log_counts(self, texts: Sequence[str]) -> Any:
        counts = self._counter.transform(texts)
        counts.data = 1.0 + np.log(counts.data)
        return counts

    def probabilities(self, train: Rows, place: ScoringContext, seed: int) -> Probabilities:
        """See ``harness.scoring.classifiers.Classifier``."""
        counts = self._train([text for text, _ in train])
        columns = _Columns.of(counts)
        features = columns.rows(counts)
        dual = fit_dual((features @ features.T).toarray(), _targets(train, place), _PENALTY)
        test = self._test([text for text, _ in place.test])
        scores = columns.products(test, features.T @ dual.weights)
        return dual.probabilities(scores, len(place.labels))


class FrozenClassifier:
    """Sentence vectors of an encoder that is left as it is, and logistic regression; exact, so one run.

    The vectors are standardised by those of the training texts: encoders' vectors share a large common
    part, which would leave the penalty to decide (Ethayarajh 2019, arXiv 1909.00512).
    """

    def __init__(self, checkpoint: Checkpoint, max_tokens: int) -> None:
        self.name = f"frozen:{checkpoint.name}"
        self.seeds = [0]
        self.signature = (
            f"{self.name}@{checkpoint.fingerprint}|mean-pooled|tokens:{max_tokens}|standardised"
            f"+logreg-C{_PENALTY:g}|version:1"
        )
        self._checkpoint, self._max_tokens = checkpoint, max_tokens

    @cached_property
    def _pooler(self) -> Any:
        from harness.scoring.encoders import MeanPooler

        return MeanPooler(self._checkpoint, self._max_tokens)

    def probabilities(self, train: Rows, place: ScoringContext, seed: int) -> Probabilities:
        """See ``harness.scoring.classifiers.Classifier``."""
        vectors = [self._pooler.embed([text for text, _ in rows]).astype(np.float64) for rows in (train, place.test)]
        features, test = _standardised(*vectors)
        dual = fit_dual(features @ features.T, _targets(train, place), _PENALTY)
        return dual.probabilities(test @ (features.T @ dual.weights), len(place.labels))


class _Recent:
    """Rows of the last texts that were read: the same texts again, or some of them, are not read again."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._texts: list[str] = []
        self._rows: Any = None

    def __call__(self, texts: list[str]) -> Any:
        if self._texts and texts == self._texts:
            return self._rows
        position = {text: i for i, text in enumerate(self._texts)}
        if position.keys() >= set(texts):
            return self._rows[[position[text] for text in texts]]
        self._texts, self._rows = texts, self._read(texts)
        return self._rows


def _targets(train: Rows, place: ScoringContext) -> NDArray[np.int64]:
    return np.array([place.labels.index(label) for _, label in train], dtype=np.int64)


@dataclass(frozen=True)
class _Columns:
    """The columns that occur in training texts, with their smoothed inverse document frequencies.

    ``positions``: column -> where it stands in ``weights``. All others are at 0, whose weight is 0.
    """

    weights: NDArray[np.float64]
    positions: NDArray[np.int32]

    @classmethod
    def of(cls, counts: Any) -> _Columns:
        """Return the columns of a sparse matrix (CSR) of texts."""
        used, frequencies = np.unique(counts.indices, return_counts=True)
        positions = np.zeros(counts.shape[1], dtype=np.int32)
        positions[used] = np.arange(1, len(used) + 1)
        weights = 1.0 + np.log((1 + counts.shape[0]) / (1 + frequencies))
        return cls(np.concatenate([[0.0], weights]), positions)

    def rows(self, counts: Any) -> Any:
        """Return weighed rows of length 1; zeros where a text has none of the columns."""
        found = self._sparse(counts, counts.data)
        found.data = found.data * self.weights[found.indices]
        found.data /= np.repeat(self._lengths(counts), np.diff(counts.indptr))
        return found

    def products(self, counts: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``rows(counts) @ matrix`` without making the rows: a test split has many of them."""
        found = self._sparse(counts, counts.data) @ (self.weights[:, None] * matrix)
        return np.asarray(found / self._lengths(counts)[:, None])

    def _lengths(self, counts: Any) -> NDArray[np.float64]:
        squares = self._sparse(counts, counts.data**2) @ self.weights**2
        return np.where(squares > 0, np.sqrt(squares), 1.0)

    def _sparse(self, counts: Any, data: NDArray[np.float64]) -> Any:
        from scipy.sparse import csr_array

        shape = (counts.shape[0], len(self.weights))
        return csr_array((data, self.positions[counts.indices], counts.indptr), shape=shape)


def _standardised(
    train: NDArray[np.float64], test: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both with mean 0 and mean squared length 1 on ``train``."""
    centre, spread = train.mean(axis=0), train.std(axis=0)
    varied = spread > 0  # what is constant on train gets no weight
    scale = 1.0 / (np.where(varied, spread, 1.0) * np.sqrt(max(varied.sum(), 1)))
    return (train - centre) * scale, (test - centre) * scale
