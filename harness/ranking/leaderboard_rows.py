"""The rows of the leaderboard in order: tiers, gains with intervals, and why something has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.threads import limit_blas_threads
from harness.ranking.eligibility import Eligibility
from harness.ranking.flags import Flag, human_row, is_floor
from harness.ranking.gains import (
    Correlation,
    LanguageGain,
    correlation,
    entry_means,
    gains,
    gains_by_language,
    mean_gains,
)
from harness.ranking.results import BASELINE, EntryRow, ResultSet
from harness.ranking.stats.estimates import Estimate, gaps_closed
from harness.ranking.stats.ranks import borda, mean_rank, win_rate
from harness.ranking.stats.sharing import BASE_BY_SEED, BY_SEED, noted
from harness.ranking.values import MetricArray, collect_metric, coverage
from harness.scoring.metrics import Metric


@dataclass(frozen=True)
class RankedEntry:
    """One entry. ``tier`` is None for the ``reason`` given; other numbers are None where unknown.

    ``present`` of ``expected`` cells have a value; ``missing_reasons`` says why the others have none.
    ``over_zero_shot``, ``over_few_shot``: paired differences to the rows of the same model.
    ``gap_closed``: percent of the way from zero-shot to human text. ``win_rate``: share of the cases
    (task and language) in which the entry beats zero-shot. ``borda``, ``mean_rank``: among the entries in tiers.
    ``languages``: gain over zero-shot per language, where it is known. ``note``: what limits the numbers of
    this entry, in words, such as why its intervals are by seed (``sharing``); else empty.
    """

    row: EntryRow
    present: int
    expected: int
    missing_reasons: list[str]
    flags: list[Flag]
    mean: Estimate | None
    over_zero_shot: Estimate | None
    over_few_shot: Estimate | None
    gap_closed: Estimate | None
    win_rate: float | None
    languages: dict[str, LanguageGain]
    reason: str = ""
    tier: int | None = None
    borda: float | None = None
    mean_rank: float | None = None
    note: str = ""

    @property
    def reference(self) -> bool:
        """Whether no model wrote the texts: shown for comparison, never ranked."""
        return self.row.entry.setting == "none"

    @property
    def flagged(self) -> bool:
        """Whether the flags mean anything: the floor repeats one text on purpose."""
        return bool(self.flags) and not is_floor(self.row.entry.method.name, self.row.entry.setting)


@dataclass(frozen=True)
class Ranking:
    """All entries by one metric, the best first. ``reason``: why none is ranked; empty where some are.

    ``relative``: tiers are of gains over the own model's zero-shot, as there are several models.
    ``notes``: what limits the numbers, in words. ``correlations``: of diversity with the gain.
    """

    metric: Metric
    tasks: list[str]
    languages: list[str]
    rows: list[RankedEntry]
    reason: str
    relative: bool
    notes: list[str]
    correlations: list[Correlation]


def rank_entries(
    results: ResultSet,
    metric: Metric,
    tasks: Sequence[str] | None = None,
    array: MetricArray | None = None,
    eligibility: Eligibility | None = None,
) -> Ranking:
    """Return all entries of a result set by a metric, over all tasks or some.

    Tiers need at least ``SEEDS`` generation seeds and, for a classifier whose training depends on a seed,
    ``TRAININGS`` of those. References, flagged and incomplete entries get none.
    ``array``: the metric in these tasks or more, ``eligibility``: that of the result set, if they are known already.
    """
    chosen = list(tasks or results.manifest.selection.tasks)
    array = collect_metric(results, metric, chosen) if array is None else array.select(tasks=chosen)
    with limit_blas_threads():
        rules = eligibility or Eligibility(results)
        ranked = rules.rank(array)
        by_case = ranked.values.mean(axis=2) if ranked.tiers else None
        columns: dict[str, Mapping[str, Any]] = {
            "mean": entry_means(array),
            "over_zero_shot": gains(array, rules.zero_shot),
            "over_few_shot": gains(array, rules.few_shot),
            "gap_closed": _gaps_closed(results, array, rules.zero_shot),
            "win_rate": _win_rates(array, rules),
            "languages": gains_by_language(array, rules.zero_shot, ranked.entries),
        }
        if by_case is not None:
            better = metric.direction
            ranks = (ranked.tiers, borda(by_case, better).tolist(), mean_rank(by_case, better).tolist())
            for column, numbers in zip(("tier", "borda", "mean_rank"), ranks, strict=True):
                columns[column] = dict(zip(ranked.entries, numbers, strict=True))
        rows = [_row(results, array, rules, ranked.reason, columns, name) for name in array.entries]
        correlations = _correlations(results, array, rules.zero_shot, ranked.entries)
    shared = [results.entries[name].name for name in sorted(array.by_seed)]
    return Ranking(
        metric=metric,
        tasks=chosen,
        languages=list(results.manifest.selection.languages),
        rows=sorted(rows, key=lambda row: _order(row, metric, rules.relative)),
        reason=ranked.reason,
        relative=rules.relative,
        notes=[*([array.note] if array.note else []), *noted(shared)],
        correlations=correlations,
    )


def _row(
    results: ResultSet,
    array: MetricArray,
    rules: Eligibility,
    reason: str,
    columns: Mapping[str, Mapping[str, Any]],
    name: str,
) -> RankedEntry:
    found, own = coverage(results, array, name), {column: values.get(name) for column, values in columns.items()}
    base_by_seed = rules.zero_shot.get(name) in array.by_seed
    return RankedEntry(
        row=results.entries[name],
        present=found.n,
        expected=found.expected,
        missing_reasons=found.reasons,
        flags=rules.flags[name],
        reason="" if own.get("tier") else rules.exclusion_reason(array, name) or reason,
        note=BY_SEED if name in array.by_seed else BASE_BY_SEED if base_by_seed else "",
        **own,  # type: ignore[arg-type]
    )


def _gaps_closed(results: ResultSet, array: MetricArray, bases: Mapping[str, str]) -> dict[str, Estimate | None]:
    """Return how far entries come from their zero-shot to human text, in percent, where that is known."""
    human = human_row(results)
    if human is None:
        return {}
    three = [(name, bases[name], human) for name in array.entries if name in bases and name != human]
    three = [names for names in three if array.complete.issuperset(names)]
    triples = [(array.position[a], array.position[b], array.position[c]) for a, b, c in three]
    closed = gaps_closed(array.strata, array.examples, triples, array.metric.direction)
    return dict(zip([name for name, _, _ in three], closed, strict=True))


def _win_rates(array: MetricArray, rules: Eligibility) -> dict[str, float]:
    """Return the share of cases in which entries improve over zero-shot; none for flagged ones."""
    if array.metric.direction == "none":
        return {}
    names = [
        name
        for name, base in rules.zero_shot.items()
        if array.complete.issuperset({name, base}) and not rules.flags[name]
    ]
    by_case = mean_gains(array, names, rules.zero_shot).mean(axis=2)
    return {name: win_rate(own, array.metric.direction) for name, own in zip(names, by_case, strict=True)}


def _correlations(
    results: ResultSet, array: MetricArray, bases: Mapping[str, str], names: Sequence[str]
) -> list[Correlation]:
    """Return how each primary metric of diversity goes with this one, where enough is known."""
    others = [m for m in results.metrics if m.group == "diversity" and m.primary and m != array.metric]
    tasks = list(dict.fromkeys(task for task, _ in array.task_languages))
    found = [
        correlation(collect_metric(results, other, tasks, resample=False), array, bases, names) for other in others
    ]
    return [item for item in found if item is not None]


def _order(row: RankedEntry, metric: Metric, relative: bool) -> tuple[object, ...]:
    """Return the sort key: the best first, by gains where models differ, the incomplete last."""
    mean = row.mean.mean if row.mean else None
    value = mean
    if relative:
        baseline = 0.0 if row.mean and row.row.entry.method.name == BASELINE else None
        value = row.over_zero_shot.mean if row.over_zero_shot else baseline
    shown = next((known for known in (value, mean) if known is not None), 0.0)
    return (value is None, mean is None, shown if metric.direction == "down" else -shown, row.row.name, row.row.id)
