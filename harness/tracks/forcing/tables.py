"""Forcing over several cells, the harmonic mean of mean share and mean relevance; tables of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.text import Text

from harness.core.terminal import TerminalColumn, print_table
from harness.ranking.results import EntryRow, ResultSet
from harness.ranking.summary import format_number, mark, strip_control
from harness.scoring.harmonic import harmonic
from harness.scoring.metrics import FORCING, RELEVANCE, TARGET_SHARE
from harness.tracks.forcing.planning import source_of

_ENTRY = TerminalColumn("entry", words=True)
_REASONS = 3  # of an entry, shown at most


@dataclass(frozen=True)
class Aggregate:
    """An entry over several cells: mean share, mean relevance, and the harmonic mean of these two.

    All three are None where not all of the ``expected`` cells have both values, ``n`` have.
    """

    share: float | None
    relevance: float | None
    forcing: float | None
    n: int
    expected: int


def pairs(
    cellset: ResultSet, tasks: Sequence[str] | None = None, languages: Sequence[str] | None = None
) -> list[tuple[str, str]]:
    """Return the tasks and target languages, all or some, where the target is not the source itself."""
    selection = cellset.manifest.selection
    return [
        (task, code)
        for task in (selection.tasks if tasks is None else tasks)
        for code in (selection.languages if languages is None else languages)
        if source_of(task) != code
    ]


def pairs_for(cellset: ResultSet) -> list[tuple[str, str]]:
    """Return the pairs where a language is to be forced that the question is in: a check, in no mean."""
    selection = cellset.manifest.selection
    return [(task, code) for task in selection.tasks for code in selection.languages if source_of(task) == code]


def aggregate(
    cellset: ResultSet, provider: str, places: Sequence[tuple[str, str]] | None = None
) -> dict[str, Aggregate]:
    """Return every entry's aggregate over pairs of task and target language, by default ``pairs``.

    ``provider``: the scorer of relevance, such as ``tfidf``. Every cell weighs the same; the harmonic mean is
    taken last, of the two means, as CLaS-Bench has it (arXiv 2601.08331).
    """
    wanted = list(pairs(cellset) if places is None else places)
    seeds = cellset.manifest.selection.seeds
    names = [TARGET_SHARE.name, RELEVANCE.for_provider(provider).name]
    scores = cellset.scores
    known = scores[scores["metric"].isin(names) & scores["seed"].isin(seeds)].dropna(subset=["value"])
    here = pd.MultiIndex.from_frame(known[["task", "language"]].astype(str)).isin(wanted) if wanted else []
    cells = known[here].astype({"entry": str, "task": str, "language": str, "metric": str})
    table = cells.pivot_table(index=["entry", "task", "language", "seed"], columns="metric", values="value")
    both = table.reindex(columns=names).dropna()
    expected = len(wanted) * len(seeds)
    return {row: _of(both, names, row, expected) for row in cellset.entries}


def _of(both: pd.DataFrame, names: list[str], row: str, expected: int) -> Aggregate:
    own = both[both.index.get_level_values("entry") == row]
    if not expected or len(own) < expected:
        return Aggregate(None, None, None, len(own), expected)
    share, relevance = (float(own[name].mean()) for name in names)
    return Aggregate(share, relevance, harmonic(share, relevance), len(own), expected)


def providers(cellset: ResultSet) -> list[str]:
    """Return the scorers of relevance that the answers were rated by."""
    return [m.name.partition("/")[2] for m in cellset.metrics if m.name.startswith(f"{FORCING.name}/")]


def print_forcing(console: Console, cellset: ResultSet, provider: str) -> None:
    """Print the entries, best first: share, relevance and forcing overall, forcing per target and source."""
    whole = aggregate(cellset, provider)
    rows = sorted(cellset.entries.values(), key=lambda row: (_sort_key(whole[row.id]), row.name))
    selection = cellset.manifest.selection
    sources = ", ".join(source_of(task) for task in selection.tasks)
    heading = f"{cellset.title}: questions in {sources}; relevance by {provider}"
    _overall(console, heading, rows, whole)
    if len(selection.languages) > 1:
        by_target = {code: pairs(cellset, languages=[code]) for code in selection.languages}
        _split(console, "forcing by target language", cellset, provider, rows, by_target)
    if len(selection.tasks) > 1:
        by_source = {source_of(task): pairs(cellset, [task]) for task in selection.tasks}
        _split(console, "forcing by source language", cellset, provider, rows, by_source)
    own = pairs_for(cellset)
    if own:
        found = aggregate(cellset, provider, own)
        _overall(console, "check, in no mean: target = source", rows, found)
    for line in [mark(cellset), *_remarks(rows, whole)]:
        if line:
            console.print(Text(strip_control(line)), style="dim")
    console.print(Text(strip_control(_conclusion(rows, whole, provider))))


def _conclusion(rows: list[EntryRow], whole: dict[str, Aggregate], provider: str) -> str:
    """Return in plain words which entry turns most answers; no test says how sure that is."""
    best = rows[0] if rows else None
    if best is None or whole[best.id].forcing is None:
        return "Nothing can be said yet about which entry is best: none has all of its cells."
    words = f"{best.name} has the highest forcing, {format_number(whole[best.id].forcing)} (relevance by {provider})"
    others = [row for row in rows[1:] if whole[row.id].forcing is not None]
    if others:
        words += f"; next is {others[0].name} with {format_number(whole[others[0].id].forcing)}"
    return f"{words}. Whether such a difference is more than chance is not tested here."


def _sort_key(found: Aggregate) -> float:
    return 1.0 if found.forcing is None else -found.forcing


def _overall(console: Console, title: str, rows: list[EntryRow], found: dict[str, Aggregate]) -> None:
    heads = ["in target", "relevance", "forcing", "cells"]
    lines = []
    for row in rows:
        cell = found[row.id]
        numbers = (format_number(cell.share), format_number(cell.relevance), format_number(cell.forcing))
        lines.append([strip_control(row.name), *numbers, f"{cell.n}/{cell.expected}"])
    print_table(console, [_ENTRY, *map(TerminalColumn, heads)], lines, strip_control(title))


def _split(
    console: Console,
    title: str,
    cellset: ResultSet,
    provider: str,
    rows: list[EntryRow],
    parts: dict[str, list[tuple[str, str]]],
) -> None:
    found = {name: aggregate(cellset, provider, places) for name, places in parts.items()}
    lines = [[strip_control(row.name), *(format_number(found[name][row.id].forcing) for name in parts)] for row in rows]
    print_table(console, [_ENTRY, *(TerminalColumn(name, drop=1) for name in parts)], lines, strip_control(title))


def _remarks(rows: list[EntryRow], whole: dict[str, Aggregate]) -> list[str]:
    """Return what the numbers are, and why entries have none."""
    lines = [
        "in target: share of answers in the target language; forcing: harmonic mean of that and relevance, "
        "each averaged first."
    ]
    for row in rows:
        if whole[row.id].forcing is None and whole[row.id].expected:
            counted = Counter(missing.reason for missing in row.missing).most_common(_REASONS)
            reasons = "; ".join(f"{n} x {reason}" if n > 1 else reason for reason, n in counted)
            n, expected = whole[row.id].n, whole[row.id].expected
            lines.append(f"no mean: {row.name}: {n}/{expected} cells; {reasons or 'no value by this scorer'}")
    return lines
