"""What a check found: one line each, and the same for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.submissions.strict_io import InvalidSubmissionError

Level = Literal["problem", "flag", "note"]
_SHOWN = 50


@dataclass(frozen=True)
class Finding:
    """Something about a file. A ``problem`` fails the check, a ``flag`` is shown on the board."""

    level: Level
    file: str
    what: str
    todo: str = ""

    @property
    def line(self) -> str:
        """File, what is wrong, what to do."""
        words = f"{self.file}: {self.what.rstrip('.')}. {self.todo}"
        return " ".join(words.split())


@dataclass(frozen=True)
class Compared:
    """A metric over the cells of a model, setting and task: the means of the claim and of what was measured.

    ``gap``: the largest difference in one cell; ``outside``: in how many of the cells it is beyond the
    tolerance.
    """

    place: str
    metric: str
    claimed: float | None
    measured: float | None
    gap: float
    cells: int
    outside: int


@dataclass
class SubmissionReport:
    """All findings on a submission, and claimed against measured values where texts were scored anew."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)
    tolerance: str = ""

    def problem(self, file: str, what: str, todo: str) -> None:
        """Add what fails the check."""
        self.findings.append(Finding("problem", file, what, todo))

    def refused(self, error: InvalidSubmissionError) -> None:
        """Add what a reader refused."""
        self.problem(error.file, error.what, error.todo)

    def note(self, file: str, what: str, todo: str = "") -> None:
        """Add what is good to know."""
        self.findings.append(Finding("note", file, what, todo))

    @property
    def problems(self) -> list[Finding]:
        """What fails the check."""
        return [finding for finding in self.findings if finding.level == "problem"]

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        counts = {level: sum(f.level == level for f in self.findings) for level in ("problem", "flag")}
        if counts["problem"]:
            return f"{counts['problem']} problem{'s' * (counts['problem'] > 1)}"
        return f"fine, {counts['flag']} flag{'s' * (counts['flag'] > 1)}" if counts["flag"] else "fine"


def render(report: SubmissionReport, form: str) -> str:
    """Return a report as ``table`` (for people), ``json``, ``md`` or ``junit``."""
    return {"table": _table, "json": _json, "md": _markdown, "junit": _junit}[form](report)


FORMATS = ("table", "json", "md", "junit")


def _table(report: SubmissionReport) -> str:
    lines = [f"submission {report.name}: {report.verdict}"]
    lines += [f"  {key:<10} {value}" for key, value in report.facts.items()]
    lines += [f"  {finding.level:<7}  {finding.line}" for finding in _first(report)]
    if report.compared:
        lines += ["", *_compared(report), f"  {report.tolerance}"]
    mended = "Mend what is called a problem, then check again."
    lines += [mended if report.problems else "Nothing has to be mended."]
    return "\n".join(lines) + "\n"


def _compared(report: SubmissionReport) -> list[str]:
    from harness.core.terminal import TerminalColumn, output, print_table

    columns = [TerminalColumn(head) for head in ("claimed", "measured", "largest gap", "cells within")]
    columns += [TerminalColumn("metric", words=True), TerminalColumn("where", words=True)]
    rows = []
    for one in report.compared:
        cells = f"{one.cells - one.outside}/{one.cells}"
        numbers = [_number(one.claimed), _number(one.measured), f"{one.gap:.2g}", cells]
        rows.append([*numbers, one.metric, one.place])
    console = output()
    with console.capture() as shown:
        print_table(console, columns, rows)
    return [line.rstrip() for line in shown.get().splitlines()]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _first(report: SubmissionReport) -> Iterator[Finding]:
    """Yield findings, problems first, and at the end how many were left out."""
    order = {"problem": 0, "flag": 1, "note": 2}
    found = sorted(report.findings, key=lambda finding: order[finding.level])
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        yield Finding("note", report.name, f"{len(found) - _SHOWN} more findings", "--format json has all.")


def as_json(report: SubmissionReport) -> dict[str, Any]:
    """Return a report as plain values."""
    return {
        "schema": 1,
        "submission": report.name,
        "verdict": report.verdict,
        "problems": len(report.problems),
        "facts": report.facts,
        "findings": [vars(finding) for finding in report.findings],
        "compared": [vars(one) for one in report.compared],
        "tolerance": report.tolerance,
    }


def _json(report: SubmissionReport) -> str:
    return json.dumps(as_json(report), ensure_ascii=False, indent=1) + "\n"


def _markdown(report: SubmissionReport) -> str:
    lines = [f"### Submission {_cell(report.name)}: {report.verdict}", ""]
    lines += [f"- **{key}**: {_cell(value)}" for key, value in report.facts.items()]
    if report.findings:
        lines += ["", "| | file | what | what to do |", "|---|---|---|---|"]
        lines += [f"| {f.level} | {_cell(f.file)} | {_cell(f.what)} | {_cell(f.todo)} |" for f in _first(report)]
    if report.compared:
        lines += [
            "",
            "| metric | where | claimed | measured | largest gap | cells within |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {_cell(c.metric)} | {_cell(c.place)} | {_number(c.claimed)} | {_number(c.measured)} "
            f"| {c.gap:.2g} | {c.cells - c.outside}/{c.cells} |"
            for c in report.compared
        ]
        lines += ["", report.tolerance]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return foreign words for a Markdown table: no markup, no mention, no line break."""
    return "".join(f"&#{ord(c)};" if c in "&\\`|*_[]<>@#~" else c for c in " ".join(text.split()))


def _junit(report: SubmissionReport) -> str:
    from xml.etree.ElementTree import Element, SubElement, tostring

    cases = report.findings or [Finding("note", report.name, "no findings")]
    count = str(len(report.problems))
    suite = Element("testsuite", name=_xml(f"submission {report.name}"), tests=str(len(cases)), failures=count)
    for finding in cases:
        case = SubElement(suite, "testcase", classname=_xml(report.name), name=_xml(finding.line[:200]))
        if finding.level == "problem":
            SubElement(case, "failure", message=_xml(finding.line))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Return text without the signs that XML does not know."""
    return "".join(c if c.isprintable() else " " for c in text)
