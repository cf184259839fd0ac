"""Logistic regression from inner products alone: quick where texts are few and features are many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
"""A row per test text, a column per label of the place; rows sum to 1."""

_TOLERANCE = 1e-6  # of the gradient: probabilities then hold to 1e-5 (at scikit-learn's default, to 1e-3)


@dataclass(frozen=True)
class DualLogReg:
    """A fitted logistic regression whose weights [d, k] are features.T @ ``weights``.

    ``trained``: the label indices [k] that it was trained on; ``weights``: [n train, k]; ``intercepts``: [k].
    """

    trained: NDArray[np.int64]
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def probabilities(self, scores: NDArray[np.float64], n_labels: int) -> Probabilities:
        """Return [n test, n_labels] for the inner products of test texts with the weights [n test, k].

        A label that was not trained has probability 0.
        """
        logits = scores + self.intercepts
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found = np.zeros((len(scores), n_labels))
        found[:, self.trained] = powers / powers.sum(axis=1, keepdims=True)
        return found


def fit_dual(gram: NDArray[np.float64], targets: NDArray[np.int64], penalty: float) -> DualLogReg:
    """Return scikit-learn's ``LogisticRegression(C=penalty)`` of texts known by their inner products [n, n].

    The L2 penalty keeps the weights within the span of the training texts, and neither it nor the loss
    changes when that span is rotated: so any coordinates with the same inner products have the same
    optimum (Hastie and Tibshirani 2004, "Efficient quadratic regularization for expression arrays"). These
    are the rows of a Cholesky factor: at most as many coordinates as there are texts.
    """
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


def _factor(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return ``rows`` and ``order`` with rows @ rows.T == gram[order][:, order], and the rank.

    Cholesky with pivoting: repeated texts, which add no direction, come last. At least one column.
    """
    from scipy.linalg.lapack import dpstrf

    factor, pivots, rank, _ = dpstrf(gram, lower=1)
    return np.tril(factor)[:, : max(rank, 1)], pivots.astype(np.int64) - 1, int(rank)


def _per_label(model: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients [k, d] and intercepts [k]; of two labels scikit-learn keeps the second's alone."""
    coefficients, intercepts = model.coef_, model.intercept_
    if len(intercepts) > 1:
        return coefficients, intercepts
    return np.vstack([np.zeros_like(coefficients), coefficients]), np.concatenate([[0.0], intercepts])
