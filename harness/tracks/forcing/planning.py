"""The plan of a forcing run: its suite, its cells, and whose steering each cell gets.

The suite is derived from another one. Its tasks are the source languages (``from-en``), its languages the
targets, its labels the questions; so cells, seeds, noise, statuses, resuming and tables are as in any run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.records import Manifest, Selection, Track
from harness.data.corpus import Corpus
from harness.data.sources import Example
from harness.data.suite import MethodSpec, Split, Suite, Task, TaskSize, load_suite
from harness.methods.contract import Reference
from harness.methods.registry import Registry, named_options
from harness.runner.plan import plan_cells, select_cells
from harness.runner.prepare import RunOptions, RunPlan, default_run, plan_run, shipped_model
from harness.tracks.forcing.questions import Half, Questions, load_questions

PREFIX = "from-"
LONGEST = 64
"""Tokens of an answer at most, where neither the suite nor the user asks for fewer or more."""


def source_of(task: str) -> str:
    """Return the source language of a task."""
    return task.removeprefix(PREFIX)


@dataclass
class ForcingCorpus(Corpus):
    """The text of the suite that the forcing suite is derived from.

    A forcing task has no text: methods are fitted on that of the task ``fitted``.
    """

    fitted: str = ""

    @override
    def fingerprint(self, task: str, language: str) -> str:
        return super().fingerprint(self._base_task(task), language)

    @override
    def split(self, task: str, language: str, split: Split) -> list[Example]:
        return super().split(self._base_task(task), language, split)

    def _base_task(self, task: str) -> str:
        return self.fitted if task.startswith(PREFIX) else task


@dataclass(frozen=True, kw_only=True)
class ForcingPlan(RunPlan):
    """A forcing run that is ready to start. ``fitted``: the task of ``base`` that methods are fitted for."""

    base: RunPlan
    questions: Questions
    fitted: str

    track: ClassVar[Track] = "forcing"

    @override
    def fit_cell(self, cell: Cell) -> Cell:
        """Return the cell of the base suite with the same method and target language.

        Its fit is that of a run of that suite, so that one fit serves all sources.
        """
        return Cell(cell.key.model_copy(update={"task": self.fitted}))

    @override
    def check_old(self, old: Manifest) -> None:
        if old.suite_hash != self.suite.hash:
            raise UserError(
                f"{self.run.path} holds a run with other --sources, --split or --max-new-tokens, of another suite "
                "or with other questions. Choose another --run folder."
            )
        super().check_old(old)

    @override
    def merge_selections(self, old: Selection, new: Selection) -> Selection:
        return _without_own(super().merge_selections(old, new))


def plan_forcing(
    options: RunOptions, sources: Sequence[str], half: Half = "test", max_new_tokens: int | None = None
) -> ForcingPlan:
    """Return the plan of questions in ``sources``, checked as far as it goes without loading a model.

    ``options.languages`` are the targets. It has no scorers yet. Raises ``UserError`` for any bad option.
    """
    questions, named = load_questions(), load_suite(options.suite)
    if not sources:
        raise UserError("no source language is named. Give --sources, such as en,de.")
    for code in sources:
        questions.check("source language", code)
    for code in options.languages or named.languages:
        if code in named.languages:  # else the plan says so
            questions.check("target language with questions:", code)
    folder = default_run(named.model_copy(update={"name": _name(named)}), options.model or shipped_model(named))
    wanted = replace(options, run=options.run or folder)
    base = plan_run(wanted, lambda suite, registry: base_suite(suite, registry, options.methods or []), scored=False)
    fitted = next(iter(base.suite.tasks))
    suite = forcing_suite(base.suite, questions, sources, half, max_new_tokens)
    corpus = ForcingCorpus(base.suite, base.corpus.source, base.corpus.contrast_folder, fitted=fitted)
    selection = select_cells(suite, options.languages, seeds=options.seeds)
    cells = plan_cells(suite, selection, list(base.methods.values()), base.model, corpus)
    fields = {**vars(base), "suite": suite, "corpus": corpus, "cells": cells, "selection": _without_own(selection)}
    return ForcingPlan(**{**fields, "base": base}, questions=questions, fitted=fitted)


def base_suite(suite: Suite, registry: Registry, names: Sequence[str] = ()) -> Suite:
    """Return the suite with the methods that make sense here: a model writes, and is shown no examples.

    Raises ``UserError`` for a method that was asked for by name and makes no sense.
    """

    def applies(name: str) -> bool:
        cls = registry.get(name)
        return not issubclass(cls, Reference) and "zero-shot" in cls.settings

    for name in names:
        if not applies(name):
            raise UserError(
                f"method {name!r} does not apply to language forcing, where a model gets the bare question "
                "and no examples. Take zero-shot, or a method that steers."
            )
    specs: list[MethodSpec] = [
        {name: options} if options else name for name, options in named_options(suite.methods) if applies(name)
    ]
    changes = {
        "methods": specs,
        "settings": ["zero-shot"],
        # Scorers of texts are not used here; fixed names keep the suite's hash independent of them.
        "classifiers": ["tfidf"],
        "metrics": suite.metrics.model_copy(update={"embeddings": ["tfidf"]}),
    }
    return suite.model_copy(update=changes)


def forcing_suite(
    base: Suite,
    questions: Questions,
    sources: Sequence[str],
    half: Half = "test",
    max_new_tokens: int | None = None,
) -> Suite:
    """Return the suite of a forcing run; its hash holds every question in every language.

    Every question is answered once per seed: no answer is redrawn for being empty or a duplicate.
    """
    longest = min(LONGEST, base.sampling.max_new_tokens) if max_new_tokens is None else max_new_tokens
    definitions = {
        f"{PREFIX}{source}": {
            target: Task(
                name=f"{PREFIX}{source}",
                language=target,
                labels=questions.asked(source, half),
                prompts={"zero-shot": "{label}"},
                dataset_path="forcing/questions.yaml",
                revision=questions.digest,
                splits={},
                fields={},
            )
            for target in base.languages
        }
        for source in questions.languages
        if source in sources
    }
    changes = {
        "name": _name(base),
        "description": "Bare questions in a source language; the steering should turn the answers' language.",
        "tasks": {task: TaskSize(texts_per_label=1) for task in definitions},
        "definitions": definitions,
        "sampling": base.sampling.model_copy(update={"max_new_tokens": longest, "max_attempts": 1}),
        "scored_split": half,
    }
    return base.model_copy(update=changes)


def _name(base: Suite) -> str:
    return f"{base.name}-forcing"


def _without_own(chosen: Selection) -> Selection:
    """Leave the pairs whose target is the source out of all means, unless there are no others."""
    pairs = chosen.task_languages()
    own = [f"{task}/{code}" for task, code in pairs if source_of(task) == code]
    return chosen.model_copy(update={"absent": own if len(own) < len(pairs) else []})
