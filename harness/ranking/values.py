"""One metric of all entries as arrays: what statistics are computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.errors import UserError
from harness.core.threads import limit_blas_threads
from harness.core.types import FloatArray, IntArray
from harness.core.workers import cores, map_forked
from harness.ranking.results import CellIndex, Missing, ResultSet, by_stratum, positions
from harness.ranking.stats.resampling import (
    Measure,
    Predictions,
    bootstrap_scores,
    draw_weights,
    inflate_variance,
    load_predictions,
    measure_of,
)
from harness.ranking.stats.variance import Contrasts, Moments, Stratum, build_stratum, moments
from harness.scoring.metrics import Metric

DRAWS = 1000
"""Resamples of the test examples."""

_MANY = 500  # cells whose predictions are read in several processes
_CLOSE = 1e-5  # single precision, of a mean over labels and classifier seeds

TaskLanguage = tuple[str, str]
"""A task and a language: a stratum."""


@dataclass(frozen=True)
class Coverage:
    """How much of an entry there is for a metric: ``n`` of ``expected`` cells, and why not the rest."""

    n: int
    expected: int
    missing: list[Missing]

    @property
    def reasons(self) -> list[str]:
        """The reasons, each once, with the number of cells; the most frequent first."""
        ordered = sorted(Counter(item.reason for item in self.missing).items(), key=lambda pair: (-pair[1], pair[0]))
        return [f"{n} × {reason}" if n > 1 else reason for reason, n in ordered]


@dataclass(frozen=True)
class StratumValues:
    """One metric in one task and language: ``values`` (entries, seeds), NaN where there is none.

    ``trainings``: the fewest classifier seeds of a value, None without values. ``recipes``: how the values were scored,
    in words, where that was not always the same. ``draws`` (entries, seeds, resamples): the values under resampled test
    examples, of which there are ``examples``; None without, and ``problem`` says why if there should be some.
    """

    task_language: TaskLanguage
    values: FloatArray
    trainings: int | None = None
    recipes: str = ""
    draws: NDArray[np.float32] | None = None
    examples: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class MetricArray:
    """One metric of all entries, stratum by stratum.

    ``fixed``: no seed decides a value, as nothing is drawn. ``by_seed``: the entries whose strata are not
    independent over seeds.
    """

    metric: Metric
    entries: list[str]
    seeds: list[int]
    parts: list[StratumValues]
    fixed: bool = False
    by_seed: frozenset[str] = frozenset()
    _strata: dict[tuple[object, ...], Stratum] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def task_languages(self) -> list[TaskLanguage]:
        """The task and language of every stratum."""
        return [part.task_language for part in self.parts]

    @cached_property
    def values(self) -> FloatArray:
        """All values (entries, strata, seeds), NaN where there is none."""
        return np.stack([part.values for part in self.parts], axis=1)

    @cached_property
    def position(self) -> dict[str, int]:
        """Entry -> its row."""
        return {name: i for i, name in enumerate(self.entries)}

    @cached_property
    def complete(self) -> set[str]:
        """The entries without missing values."""
        known = np.flatnonzero(~np.isnan(self.values).any(axis=(1, 2)))
        return {self.entries[int(i)] for i in known}

    @property
    def trainings(self) -> int:
        """The fewest classifier seeds of a value."""
        return min((part.trainings for part in self.parts if part.trainings is not None), default=0)

    @property
    def mixed(self) -> list[str]:
        """The strata whose values were not all scored in the same way, in words."""
        return [part.recipes for part in sorted(self.parts, key=lambda part: part.task_language) if part.recipes]

    @property
    def note(self) -> str:
        """Why test examples are not resampled; empty where they are, and for a metric without any."""
        problem = next((part.problem for part in self.parts if part.problem), "")
        return f"test examples are not resampled: {problem}" if problem else ""

    @property
    def examples(self) -> int | None:
        """Test examples of the stratum with the fewest; None where they are not resampled."""
        return None if self.note else min((part.examples for part in self.parts if part.examples), default=None)

    @cached_property
    def draws(self) -> NDArray[np.float32] | None:
        """The values under resampled test examples, with a last axis of resamples; None where there are none."""
        known = [part.draws for part in self.parts if part.draws is not None]
        if self.examples is None or not known:
            return None
        unknown = np.full_like(known[0], np.nan)
        return np.stack([unknown if part.draws is None else part.draws for part in self.parts], axis=1)

    def select(self, tasks: Collection[str] | None = None, languages: Collection[str] | None = None) -> MetricArray:
        """Return the strata of some tasks or languages or both, as if nothing else had been read."""
        return replace(
            self,
            parts=[
                part
                for part in self.parts
                if (tasks is None or part.task_language[0] in tasks)
                and (languages is None or part.task_language[1] in languages)
            ],
        )

    @property
    def strata(self) -> list[Stratum]:
        """The strata as statistics take them, rows in the order of ``entries``."""
        return self.strata_of_gains({})

    def rows(self, names: Iterable[str]) -> IntArray:
        """Return the rows of entries."""
        return np.array([self.position[name] for name in names], dtype=np.int64)

    def moments(self, contrasts: Contrasts) -> Moments:
        """Return the moments of contrasts of entries over the strata."""
        return moments(self.strata, self.examples, contrasts)

    def strata_of_gains(self, baselines: Mapping[str, str]) -> list[Stratum]:
        """Return the strata of gains: every entry minus its baseline; one without a baseline has gain 0.

        They are computed once, also for selections of this array.
        """
        key = tuple(sorted(baselines.items()))
        new = [part for part in self.parts if (part.task_language, key) not in self._strata]
        with ThreadPoolExecutor(min(cores(), max(len(new), 1))) as pool:
            for part, stratum in zip(new, pool.map(lambda part: self._stratum(part, baselines), new), strict=True):
                self._strata[part.task_language, key] = stratum
        return [self._strata[part.task_language, key] for part in self.parts]

    def _stratum(self, part: StratumValues, baselines: Mapping[str, str]) -> Stratum:
        others = [baselines.get(name, name) for name in self.entries]
        marks = [not self.by_seed.isdisjoint(pair) for pair in zip(self.entries, others, strict=True)]
        values, draws = part.values, part.draws
        if baselines:
            rows = self.rows(others)
            values, draws = values - values[rows], None if draws is None else draws - draws[rows]
        return build_stratum(values, draws, self.fixed, np.array(marks))


def collect_metric(
    results: ResultSet,
    metric: Metric,
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    resample: bool = True,
) -> MetricArray:
    """Return all values of a metric in some tasks or all; entries sorted by id.

    ``languages``: by default the selection's; control languages may be named as well. ``resample``: whether to
    resample the test examples, which costs more than all the rest. Raises ValueError where no task has data in
    any of the languages.
    """
    selection = results.manifest.selection
    chosen, codes = list(tasks or selection.tasks), list(languages or selection.languages)
    task_languages = selection.task_languages(chosen, codes)
    if not task_languages:
        raise ValueError(f"no data of {chosen} in {codes}")
    entries, seeds = sorted(results.entries), list(selection.seeds)
    lines = results.scores
    lines = lines[(lines["metric"] == metric.name) & lines["value"].notna()]
    axes = {"entry": entries, "task": chosen, "language": codes}
    lines = lines[np.logical_and.reduce([positions(lines[name], axis) >= 0 for name, axis in axes.items()])]
    values = by_stratum(lines, entries, [metric.name], task_languages, seeds)[:, 0]
    trainings = lines.groupby(["task", "language"], observed=True)["trainings"].min().to_dict()
    recipes = _mixed_recipes(lines)
    parts = [
        StratumValues(task_language, values[:, i], trainings.get(task_language), recipes.get(task_language, ""))
        for i, task_language in enumerate(task_languages)
    ]
    if measure := measure_of(metric) if resample else None:
        with limit_blas_threads():
            parts = _resampled(results, metric, measure, entries, seeds, parts)
    return MetricArray(metric, entries, seeds, parts, results.fixed, results.by_seed)


def coverage(results: ResultSet, array: MetricArray, name: str) -> Coverage:
    """Return what is missing of an entry: cells that did not run, and values that could not be computed."""
    task_languages, seeds = set(array.task_languages), set(array.seeds)
    missing = [m for m in results.entries[name].missing if (m.task, m.language) in task_languages and m.seed in seeds]
    known = {(item.task, item.language, item.seed) for item in missing}
    for stratum, i in np.argwhere(np.isnan(array.values[array.position[name]])):
        (task, code), seed = array.task_languages[stratum], array.seeds[i]
        if (task, code, seed) not in known:
            reason = _why_no_value(results, array.metric, (name, task, code, seed))
            missing.append(Missing(task, code, seed, reason))
    expected = array.values[0].size
    return Coverage(expected - len(missing), expected, missing)


def _why_no_value(results: ResultSet, metric: Metric, index: CellIndex) -> str:
    run, cell = results.cells[index]
    scores = run.scores(cell)
    found = [score.note for score in scores.scores if score.metric == metric.name] if scores else []
    return (found[0] or "no value") if found else f"not scored by {metric.title}"


def different(lines: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the different combinations of some columns of scores, in the order in which they come."""
    return list(lines[list(columns)].drop_duplicates().itertuples(index=False, name=None))


