"""Which entries and cells of two runs may be compared, and what else differs between the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.records import Entry, Manifest, Selection
from harness.core.types import FloatArray
from harness.ranking.results import EntryRow, Missing, ResultSet
from harness.ranking.values import Coverage, MetricArray, TaskLanguage, collect_metric, coverage
from harness.scoring.metrics import Metric

RUN_FIELDS = {"seeds", "methods", "description", "data", "model"}
"""Fields of a suite that say what is run and where it is stored, not how it is measured. Runs record their seeds
and methods themselves, and the texts of the data and the weights of the model have their own hashes."""

_AXES = ("tasks", "languages", "seeds")
DIRECTORIES = ("data", "contrast text", "plug-ins")
"""Parts of ``environment_diff`` that name directories, which a baseline file leaves out."""


class IncomparableError(UserError):
    """Two runs measure different things: their values must not be compared."""


def check_comparable(a: Manifest, b: Manifest, tasks: Sequence[str], languages: Sequence[str]) -> None:
    """Raise ``IncomparableError`` unless two runs have the same suite, data and texts per label.

    The one rule for every comparison of runs. Suites may differ in ``RUN_FIELDS``; data and sizes count for the
    given tasks and languages, as far as both runs know them.
    """
    fields = [key for key in sorted({*a.suite, *b.suite}) if a.suite.get(key) != b.suite.get(key)]
    counting = [key for key in fields if key not in RUN_FIELDS]
    if a.suite_hash != b.suite_hash and (counting or not fields):
        where = f", which differ in {format_list(counting)}" if counting else ""
        raise IncomparableError(
            f"the runs are of different suites: {_suite(a)} and {_suite(b)}{where}. "
            "Only runs of one suite can be compared: run both with the same."
        )
    strata = [f"{task}/{code}" for task in tasks for code in languages]
    shared = [name for name in strata if a.data_hashes.get(name) and b.data_hashes.get(name)]
    different = [name for name in shared if a.data_hashes[name] != b.data_hashes[name]]
    if different:
        raise IncomparableError(
            f"the runs are of different data in {format_list(different)}. "
            "Only runs of the same human-written text can be compared: run both with the same --data."
        )
    sizes = [(task, *(side.selection.texts_per_label.get(task) for side in (a, b))) for task in tasks]
    other = [f"{task} ({one} and {two})" for task, one, two in sizes if one and two and one != two]
    if other:
        raise IncomparableError(
            f"the runs differ in texts per label: {format_list(other)}. "
            "Only cells of one size can be compared: run both with the same --limit."
        )


def common_selection(a: Manifest, b: Manifest) -> Selection:
    """Return what both runs cover; raise ``IncomparableError`` where they do not compare or nothing is common."""
    axes = {
        axis: [value for value in getattr(a.selection, axis) if value in getattr(b.selection, axis)] for axis in _AXES
    }
    check_comparable(a, b, axes["tasks"], axes["languages"])
    for axis, values in axes.items():
        if not values:
            one, other = (format_list(getattr(side.selection, axis)) for side in (a, b))
            raise IncomparableError(f"the runs have no {axis} in common: {one} against {other}.")
    return a.selection.model_copy(update=axes)


def _suite(manifest: Manifest) -> str:
    return f"{manifest.suite.get('name')} ({manifest.suite_hash})"


def excluded_axes(a: Selection, b: Selection, common: Selection) -> list[str]:
    """Return in words, axis by axis, what only one of the runs covers."""
    words = []
    for axis in _AXES:
        left = [
            (side, [v for v in getattr(own, axis) if v not in getattr(common, axis)])
            for side, own in zip("AB", (a, b), strict=True)
        ]
        alone = [f"{format_list(values)} (only {side})" for side, values in left if values]
        if alone:
            words.append(f"{axis} left out: {'; '.join(alone)}")
    return words


def environment_diff(a: Manifest, b: Manifest) -> list[tuple[str, str, str]]:
    """Return (what, A, B) for versions, commit, device, model and text in which the runs differ."""
    sides = [_environment(a), _environment(b)]
    shown = [(what, *(side.get(what) or "–" for side in sides)) for what in sorted({*sides[0], *sides[1]})]
    return [(what, one, other) for what, one, other in shown if one != other]


def _environment(manifest: Manifest) -> dict[str, str | None]:
    model = manifest.model
    return {
        "device": manifest.device,
        "git commit": manifest.git_commit,
        "data": manifest.data_source,
        "contrast text": manifest.contrast,
        "plug-ins": format_list(manifest.plugins) if manifest.plugins else None,
        "model": model.name if model else None,
        "model weights": model.fingerprint if model else None,
        "model revision": model.revision if model else None,
        "precision": model.dtype if model else None,
        "engine": model.engine if model else None,
        **{f"version of {name}": version for name, version in manifest.versions.items()},
    }


@dataclass(frozen=True)
class EntryPair:
    """An entry of A and its partner in B; ``ids``: of both in ``PairedRuns``."""

    a: EntryRow
    b: EntryRow

    @property
    def ids(self) -> tuple[str, str]:
        """The entry's ids in the joined results."""
        return f"a/{self.a.id}", f"b/{self.b.id}"

    @property
    def name(self) -> str:
        """The name of both entries, or both names."""
        return self.a.name if self.a.name == self.b.name else f"{self.a.name} → {self.b.name}"

    @property
    def changed(self) -> list[str]:
        """The method's fields that differ, such as ``strength 0.2 → 0.3``."""
        one, other = self.a.entry.method, self.b.entry.method
        fields: dict[str, tuple[object, object]] = {"version": (one.version, other.version)}
        for option in sorted({*one.options, *other.options}):
            fields[option] = (one.options.get(option), other.options.get(option))
        return [f"{field} {old} → {new}" for field, (old, new) in fields.items() if old != new]


