"""Which language a text is in: a classifier trained on the suite's own text, or a fastText model."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import UserError, unknown
from harness.core.files import file_digest
from harness.core.languages import FLORES, code_forms
from harness.scoring.fasttext_files import fasttext_labels
from harness.scoring.neighbours import NeighbourWords, unmarked
from harness.scoring.sentences import pieces
from harness.scoring.wordgrams import WordFeatures

if TYPE_CHECKING:
    from harness.data.corpus import Corpus
    from harness.data.suite import Suite

OTHER = "other"
"""Any language that the suites do not know."""

Piece = tuple[str, int]
"""The language of a sentence and how many characters it has."""

_CLEAR = 0.5
_BENEFIT = 2.0
_MARGIN = 3.0
"""How much, in nats, the words must speak for a neighbour that is not a language of the suite."""

_MOST_EVIDENCE = 20.0
_UNMARKED = frozenset({"cs", "sk", "sl"})
"""Languages that people often type without diacritics; every second sentence is learned that way, too."""


class Identifier(Protocol):
    """Tells languages apart. ``name`` stands in the names of its metrics."""

    name: str

    @property
    def signature(self) -> str:
        """Everything that decides its answers."""
        ...

    def read(self, texts: Sequence[str], asked: str) -> list[tuple[str, float]]:
        """Return the likeliest language of every text, as ISO 639-1 or ``other``, and its probability.

        ``asked``: the language that the texts should be in.
        """
        ...


class LanguageIdentifier:
    """Character n-gram logistic regression over the suite's languages, and words that tell their neighbours.

    ``texts`` maps a language to sentences of it; classes are balanced by weight. Trained in every process
    (once, see ``suite_identifier``): a stored scikit-learn model would have to be unpickled. Neighbours that
    are not languages of the suite, such as Norwegian for Danish, are told apart by ``NeighbourWords``.
    """

    name = "suite"

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self.texts = texts
        rows = [(text, code) for code, group in texts.items() for text in group]
        rows += [(unmarked(t), code) for code in _UNMARKED.intersection(texts) for t in texts[code][::2]]
        self.vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True, max_features=30_000
        )
        features = self.vectorizer.fit_transform([text for text, _ in rows])
        self.model = LogisticRegression(C=10, max_iter=200, class_weight="balanced")
        self.model.fit(features, [code for _, code in rows])
        self.languages = [str(code) for code in self.model.classes_]
        self._neighbours: dict[str, NeighbourWords] = {}

    @property
    def signature(self) -> str:
        """See ``Identifier.signature``."""
        sizes = "+".join(f"{code}:{len(group)}" for code, group in sorted(self.texts.items()))
        recipe = f"tfidf-char_wb-1-3+logreg-C10|benefit:{_BENEFIT:g}|neighbours:{_MARGIN:g}"
        return f"{recipe}|train:{sizes}|version:3"

    @cached_property
    def _features(self) -> WordFeatures:
        return WordFeatures(self.vectorizer)

    def identify(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest language of every text."""
        return [str(code) for code in self.model.predict(self._features(texts))]

    def read(self, texts: Sequence[str], asked: str) -> list[tuple[str, float]]:
        """See ``Identifier.read``. Another language must be twice as likely as ``asked`` to be believed.

        Between neighbours such as Czech and Slovak a short text is often a near tie; of human text the
        plain maximum puts one in ten into the neighbour (docs/metrics.md). The words of neighbours then weigh
        in, as an independent witness: those of the suite, such as Slovak for Czech, gain or lose by them;
        others, such as Norwegian for Danish, share what the asked language has.
        """
        if not texts:
            return []
        likely, codes = self.model.predict_proba(self._features(texts)), list(self.languages)
        if asked in codes:
            likely[:, codes.index(asked)] *= _BENEFIT
            likely = self._beside_neighbours(likely, codes, texts, asked)
        likely /= likely.sum(axis=1, keepdims=True)
        best = likely.argmax(axis=1)
        return [(codes[i], float(row[i])) for i, row in zip(best, likely, strict=True)]

    def _beside_neighbours(
        self, likely: NDArray[np.float64], codes: list[str], texts: Sequence[str], asked: str
    ) -> NDArray[np.float64]:
        """Return ``likely`` with the evidence of words in it; ``codes`` grows by a code per new column."""
        words = self._words_of(asked)
        evidence = words.evidence(texts)
        own = likely[:, codes.index(asked)].copy()
        for code, nats in zip(words.neighbours, evidence.T, strict=True):
            if code in codes:
                likely[:, codes.index(code)] *= _odds(nats)
            else:
                likely = np.column_stack([likely, own * _odds(nats - _MARGIN)])
                codes.append(code)
        return likely

    def _words_of(self, code: str) -> NeighbourWords:
        if code not in self._neighbours:
            self._neighbours[code] = NeighbourWords(code, self.texts[code])
        return self._neighbours[code]


