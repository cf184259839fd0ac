"""What of a run and its baseline is held against each other, and why it may not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.core.errors import UserError, unknown
from harness.core.languages import unknown_language
from harness.core.records import Manifest, Selection
from harness.ranking.pairing import EntryPair, format_list, match_entries
from harness.ranking.results import ResultSet

LISTS = {"seeds", "methods", "description", "data", "model"}
"""Of a suite: what is run and where it lies, not how it is measured; texts of data and model have hashes of
their own. Suites that differ in nothing else are compared."""


@dataclass(frozen=True)
class Filter:
    """What to look at; None for all that the baseline has."""

    languages: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    settings: Sequence[str] | None = None

    @property
    def words(self) -> list[str]:
        """What was left out on purpose, in words."""
        parts = {
            "languages": self.languages,
            "tasks": self.tasks,
            "methods": self.methods,
            "settings": self.settings,
        }
        return [f"only {name}: {', '.join(part)}" for name, part in parts.items() if part is not None]


@dataclass(frozen=True)
class ComparedSlice:
    """What is looked at: ``base`` and ``new`` cut to the same tasks and languages, and pairs of entries.

    ``absent``: entries of the baseline that the run lacks; ``fresh``: the run's without a baseline.
    """

    base: ResultSet
    new: ResultSet
    pairs: list[EntryPair]
    absent: list[str]
    fresh: list[str]


def compared_slice(base: ResultSet, new: ResultSet, narrowing: Filter) -> ComparedSlice:
    """Return what is looked at. Raises ``UserError`` for a name that the baseline does not have."""
    chosen = base.manifest.selection
    languages = _chosen("language", narrowing.languages, chosen.languages)
    tasks = _chosen("task", narrowing.tasks, chosen.tasks)
    axes = {"languages": languages, "tasks": tasks}
    base, new = (_cut(side, axes, narrowing) for side in (base, new))
    if not base.entries:
        raise UserError("nothing is left of the baseline: no entry has these methods and settings.")
    pairs, absent, fresh = match_entries(base, new)
    return ComparedSlice(base, new, pairs, absent, fresh)


def _chosen(kind: str, wanted: Sequence[str] | None, valid: Sequence[str]) -> list[str]:
    for name in wanted or ():
        if name not in valid:
            hint = "These are the baseline's."
            raise (unknown_language(name, valid, hint) if kind == "language" else unknown(kind, name, valid, hint))
    return [name for name in valid if wanted is None or name in wanted]


def _cut(side: ResultSet, axes: dict[str, list[str]], narrowing: Filter) -> ResultSet:
    """Return a cellset with other tasks and languages, and of its entries those that are wanted."""
    entries = {
        name: row
        for name, row in side.entries.items()
        if (narrowing.methods is None or row.entry.method.name in narrowing.methods)
        and (narrowing.settings is None or row.entry.setting in (*narrowing.settings, "none"))
    }
    lines = side.scores
    kept = lines["task"].isin(axes["tasks"]) & lines["language"].isin(axes["languages"])
    manifest = side.manifest
    selection = manifest.selection.model_copy(update=axes)
    return replace(
        side,
        entries=entries,
        scores=lines[kept].reset_index(drop=True),
        manifest=manifest.model_copy(update={"selection": selection}),
    )


def incompatibility(base: Manifest, new: Manifest, wanted: Selection) -> str:
    """Return why two runs say nothing about each other; empty where they do."""
    if base.suite_hash != new.suite_hash:
        fields = {key for key in {*base.suite, *new.suite} if base.suite.get(key) != new.suite.get(key)}
        if not fields or fields - LISTS:
            where = f", which differ in {format_list(sorted(fields - LISTS))}" if fields else ""
            return (
                f"the run is of another suite: {new.suite.get('name')} ({new.suite_hash}) against "
                f"{base.suite.get('name')} ({base.suite_hash}){where}"
            )
    other = [
        place
        for task in wanted.tasks
        for code in wanted.languages
        if _differs(base.data_hashes, new.data_hashes, place := f"{task}/{code}")
    ]
    if other:
        return f"the run is of other data in {format_list(other)}"
    sizes = [
        f"{task} ({new.selection.texts_per_label[task]} against {size})"
        for task in wanted.tasks
        if (size := base.selection.texts_per_label.get(task)) is not None
        and new.selection.texts_per_label.get(task, size) != size
    ]
    return f"the run has other numbers of texts per label: {format_list(sizes)}" if sizes else ""


def _differs(base: dict[str, str], new: dict[str, str], place: str) -> bool:
    return place in base and place in new and base[place] != new[place]


def seeds(base: Sequence[int], new: Sequence[int], least: int) -> tuple[list[int], list[int], list[int]]:
    """Return the seeds to take of both sides, and those that both have, to be paired by; none if too few.

    Where both have seeds that the other does not, those of the side with fewer seeds are left out.
    """
    common = [seed for seed in base if seed in new]
    if len(common) < least and set(base) != set(new):
        return list(base), list(new), []
    if len(base) >= len(new):
        return list(base) if len(base) > len(common) else common, common, common
    return common, list(new), common
