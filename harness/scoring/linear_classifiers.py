"""Classifiers with exact training: logistic regression on n-grams or on sentence vectors, and the check of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.data.corpus import normalise
from harness.scoring.classification import Probabilities
from harness.scoring.embeddings import Pooler
from harness.scoring.encoders import Encoder
from harness.scoring.ngrams import TfidfWeights, count_matrix
from harness.scoring.scorer import PerContext, Rows, ScoringContext
from harness.scoring.subsampling import generator
from harness.scoring.vectorizer import hashed_counts

_PENALTY = 10.0  # scikit-learn's C of n-grams, tuned for none of them
_FROZEN_PENALTY = 1.0  # of sentence vectors: the best of 0.3 to 10 on validation text, of e5 and of a small encoder
_BITS = 18  # of hashed n-grams
FOLDS, MOST = 5, 1000  # of ``LabelVerifier``
_TOLERANCE = 1e-6  # of the gradient: probabilities then hold to 1e-5 (at scikit-learn's default, to 1e-3)


class TfidfClassifier:
    """TF-IDF over character 2- to 5-grams and logistic regression: milliseconds on a CPU.

    The optimum is unique, so there is nothing for a seed to vary: one run.
    """

    name = "tfidf"
    signature = "tfidf-char-2-5-sublinear-hash18+logreg-C10|version:2"

    def __init__(self) -> None:
        self.seeds = [0]
        self._counts = lru_cache(maxsize=3)(
            lambda texts: hashed_counts(texts, (2, 3, 4, 5), _BITS)
        )  # all texts of a cell, the valid ones, the test split

    def probabilities(self, train: Rows, context: ScoringContext, seeds: Sequence[int]) -> Probabilities:
        """See ``harness.scoring.classifiers.Classifier``."""
        counts, test = (self._counts(tuple(text for text, _ in rows)) for rows in (train, context.test))
        weights = TfidfWeights(counts, least=1)
        features, test = weights.log_counts(counts), weights.log_counts(test)
        # Not ``weights.rows``: of texts that say nothing about the label the last digit decides, and with it the order
        # of these operations.
        idf, squares = weights.idf, features.power(2) @ weights.idf**2
        features.data *= idf[features.indices]
        features.data /= np.repeat(_lengths(squares), np.diff(features.indptr))
        dual = fit_dual((features @ features.T).toarray(), _targets(train, context), _PENALTY)
        scores = test @ (idf[:, None] * (features.T @ dual.weights)) / _lengths(test.power(2) @ idf**2)[:, None]
        return _for_all(seeds, dual.probabilities(scores, len(context.labels)))


class FrozenClassifier:
    """Sentence vectors of a frozen encoder and logistic regression; exact, so one run.

    The vectors are standardised on the training texts: encoders' vectors share a large common component, and the
    penalty alone would decide (Ethayarajh 2019, arXiv 1909.00512).
    """

    def __init__(self, encoder: Encoder, max_tokens: int) -> None:
        self.name = f"frozen:{encoder.name}"
        self.seeds = [0]
        penalty = f"logreg-C{_FROZEN_PENALTY:g}"
        self.signature = f"frozen:{encoder.signature}|tokens:{max_tokens}|standardised+{penalty}|version:1"
        self._pooler = cache(lambda: Pooler(encoder, max_tokens))
        self._test = PerContext(lambda context: self._pooler().embed_cached([text for text, _ in context.test]))

    def probabilities(self, train: Rows, context: ScoringContext, seeds: Sequence[int]) -> Probabilities:
        """See ``harness.scoring.classifiers.Classifier``."""
        vectors = (self._pooler().embed([text for text, _ in train]), self._test(context))
        features, test = _standardised(*(side.astype(np.float64) for side in vectors))
        dual = fit_dual(features @ features.T, _targets(train, context), _FROZEN_PENALTY)
        return _for_all(seeds, dual.probabilities(test @ (features.T @ dual.weights), len(context.labels)))


def _for_all(seeds: Sequence[int], found: Probabilities) -> Probabilities:
    """Return the probabilities of every seed where none changes them."""
    return np.broadcast_to(found, (len(seeds), *found.shape))


def _lengths(squares: FloatArray) -> FloatArray:
    """Return the square roots, 1 for a text without any n-gram."""
    return np.where(squares > 0, np.sqrt(squares), 1.0)


def _targets(train: Rows, context: ScoringContext) -> NDArray[np.int64]:
    return np.array([context.labels.index(label) for _, label in train], dtype=np.int64)


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
    from scipy.linalg.lapack import dpstrf
    from sklearn.linear_model import LogisticRegression

    trained = np.unique(targets)
    weights = np.zeros((len(gram), len(trained)))
    if len(trained) == 1:
        return DualLogReg(trained, weights, np.zeros(1))
    # Cholesky with pivoting, factor @ factor.T == gram[order][:, order]: repeated texts, which add no direction, come
    # last.
    factor, pivots, rank, _ = dpstrf(gram, lower=1)
    rows, order = np.tril(factor)[:, : max(rank, 1)], pivots.astype(np.int64) - 1
    model = LogisticRegression(C=penalty, solver="newton-cg", tol=_TOLERANCE).fit(rows, targets[order])
    coefficients, intercepts = model.coef_, model.intercept_
    if len(trained) == 2:  # of two labels scikit-learn keeps only the second's
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    if rank:
        # features[order] = rows @ basis.T: the first texts of the order alone give the basis.
        weights[order[:rank]] = solve_triangular(rows[:rank].T, coefficients[:, :rank].T)
    return DualLogReg(trained, weights, intercepts)


class LabelVerifier:
    """TF-IDF over character 2- to 5-grams and logistic regression, cross-fitted on human text in five folds.

    A text that is in one of the folds is classified by the model that has not seen it, so that human and copied text
    have no advantage; any other by the mean of the five models' probabilities. Cells have equally many texts per
    label: probabilities are divided by the label's share of the train text (logit adjustment, Menon et al. 2021), and
    at most 1,000 texts are used, balanced where possible. N-grams of a single text are left out.

    ``missing``: the reason that no classifier was trained; empty if one was.
    """

    signature = f"tfidf-char-2-5-df2-hash18+logreg-C{_PENALTY:g}|folds:{FOLDS}|texts:{MOST}|version:1"

    def __init__(self, train: Rows, labels: Sequence[str]) -> None:
        self._labels = list(labels)
        rows = [(normalise(text), self._labels.index(label)) for text, label in train]
        counts = np.bincount([target for _, target in rows], minlength=len(self._labels))
        scarce = [label for label, count in zip(self._labels, counts, strict=True) if count < FOLDS]
        self.missing = f"fewer than {FOLDS} train texts of {', '.join(scarce)}" if scarce else ""
        if not self.missing:
            self._fit(*_folds(rows))

    def _fit(self, texts: list[str], targets: NDArray[np.int64], folds: NDArray[np.int64]) -> None:
        self._seen = dict(zip(texts, folds.tolist(), strict=True))
        counts = count_matrix(texts, (2, 3, 4, 5), _BITS, mix=False)
        self._weights = TfidfWeights(counts, least=2)
        features = self._weights.rows(counts)
        gram = (features @ features.T).toarray()
        self._prior = np.bincount(targets, minlength=len(self._labels)) / len(targets)
        self._models: list[tuple[DualLogReg, Any]] = []
        for fold in range(FOLDS):
            train = np.flatnonzero(folds != fold)
            dual = fit_dual(gram[np.ix_(train, train)], targets[train], _PENALTY)
            self._models.append((dual, features[train].T @ dual.weights))

    def labels(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest label of every text; an empty string for a blank text."""
        if not len(texts):
            return []
        plain = [normalise(text) for text in texts]
        features = self._weights.rows(count_matrix(plain, (2, 3, 4, 5), _BITS, mix=False))
        likely = np.array([dual.probabilities(features @ weights, len(self._labels)) for dual, weights in self._models])
        likely /= self._prior
        best = likely.mean(axis=0).argmax(axis=1)
        for i, text in enumerate(plain):
            if text in self._seen:
                best[i] = likely[self._seen[text], i].argmax()
        return [self._labels[k] if text else "" for text, k in zip(plain, best, strict=True)]


def _folds(rows: list[tuple[str, int]]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Return the texts that are used, their label indices and their folds, label by label.

    A repeated text is used once: it must not be in two folds.
    """
    draw = generator("label fidelity")
    once = list(dict(rows).items())
    targets = np.array([target for _, target in once], dtype=np.int64)
    found = np.unique(targets)
    chosen, folds = [], []
    for target in found:
        of_label = draw.permutation(np.flatnonzero(targets == target))[: MOST // len(found)]
        chosen += of_label.tolist()
        folds += [i % FOLDS for i in range(len(of_label))]
    return [once[i][0] for i in chosen], targets[chosen], np.array(folds, dtype=np.int64)
