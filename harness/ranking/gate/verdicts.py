"""Decide for every entry and metric whether a run is worse than a baseline, and for the run as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from harness.core.errors import UserError
from harness.core.languages import check_known
from harness.ranking.flags import flags
from harness.ranking.gate.calibrate import SEEDS, MetricThreshold, bound
from harness.ranking.gate.difference import GateDifference, SideValues, difference, min_detectable_loss, power
from harness.ranking.gate.report import GateReport, GateRow
from harness.ranking.pairing import (
    DIRECTORIES,
    EntryPair,
    IncomparableError,
    PairedRuns,
    PairedValues,
    check_comparable,
    environment_diff,
    format_list,
    missing_cells,
    pair_runs,
)
from harness.ranking.results import ResultSet
from harness.ranking.stats.estimates import estimates
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.variance import ALPHA
from harness.ranking.values import TaskLanguage
from harness.scoring.metrics import Metric

_HEADLINE, _OTHERS, _ALONE = (0.6, 0.1), (0.2, 0.1), (0.8, 0.2)
"""Shares of the chance that equal runs get any verdict but 'same': for losses and for gains, by family. Losses have
most of it, as they fail a run; a family alone has all of it."""

_MORE = (1, 2, 3)
"""Multiples of the run's seeds for which the power is given."""


@dataclass(frozen=True)
class Filter:
    """The part of the baseline to look at; None for all of it."""

    languages: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    settings: Sequence[str] | None = None

    @property
    def words(self) -> list[str]:
        """The filter in words."""
        return [f"only {name}: {', '.join(part)}" for name, part in asdict(self).items() if part is not None]

    def entries(self, side: ResultSet) -> ResultSet:
        """Return a set without the entries that are filtered out."""
        kept = {
            name: row
            for name, row in side.entries.items()
            if (self.methods is None or row.entry.method.name in self.methods)
            and (self.settings is None or row.entry.setting in (*self.settings, "none"))
        }
        return replace(side, entries=kept)


@dataclass(frozen=True)
class DraftLine:
    """A row, and where numbers have to decide, its difference and the bound by the seeds of both sides."""

    line: GateRow
    found: GateDifference | None = None
    bound: Callable[[int, int], float] = lambda base, new: 0.0

    @property
    def worse(self) -> float:
        """One-sided p of no loss; NaN where nothing is tested."""
        if self.found is None:
            return float("nan")
        mean, half = float(self.found.moments.mean[0]), float(self.found.moments.p[0]) / 2
        return half if _is_loss(mean, self.line.metric) else 1 - half


def judge(
    base: ResultSet,
    new: ResultSet,
    thresholds: Sequence[MetricThreshold],
    names: tuple[str, str],
    only: Filter | None = None,
) -> GateReport:
    """Compare a run with its baseline; ``names``: of run and baseline, for the report.

    Raises ``UserError`` for a filter that names what the baseline does not have.
    """
    only = only or Filter()
    chosen = base.manifest.selection
    axes = {
        "tasks": _chosen("task", only.tasks, chosen.tasks),
        "languages": _chosen("language", only.languages, chosen.languages),
    }
    one, other = only.entries(base), only.entries(new)
    if not one.entries:
        raise UserError("nothing is left of the baseline: no entry has these methods and settings.")
    report = GateReport(*names, suite=str(base.manifest.suite.get("name", "")))
    try:
        check_comparable(base.manifest, new.manifest, **axes)
    except IncomparableError as error:
        return replace(report, reason=str(error).removesuffix("."))
    *seeds, common = pair_seeds(chosen.seeds, new.manifest.selection.seeds, SEEDS)
    runs = pair_runs(one, other, chosen.model_copy(update=axes), (seeds[0], seeds[1]), common)
    if not runs.pairs:
        return replace(report, reason="the run has no entry in common with the baseline")
    rows, notes = _rows(runs, thresholds, runs.sides[0].headline)
    changes = environment_diff(base.manifest, new.manifest)
    return replace(
        report,
        lines=rows,
        reason="" if rows else "neither side has values of these metrics",
        flags=_new_flags(runs),
        missing_entries=runs.alone[0],
        new_entries=runs.alone[1],
        environment=[change for change in changes if change[1] != "–" or change[0] not in DIRECTORIES],
        notes=[*only.words, *notes],
    )


