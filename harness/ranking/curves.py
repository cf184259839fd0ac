"""Data-size curves: macro-F1 after training on more and more texts, next to the curve of human-written text.

Points, areas and distances from the human curve are weighted sums of one array with a row per entry and number of
texts, so that their intervals are those of ``harness.ranking.stats.variance``: over seeds and shared test examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.threads import limit_blas_threads
from harness.core.types import FloatArray, IntArray
from harness.core.workers import map_forked
from harness.data.suite import CurveSettings
from harness.ranking.results import CellIndex, ResultSet, by_stratum
from harness.ranking.stats.estimates import Estimate, estimates
from harness.ranking.stats.resampling import Predictions, load_predictions
from harness.ranking.stats.variance import Contrasts
from harness.ranking.values import MetricArray, StratumValues, with_draws
from harness.scoring.curve import Censored, area_weights, human_equivalent, monotone_weights
from harness.scoring.metrics import CURVE_F1, CURVE_MIXED_F1, curve_point

_STEPS = 400  # of n on the human curve, at which an interval may end
_MANY = 500  # cells whose predictions are read in several processes


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve: macro-F1 of ``n`` texts per label, mean over the strata and seeds in scope.

    ``mixed``: the same of a few human-written texts per label and ``n`` synthetic ones; None without.
    """

    n: int
    value: Estimate | None
    mixed: Estimate | None


@dataclass(frozen=True)
class Curve:
    """The curve of an entry; ``entry`` is None for human-written text.

    ``points``: in order of n, only those with data in every stratum of the scope. ``area``: over these points; None for
    fewer than two. ``human_equivalent``: in texts per label, of the macro-F1 at the largest n; None for human-written
    text, and without its curve. Its interval ends where the human curve does. ``censored``: on which side of the
    human curve the human-equivalent n lies, if it is not on it.
    """

    entry: str | None
    points: list[CurvePoint]
    area: Estimate | None
    human_equivalent: Estimate | None
    censored: Literal["", "below", "above"]


@dataclass(frozen=True)
class CurveSet:
    """The curves of results by one classifier, such as ``tfidf``; ``entries``: entry id -> curve."""

    classifier: str
    human: Curve | None
    entries: dict[str, Curve]


_Kind = Literal["own", "mixed", "human"]


class _Row(NamedTuple):
    """A row of the array: an entry's texts alone or mixed, or human text, which is kept with the cells of entries."""

    kind: _Kind
    n: int
    entry: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.n} {self.entry}"


def curves_of(
    results: ResultSet, classifier: str, task: str | None = None, language: str | None = None
) -> CurveSet | None:
    """Return the curves of all entries, over all tasks and languages or one.

    None where the suite has no curve, or nothing of it was scored by the classifier. The human curve is that beside
    the scores of entries: the row ``human`` need not have run.
    """
    settings = _settings(results)
    if settings is None:
        return None
    array = _array(results, classifier, settings.sizes)
    if array is None:
        return None
    array = array.select(None if task is None else [task], None if language is None else [language])
    if not array.parts:
        return None
    human = [n for n in settings.sizes if _Row("human", n, "").name in array.complete]
    curves = {}
    for name in sorted(results.entries):
        own = [n for n in settings.sizes if _Row("own", n, name).name in array.complete]
        if own:
            curves[name] = _curve(array, name, own)
    return CurveSet(
        classifier,
        _curve(array, None, human) if human else None,
        _with_equivalents(array, curves, human) if len(human) > 1 else curves,
    )


def _settings(results: ResultSet) -> CurveSettings | None:
    """Return the suite's settings of curves; None without, and where a manifest does not hold a suite's."""
    try:
        return CurveSettings.model_validate(results.manifest.suite["metrics"]["curve"])
    except (KeyError, TypeError, ValidationError):
        return None


_last: list[tuple[ResultSet, str, MetricArray | None]] = []  # a board asks for every task and language


def _array(results: ResultSet, classifier: str, sizes: Sequence[int]) -> MetricArray | None:
    """Return the array of all rows over all strata, None without scores; that of the last results is kept."""
    if not (_last and _last[0][0] is results and _last[0][1] == classifier):
        _last[:] = [(results, classifier, _read(results, classifier, sizes))]
    return _last[0][2]


def _read(results: ResultSet, classifier: str, sizes: Sequence[int]) -> MetricArray | None:
    names = [curve_point(base, classifier, n).name for base in (CURVE_F1, CURVE_MIXED_F1) for n in sizes]
    scores = results.scores[results.scores["metric"].isin(names)]
    chosen = results.manifest.selection
    strata, seeds, entries = chosen.task_languages(), list(chosen.seeds), sorted(results.entries)
    if scores.empty or not strata:
        return None
    values = by_stratum(scores, entries, names, strata, seeds)
    human = by_stratum(scores, entries, names[: len(sizes)], strata, seeds, "human")
    first = (~np.isnan(human)).argmax(axis=0)  # of the entries that have the human value beside them: it is the same
    kinds: list[_Kind] = ["own", "mixed"]
    rows = [_Row("human", n, "") for n in sizes] + [_Row(k, n, name) for name in entries for k in kinds for n in sizes]
    stacked = [*np.take_along_axis(human, first[None], axis=0)[0], *values.reshape(-1, *values.shape[2:])]
    beside = {n: np.array(entries)[index] for n, index in zip(sizes, first, strict=True)}
    read = _Reader(results, classifier, rows, np.array(stacked), beside)
    with limit_blas_threads():
        parts = map_forked(read, range(len(strata)), len(results.cells) >= _MANY)
    by_seed = frozenset(row.name for row in rows if row.entry in results.by_seed)
    return MetricArray(CURVE_F1, [row.name for row in rows], seeds, list(parts), results.fixed, by_seed)


