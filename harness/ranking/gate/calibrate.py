"""Make baselines from runs of the same code, measure how far such runs differ, and replace a baseline with a reason."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import UserError
from harness.core.languages import check_known
from harness.core.store import Run
from harness.core.types import FloatArray
from harness.ranking.compare import default_metrics
from harness.ranking.flags import RULES
from harness.ranking.gate.baseline import (
    Baseline,
    PreviousBaseline,
    Spread,
    Tolerance,
    load_results,
    pack,
    read_baseline,
    strip_private_fields,
    write_baseline,
)
from harness.ranking.pairing import check_comparable, format_list
from harness.ranking.results import ResultSet, collect
from harness.ranking.values import collect_metric
from harness.scoring.metrics import MACRO_F1, SHARE, Metric, metric

SEEDS = 3
"""Generation seeds that a verdict needs, on both sides."""

_WITHIN = 0.975  # of differences between equal runs, half of the rest on either side


@dataclass(frozen=True)
class MetricThreshold:
    """Decision thresholds for one metric: run-to-run spread and the tolerated undetected loss.

    ``spread`` is None for a metric of which the baseline has no values.
    """

    metric: Metric
    spread: Spread | None
    tolerance: Tolerance


def read_runs(paths: Sequence[Path]) -> list[ResultSet]:
    """Read every run as its own set; ``UserError`` for a directory without a run of generated texts."""
    runs = [Run(path) for path in paths]
    for run in runs:
        run.manifest().require_generation_track(run.path)
    return [collect([run])[0] for run in runs]


def open_baseline(path: Path, new: ResultSet, names: Sequence[str] = ()) -> tuple[ResultSet, list[MetricThreshold]]:
    """Read a baseline file, or a run to compare with, and return its cells and the thresholds of the metrics.

    ``names``: metrics to look at; by default those of the baseline and the default ones that only the new run has.
    """
    if path.is_dir():
        [base] = read_runs([path])
        found = thresholds_of(base, names)
    else:
        baseline, _ = read_baseline(path)
        base, spreads, tolerances = load_results(baseline), baseline.spread, baseline.tolerance
        found = [MetricThreshold(metric(name), spreads[name], tolerances[name]) for name in baseline.metrics]
    thresholds = {each.metric.name: each for each in found}
    for more in default_metrics(new):
        thresholds.setdefault(more.name, MetricThreshold(more, None, default_tolerance(more)))
    check_known("metric", names, thresholds, "These are in the baseline; 'gate calibrate --metric' adds others.")
    return base, [thresholds[name] for name in dict.fromkeys(names or thresholds)]


def thresholds_of(run: ResultSet, names: Sequence[str] = ()) -> list[MetricThreshold]:
    """Return the thresholds of a run that is not a baseline file: the spread of its seeds, default tolerances."""
    judged = judged_metrics(run, names)
    return [MetricThreshold(each, _measured_spread([run], each), default_tolerance(each)) for each in judged]


def calibrate(
    runs: Sequence[ResultSet],
    metrics: Sequence[str] = (),
    tolerances: Mapping[str, Tolerance] | None = None,
    reason: str = "first baseline",
) -> Baseline:
    """Return the baseline of one run, or of several of the same code with different generation seeds.

    Default metrics without values are left out; ``left_out`` names them. Raises ``UserError`` for runs that have
    missing cells or too few seeds, that share seeds or that do not belong together.
    """
    first, tolerances = runs[0], tolerances or {}
    for other in runs[1:]:
        _check_alike(first, other)
    _check_complete(runs)
    wanted = judged_metrics(first, metrics)
    check_known("metric", tolerances, [found.name for found in wanted])
    known = {found: size for found in wanted if (size := _measured_spread(runs, found))}
    for found in wanted:
        if found not in known and (found == first.headline or found.name in {*metrics, *tolerances}):
            raise UserError(f"no entry has all values of {found.name}: leave it out or score it first.")
    seeds = [list(run.manifest.selection.seeds) for run in runs]
    lists = "; ".join(", ".join(map(str, own)) for own in seeds)
    source = f"{len(runs)} runs of the same code with the generation seeds {lists}"
    if len(runs) == 1:
        source = f"the variance between the generation seeds of one run ({lists}); no second run was measured"
    selection = first.manifest.selection.model_copy(update={"seeds": [seed for own in seeds for seed in own]})
    bases = {rule.base.name for rule in RULES}  # flags need their values
    flagged = [m.name for m in first.metrics if m.name in bases or m.name.partition("/")[0] in bases]
    return Baseline(
        manifest=strip_private_fields(first.manifest, selection),
        packed=pack(runs, dict.fromkeys([*(found.name for found in known), *flagged])),
        metrics=[found.name for found in known],
        spread={found.name: size for found, size in known.items()},
        source=source,
        tolerance={found.name: tolerances.get(found.name, default_tolerance(found)) for found in known},
        reason=reason,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def accept(run: Path, path: Path, reason: str, dropped: Sequence[str] = ()) -> tuple[Baseline, str]:
    """Replace a baseline file with a run; return the new baseline and its hash.

    Tolerances and metrics stay; the old baseline's hash and reason are added to the history. Raises ``UserError``
    without a reason, for a run with missing cells or fewer generation seeds, and for one without an entry, a
    language or a task of the old baseline, except the ``dropped`` methods.
    """
    words = " ".join(reason.split())
    if not words:
        raise UserError("a baseline is not replaced without a reason. Give one: --reason '...'.")
    old, sha256 = read_baseline(path)
    [results] = read_runs([run])
    _check_nothing_lost(old, results, dropped)
    for name in old.metrics:
        if name not in {found.name for found in results.metrics}:
            raise UserError(f"the run has no {name}, which is a metric of the baseline. Score it first.")
    new = calibrate([results], old.metrics, old.tolerance, words)
    past = PreviousBaseline(
        sha256=sha256,
        reason=old.reason,
        date=old.date,
        suite_hash=old.manifest.suite_hash,
        git_commit=old.manifest.git_commit,
    )
    new = new.model_copy(update={"history": [*old.history, past]})
    return new, write_baseline(path, new)


def left_out(baseline: Baseline, results: ResultSet) -> list[Metric]:
    """Return the default metrics that a baseline leaves out because its run has no values of them."""
    return [found for found in default_metrics(results) if found.name not in baseline.metrics]


def judged_metrics(results: ResultSet, more: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics that the gate looks at: the default ones, and ``more``; ``UserError`` for unknown ones."""
    if results.headline is None:
        raise UserError("the run is not scored yet. Run 'steerboard score' on it.")
    measured = {found.name: found for found in results.metrics}
    check_known("metric", more, measured)
    for name in more:
        if metric(name).direction == "none":
            raise UserError(f"{name} has no better side: nothing can be worse in it. Leave it out.")
    return list(dict.fromkeys([*default_metrics(results), *(measured[name] for name in more)]))