def _chosen(kind: str, wanted: Sequence[str] | None, valid: Sequence[str]) -> list[str]:
    check_known(kind, wanted, valid, "These are the baseline's.")
    return [name for name in valid if wanted is None or name in wanted]


def pair_seeds(base: Sequence[int], new: Sequence[int], least: int) -> tuple[list[int], list[int], list[int]]:
    """Return the seeds to use of both sides, and the common ones to pair by; none if there are fewer than ``least``.

    Where both sides have seeds that the other does not, those of the side with fewer seeds are left out.
    """
    common = [seed for seed in base if seed in new]
    if len(common) < least and set(base) != set(new):
        return list(base), list(new), []
    if len(base) >= len(new):
        return list(base) if len(base) > len(common) else common, common, common
    return common, list(new), common


def _new_flags(runs: PairedRuns) -> list[tuple[str, str]]:
    """Return entry and words of the quality flags raised by the run but not by its baseline.

    Both sides have the same entries, as some bounds depend on the unsteered ones.
    """
    before, now = (flags(side) for side in runs.sides)
    found = []
    for pair in runs.pairs:
        known = {(flag.metric, flag.task, flag.language) for flag in before[pair.ids[0]]}
        new = [flag for flag in now[pair.ids[1]] if (flag.metric, flag.task, flag.language) not in known]
        found += [(pair.name, flag.words) for flag in new]
    return found


# Rows


def _rows(
    runs: PairedRuns, thresholds: Sequence[MetricThreshold], headline: Metric | None
) -> tuple[list[GateRow], list[str]]:
    drafts: list[DraftLine] = []
    notes: dict[str, None] = {}
    by_seed = {side.entries[name].name for side in runs.sides for name in side.by_seed}
    # Said but not counted: the noise of our own engine is keyed by task and language, and one honest entry in a hundred
    # is found as well, which would leave such a run without a verdict.
    shared = [f"seeds move all languages together, which the gate does not count: {name}" for name in sorted(by_seed)]
    for threshold in thresholds:
        values = GateValues(runs, threshold.metric)
        drafts += [_draft(values, pair, threshold) for pair in runs.pairs if values.compared(pair)]
        note = [values.array.note] if values.array.note else []
        for words in [*note, *shared, *_left_out(values)]:
            notes[f"{threshold.metric.title}: {words}"] = None
    first, rest = ([d for d in drafts if (d.line.metric == headline) == own] for own in (True, False))
    order = {pair.name: i for i, pair in enumerate(runs.pairs)}
    metrics = {threshold.metric: i for i, threshold in enumerate(thresholds)}
    return sorted(decide(first, rest), key=lambda row: (order[row.entry], metrics[row.metric])), list(notes)


class GateValues(PairedValues):
    """One metric of baseline and run, in the strata that are compared."""

    def compared(self, pair: EntryPair) -> list[TaskLanguage]:
        """Return the task and language of all strata but those whose cells ran and gave no side any value."""
        found = set()
        for name, values, seeds in zip(pair.ids, self.values(pair), self.runs.seeds, strict=True):
            known = np.flatnonzero(~np.isnan(values).all(axis=1))
            gone = [m for m in self.runs.joined.entries[name].missing if m.seed in seeds]
            found |= {self.array.task_languages[i] for i in known} | {(m.task, m.language) for m in gone}
        return [stratum for stratum in self.array.task_languages if stratum in found]

    def sides(self, pair: EntryPair) -> list[SideValues]:
        """Return the values of both sides in the compared strata, NaN where there is none."""
        array, strata = self.array, self.compared(pair)
        kept = [i for i, stratum in enumerate(array.task_languages) if stratum in strata]
        found = []
        for name, columns in zip(pair.ids, self.columns, strict=True):
            at = np.ix_([array.position[name]], kept, columns)
            draws = None if array.draws is None else array.draws[at][0]
            found.append(SideValues(array.values[at][0], draws, array.examples))
        return found