def match_entries(a: ResultSet, b: ResultSet) -> tuple[list[EntryPair], list[str], list[str]]:
    """Return the pairs of entries in the order of A, and the names of the entries without a partner.

    An entry's partner is the same entry; else the only one with the same method and config, whatever the model; else
    the only one with the same method title. Each with the same setting.
    """
    left, right = dict(a.entries), dict(b.entries)
    found: dict[str, str] = {}
    keys: list[Callable[[Entry], object]] = [
        lambda entry: entry.model_dump(mode="json"),
        lambda entry: [entry.method.model_dump(mode="json"), entry.setting],
        lambda entry: [entry.method.title, entry.setting],
    ]
    for key in keys:
        one, other = (_unique(rows, key) for rows in (left, right))
        for same in one.keys() & other.keys():
            found[one[same]] = other[same]
            del left[one[same]], right[other[same]]
    pairs = [EntryPair(row, b.entries[found[name]]) for name, row in a.entries.items() if name in found]
    return pairs, [row.name for row in left.values()], [row.name for row in right.values()]


def _unique(rows: Mapping[str, EntryRow], key: Callable[[Entry], object]) -> dict[str, str]:
    """Return digest of the key -> entry id, for keys that only one entry has."""
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(digest(key(row.entry)), []).append(name)
    return {same: names[0] for same, names in groups.items() if len(names) == 1}


