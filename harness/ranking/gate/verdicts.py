"""The gate's verdicts: every entry and metric of a run against a baseline, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.core.errors import UserError, unknown
from harness.ranking.gate.baseline import Spread, Tolerance
from harness.ranking.gate.deciding import DraftLine, decided
from harness.ranking.gate.estimating import difference
from harness.ranking.gate.new_flags import new_flags
from harness.ranking.gate.report import GateReport, GateRow
from harness.ranking.gate.scope import ComparedSlice, Filter, compared_slice, incompatibility
from harness.ranking.gate.spread import bound
from harness.ranking.gate.values import PairedValues, gaps, load_values
from harness.ranking.pairing import EntryPair, environment_diff, format_list
from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import estimates
from harness.scoring.metrics import Metric, metric

SEEDS = 3
"""Generation seeds that a verdict needs, on both sides."""

_FOLDERS = ("data", "contrast text", "plug-ins")


@dataclass(frozen=True)
class MetricThreshold:
    """What one metric is compared by: the spread of equal runs, and the loss that may stay unseen.

    ``spread`` is None for a metric of which the baseline has no values.
    """

    metric: Metric
    spread: Spread | None
    tolerance: Tolerance


def judge(
    base: ResultSet,
    new: ResultSet,
    rulers: Sequence[MetricThreshold],
    names: tuple[str, str],
    narrowing: Filter | None = None,
) -> GateReport:
    """Return the verdicts; ``names``: what run and baseline are called."""
    narrowing = narrowing or Filter()
    seen = compared_slice(base, new, narrowing)
    report = GateReport(*names, suite=str(base.manifest.suite.get("name", "")))
    why = incompatibility(base.manifest, new.manifest, seen.base.manifest.selection)
    if not seen.pairs:
        why = why or "the run has no entry in common with the baseline"
    if why:
        return replace(report, reason=why)
    lines, notes = _lines(seen, rulers)
    return replace(
        report,
        lines=lines,
        reason="" if lines else "neither side has values of what is looked at",
        flags=new_flags(seen),
        absent=seen.absent,
        fresh=seen.fresh,
        environment=_changes(base, new),
        notes=[*narrowing.words, *notes],
    )


def chosen(rulers: Sequence[MetricThreshold], names: Sequence[str]) -> list[MetricThreshold]:
    """Return the rulers of the named metrics; all for none named."""
    known = {ruler.metric.name: ruler for ruler in rulers}
    for name in names:
        if name not in known:
            hint = "These are in the baseline; 'gate calibrate --metric' adds others."
            raise unknown("metric", name, known, hint)
    return [known[name] for name in dict.fromkeys(names)] if names else list(rulers)


def judged(cellset: ResultSet, more: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics that the gate looks at: the headline, primary diversity and validity, and more."""
    if cellset.headline is None:
        raise UserError("the run is not scored yet. Run 'steerboard score' on it.")
    measured = {found.name: found for found in cellset.metrics}
    for name in more:
        if name not in measured:
            raise unknown("metric", name, measured)
        if metric(name).direction == "none":
            raise UserError(f"{name} has no better side: nothing can be worse in it. Leave it out.")
    return list(dict.fromkeys([*usual(cellset), *(measured[name] for name in more)]))


def usual(cellset: ResultSet) -> list[Metric]:
    """Return the headline, if there is one, and what was measured of primary diversity and validity."""
    first = [cellset.headline] if cellset.headline else []
    groups = ("diversity", "validity")
    return first + [found for found in cellset.metrics if found.primary and found.group in groups]


def _changes(base: ResultSet, new: ResultSet) -> list[tuple[str, str, str]]:
    """Return what differs between how the runs came about; files of baselines name no folders."""
    found = environment_diff(base.manifest, new.manifest)
    return [(what, one, other) for what, one, other in found if one != "–" or what not in _FOLDERS]


