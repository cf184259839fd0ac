"""N-grams counted in numpy against scikit-learn's vectorizer, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from support.texts import AMHARIC, HEBREW, Zipf

from harness.scoring import vectorizer
from harness.scoring.vectorizer import NgramTfidf, hashed_counts

ODD = ["", "a", "ab", " x  y", "😀 😀", "a b a b a b", "\ud800 c"]
KNOWN = [*AMHARIC, *HEBREW[:2], *Zipf(words=50).texts(20, 9), *ODD]
NEW = [*HEBREW, *Zipf(words=60, seed=3).texts(20, 9), *ODD, "zzz"]
WITHIN = (
    {"analyzer": "char_wb", "ngram_range": (1, 3), "min_df": 3},
    lambda: NgramTfidf((1, 3), words=True, least=3),
)
ACROSS = (
    {"analyzer": "char", "ngram_range": (2, 3), "dtype": np.float32},
    lambda: NgramTfidf((2, 3), dtype=np.float32),
)


@pytest.mark.parametrize(("options", "make"), [WITHIN, ACROSS], ids=["within words", "across words"])
def test_rows_are_those_of_scikit_learn_bit_for_bit(options, make, monkeypatch):
    monkeypatch.setattr(vectorizer, "_BLOCK", 7)
    known, new = ([" ".join(text.split()) for text in texts] for texts in (KNOWN, NEW))
    theirs, ours = TfidfVectorizer(sublinear_tf=True, lowercase=False, **options), make()
    for one, other in ((theirs.fit_transform(known), ours.fit(known)), (theirs.transform(new), ours.transform(new))):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        for part in ("indptr", "indices", "data"):  # in this order: sums depend on it
            assert getattr(one, part).tolist() == getattr(other, part).tolist()


def test_hashed_counts_are_those_of_scikit_learn():
    texts = [text.replace("\ud800", "") for text in [*KNOWN, *NEW]] + ["A\u2003 \n\tÉ", "ﬃİ", "日本語 テスト"]
    theirs = HashingVectorizer(analyzer="char", ngram_range=(2, 5), n_features=2**18, alternate_sign=False, norm=None)
    for group in (texts, ["a", ""]):
        one, other = theirs.transform(group), hashed_counts(group, (2, 3, 4, 5), 18)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        for part in ("indptr", "indices", "data"):
            assert getattr(one, part).tolist() == getattr(other, part).tolist()
