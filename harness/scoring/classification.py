"""Macro-F1, calibration error and Brier score of a classifier, in plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Probabilities = NDArray[np.float64]
"""A row per test text, a column per label of the task; rows sum to 1. Of several seeds: [seeds, n test, labels]."""

BINS = 10
_DIGITS = 12  # confidences that agree to so many digits count as equal: the rest is rounding


def macro_f1_of(gold: ArrayLike, predicted: ArrayLike, n_labels: int) -> float:
    """Return the mean F1 over all labels, 0 to 1; both arguments are label indices [n].

    Equals scikit-learn's ``f1_score(labels=range(n_labels), average="macro", zero_division=0)``: a label that neither
    occurs nor is predicted counts as 0.
    """
    # Not scikit-learn's: checking a submission needs this without scikit-learn, in a loop over seeds.
    truth, found = np.asarray(gold), np.asarray(predicted)
    hits = np.bincount(truth[truth == found], minlength=n_labels)
    both = np.bincount(truth, minlength=n_labels) + np.bincount(found, minlength=n_labels)
    return float(np.mean(2 * hits / np.maximum(both, 1)))


def calibration_error(probabilities: Probabilities, gold: ArrayLike) -> float:
    """Return the expected calibration error, 0 to 1, of probabilities [n, labels] for label indices [n].

    The examples, ordered by confidence, are cut into ten bins of equal size (up to rounding); the error is the mean
    over the bins, by size, of the gap between mean confidence and accuracy (Guo et al. 2017, arXiv 1706.04599, with
    the equal-mass bins of Nguyen and O'Connor 2015, arXiv 1508.05154). Examples of equal confidence share their number
    of right answers, so that their order does not matter.
    """
    confidence = np.round(probabilities.max(axis=1), _DIGITS)
    right = (probabilities.argmax(axis=1) == np.asarray(gold)).astype(np.float64)
    _, group = np.unique(confidence, return_inverse=True)
    right = (np.bincount(group, right) / np.bincount(group))[group]
    order = np.argsort(confidence, kind="stable")
    gaps = (right - confidence)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, BINS)) / len(gaps))


def brier_score(probabilities: Probabilities, gold: ArrayLike) -> float:
    """Return the mean squared distance, 0 to 2, of probabilities [n, labels] from label indices [n].

    Summed over the labels, as in Brier (1950): with two labels it is twice the score of one.
    """
    truth = np.eye(probabilities.shape[1])[np.asarray(gold)]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))
