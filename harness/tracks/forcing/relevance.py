"""Whether an answer is about its question, whatever language it is in: scorers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import unknown
from harness.data.corpus import normalise
from harness.scoring.checks import empty
from harness.scoring.embeddings import Embedding, TfidfEmbedding, open_embedding
from harness.scoring.scorer import ScoringContext
from harness.tracks.forcing.questions import Questions

SPECS = ["tfidf", "hf:PATH_OR_ID", "judge:PATH_OR_ID"]
_TIE = 1e-12  # of cosines


@dataclass(frozen=True)
class Answer:
    """An answer to the question ``question`` (an id) that was asked in ``source``.

    ``language``: in which language most of it is, empty for one without letters.
    """

    text: str
    question: str
    source: str
    target: str
    language: str


@dataclass(frozen=True)
class JudgedAnswer:
    """A rating per answer, None for one that is left out; figures of all of them; what is kept per answer."""

    values: list[float | None]
    detail: dict[str, float] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


class Relevance(Protocol):
    """Rates answers. ``signature``: everything but answers and questions that decides the ratings."""

    name: str
    signature: str

    def rate(self, answers: Sequence[Answer]) -> JudgedAnswer:
        """Return a rating per answer: 0 for one that has nothing to do with its question, 1 at best."""
        ...


class NearestQuestion:
    """An answer is relevant if of all questions its own is the nearest, by cosine of embeddings.

    It is compared with the questions in the language that it is in (where they are known in it, else in the
    target language): what language it should have is the other metric's business. A hit is 1, a tie of k
    nearest 1/k. Hits are then corrected for guessing, (hit - 1/n) / (1 - 1/n) with n questions: an answer
    that could be to any of them is worth 0, as is one that is empty or only repeats its question; one that is
    nearer to another question -1/(n - 1). So the expectation is 0 for text that has nothing to do with
    the questions, however many there are, and means over cells stay means over answers.
    """

    def __init__(
        self, open_one: Callable[[], Embedding], questions: Questions, human: Callable[[str], list[str]]
    ) -> None:
        """``open_one`` gives the embedding of a language; ``human`` its human text, which weighs n-grams."""
        first = open_one()
        self.name = first.name
        self.signature = f"nearest-of-{len(questions.texts)}|{first.signature}|guessing-corrected|version:1"
        self._open, self._questions, self._human = open_one, questions, human
        self._asked: dict[str, tuple[Embedding, ScoringContext, Any]] = {}

    def rate(self, answers: Sequence[Answer]) -> JudgedAnswer:
        """See ``Relevance.rate``; kept are the nearest questions of every answer."""
        ids = self._questions.ids()
        nearest = [ids] * len(answers)  # of an answer that says nothing: no question is nearer than another
        by_language: dict[str, list[int]] = {}
        for i, answer in enumerate(answers):
            code = self._read_in(answer)
            if not is_empty_answer(answer.text, self._questions.texts[answer.question][code]):
                by_language.setdefault(code, []).append(i)
        for code, places in by_language.items():
            found = self._nearest([answers[i].text for i in places], code)
            for i, names in zip(places, found, strict=True):
                nearest[i] = names
        chance = 1 / len(ids)
        hits = [
            1 / len(names) if answer.question in names else 0.0 for answer, names in zip(answers, nearest, strict=True)
        ]
        values: list[float | None] = [(hit - chance) / (1 - chance) for hit in hits]
        detail = {"top1": float(np.mean(hits)) if hits else 0.0, "chance": chance}
        return JudgedAnswer(values, detail, {"nearest": nearest})

    def _read_in(self, answer: Answer) -> str:
        """Return the language of the questions that an answer is compared with."""
        return answer.language if answer.language in self._questions.languages else answer.target

    def _nearest(self, texts: Sequence[str], code: str) -> list[list[str]]:
        """Return the ids of the nearest questions per text; several where they are equally near."""
        if code not in self._asked:
            embedding, place = self._open(), _place(code, self._human(code))
            self._asked[code] = (embedding, place, embedding.embed(self._questions.all_in(code), place))
        embedding, place, asked = self._asked[code]
        likeness = embedding.embed(texts, place) @ asked.T
        table = likeness.toarray() if hasattr(likeness, "toarray") else likeness
        ids = self._questions.ids()
        return [[name for name, value in zip(ids, row, strict=True) if value >= row.max() - _TIE] for row in table]


def is_empty_answer(text: str, question: str) -> bool:
    """Return whether a text holds no letters, or none beside the question itself."""
    plain = normalise(question).rstrip(" ?")
    return empty(normalise(text).replace(plain, " "))


def _place(code: str, texts: Sequence[str]) -> ScoringContext:
    """Return what an embedding reads of a language: its human text."""
    rows = [(text, "") for text in texts]
    return ScoringContext("", code, [], rows, [], [], examples="", vectors=[], prompts={}, demonstrations={})


def open_relevance(
    spec: str, questions: Questions, human: Callable[[str], list[str]], device: str | None = None
) -> Relevance:
    """Return the scorer that ``spec`` names; nothing is loaded yet.

    Raises ``UserError`` for anything else than ``SPECS``, and for a folder or hub id without a model.
    """
    kind, _, path = spec.partition(":")
    if spec == "tfidf":
        return NearestQuestion(TfidfEmbedding, questions, human)
    if kind == "hf" and path:
        shared = open_embedding(spec)
        return NearestQuestion(lambda: shared, questions, human)
    if kind == "judge" and path:
        from harness.tracks.forcing.judge import Judge

        return Judge(resolve_checkpoint(path), questions, device)
    raise unknown("relevance scorer", spec, SPECS)
