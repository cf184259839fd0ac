"""Making baselines from runs of the same code, and replacing one with a reason."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from harness.core.errors import UserError, unknown
from harness.core.records import Selection
from harness.core.store import Run
from harness.ranking.flags import RULES
from harness.ranking.gate.baseline import Baseline, PreviousBaseline, Spread, Tolerance, read_baseline, write_baseline
from harness.ranking.gate.packing import pack, strip_private_fields, unpack
from harness.ranking.gate.scope import incompatibility
from harness.ranking.gate.spread import MetricValues, spread
from harness.ranking.gate.tolerances import default_tolerance
from harness.ranking.gate.verdicts import SEEDS, MetricThreshold, judged, usual
from harness.ranking.pairing import format_list
from harness.ranking.results import ResultSet, collect
from harness.ranking.values import collect_metric
from harness.scoring.metrics import Metric, metric


def read_runs(paths: Sequence[Path]) -> list[ResultSet]:
    """Return every run as a set of its own; ``UserError`` for a folder that holds none, or no texts."""
    runs = [Run(path) for path in paths]
    for run in runs:
        run.manifest().require_generation_track(run.path)
    return [collect([run])[0] for run in runs]


def calibrated(
    cellsets: Sequence[ResultSet],
    metrics: Sequence[str] = (),
    tolerances: Mapping[str, Tolerance] | None = None,
    reason: str = "",
) -> Baseline:
    """Return the baseline of one run, or of several of the same code with other generation seeds.

    What is usually looked at and has no values is left out; ``without_values`` names it. Raises
    ``UserError`` for runs that lack cells or seeds, that share seeds or that do not belong together.
    """
    first = cellsets[0]
    for other in cellsets[1:]:
        _check_alike(first, other)
    _check_whole(cellsets)
    wanted = judged(first, metrics)
    for name in tolerances or {}:
        if name not in {found.name for found in wanted}:
            raise unknown("metric", name, [found.name for found in wanted])
    known = {found: size for found in wanted if (size := _spread(cellsets, found))}
    for found in wanted:
        if found not in known and (found == first.headline or found.name in {*metrics, *(tolerances or {})}):
            raise UserError(f"no entry has all values of {found.name}: leave it out or score it first.")
    chosen = list(known)
    selection = _union(cellsets)
    return Baseline(
        manifest=strip_private_fields(first.manifest, selection),
        packed=pack(cellsets, _packed_metrics(first, chosen)),
        metrics=[found.name for found in chosen],
        spread={found.name: size for found, size in known.items()},
        source=_source(cellsets),
        tolerance={found.name: (tolerances or {}).get(found.name, default_tolerance(found)) for found in chosen},
        reason=reason or "first baseline",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def accept(run: Path, into: Path, reason: str, without: Sequence[str] = ()) -> tuple[Baseline, str]:
    """Replace a baseline file by a run; return the new baseline and its hash.

    Tolerances and the metrics that are looked at stay, the old baseline's hash and reason are kept. Raises
    ``UserError`` without a reason, for a run that lacks cells, for one with fewer generation seeds, and for
    one that lacks an entry, a language or a task of the old baseline, but for methods in ``without``.
    """
    words = " ".join(reason.split())
    if not words:
        raise UserError("a baseline is not replaced without a reason. Say why: --reason '...'.")
    old, seal = read_baseline(into)
    [cellset] = read_runs([run])
    _check_nothing_lost(old, cellset, without)
    for name in old.metrics:
        if name not in {found.name for found in cellset.metrics}:
            raise UserError(f"the run has no {name}, which the baseline looks at. Score it first.")
    new = calibrated([cellset], old.metrics, old.tolerance, words)
    past = PreviousBaseline(
        sha256=seal,
        reason=old.reason,
        date=old.date,
        suite_hash=old.manifest.suite_hash,
        git_commit=old.manifest.git_commit,
    )
    new = new.model_copy(update={"history": [*old.history, past]})
    return new, write_baseline(into, new)


@contextmanager
def opened(baseline: Baseline) -> Iterator[tuple[ResultSet, list[MetricThreshold]]]:
    """Give a baseline's cells and what its metrics are held against, for as long as the block lasts."""
    with TemporaryDirectory(prefix="steerboard-") as folder:
        [cellset] = collect([unpack(baseline, Path(folder))])
        rulers = [
            MetricThreshold(metric(name), baseline.spread[name], baseline.tolerance[name]) for name in baseline.metrics
        ]
        yield cellset, rulers


def without_values(baseline: Baseline, cellset: ResultSet) -> list[Metric]:
    """Return what is usually looked at and is left out of a baseline, as its run has no values of it."""
    return [found for found in usual(cellset) if found.name not in baseline.metrics]


def rulers_of(cellset: ResultSet, metrics: Sequence[str] = ()) -> list[MetricThreshold]:
    """Return what a run that is not a baseline file gives by itself: its seeds' spread, usual tolerances."""
    return [MetricThreshold(m, _spread([cellset], m), default_tolerance(m)) for m in judged(cellset, metrics)]


