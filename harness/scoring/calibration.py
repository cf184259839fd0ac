"""How good the answers of a classifier are: macro-F1, calibration error, Brier score. Plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10
_DIGITS = 12  # confidences that agree to so many digits count as equal: the rest is rounding


def macro_f1_of(gold: ArrayLike, predicted: ArrayLike, n_labels: int) -> float:
    """Return the mean over all labels of F1, 0 to 1; both arguments are label indices [n].

    A label that neither occurs nor is predicted counts as 0, as do all that were never found: what
    scikit-learn's ``f1_score`` gives for ``labels=range(n_labels), average="macro", zero_division=0``.
    """
    truth, found = np.asarray(gold), np.asarray(predicted)
    hits = np.bincount(truth[truth == found], minlength=n_labels)
    both = np.bincount(truth, minlength=n_labels) + np.bincount(found, minlength=n_labels)
    return float(np.mean(2 * hits / np.maximum(both, 1)))


def calibration_error(probabilities: NDArray[np.float64], gold: ArrayLike) -> float:
    """Return the expected calibration error, 0 to 1, of probabilities [n, labels] for label indices [n].

    The examples, ordered by the probability of their most probable label, are cut into ten bins of equal
    size (one more in some, where ten does not divide n); the error is the mean over the bins, by size, of
    the gap between mean confidence and share of right answers (Guo et al. 2017, arXiv 1706.04599, with the
    equal-mass bins of Nguyen and O'Connor 2015, arXiv 1508.05154). Examples of equal confidence share
    their number of right answers, so that their order decides nothing.
    """
    confidence = np.round(probabilities.max(axis=1), _DIGITS)
    right = (probabilities.argmax(axis=1) == np.asarray(gold)).astype(np.float64)
    _, group = np.unique(confidence, return_inverse=True)
    right = (np.bincount(group, right) / np.bincount(group))[group]
    order = np.argsort(confidence, kind="stable")
    gaps = (right - confidence)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, BINS)) / len(gaps))


def brier_score(probabilities: NDArray[np.float64], gold: ArrayLike) -> float:
    """Return the mean squared distance, 0 to 2, of probabilities [n, labels] from the truth.

    ``gold``: label indices [n]. Summed over the labels, as in Brier (1950): with two of them it is twice
    the score of one.
    """
    truth = np.eye(probabilities.shape[1])[np.asarray(gold)]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))
