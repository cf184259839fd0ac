"""Revision: the model judges its own texts and writes those again that do not fit."""

from __future__ import annotations

from typing import ClassVar

from harness.core.languages import language
from harness.data.prompts import Prompt
from harness.methods.contract import PromptContext, register
from harness.methods.prompt_method import PromptMethod, is_base

_QUESTION = """{text}

Is the text above written in {language}, in complete sentences, and is {label} its {task}? Answer with one word, \
yes or no."""

_BASE = """Questions about texts, with answers yes or no.

Text: "{text}"
Question: Is this text written in {language}, in complete sentences, and is {label} its {task}?
Answer:"""


@register("revision")
class Revision(PromptMethod):
    """Asks the model whether language and label of its text fit, and draws again if not. Source: arXiv 2506.12158.

    A text is kept if "yes" is in the likeliest answer of the unsteered model, four tokens at most. The published
    protocol drops the other texts; here they are drawn again, as counts are exact, up to the suite's number of
    attempts, after which the last one is kept. Cost: a question about each draw, and the draws that are turned down.
    """

    known_limitations: ClassVar = (
        "A model that never says yes pays for every attempt and gains nothing; one that always does pays for the "
        "questions. It knows its own languages only."
    )

    def check(self, ctx: PromptContext, text: str) -> Prompt | None:
        """Return the question about a text."""
        return Prompt(
            (_BASE if is_base(ctx) else _QUESTION)
            .replace("{language}", language(ctx.language).name)
            .replace("{label}", ctx.label)
            .replace("{task}", ctx.task.name)
            .replace("{text}", text)
        )
