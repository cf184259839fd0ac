"""The gate's verdicts: every entry and metric of a run against a baseline, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from harness.errors import UserError, unknown
from harness.gate.baseline import Spread, Tolerance
from harness.gate.estimating import findable, independent, paired
from harness.gate.evidence import Look, gaps, look
from harness.gate.scope import Narrowing, Scope, refusal, scope
from harness.gate.signals import new_flags
from harness.gate.spread import bound
from harness.ranking.comparable import Pair, environment
from harness.ranking.multiplicity import holm
from harness.ranking.stats import Estimate, estimates
from harness.ranking.tables import Cellset
from harness.ranking.variance import ALPHA, Moments
from harness.scoring.metrics import Metric, metric

SEEDS = 3
"""Generation seeds that a verdict needs, on both sides."""

Verdict = Literal["worse", "cannot tell", "better", "same"]

EXIT: dict[Verdict, int] = {"same": 0, "better": 0, "worse": 1, "cannot tell": 2}


_FOLDERS = ("data", "contrast text", "plug-ins")


@dataclass(frozen=True)
class Ruler:
    """What one metric is held against: the spread of equal runs, and the loss that may stay unseen."""

    metric: Metric
    spread: Spread
    tolerance: Tolerance


@dataclass(frozen=True)
class Line:
    """One metric of one entry. ``difference``: the run minus the baseline; ``p``: by Holm over all lines.

    ``bound``: what a difference must exceed; ``findable``: the smallest loss that would have been found;
    ``tolerance``: the largest that may be missed; ``how``: which seeds were held against which.
    """

    entry: str
    metric: Metric
    verdict: Verdict
    reason: str = ""
    base: float | None = None
    new: float | None = None
    difference: Estimate | None = None
    p: float | None = None
    bound: float | None = None
    findable: float | None = None
    tolerance: float | None = None
    how: str = ""


@dataclass(frozen=True)
class Report:
    """What the gate says. ``reason``: why nothing could be compared at all.

    ``flags``: entry and words of what is wrong now and was not in the baseline. ``absent``: entries that
    the run lacks; ``fresh``: entries without a baseline, not judged. ``notes``: what else to know.
    """

    run: str
    against: str
    suite: str
    lines: list[Line] = field(default_factory=list)
    flags: list[tuple[str, str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    environment: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Worse if anything is, else cannot tell if anything cannot, else better if anything is."""
        found = {line.verdict for line in self.lines}
        if self.flags or "worse" in found:
            return "worse"
        if self.reason or self.absent or not self.lines or "cannot tell" in found:
            return "cannot tell"
        return "better" if "better" in found else "same"

    @property
    def exit(self) -> int:
        """0 for same or better, 1 for worse, 2 where it cannot be told."""
        return EXIT[self.verdict]


def judge(
    base: Cellset,
    new: Cellset,
    rulers: Sequence[Ruler],
    names: tuple[str, str],
    narrowing: Narrowing | None = None,
) -> Report:
    """Return the verdicts; ``names``: what run and baseline are called."""
    narrowing = narrowing or Narrowing()
    seen = scope(base, new, narrowing)
    report = Report(*names, suite=str(base.manifest.suite.get("name", "")))
    why = refusal(base.manifest, new.manifest, seen.base.manifest.selection)
    if not seen.pairs:
        why = why or "the run has no entry in common with the baseline"
    if why:
        return replace(report, reason=why)
    lines, notes = _lines(seen, rulers)
    return replace(
        report,
        lines=lines,
        flags=new_flags(seen),
        absent=seen.absent,
        fresh=seen.fresh,
        environment=_changes(base, new),
        notes=[*narrowing.words, *notes],
    )


def chosen(rulers: Sequence[Ruler], names: Sequence[str]) -> list[Ruler]:
    """Return the rulers of the named metrics; all for none named."""
    known = {ruler.metric.name: ruler for ruler in rulers}
    for name in names:
        if name not in known:
            hint = "These are in the baseline; 'gate calibrate --metric' adds others."
            raise unknown("metric", name, known, hint)
    return [known[name] for name in dict.fromkeys(names)] if names else list(rulers)


