"""The instruction vector: what the words "in Danish" change at the end of a prompt."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from harness.core.errors import UnsupportedError
from harness.core.interventions import Steering
from harness.data.prompts import suite_prompt
from harness.data.suite import Task
from harness.engine.chat import render
from harness.methods.contract import CellContext, FitContext, SteeringMethod, register
from harness.methods.difference import SEARCH_SPACE, AddedVectorConfig, add_direction

_IN_LANGUAGE = re.compile(r"\s*\bin \{language\}(?: language\b)?")


@register("instruction")
class InstructionVector(SteeringMethod):
    """Adds the difference that "in Danish" makes at the end of a prompt. Source: arXiv 2410.12877.

    v = unit(mean of (h[prompt] - h[the same without "in Danish"]) over the suite's zero-shot prompts of every task and
    label), h the state at the prompt's last token. Cost: two short prompts per label, no text at all. The paper
    takes hundreds of different requests, and the length at which the projection is that of instructed prompts; here it
    is the strength.
    """

    search_space: ClassVar = SEARCH_SPACE
    known_limitations: ClassVar = (
        "A mean over few prompts, nine in steer11. The steered prompt still names the language: what is added is "
        "the same instruction again, as the model understands it. A language that the model does not know by name "
        "gets nothing."
    )

    class Config(AddedVectorConfig):
        """Layer and strength of the vector."""

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return the cell's language, for the residual norms."""
        return [ctx.language]

    def texts_to_read(self, ctx: CellContext, parallel: int) -> dict[str, int]:
        """Return the number of prompts, with and without the language."""
        return {f"prompts {ctx.language}": 2 * sum(len(task.labels) for task in _tasks(ctx))}

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language; ``UnsupportedError`` for prompts that do not name it."""
        config, sampling = self.config.for_language(ctx.language), ctx.suite.sampling
        pairs = [(task, without_language(task)) for task in _tasks(ctx)]
        sides = [
            [
                render(ctx.model.tokenizer, suite_prompt(task, "zero-shot", label), sampling.template, sampling.date)
                for task in side
                for label in task.labels
            ]
            for side in zip(*pairs, strict=True)
        ]
        layer = ctx.layer(config.layer)
        named, unnamed = (ctx.states(side, "last", [layer])[:, 0].astype(np.float64) for side in sides)
        details = {
            "rule": "mean difference of prompts with and without the language",
            "token_rule": "last token of every prompt",
            "bos_rule": "as the prompt's template has it",
            "counts": {"named": {"texts": len(named)}, "unnamed": {"texts": len(unnamed)}},
            "prompts": sides[1],
        }
        norms = ctx.mean_states(ctx.parallel(ctx.language)).norm  # of `language`: equal strengths are equal doses
        return add_direction(ctx, config, (named - unnamed).mean(axis=0), norms, details)


def without_language(task: Task) -> Task:
    """Return a task whose zero-shot prompt does not name the language; ``UnsupportedError`` where it cannot be cut."""
    prompt = task.prompts.get("zero-shot", "")
    cut = _IN_LANGUAGE.sub("", prompt)
    if cut == prompt or "{language}" in cut:
        raise UnsupportedError(
            f"instruction needs a zero-shot prompt of {task.name!r} that says 'in {{language}}', and nowhere else "
            f"names it; it is {prompt!r:.80}."
        )
    return task.model_copy(update={"prompts": {**task.prompts, "zero-shot": cut}})


def _tasks(ctx: CellContext | FitContext) -> list[Task]:
    """Return the tasks of the suite that have the cell's language."""
    by_task = ctx.suite.definitions
    return [ctx.suite.task(name, ctx.language) for name in ctx.suite.tasks if ctx.language in by_task[name]]