def _mixed_recipes(lines: pd.DataFrame) -> dict[TaskLanguage, str]:
    """Return in words where values of one task and language were scored in more than one way."""
    recipes: dict[TaskLanguage, list[str]] = {}
    for task, code, signature, _ in different(lines, ["task", "language", "signature", "protocol"]):
        recipes.setdefault((task, code), []).append(signature)
    words = {}
    for (task, code), found in recipes.items():
        names = sorted(set(found))
        how = " | ".join(names) if len(names) > 1 else f"{len(found)} versions of scoring or data"
        words[task, code] = f"{task}/{code}: {how}" if len(found) > 1 else ""
    return words


def _resampled(
    results: ResultSet,
    metric: Metric,
    measure: Measure,
    entries: Sequence[str],
    seeds: Sequence[int],
    parts: Sequence[StratumValues],
) -> list[StratumValues]:
    """Return strata with draws; strata whose test examples are translations of one another share them."""

    def resample(part: StratumValues) -> StratumValues:
        cells = np.argwhere(~np.isnan(part.values)).tolist()
        try:
            found = [_predictions(results, metric, (entries[i], *part.task_language, seeds[g])) for i, g in cells]
        except UserError as error:
            return replace(part, problem=str(error))
        return with_draws(measure, found, part)

    return map_forked(resample, parts, sum(np.isfinite(part.values).sum() for part in parts) >= _MANY)


