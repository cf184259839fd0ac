"""Two runs of one suite against each other: every entry with its partner, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from harness.core.errors import UserError, unknown
from harness.core.records import Selection
from harness.core.store import Run
from harness.ranking.pairing import (
    EntryPair,
    common_selection,
    environment_diff,
    excluded_axes,
    format_list,
    match_entries,
)
from harness.ranking.results import ResultSet, collect
from harness.ranking.stats.estimates import Estimate, estimate
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.sharing import noted
from harness.ranking.values import MetricArray, collect_metric, coverage
from harness.scoring.metrics import Metric, metric, sort_key

LEVEL = 0.05
"""Chance of any false difference among the pairs of a metric."""

ALL = "all"
"""Instead of a metric's name: every metric that was measured."""

CompareVerdict = Literal["better", "worse", "higher", "lower", "no clear difference", "identical", "cannot tell"]
"""Of B against A; ``higher`` and ``lower`` for metrics without a better side."""


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of one pair. ``difference``: B minus A, paired by task, language and seed.

    ``p``: of no difference, by Holm over the pairs of the metric. ``reason``: why it cannot be told.
    """

    metric: Metric
    pair: EntryPair
    a: float | None
    b: float | None
    difference: Estimate | None
    p: float | None
    verdict: CompareVerdict
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that two runs say about each other.

    ``cells``: tasks x languages x seeds of both. ``excluded_axes``: what of the runs is left out, in words; empty
    where both cover the same. ``alone_a``, ``alone_b``: entries without a partner. ``environment_diff``: what
    differs between the runs themselves, as (what, A, B). ``notes``: what limits the numbers of a metric.
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
    """Return B against A, by the named metrics; by default the headline and the primary ones.

    Raises ``UserError`` where the runs cannot be compared, for a metric that neither has, and where no
    entry has a partner.
    """
    (one,), (other,) = collect([a]), collect([b])
    common = common_selection(one.manifest, other.manifest)
    pairs, alone_a, alone_b = match_entries(one, other)
    if not pairs:
        raise UserError(
            f"no entry of {a.path} has a partner in {b.path}: {format_list(alone_a)} against {format_list(alone_b)}. "
            "Partners have the same method and setting."
        )
    chosen = choose(one, other, metrics)
    joined = _joined(one, other, pairs, common)
    lines, notes = [], {}
    for measured in list(chosen):
        evidence = collect_metric(joined, measured)
        if why := _without_values(joined, evidence):
            chosen.remove(measured)
            notes[measured.name] = f"left out, neither run has values: {why}"
            continue
        lines += _lines(joined, evidence, pairs)
        words = [*([evidence.note] if evidence.note else []), *noted(_by_seed(joined, pairs))]
        if words:
            notes[measured.name] = "; ".join(words)
    return Comparison(
        a=str(a.path),
        b=str(b.path),
        suite=str(one.manifest.suite["name"]),
        cells=len(common.tasks) * len(common.languages) * len(common.seeds),
        scope=excluded_axes(one.manifest.selection, other.manifest.selection, common),
        pairs=pairs,
        alone_a=alone_a,
        alone_b=alone_b,
        environment=environment_diff(one.manifest, other.manifest),
        metrics=chosen,
        lines=lines,
        notes=notes,
    )


def choose(a: ResultSet, b: ResultSet, names: Sequence[str]) -> list[Metric]:
    """Return the metrics to compare by; ``UserError`` for one that neither run has."""
    measured = sorted({m.name for side in (a, b) for m in side.metrics}, key=sort_key)
    if not measured:
        raise UserError("neither run is scored yet. Run 'steerboard score' on both.")
    for name in names:
        if name not in (*measured, ALL):
            raise unknown("metric", name, measured, f"Or {ALL!r} for every one.")
    if ALL in names:
        return [metric(name) for name in measured]
    if names:
        return [metric(name) for name in dict.fromkeys(names)]
    headline = a.headline or b.headline
    first = [headline] if headline else []
    groups = ("diversity", "validity")
    return first + [m for name in measured if (m := metric(name)).primary and m.group in groups]


def _joined(a: ResultSet, b: ResultSet, pairs: Sequence[EntryPair], common: Selection) -> ResultSet:
    """Return the paired entries of both runs as one set, under names of their own."""
    ids = [(a, pair.a.id, f"a/{i}") for i, pair in enumerate(pairs)]
    ids += [(b, pair.b.id, f"b/{i}") for i, pair in enumerate(pairs)]
    frames = [side.scores[side.scores["entry"] == name].assign(entry=new) for side, name, new in ids]
    cells = {
        (new, *place[1:]): where for side, name, new in ids for place, where in side.cells.items() if place[0] == name
    }
    return ResultSet(
        manifest=a.manifest.model_copy(update={"selection": common}),
        entries={new: replace(side.entries[name], id=new) for side, name, new in ids},
        scores=pd.concat(frames, ignore_index=True),
        signatures={},
        cells=cells,
    )


def _by_seed(joined: ResultSet, pairs: Sequence[EntryPair]) -> list[str]:
    """Return the entries whose strata are not independent, with their side."""
    sides = [(f"{side}/{i}", f"{pair.name} ({side.upper()})") for i, pair in enumerate(pairs) for side in "ab"]
    return [title for name, title in sides if name in joined.by_seed]


def _without_values(joined: ResultSet, evidence: MetricArray) -> str:
    """Return why no cell has a value though all of them ran; empty where one has, or did not run."""
    if not np.isnan(evidence.values).all() or any(row.missing for row in joined.entries.values()):
        return ""
    return coverage(joined, evidence, evidence.entries[0]).reasons[0].rpartition(" × ")[2]


def _lines(joined: ResultSet, evidence: MetricArray, pairs: Sequence[EntryPair]) -> list[ComparisonRow]:
    """Return a line per pair; p-values are adjusted over those that have one."""
    drafts = [_draft(joined, evidence, pair, f"a/{i}", f"b/{i}") for i, pair in enumerate(pairs)]
    raw = [np.nan if line.p is None else line.p for line in drafts]
    adjusted = holm(np.array(raw, dtype=np.float64)).tolist()
    return [
        line if line.p is None else replace(line, p=p, verdict=_verdict(evidence.metric, line, p))
        for line, p in zip(drafts, adjusted, strict=True)
    ]


def _draft(joined: ResultSet, evidence: MetricArray, pair: EntryPair, a: str, b: str) -> ComparisonRow:
    """Return a line with its own p-value; without one where there is nothing to test."""
    means = [
        float(evidence.values[evidence.position[name]].mean()) if name in evidence.complete else None for name in (a, b)
    ]
    line = ComparisonRow(evidence.metric, pair, means[0], means[1], None, None, "cannot tell")
    if None in means:
        return replace(line, reason=_gaps(joined, evidence, a, b))
    panel = evidence.panel([a, b])
    found = estimate(panel, {1: 1.0, 0: -1.0})
    line = replace(line, difference=found)
    if evidence.mixed:
        return replace(line, reason=f"scored in different ways: {evidence.mixed[0]}")
    if np.array_equal(panel.values[0], panel.values[1]):
        return replace(line, verdict="identical")
    if _texts(joined, evidence.metric, a) == _texts(joined, evidence.metric, b):
        return replace(line, reason="the same texts have different scores: the runs were not scored alike")
    if found.p is None:
        return replace(line, reason="only one generation seed in common")
    return replace(line, p=found.p)


def _texts(joined: ResultSet, measured: Metric, name: str) -> dict[tuple[str, str, int], str]:
    """Return the digest of the texts of every common cell of an entry."""
    lines, chosen = joined.scores, joined.manifest.selection
    lines = lines[(lines["entry"] == name) & (lines["metric"] == measured.name)]
    rows = zip(lines["task"], lines["language"], lines["seed"], lines["texts"], strict=True)
    return {
        (task, code, seed): texts
        for task, code, seed, texts in rows
        if task in chosen.tasks and code in chosen.languages and seed in chosen.seeds
    }


def _verdict(measured: Metric, line: ComparisonRow, p: float) -> CompareVerdict:
    assert line.difference is not None
    if p > LEVEL:
        return "no clear difference"
    up = line.difference.mean > 0
    if measured.direction == "none":
        return "higher" if up else "lower"
    return "better" if up == (measured.direction == "up") else "worse"


def _gaps(joined: ResultSet, evidence: MetricArray, a: str, b: str) -> str:
    """Return in words what is missing on which side."""
    words = []
    for side, name in (("A", a), ("B", b)):
        found = coverage(joined, evidence, name)
        if found.missing:
            words.append(f"{side} lacks {len(found.missing)} of {found.expected} cells ({found.reasons[0]})")
    return "; ".join(words)
