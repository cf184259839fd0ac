"""A local chat model that is asked whether an answer is about its question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from harness.core.checkpoints import Checkpoint
from harness.core.interventions import Steering
from harness.data.prompts import Prompt
from harness.data.suite import SamplingParams
from harness.scoring.checks import empty
from harness.tracks.forcing.questions import Questions
from harness.tracks.forcing.relevance import Answer, JudgedAnswer

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

PROMPT = """Here is a question and what somebody replied. How well does the reply go with the question?
The reply may be in any language, in another one than the question too: pay no heed to that.
2: it answers the question and makes sense.
1: it has to do with the question, but answers only part of it or makes sense only in part.
0: it has nothing to do with the question, or makes no sense.

Question: {question}
Reply: {answer}

Write one digit and nothing else: 0, 1 or 2."""

_BATCH = 16
_LONGEST = 2000  # characters of an answer that are shown
_GREEDY = SamplingParams(temperature=1.0, top_p=1e-9, max_new_tokens=8, max_attempts=1)  # the likeliest token alone
_DIGIT = re.compile(r"(?<![\w.,-])[012](?![\w%]|[.,]\d)")


def prompt(question: str, answer: str) -> str:
    """Return what the judge is asked."""
    return PROMPT.format(question=question, answer=answer[:_LONGEST])


def grade(reply: str) -> int | None:
    """Return the first 0, 1 or 2 that stands alone in a reply, None where there is none."""
    found = _DIGIT.search(reply)
    return int(found[0]) if found else None


class Judge:
    """See ``Relevance``: half the grade 0, 1 or 2 that a chat model gives, reading greedily.

    After the judge of CLaS-Bench (arXiv 2601.08331), with a wording of our own. Its question is the one that
    was asked, in the source language. A reply without a grade is left out and counted as ``unparsed``; an
    answer without letters gets 0 and is not shown.
    """

    def __init__(self, checkpoint: Checkpoint, questions: Questions, device: str | None = None) -> None:
        self.name = f"judge:{checkpoint.name}"
        self.signature = f"{self.name}@{checkpoint.fingerprint}|grades:0-2|greedy|prompt:1|version:1"
        self._checkpoint, self._questions, self._device = checkpoint, questions, device

    @cached_property
    def _model(self) -> SteerableModel:
        from harness.core.devices import choose_device, choose_dtype
        from harness.engine.model import load_model

        device = choose_device(self._device)
        return load_model(self._checkpoint, choose_dtype(device, self._checkpoint), device)

    def rate(self, answers: Sequence[Answer]) -> JudgedAnswer:
        """See ``Relevance.rate``; kept is what the judge wrote."""
        shown = [i for i, answer in enumerate(answers) if not empty(answer.text)]
        replies = dict(zip(shown, self._ask([answers[i] for i in shown]), strict=True))
        grades = [grade(replies[i]) if i in replies else 0 for i in range(len(answers))]
        unparsed = sum(found is None for found in grades)
        values = [None if found is None else found / 2 for found in grades]
        kept = [replies.get(i, "") for i in range(len(answers))]
        return JudgedAnswer(values, {"unparsed": float(unparsed)}, {"reply": kept})

    def _ask(self, answers: Sequence[Answer]) -> list[str]:
        """Return what the judge writes of every answer."""
        from harness.engine.decoding import decode

        asked = [self._question(answer) for answer in answers]
        replies: list[str] = []
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            keys = [0] * len(batch)  # no draw hangs on them: one token is left
            rows = decode(self._model, batch, Steering(), _GREEDY, keys, _GREEDY.max_new_tokens)
            replies += [self._model.tokenizer.decode(row.tokens, skip_special_tokens=True) for row in rows]
        return replies

    def _question(self, answer: Answer) -> str:
        """Return the judge's input for an answer; a model that can think aloud is told not to."""
        from harness.engine.chat import render

        user = prompt(self._questions.texts[answer.question][answer.source], answer.text)
        return render(self._model.tokenizer, Prompt(user), enable_thinking=False)