def format_list(values: Sequence[object], most: int = 6) -> str:
    """Return values in words, with commas, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown or "none"


@dataclass(frozen=True)
class PairedRuns:
    """The paired entries of two runs and their cells.

    ``sides``: A and B cut to these entries and to the selection, each with all seeds of its run, under the ids of
    ``EntryPair.ids``; ``joined``: both as one set, with the ``seeds`` of each side; ``common``: seeds to pair by.
    ``alone``: names of the entries of A and of B without a partner.
    """

    pairs: list[EntryPair]
    alone: tuple[list[str], list[str]]
    sides: tuple[ResultSet, ResultSet]
    joined: ResultSet
    seeds: tuple[list[int], list[int]]
    common: list[int]


def pair_runs(
    a: ResultSet, b: ResultSet, selection: Selection, seeds: tuple[list[int], list[int]], common: list[int]
) -> PairedRuns:
    """Pair the entries of two runs within the tasks and languages of a selection."""
    pairs, *alone = match_entries(a, b)
    every = selection.model_copy(update={"seeds": list(dict.fromkeys([*seeds[0], *seeds[1]]))})
    one = _side(a, "a", [pair.a for pair in pairs], every)
    other = _side(b, "b", [pair.b for pair in pairs], every)
    scores = [side.scores[side.scores["seed"].isin(own)] for side, own in zip((one, other), seeds, strict=True)]
    joined = replace(
        one,
        manifest=a.manifest.model_copy(update={"selection": every}),
        entries={**one.entries, **other.entries},
        scores=pd.concat(scores, ignore_index=True),
        cells={**one.cells, **other.cells},
    )
    return PairedRuns(pairs, (alone[0], alone[1]), (one, other), joined, seeds, common)


def _side(run: ResultSet, side: str, rows: Sequence[EntryRow], selection: Selection) -> ResultSet:
    """Return some entries as ``a/ID`` or ``b/ID`` with their cells; cells that were not even planned are missing."""
    wanted = [(*stratum, seed) for stratum in selection.task_languages() for seed in selection.seeds]
    ids = {row.id: f"{side}/{row.id}" for row in rows}
    entries = {}
    for row in rows:
        known = {(found.task, found.language, found.seed): found for found in row.missing}
        gone = [known.get(index, Missing(*index, "not run")) for index in wanted if (row.id, *index) not in run.cells]
        present = len(wanted) - len(gone)
        entries[ids[row.id]] = replace(row, id=ids[row.id], expected=len(wanted), present=present, missing=gone)
    lines = run.scores
    inside = lines["task"].isin(selection.tasks) & lines["language"].isin(selection.languages)
    lines = lines[inside & lines["entry"].isin(list(ids))].reset_index(drop=True)
    own = selection.model_copy(update={"seeds": run.manifest.selection.seeds})
    return ResultSet(
        manifest=run.manifest.model_copy(update={"selection": own}),
        entries=entries,
        scores=lines.assign(entry=lines["entry"].astype(object).map(ids)),
        signatures={},
        cells={(ids[index[0]], *index[1:]): where for index, where in run.cells.items() if index[0] in ids},
    )


class PairedValues:
    """One metric of paired entries: ``array`` holds both sides, ``columns`` the indices of each side's seeds."""

    def __init__(self, runs: PairedRuns, metric: Metric) -> None:
        self.runs, self.metric = runs, metric
        self.array: MetricArray = collect_metric(runs.joined, metric)
        self.columns = [[self.array.seeds.index(seed) for seed in own] for own in runs.seeds]

    def values(self, pair: EntryPair) -> list[FloatArray]:
        """Return the values (stratum, seed) of A and B; NaN where there is none."""
        rows = [self.array.position[name] for name in pair.ids]
        sides = zip(rows, self.columns, strict=True)
        return [np.ascontiguousarray(self.array.values[row][:, own]) for row, own in sides]  # sums depend on the layout

    def coverage(self, pair: EntryPair, strata: Sequence[TaskLanguage] | None = None) -> list[Coverage]:
        """Return how many cells of A and B have a value, in some strata or all, and why the others have none."""
        chosen = self.array.task_languages if strata is None else strata
        found = []
        for name, seeds in zip(pair.ids, self.runs.seeds, strict=True):
            gone = coverage(self.runs.joined, self.array, name).missing
            gone = [cell for cell in gone if cell.seed in seeds and (cell.task, cell.language) in chosen]
            expected = len(chosen) * len(seeds)
            found.append(Coverage(expected - len(gone), expected, gone))
        return found

    def same_texts(self, pair: EntryPair) -> bool:
        """Say whether both sides wrote the same texts in every cell of the common seeds."""
        one, other = (self._texts.get(name) for name in pair.ids)
        return bool(self.runs.common) and one == other

    @cached_property
    def _texts(self) -> dict[str, dict[tuple[str, str, int], str]]:
        """Entry -> cell of a common seed -> digest of its texts."""
        lines = self.runs.joined.scores
        lines = lines[(lines["metric"] == self.metric.name) & lines["seed"].isin(self.runs.common)]
        texts = lines.set_index(["task", "language", "seed"])["texts"].groupby(lines["entry"].to_numpy())
        return {str(name): own.to_dict() for name, own in texts}


def missing_cells(side: str, found: Coverage) -> str:
    """Return in words which cells of a side are missing and why; empty where none is."""
    if not found.missing:
        return ""
    strata = format_list(list(dict.fromkeys(f"{cell.task}/{cell.language}" for cell in found.missing)))
    return f"{len(found.missing)} of {found.expected} cells missing from {side} ({strata}: {found.reasons[0]})"