# Tolerances


def default_tolerance(metric: Metric) -> Tolerance:
    """Return 0.05 for F1, 0.10 for shares, 15 % of the baseline's mean for all else."""
    if metric.unit == MACRO_F1.unit:
        return Tolerance(value=0.05)
    return Tolerance(value=0.10) if metric.unit == SHARE else Tolerance(value=0.15, relative=True)


def parse_tolerances(options: Sequence[str]) -> dict[str, Tolerance]:
    """Parse ``METRIC=VALUE`` and ``METRIC=PERCENT%``; ``UserError`` for anything else."""
    found = {}
    for option in options:
        name, _, text = option.rpartition("=")
        relative = text.endswith("%")
        try:
            value = float(text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            value = 0.0
        if not name or not 0 < value < float("inf"):
            raise UserError(f"--tolerance {option!r:.60}: give METRIC=VALUE, such as macro_f1/tfidf=0.05, vendi=15%.")
        found[name] = Tolerance(value=value, relative=relative)
    return found


# Spread


def bound(found: Spread, tasks: Sequence[str], seeds: int, others: int) -> float:
    """Return the size that 19 of 20 differences between two runs of the same code do not exceed.

    ``tasks``: of every stratum that is averaged; ``seeds``, ``others``: numbers of generation seeds of both runs.
    """
    from scipy.special import stdtrit

    total = sum(found.variance.get(task, 0.0) for task in tasks) / len(tasks) ** 2
    variance = found.factor * total * (1 / seeds + 1 / others)
    return float(stdtrit(found.df, _WITHIN) * np.sqrt(variance))


def measure_spread(runs: Sequence[FloatArray], tasks: Sequence[str]) -> Spread:
    """Estimate the spread of a metric from one run or several of the same code.

    ``runs``: values (entry, stratum, seed) of complete entries; ``tasks``: of the strata. Between seeds: the variance
    of a cell, mean over languages and over the entries that vary at all. From several runs, the variance of their
    means as well; the larger of both counts.
    """
    strata, seeds = len(tasks), [values.shape[2] for values in runs]
    free = sum(seeds) - len(runs)
    cells = np.asarray(sum(_squares(values) for values in runs)) / max(free, 1)
    varying = cells.sum(axis=1) > 0
    pooled = cells[varying].mean(axis=0) if varying.any() else np.zeros(strata)
    variance = {
        task: float(np.mean([v for v, own in zip(pooled, tasks, strict=True) if own == task]))
        for task in dict.fromkeys(tasks)
    }
    within = Spread(variance=variance, df=max(free * strata, 1))
    found = _between(runs, tasks, within, varying, float(np.mean([1 / g for g in seeds]))) or within
    return found.model_copy(update={"bound": bound(found, tasks, seeds[0], seeds[0])})


def _squares(values: FloatArray) -> FloatArray:
    centred: FloatArray = values - values.mean(axis=2, keepdims=True)
    squares: FloatArray = np.square(centred).sum(axis=2)
    return np.where(squares < 1e-24, 0.0, squares)


def _between(
    runs: Sequence[FloatArray], tasks: Sequence[str], within: Spread, varying: NDArray[np.bool_], inverse: float
) -> Spread | None:
    """Return the spread by the means of runs where they vary more than seeds alone would make them."""
    expected = sum(within.variance[task] for task in tasks) / len(tasks) ** 2 * inverse
    if len(runs) < 2 or expected == 0:
        return None
    means = np.array([values[varying].mean(axis=(1, 2)) for values in runs])
    factor = float(means.var(axis=0, ddof=1).mean()) / expected
    if factor <= 1:
        return None
    return Spread(variance=within.variance, df=(len(runs) - 1) * means.shape[1], factor=factor)


def _measured_spread(runs: Sequence[ResultSet], measured: Metric) -> Spread | None:
    """Return the spread of a metric over strata in which some entry has all values; None without any."""
    arrays = [collect_metric(run, measured, resample=False) for run in runs]
    values = [array.values[array.rows(arrays[0].entries)] for array in arrays]
    whole = np.logical_and.reduce([~np.isnan(own).any(axis=2) for own in values])
    strata = whole.any(axis=0)
    rows = whole[:, strata].all(axis=1)
    if not strata.any() or not rows.any():
        return None
    tasks = [task for (task, _), kept in zip(arrays[0].task_languages, strata, strict=True) if kept]
    return measure_spread([own[rows][:, strata] for own in values], tasks)


# Checks


def _check_alike(one: ResultSet, other: ResultSet) -> None:
    a, b = one.manifest.selection, other.manifest.selection
    check_comparable(one.manifest, other.manifest, a.tasks, a.languages)
    shared = [seed for seed in a.seeds if seed in b.seeds]
    why = ""
    if (a.languages, a.tasks) != (b.languages, b.tasks):
        why = "the runs cover different languages or tasks"
    elif set(one.entries) != set(other.entries):
        names = {row.name for row in one.entries.values()} ^ {row.name for row in other.entries.values()}
        why = f"the runs have different entries: {format_list(sorted(names)) if names else 'other versions'}"
    elif shared:
        why = (
            f"the runs share generation seeds ({format_list(shared)}), so they do not show how far equal runs differ: "
            "give each its own seeds"
        )
    if why:
        raise UserError(f"{why}. Calibrate with runs of the same code, suite and data.")


def _check_complete(runs: Sequence[ResultSet]) -> None:
    for results in runs:
        seeds = results.manifest.selection.seeds
        if len(seeds) < 2:
            raise UserError(f"a run with {len(seeds)} seed has no spread: run {SEEDS} seeds or more.")
        for row in results.entries.values():
            if row.missing:
                found = row.missing[0]
                raise UserError(
                    f"{len(row.missing)} of {row.expected} cells of {row.name} are missing ({found.task}/"
                    f"{found.language}, seed {found.seed}: {found.reason}). A baseline must be complete: run the same "
                    "command again."
                )


def _check_nothing_lost(old: Baseline, results: ResultSet, dropped: Sequence[str]) -> None:
    known, now = old.manifest.selection, results.manifest.selection
    for axis in ("languages", "tasks"):
        lost = [name for name in getattr(known, axis) if name not in getattr(now, axis)]
        if lost:
            raise UserError(f"{axis} of the baseline are missing from the run: {format_list(lost)}. Run them, too.")
    if len(now.seeds) < len(known.seeds):
        raise UserError(
            f"the run has {len(now.seeds)} generation seeds, the baseline {len(known.seeds)}: with fewer, "
            "larger losses go undetected. Run as many."
        )
    check_known("method", dropped, {entry.method.name for entry in old.manifest.entries})
    have = {(row.entry.method.title, row.entry.setting) for row in results.entries.values()}
    lost = [
        f"{entry.method.title} ({entry.setting})"
        for entry in old.manifest.entries
        if (entry.method.title, entry.setting) not in have and entry.method.name not in dropped
    ]
    if lost:
        raise UserError(
            f"entries of the baseline are missing from the run: {format_list(lost)}. Run them, or drop a method on "
            "purpose: --drop-method NAME."
        )
