"""A higher temperature: the cheapest way to more diverse texts."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from harness.data.prompts import Prompt
from harness.methods.contract import PromptContext, register
from harness.methods.prompt_method import PromptMethod


@register("temperature")
class Temperature(PromptMethod):
    """The suite's prompt at a higher sampling temperature. Source: arXiv 2306.04140.

    Token v is drawn with p(v) proportional to exp(z[v] / T), z the logits, from the nucleus of these probabilities at
    the suite's top-p. Steering that only flattens the model's distribution gains no more than this. Cost: none, but
    texts may get longer where the end token becomes less likely.
    """

    known_limitations: ClassVar = (
        "Texts lose grammar, language and label as the temperature rises; small models break first."
    )

    class Config(PromptMethod.Config):
        """``temperature``: T."""

        temperature: float = Field(default=1.0, gt=0, le=5)

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the suite's prompt with the temperature."""
        return replace(ctx.suite_prompt(), temperature=self.config.temperature)
