"""From the files of runs to columns: a million scores are read into arrays, not into as many objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.cells import entry_id, entry_of
from harness.core.records import Usage, UsageByStep
from harness.core.store import CellKeyRow, Run, ScoresRow, StatusRow, UsageRow
from harness.core.types import IntArray

CellIndex = tuple[str, str, str, int]
"""Entry, task, language, seed."""


class CellCost(NamedTuple):
    """What made the texts of a cell and what it took, as in its status; equal ``fit`` are one object."""

    seconds: float
    device: str
    prompt_tokens: int | None
    new_tokens: int | None
    fit: UsageByStep | None
    steering: str | None = None


class CategoryCodes(dict[str, int]):
    """Names by number; a name that is asked for first gets the next one."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


class ScoreColumns:
    """Scores of cells, a line each: codes of ``metrics`` and ``signatures``, and numbers, NaN for none."""

    def __init__(self) -> None:
        self.metrics, self.signatures = CategoryCodes(), CategoryCodes()
        self.metric, self.signature, self.trainings = array("q"), array("q"), array("q")
        self.value, self.human, self.size = array("d"), array("d"), array("d")

    def add(self, measured: ScoresRow) -> None:
        """Add the scores of a cell."""
        scores, none = measured["scores"], float("nan")
        people = [score.get("human") for score in scores]
        self.metric.fromlist([self.metrics[score["metric"]] for score in scores])
        self.signature.fromlist([self.signatures[score["signature"]] for score in scores])
        self.value.fromlist([none if score["value"] is None else score["value"] for score in scores])
        self.human.fromlist([none if value is None else value for value in people])
        sizes = [score["detail"].get("texts", none) if "detail" in score else none for score in scores]
        self.size.fromlist(sizes)
        self.trainings.fromlist([len(score["by_seed"]) if "by_seed" in score else 0 for score in scores])


@dataclass
class ScoreTable:
    """What was read of cells: scores, a line each, and where they are from.

    ``cells``: where the scores of a place are, of the first run that has it. ``reasons``: why a place has
    none. ``work``: what the cells took. ``heads``: of every scored cell, its place, number of lines, protocol
    and digest of texts.
    """

    columns: ScoreColumns = field(default_factory=ScoreColumns)
    cells: dict[CellIndex, tuple[Run, str]] = field(default_factory=dict)
    reasons: dict[CellIndex, str] = field(default_factory=dict)
    work: dict[CellIndex, CellCost] = field(default_factory=dict)
    heads: list[tuple[CellIndex, int, str, str]] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)
    _fits: dict[tuple[object, ...], UsageByStep] = field(default_factory=dict)

    def read(self, run: Run, cell: str) -> None:
        """Read a cell; ``UserError`` for a file that is broken or not ours."""
        ended = run.ended(cell)
        if ended is None:
            return
        key = ended["cell"]
        place = (self._entry(run, cell, key), key["task"], key["language"], key["seed"])
        measured = run.measured(cell) if ended["state"] == "ok" else None
        if measured is None:
            words = ended.get("reason") or "generated, not yet scored"
            self.reasons[place] = f"{ended['state']}: {words}"
            return
        if place not in self.cells:  # the one whose values are kept
            self.cells[place] = (run, cell)
            self.work[place] = self._work(ended)
        self.heads.append((place, len(measured["scores"]), measured["protocol"], measured["generations_sha256"]))
        self.columns.add(measured)

    def _entry(self, run: Run, cell: str, key: CellKeyRow) -> str:
        """Return the id of the entry of a cell, worked out once for all of its cells."""
        body = repr((key["method"], key["model"], key["setting"]))
        if body not in self._ids:
            status = run.status(cell)
            assert status is not None
            self._ids[body] = entry_id(entry_of(status.cell))
        return self._ids[body]

    def _work(self, ended: StatusRow) -> CellCost:
        fit = ended.get("fit")
        parts = None if fit is None else self._fit(fit)
        tokens = ended.get("prompt_tokens"), ended.get("new_tokens")
        return CellCost(ended.get("seconds", 0.0), ended.get("device", ""), *tokens, parts, ended.get("steering"))

    def _fit(self, fit: dict[str, UsageRow | None]) -> UsageByStep:
        """Return the parts of a fit; one fit serves all seeds and settings, and is one object."""
        spent = tuple((name, part and (part["seconds"], part["tokens"])) for name, part in fit.items())
        if spent not in self._fits:
            self._fits[spent] = {name: part and Usage(**part) for name, part in fit.items()}
        return self._fits[spent]

    def frame(self) -> pd.DataFrame:
        """Return all scores, see ``Cellset.scores``; of a place that several runs have each metric once."""
        columns = self.columns
        counts = np.array([count for _, count, _, _ in self.heads], dtype=np.int64)
        places = [place for place, _, _, _ in self.heads]
        frame: dict[str, Any] = {
            "entry": _repeated([entry for entry, _, _, _ in places], counts),
            "task": _repeated([task for _, task, _, _ in places], counts),
            "language": _repeated([code for _, _, code, _ in places], counts),
            "seed": np.repeat(np.array([seed for _, _, _, seed in places], dtype=np.int64), counts),
            "metric": _named(np.array(columns.metric, dtype=np.int64), columns.metrics),
            "value": np.array(columns.value),
            "human": np.array(columns.human),
            "signature": _named(np.array(columns.signature, dtype=np.int64), columns.signatures),
            "protocol": _repeated([protocol for _, _, protocol, _ in self.heads], counts),
            "trainings": np.array(columns.trainings, dtype=np.int64),
            "size": np.array(columns.size),
            "texts": _repeated([texts for _, _, _, texts in self.heads], counts),
        }
        whole = pd.DataFrame(frame)
        twice = whole.duplicated(["entry", "task", "language", "seed", "metric"])
        return whole[~twice].reset_index(drop=True) if twice.any() else whole

    def recipes(self) -> dict[str, list[str]]:
        """Return metric -> the signatures that it was measured by, both sorted."""
        columns = self.columns
        count = max(len(columns.signatures), 1)
        pairs = np.unique(np.array(columns.metric, dtype=np.int64) * count + np.array(columns.signature))
        metrics, signatures = list(columns.metrics), list(columns.signatures)
        found: dict[str, list[str]] = {}
        for metric, signature in zip(*(part.tolist() for part in np.divmod(pairs, count)), strict=True):
            found.setdefault(metrics[int(metric)], []).append(signatures[int(signature)])
        return {name: sorted(found[name]) for name in sorted(found)}