def judged(cellset: Cellset, more: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics that the gate looks at: the headline, primary diversity and validity, and more."""
    if cellset.headline is None:
        raise UserError("the run is not scored yet. Run 'steerboard score' on it.")
    measured = {found.name: found for found in cellset.metrics}
    groups = ("diversity", "validity")
    usual = [found for found in measured.values() if found.primary and found.group in groups]
    for name in more:
        if name not in measured:
            raise unknown("metric", name, measured)
        if metric(name).direction == "none":
            raise UserError(f"{name} has no better side: nothing can be worse in it. Leave it out.")
    return list(dict.fromkeys([cellset.headline, *usual, *(measured[name] for name in more)]))


def _changes(base: Cellset, new: Cellset) -> list[tuple[str, str, str]]:
    """Return what differs between how the runs came about; files of baselines name no folders."""
    found = environment(base.manifest, new.manifest)
    return [(what, one, other) for what, one, other in found if one != "–" or what not in _FOLDERS]


def _lines(seen: Scope, rulers: Sequence[Ruler]) -> tuple[list[Line], list[str]]:
    drafts: list[tuple[Line, Moments | None]] = []
    notes: dict[str, None] = {}
    for ruler in rulers:
        looked = look(seen, ruler.metric, SEEDS)
        for note in looked.notes:
            notes[f"{ruler.metric.title}: {note}"] = None
        drafts += [_draft(looked, pair, ruler) for pair in seen.pairs]
    p = np.array([np.nan if found is None else found.p[0] for _, found in drafts], dtype=np.float64)
    level = ALPHA / max(int((~np.isnan(p)).sum()), 1)
    adjusted = holm(p).tolist()
    lines = [
        line if found is None else _decided(line, found, own, level)
        for (line, found), own in zip(drafts, adjusted, strict=True)
    ]
    order = {pair.b.id: i for i, pair in enumerate(seen.pairs)}
    names = {pair.name: order[pair.b.id] for pair in seen.pairs}
    return sorted(lines, key=lambda line: names[line.entry]), list(notes)


def _draft(looked: Look, pair: Pair, ruler: Ruler) -> tuple[Line, Moments | None]:
    """Return a line, and the moments of its difference where these have to decide."""
    base, new = looked.sides(pair)
    tolerance = None if base is None else ruler.tolerance.of(float(base.values.mean()))
    line = Line(
        pair.name,
        ruler.metric,
        "cannot tell",
        base=None if base is None else float(base.values.mean()),
        new=None if new is None else float(new.values.mean()),
        tolerance=tolerance,
        how=looked.how,
    )
    why = _hindrance(looked, pair)
    if why or base is None or new is None:
        return replace(line, reason=why), None
    found = paired(base, new) if looked.paired else independent(base, new)
    [estimate] = estimates(found)
    size = bound(ruler.spread, looked.tasks, base.values.shape[1], new.values.shape[1])
    line = replace(line, difference=estimate, bound=size)
    if looked.identical(pair):
        return replace(line, verdict="same", reason="identical"), None
    if looked.same_texts(pair):
        return replace(line, reason="the same texts have different scores: they were not scored alike"), None
    return line, found


def _hindrance(looked: Look, pair: Pair) -> str:
    """Return why a pair cannot be judged, whatever its numbers; empty where it can."""
    models = [side.entry.model and side.entry.model.fingerprint for side in (pair.a, pair.b)]
    if models[0] != models[1]:
        return "another model wrote the texts"
    words = [f"the {side} lacks {found}" for side, found in gaps(looked, pair) if found]
    if words:
        return "; ".join(words)
    for side, count in (("baseline", len(looked.seeds[0])), ("run", len(looked.seeds[1]))):
        if count < SEEDS:
            return f"too few seeds: the {side} has {count} to compare, {SEEDS} are needed"
    return f"scored in different ways: {looked.mixed[0]}" if looked.mixed else ""


def _decided(line: Line, found: Moments, p: float, level: float) -> Line:
    """Return a line with its verdict. ``level``: what the smallest p-value is held against."""
    size, tolerance, mean = line.bound or 0.0, line.tolerance or 0.0, float(found.mean[0])
    least = findable(found, level, size)
    line = replace(line, p=p, findable=least)
    if p <= ALPHA and abs(mean) > size:
        return replace(line, verdict="better" if (mean > 0) == (line.metric.direction == "up") else "worse")
    if least <= tolerance:
        return replace(line, verdict="same")
    reason = f"too few seeds to see a loss of {tolerance:.3g}"
    seen = f"the smallest that would have been found is {least:.3g}" if least < float("inf") else "or any"
    return replace(line, reason=f"{reason}; {seen}")
