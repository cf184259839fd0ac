"""The grid of an understanding run: methods x languages x tasks as cells, and its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.cells import Cell, entry_id, entry_of
from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.languages import unknown_language
from harness.core.records import CellKey, Manifest, MethodIdentity, ModelIdentity, Selection
from harness.data.sources import LocalData
from harness.data.suite import MethodSpec, Suite, TaskSize, load_suite
from harness.methods.contract import Reference, SteeringMethod
from harness.methods.registry import Registry
from harness.runner.prepare import RunOptions, RunPlan, merge_manifests, new_manifest, plan_run
from harness.tracks.understanding.tasks import TaskIndex, TaskLanguage

TRACK = "understanding"
_PROMPTING = "few-shot"  # a method that only prompts: here the task prompts
_NOT_ASKED = {"metadata", "dataset_kwargs", "custom_dataset", "process_docs", "process_results"}


@dataclass(frozen=True)
class EvalPlan:
    """What an understanding run is made of.

    ``base`` fits the methods, by the suite's own text; ``places`` are the tasks in their languages, the
    reference language among them as a check; ``tasks`` the loaded tasks by lm-eval's name; ``cells`` all
    cells with the place that each is of; ``limit``: examples of a task at most; ``chat``: whether the model's
    chat template is applied.
    """

    base: RunPlan
    places: list[TaskLanguage]
    tasks: Mapping[str, Any]
    cells: list[tuple[Cell, TaskLanguage]]
    limit: int | None = None
    chat: bool = False

    def method(self, cell: Cell) -> SteeringMethod:
        """Return the configured method of a cell."""
        return self.base.method(cell)

    def fit_cell(self, cell: Cell) -> Cell:
        """Return the cell of the suite whose fit steers a cell here: of the same language."""
        task = fit_task(self.base.suite, cell.key.task, cell.key.language)
        data = self.base.corpus.fingerprint(task, cell.key.language)
        return Cell(cell.key.model_copy(update={"task": task, "data": data}))


def plan_grid(
    options: RunOptions,
    names: Sequence[str],
    folders: Sequence[Path] = (),
    chat: bool = False,
) -> EvalPlan:
    """Return the grid of the named tasks, checked as far as it goes without loading a model.

    ``options.tasks`` and ``settings`` play no part. Raises ``UserError`` for any bad option.
    """
    wanted = options.languages
    base = plan_run(_of_suite(options), understanding_methods)
    reference = base.suite.reference_language
    languages = [code for code in base.suite.languages if wanted is None or code in wanted]
    if wanted is None or reference in wanted:
        languages.append(reference)
    source = base.corpus.source
    catalogue = TaskIndex(base.suite, source.root if isinstance(source, LocalData) else None, folders)
    places = catalogue.places(names, languages)
    if all(place.language == reference for place in places) and languages != [reference]:
        raise UserError(f"{', '.join(names)}: there is data in {reference} alone. Give other tasks.")
    tasks = {place.name: catalogue.load(place) for place in places}
    grid = EvalPlan(base, places, tasks, [], options.limit, chat)
    return replace(grid, cells=_cells(grid, options.seeds))


def _of_suite(options: RunOptions) -> RunOptions:
    """Return the options for the suite itself: nothing of tasks, and its own languages alone."""
    suite = load_suite(options.suite)
    languages, reference = options.languages, suite.reference_language
    valid = [*suite.languages, reference]
    for code in languages or ():
        if code not in valid:
            raise unknown_language(code, valid)
    own = [code for code in languages or () if code != reference] or None
    for name in options.methods or ():
        if name == _PROMPTING:
            raise UserError(f"method {name!r} only prompts; under lm-eval the task does. Leave it out.")
    return replace(
        options,
        languages=own,
        tasks=None,
        settings=["zero-shot"],
        limit=None,
        seeds=None,
        classifiers=["tfidf"],  # none is trained, and none is to be downloaded
    )


def understanding_methods(suite: Suite, registry: Registry) -> Suite:
    """Return the suite with the methods that make sense here: those that steer, and the unsteered row.

    ``learned`` aligns by default: that objective is for understanding (its docstring).
    """
    kept: list[MethodSpec] = []
    for spec in suite.methods:
        for name, options in ({spec: {}} if isinstance(spec, str) else spec).items():
            if name == _PROMPTING or issubclass(registry.get(name), Reference):
                continue
            given = {"objective": "align", **(options or {})} if name == "learned" else (options or {})
            kept.append({name: given} if given else name)
    return suite.model_copy(update={"methods": kept})


def fit_task(suite: Suite, family: str, language: str) -> str:
    """Return the suite's task that a method is fitted for: its own name's, else the first in the language."""
    defined = [task for task, by_language in suite.definitions.items() if language in by_language]
    if not defined:
        raise UserError(f"suite {suite.name!r} has no task in {language!r} to fit a method for.")
    return family if family in defined else defined[0]


def examples(task: Any, limit: int | None) -> list[int] | None:
    """Return the positions of the examples that are asked, spread evenly over the file; None for all.

    lm-eval's own limit takes the first ones: of a file that is sorted by label these are all of one.
    """
    n = len(task.eval_docs)
    return None if limit is None or limit >= n else [i * n // limit for i in range(limit)]


def protocol(grid: EvalPlan, place: TaskLanguage) -> str:
    """Return the hash of how a task asks: its file, version, shots and the chat template."""
    task = grid.tasks[place.name]
    config = {key: str(value) for key, value in sorted(task.dump_config().items()) if key not in _NOT_ASKED}
    return digest([config, str(task.VERSION), grid.chat], 16)


def _cells(grid: EvalPlan, seeds: Sequence[int] | None) -> list[tuple[Cell, TaskLanguage]]:
    """Return the cells, neighbours sharing task and data; one seed, as nothing is drawn, unless named."""
    base, cells = grid.base, []
    for place in grid.places:
        asked, data = protocol(grid, place), _data_of(grid, place)
        for method in base.methods.values():
            if isinstance(method, Reference):
                raise UserError(f"method {method.name!r} answers no task: no model is in it. Leave it out.")
            cells += [
                (_cell(base, place, method.identity, asked, data, seed, grid.limit), place)
                for seed in seeds or base.suite.seeds[:1]
            ]
    return cells


def _cell(
    base: RunPlan,
    place: TaskLanguage,
    method: MethodIdentity,
    asked: str,
    data: str,
    seed: int,
    limit: int | None,
) -> Cell:
    return Cell(
        CellKey(
            suite=f"{base.suite.name} {TRACK}",
            text_protocol=asked,
            data=data,
            model=_model(base),
            method=method,
            task=place.family,
            language=place.language,
            setting="zero-shot",
            seed=seed,
            texts_per_label=limit or 0,
        )
    )


def _model(base: RunPlan) -> ModelIdentity:
    if base.model is None:
        raise UserError("tasks are answered by a model. Give --model.")
    return base.model


def _data_of(grid: EvalPlan, place: TaskLanguage) -> str:
    """Return the hash of the examples of a place and of the text that methods are fitted on."""
    task = grid.tasks[place.name]
    rows = [repr(sorted(dict(row).items())) for row in task.eval_docs]
    asked = examples(task, grid.limit)
    fitted = fit_task(grid.base.suite, place.family, place.language)
    found = rows if asked is None else [rows[i] for i in asked]
    return digest([grid.base.corpus.fingerprint(fitted, place.language), found], 16)


def manifest_of_grid(grid: EvalPlan, options: RunOptions) -> Manifest:
    """Return the manifest to write, grown from the one that is there; call it with the run folder locked.

    Raises ``UserError`` where the folder holds a run of another kind, model, data or size.
    """
    base = grid.base
    run = base.run
    families = {place.family: protocol(grid, place) for place in reversed(grid.places)}
    sizes = {family: TaskSize(texts_per_label=grid.limit or 1) for family in families}
    suite = base.suite.model_copy(
        update={
            "name": f"{base.suite.name} {TRACK}",
            "description": "The steered model answers tasks itself, under lm-eval.",
            "tasks": sizes,
            "settings": ["zero-shot"],
            "classifiers": ["lm-eval"],
        }
    )
    cells = [cell for cell, _ in grid.cells]
    entries = {entry_id(entry_of(cell.key)): entry_of(cell.key) for cell in cells}
    selection = _selection(grid)
    new = new_manifest(base, _of_suite(options)).model_copy(
        update={
            "track": TRACK,
            "suite": suite.dump(),
            "suite_hash": digest([base.suite.hash, TRACK, sorted(families), grid.limit, grid.chat], 16),
            "entries": list(entries.values()),
            "data_hashes": {f"{cell.key.task}/{cell.key.language}": cell.key.data for cell in cells},
            "selection": selection,
        }
    )
    if not run.exists():
        return new
    old = run.manifest()
    if old.track != TRACK:
        raise UserError(f"{run.path} holds a run of the {old.track} track. Choose another --run folder.")
    grown = merge_manifests(old, new, run)
    return grown.model_copy(update={"selection": _both(suite, old.selection, selection)})


def _selection(grid: EvalPlan) -> Selection:
    suite = grid.base.suite
    reference = suite.reference_language
    there = {(place.family, place.language) for place in grid.places}
    codes = [code for code in suite.languages if any(code == known for _, known in there)]
    checked = [reference] if codes and any(code == reference for _, code in there) else []
    families = list(dict.fromkeys(place.family for place in grid.places))
    selection = Selection(
        languages=codes or [reference],
        tasks=families,
        settings=["zero-shot"],
        seeds=list(dict.fromkeys(cell.key.seed for cell, _ in grid.cells)),
        texts_per_label=dict.fromkeys(families, grid.limit or 0),
        absent=[f"{t}/{c}" for t in families for c in [*codes, *checked] if (t, c) not in there],
        checked=checked,
    )
    return selection.model_copy(update={"narrowed": _narrowed(suite, selection, grid.limit)})


def _narrowed(suite: Suite, selection: Selection, limit: int | None) -> list[str]:
    """Return in words what is left out of what there is: languages and examples."""
    words = []
    if len(selection.languages) < len(suite.languages):
        listed = ", ".join(selection.languages)
        words.append(f"{len(selection.languages)} of {len(suite.languages)} languages ({listed})")
    return [*words, f"{limit} examples of every task"] if limit else words


def _both(suite: Suite, old: Selection, new: Selection) -> Selection:
    """Return what two starts of a run cover together: its languages may grow, its tasks stay the same."""
    known, reference = {*old.languages, *new.languages}, suite.reference_language
    codes = [code for code in suite.languages if code in known]
    checked = [reference] if reference in {*known, *old.checked, *new.checked} and codes else []
    absent = list(dict.fromkeys([*old.absent, *new.absent]))
    seeds = sorted({*old.seeds, *new.seeds})
    changes = {"languages": codes or [reference], "checked": checked, "absent": absent, "seeds": seeds}
    both = new.model_copy(update=changes)
    limit = max(new.texts_per_label.values(), default=0)
    return both.model_copy(update={"narrowed": _narrowed(suite, both, limit)})