def _lines(seen: ComparedSlice, rulers: Sequence[MetricThreshold]) -> tuple[list[GateRow], list[str]]:
    drafts: list[DraftLine] = []
    notes: dict[str, None] = {}
    for ruler in rulers:
        looked = load_values(seen, ruler.metric, SEEDS)
        drafts += [_draft(looked, pair, ruler) for pair in seen.pairs if looked.kept(pair).any()]
        for words in [*looked.notes, *_left_out(looked, seen.pairs)]:
            notes[f"{ruler.metric.title}: {words}"] = None
    headline = seen.base.headline
    first, rest = ([d for d in drafts if (d.line.metric == headline) == own] for own in (True, False))
    lines = decided(first, rest)
    order = {pair.name: i for i, pair in enumerate(seen.pairs)}
    metrics = {ruler.metric: i for i, ruler in enumerate(rulers)}
    return sorted(lines, key=lambda line: (order[line.entry], metrics[line.metric])), list(notes)


def _left_out(looked: PairedValues, pairs: Sequence[EntryPair]) -> list[str]:
    """Return in words where no side has a value, each once, with the entries unless it is all."""
    names: dict[str, list[str]] = {}
    for pair in pairs:
        names.setdefault(looked.without(pair), []).append(pair.name)
    names.pop("", None)
    return [
        f"left out, {words}" if len(own) == len(pairs) else f"left out for {format_list(own)}, {words}"
        for words, own in names.items()
    ]


def _draft(looked: PairedValues, pair: EntryPair, ruler: MetricThreshold) -> DraftLine:
    """Return a line, with its difference where that has to decide."""
    base, new = looked.sides(pair)
    line = GateRow(
        pair.name,
        ruler.metric,
        "cannot tell",
        base=None if base is None else float(base.values.mean()),
        new=None if new is None else float(new.values.mean()),
        how=looked.how,
    )
    if new is not None and (ruler.spread is None or np.isnan(looked.values(pair)[0]).all()):
        words, headline = "the baseline has no values of it", looked.metric == looked.cellsets[1].headline
        return DraftLine(replace(line, reason=words, decides=headline))
    why = _undecidable_reason(looked, pair)
    if why:
        return DraftLine(replace(line, reason=why))
    same = replace(line, verdict="same", reason="identical")
    if base is None or new is None or ruler.spread is None:  # then no value is missing on one side alone
        return DraftLine(same)
    found, tasks, known = difference(base, new, looked.columns), looked.tasks(pair), ruler.spread
    [estimate] = estimates(found.moments)
    mean = float(new.values.mean()) - estimate.mean  # of the seeds that the run has, as far as they are known
    size = bound(known, tasks, base.seeds, new.seeds)
    allowed = ruler.tolerance.of(mean)
    if looked.identical(pair):
        return DraftLine(replace(same, difference=estimate, bound=size, tolerance=allowed))
    line = replace(line, base=mean, difference=estimate, bound=size, tolerance=allowed)
    if looked.same_texts(pair):
        return DraftLine(replace(line, reason="the same texts have different scores: they were not scored alike"))
    return DraftLine(line, found, lambda one, other: bound(known, tasks, one, other))


def _undecidable_reason(looked: PairedValues, pair: EntryPair) -> str:
    """Return why a pair cannot be judged, whatever its numbers; empty where it can."""
    models = [side.entry.model and side.entry.model.fingerprint for side in (pair.a, pair.b)]
    if models[0] != models[1]:
        return "another model wrote the texts"
    words = [f"the {side} lacks {found}" for side, found in gaps(looked, pair) if found]
    if words and not looked.identical(pair):
        return "; ".join(words)
    for side, count in (("baseline", len(looked.seeds[0])), ("run", len(looked.seeds[1]))):
        if count < SEEDS:
            return f"too few seeds: the {side} has {count} to compare, {SEEDS} are needed"
    return f"scored in different ways: {looked.mixed[0]}" if looked.mixed else ""
