"""Whether the texts are what was asked for: so far, whether they are in the language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records import Score
from harness.scoring.metrics import LANGUAGE_FIDELITY


class LanguageIdentifier:
    """Character n-gram logistic regression over the suite's languages and no others.

    ``texts`` maps a language to sentences of it; classes are balanced by weight. Trained anew in
    every process: a stored scikit-learn model would have to be unpickled.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        rows = [(text, code) for code, group in texts.items() for text in group]
        self.vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True, max_features=30_000
        )
        features = self.vectorizer.fit_transform([text for text, _ in rows])
        self.model = LogisticRegression(C=10, max_iter=200, class_weight="balanced")
        self.model.fit(features, [code for _, code in rows])
        sizes = "+".join(f"{code}:{len(group)}" for code, group in sorted(texts.items()))
        self.signature = f"language|tfidf-char_wb-1-3+logreg|train:{sizes}|version:1"

    def identify(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest language of every text."""
        return [str(code) for code in self.model.predict(self.vectorizer.transform(texts))]

    def fidelity(self, texts: Sequence[str], language: str) -> Score:
        """Return the share of texts in ``language``; an empty text counts as another language."""
        found = self.identify(texts)
        hits = sum(code == language and bool(text.strip()) for code, text in zip(found, texts, strict=True))
        return LANGUAGE_FIDELITY.score(hits / len(texts), self.signature)
