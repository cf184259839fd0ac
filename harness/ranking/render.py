"""A comparison as text: for the terminal, as Markdown for a pull request, as JSON, as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.core.terminal import TerminalColumn, print_table, strip_control
from harness.ranking.compare import Comparison, ComparisonRow
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of, format_number, format_signed, p_value
from harness.scoring.metrics import Metric

SCHEMA = 2
"""Version of the JSON comparison; in 1 the verdict inconclusive was called cannot tell."""

_COLUMNS = (
    TerminalColumn("entry", words=True),
    TerminalColumn("A", drop=2),
    TerminalColumn("B", drop=2),
    TerminalColumn("B − A"),
    TerminalColumn("95 % interval"),
    TerminalColumn("p (Holm)", drop=1),
    TerminalColumn("verdict", words=True),
)
_STYLES = {"better": "green", "worse": "red", "inconclusive": "yellow"}
_ESCAPED = {sign: f"\\{sign}" for sign in "\\`*_[]|~$"}
_ESCAPED |= {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ESCAPED |= {"@": "@&#8203;", "#": "#&#8203;"}  # a sign of no width: else GitHub links people and issues
_EXPLAINED = (
    "B − A is paired by task, language and seed. A verdict needs p of at most 0.05, by Holm's method over "
    "the entries of a metric; MDE, the minimum detectable effect, is the difference that would be found in 80 of 100 "
    "comparisons."
)


def _tables(comparison: Comparison) -> Iterator[tuple[str, str, list[tuple[ComparisonRow, tuple[str, ...]]]]]:
    """Yield title, verdicts and rows in words of every metric that is not identical in every entry."""
    better = {"up": "higher is better", "down": "lower is better", "none": "neither way is better"}
    for metric in _differing(comparison):
        rows = [line for line in comparison.lines if line.metric == metric]
        counts = Counter(line.verdict for line in rows)
        tally = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        yield f"{metric.title} ({better[metric.direction]})", tally, [(line, _cells(line)) for line in rows]


def _differing(comparison: Comparison) -> list[Metric]:
    names = {line.metric.name for line in comparison.lines if line.verdict != "identical"}
    return [metric for metric in comparison.metrics if metric.name in names]


def _cells(line: ComparisonRow) -> tuple[str, ...]:
    """Return a row in words, after its entry."""
    digits, found = digits_of(line.metric.name), line.difference or Estimate(0.0)
    interval, words = "–", str(line.verdict)
    if found.low is not None and found.high is not None:
        interval = f"{format_signed(found.low, digits)} to {format_signed(found.high, digits)}"
    if line.reason:
        words += f": {line.reason}"
    elif line.verdict == "no clear difference" and found.mde is not None:
        words += f" (MDE: {format_number(found.mde, digits)})"
    return (
        format_number(line.a, digits),
        format_number(line.b, digits),
        format_signed(line.difference.mean if line.difference else None, digits),
        interval,
        p_value(line.p),
        words,
    )


def _remarks(comparison: Comparison) -> Iterator[str]:
    """Yield, in words, what is the same, what is left out and what else differs."""
    differing = _differing(comparison)
    same = [metric.title for metric in comparison.metrics if metric not in differing]
    if same:
        yield f"identical in every entry: {', '.join(same)}"
    yield from comparison.scope
    for side, names in (("A", comparison.alone_a), ("B", comparison.alone_b)):
        if names:
            yield f"without a partner, only in {side}: {', '.join(names)}"
    for pair in comparison.pairs:
        if pair.changed:
            yield f"{pair.name}: {', '.join(pair.changed)}"
    yield from (f"{what}: {one} → {other}" for what, one, other in comparison.environment)
    yield from (f"{name}: {note}" for name, note in comparison.notes.items())


def conclusion(comparison: Comparison) -> str:
    """Return in plain words whether B is better or worse than A, by the first metric compared."""
    if not comparison.metrics:
        return "Nothing can be said yet: neither run has values of these metrics."
    first = comparison.metrics[0]
    lines = [line for line in comparison.lines if line.metric == first]
    parts = []
    for verdict in ("better", "worse", "higher", "lower"):
        if named := [line for line in lines if line.verdict == verdict]:
            most = max(named, key=lambda line: abs(line.difference.mean) if line.difference else 0.0)
            _, _, change, interval, *_ = _cells(most)
            more = f" and in {len(named) - 1} more" if len(named) > 1 else ""
            parts.append(f"{verdict} in {most.pair.name} by {change} ({interval}, significant){more}")
    counted = "the entry that was compared" if len(lines) == 1 else f"all {len(lines)} entries"
    if parts:
        return f"By {first.title}, B is {'; '.join(parts)}; {len(lines)} entries were compared."
    if all(line.verdict == "identical" for line in lines):
        return f"By {first.title}, A and B are identical in {counted}."
    if all(line.verdict == "inconclusive" for line in lines):
        return f"Nothing can be said yet: {lines[0].reason or 'no entry can be compared'}."
    return f"By {first.title}, no significant difference was found in {counted}."


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a table per metric, what else differs, and in a sentence what that means for B."""
    console.print(Text(f"A: {strip_control(comparison.a)}\nB: {strip_control(comparison.b)}"))
    console.print(Text(f"{strip_control(comparison.suite)}, {comparison.cells} cells per entry in common"))
    for title, tally, lines in _tables(comparison):
        rows: list[list[str | Text]] = []
        for line, (*numbers, words) in lines:
            verdict = Text(strip_control(words), style=_STYLES.get(line.verdict, ""))
            rows.append([strip_control(line.pair.name), *numbers, verdict])
        print_table(console, _COLUMNS, rows, f"{strip_control(title)}: {tally}")
    for remark in _remarks(comparison):
        console.print(Text(f"- {strip_control(remark)}"))
    console.print(Text(_EXPLAINED, style="dim"))
    console.print(Text(strip_control(conclusion(comparison))))


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub's Markdown; text from outside can form no markup."""
    lines = [
        f"### {escaped(comparison.suite)}: B against A",
        "",
        f"A: {escaped(comparison.a)}, B: {escaped(comparison.b)}; {comparison.cells} cells per entry in common.",
    ]
    for title, tally, rows in _tables(comparison):
        lines += ["", f"**{escaped(title)}**: {tally}", ""]
        lines += [row_of(tuple(column.head for column in _COLUMNS)), row_of(("---", *["---:"] * 5, "---"))]
        for line, (*numbers, words) in rows:
            lines.append(row_of((escaped(line.pair.name), *numbers, escaped(words))))
    remarks = [f"- {escaped(remark)}" for remark in _remarks(comparison)]
    lines += ["", *remarks, *([""] if remarks else []), f"<sub>{_EXPLAINED}</sub>"]
    return "\n".join(lines) + "\n"


