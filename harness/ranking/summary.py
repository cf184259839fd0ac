"""The summary of results for a terminal: one line per entry."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.ranking.tables import Cellset, EntryRow, Table, Value, table
from harness.scoring.metrics import DISTINCT_2, LANGUAGE_FIDELITY, SELF_CHRF

_SIDE = (DISTINCT_2, SELF_CHRF, LANGUAGE_FIDELITY)


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign (a true minus), or a dash."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def plain(value: float | None, digits: int = 3) -> str:
    """Return a number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def mark(cellset: Cellset) -> str:
    """Return what a narrowed run covers, in words; empty for a full run."""
    narrowed = cellset.manifest.selection.narrowed
    return "narrowed run: " + "; ".join(narrowed) if narrowed else ""


def print_summary(console: Console, cellset: Cellset) -> None:
    """Print one table: the headline per task and overall, its gain, the other metrics, n of N."""
    headline = cellset.headline
    if headline is None:
        console.print("nothing is scored yet")
        return
    overall = table(cellset, headline)
    per_task = [table(cellset, headline, [task]) for task in overall.tasks]
    sides = [table(cellset, side) for side in _SIDE]
    title = f"{cellset.title}: {headline.title}"
    grid = Grid(title=title, caption=mark(cellset) or None, box=box.SIMPLE_HEAD, show_edge=False)
    grid.add_column("entry", no_wrap=True)
    for head in (*overall.tasks, "mean ± sd", "vs zero-shot", *(s.title for s in _SIDE), "cells"):
        grid.add_column(head, justify="right", no_wrap=True)
    for row, value, _ in overall.rows:
        others = [_of(part, row) for part in per_task]
        spread = f" ± {value.spread:.3f}" if value.spread is not None else ""
        grid.add_row(
            Text(row.name),  # not markup: a name may hold brackets
            *(plain(other.mean) for other in others),
            plain(value.mean) + spread,
            signed(value.gain),
            *(_side(part, row) for part in sides),
            f"{row.present}/{row.expected}",
        )
    console.print(grid)
    console.print("sd: over the means of the generation seeds; not a test of significance.", style="dim")


def _side(part: Table, row: EntryRow) -> str:
    return plain(_of(part, row).mean, 1 if part.metric is SELF_CHRF else 3)


def _of(part: Table, row: EntryRow) -> Value:
    return next(value for other, value, _ in part.rows if other.id == row.id)
