"""Whether a text has the requested label, by a classifier trained on human-written text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.corpus import normalise
from harness.scoring.linear_classifiers import DualLogReg, fit_dual
from harness.scoring.ngrams import count_matrix
from harness.scoring.scorer import Rows
from harness.scoring.subsampling import generator

FOLDS, MOST = 5, 1000
_SIZES, _BITS, _PENALTY = (2, 3, 4, 5), 18, 10.0


class LabelVerifier:
    """TF-IDF over character 2- to 5-grams and logistic regression, cross-fitted on human text in five folds.

    A text that is in one of the folds is classified by the model that has not seen it, so that human and copied text
    have no advantage; any other by the mean of the five models' probabilities. Cells have equally many texts per
    label: probabilities are divided by the label's share of the train text (logit adjustment, Menon et al. 2021), and
    at most 1,000 texts are used, balanced where possible. N-grams of a single text are left out.

    ``missing``: why there is no classifier, empty if there is one.
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
        counts = count_matrix(texts, _SIZES, _BITS, mix=False)
        spread = np.bincount(counts.indices, minlength=2**_BITS)
        self._used = np.flatnonzero(spread > 1)
        self._idf = np.log((1 + len(texts)) / (1 + spread[self._used])) + 1
        features = self._features(counts)
        gram = (features @ features.T).toarray()
        self._prior = np.bincount(targets, minlength=len(self._labels)) / len(targets)
        self._models: list[tuple[DualLogReg, Any]] = []
        for fold in range(FOLDS):
            train = np.flatnonzero(folds != fold)
            dual = fit_dual(gram[np.ix_(train, train)], targets[train], _PENALTY)
            self._models.append((dual, features[train].T @ dual.weights))

    def _features(self, counts: Any) -> Any:
        """Return TF-IDF rows of length 1: (1 + log tf) * idf, as in scikit-learn."""
        from sklearn.preprocessing import normalize

        rows = counts[:, self._used]
        rows.data = (1 + np.log(rows.data)) * self._idf[rows.indices]
        return normalize(rows, copy=False)

    def labels(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest label of every text; an empty string for a blank text."""
        if not len(texts):
            return []
        plain = [normalise(text) for text in texts]
        features = self._features(count_matrix(plain, _SIZES, _BITS, mix=False))
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
