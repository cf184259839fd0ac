"""Comparable results: the scores of runs as one table, and the entries that they are of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.core.cells import entry_id, entry_of
from harness.core.files import canonical_json, digest
from harness.core.languages import LANGUAGES
from harness.core.records import Entry, Manifest, Track, Usage, UsageByStep
from harness.core.store import Run, StatusRow
from harness.core.types import FloatArray, IntArray
from harness.core.workers import map_forked
from harness.ranking.stats.sharing import LEVEL, sharing_p
from harness.scoring.metrics import Metric, metric, sort_key

BASELINE = "zero-shot"
"""The method that gains are relative to."""

CellIndex = tuple[str, str, str, int]
"""Entry, task, language, seed."""

CELL = ["entry", "task", "language", "seed"]
"""Columns of scores that name a cell."""


_CELLS = 250  # read at once: fewer are read faster than a process starts
_MANY = 50  # entries whose strata are tested in several processes


class CellCost(NamedTuple):
    """The cost of the texts of a cell, as in its status, and the id of the steering that they were written with."""

    seconds: float
    device: str
    prompt_tokens: int | None
    new_tokens: int | None
    fit: UsageByStep | None
    steering: str | None


@dataclass(frozen=True)
class Missing:
    """A missing cell of an entry, and why it is missing."""

    task: str
    language: str
    seed: int
    reason: str


@dataclass(frozen=True)
class EntryRow:
    """A row of the leaderboard before any metric: the entry and which of its cells are there."""

    id: str
    entry: Entry
    name: str
    expected: int
    present: int
    missing: list[Missing]

    @property
    def complete(self) -> bool:
        """Whether no cell is missing; only then does the entry have an aggregate."""
        return self.present == self.expected


@dataclass(frozen=True)
class ResultSet:
    """Comparable results: runs of one suite hash, one selection and the same data. Only these share a table.

    ``scores`` has one line per entry, task, language, seed and metric: ``entry``, ``task``, ``language``,
    ``seed``, ``metric``, ``value``, ``human`` (human-written text of the same cell), ``signature`` and ``protocol``
    (how it was scored, on what data), ``trainings`` (number of classifier seeds), ``size`` (number of texts, where
    the score states it), ``texts`` (their digest). Names are categories, unknown numbers NaN; ``to_array`` makes
    arrays of it. ``cells``: where the files of a cell are; ``work``: what its texts cost.
    """

    manifest: Manifest
    entries: dict[str, EntryRow]
    scores: pd.DataFrame
    signatures: dict[str, list[str]]
    cells: dict[CellIndex, tuple[Run, str]] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)
    work: dict[CellIndex, CellCost] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The suite and the models, for a heading."""
        names = dict.fromkeys(m.model.name for m in self.manifests if m.model)
        return f"{self.manifest.suite['name']} on {', '.join(names) or 'no model'}"

    @property
    def track(self) -> Track:
        """What was measured: texts as training data, understanding, or language forcing."""
        return self.manifest.track

    @property
    def fixed(self) -> bool:
        """Whether no seed decides a value: a model that answers by likelihood draws nothing."""
        return self.track == "understanding"

    @cached_property
    def metrics(self) -> list[Metric]:
        """The metrics that were measured, downstream ones first."""
        return [metric(name) for name in sorted(self.scores["metric"].unique(), key=sort_key)]

    @cached_property
    def by_seed(self) -> frozenset[str]:
        """The entries whose strata are not independent over seeds, by all primary metrics (level ``LEVEL`` each).

        The decision uses the entry's own values only, so it is the same in every table, task and language.
        """
        chosen, names = self.manifest.selection, [m.name for m in self.metrics if m.primary]
        task_languages, entries = chosen.task_languages(), list(self.entries)
        if self.fixed or len(chosen.seeds) < 2 or len(task_languages) < 2 or not names:
            return frozenset()
        values = by_stratum(self.scores, entries, names, task_languages, chosen.seeds)
        tasks = [task for task, _ in task_languages]
        found = map_forked(lambda own: sharing_p(own, tasks), list(values), len(entries) >= _MANY)
        return frozenset(name for name, p in zip(entries, found, strict=True) if p <= LEVEL)

    @cached_property
    def steered(self) -> dict[str, bool]:
        """Entry -> whether any of its texts were written with a steering; without entries of which no cell is there."""
        found: dict[str, bool] = {}
        for (name, *_), cost in self.work.items() if self.track == "generation" else ():
            found[name] = found.get(name, False) or cost.steering is not None
        return found

    @property
    def headline(self) -> Metric | None:
        """The metric that orders the board: for texts, macro-F1 of the suite's first classifier that ran."""
        if self.track != "generation":
            return next((m for m in self.metrics if m.group == self.track), None)
        found = {m.name: m for m in self.metrics if m.name.startswith("macro_f1/")}
        names = [f"macro_f1/{spec}" for spec in self.manifest.suite["classifiers"]]
        return next((found[name] for name in [*names, *found] if name in found), None)


