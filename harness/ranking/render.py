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

from harness.core.records import SCHEMA
from harness.core.terminal import TerminalColumn, print_table
from harness.ranking.compare import Comparison, ComparisonRow
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of, format_number, format_signed, p_value, strip_control
from harness.scoring.metrics import Metric

_HEADS = ("A", "B", "B − A", "95 % interval", "p (Holm)", "verdict")
_TABLE = (
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
_COLUMNS = (
    *("metric", "direction", "entry", "setting", "entry_a", "entry_b"),
    *("mean_a", "mean_b", "difference", "low", "high", "se", "df", "p", "p_holm", "mde"),
    *("verdict", "reason"),
)


# One line in words


def _numbers(line: ComparisonRow) -> tuple[str, ...]:
    places, found = digits_of(line.metric.name), line.difference or Estimate(0.0)
    interval = "–"
    if found.low is not None and found.high is not None:
        interval = f"{format_signed(found.low, places)} to {format_signed(found.high, places)}"
    return (
        format_number(line.a, places),
        format_number(line.b, places),
        format_signed(line.difference.mean if line.difference else None, places),
        interval,
        p_value(line.p),
        _words(line),
    )


def _words(line: ComparisonRow) -> str:
    if line.reason:
        return f"{line.verdict}: {strip_control(line.reason)}"
    if line.verdict == "no clear difference" and line.difference and line.difference.mde is not None:
        return f"{line.verdict} (MDE: {format_number(line.difference.mde, digits_of(line.metric.name))})"
    return line.verdict


def _title(metric: Metric) -> str:
    better = {"up": "higher is better", "down": "lower is better", "none": "neither way is better"}
    return f"{strip_control(metric.title)} ({better[metric.direction]})"


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


def _differing(comparison: Comparison) -> list[Metric]:
    """Return the metrics that are not identical in every entry: only these need a table."""
    names = {line.metric.name for line in comparison.lines if line.verdict != "identical"}
    return [metric for metric in comparison.metrics if metric.name in names]


def _tally(comparison: Comparison, metric: Metric) -> str:
    counts = Counter(line.verdict for line in comparison.lines if line.metric == metric)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.items())


_EXPLAINED = (
    "B − A is paired by task, language and seed. A verdict needs p of at most 0.05, by Holm's method over "
    "the entries of a metric; MDE, the minimum detectable effect, is the difference that would be found in 80 of 100 "
    "comparisons."
)


# Formats


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a table per metric, what else differs, and in a sentence what that means for B."""
    console.print(Text(f"A: {strip_control(comparison.a)}\nB: {strip_control(comparison.b)}"))
    console.print(Text(f"{strip_control(comparison.suite)}, {comparison.cells} cells per entry in common"))
    for metric in _differing(comparison):
        rows: list[list[str | Text]] = []
        for line in comparison.lines:
            if line.metric == metric:
                *numbers, words = _numbers(line)
                verdict = Text(words, style=_STYLES.get(line.verdict, ""))
                rows.append([strip_control(line.pair.name), *numbers, verdict])
        print_table(console, _TABLE, rows, f"{_title(metric)}: {_tally(comparison, metric)}")
    for remark in _remarks(comparison):
        console.print(Text(f"- {strip_control(remark)}"))
    console.print(Text(_EXPLAINED, style="dim"))
    console.print(Text(strip_control(conclusion(comparison))))


def conclusion(comparison: Comparison) -> str:
    """Return in plain words whether B is better or worse than A, by the first metric compared."""
    first = comparison.metrics[0]
    lines = [line for line in comparison.lines if line.metric == first]
    found = {
        verdict: [line for line in lines if line.verdict == verdict]
        for verdict in ("better", "worse", "higher", "lower")
    }
    parts = []
    for verdict, named in found.items():
        if named:
            most = max(named, key=lambda line: abs(line.difference.mean) if line.difference else 0.0)
            *_, change, interval, _, _ = _numbers(most)
            more = f" and in {len(named) - 1} more" if len(named) > 1 else ""
            parts.append(f"{verdict} in {most.pair.name} by {change} ({interval}, significant){more}")
    if parts:
        return f"By {first.title}, B is {'; '.join(parts)}; {len(lines)} entries were compared."
    if all(line.verdict == "identical" for line in lines):
        return f"By {first.title}, A and B are identical in {_counted(lines)}."
    if all(line.verdict == "inconclusive" for line in lines):
        return f"Nothing can be said yet: {lines[0].reason or 'no entry can be compared'}."
    return f"By {first.title}, no significant difference was found in {_counted(lines)}."


def _counted(lines: list[ComparisonRow]) -> str:
    return "the entry that was compared" if len(lines) == 1 else f"all {len(lines)} entries"


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as GitHub's Markdown; text from outside can form no markup."""
    lines = [
        f"### {escaped(comparison.suite)}: B against A",
        "",
        f"A: {escaped(comparison.a)}, B: {escaped(comparison.b)}; {comparison.cells} cells per entry in common.",
    ]
    for metric in _differing(comparison):
        lines += ["", f"**{escaped(_title(metric))}**: {_tally(comparison, metric)}", ""]
        lines += [row_of(("entry", *_HEADS)), row_of(("---", *["---:"] * 5, "---"))]
        for line in comparison.lines:
            if line.metric == metric:
                *numbers, words = _numbers(line)
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
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in comparison.lines:
        writer.writerow({key: strip_control(v) if isinstance(v, str) else v for key, v in _record(line).items()})
    return out.getvalue()


def _record(line: ComparisonRow) -> dict[str, Any]:
    found = line.difference
    return {
        "metric": line.metric.name,
        "direction": line.metric.direction,
        "entry": line.pair.name,
        "setting": line.pair.a.entry.setting,
        "entry_a": line.pair.a.id,
        "entry_b": line.pair.b.id,
        "mean_a": line.a,
        "mean_b": line.b,
        "difference": found.mean if found else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "se": found.se if found else None,
        "df": found.df if found else None,
        "p": found.p if found else None,
        "p_holm": line.p,
        "mde": found.mde if found else None,
        "verdict": line.verdict,
        "reason": line.reason,
    }
