"""Whether an answer is about its question, in whatever language it is: scorers by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.devices import choose_device, choose_dtype
from harness.core.errors import unknown
from harness.core.interventions import Steering
from harness.data.corpus import normalise
from harness.data.prompts import Prompt
from harness.scoring.checks import empty
from harness.scoring.embeddings import Embedding, TfidfEmbedding, open_embedding
from harness.scoring.scorer import ScoringContext
from harness.tracks.forcing.questions import Questions

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

SPECS = ["tfidf", "hf:PATH_OR_ID", "judge:PATH_OR_ID"]
_TIE = 1e-12  # of cosines

PROMPT = """Below are a question and a reply to it. Rate how well the reply answers the question.
The reply may be in any language, including one that differs from the question's: ignore the language.
2: the reply answers the question and makes sense.
1: the reply is related to the question, but answers only part of it or makes only partial sense.
0: the reply is unrelated to the question or makes no sense.

Question: {question}
Reply: {answer}

Respond with a single digit (0, 1 or 2) and nothing else."""
_PROMPT_VERSION = 2  # part of the judge's signature: raise it with every change of PROMPT

_BATCH = 16
_LONGEST = 2000  # characters of an answer that are shown
_MAX_TOKENS = 8  # of a reply
_DIGIT = re.compile(r"(?<![\w.,-])[012](?![\w%]|[.,]\d)")


@dataclass(frozen=True)
class Answer:
    """An answer to the question ``question`` (an id) that was asked in ``source``.

    ``language``: the language that most of it is in, empty for an answer without letters.
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
        """Return a rating per answer: 0 for one that is unrelated to its question, 1 at best."""
        ...


class NearestQuestion:
    """An answer is relevant if of all questions its own is the nearest, by cosine of embeddings.

    It is compared with the questions in the language that it is in (if they are known in it, else in the
    target language): whether that is the right language is measured by the other metric. A hit is 1, a tie of k
    nearest 1/k. Hits are then corrected for guessing, (hit - 1/n) / (1 - 1/n) with n questions: an answer
    that fits all of them equally is worth 0, as is one that is empty or only repeats its question; one that is
    nearer to another question -1/(n - 1). So the expectation is 0 for text that is unrelated to
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
        nearest = [ids] * len(answers)  # of an answer without content: no question is nearer than another
        by_language: dict[str, list[int]] = {}
        for i, answer in enumerate(answers):
            code = answer.language if answer.language in self._questions.languages else answer.target
            if not is_empty_answer(answer.text, self._questions.texts[answer.question][code]):
                by_language.setdefault(code, []).append(i)
        for code, members in by_language.items():
            for i, names in zip(members, self._nearest([answers[i].text for i in members], code), strict=True):
                nearest[i] = names
        chance = 1 / len(ids)
        hits = [
            1 / len(names) if answer.question in names else 0.0 for answer, names in zip(answers, nearest, strict=True)
        ]
        values: list[float | None] = [(hit - chance) / (1 - chance) for hit in hits]
        detail = {"top1": float(np.mean(hits)) if hits else 0.0, "chance": chance}
        return JudgedAnswer(values, detail, {"nearest": nearest})

    def _nearest(self, texts: Sequence[str], code: str) -> list[list[str]]:
        """Return the ids of the nearest questions per text; several where they are equally near."""
        if code not in self._asked:
            embedding, context = self._open(), scoring_context(code, self._human(code))
            self._asked[code] = (embedding, context, embedding.embed(self._questions.asked(code), context))
        embedding, context, asked = self._asked[code]
        likeness = embedding.embed(texts, context) @ asked.T
        table = likeness.toarray() if hasattr(likeness, "toarray") else likeness
        ids = self._questions.ids()
        return [[name for name, value in zip(ids, row, strict=True) if value >= row.max() - _TIE] for row in table]


def is_empty_answer(text: str, question: str) -> bool:
    """Return whether a text holds no letters, or none except for the question itself."""
    plain = normalise(question).rstrip(" ?")
    return empty(normalise(text).replace(plain, " "))


def scoring_context(code: str, texts: Sequence[str]) -> ScoringContext:
    """Return a context that holds a language and human text of it."""
    rows = [(text, "") for text in texts]
    return ScoringContext("", code, [], rows, [], [], examples="", vectors=[], prompts={}, demonstrations={})


def prompt(question: str, answer: str) -> str:
    """Return the user turn of the judge."""
    return PROMPT.format(question=question, answer=answer[:_LONGEST])


def grade(reply: str) -> int | None:
    """Return the first 0, 1 or 2 that stands alone in a reply, None where there is none."""
    found = _DIGIT.search(reply)
    return int(found[0]) if found else None


class Judge:
    """See ``Relevance``: half the grade 0, 1 or 2 that a local chat model gives, reading greedily.

    After the judge of CLaS-Bench (arXiv 2601.08331), with our own wording. It is shown the question that
    was asked, in the source language. A reply without a grade is left out and counted as ``unparsed``; an
    answer without letters gets 0 and is not shown.
    """

    def __init__(self, checkpoint: Checkpoint, questions: Questions, device: str | None = None) -> None:
        self.name = f"judge:{checkpoint.name}"
        self.signature = f"{self.name}@{checkpoint.fingerprint}|grades:0-2|greedy|prompt:{_PROMPT_VERSION}|version:1"
        self._checkpoint, self._questions, self._device = checkpoint, questions, device

    @cached_property
    def _model(self) -> SteerableModel:
        from harness.engine.model import load_model

        device = choose_device(self._device)
        return load_model(self._checkpoint, choose_dtype(device, self._checkpoint), device)

    def rate(self, answers: Sequence[Answer]) -> JudgedAnswer:
        """See ``Relevance.rate``; kept are the judge's replies."""
        shown = [i for i, answer in enumerate(answers) if not empty(answer.text)]
        replies = dict(zip(shown, self._ask([answers[i] for i in shown]), strict=True))
        grades = [grade(replies[i]) if i in replies else 0 for i in range(len(answers))]
        values = [None if found is None else found / 2 for found in grades]
        kept = [replies.get(i, "") for i in range(len(answers))]
        return JudgedAnswer(values, {"unparsed": float(grades.count(None))}, {"reply": kept})

    def _ask(self, answers: Sequence[Answer]) -> list[str]:
        """Return the judge's reply to every answer."""
        from harness.engine.chat import render
        from harness.engine.decoding import Row, write_rows

        if not answers:  # no model is needed
            return []
        tokenizer, rows = self._model.tokenizer, []
        for answer in answers:
            text = prompt(self._questions.texts[answer.question][answer.source], answer.text)
            (ids,) = self._model.token_ids([render(tokenizer, Prompt(text), enable_thinking=False)])
            # The noise key does not matter: top-p leaves one token.
            rows.append(Row(tuple(ids), Steering(), 0, _MAX_TOKENS, temperature=1.0, top_p=1e-9))
        for start in range(0, len(rows), _BATCH):
            write_rows(self._model, rows[start : start + _BATCH])
        return [tokenizer.decode(row.tokens, skip_special_tokens=True) for row in rows]


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
        return Judge(resolve_checkpoint(path), questions, device)
    raise unknown("relevance scorer", spec, SPECS)
