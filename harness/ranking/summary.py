"""The summary of results for a terminal: one line per entry."""

from __future__ import annotations

from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.ranking.multiplicity import CORRECTION
from harness.ranking.standings import Standing, Standings, standings
from harness.ranking.stats import Estimate
from harness.ranking.tables import Cellset, EntryRow, Table, Value, table
from harness.scoring.metrics import LABEL_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI

_SIDE = (VENDI.of("tfidf"), SELF_CHRF, VALID_SHARE, LABEL_FIDELITY)
_ONE_DIGIT = ("self_chrf", "self_bleu", "vendi")
_REASONS = 3  # of an entry, shown at most
NARROW = 140  # columns where the output is no terminal


def clean(text: str) -> str:
    """Return text from outside on one line, without control and direction characters."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign (a true minus), or a dash; what rounds to zero has no sign."""
    return "–" if value is None else _unsigned_zero(f"{value:+.{digits}f}")


def plain(value: float | None, digits: int = 3) -> str:
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


def spanned(estimate: Estimate | None, digits: int = 3) -> str:
    """Return a difference with its 95 % interval, such as ``+0.010 [−0.002, +0.022]``, or a dash."""
    if estimate is None:
        return "–"
    if estimate.low is None:
        return signed(estimate.mean, digits)
    return (
        f"{signed(estimate.mean, digits)} [{signed(estimate.low, digits)}, {signed(estimate.high, digits)}]"
    )


def mark(cellset: Cellset) -> str:
    """Return what a narrowed run covers, in words; empty for a full run."""
    narrowed = cellset.manifest.selection.narrowed
    return "narrowed run: " + "; ".join(narrowed) if narrowed else ""


def print_summary(console: Console, cellset: Cellset) -> None:
    """Print one table: tier, headline per task and overall, gain, the other metrics, n of N; then remarks."""
    headline = cellset.headline
    if headline is None:
        console.print("nothing is scored yet")
        return
    ranked = standings(cellset, headline)
    per_task = [table(cellset, headline, [task]) for task in ranked.tasks]
    texts = cellset.track == "generation"
    others = [m for m in cellset.metrics if m.group == cellset.track and m.primary and m != headline]
    sides = [table(cellset, side) for side in (_SIDE if texts else others)]
    title = f"{cellset.title}: {headline.title}"
    grid = Grid(title=title, caption=mark(cellset) or None, box=box.SIMPLE_HEAD, show_edge=False)
    grid.add_column("tier", justify="right")
    grid.add_column("entry", no_wrap=True)
    gap_head = ["gap %"] if texts else []
    titles = [part.metric.title for part in sides]
    for head in (*ranked.tasks, "mean", "vs zero-shot [95 %]", *gap_head, *titles, "cells"):
        grid.add_column(head.replace(" (tfidf)", ""), justify="right", no_wrap=True)
    for standing in ranked.rows:
        row = standing.row
        gap = standing.gap_closed
        closed = [signed(gap.mean if gap else None, 0)] if texts else []
        grid.add_row(
            tier_of(standing),
            Text(row.name),  # not markup: a name may hold brackets
            *(plain(_of(part, row).mean) for part in per_task),
            plain(standing.mean.mean if standing.mean else None),
            spanned(standing.over_zero_shot),
            *closed,
            *(plain(_of(part, row).mean, digits_of(part.metric.name)) for part in sides),
            f"{row.present}/{row.expected}",
        )
    console.print(grid)
    for line in [*remarks(ranked), *gaps(ranked)]:
        console.print(Text(clean(line)), style="dim")


def tier_of(standing: Standing) -> str:
    """Return the tier of an entry for a table: a number, ``flag`` for a flagged one, else a dash."""
    if standing.tier is not None:
        return str(standing.tier)
    return "flag" if standing.flags and not standing.reference else "–"


def remarks(ranked: Standings) -> list[str]:
    """Return what a reader must know of standings: why nobody is ranked, what could be found, flags."""
    lines = [
        f"not ranked: {ranked.reason}"
        if ranked.reason
        else "tier: entries of a tier do not differ significantly from its first (paired differences, "
        f"{CORRECTION}, 5 %)."
    ]
    effects = [row.over_zero_shot.mde for row in ranked.rows if row.over_zero_shot and row.over_zero_shot.mde]
    if effects:
        lines.append(
            f"minimum detectable difference to zero-shot: {median(effects):.3f} (median; 80 % power, 5 %)."
        )
    lines += ranked.notes
    for row in ranked.rows:
        lines += [f"flag: {row.row.name}: {flag.words}" for flag in row.flags if not row.reference]
    return lines


def gaps(ranked: Standings) -> list[str]:
    """Return of every entry without a mean how many of its cells have a value, and why not the others."""
    lines = []
    for row in ranked.rows:
        if row.present < row.expected:
            more = len(row.lacking) - _REASONS
            reasons = [*row.lacking[:_REASONS], *([f"and {more} more reasons"] if more > 0 else [])]
            lines.append(f"no mean: {row.row.name}: {row.present}/{row.expected} cells; {'; '.join(reasons)}")
    return lines


def _of(part: Table, row: EntryRow) -> Value:
    return next(value for other, value, _ in part.rows if other.id == row.id)
