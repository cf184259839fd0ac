"""Features of words taken apart once: to the last bit those of scikit-learn's vectorizer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from harness.scoring.wordgrams import WordFeatures

TRAIN = [
    "Der Hund bellt, und der Hund beißt.",
    "ዛሬ ጠዋት ወንዙ አጠገብ ያለው ዛፍ ወደቀ።",
    "הכלב של השכנים נבח כל הלילה.",
    "The dog, the DOG! 3,50 a b c",
]
TEXTS = {
    "latin": ["Der  Hund und\tdie Katze\n", "DER HUND"],
    "ethiopic": ["ዛሬ ጠዋት ዛሬ ዝናብ ዘነበ።", "ሰላም"],
    "hebrew": ["הכלב נבח", "שָׁלוֹם שלום"],
    "odd": ["", " ", "a", "a a a", "İstanbul ΣΑΣ ẞ", "a\u00a0b\u2028c", "漢字", "\ud800 x"],
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
def test_the_rows_are_those_of_the_vectorizer(texts):
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True, max_features=90)
    vectorizer.fit(TRAIN)
    features = WordFeatures(vectorizer)
    for _ in range(2):  # the second time from what is remembered
        ours = features(texts)
        assert ours.shape == (len(texts), 90)
        theirs = vectorizer.transform(texts)
        assert np.array_equal(ours.indptr, theirs.indptr)
        assert np.array_equal(ours.indices, theirs.indices)
        assert np.array_equal(ours.data, theirs.data)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("harness.scoring.wordgrams._MOST", 3)
    features = WordFeatures(TfidfVectorizer(analyzer="char_wb", sublinear_tf=True).fit(TRAIN))
    features(["a b c d"])
    assert len(features._known) == 4
    features(["e"])
    assert list(features._known) == ["e"]