def with_draws(measure: Measure, cells: Sequence[Predictions], part: StratumValues) -> StratumValues:
    """Return a stratum with draws; ``cells``: the predictions behind its values, in the order of ``numpy.argwhere``."""
    if not cells:
        return part
    first, n = cells[0], len(cells[0].gold)
    if not all(cell.same_test(first) for cell in cells):
        return replace(part, problem=f"entries were tested on different examples in {'/'.join(part.task_language)}")
    known = ~np.isnan(part.values)
    found = bootstrap_scores(measure, cells, _weights(first.examples, n))
    if np.abs(found[:, 0] - part.values[known]).max() > _CLOSE:
        return replace(part, problem=f"kept predictions do not give the stored score in {'/'.join(part.task_language)}")
    draws = np.full((*known.shape, DRAWS), np.nan, dtype=np.float32)
    draws[known] = inflate_variance(found[:, 1:], n, len(first.labels) if measure == "macro_f1" else 1)
    return replace(part, draws=draws, examples=n)


@lru_cache(maxsize=24)  # about the strata of a suite: the next metric and task draw the same
def _weights(examples: str, n: int) -> NDArray[np.float32]:
    """Return the weights of all draws after a first row that takes every example once."""
    return np.concatenate([np.ones((1, n), dtype=np.float32), draw_weights(examples, n, DRAWS)])


def _predictions(results: ResultSet, metric: Metric, index: CellIndex) -> Predictions:
    run, cell = results.cells[index]
    found = load_predictions(metric, run.read_predictions_fast(cell))
    if found is None:
        name, task, code, seed = index
        raise UserError(f"no predictions are kept of {results.entries[name].name} in {task}/{code}, seed {seed}")
    return found
