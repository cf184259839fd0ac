"""Forcing over several cells, the harmonic mean of mean share and mean relevance; tables of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.text import Text

from harness.core.terminal import TerminalColumn, print_table, strip_control
from harness.ranking.results import EntryRow, ResultSet
from harness.ranking.summary import format_number, mark
from harness.scoring.metrics import RELEVANCE, TARGET_SHARE, harmonic
from harness.tracks.forcing.planning import source_of

_REASONS = 3  # of an entry, shown at most

Pairs = list[tuple[str, str]]
"""Tasks, which name the source language, with target languages."""


@dataclass(frozen=True)
class Aggregate:
    """An entry over several cells: mean share, mean relevance, and the harmonic mean of these two.

    All three are None unless all ``expected`` cells have both values; ``n`` have.
    """

    share: float | None
    relevance: float | None
    forcing: float | None
    n: int
    expected: int


def pairs(results: ResultSet, tasks: Sequence[str] | None = None, languages: Sequence[str] | None = None) -> Pairs:
    """Return the tasks and target languages, all or some, whose target is not the source."""
    selection = results.manifest.selection
    tasks, languages = tasks or selection.tasks, languages or selection.languages
    return [(task, code) for task in tasks for code in languages if source_of(task) != code]


def pairs_for(results: ResultSet) -> Pairs:
    """Return the pairs whose target is the source, where nothing has to be forced: a control, in no mean."""
    selection = results.manifest.selection
    return [(task, code) for task in selection.tasks for code in selection.languages if source_of(task) == code]


def aggregate(results: ResultSet, provider: str, among: Pairs | None = None) -> dict[str, Aggregate]:
    """Return every entry's aggregate over pairs of task and target language, by default ``pairs``.

    ``provider``: the scorer of relevance, such as ``tfidf``. Every cell has the same weight; the harmonic mean is
    taken last, of the two means, as in CLaS-Bench (arXiv 2601.08331).
    """
    wanted, seeds = pairs(results) if among is None else among, results.manifest.selection.seeds
    names = [TARGET_SHARE.name, RELEVANCE.for_provider(provider).name]
    scores = results.scores
    known = scores[scores["metric"].isin(names) & scores["seed"].isin(seeds)].dropna(subset=["value"])
    here = pd.MultiIndex.from_frame(known[["task", "language"]].astype(str)).isin(wanted) if wanted else []
    cells = known[here].astype({"entry": str, "task": str, "language": str, "metric": str})
    table = cells.pivot_table(index=["entry", "task", "language", "seed"], columns="metric", values="value")
    both = table.reindex(columns=names).dropna()
    expected = len(wanted) * len(seeds)
    found = {}
    for row in results.entries:
        own = both[both.index.get_level_values("entry") == row]
        found[row] = Aggregate(None, None, None, len(own), expected)
        if expected and len(own) >= expected:
            share, relevance = (float(own[name].mean()) for name in names)
            found[row] = Aggregate(share, relevance, harmonic(share, relevance), len(own), expected)
    return found


def print_forcing(console: Console, results: ResultSet, provider: str) -> None:
    """Print the entries, best first: share, relevance and forcing overall, forcing per target and source."""
    whole = aggregate(results, provider)

    def order(row: EntryRow) -> tuple[float, str]:
        value = whole[row.id].forcing
        return (1.0 if value is None else -value, row.name)

    rows = sorted(results.entries.values(), key=order)
    selection = results.manifest.selection

    def table(title: str, heads: Sequence[str], lines: Mapping[str, list[str]], drop: int = 0) -> None:
        columns = [TerminalColumn("entry", words=True), *(TerminalColumn(head, drop=drop) for head in heads)]
        shown = [[strip_control(row.name), *lines[row.id]] for row in rows]
        print_table(console, columns, shown, strip_control(title))

    def overall(title: str, found: Mapping[str, Aggregate]) -> None:
        lines = {
            name: [*map(format_number, (a.share, a.relevance, a.forcing)), f"{a.n}/{a.expected}"]
            for name, a in found.items()
        }
        table(title, ["in target", "relevance", "forcing", "cells"], lines)

    def split(title: str, parts: Mapping[str, Pairs]) -> None:
        found = [aggregate(results, provider, among) for among in parts.values()]
        lines = {row.id: [format_number(part[row.id].forcing) for part in found] for row in rows}
        table(title, list(parts), lines, drop=1)

    sources = ", ".join(source_of(task) for task in selection.tasks)
    overall(f"{results.title}: questions in {sources}; relevance by {provider}", whole)
    if len(selection.languages) > 1:
        targets = {code: pairs(results, languages=[code]) for code in selection.languages}
        split("forcing by target language", targets)
    if len(selection.tasks) > 1:
        split("forcing by source language", {source_of(task): pairs(results, [task]) for task in selection.tasks})
    if own := pairs_for(results):
        overall("control, in no mean: target = source", aggregate(results, provider, own))
    for line in filter(None, [mark(results), *_remarks(rows, whole)]):
        console.print(Text(strip_control(line)), style="dim")
    console.print(Text(strip_control(_conclusion(rows, whole, provider))))


def _conclusion(rows: list[EntryRow], whole: Mapping[str, Aggregate], provider: str) -> str:
    """Return a sentence about the best entry."""
    ranked = [(row.name, value) for row in rows if (value := whole[row.id].forcing) is not None]
    if not ranked:
        return "Nothing can be said yet about which entry is best: none has all of its cells."
    words = f"{ranked[0][0]} has the highest forcing, {format_number(ranked[0][1])} (relevance by {provider})"
    if len(ranked) > 1:
        words += f"; next is {ranked[1][0]} with {format_number(ranked[1][1])}"
    return f"{words}. Whether such a difference is more than chance is not tested here."


def _remarks(rows: list[EntryRow], whole: Mapping[str, Aggregate]) -> list[str]:
    """Return the meaning of the numbers, and why entries have none."""
    lines = [
        "in target: share of answers in the target language; forcing: harmonic mean of that and relevance, "
        "each averaged first."
    ]
    for row in rows:
        found = whole[row.id]
        if found.forcing is None and found.expected:
            counted = Counter(missing.reason for missing in row.missing).most_common(_REASONS)
            reasons = "; ".join(f"{n} x {reason}" if n > 1 else reason for reason, n in counted)
            reasons = reasons or "no value by this scorer"
            lines.append(f"no mean: {row.name}: {found.n}/{found.expected} cells; {reasons}")
    return lines
