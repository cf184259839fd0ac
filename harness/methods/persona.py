"""A persona per text: the model is to write as somebody else every time."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import ClassVar

from harness.data.prompts import Prompt
from harness.methods.contract import PromptContext, register
from harness.methods.prompt_method import PromptMethod, is_base


@register("persona")
class Persona(PromptMethod):
    """The suite's prompt, written as another of 200 personas for every text. Source: arXiv 2406.20094.

    The persona of text i is number pi(i) of the list, pi a permutation drawn from the generation seed: none returns
    before all were used, and equal indices of all labels, languages and tasks share one, so that personas tell nothing
    about labels. The list (``personas.txt``) was written for this project, in English, without names and countries.
    The system turn holds the persona; a base model gets it as a line about the author. Cost: the prompts of a label
    differ, so each is read on its own.
    """

    known_limitations: ClassVar = (
        "The personas are in English and were made up by a machine; small models talk about them."
    )

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the suite's prompt with the persona of the text's index and the cell's seed."""
        who = draw_persona(ctx.seed, ctx.index)
        system = f"About the author: {who}." if is_base(ctx) else f"You are {who}. Write as this person would."
        return Prompt(ctx.suite_prompt().user, system=system)


def draw_persona(seed: int, index: int) -> str:
    """Return the persona of a text."""
    order = _order(seed)
    return personas()[order[index % len(order)]]


@cache
def personas() -> tuple[str, ...]:
    """Return the personas, each a noun phrase."""
    text = Path(__file__).with_name("personas.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def _order(seed: int) -> list[int]:
    return random.Random(f"persona/{seed}").sample(range(len(personas())), len(personas()))