def positions(column: pd.Series, axis: Sequence[Any]) -> IntArray:
    """Return the index on an axis of every value of a column; -1 for values that are not on it."""
    return np.asarray(pd.Index(list(axis)).get_indexer(pd.Index(column)), dtype=np.int64)


def to_array(scores: pd.DataFrame, axes: Mapping[str, Sequence[Any]], column: str = "value") -> FloatArray:
    """Return a column of scores as an array over some columns, such as ``{"entry": ids, "seed": [1, 2, 3]}``.

    NaN where there is no score; scores that are not on an axis are left out.
    """
    indices = [positions(scores[name], axis) for name, axis in axes.items()]
    inside = np.logical_and.reduce([index >= 0 for index in indices])
    found = np.full([len(axis) for axis in axes.values()], np.nan)
    found[tuple(index[inside] for index in indices)] = scores[column].to_numpy(dtype=np.float64)[inside]
    return found


def by_stratum(
    scores: pd.DataFrame,
    entries: Sequence[str],
    metrics: Sequence[str],
    task_languages: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    column: str = "value",
) -> FloatArray:
    """Return a column by entry, metric, stratum and seed; ``task_languages``: of every stratum."""
    tasks, languages = (list(dict.fromkeys(names)) for names in zip(*task_languages, strict=True))
    axes = {"entry": entries, "metric": metrics, "task": tasks, "language": languages, "seed": seeds}
    rows, columns = (
        [tasks.index(task) for task, _ in task_languages],
        [languages.index(code) for _, code in task_languages],
    )
    return np.asarray(to_array(scores, axes, column)[:, :, rows, columns])


def collect(runs: Iterable[Run]) -> list[ResultSet]:
    """Read runs and group what is comparable: same suite hash, data and selection.

    Raises ``UserError`` for a file that is broken or was not written by steerboard.
    """
    groups: dict[str, list[tuple[Run, Manifest]]] = {}
    for run in runs:
        manifest = run.manifest()
        key = digest([manifest.suite_hash, manifest.selection.identity(), manifest.data_hashes])
        groups.setdefault(key, []).append((run, manifest))
    return [_result_set([run for run, _ in group], [manifest for _, manifest in group]) for group in groups.values()]


def build_result_set(
    manifests: list[Manifest],
    scores: pd.DataFrame,
    cells: dict[CellIndex, tuple[Run, str]],
    reasons: Mapping[CellIndex, str],
    work: dict[CellIndex, CellCost],
) -> ResultSet:
    """Return the entries of comparable manifests with their scores; ``reasons``: why a cell is missing."""
    manifest = manifests[0]  # suite, selection and data are the same in all of them
    entries = {entry_id(entry): entry for each in manifests for entry in each.entries}
    names, chosen = _names(entries), manifest.selection
    wanted = [(task, language, seed) for task, language in chosen.task_languages() for seed in chosen.seeds]
    rows = {}
    for name, entry in entries.items():
        gone = [index for index in wanted if (name, *index) not in cells]
        missing = [Missing(*index, reasons.get((name, *index), "not run")) for index in gone]
        rows[name] = EntryRow(name, entry, names[name], len(wanted), len(wanted) - len(missing), missing)
    pairs = scores[["metric", "signature"]].drop_duplicates().groupby("metric", observed=True)["signature"]
    signatures = {str(name): sorted(found) for name, found in pairs}
    twice = scores.duplicated([*CELL, "metric"])  # of a cell that several runs have each metric counts once
    scores = scores[~twice].reset_index(drop=True) if twice.any() else scores
    return ResultSet(manifest, rows, scores, signatures, cells, manifests, work)


