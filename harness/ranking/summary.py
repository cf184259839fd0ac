"""Results in words and for a terminal: numbers, one line per entry, conclusions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np
from rich.console import Console
from rich.text import Text

from harness.core.records import Direction
from harness.core.terminal import TerminalColumn, print_table, strip_control
from harness.ranking.eligibility import Eligibility
from harness.ranking.gains import LEVEL
from harness.ranking.leaderboard_rows import RankedEntry, Ranking, rank_entries
from harness.ranking.results import BASELINE, ResultSet
from harness.ranking.rivals import Rivalry, find_rivalry
from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import CORRECTION, holm
from harness.ranking.values import collect_metric
from harness.scoring.metrics import LABEL_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI, Metric

_SIDE = (VENDI.for_provider("tfidf"), SELF_CHRF, VALID_SHARE, LABEL_FIDELITY)
_ONE_DIGIT = ("self_chrf", "self_bleu", "vendi")
_REASONS = 3  # of an entry, shown at most
_TIED = 5  # entries named that share a tier with the best


def format_signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign (a true minus), or a dash; what rounds to zero has no sign."""
    return "–" if value is None else _unsigned_zero(f"{value:+.{digits}f}")


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number, with a true minus below zero, or a dash; what rounds to zero has no sign."""
    return "–" if value is None else _unsigned_zero(f"{value:.{digits}f}")


def p_value(p: float | None, digits: int = 3) -> str:
    """Return a p-value such as ``0.031`` or ``< 0.001``, or a dash: none is shown as 0."""
    return "–" if p is None else f"< {10.0**-digits:.{digits}f}" if p < 10.0**-digits else f"{p:.{digits}f}"


def p_equals(p: float | None, digits: int = 3) -> str:
    """Return a p-value for a sentence: ``p = 0.031`` or ``p < 0.001``."""
    shown = p_value(p, digits)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _unsigned_zero(text: str) -> str:
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def digits_of(metric: str) -> int:
    """Return how many decimals a metric is shown with."""
    return 1 if metric.startswith(_ONE_DIGIT) else 0 if metric.startswith("length") else 3


def format_interval(estimate: Estimate | None, digits: int = 3) -> str:
    """Return a difference with its 95 % interval, such as ``+0.010 [−0.002, +0.022]``, or a dash."""
    if estimate is None:
        return "–"
    if estimate.low is None:
        return format_signed(estimate.mean, digits)
    mean, low, high = (format_signed(value, digits) for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def mark(results: ResultSet) -> str:
    """Return what a partial run covers, in words; empty for a full run."""
    narrowed = results.manifest.selection.narrowed
    return "narrowed run: " + "; ".join(narrowed) if narrowed else ""


def print_summary(console: Console, results: ResultSet) -> None:
    """Print a table (tier, headline per task and overall, gain, other metrics, n of N), remarks, conclusion.

    Where the console is too narrow for all, the columns that say least about who is best are left out.
    """
    headline = results.headline
    if headline is None:
        console.print("nothing is scored yet")
        return
    array, rules, texts = collect_metric(results, headline), Eligibility(results), results.track == "generation"
    ranked = rank_entries(results, headline, array=array, eligibility=rules)
    others = [m for m in results.metrics if m.group == results.track and m.primary and m != headline]
    per_task = [_means(results, headline, [task]) for task in ranked.tasks]
    sides = [(metric, _means(results, metric)) for metric in (_SIDE if texts else others)]
    columns = [
        TerminalColumn("tier"),
        TerminalColumn("entry", words=True),
        *(TerminalColumn(task, drop=1) for task in ranked.tasks),
        TerminalColumn("mean"),
        TerminalColumn("vs zero-shot [95 %]"),
        *([TerminalColumn("gap %", drop=4)] if texts else []),
        *(TerminalColumn(metric.title.replace(" (tfidf)", ""), drop=3) for metric, _ in sides),
        TerminalColumn("cells", drop=2),
    ]
    rows = [
        [
            tier_of(row),
            strip_control(row.row.name),
            *(format_number(means.get(row.row.id)) for means in per_task),
            format_number(row.mean.mean if row.mean else None),
            format_interval(row.over_zero_shot),
            *([format_signed(row.gap_closed.mean if row.gap_closed else None, 0)] if texts else []),
            *(format_number(means.get(row.row.id), digits_of(metric.name)) for metric, means in sides),
            f"{row.row.present}/{row.row.expected}",
        ]
        for row in ranked.rows
    ]
    print_table(console, columns, rows, strip_control(f"{results.title}: {headline.title}"))
    for line in [mark(results), *remarks(ranked), *gaps(ranked)]:
        if line:
            console.print(Text(strip_control(line)), style="dim")
    names = {name: row.name for name, row in results.entries.items()}
    if words := describe_rivalry(find_rivalry(array, rules) if texts else None, names, headline):
        console.print(Text(strip_control(words)))
    console.print(Text(strip_control(conclusion(ranked))))


def _means(results: ResultSet, metric: Metric, tasks: list[str] | None = None) -> dict[str, float]:
    """Return the means of the complete entries; empty where the tasks have no data."""
    if not results.manifest.selection.task_languages(tasks):
        return {}
    array = collect_metric(results, metric, tasks, resample=False)
    return {name: float(array.values[array.position[name]].mean()) for name in array.complete}


def conclusion(ranked: Ranking) -> str:
    """Return a sentence: which entry is best, by how much and with what certainty, or why that is not known yet."""
    field = [row for row in ranked.rows if row.tier is not None]
    if ranked.reason or not field:
        return f"Nothing can be said yet about which entry is best: {ranked.reason or 'none is ranked'}."
    best = field[0]
    tied = [row for row in field[1:] if row.tier == best.tier]
    name, value = best.row.name, format_number(best.mean.mean if best.mean else None)
    if any(_baseline_of(row, best) for row in tied):
        start = f"No entry is shown to be better than zero-shot: {name} has the highest"
    else:
        start = f"{name} is best by"
    words = f"{start} {ranked.metric.title}, {value}{_gained(best, field)}."
    if tied:
        names = [row.row.name for row in tied]
        more = f" and {len(names) - _TIED} more" if len(names) > _TIED else ""
        return f"{words} No significant difference was found between it and {', '.join(names[:_TIED])}{more}."
    return f"{words} It differs significantly from all others that are ranked." if len(field) > 1 else words


def _baseline_of(row: RankedEntry, other: RankedEntry) -> bool:
    """Return whether a row is the unsteered zero-shot row of another's model."""
    return row.row.entry.method.name == BASELINE and row.row.entry.model == other.row.entry.model