def with_new(rulers: Sequence[MetricThreshold], new: ResultSet) -> list[MetricThreshold]:
    """Return the rulers, and one for each usual metric of a run that the baseline does not have."""
    known = {ruler.metric.name for ruler in rulers}
    more = [MetricThreshold(found, None, default_tolerance(found)) for found in usual(new) if found.name not in known]
    return [*rulers, *more]


def _check_alike(one: ResultSet, other: ResultSet) -> None:
    why = incompatibility(one.manifest, other.manifest, one.manifest.selection)
    a, b = one.manifest.selection, other.manifest.selection
    if not why and (a.languages, a.tasks) != (b.languages, b.tasks):
        why = "the runs cover other languages or tasks"
    if not why and set(one.entries) != set(other.entries):
        names = {row.name for row in one.entries.values()} ^ {row.name for row in other.entries.values()}
        why = f"the runs have other entries: {format_list(sorted(names)) if names else 'other versions'}"
    shared = [seed for seed in a.seeds if seed in b.seeds]
    if not why and shared:
        why = (
            f"the runs share generation seeds ({format_list(shared)}), so they say nothing about each other's "
            "spread: give each seeds of its own"
        )
    if why:
        raise UserError(f"{why}. Calibrate with runs of the same code, suite and data.")


def _check_whole(cellsets: Sequence[ResultSet]) -> None:
    for cellset in cellsets:
        seeds = cellset.manifest.selection.seeds
        if len(seeds) < 2:
            raise UserError(f"a run with {len(seeds)} seed has no spread: run {SEEDS} seeds or more.")
        for row in cellset.entries.values():
            if row.missing:
                found = row.missing[0]
                raise UserError(
                    f"{row.name} lacks {len(row.missing)} of {row.expected} cells ({found.task}/"
                    f"{found.language}, seed {found.seed}: {found.reason}). A baseline must be whole: run "
                    "the same command again."
                )


def _check_nothing_lost(old: Baseline, cellset: ResultSet, without: Sequence[str]) -> None:
    known, now = old.manifest.selection, cellset.manifest.selection
    for axis in ("languages", "tasks"):
        lost = [name for name in getattr(known, axis) if name not in getattr(now, axis)]
        if lost:
            raise UserError(f"the run lacks {axis} of the baseline: {format_list(lost)}. Run them, too.")
    if len(now.seeds) < len(known.seeds):
        raise UserError(
            f"the run has {len(now.seeds)} generation seeds, the baseline {len(known.seeds)}: with fewer, "
            "larger losses stay unseen. Run as many."
        )
    names = {entry.method.name for entry in old.manifest.entries}
    for name in without:
        if name not in names:
            raise unknown("method", name, names)
    have = {(row.entry.method.title, row.entry.setting) for row in cellset.entries.values()}
    lost = [
        f"{entry.method.title} ({entry.setting})"
        for entry in old.manifest.entries
        if (entry.method.title, entry.setting) not in have and entry.method.name not in without
    ]
    if lost:
        raise UserError(
            f"the run lacks entries of the baseline: {format_list(lost)}. Run them, or drop a method on purpose: "
            "--without NAME."
        )


def _union(cellsets: Sequence[ResultSet]) -> Selection:
    seeds = [seed for cellset in cellsets for seed in cellset.manifest.selection.seeds]
    return cellsets[0].manifest.selection.model_copy(update={"seeds": seeds})


def _packed_metrics(cellset: ResultSet, chosen: Sequence[Metric]) -> list[str]:
    """Return the metrics to keep: those that are looked at, and those that flags hang on."""
    bases = {rule.base.name for rule in RULES}
    flagged = [m.name for m in cellset.metrics if m.name in bases or m.name.partition("/")[0] in bases]
    return list(dict.fromkeys([*(found.name for found in chosen), *flagged]))


def _spread(cellsets: Sequence[ResultSet], measured: Metric) -> Spread | None:
    """Return the spread of a metric over strata in which some entry has all values; None without any."""
    runs = [collect_metric(replace(cellset), measured, resample=False) for cellset in cellsets]
    names = runs[0].entries
    values = [run.values[[run.position[name] for name in names]] for run in runs]
    whole = np.logical_and.reduce([~np.isnan(own).any(axis=2) for own in values])
    strata = whole.any(axis=0)
    rows = whole[:, strata].all(axis=1)
    if not strata.any() or not rows.any():
        return None
    tasks = [task for (task, _), kept in zip(runs[0].task_languages, strata, strict=True) if kept]
    return spread([MetricValues(own[rows][:, strata], tasks) for own in values])


def _source(cellsets: Sequence[ResultSet]) -> str:
    lists = [", ".join(map(str, c.manifest.selection.seeds)) for c in cellsets]
    if len(cellsets) == 1:
        return f"the variance between the generation seeds of one run ({lists[0]}); no second run was measured"
    return f"{len(cellsets)} runs of the same code with the generation seeds {'; '.join(lists)}"