def _result_set(runs: Sequence[Run], manifests: list[Manifest]) -> ResultSet:
    """Return the cells of runs, read into columns: of a million scores no objects are kept.

    Of a cell that several runs have the first is kept.
    """
    cells: dict[CellIndex, tuple[Run, str]] = {}
    work: dict[CellIndex, CellCost] = {}
    reasons: dict[CellIndex, str] = {}
    ids: dict[str, str] = {}  # of entries, computed once for all of their cells
    heads: list[tuple[Any, ...]] = []  # of every scored cell: index, protocol, texts, number of scores
    columns = _Columns()
    for run, cell, entry, place, found in _read_all(runs):
        if entry not in ids:
            record = run.status(cell)
            assert record is not None
            ids[entry] = entry_id(entry_of(record.cell))
        index = (ids[entry], *place)
        if isinstance(found, str):
            reasons[index] = found
            continue
        if index not in cells:
            cells[index], work[index] = (run, cell), found.cost
        heads.append((*index, found.protocol, found.texts, found.numbers.shape[1]))
        columns.add(found)
    return build_result_set(manifests, _frame(heads, columns), cells, reasons, work)


class _CellScores(NamedTuple):
    """The scores of a cell in columns.

    ``names``: all metrics, then all signatures. ``numbers`` (4, scores): value, human, trainings and size.
    """

    cost: CellCost
    protocol: str
    texts: str
    names: tuple[str, ...]
    numbers: FloatArray


class _CellRead(NamedTuple):
    """What a cell has: its entry as text, task, language and seed, and its scores or why there are none."""

    run: Run
    cell: str
    entry: str
    place: tuple[str, str, int]
    found: _CellScores | str


def _read_all(runs: Sequence[Run]) -> Iterator[_CellRead]:
    """Yield the cells of runs that have a status."""
    every = [(run, cell) for run in runs for cell in run.cell_dirs()]
    parts = map_forked(_read_cells, [every[i : i + _CELLS] for i in range(0, len(every), _CELLS)])
    for (run, cell), found in zip(every, chain.from_iterable(parts), strict=True):
        if found:
            yield _CellRead(run, cell, *found)


def _read_cells(cells: Sequence[tuple[Run, str]]) -> list[tuple[str, tuple[str, str, int], _CellScores | str] | None]:
    """Return entry, place, and scores or why there are none, of cells; None for those without a status."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal names are one object, and sent once
    return [_read_cell(run, cell, known) for run, cell in cells]


def _read_cell(
    run: Run, cell: str, known: dict[tuple[str, ...], tuple[str, ...]]
) -> tuple[str, tuple[str, str, int], _CellScores | str] | None:
    status = run.read_status_fast(cell)
    if status is None:
        return None
    key = status["cell"]
    entry, place = repr((key["method"], key["model"], key["setting"])), (key["task"], key["language"], key["seed"])
    scored = run.read_scores_fast(cell) if status["state"] == "ok" else None
    if scored is None:
        reason = "" if status["state"] == "ok" else status.get("reason")  # that of texts says which ones they are
        return entry, place, f"{status['state']}: {reason or 'generated, not yet scored'}"
    scores = scored["scores"]
    names = (*[score["metric"] for score in scores], *[score["signature"] for score in scores])
    numbers = [
        [score["value"] for score in scores],
        [score.get("human") for score in scores],
        [len(score["by_seed"]) if "by_seed" in score else 0 for score in scores],
        [score["detail"].get("texts") if "detail" in score else None for score in scores],
    ]
    values = np.array(numbers, dtype=np.float64)  # None is NaN
    names = known.setdefault(names, names)
    return entry, place, _CellScores(_cost(status), scored["protocol"], scored["generations_sha256"], names, values)


class _Columns:
    """Scores in columns. Names are numbers: strings of their own for each of a million scores would fill the memory."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, int]] = {"metric": {}, "signature": {}}
        self._codes: list[IntArray] = [np.empty((2, 0), dtype=np.int64)]
        self._numbers: list[FloatArray] = [np.empty((4, 0))]
        self._known: dict[tuple[str, ...], IntArray] = {}  # most cells have the same metrics and signatures

    def add(self, cell: _CellScores) -> None:
        """Add the scores of a cell."""
        names, n = cell.names, cell.numbers.shape[1]
        if names not in self._known:
            halves = zip(self._names.values(), (names[:n], names[n:]), strict=True)
            codes = [[known.setdefault(name, len(known)) for name in half] for known, half in halves]
            self._known[names] = np.array(codes, dtype=np.int64)
        self._codes.append(self._known[names])
        self._numbers.append(cell.numbers)

    def series(self) -> dict[str, Any]:
        """Return all scores by the name of their column."""
        value, human, trainings, size = np.concatenate(self._numbers, axis=1)
        codes = zip(self._names.items(), np.concatenate(self._codes, axis=1), strict=True)
        names = {
            column: pd.Categorical.from_codes(code, list(known)).reorder_categories(sorted(known))
            for (column, known), code in codes
        }
        numbers = {"value": value, "human": human}
        return {
            "metric": names["metric"],
            **numbers,
            "signature": names["signature"],
            "trainings": trainings.astype(np.int64),
            "size": size,
        }


