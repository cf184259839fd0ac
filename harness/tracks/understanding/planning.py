"""The grid of an understanding run: methods x languages x tasks as cells, and its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.languages import unknown_language
from harness.core.records import CellKey, Manifest, Selection, Track
from harness.data.sources import LocalData
from harness.data.suite import MethodSpec, Suite, TaskSize, load_suite
from harness.methods.contract import CellContext, Reference
from harness.methods.registry import Registry, named_options
from harness.runner.prepare import RunOptions, RunPlan, default_run, plan_run, shipped_model
from harness.tracks.understanding.tasks import TaskIndex, TaskLanguage

_PROMPTING = "few-shot"  # a method that only prompts: here the task does that
_NOT_ASKED = {"metadata", "dataset_kwargs", "custom_dataset", "process_docs", "process_results"}


@dataclass(frozen=True, kw_only=True)
class EvalPlan(RunPlan):
    """An understanding run that is ready to start.

    ``base`` fits the methods, by the suite's text; ``tasks``: the loaded tasks by lm-eval's name; ``task_of``: cell
    id -> its task and language, the reference language among them as a control; ``limit``: examples of a task at
    most; ``chat``: whether the model's chat template is applied.
    """

    base: RunPlan
    tasks: Mapping[str, Any]
    task_of: Mapping[str, TaskLanguage]
    limit: int | None
    chat: bool

    track: ClassVar[Track] = "understanding"

    @property
    @override
    def suite_hash(self) -> str:
        return digest([self.base.suite.hash, self.track, sorted(self.suite.tasks), self.limit, self.chat], 16)

    @override
    def fit_cell(self, cell: Cell) -> Cell:
        """Return the cell of the base suite whose fit steers a cell here: of the same language."""
        task = fit_task(self.base.suite, cell.key.task, cell.key.language)
        data = self.base.corpus.fingerprint(task, cell.key.language)
        return Cell(cell.key.model_copy(update={"task": task, "data": data}))

    @override
    def context(self, cell: Cell) -> CellContext:
        key, suite = self.fit_cell(cell).key, self.base.suite
        return CellContext(suite, suite.task(key.task, key.language), "zero-shot", key.seed, 1)

    @override
    def check_old(self, old: Manifest) -> None:
        """Accept any: the data of every cell holds the contrast text's fingerprint."""

    @override
    def merge_selections(self, old: Selection, new: Selection) -> Selection:
        """Return what two starts cover together: languages may grow, tasks stay the same."""
        codes = {*old.languages, *old.checked, *new.languages, *new.checked}
        absent = list(dict.fromkeys([*old.absent, *new.absent]))
        return _selection(self.suite, self.limit, codes, sorted({*old.seeds, *new.seeds}), absent)


def plan_grid(options: RunOptions, names: Sequence[str], folders: Sequence[Path] = (), chat: bool = False) -> EvalPlan:
    """Return the plan of the named tasks, checked as far as it goes without loading a model.

    ``options.tasks`` and ``settings`` do not matter. Raises ``UserError`` for any bad option.
    """
    named, wanted = load_suite(options.suite), options.languages
    reference = named.reference_language
    for code in wanted or ():
        if code not in {*named.languages, reference}:
            raise unknown_language(code, [*named.languages, reference])
    for name in options.methods or ():
        if name == _PROMPTING:
            raise UserError(f"method {name!r} only prompts; under lm-eval the task does. Leave it out.")
    plain = default_run(named, options.model or shipped_model(named))
    run = options.run or plain.with_name(f"{plain.name}-understanding")
    own = [code for code in wanted or () if code != reference] or None
    fitted = replace(options, run=run, languages=own, tasks=None, settings=["zero-shot"], limit=None, seeds=None)
    base = plan_run(fitted, understanding_methods, scored=False)
    languages = [code for code in base.suite.languages if wanted is None or code in wanted]
    if wanted is None or reference in wanted:
        languages.append(reference)
    source = base.corpus.source
    index = TaskIndex(base.suite, source.root if isinstance(source, LocalData) else None, folders)
    found = index.find(names, languages)
    if all(item.language == reference for item in found) and languages != [reference]:
        raise UserError(f"{', '.join(names)}: there is data in {reference} alone. Give other tasks.")
    tasks = {item.name: index.load(item) for item in found}
    seeds = options.seeds or base.suite.seeds[:1]  # one, as a task rarely draws anything
    cells = [
        (cell, item) for item in found for cell in _cells(base, item, tasks[item.name], seeds, options.limit, chat)
    ]
    there = {(item.family, item.language) for item in found}
    families, codes = list(dict.fromkeys(item.family for item in found)), {code for _, code in there}
    changes = {
        "name": f"{base.suite.name} understanding",
        "description": "The steered model answers tasks itself, under lm-eval.",
        "tasks": {family: TaskSize(texts_per_label=options.limit or 1) for family in families},
        "settings": ["zero-shot"],
        "classifiers": ["lm-eval"],
    }
    suite = base.suite.model_copy(update=changes)
    absent = [f"{t}/{c}" for t in families for c in [*suite.languages, reference] if c in codes and (t, c) not in there]
    fields = {
        **vars(base),
        "suite": suite,
        "cells": [cell for cell, _ in cells],
        "selection": _selection(suite, options.limit, codes, list(dict.fromkeys(seeds)), absent),
        "base": base,
    }
    task_of = {cell.id: item for cell, item in cells}
    return EvalPlan(**fields, tasks=tasks, task_of=task_of, limit=options.limit, chat=chat)