def _gained(best: RankedEntry, field: list[RankedEntry]) -> str:
    """Return how far an entry leads zero-shot, and whether that is significant; empty where not known."""
    gain = best.over_zero_shot
    if gain is None:
        return ", without any steering" if _baseline_of(best, best) else ""
    words = f", {format_signed(gain.mean)} against zero-shot"
    if gain.low is not None and gain.high is not None:
        words += f" (95 % interval {format_signed(gain.low)} to {format_signed(gain.high)})"
    tiers = [row.tier for row in field if _baseline_of(row, best)]
    if len(tiers) != 1:
        return words
    return f"{words}, {'a' if tiers[0] != best.tier else 'not a'} significant difference"


def tier_of(row: RankedEntry) -> str:
    """Return the tier of an entry for a table: a number, ``flag`` for a flagged one, else a dash."""
    if row.tier is not None:
        return str(row.tier)
    return "flag" if row.flagged else "–"


def remarks(ranked: Ranking) -> list[str]:
    """Return what a reader must know about a ranking: why there is none, the detectable effect, flags."""
    lines = [
        f"not ranked: {ranked.reason}"
        if ranked.reason
        else "tier: entries of a tier do not differ significantly from its first (paired differences, "
        f"{CORRECTION}, 5 %)."
    ]
    effects = [row.over_zero_shot.mde for row in ranked.rows if row.over_zero_shot and row.over_zero_shot.mde]
    if effects:
        lines.append(f"minimum detectable difference to zero-shot: {median(effects):.3f} (median; 80 % power, 5 %).")
    lines += ranked.notes
    for row in ranked.rows:
        lines += [f"flag: {row.row.name}: {flag.words}" for flag in row.flags if row.flagged]
    return lines


