"""From the cells of a table to the numbers that statistics are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.errors import UserError
from harness.core.threads import limit_blas_threads
from harness.core.types import FloatArray, IntArray
from harness.ranking.load import CellIndex, codes_of, cube
from harness.ranking.results import Missing, ResultSet
from harness.ranking.stats.estimates import CompleteValues, draw_weights, inflate_variance
from harness.ranking.stats.resampling import Measure, Predictions, bootstrap_scores, load_predictions, measure_of
from harness.ranking.stats.variance import Stratum, build_stratum
from harness.scoring.metrics import Metric

DRAWS = 1000
"""Resamples of the test examples."""

_CLOSE = 1e-5  # single precision, of a mean over labels and classifier seeds

StratumKey = tuple[str, str]
"""A task and a language."""


@dataclass(frozen=True)
class Coverage:
    """How much of an entry is there for a metric: ``n`` of ``expected`` cells, and why not the rest."""

    n: int
    expected: int
    missing: list[Missing]

    @property
    def reasons(self) -> list[str]:
        """The reasons, each once, with the number of cells; the most frequent first."""
        counts: dict[str, int] = {}
        for item in self.missing:
            counts[item.reason] = counts.get(item.reason, 0) + 1
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return [f"{n} × {reason}" if n > 1 else reason for reason, n in ordered]


@dataclass(frozen=True)
class ResampledScores:
    """One metric under resampled test examples.

    ``draws`` (entry, stratum, seed, draw): NaN where there is none. By stratum: ``examples``, their number,
    and ``problems``, why they cannot be resampled.
    """

    draws: NDArray[np.float32]
    examples: Mapping[StratumKey, int]
    problems: Mapping[StratumKey, str]


@dataclass(frozen=True)
class MetricArray:
    """One metric of all entries: ``values`` (entry, stratum, seed), NaN where there is none.

    ``tested``: the same under resampled test examples; None where the metric has none. By task and language,
    of all scores that were read: ``fewest`` classifier seeds of a value, and ``recipes``, in words where the
    values were made by more than one. ``fixed``: no seed decides a value, as nothing is drawn. ``by_seed``:
    the entries whose strata are not independent over seeds.
    """

    metric: Metric
    entries: list[str]
    strata: list[StratumKey]
    seeds: list[int]
    values: FloatArray
    tested: ResampledScores | None
    fewest: Mapping[StratumKey, int]
    recipes: Mapping[StratumKey, str]
    fixed: bool = False
    by_seed: frozenset[str] = frozenset()
    _layers: dict[tuple[object, ...], Stratum] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def position(self) -> dict[str, int]:
        """Entry -> its row."""
        return {name: i for i, name in enumerate(self.entries)}

    @cached_property
    def complete(self) -> set[str]:
        """The entries that lack no value."""
        known = np.flatnonzero(~np.isnan(self.values).any(axis=(1, 2)))
        return {self.entries[int(i)] for i in known}

    @cached_property
    def trainings(self) -> int:
        """The fewest classifier seeds of a value."""
        return min(self.fewest.values(), default=0)

    @cached_property
    def mixed(self) -> list[str]:
        """The strata whose values were made by more than one recipe, in words."""
        return [words for _, words in sorted(self.recipes.items())]

    @cached_property
    def note(self) -> str:
        """Why test examples are not resampled; empty where they are, and for a metric without any."""
        problems = self.tested.problems if self.tested else {}
        found = [problems[stratum] for stratum in self.strata if stratum in problems]
        return f"test examples are not resampled: {found[0]}" if found else ""

    @cached_property
    def examples(self) -> int | None:
        """Test examples of the stratum with the fewest; None where they are not resampled."""
        if self.tested is None or self.note:
            return None
        known = self.tested.examples
        return min((known[stratum] for stratum in self.strata if stratum in known), default=None)

    @property
    def draws(self) -> NDArray[np.float32] | None:
        """The values under resampled test examples, with a last axis of draws; None where there are none."""
        return self.tested.draws if self.tested and self.examples else None

    def only(self, tasks: Collection[str] | None = None, languages: Collection[str] | None = None) -> MetricArray:
        """Return what is known of some tasks or languages or both, as if nothing else had been gathered."""

        def within(place: StratumKey) -> bool:
            return (tasks is None or place[0] in tasks) and (languages is None or place[1] in languages)

        chosen = [i for i, place in enumerate(self.strata) if within(place)]
        if len(chosen) == len(self.strata):
            return self
        columns, tested = _places(chosen), self.tested
        return replace(
            self,
            strata=[self.strata[i] for i in chosen],
            values=self.values[:, columns],
            tested=tested and replace(tested, draws=tested.draws[:, columns]),
            fewest={place: n for place, n in self.fewest.items() if within(place)},
            recipes={place: how for place, how in self.recipes.items() if within(place)},
        )

    @property
    def layers(self) -> list[Stratum]:
        """The strata as statistics take them, rows in the order of ``entries``."""
        return [self._layer(column, {}, ()) for column in range(len(self.strata))]

    def layers_over(self, bases: Mapping[str, str]) -> list[Stratum]:
        """Return the strata of gains: every entry minus its base; one without a base is its own, gain 0."""
        key = tuple(sorted(bases.items()))
        return [self._layer(column, bases, key) for column in range(len(self.strata))]

    def _layer(self, column: int, bases: Mapping[str, str], key: tuple[object, ...]) -> Stratum:
        """Return a stratum; it is kept, also for narrower evidence (``only``)."""
        stratum = self.strata[column]
        if (stratum, key) not in self._layers:
            values, draws = self.values[:, column], None
            marks = [not self.by_seed.isdisjoint({name, bases.get(name, name)}) for name in self.entries]
            if self.tested and stratum in self.tested.examples:
                draws = self.tested.draws[:, column]
            if bases:
                rows = [self.position[bases.get(name, name)] for name in self.entries]
                values, draws = values - values[rows], None if draws is None else draws - draws[rows]
            self._layers[stratum, key] = build_stratum(values, draws, self.fixed, np.array(marks))
        return self._layers[stratum, key]

    def panel(self, entries: Sequence[str]) -> CompleteValues:
        """Return the numbers of some complete entries, in the order given."""
        rows = [self.position[name] for name in entries]
        by_seed = np.array([name in self.by_seed for name in entries])
        draws = None if self.draws is None else self.draws[rows]
        return CompleteValues(self.values[rows], draws, self.examples, self.fixed, by_seed)


def _places(chosen: Sequence[int]) -> slice | list[int]:
    """Return places as a slice where they are evenly spaced: what it takes of an array is no copy."""
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    even = range(chosen[0], chosen[-1] + 1, step) if chosen and step > 0 else range(0)
    return slice(even.start, even.stop, step) if list(even) == list(chosen) else list(chosen)


class _UnpairableError(Exception):
    """Test examples cannot be resampled for this metric; the message says why."""


def collect_metric(
    cellset: ResultSet,
    metric: Metric,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    resample: bool = True,
) -> MetricArray:
    """Return all that a cellset knows of a metric in some tasks or all; entries sorted by id.

    ``languages``: by default the selection's; also those that are only checked may be named. ``resample``:
    whether test examples are wanted, which cost more than all the rest. Raises ValueError where there is no
    place of them.
    """
    selection = cellset.manifest.selection
    chosen, codes = list(tasks or selection.tasks), list(languages or selection.languages)
    strata = selection.places(chosen, codes)
    if not strata:
        raise ValueError(f"no place in {chosen} and {codes}")
    entries, seeds = sorted(cellset.entries), list(selection.seeds)
    lines = cellset.scores
    lines = lines[(lines["metric"] == metric.name) & lines["value"].notna()]
    axes = (("task", chosen), ("entry", entries), ("language", codes))
    lines = lines[np.logical_and.reduce([codes_of(lines[name], axis) >= 0 for name, axis in axes])]
    values = cube(lines, entries, strata, seeds)
    measure, tested = measure_of(metric) if resample else None, None
    if measure:
        with limit_blas_threads():
            tested = _tested(cellset, metric, measure, (entries, strata, seeds), values)
    return MetricArray(
        metric=metric,
        entries=entries,
        strata=strata,
        seeds=seeds,
        values=values,
        tested=tested,
        fewest=_fewest(lines),
        recipes=_recipes(lines),
        fixed=cellset.fixed,
        by_seed=cellset.by_seed,
    )


def coverage(cellset: ResultSet, evidence: MetricArray, name: str) -> Coverage:
    """Return what an entry lacks: cells that did not run, and values that could not be computed."""
    strata, seeds = set(evidence.strata), set(evidence.seeds)
    missing = [
        item for item in cellset.entries[name].missing if (item.task, item.language) in strata and item.seed in seeds
    ]
    gone = {(item.task, item.language, item.seed) for item in missing}
    for column, place in np.argwhere(np.isnan(evidence.values[evidence.position[name]])):
        (task, code), seed = evidence.strata[column], evidence.seeds[place]
        if (task, code, seed) not in gone:
            reason = _note(cellset, evidence.metric, (name, task, code, seed))
            missing.append(Missing(task, code, seed, reason))
    expected = evidence.values[0].size
    return Coverage(expected - len(missing), expected, missing)


def _note(cellset: ResultSet, metric: Metric, place: CellIndex) -> str:
    """Return why a scored cell has no value."""
    run, cell = cellset.cells[place]
    scores = run.scores(cell)
    found = [score.note for score in scores.scores if score.metric == metric.name] if scores else []
    return (found[0] or "no value") if found else f"not scored by {metric.title}"


def _fewest(lines: pd.DataFrame) -> dict[StratumKey, int]:
    """Return the fewest classifier seeds of a value, by task and language."""
    (tasks, codes), place = _grouped(lines, ["task", "language"])
    least = np.full(len(tasks), np.iinfo(np.int64).max)
    np.minimum.at(least, place, lines["trainings"].to_numpy(dtype=np.int64))
    return dict(zip(zip(tasks, codes, strict=True), least.tolist(), strict=True))


def _recipes(lines: pd.DataFrame) -> dict[StratumKey, str]:
    """Return in words where values of one task and language were made by different recipes."""
    recipes: dict[StratumKey, list[str]] = {}
    for task, code, signature, _ in different(lines, ["task", "language", "signature", "protocol"]):
        recipes.setdefault((task, code), []).append(signature)
    return {(task, code): _how(f"{task}/{code}", names) for (task, code), names in recipes.items() if len(names) > 1}


def different(lines: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the different values of some columns of names together, in the order in which they come."""
    return list(zip(*_grouped(lines, names)[0], strict=True))


