"""Classifiers with exact training: logistic regression on n-grams or on sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.checkpoints import Checkpoint
from harness.core.types import FloatArray
from harness.scoring.classification import Probabilities
from harness.scoring.embeddings import MeanPooler
from harness.scoring.scorer import Rows, ScoringContext

_PENALTY = 10.0  # scikit-learn's C, tuned for neither of the two
_TOLERANCE = 1e-6  # of the gradient: probabilities then hold to 1e-5 (at scikit-learn's default, to 1e-3)


class TfidfClassifier:
    """TF-IDF over character 2- to 5-grams and logistic regression: milliseconds on a CPU.

    The optimum is unique, so there is nothing for a seed to vary: one run.
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

    def probabilities(self, train: Rows, context: ScoringContext, seed: int) -> Probabilities:
        """See ``harness.scoring.classifiers.Classifier``."""
        counts = self._train([text for text, _ in train])
        columns = _Columns.of(counts)
        features = columns.rows(counts)
        dual = fit_dual((features @ features.T).toarray(), _targets(train, context), _PENALTY)
        test = self._test([text for text, _ in context.test])
        scores = columns.products(test, features.T @ dual.weights)
        return dual.probabilities(scores, len(context.labels))


class FrozenClassifier:
    """Sentence vectors of a frozen encoder and logistic regression; exact, so one run.

    The vectors are standardised on the training texts: encoders' vectors share a large common component, and the
    penalty alone would decide (Ethayarajh 2019, arXiv 1909.00512).
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
    def _pooler(self) -> MeanPooler:
        return MeanPooler(self._checkpoint, self._max_tokens)

    def probabilities(self, train: Rows, context: ScoringContext, seed: int) -> Probabilities:
        """See ``harness.scoring.classifiers.Classifier``."""
        vectors = [self._pooler.embed([text for text, _ in rows]).astype(np.float64) for rows in (train, context.test)]
        features, test = _standardised(*vectors)
        dual = fit_dual(features @ features.T, _targets(train, context), _PENALTY)
        return dual.probabilities(test @ (features.T @ dual.weights), len(context.labels))


class _Recent:
    """The rows of the last texts: the same texts, or a subset, are not vectorised again."""

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


def _targets(train: Rows, context: ScoringContext) -> NDArray[np.int64]:
    return np.array([context.labels.index(label) for _, label in train], dtype=np.int64)


@dataclass(frozen=True)
class _Columns:
    """The columns that occur in training texts, with their smoothed inverse document frequencies.

    ``positions``: column -> index into ``weights``. All others have index 0, whose weight is 0.
    """

    weights: FloatArray
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
        """Return weighted rows of length 1; zeros where a text has none of the columns."""
        found = self._sparse(counts, counts.data)
        found.data = found.data * self.weights[found.indices]
        found.data /= np.repeat(self._lengths(counts), np.diff(counts.indptr))
        return found

    def products(self, counts: Any, matrix: FloatArray) -> FloatArray:
        """Return ``rows(counts) @ matrix`` without building the rows: a test split has many of them."""
        found = self._sparse(counts, counts.data) @ (self.weights[:, None] * matrix)
        return np.asarray(found / self._lengths(counts)[:, None])

    def _lengths(self, counts: Any) -> FloatArray:
        squares = self._sparse(counts, counts.data**2) @ self.weights**2
        return np.where(squares > 0, np.sqrt(squares), 1.0)

    def _sparse(self, counts: Any, data: FloatArray) -> Any:
        from scipy.sparse import csr_array

        shape = (counts.shape[0], len(self.weights))
        return csr_array((data, self.positions[counts.indices], counts.indptr), shape=shape)


def _standardised(train: FloatArray, test: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both with mean 0 and mean squared length 1 on ``train``."""
    centre, spread = train.mean(axis=0), train.std(axis=0)
    varied = spread > 0  # what is constant on train gets no weight
    scale = 1.0 / (np.where(varied, spread, 1.0) * np.sqrt(max(varied.sum(), 1)))
    return (train - centre) * scale, (test - centre) * scale


@dataclass(frozen=True)
class DualLogReg:
    """A fitted logistic regression whose weights [d, k] are features.T @ ``weights``.

    ``trained``: the label indices [k] that it was trained on; ``weights``: [n train, k]; ``intercepts``: [k].
    """

    trained: NDArray[np.int64]
    weights: FloatArray
    intercepts: FloatArray

    def probabilities(self, scores: FloatArray, n_labels: int) -> Probabilities:
        """Return [n test, n_labels] for the inner products of test texts with the weights [n test, k].

        A label that was not trained has probability 0.
        """
        logits = scores + self.intercepts
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found = np.zeros((len(scores), n_labels))
        found[:, self.trained] = powers / powers.sum(axis=1, keepdims=True)
        return found


def fit_dual(gram: FloatArray, targets: NDArray[np.int64], penalty: float) -> DualLogReg:
    """Return scikit-learn's ``LogisticRegression(C=penalty)`` of texts known by their inner products [n, n].

    The L2 penalty keeps the weights within the span of the training texts, and neither it nor the loss changes when
    that span is rotated: any coordinates with the same inner products have the same optimum (Hastie and Tibshirani
    2004, "Efficient quadratic regularization for expression arrays"). A Cholesky factor has at most as many
    coordinates as there are texts.
    """
    # Not LogisticRegression on the n-grams themselves: it stops elsewhere within its tolerance, so calibration error
    # and Brier score would change, and few texts have many n-grams.
    from scipy.linalg import solve_triangular
    from sklearn.linear_model import LogisticRegression

    trained = np.unique(targets)
    weights = np.zeros((len(gram), len(trained)))
    if len(trained) == 1:
        return DualLogReg(trained, weights, np.zeros(1))
    rows, order, rank = _factor(gram)
    model = LogisticRegression(C=penalty, solver="newton-cg", tol=_TOLERANCE).fit(rows, targets[order])
    coefficients, intercepts = _per_label(model)
    if rank:
        # features[order] = rows @ basis.T: the first texts of the order alone give the basis.
        weights[order[:rank]] = solve_triangular(rows[:rank].T, coefficients[:, :rank].T)
    return DualLogReg(trained, weights, intercepts)


def _factor(gram: FloatArray) -> tuple[FloatArray, NDArray[np.int64], int]:
    """Return ``rows`` (at least one column) and ``order`` with rows @ rows.T == gram[order][:, order], and the rank.

    Cholesky with pivoting: repeated texts, which add no direction, come last.
    """
    from scipy.linalg.lapack import dpstrf

    factor, pivots, rank, _ = dpstrf(gram, lower=1)
    return np.tril(factor)[:, : max(rank, 1)], pivots.astype(np.int64) - 1, int(rank)


def _per_label(model: Any) -> tuple[FloatArray, FloatArray]:
    """Return coefficients [k, d] and intercepts [k]; for two labels scikit-learn keeps only those of the second."""
    coefficients, intercepts = model.coef_, model.intercept_
    if len(intercepts) > 1:
        return coefficients, intercepts
    return np.vstack([np.zeros_like(coefficients), coefficients]), np.concatenate([[0.0], intercepts])
