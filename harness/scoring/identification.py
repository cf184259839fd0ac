"""Language identification: a classifier trained on the suite's own text, and word lists for close neighbours.

The files in ``neighbours/`` hold, per language, words and for each easily confused neighbour the log of how much
likelier a word is there. Both sides come from one source of word frequencies, so that the kind of text makes little
difference; sources and licences: ``neighbours/README.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.core.types import FloatArray
from harness.data.corpus import Corpus
from harness.data.suite import Suite
from harness.scoring.text import pieces, plain_words, without_diacritics
from harness.scoring.vectorizer import NgramTfidf

FOLDER = Path(__file__).parent / "neighbours"
OTHER = "other"
"""Any language that the suites do not know."""
Piece = tuple[str, int]
"""The language of a sentence and how many characters it has."""

_CLEAR = 0.5
_BENEFIT = 2.0
_MARGIN = 3.0  # nats of evidence that a neighbour needs that is not a language of the suite
_MOST_EVIDENCE = 20.0
_UNMARKED = frozenset({"cs", "sk", "sl"})  # often typed without diacritics: every second sentence is also learned so
_OWN_TEXT = frozenset({"am"})  # its list is short: words of the suite's text count, too
_FLOOR, _CLIP = 3e-5, 5.0  # as in benchmarks/neighbour_words.py


class Identifier(Protocol):
    """Identifies languages. ``name`` is part of the names of its metrics."""

    name: str

    @property
    def signature(self) -> str:
        """Everything that decides its answers."""
        ...

    def read(self, texts: Sequence[str], asked: str) -> list[tuple[str, float]]:
        """Return the likeliest language of every text, as ISO 639-1 or ``other``, and its probability.

        ``asked``: the language that was asked for.
        """
        ...


class LanguageIdentifier:
    """Character n-gram logistic regression over the suite's languages, and words that separate their neighbours.

    ``texts``: language -> sentences; classes are balanced by weight. Neighbours that are not languages of the suite,
    such as Norwegian for Danish, are separated by ``NeighbourWords``.
    """

    name = "suite"

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        from sklearn.linear_model import LogisticRegression

        # Trained once per process (``suite_identifier``): a stored scikit-learn model would have to be unpickled.
        self.texts = texts
        rows = [(text, code) for code, group in texts.items() for text in group]
        rows += [(without_diacritics(t), code) for code in _UNMARKED.intersection(texts) for t in texts[code][::2]]
        # Neither max_features nor lbfgs: which of equally frequent n-grams the first keeps depends on the processor's
        # sort, and the second stops at a point that depends on the last bit of every sum. Newton steps converge.
        self.vectorizer = NgramTfidf((1, 3), words=True, least=3)
        features = self.vectorizer.fit([text.lower() for text, _ in rows])
        self.model = LogisticRegression(C=10, solver="newton-cg", tol=1e-5, class_weight="balanced")
        self.model.fit(features, [code for _, code in rows])
        self.languages = [str(code) for code in self.model.classes_]
        self._neighbours: dict[str, NeighbourWords] = {}

    @property
    def signature(self) -> str:
        """See ``Identifier.signature``."""
        sizes = "+".join(f"{code}:{len(group)}" for code, group in sorted(self.texts.items()))
        recipe = f"tfidf-char_wb-1-3-df3+logreg-C10|benefit:{_BENEFIT:g}|neighbours:{_MARGIN:g}"
        return f"{recipe}|train:{sizes}|version:4"

    def identify(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest language of every text."""
        return [str(code) for code in self.model.predict(self.features(texts))]

    def read(self, texts: Sequence[str], asked: str) -> list[tuple[str, float]]:
        """See ``Identifier.read``. Another language is believed only if it is twice as likely as ``asked``.

        Between neighbours such as Czech and Slovak a short text is often a near tie: the plain maximum assigns one in
        ten human texts to the neighbour (docs/metrics.md). The evidence of words is added, as if independent:
        neighbours in the suite, such as Slovak for Czech, gain or lose by it; others, such as Norwegian for Danish,
        get a share of the asked language's probability.
        """
        if not texts:
            return []
        likely, codes = self.model.predict_proba(self.features(texts)), list(self.languages)
        if asked in codes:
            own = codes.index(asked)
            likely[:, own] *= _BENEFIT
            words = self._words_of(asked)
            for code, nats in zip(words.neighbours, words.evidence(texts).T, strict=True):
                if code in codes:
                    likely[:, codes.index(code)] *= _odds(nats)
                else:
                    likely = np.column_stack([likely, likely[:, own] * _odds(nats - _MARGIN)])
                    codes.append(code)
        likely /= likely.sum(axis=1, keepdims=True)
        best = likely.argmax(axis=1)
        return [(codes[i], float(row[i])) for i, row in zip(best, likely, strict=True)]

    def features(self, texts: Sequence[str]) -> Any:
        """Return the TF-IDF rows of texts, sparse."""
        return self.vectorizer.transform([text.lower() for text in texts])

    def _words_of(self, code: str) -> NeighbourWords:
        if code not in self._neighbours:
            self._neighbours[code] = NeighbourWords(code, self.texts[code])
        return self._neighbours[code]


