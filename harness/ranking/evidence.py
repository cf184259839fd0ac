"""From the cells of a table to the numbers that statistics are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.ranking.resampling import Kept, Measure, kept_for, measure_of, resampled
from harness.ranking.stats import Panel, draw_weights, widened
from harness.ranking.tables import Cellset, Missing
from harness.scoring.metrics import Metric

DRAWS = 1000
"""Resamples of the test examples."""

_CLOSE = 1e-5  # single precision, of a mean over labels and classifier seeds

Stratum = tuple[str, str]
"""A task and a language."""


@dataclass(frozen=True)
class Lacking:
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
class Evidence:
    """One metric of all entries: ``values`` (entry, stratum, seed), NaN where there is none.

    ``draws`` (entry, stratum, seed, draw): the same under resampled test examples, of which there are
    ``examples`` (the fewest of any stratum); None where the metric has none or they cannot be paired, for
    the reason in ``note``. ``trainings``: the fewest classifier seeds of a value. ``mixed``: strata whose
    values were made by more than one recipe, in words.
    """

    metric: Metric
    entries: list[str]
    strata: list[Stratum]
    seeds: list[int]
    values: NDArray[np.float64]
    draws: NDArray[np.float32] | None
    examples: int | None
    note: str
    trainings: int
    mixed: list[str]

    @cached_property
    def position(self) -> dict[str, int]:
        """Entry -> its row."""
        return {name: i for i, name in enumerate(self.entries)}

    @cached_property
    def complete(self) -> set[str]:
        """The entries that lack no value."""
        return {name for i, name in enumerate(self.entries) if not np.isnan(self.values[i]).any()}

    def language(self, code: str) -> Evidence:
        """Return what is known of one language."""
        chosen = [i for i, (_, other) in enumerate(self.strata) if other == code]
        return replace(
            self,
            strata=[self.strata[i] for i in chosen],
            values=self.values[:, chosen],
            draws=None if self.draws is None else self.draws[:, chosen],
        )

    def panel(self, entries: Sequence[str]) -> Panel:
        """Return the numbers of some complete entries, in the order given."""
        rows = [self.position[name] for name in entries]
        if self.draws is None:
            return Panel(self.values[rows])
        return Panel(self.values[rows], self.draws[rows], self.examples)


class _UnpairableError(Exception):
    """Test examples cannot be resampled for this metric; the message says why."""


def gather(cellset: Cellset, metric: Metric, tasks: Sequence[str] | None = None) -> Evidence:
    """Return all that a cellset knows of a metric in some tasks or all; entries sorted by id."""
    selection = cellset.manifest.selection
    strata = [(task, code) for task in tasks or selection.tasks for code in selection.languages]
    entries, seeds = sorted(cellset.entries), list(selection.seeds)
    lines = cellset.scores
    lines = lines[(lines["metric"] == metric.name) & lines["entry"].isin(entries)].dropna(subset=["value"])
    lines = lines[lines["task"].isin([task for task, _ in strata])]
    evidence = Evidence(
        metric=metric,
        entries=entries,
        strata=strata,
        seeds=seeds,
        values=_values(lines, entries, strata, seeds),
        draws=None,
        examples=None,
        note="",
        trainings=int(lines["trainings"].min()) if len(lines) else 0,
        mixed=_mixed(lines),
    )
    measure = measure_of(metric)
    if measure is None or not len(lines):
        return evidence
    try:
        draws, examples = _draws(cellset, evidence, measure)
    except _UnpairableError as reason:
        return replace(evidence, note=f"test examples are not resampled: {reason}")
    return replace(evidence, draws=draws, examples=examples)


def lacking(cellset: Cellset, evidence: Evidence, name: str) -> Lacking:
    """Return what an entry lacks: cells that did not run, and values that could not be computed."""
    strata, seeds = set(evidence.strata), set(evidence.seeds)
    missing = [
        item
        for item in cellset.entries[name].missing
        if (item.task, item.language) in strata and item.seed in seeds
    ]
    gone = {(item.task, item.language, item.seed) for item in missing}
    for column, layer in np.argwhere(np.isnan(evidence.values[evidence.position[name]])):
        (task, code), seed = evidence.strata[column], evidence.seeds[layer]
        if (task, code, seed) not in gone:
            reason = _note(cellset, evidence.metric, (name, task, code, seed))
            missing.append(Missing(task, code, seed, reason))
    expected = evidence.values[0].size
    return Lacking(expected - len(missing), expected, missing)


def _note(cellset: Cellset, metric: Metric, place: tuple[str, str, str, int]) -> str:
    """Return why a scored cell has no value."""
    run, cell = cellset.cells[place]
    scores = run.scores(cell)
    found = [score.note for score in scores.scores if score.metric == metric.name] if scores else []
    return (found[0] or "no value") if found else f"not scored by {metric.title}"


def _values(
    lines: pd.DataFrame, entries: list[str], strata: list[Stratum], seeds: list[int]
) -> NDArray[np.float64]:
    rows, layers = {name: i for i, name in enumerate(entries)}, {seed: i for i, seed in enumerate(seeds)}
    columns = {place: i for i, place in enumerate(strata)}
    values = np.full((len(entries), len(strata), len(seeds)), np.nan)
    for line in lines.itertuples():
        stratum = (line.task, line.language)
        if stratum in columns and line.seed in layers:
            values[rows[line.entry], columns[stratum], layers[line.seed]] = line.value
    return values


def _mixed(lines: pd.DataFrame) -> list[str]:
    """Return in words where values of one task and language were made by different recipes."""
    found = []
    for (task, code), group in lines.groupby(["task", "language"]):
        recipes = sorted({*zip(group["signature"], group["protocol"], strict=True)})
        if len(recipes) > 1:
            names = sorted({signature for signature, _ in recipes})
            how = " | ".join(names) if len(names) > 1 else f"{len(recipes)} versions of scoring or data"
            found.append(f"{task}/{code}: {how}")
    return found


def _draws(cellset: Cellset, evidence: Evidence, measure: Measure) -> tuple[NDArray[np.float32], int]:
    """Return the measure under resampled test examples, and the fewest examples of a stratum.

    Strata whose test examples are translations of one another share their draws. Raises ``_UnpairableError``.
    """
    shape = (*evidence.values.shape, DRAWS)
    draws, fewest = np.full(shape, np.nan, dtype=np.float32), []
    for column, (task, code) in enumerate(evidence.strata):
        places = np.argwhere(~np.isnan(evidence.values[:, column]))
        cells = [
            _kept(cellset, evidence.metric, (evidence.entries[row], task, code, evidence.seeds[layer]))
            for row, layer in places
        ]
        if not cells:
            continue
        if not all(cell.same_test(cells[0]) for cell in cells):
            raise _UnpairableError(f"entries were tested on different examples in {task}/{code}")
        n = len(cells[0].gold)
        found = resampled(measure, cells, _weights(cells[0].examples, n))
        rows, layers = places.T
        if np.abs(found[:, 0] - evidence.values[rows, column, layers]).max() > _CLOSE:
            raise _UnpairableError(f"kept predictions do not give the stored score in {task}/{code}")
        labels = len(cells[0].labels) if measure == "macro_f1" else 1
        draws[rows, column, layers] = widened(found[:, 1:], n, labels)
        fewest.append(n)
    return draws, min(fewest)


@lru_cache(maxsize=24)  # about the strata of a suite: the next metric and task draw the same
def _weights(examples: str, n: int) -> NDArray[np.float32]:
    """Return the weights of all draws after a first row that takes every example once."""
    return np.concatenate([np.ones((1, n), dtype=np.float32), draw_weights(examples, n, DRAWS)])


def _kept(cellset: Cellset, metric: Metric, place: tuple[str, str, str, int]) -> Kept:
    run, cell = cellset.cells[place]
    try:
        found = kept_for(metric, run.predictions(cell))
    except UserError as error:
        raise _UnpairableError(str(error)) from None
    if found is None:
        _, task, code, seed = place
        name = cellset.entries[place[0]].name
        raise _UnpairableError(f"no predictions are kept of {name} in {task}/{code}, seed {seed}")
    return found
