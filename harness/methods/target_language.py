"""The instruction in the target language."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from harness.core.languages import language
from harness.core.reading import read_yaml
from harness.data.prompts import Prompt, fill_template
from harness.methods.contract import CellContext, PromptContext, Skip, register
from harness.methods.prompt_method import PromptMethod, is_base


@register("target-language")
class TargetLanguage(PromptMethod):
    """The suite's prompt, written in the target language. Source: baseline of arXiv 2601.08331.

    ``target_language.yaml`` holds the prompts of the two tasks in eleven languages, for zero-shot, few-shot and base
    models, with the labels in the form that they take there. They say what the English ones of ``steer11`` say. A
    machine wrote them and translated them back (``back``); native speakers have not read them. Cost: that of the
    suite's prompt, and more tokens where the tokenizer knows the language badly.
    """

    known_limitations: ClassVar = (
        "Machine-written prompts, reviewed by back-translation alone. Two tasks and eleven languages."
    )

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return that a language, task or label has no prompt, or what the steering method returns."""
        found = templates().get(ctx.task.name, {}).get(ctx.language)
        if found is None or set(ctx.task.labels) != set(found["labels"]):
            return Skip(
                f"there is no prompt in {language(ctx.language).name} for task {ctx.task.name!r} and its labels"
            )
        return super().supports(ctx)

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the prompt of the cell's task and language for the label."""
        found = templates()[ctx.task.name][ctx.language]
        template = found["base" if is_base(ctx) else ctx.setting]
        return Prompt(fill_template(template, found["labels"][ctx.label], "", ctx.demonstrations))


@cache
def templates() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the prompts by task and language: ``labels``, ``zero-shot``, ``few-shot``, ``base`` and ``back``."""
    return dict(read_yaml(Path(__file__).with_name("target_language.yaml"))["tasks"])
