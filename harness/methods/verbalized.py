"""Verbalized sampling: one answer with several candidates and their probabilities."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from harness.data.prompts import Prompt
from harness.methods.contract import CellContext, PromptContext, Skip, register
from harness.methods.prompt_method import NO_BASE, PromptMethod, is_base

_REQUEST = """{task}

Do this {k} times: write {k} texts that differ as much as they can, drawn from all texts that fit the task, rare ones \
included. Give each text with its probability. Answer with a JSON list and nothing else:
[{{"text": "...", "probability": 0.12}}, ...]"""

_PAIR = re.compile(r'"(?!probability")[^"\\\n]{1,30}"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)  # some translate "text"
_TAG = re.compile(r"<text>([^<]*)</text>")
_ITEM = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+(.*\S)", re.MULTILINE)
_PROBABILITY = re.compile(
    r"[\s(\[,;:–—-]+(?:probability|p)?\s*[:=]?\s*(?:0?[.,]\d+|1[.,]0+|\d{1,2} ?%)[)\]]?\s*$", re.IGNORECASE
)
_TAIL = 40  # characters of a line in which its probability is looked for
_LETTER = re.compile(r"[^\W\d_]")


@register("verbalized")
class Verbalized(PromptMethod):
    """Asks for k texts at once, with the probability of each. Source: arXiv 2510.01171.

    Asked for one text, a model that was tuned on preferences gives the most typical one; asked for a distribution,
    it gives more of the one that it learned before. All k texts are kept, the probabilities are not used. A text has
    as many tokens as the suite gives it, an answer k times as many. Cost: one prompt for k texts, and the JSON around
    them; texts that are missing or repeated are asked for again.
    """

    known_limitations: ClassVar = (
        "Small models write broken lists or copy the example; what can be read is kept. The texts of an answer depend "
        "on one another. Not for base models."
    )

    class Config(PromptMethod.Config):
        """``k``: texts per answer."""

        k: int = Field(default=5, ge=2, le=20)

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return that base models follow no instruction, or what the steering method returns."""
        return NO_BASE if is_base(ctx) else super().supports(ctx)

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the suite's prompt with the request for k texts and their probabilities."""
        k, own = self.config.k, ctx.suite_prompt()
        return replace(
            own,
            user=_REQUEST.format(task=own.user, k=k),
            max_new_tokens=k * ctx.suite.sampling.max_new_tokens,
            parse=read_candidates,
            texts_per_answer=k,
        )


def read_candidates(answer: str) -> list[str]:
    """Return the texts of an answer: of a JSON list, also one that is cut off, of tags, or of a list of lines.

    What has no letter, such as a probability or the dots of the example, is left out.
    """
    texts = [_unquoted(match) for match in _PAIR.findall(answer)] or _TAG.findall(answer)
    if not texts:
        lines = [line[:-_TAIL] + _PROBABILITY.sub("", line[-_TAIL:]) for line in _ITEM.findall(answer)]
        texts = [line.strip().strip('"“”„') for line in lines]
    return [text.strip() for text in texts if _LETTER.search(text)]


def _unquoted(literal: str) -> str:
    try:
        return str(json.loads(literal, strict=False))  # models put line breaks into their strings
    except ValueError:  # an escape that JSON does not know
        return literal[1:-1].replace('\\"', '"').replace("\\n", " ")
