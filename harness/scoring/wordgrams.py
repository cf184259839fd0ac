"""Character n-grams within words as features, every different word taken apart once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

_MOST = 100_000  # words that are remembered


class WordFeatures:
    """What a fitted ``TfidfVectorizer(analyzer="char_wb", sublinear_tf=True)`` makes of texts, bit by bit.

    N-grams of this kind never leave a word, so those of a word are the same in every text.
    """

    def __init__(self, vectorizer: Any) -> None:
        self._prepared = vectorizer.build_preprocessor()
        self._analyzed = vectorizer.build_analyzer()
        self._columns: dict[str, int] = vectorizer.vocabulary_
        self._weights = vectorizer.idf_
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str]) -> Any:
        """Return ``vectorizer.transform(texts)``: sparse rows of length 1, at least one."""
        from scipy.sparse import csr_matrix
        from sklearn.preprocessing import normalize

        if len(self._known) > _MOST:
            self._known.clear()
        found = [list(chain.from_iterable(map(self._word, self._prepared(text).split()))) for text in texts]
        starts = np.concatenate([[0], np.cumsum([len(columns) for columns in found])]).astype(np.int32)
        indices = np.fromiter(chain.from_iterable(found), dtype=np.int32, count=starts[-1])
        shape = (len(texts), len(self._columns))
        rows = csr_matrix((np.ones(indices.size), indices, starts), shape=shape)
        rows.sum_duplicates()
        rows.data = (np.log(rows.data) + 1.0) * self._weights[rows.indices]
        return normalize(rows, norm="l2", copy=False)

    def _word(self, word: str) -> list[int]:
        """Return the columns of a word's n-grams, as often as they occur."""
        if word not in self._known:
            grams = self._analyzed(word)
            self._known[word] = [self._columns[gram] for gram in grams if gram in self._columns]
        return self._known[word]