def _frame(heads: list[tuple[Any, ...]], columns: _Columns) -> pd.DataFrame:
    """Return all scores, see ``ResultSet.scores``."""
    frame = pd.DataFrame(heads, columns=[*CELL, "protocol", "texts", "count"])
    names = ["entry", "task", "language", "protocol", "texts"]
    frame = frame.astype(dict.fromkeys(names, "category") | {"seed": np.int64, "count": np.int64})
    frame = frame.loc[frame.index.repeat(frame["count"])].drop(columns="count").reset_index(drop=True)
    return frame.assign(**columns.series())


def _cost(status: StatusRow) -> CellCost:
    fit = status.get("fit")
    return CellCost(
        status.get("seconds", 0.0),
        status.get("device", ""),
        status.get("prompt_tokens"),
        status.get("new_tokens"),
        None if fit is None else {name: used and _usage(**used) for name, used in fit.items()},
        status.get("steering"),
    )


@lru_cache(maxsize=4096)  # cells share steps of their fits
def _usage(seconds: float, tokens: int) -> Usage:
    return Usage(seconds=seconds, tokens=tokens)


def _names(entries: dict[str, Entry]) -> dict[str, str]:
    """Return a short title per entry: method, options that differ, setting, and the model if there are several."""
    several = len({entry.model.model_dump_json() for entry in entries.values() if entry.model}) > 1
    by_method: dict[str, list[Entry]] = {}
    for entry in entries.values():
        by_method.setdefault(entry.method.title, []).append(entry)
    varying = {title: _varying([peer.method.options for peer in peers]) for title, peers in by_method.items()}
    titles = {}
    for name, entry in entries.items():
        method = entry.method
        shown = varying[method.title]
        options = [(option, value) for option, value in method.options.items() if option in shown]
        differing = [f"{option}={_words(value)}" for option, value in options]
        differing += [f"{o} by language" for o, v in method.options.items() if o not in shown and _by_language(v)]
        if any(peer.method.version != method.version for peer in by_method[method.title]):
            differing.append(f"v{method.version}")
        title = method.title + (f" [{', '.join(differing)}]" if differing else "")
        title = f"{title} + few-shot" if entry.setting == "few-shot" and method.name != "few-shot" else title
        titles[name] = f"{title}, {entry.model.title}" if several and entry.model else title
    return titles


def _by_language(value: object) -> bool:
    """Say whether an option has a value for every language by itself."""
    return isinstance(value, Mapping) and bool(value) and set(value) <= set(LANGUAGES)


def _words(value: Any) -> str:
    """Return an option's value for a title."""
    return " ".join(f"{code}:{one}" for code, one in value.items()) if _by_language(value) else str(value)


def _varying(options: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the options that are not the same in all configs."""
    names = {name for each in options for name in each}
    return {name for name in names if len({canonical_json(each.get(name)) for each in options}) > 1}
