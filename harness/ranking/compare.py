"""Compare two runs of a suite: every entry with its partner, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.core.errors import UserError
from harness.core.languages import check_known
from harness.core.store import Run
from harness.ranking.pairing import (
    EntryPair,
    PairedValues,
    common_selection,
    environment_diff,
    excluded_axes,
    format_list,
    missing_cells,
    pair_runs,
)
from harness.ranking.results import ResultSet, collect
from harness.ranking.stats.estimates import Estimate, estimates
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.sharing import noted
from harness.ranking.stats.variance import Contrasts
from harness.scoring.metrics import Metric, metric, sort_key

LEVEL = 0.05
"""Chance of any false difference among the pairs of a metric."""

ALL = "all"
"""Instead of a metric's name: every metric that was measured."""

CompareVerdict = Literal["better", "worse", "higher", "lower", "no clear difference", "identical", "inconclusive"]
"""Of B against A; ``higher`` and ``lower`` for metrics without a better side."""


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of one pair.

    ``difference``: B minus A, paired by task, language and seed. ``p``: two-sided, by Holm over the pairs.
    ``reason``: why the verdict is inconclusive.
    """

    metric: Metric
    pair: EntryPair
    a: float | None
    b: float | None
    difference: Estimate | None = None
    p: float | None = None
    verdict: CompareVerdict = "inconclusive"
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs.

    ``cells``: tasks x languages x seeds of both. ``scope``: parts of the runs that are left out, in words; empty where
    both cover the same. ``alone_a``, ``alone_b``: entries without a partner. ``environment``: differences between
    the runs themselves, as (what, A, B). ``notes``: metric -> limits of its numbers.
    """

    a: str
    b: str
    suite: str
    cells: int
    scope: list[str]
    pairs: list[EntryPair]
    alone_a: list[str]
    alone_b: list[str]
    environment: list[tuple[str, str, str]]
    metrics: list[Metric]
    lines: list[ComparisonRow]
    notes: dict[str, str]


def compare(a: Run, b: Run, metrics: Sequence[str] = ()) -> Comparison:
    """Compare B with A, by the named metrics; by default by the headline and the primary ones.

    Raises ``UserError`` where the runs cannot be compared, for a metric that neither has, and where no entry has a
    partner.
    """
    (one,), (other,) = collect([a]), collect([b])
    common = common_selection(one.manifest, other.manifest)
    seeds = list(common.seeds)
    runs = pair_runs(one, other, common, (seeds, seeds), seeds)
    if not runs.pairs:
        raise UserError(
            f"no entry of {a.path} has a partner in {b.path}: {format_list(runs.alone[0])} against "
            f"{format_list(runs.alone[1])}. Partners have the same method and setting."
        )
    chosen, lines, notes = [], list[ComparisonRow](), dict[str, str]()
    shared = [
        f"{pair.name} ({side})"
        for pair in runs.pairs
        for side, name in zip("AB", pair.ids, strict=True)
        if name in runs.joined.by_seed
    ]
    for measured in choose(one, other, metrics):
        values = PairedValues(runs, measured)
        unknown_only = np.isnan(values.array.values).all()
        if unknown_only and not any(row.missing for row in runs.joined.entries.values()):
            reason = values.coverage(runs.pairs[0])[0].missing[0].reason
            notes[measured.name] = f"left out, neither run has values: {reason}"
            continue
        chosen.append(measured)
        lines += _rows(values)
        words = [*([values.array.note] if values.array.note else []), *noted(shared)]
        if words:
            notes[measured.name] = "; ".join(words)
    return Comparison(
        a=str(a.path),
        b=str(b.path),
        suite=str(one.manifest.suite["name"]),
        cells=len(common.tasks) * len(common.languages) * len(common.seeds),
        scope=excluded_axes(one.manifest.selection, other.manifest.selection, common),
        pairs=runs.pairs,
        alone_a=runs.alone[0],
        alone_b=runs.alone[1],
        environment=environment_diff(one.manifest, other.manifest),
        metrics=chosen,
        lines=lines,
        notes=notes,
    )


def default_metrics(*sides: ResultSet) -> list[Metric]:
    """Return the headline, if there is one, and the primary metrics of diversity and validity that were measured."""
    headline = next((side.headline for side in sides if side.headline), None)
    measured = sorted({found.name for side in sides for found in side.metrics}, key=sort_key)
    others = [found for found in map(metric, measured) if found.primary and found.group in ("diversity", "validity")]
    return [*([headline] if headline else []), *others]


def choose(a: ResultSet, b: ResultSet, names: Sequence[str]) -> list[Metric]:
    """Return the metrics to compare by; ``UserError`` for one that neither run has."""
    measured = sorted({found.name for side in (a, b) for found in side.metrics}, key=sort_key)
    if not measured:
        raise UserError("neither run is scored yet. Run 'steerboard score' on both.")
    check_known("metric", [name for name in names if name != ALL], measured, f"Or {ALL!r} for every one.")
    if not names:
        return default_metrics(a, b)
    return [metric(name) for name in (measured if ALL in names else dict.fromkeys(names))]


def _rows(values: PairedValues) -> list[ComparisonRow]:
    """Return a row per pair; p-values are adjusted over the rows that have one."""
    array, pairs = values.array, values.runs.pairs
    first, second = (array.rows(pair.ids[side] for pair in pairs) for side in (1, 0))
    found = estimates(array.moments(Contrasts.differences(first, second)))
    drafts = [_draft(values, pair, own) for pair, own in zip(pairs, found, strict=True)]
    raw = [np.nan if row.p is None else row.p for row in drafts]
    adjusted = holm(np.array(raw, dtype=np.float64)).tolist()
    return [
        row if row.p is None else replace(row, p=p, verdict=_verdict(row, p))
        for row, p in zip(drafts, adjusted, strict=True)
    ]


def _draft(values: PairedValues, pair: EntryPair, found: Estimate) -> ComparisonRow:
    """Return a row with its own p-value; without one where there is nothing to test."""
    one, other = values.values(pair)
    a, b = (None if np.isnan(side).any() else float(side.mean()) for side in (one, other))
    row = ComparisonRow(values.metric, pair, a, b)
    if a is None or b is None:
        gaps = [missing_cells(side, own) for side, own in zip("AB", values.coverage(pair), strict=True)]
        return replace(row, reason="; ".join(filter(None, gaps)))
    row = replace(row, difference=found)
    if values.array.mixed:
        return replace(row, reason=f"scored in different ways: {values.array.mixed[0]}")
    if np.array_equal(one, other):
        return replace(row, verdict="identical")
    if values.same_texts(pair):
        return replace(row, reason="the same texts have different scores: the runs were not scored alike")
    if found.p is None:
        return replace(row, reason="only one generation seed in common")
    return replace(row, p=found.p)


def _verdict(row: ComparisonRow, p: float) -> CompareVerdict:
    assert row.difference is not None
    if p > LEVEL:
        return "no clear difference"
    up = row.difference.mean > 0
    if row.metric.direction == "none":
        return "higher" if up else "lower"
    return "better" if up == (row.metric.direction == "up") else "worse"