@dataclass(frozen=True)
class _Reader:
    """Reads a stratum with the predictions behind its values, every cell once.

    ``values``: [rows, strata, seeds]. ``beside``: n -> the entries [strata, seeds] that human text is kept with.
    """

    results: ResultSet
    classifier: str
    rows: list[_Row]
    values: FloatArray
    beside: dict[int, NDArray[np.str_]]

    def __call__(self, stratum: int) -> StratumValues:
        """Return the values of a stratum, and their draws if predictions are kept of all of them."""
        chosen = self.results.manifest.selection
        part = StratumValues(chosen.task_languages()[stratum], self.values[:, stratum])
        known = np.argwhere(~np.isnan(part.values)).tolist()
        cells: dict[CellIndex, dict[str, Any]] = {}
        found = []
        try:
            for i, g in known:
                row = self.rows[i]
                entry = row.entry or str(self.beside[row.n][stratum, g])
                found.append(self._predictions(row, (entry, *part.task_language, chosen.seeds[g]), cells))
        except UserError as error:
            return replace(part, problem=str(error))
        return with_draws("macro_f1", found, part)

    def _predictions(self, row: _Row, index: CellIndex, cells: dict[CellIndex, dict[str, Any]]) -> Predictions:
        if index not in cells:
            run, cell = self.results.cells[index]
            cells[index] = run.read_predictions_fast(cell)
        point = curve_point(CURVE_MIXED_F1 if row.kind == "mixed" else CURVE_F1, self.classifier, row.n)
        found = load_predictions(point, cells[index], "human" if row.kind == "human" else "predictions")
        if found is None:
            name, task, code, seed = index
            title = f"{self.results.entries[name].name} in {task}/{code}, seed {seed}"
            raise UserError(f"no predictions are kept of the curve of {title}")
        return found


def _curve(array: MetricArray, entry: str | None, sizes: Sequence[int]) -> Curve:
    """Return a curve without its human-equivalent n."""
    own = _rows(array, "human" if entry is None else "own", sizes, entry)
    values = estimates(array.moments(Contrasts.means(own)))
    mixed = {n: _Row("mixed", n, entry or "").name for n in sizes}
    both = [n for n in sizes if entry is not None and mixed[n] in array.complete]
    found = dict(zip(both, estimates(array.moments(Contrasts.means(array.rows(mixed[n] for n in both)))), strict=True))
    area = None
    if len(sizes) > 1:
        terms = [(own[i : i + 1], weight[None]) for i, weight in enumerate(area_weights(sizes))]
        [area] = estimates(array.moments(Contrasts(terms)))
    points = [CurvePoint(n, value, found.get(n)) for n, value in zip(sizes, values, strict=True)]
    return Curve(entry, points, area, None, "")


def _rows(array: MetricArray, kind: _Kind, sizes: Sequence[int], entry: str | None) -> IntArray:
    return array.rows(_Row(kind, n, entry or "").name for n in sizes)


def _with_equivalents(array: MetricArray, curves: dict[str, Curve], sizes: Sequence[int]) -> dict[str, Curve]:
    """Return curves with the human-equivalent n of their last point; ``sizes``: of the human curve.

    The interval holds every n of the human curve whose macro-F1 does not differ from the entry's (Fieller 1954, as for
    the gap closed): both vary, over seeds and over the same test examples.
    """
    human = _rows(array, "human", sizes, None)
    means = array.moments(Contrasts.means(human)).mean
    grid = np.geomspace(sizes[0], sizes[-1], _STEPS)
    weights = _interpolation(grid, sizes) @ monotone_weights(means)
    found = {}
    for name, curve in curves.items():
        last = array.rows([_Row("own", curve.points[-1].n, name).name])
        value = curve.points[-1].value
        assert value is not None
        n, side = human_equivalent(value.mean, sizes, means)
        terms = [(np.repeat(row, _STEPS), -weights[:, i]) for i, row in enumerate(human)]
        apart = array.moments(Contrasts([(np.repeat(last, _STEPS), np.ones(_STEPS)), *terms]))
        estimate = _on_curve(n, side, grid, apart.mean, apart.ci_half_width)
        found[name] = replace(curve, human_equivalent=estimate, censored=side)
    return found


def _on_curve(n: float, side: Censored, grid: FloatArray, gap: FloatArray, half: FloatArray) -> Estimate:
    """Return a human-equivalent n with the smallest interval that holds all n of the grid that are not refused."""
    if np.isnan(half).any():
        return Estimate(n)
    held = grid[np.abs(gap) <= half]
    return Estimate(n, low=float(min([n, *held])), high=float(max([n, *held])))


def _interpolation(grid: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """Return the weights [grid, sizes] of points in linear interpolation over log n."""
    return np.stack([np.interp(np.log(grid), np.log(sizes), unit) for unit in np.eye(len(sizes))], axis=1)