def _grouped(lines: pd.DataFrame, names: Sequence[str]) -> tuple[list[list[str]], IntArray]:
    """Return the names of every group of lines, by column and in the order they come, and each line's group.

    By the codes of the names, which for few lines is many times quicker than pandas.
    """
    columns = [pd.factorize(lines[name]) for name in names]
    whole = np.zeros(len(lines), dtype=np.int64)
    for own, known in columns:
        whole = whole * len(known) + own
    _, first, place = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first)
    found = [np.asarray(known, dtype=object)[own[first[order]]].tolist() for own, known in columns]
    return found, np.argsort(order)[place]


def _how(place: str, signatures: Sequence[str]) -> str:
    names = sorted(set(signatures))
    how = " | ".join(names) if len(names) > 1 else f"{len(signatures)} versions of scoring or data"
    return f"{place}: {how}"


def _tested(
    cellset: ResultSet,
    metric: Metric,
    measure: Measure,
    axes: tuple[Sequence[str], Sequence[StratumKey], Sequence[int]],
    values: FloatArray,
) -> ResampledScores:
    """Return the measure under resampled test examples.

    Strata whose test examples are translations of one another share their draws. Predictions are read while
    those of the stratum before are resampled in another thread.
    """
    entries, strata, seeds = axes
    draws = np.full((*values.shape, DRAWS), np.nan, dtype=np.float32)
    jobs: dict[StratumKey, Future[int]] = {}
    examples: dict[StratumKey, int] = {}
    problems: dict[StratumKey, str] = {}
    with ThreadPoolExecutor(1) as pool:
        for column, stratum in enumerate(strata):
            rows, layers = np.nonzero(~np.isnan(values[:, column]))
            cells = zip(rows.tolist(), layers.tolist(), strict=True)
            places = [(entries[i], *stratum, seeds[g]) for i, g in cells]
            try:
                kept = [_kept(cellset, metric, place) for place in places]
            except _UnpairableError as reason:
                problems[stratum] = str(reason)
                continue
            if kept:
                own = draws[:, column]
                where = (rows, layers)
                jobs[stratum] = pool.submit(_draw, measure, kept, values[:, column], own, where, stratum)
    for stratum, job in jobs.items():
        try:
            examples[stratum] = job.result()
        except _UnpairableError as reason:
            problems[stratum] = str(reason)
    return ResampledScores(draws if examples else draws[..., :0].copy(), examples, problems)