def _left_out(values: GateValues) -> list[str]:
    """Return in words where no side has a value, each once, with the entries unless it is all."""
    pairs, names = values.runs.pairs, dict[str, list[str]]()
    for pair in pairs:
        compared = values.compared(pair)
        empty = [stratum for stratum in values.array.task_languages if stratum not in compared]
        if empty:
            reason = values.coverage(pair, empty[:1])[1].missing[0].reason
            where = f" in {format_list(['/'.join(stratum) for stratum in empty])}" if compared else ""
            names.setdefault(f"no side has values{where} ({reason})", []).append(pair.name)
    return [
        f"left out, {words}" if len(own) == len(pairs) else f"left out for {format_list(own)}, {words}"
        for words, own in names.items()
    ]


def _draft(values: GateValues, pair: EntryPair, threshold: MetricThreshold) -> DraftLine:
    """Return a row, with its difference where that has to decide."""
    base, new = values.sides(pair)
    gaps = [bool(np.isnan(side.values).any()) for side in (base, new)]
    means = [None if gap else float(side.values.mean()) for gap, side in zip(gaps, (base, new), strict=True)]
    row = GateRow(pair.name, values.metric, "inconclusive", base=means[0], new=means[1], how=_how(values.runs))
    if not gaps[1] and (threshold.spread is None or np.isnan(base.values).all()):
        decides = values.metric == values.runs.sides[1].headline
        return DraftLine(replace(row, reason="the baseline has no values of it", decides=decides))
    columns = [(values.runs.seeds[0].index(seed), values.runs.seeds[1].index(seed)) for seed in values.runs.common]
    identical = _identical(values, pair, base, new, columns)
    if why := _undecidable_reason(values, pair, identical):
        return DraftLine(replace(row, reason=why))
    row = replace(row, verdict="same", reason="identical") if identical else row
    if any(gaps) or threshold.spread is None:  # then no value is missing on one side alone: they are identical
        return DraftLine(replace(row, verdict="same", reason="identical"))
    found, known, tasks = difference(base, new, columns), threshold.spread, [task for task, _ in values.compared(pair)]
    [estimate] = estimates(found.moments)
    mean = float(new.values.mean()) - estimate.mean  # of the seeds that the run has, as far as they are known
    size = bound(known, tasks, base.seeds, new.seeds)
    row = replace(row, difference=estimate, bound=size, tolerance=threshold.tolerance.of(mean))
    if identical:
        return DraftLine(row)
    row = replace(row, base=mean)
    if values.same_texts(pair):
        return DraftLine(replace(row, reason="the same texts have different scores: they were not scored alike"))
    return DraftLine(row, found, lambda one, other: bound(known, tasks, one, other))


def _how(runs: PairedRuns) -> str:
    """Return in words which seeds are compared with which."""
    base, new = map(len, runs.seeds)
    if not runs.common:
        return f"other seeds, {base} and {new}"
    if base == new:
        return f"paired, {base} seeds"
    more = ("baseline", base) if base > new else ("run", new)
    return f"paired, {len(runs.common)} seeds; the {more[0]} has {more[1]}"