def _odds(nats: FloatArray) -> FloatArray:
    odds: FloatArray = np.exp(np.clip(nats, -_MOST_EVIDENCE, _MOST_EVIDENCE))
    return odds


class NeighbourWords:
    """The evidence of words for the language ``code`` or for one of its ``neighbours``; unlisted words count nothing.

    ``own``: text of the language; used for languages with a short list.
    """

    def __init__(self, code: str, own: Sequence[str]) -> None:
        self.neighbours, weights = _table(code)
        self._weights = _with_own(weights, own) if code in _OWN_TEXT else weights

    def evidence(self, texts: Sequence[str]) -> FloatArray:
        """Return, per text and neighbour, log(likelihood there / likelihood in the language), in nats."""
        found = np.zeros((len(texts), len(self.neighbours)))
        for i, text in enumerate(texts):
            known = [self._weights[word] for word in plain_words(text) if word in self._weights]
            if known:
                found[i] = np.sum(known, axis=0)
        return found


@cache
def _table(code: str) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    path = FOLDER / f"{code}.tsv"
    if not path.is_file():
        return (), {}
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return tuple(head.split("\t")[1:]), {word: tuple(map(float, values)) for word, *values in rows}


def _with_own(weights: dict[str, tuple[float, ...]], own: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Return weights relative to the frequencies of words in text of the language."""
    counts = Counter(word for text in own for word in plain_words(text))
    width = len(next(iter(weights.values())))
    found = dict(weights)
    for word, count in counts.items():
        usual = max(float(np.log(count / counts.total() / _FLOOR)), 0.0)
        row = (value - usual for value in weights.get(word, (0.0,) * width))
        found[word] = tuple(max(-_CLIP, min(_CLIP, value)) for value in row)
    return found


def suite_identifier(suite: Suite, corpus: Corpus) -> LanguageIdentifier:
    """Return the identifier of a suite's languages, trained once per process on the same texts."""
    size = suite.metrics.language_fidelity.texts_per_language
    sentences = {code: corpus.parallel(code)[:size] for code in corpus.vector_languages}
    return _learned(tuple((code, tuple(row.text for row in rows)) for code, rows in sentences.items()))


@lru_cache(maxsize=2)
def _learned(texts: tuple[tuple[str, tuple[str, ...]], ...]) -> LanguageIdentifier:
    return LanguageIdentifier(dict(texts))


def detect_language(identifier: Identifier, texts: Sequence[str], asked: str) -> list[list[Piece]]:
    """Return, for each text, its sentences as (language, characters); none for a text without letters.

    Sentences under 20 letters are read together with a neighbour. A sentence in which no language has half of the
    probability gets the language of the whole text.
    """
    groups = [pieces(text) for text in texts]
    read = iter(identifier.read([piece for group in groups for piece in group], asked))
    found = [[next(read) for _ in group] for group in groups]
    unclear = [i for i, row in enumerate(found) if len(row) > 1 and any(p < _CLEAR for _, p in row)]
    for i, (code, _) in zip(unclear, identifier.read([texts[i] for i in unclear], asked), strict=True):
        found[i] = [(own, p) if p >= _CLEAR else (code, p) for own, p in found[i]]
    return [
        [(code, len(piece)) for (code, _), piece in zip(row, group, strict=True)]
        for row, group in zip(found, groups, strict=True)
    ]
