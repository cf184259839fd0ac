"""The gate's report: rows, the verdict that follows from them, and its formats for people and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.text import Text

from harness.core.terminal import TerminalColumn, print_table, strip_control
from harness.ranking.render import escaped, row_of
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of, format_interval, format_number, format_signed, p_value
from harness.scoring.metrics import Metric

SCHEMA = 2
"""Version of the JSON report; 1 had other words: cannot tell, findable, absent, fresh."""

GateVerdict = Literal["worse", "inconclusive", "better", "same"]

EXIT: dict[GateVerdict, int] = {"worse": 1, "inconclusive": 2, "better": 0, "same": 0}
"""Exit code of every verdict, the worst first."""


@dataclass(frozen=True)
class GateRow:
    """One metric of one entry. ``difference``: the run minus the baseline.

    ``p``: one-sided, towards the side where the difference lies, adjusted so that 0.05 is the level of every row;
    ``bound``: what a difference must exceed; ``min_detectable_loss``: found in 80 of 100 such runs; ``tolerance``: the
    largest loss that may go undetected; ``how``: which seeds were compared with which. ``decides``: whether an
    inconclusive row makes the whole report inconclusive. ``chances``: seeds of the run, and the power with them to
    detect a loss of the size of the tolerance.
    """

    entry: str
    metric: Metric
    verdict: GateVerdict
    reason: str = ""
    base: float | None = None
    new: float | None = None
    difference: Estimate | None = None
    p: float | None = None
    bound: float | None = None
    min_detectable_loss: float | None = None
    tolerance: float | None = None
    how: str = ""
    decides: bool = True
    chances: tuple[tuple[int, float], ...] = ()

    @property
    def said(self) -> str:
        """The verdict, and whether it does not decide."""
        return self.verdict if self.decides or self.verdict != "inconclusive" else f"{self.verdict} (does not decide)"

    @property
    def words(self) -> str:
        """The reason, or the change with its interval and bound."""
        digits = digits_of(self.metric.name)
        change = f"{format_number(self.base, digits)} → {format_number(self.new, digits)}"
        interval, limit = format_interval(self.difference, digits), format_signed(self.bound, digits)
        return self.reason or f"{change} ({interval}, bound {limit})"


@dataclass(frozen=True)
class GateReport:
    """The comparison of a run with a baseline. ``reason``: why nothing could be compared at all.

    ``flags``: entry and words of quality flags that the baseline does not have. ``missing_entries``: of the baseline,
    not in the run; ``new_entries``: of the run, without a baseline, not judged.
    """

    run: str
    against: str
    suite: str
    lines: list[GateRow] = field(default_factory=list)
    flags: list[tuple[str, str]] = field(default_factory=list)
    missing_entries: list[str] = field(default_factory=list)
    new_entries: list[str] = field(default_factory=list)
    environment: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def verdict(self) -> GateVerdict:
        """Worse if any row is, else inconclusive if one that decides is, else better if any is."""
        found = {row.verdict for row in self.lines}
        if self.flags or "worse" in found:
            return "worse"
        unclear = any(row.verdict == "inconclusive" and row.decides for row in self.lines)
        if self.reason or self.missing_entries or unclear or not found - {"inconclusive"}:
            return "inconclusive"
        return "better" if "better" in found else "same"

    @property
    def exit(self) -> int:
        """0 for same or better, 1 for worse, 2 for inconclusive."""
        return EXIT[self.verdict]

    @property
    def counts(self) -> str:
        """How many rows have which verdict, in words."""
        counts = Counter(row.said for row in self.lines)
        return ", ".join(f"{counts[words]} {words}" for words in sorted(counts, key=_rank))

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        why = self.reason or self.counts
        return f"{self.verdict}: {why}" if why else self.verdict

    @property
    def shown(self) -> list[GateRow]:
        """The rows that are not identical, the worst first."""
        return sorted((row for row in self.lines if row.reason != "identical"), key=lambda row: _rank(row.said))


def _rank(said: str) -> tuple[int, bool]:
    return next(i for i, verdict in enumerate(EXIT) if said.startswith(verdict)), said.endswith(")")


# For people

_HEADS = ("entry", "metric", "baseline", "run", "difference [95 %]", "p", "bound", "MDE", "verdict")
_WORDS = {"entry", "metric", "verdict"}
_DROPPED = {"p": 1, "bound": 2, "MDE": 3, "baseline": 4, "run": 4}  # left out where the terminal is narrow
_STYLES = {"better": "green", "worse": "bold red", "inconclusive": "yellow"}
_MARKS: dict[GateVerdict, str] = {"worse": "❌", "inconclusive": "❓", "better": "✅", "same": "✅"}
_MAX_COMMENT = 60_000  # characters; GitHub takes 65,536 in a comment
_EXPLAINED = (
    "worse or better: p, one-sided and corrected for the number of rows by Holm, is at most 0.05, and the "
    "difference exceeds the bound, which 19 of 20 pairs of equal runs stay below. MDE: the minimum detectable effect, "
    "the smallest loss that 80 of 100 such runs would detect; where it is above the tolerance, the row is "
    "inconclusive. Losses of the headline metric are corrected separately and have 3/5 of the 0.05; losses of "
    "other metrics that could not have been detected do not decide."
)


def _cells(row: GateRow) -> tuple[str, ...]:
    """Return a row in words under ``_HEADS``; names are as they were given."""
    digits, least = digits_of(row.metric.name), row.min_detectable_loss
    return (
        row.entry,
        row.metric.title,
        format_number(row.base, digits),
        format_number(row.new, digits),
        format_interval(row.difference, digits),
        p_value(row.p),
        format_number(row.bound, digits),
        format_number(None if least == float("inf") else least, digits),
        f"{row.said}: {row.reason}" if row.reason else row.said,
    )


def _remarks(report: GateReport) -> Iterator[str]:
    """Yield, in words, everything that is not a row."""
    for name, words in report.flags:
        yield f"worse: new flag of {name}: {words}"
    for name in report.missing_entries:
        yield f"inconclusive: {name} of the baseline is missing from the run"
    if report.new_entries:
        yield f"without a baseline, not judged: {', '.join(report.new_entries)}"
    identical = len(report.lines) - len(report.shown)
    if identical:
        yield f"identical in every cell: {identical} of {len(report.lines)} rows"
    hows = dict.fromkeys(row.how for row in report.lines if row.how)
    if hows:
        yield f"seeds: {'; '.join(hows)}"
    least: dict[str, GateRow] = {}  # metric that decides -> the entry with the least power
    for row in report.lines:
        if row.chances and row.decides:
            least[row.metric.name] = min(row, least.get(row.metric.name, row), key=lambda each: each.chances[0][1])
    for row in least.values():
        (now, first), *more = row.chances
        with_more = ", ".join(f"with {seeds} in {_of_100(found)}" for seeds, found in more)
        loss = format_number(row.tolerance, digits_of(row.metric.name))
        yield (
            f"{row.metric.title}: with {now} seeds a loss of {loss} would be found in {_of_100(first)} of 100 runs, "
            f"{with_more} (of all entries, {row.entry} has the least power)"
        )
    yield from report.notes
    yield from (f"{what}: {one} → {other}" for what, one, other in report.environment)


def _of_100(power: float) -> int:
    return int(100 * power + 1e-9)


def print_report(console: Console, report: GateReport) -> None:
    """Print the verdict, the rows that are not identical, and remarks."""
    console.print(Text(f"run: {strip_control(report.run)}\nbaseline: {strip_control(report.against)}"))
    if report.shown:
        columns = [TerminalColumn(head, words=head in _WORDS, drop=_DROPPED.get(head, 0)) for head in _HEADS]
        rows: list[list[str | Text]] = []
        for row in report.shown:
            *first, verdict = map(strip_control, _cells(row))
            rows.append([*first, Text(verdict, style=_STYLES.get(row.verdict, ""))])
        print_table(console, columns, rows)
    for remark in _remarks(report):
        console.print(Text(f"- {strip_control(remark)}"))
    if report.shown:
        console.print(Text(_EXPLAINED, style="dim"))
    console.print(Text(f"gate: {strip_control(report.headline)}", style=_STYLES.get(report.verdict, "bold")))


def as_markdown(report: GateReport) -> str:
    """Return the report as GitHub's Markdown, short enough for a comment; names can form no markup."""
    head = [row_of(_HEADS), f"|---|---|{'---:|' * (len(_HEADS) - 3)}---|"]
    text = [
        f"### {_MARKS[report.verdict]} gate: {report.verdict}",
        "",
        f"{escaped(report.suite)}, {escaped(report.run)} against {escaped(report.against)}: "
        f"{escaped(report.reason or report.counts)}.",
        "",
        *(f"- {escaped(remark)}" for remark in _remarks(report)),
    ]
    loud, quiet = ([row for row in report.shown if (row.verdict == "same") == same] for same in (False, True))
    if loud:
        text += ["", *head, *_fitting(loud, _MAX_COMMENT // 2)]
    if quiet:
        rows = _fitting(quiet, _MAX_COMMENT // 3)
        text += ["", "<details><summary>same</summary>", "", *head, *rows, "", "</details>"]
    foot = ["", f"<sub>{_EXPLAINED}</sub>"] if report.shown else []
    return "\n".join([*text, *foot]) + "\n"


def _fitting(rows: list[GateRow], room: int) -> list[str]:
    """Return as many rows as fit, and a last one that says how many do not."""
    kept: list[str] = []
    for i, row in enumerate(rows):
        entry, metric, *numbers, verdict = _cells(row)
        kept.append(row_of((escaped(entry), escaped(metric), *numbers, escaped(verdict))))
        room -= len(kept[-1]) + 1
        if room < 0:
            return [*kept[:-1], f"| and {len(rows) - i} more {'| ' * (len(_HEADS) - 1)}|"]
    return kept


# For machines

_MAX_ANNOTATIONS = 10  # of a kind that GitHub shows for a step
_ESCAPED = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_TITLE = {**_ESCAPED, ":": "%3A", ",": "%2C"}


def as_json(report: GateReport) -> str:
    """Return the report as JSON, with full precision."""
    body = {
        "schema": SCHEMA,
        **{name: getattr(report, name) for name in ("verdict", "exit", "run", "against", "suite", "reason")},
        "flags": [{"entry": name, "words": words} for name, words in report.flags],
        "missing_entries": report.missing_entries,
        "new_entries": report.new_entries,
        "environment": [{"what": what, "baseline": a, "run": b} for what, a, b in report.environment],
        "notes": report.notes,
        "results": [_record(row) for row in report.lines],
    }
    text = json.dumps(body, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no UTF-8


def _record(row: GateRow) -> dict[str, Any]:
    found, least = row.difference, row.min_detectable_loss
    return {
        "entry": row.entry,
        "metric": row.metric.name,
        "direction": row.metric.direction,
        "verdict": row.verdict,
        "reason": row.reason,
        "baseline": row.base,
        "run": row.new,
        "difference": found.mean if found else None,
        **{name: getattr(found, name) if found else None for name in ("low", "high", "se", "df")},
        "p_holm": row.p,
        "bound": row.bound,
        "min_detectable_loss": None if least == float("inf") else least,
        "tolerance": row.tolerance,
        "decides": row.decides,
        "chances": [{"seeds": seeds, "found": share} for seeds, share in row.chances],
        "seeds": row.how,
    }


def as_junit(report: GateReport) -> str:
    """Return the report as JUnit XML: worse is a failure, inconclusive an error where it decides."""
    cases = [_case(row.entry, row.metric.name, row.verdict, row.words, row.decides) for row in report.lines]
    cases += [_case(name, "flag", "worse", words) for name, words in report.flags]
    cases += [_case(name, "presence", "inconclusive", "missing from the run") for name in report.missing_entries]
    cases += [_case("gate", "comparable", "inconclusive", report.reason)] if report.reason else []
    failures, errors = (sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error"))
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
    suites = ET.Element("testsuites", {"name": "steerboard gate", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": _xml(report.suite), "skipped": "0", **counts})
    suite.extend(cases)
    ET.indent(suites, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _case(entry: str, name: str, verdict: str, words: str, decides: bool = True) -> ET.Element:
    case = ET.Element("testcase", {"classname": _xml(entry), "name": _xml(name), "time": "0"})
    kind = {"worse": "failure", "inconclusive": "error" if decides else None}.get(verdict)
    if kind:
        ET.SubElement(case, kind, {"type": verdict, "message": _xml(words)})
    else:
        ET.SubElement(case, "system-out").text = _xml(f"{verdict}: {words}")
    return case


def _xml(text: str) -> str:
    """Return text from outside without the characters that XML 1.0 cannot hold; ElementTree escapes the rest."""
    return "".join(sign if sign not in "\ufffe\uffff" else "\ufffd" for sign in strip_control(text))


def as_annotations(report: GateReport) -> str:
    """Return GitHub's workflow commands: errors for losses, warnings for inconclusive rows, a notice for the run."""
    found = {"worse": [f"{name}: {words}" for name, words in report.flags], "inconclusive": []}
    for row in report.shown:
        if row.verdict == "worse" or (row.verdict == "inconclusive" and row.decides):
            found[row.verdict].append(f"{row.entry}, {row.metric.title}: {row.words}")
    found["inconclusive"] += [f"{name} is missing from the run" for name in report.missing_entries]
    found["inconclusive"] += [report.reason] if report.reason else []
    commands: list[str] = []
    for (verdict, words), kind in zip(found.items(), ("error", "warning"), strict=True):
        most = _MAX_ANNOTATIONS - 1
        more = [f"and {len(words) - most} more, see the table"] if len(words) > most else []
        commands += [_command(kind, f"gate: {verdict}", text) for text in [*words[:most], *more]]
    commands.append(_command("notice", "gate", report.headline))
    return "".join(f"{line}\n" for line in commands)


def _command(kind: str, title: str, text: str) -> str:
    """Return one workflow command; text from outside cannot start another."""
    return f"::{kind} title={_escape(title, _IN_TITLE)}::{_escape(strip_control(text), _ESCAPED)}"


def _escape(text: str, signs: dict[str, str]) -> str:
    return "".join(signs.get(sign, sign) for sign in text)