def read(runs: Iterable[Run]) -> ScoreTable:
    """Return what is in the cells of comparable runs, one run after the other.

    Raises ``UserError`` for a file that is broken or not ours.
    """
    sheet = ScoreTable()
    for run in runs:
        for cell in run.folders():
            sheet.read(run, cell)
    return sheet


def _repeated(names: Sequence[str], counts: IntArray) -> pd.Categorical:
    """Return a column that holds each name as often as said."""
    codes = CategoryCodes()
    return _named(np.repeat(np.array([codes[name] for name in names], dtype=np.int64), counts), codes)


def _named(codes: IntArray, names: Iterable[str]) -> pd.Categorical:
    """Return a column of names by their codes; sorted, so that groups come in the order of the names."""
    listed = list(names)
    order = sorted(range(len(listed)), key=listed.__getitem__)
    place = np.empty(len(listed), dtype=np.int64)
    place[order] = np.arange(len(listed))
    return pd.Categorical.from_codes(place[codes], categories=[listed[i] for i in order])


def codes_of(column: Any, axis: Sequence[str | int]) -> IntArray:
    """Return the place on an axis of every value of a column; -1 for those that are not on it."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        places = {name: i for i, name in enumerate(axis)}
        known = np.array([places.get(name, -1) for name in column.cat.categories] + [-1], dtype=np.int64)
        return np.asarray(known[column.cat.codes.to_numpy()])
    return np.asarray(pd.Index(list(axis)).get_indexer(column), dtype=np.int64)


def cube(
    lines: pd.DataFrame, entries: Sequence[str], strata: Sequence[tuple[str, str]], seeds: Sequence[int]
) -> NDArray[np.float64]:
    """Return the values of lines by entry, stratum (task and language) and seed, NaN where there is none."""
    tasks, codes = (list(dict.fromkeys(names)) for names in zip(*strata, strict=True))
    places = [codes_of(lines[name], axis) for name, axis in (("task", tasks), ("language", codes))]
    columns = np.full((len(tasks) + 1, len(codes) + 1), -1)  # what is not known comes last
    for i, (task, code) in enumerate(strata):
        columns[tasks.index(task), codes.index(code)] = i
    rows, layers = codes_of(lines["entry"], entries), codes_of(lines["seed"], seeds)
    column = columns[places[0], places[1]]
    inside = (column >= 0) & (layers >= 0) & (rows >= 0)
    values = np.full((len(entries), len(strata), len(seeds)), np.nan)
    values[rows[inside], column[inside], layers[inside]] = lines["value"].to_numpy(dtype=np.float64)[inside]
    return values