def row_of(cells: tuple[str, ...]) -> str:
    """Return a row of a Markdown table; the cells are escaped already."""
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return text from outside so that Markdown shows it as it is: no table, link, tag or mention."""
    return "".join(_ESCAPED.get(sign, sign) for sign in strip_control(text))


def as_json(comparison: Comparison) -> str:
    """Return the comparison as JSON, with full precision."""
    body = {
        "schema": SCHEMA,
        "a": comparison.a,
        "b": comparison.b,
        "suite": comparison.suite,
        "cells": comparison.cells,
        "left_out": comparison.scope,
        "only_a": comparison.alone_a,
        "only_b": comparison.alone_b,
        "environment": [{"what": what, "a": one, "b": other} for what, one, other in comparison.environment],
        "notes": comparison.notes,
        "results": [{**_record(line), "changed": line.pair.changed} for line in comparison.lines],
    }
    return json.dumps(body, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return one line per metric and pair, with full precision; unknown values are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_FIELDS)
    for line in comparison.lines:
        writer.writerow([strip_control(v) if isinstance(v, str) else v for v in _record(line).values()])
    return out.getvalue()


_ESTIMATE = ("low", "high", "se", "df", "p")
_FIELDS = (
    *("metric", "direction", "entry", "setting", "entry_a", "entry_b", "mean_a", "mean_b", "difference"),
    *(*_ESTIMATE, "p_holm", "mde", "verdict", "reason"),
)


def _record(line: ComparisonRow) -> dict[str, Any]:
    metric, pair, found = line.metric, line.pair, line.difference
    first = (metric.name, metric.direction, pair.name, pair.a.entry.setting, pair.a.id, pair.b.id, line.a, line.b)
    numbers = [getattr(found, name) if found else None for name in ("mean", *_ESTIMATE, "mde")]
    values = (*first, *numbers[:-1], line.p, numbers[-1], line.verdict, line.reason)
    return dict(zip(_FIELDS, values, strict=True))