def understanding_methods(suite: Suite, registry: Registry) -> Suite:
    """Return the suite with the methods that make sense here: those that steer, and the unsteered row.

    ``learned`` aligns by default: that objective is for understanding (see its docstring).
    """
    kept: list[MethodSpec] = []
    for name, options in named_options(suite.methods):
        if name != _PROMPTING and not issubclass(registry.get(name), Reference):
            given = {"objective": "align", **options} if name == "learned" else options
            kept.append({name: given} if given else name)
    return suite.model_copy(update={"methods": kept})


def fit_task(suite: Suite, family: str, language: str) -> str:
    """Return the suite's task that a method is fitted for: of the same name, else the first in the language."""
    defined = [task for task, by_language in suite.definitions.items() if language in by_language]
    if not defined:
        raise UserError(f"suite {suite.name!r} has no task in {language!r} to fit a method for.")
    return family if family in defined else defined[0]


def examples(task: Any, limit: int | None) -> list[int] | None:
    """Return the positions of the examples that are used, spread evenly over the file; None for all.

    lm-eval's own limit takes the first ones: of a file that is sorted by label these all have one label.
    """
    n = len(task.eval_docs)
    return None if limit is None or limit >= n else [i * n // limit for i in range(limit)]


def _cells(
    base: RunPlan, item: TaskLanguage, task: Any, seeds: Sequence[int], limit: int | None, chat: bool
) -> Iterator[Cell]:
    """Yield the cells of a task in a language, which share task and data."""
    # How the task asks: its file, version, shots and the chat template.
    config = {key: str(value) for key, value in sorted(task.dump_config().items()) if key not in _NOT_ASKED}
    # The examples, and the text that methods are fitted on.
    rows, asked = [repr(sorted(dict(row).items())) for row in task.eval_docs], examples(task, limit)
    fitted = base.corpus.fingerprint(fit_task(base.suite, item.family, item.language), item.language)
    fields = {
        "suite": f"{base.suite.name} understanding",
        "text_protocol": digest([config, str(task.VERSION), chat], 16),
        "data": digest([fitted, rows if asked is None else [rows[i] for i in asked]], 16),
        "model": base.model,
        "task": item.family,
        "language": item.language,
        "setting": "zero-shot",
        "texts_per_label": limit or 0,
    }
    for method in base.methods.values():
        if isinstance(method, Reference):
            raise UserError(f"method {method.name!r} answers no tasks: it has no model. Leave it out.")
        if base.model is None:
            raise UserError("tasks are answered by a model. Give --model.")
        for seed in seeds:
            yield Cell(CellKey.model_validate({**fields, "method": method.identity, "seed": seed}))


def _selection(suite: Suite, limit: int | None, languages: set[str], seeds: list[int], absent: list[str]) -> Selection:
    """Return the selection for some languages; next to others, the reference language is a control."""
    reference, families = suite.reference_language, list(suite.tasks)
    own = [code for code in suite.languages if code in languages]
    codes, full = own or [reference], len(suite.languages)
    words = [f"{len(codes)} of {full} languages ({', '.join(codes)})"] if len(codes) < full else []
    return Selection(
        languages=codes,
        tasks=families,
        settings=["zero-shot"],
        seeds=seeds,
        texts_per_label=dict.fromkeys(families, limit or 0),
        narrowed=[*words, f"{limit} examples of every task"] if limit else words,
        absent=absent,
        checked=[reference] if own and reference in languages else [],
    )