def gaps(ranked: Ranking) -> list[str]:
    """Return a line per entry without a mean: how many of its cells have a value, and why the others have none."""
    lines = []
    for row in ranked.rows:
        if row.present < row.expected:
            more = len(row.missing_reasons) - _REASONS
            reasons = [*row.missing_reasons[:_REASONS], *([f"and {more} more reasons"] if more > 0 else [])]
            lines.append(f"no mean: {row.row.name}: {row.present}/{row.expected} cells; {'; '.join(reasons)}")
    return lines


def describe_rivalry(found: Rivalry | None, names: Mapping[str, str], metric: Metric) -> str:
    """Return who wins, steering or what needs no access to activations, in a sentence or two; empty for None."""
    if found is None:
        return ""
    gap, better = found.difference, -1.0 if metric.direction == "down" else 1.0
    pair = f"{names[found.steering]}, the best steering, against {names[found.rival]}, the best without access to "
    pair += f"activations: {format_interval(gap)} in {metric.title}"
    if found.p is None:
        return f"Not decided, as no interval is available: {pair}."
    many = f", corrected for {found.pairs} pairs" if found.pairs > 1 else ""
    pair += f" ({p_equals(found.p)}{many})."
    if found.decided:
        return f"{'Steering wins' if better * gap.mean > 0 else 'Steering loses'}: {pair}"
    effect = f" A difference from {format_number(gap.mde)} on is found in four of five such runs." if gap.mde else ""
    return f"Not decided between steering and prompting: {pair}{effect}"


AnswerVerdict = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class SteeringAnswer:
    """Whether any of ``compared`` entries is better than zero-shot: the question of a whole table.

    ``yes``: one or more are, by Holm's correction over all that are compared. ``no``: all are worse, by the
    same rule. ``unknown``: neither; also where one seed gives no p-value and where nothing is compared.
    ``best``: the entry with the largest gain of those that are better, else of all; ``gain`` and ``p`` (corrected)
    are its own. ``better``: the number of better entries.
    """

    verdict: AnswerVerdict
    best: str = ""
    gain: Estimate | None = None
    p: float | None = None
    compared: int = 0
    better: int = 0


def answer(gains: Mapping[str, Estimate], direction: Direction) -> SteeringAnswer:
    """Return the answer from gains over zero-shot by entry: of unflagged, complete steering methods only."""
    if not gains or direction == "none":
        return SteeringAnswer("unknown")
    sign = -1.0 if direction == "down" else 1.0
    names = sorted(gains, key=lambda name: (-sign * gains[name].mean, name))
    known = [gains[name].p for name in names]
    p = holm(np.array([np.nan if each is None else each for each in known], dtype=np.float64))
    apart = {name: bool(found <= LEVEL) for name, found in zip(names, p, strict=True)}
    better = [name for name in names if apart[name] and sign * gains[name].mean > 0]
    worse = [name for name in names if apart[name] and sign * gains[name].mean < 0]
    best = (better or names)[0]
    corrected = float(p[names.index(best)])
    return SteeringAnswer(
        verdict="yes" if better else "no" if len(worse) == len(names) else "unknown",
        best=best,
        gain=gains[best],
        p=None if np.isnan(corrected) else corrected,
        compared=len(names),
        better=len(better),
    )


def in_words(found: SteeringAnswer, names: Mapping[str, str], metric: str) -> tuple[str, str]:
    """Return the answer (Yes, No, Inconclusive) and a sentence with its size and certainty.

    ``names``: entry id -> title. ``metric``: title of the metric.
    """
    if found.gain is None:
        return "Inconclusive", "no steered entry with all its cells is available for comparison."
    entry, gain = names[found.best], f"{format_interval(found.gain)} in {metric}"
    if found.p is None:
        return "Inconclusive", f"no interval is available. {entry} has the largest gain: {gain}."
    many = found.compared > 1
    corrected = p_equals(found.p) + (f", corrected for {found.compared} compared entries" if many else "")
    if found.verdict == "yes":
        count = f" {found.better} of {found.compared} compared are better." if many else ""
        return "Yes", f"{entry} gains {gain} ({corrected}).{count}"
    if found.verdict == "no":
        least = f"all {found.compared} are worse, the least {entry}" if many else f"{entry} is worse"
        return "No", f"{least}: {gain} ({corrected})."
    largest = " has the largest gain" if many else ""
    return "Inconclusive", f"{entry}{largest}: {gain} ({corrected})."