def _draw(
    measure: Measure,
    cells: Sequence[Predictions],
    values: FloatArray,
    draws: NDArray[np.float32],
    where: tuple[IntArray, IntArray],
    stratum: StratumKey,
) -> int:
    """Put the draws of the cells of a stratum where they belong; return the number of test examples.

    ``values`` and ``draws`` of the stratum; ``where``: rows and columns of the cells. Raises
    ``_UnpairableError``.
    """
    place = "/".join(stratum)
    if not all(cell.same_test(cells[0]) for cell in cells):
        raise _UnpairableError(f"entries were tested on different examples in {place}")
    n = len(cells[0].gold)
    found = bootstrap_scores(measure, cells, _weights(cells[0].examples, n))
    if np.abs(found[:, 0] - values[where]).max() > _CLOSE:
        raise _UnpairableError(f"kept predictions do not give the stored score in {place}")
    draws[where] = inflate_variance(found[:, 1:], n, len(cells[0].labels) if measure == "macro_f1" else 1)
    return n


@lru_cache(maxsize=24)  # about the strata of a suite: the next metric and task draw the same
def _weights(examples: str, n: int) -> NDArray[np.float32]:
    """Return the weights of all draws after a first row that takes every example once."""
    return np.concatenate([np.ones((1, n), dtype=np.float32), draw_weights(examples, n, DRAWS)])


def _kept(cellset: ResultSet, metric: Metric, place: CellIndex) -> Predictions:
    run, cell = cellset.cells[place]
    try:
        found = load_predictions(metric, run.predicted(cell))
    except UserError as error:
        raise _UnpairableError(str(error)) from None
    if found is None:
        _, task, code, seed = place
        name = cellset.entries[place[0]].name
        raise _UnpairableError(f"no predictions are kept of {name} in {task}/{code}, seed {seed}")
    return found
