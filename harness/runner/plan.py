"""Plan the cells of a run: the selected part of a suite, crossed with methods, settings and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.languages import check_known
from harness.core.records import CellKey, MethodIdentity, ModelIdentity, Selection, Setting
from harness.data.corpus import Corpus
from harness.data.suite import Suite

Name = TypeVar("Name", int, str)


class HasIdentity(Protocol):
    """The part of a configured method that a plan depends on."""

    @property
    def identity(self) -> MethodIdentity:
        """Name, version and config."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings that it runs in."""

    @property
    def needs_model(self) -> bool:
        """Whether a model writes its texts."""


def select_cells(
    suite: Suite,
    languages: list[str] | None = None,
    tasks: list[str] | None = None,
    settings: list[str] | None = None,
    seeds: list[int] | None = None,
    limit: int | None = None,
) -> Selection:
    """Return the part of the suite that a run covers; None means all.

    Raises ``UserError`` for values that the suite does not hold.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit} is too small; give at least 1 text per label.")
    names = _choose("task", tasks, list(suite.tasks))
    sizes = {task: min(suite.tasks[task].texts_per_label, limit or suite.tasks[task].texts_per_label) for task in names}
    chosen = Selection(
        languages=_choose("language", languages, suite.languages),
        tasks=names,
        settings=_choose("setting", settings, list(suite.settings)),
        seeds=_choose("seed", seeds, suite.seeds),
        texts_per_label=sizes,
    )
    return chosen.model_copy(update={"narrowed": describe_subset(suite, chosen)})


def describe_subset(suite: Suite, selection: Selection) -> list[str]:
    """Return in words what of the suite a selection leaves out; empty for a full run."""
    words = [] if suite.scored_split == "test" else [f"scored on {suite.scored_split} text"]
    for field in ("languages", "tasks", "settings", "seeds"):
        part, full = getattr(selection, field), list(getattr(suite, field))
        if len(part) < len(full):
            words.append(f"{len(part)} of {len(full)} {field} ({', '.join(map(str, part))})")
    if suite.vectors.sentences is not None:
        words.append(f"vectors from at most {suite.vectors.sentences} sentences per language")
    for task, size in selection.texts_per_label.items():
        if size < suite.tasks[task].texts_per_label:
            words.append(f"{size} of {suite.tasks[task].texts_per_label} texts per {task} label")
    return words


def merge_selections(suite: Suite, old: Selection, new: Selection) -> Selection:
    """Return what two selections of a suite cover together."""
    fields = {
        name: [v for v in getattr(suite, name) if v in getattr(old, name) or v in getattr(new, name)]
        for name in ("languages", "tasks", "settings", "seeds")
    }
    sizes = {**old.texts_per_label, **new.texts_per_label}
    both = Selection.model_validate({**fields, "texts_per_label": sizes})
    return both.model_copy(update={"narrowed": describe_subset(suite, both)})


def plan_cells(
    suite: Suite, selection: Selection, methods: Sequence[HasIdentity], model: ModelIdentity | None, corpus: Corpus
) -> list[Cell]:
    """Return every cell of a run, ordered so that neighbours share prompts and fits.

    Raises ``UserError`` for a method that needs a model where none is given.
    """
    for method in methods:
        if method.needs_model and model is None:
            raise UserError(f"method {method.identity.name!r} needs a model. Give --model.")
    # Once for each: a hash of all vector text takes longer than all else about a cell.
    shared = {
        (task, language): (suite.text_protocol(task, language), corpus.fingerprint(task, language))
        for language in selection.languages
        for task in selection.tasks
    }
    identities = [(method, method.identity) for method in methods]  # once for each: it holds the whole config
    return [
        Cell(
            CellKey(
                suite=suite.name,
                text_protocol=shared[task, language][0],
                data=shared[task, language][1],
                model=model if method.needs_model else None,
                method=identity,
                task=task,
                language=language,
                setting=setting,
                seed=seed,
                texts_per_label=selection.texts_per_label[task],
            )
        )
        for language in selection.languages
        for task in selection.tasks
        for method, identity in identities
        for setting in method.settings
        if setting == "none" or setting in selection.settings
        for seed in selection.seeds
    ]


def _choose(kind: str, wanted: list[Name] | None, valid: list[Name]) -> list[Name]:
    """Return the wanted values in the suite's order, each once."""
    check_known(kind, None if wanted is None else list(map(str, wanted)), list(map(str, valid)))
    return [value for value in valid if wanted is None or value in wanted]