def _identical(
    values: GateValues, pair: EntryPair, base: SideValues, new: SideValues, columns: Sequence[tuple[int, int]]
) -> bool:
    """Say whether every value is the same; with other seeds, whether none ever varies.

    Missing values are the same where the same texts have none: the cells ran, and have too few texts.
    """
    if np.isnan(new.values).any() and (pair.a.missing or pair.b.missing or not values.same_texts(pair)):
        return False
    if not columns:
        first = base.values[:, :1]
        return bool((base.values == first).all() and (new.values == first).all())
    mine, yours = zip(*columns, strict=True)
    return bool(np.array_equal(base.values[:, mine], new.values[:, yours], equal_nan=True))


def _undecidable_reason(values: GateValues, pair: EntryPair, identical: bool) -> str:
    """Return why a pair cannot be judged, whatever its numbers; empty where it can."""
    models = [side.entry.model and side.entry.model.fingerprint for side in (pair.a, pair.b)]
    if models[0] != models[1]:
        return "another model wrote the texts"
    sides = ("the baseline", "the run")
    found = zip(sides, values.coverage(pair, values.compared(pair)), strict=True)
    gaps = [missing_cells(side, known) for side, known in found]
    if any(gaps) and not identical:
        return "; ".join(filter(None, gaps))
    for side, seeds in zip(sides, values.runs.seeds, strict=True):
        if len(seeds) < SEEDS:
            return f"too few seeds: {side} has {len(seeds)} to compare, {SEEDS} are needed"
    return f"scored in different ways: {values.array.mixed[0]}" if values.array.mixed else ""


# Families of tests


def _is_loss(mean: float, metric: Metric) -> bool:
    return mean != 0 and (mean < 0) == (metric.direction == "up")


def decide(first: Sequence[DraftLine], rest: Sequence[DraftLine]) -> list[GateRow]:
    """Return rows with their verdicts: ``first`` of the metrics that decide, ``rest`` of the others.

    The two families are tested one-sided for losses and for gains, each by Holm.
    """
    if not (first and rest):
        return _family([*first, *rest], _ALONE, True)
    return [*_family(first, _HEADLINE, True), *_family(rest, _OTHERS, False)]


def _family(drafts: Sequence[DraftLine], shares: tuple[float, float], decides: bool) -> list[GateRow]:
    """Return rows with their verdicts; ``shares``: of ``ALPHA``, for losses and for gains."""
    worse = np.array([draft.worse for draft in drafts], dtype=np.float64)
    tests = max(int((~np.isnan(worse)).sum()), 1)
    adjusted = np.minimum(np.stack([holm(worse) / shares[0], holm(1 - worse) / shares[1]]), 1.0)
    level = 2 * shares[0] * ALPHA / tests  # of the smallest p; two-sided, as quantiles are taken
    return [
        draft.line if draft.found is None else _decided(draft, draft.found, (float(p[0]), float(p[1])), level, decides)
        for draft, p in zip(drafts, adjusted.T, strict=True)
    ]


def _decided(draft: DraftLine, found: GateDifference, p: tuple[float, float], level: float, decides: bool) -> GateRow:
    """Return a row with its verdict; ``p``: of no loss and of no gain."""
    row, mean, now = draft.line, float(found.moments.mean[0]), found.new.seeds
    size, tolerance = row.bound or 0.0, row.tolerance or 0.0
    loss = _is_loss(mean, row.metric)
    own = p[0] if loss else p[1]
    least = min_detectable_loss(found.at(now), level, size)
    chances = []
    for seeds in (times * now for times in _MORE):
        own_bound = draft.bound(max(seeds, found.base.seeds), seeds)
        chances.append((seeds, power(found.at(seeds), level, own_bound, tolerance)))
    row = replace(row, p=own, min_detectable_loss=least, decides=decides, chances=tuple(chances))
    if own <= ALPHA and abs(mean) > size:
        return replace(row, verdict="worse" if loss else "better")
    if least <= tolerance:
        return replace(row, verdict="same")
    limit = f"the minimum detectable loss is {least:.3g}" if least < float("inf") else "or any"
    return replace(row, reason=f"too few seeds to detect a loss of {tolerance:.3g}; {limit}")