def _odds(nats: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.exp(np.clip(nats, -_MOST_EVIDENCE, _MOST_EVIDENCE))
    return odds


def suite_identifier(suite: Suite, corpus: Corpus) -> LanguageIdentifier:
    """Return the identifier of a suite's languages; what equal texts teach is learned once a process."""
    size = suite.metrics.language_fidelity.texts_per_language
    sentences = {code: corpus.parallel(code)[:size] for code in corpus.vector_languages}
    return _learned(tuple((code, tuple(row.text for row in rows)) for code, rows in sentences.items()))


@lru_cache(maxsize=2)
def _learned(texts: tuple[tuple[str, tuple[str, ...]], ...]) -> LanguageIdentifier:
    return LanguageIdentifier(dict(texts))


class FastTextIdentifier:
    """GlotLID or another fastText classifier of languages, from a file; loaded on first use.

    Its labels may be ISO 639-1, ISO 639-3 or FLORES-200 codes; all but those of languages that the suites
    know are ``other``. Its own first choice counts, whatever language was asked for. Raises
    ``UserError`` where the file is no such model or the package is missing.
    """

    def __init__(self, path: Path) -> None:
        self._codes = {form: code for code in FLORES for form in code_forms(code)}
        labels = fasttext_labels(path)
        if not self._codes.keys() & set(labels):
            raise UserError(
                f"the labels of {path} are no languages that the suites know ({', '.join(labels[:3])}, ...). "
                "Take a model such as GlotLID, whose labels look like __label__amh_Ethi."
            )
        if importlib.util.find_spec("fasttext") is None:
            raise UserError("fastText models need one more package: pip install 'steerboard[glotlid]'.")
        self.name = path.stem
        self._path = path

    @cached_property
    def signature(self) -> str:
        """See ``Identifier.signature``."""
        return f"fasttext:{self.name}@{file_digest(self._path)[:16]}|version:1"

    @cached_property
    def _model(self) -> Any:
        import fasttext

        return fasttext.load_model(str(self._path))

    def identify(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest language of every text, as ISO 639-1 or ``other``."""
        return [code for code, _ in self.read(texts, "")]

    def read(self, texts: Sequence[str], asked: str) -> list[tuple[str, float]]:
        """See ``Identifier.read``. The whole text is read, as one line, as fastText wants it."""
        # Half of a surrogate pair, which JSON can hold, is no Unicode text to fastText.
        lines = [" ".join(text.encode("utf-8", "replace").decode().split()) for text in texts]
        return [self._first(*self._model.predict(line)) for line in lines]

    def _first(self, labels: Sequence[str], chances: Sequence[float]) -> tuple[str, float]:
        if not labels:
            return OTHER, 0.0
        return self._codes.get(labels[0].removeprefix("__label__"), OTHER), float(chances[0])


def open_identifier(spec: str) -> FastTextIdentifier:
    """Return the identifier of ``spec``: ``fasttext:PATH``. Raises ``UserError`` for anything else."""
    kind, _, path = spec.partition(":")
    if kind != "fasttext" or not path:
        raise unknown("identifier", spec, ["fasttext:PATH"], "GlotLID is a fastText model.")
    return FastTextIdentifier(Path(path).expanduser())


def detect_language(identifier: Identifier, texts: Sequence[str], asked: str) -> list[list[Piece]]:
    """Return, for each text, its sentences as languages and sizes; none for a text without letters.

    Sentences under 20 letters are read together with a neighbour. A sentence in which no language is likelier
    than all others together counts as what the whole text is.
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
