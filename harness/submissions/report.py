"""What a check found, and all submissions at a glance: for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.core.errors import InvalidFileError
from harness.core.records import CellKey
from harness.submissions.changes import regressions
from harness.submissions.files import InvalidSubmissionError
from harness.submissions.lockfile import LockFile
from harness.submissions.submission import Submission, find_all

Level = Literal["problem", "flag", "note"]
FORMATS = ("table", "json", "md", "junit")
LIST_FORMATS = ("table", "json", "md")
_MAX_SHOWN = 50
_LIST_COLUMNS = {"name": 0, "version": 4, "type": 2, "method": 0, "suite": 3, "models": 1, "cells": 0, "badge": 0}
"""Column -> when it is left out of a narrow table, from 1; 0 for never."""


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
        return " ".join(f"{self.file}: {self.what.rstrip('.')}. {self.todo}".split())


@dataclass(frozen=True)
class Compared:
    """A metric over the cells of a model, setting and task: the mean as submitted and as rescored.

    ``gap``: the largest difference in one cell; ``outside``: in how many of the cells it is beyond the tolerance.
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
    """All findings on a submission, and submitted against rescored values where its texts were rescored."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)
    tolerance: str = ""

    def add(self, level: Level, file: str, what: str, todo: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(level, file, what, todo))

    def refuse(self, *errors: InvalidFileError) -> None:
        """Add what readers and checks refused, as problems."""
        for error in errors:
            invalid = error if isinstance(error, InvalidSubmissionError) else InvalidSubmissionError.from_reader(error)
            self.add("problem", invalid.name, invalid.problem, invalid.hint)

    @property
    def problems(self) -> list[Finding]:
        """What fails the check."""
        return [finding for finding in self.findings if finding.level == "problem"]

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        problems, flags = (sum(f.level == level for f in self.findings) for level in ("problem", "flag"))
        if problems:
            return f"{problems} problem{'s' * (problems > 1)}"
        return f"fine, {flags} flag{'s' * (flags > 1)}" if flags else "fine"


def cell_title(key: CellKey) -> str:
    """Return a cell in words."""
    return f"{key.task}, {key.language}, {key.setting}, seed {key.seed}"


def render(report: SubmissionReport, form: str) -> str:
    """Return a report as ``table`` (for people), ``json``, ``md`` or ``junit``."""
    return {"table": _table, "json": _json, "md": _markdown, "junit": _junit}[form](report)


def _table(report: SubmissionReport) -> str:
    lines = [f"submission {report.name}: {report.verdict}"]
    lines += [f"  {key:<10} {value}" for key, value in report.facts.items()]
    lines += [f"  {finding.level:<7}  {finding.line}" for finding in _first(report)]
    if report.compared:
        columns = {"claimed": 0, "measured": 0, "largest gap": 0, "cells within": 0, "metric": 0, "where": 0}
        rows = [[*_numbers(one), one.metric, one.place] for one in report.compared]
        lines += ["", *_terminal_table(columns, rows, ("metric", "where")), f"  {report.tolerance}"]
    lines += ["Fix every problem, then check again." if report.problems else "Nothing to fix."]
    return "\n".join(lines) + "\n"


def _numbers(one: Compared) -> list[str]:
    values = ["–" if value is None else f"{value:.4f}" for value in (one.claimed, one.measured)]
    return [*values, f"{one.gap:.2g}", f"{one.cells - one.outside}/{one.cells}"]


def _first(report: SubmissionReport) -> list[Finding]:
    """Return findings, problems first, and at the end how many were left out."""
    order = {"problem": 0, "flag": 1, "note": 2}
    found = sorted(report.findings, key=lambda finding: order[finding.level])
    more = len(found) - _MAX_SHOWN
    left_out = [Finding("note", report.name, f"{more} more findings", "--format json has all.")] if more > 0 else []
    return found[:_MAX_SHOWN] + left_out


def _json(report: SubmissionReport) -> str:
    body = {
        "schema": 1,
        "submission": report.name,
        "verdict": report.verdict,
        "problems": len(report.problems),
        "facts": report.facts,
        "findings": [vars(finding) for finding in report.findings],
        "compared": [vars(one) for one in report.compared],
        "tolerance": report.tolerance,
    }
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


def _markdown(report: SubmissionReport) -> str:
    lines = [f"### Submission {_escape(report.name)}: {report.verdict}", ""]
    lines += [f"- **{key}**: {_escape(value)}" for key, value in report.facts.items()]
    if report.findings:
        rows = [[f.level, f.file, f.what, f.todo] for f in _first(report)]
        lines += ["", *_markdown_table(("", "file", "what", "what to do"), rows)]
    if report.compared:
        header = ("metric", "where", "claimed", "measured", "largest gap", "cells within")
        rows = [[one.metric, one.place, *_numbers(one)] for one in report.compared]
        lines += ["", *_markdown_table(header, rows), "", report.tolerance]
    return "\n".join(lines) + "\n"


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([_escape(text) for text in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _escape(text: str) -> str:
    """Return foreign words for Markdown: no markup, no mention, no line break."""
    return "".join(f"&#{ord(c)};" if c in "&\\`|*_[]<>@#~" else c for c in " ".join(text.split()))


def _junit(report: SubmissionReport) -> str:
    from xml.etree.ElementTree import Element, SubElement, tostring

    def printable(text: str) -> str:  # XML has no control characters
        return "".join(c if c.isprintable() else " " for c in text)

    cases = report.findings or [Finding("note", report.name, "no findings")]
    title = printable(f"submission {report.name}")
    suite = Element("testsuite", name=title, tests=str(len(cases)), failures=str(len(report.problems)))
    for finding in cases:
        name = printable(finding.line[:200])
        case = SubElement(suite, "testcase", classname=printable(report.name), name=name)
        if finding.level == "problem":
            SubElement(case, "failure", message=printable(finding.line))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def _terminal_table(columns: dict[str, int], rows: Sequence[Sequence[str]], words: Sequence[str]) -> list[str]:
    from harness.core.terminal import TerminalColumn, output, print_table

    console = output()
    with console.capture() as shown:
        heads = [TerminalColumn(name, words=name in words, drop=drop) for name, drop in columns.items()]
        print_table(console, heads, [list(row) for row in rows])
    return [line.rstrip() for line in shown.get().splitlines()]


def list_report(root: Path, form: str, lock: LockFile) -> tuple[str, bool]:
    """Return the submissions of a directory as ``table``, ``md`` or ``json``, and whether nothing is wrong.

    Wrong is what cannot be read, what is not a submission, and what the lockfile has and is lost or changed under
    the same version, if the lockfile has any of these.
    """
    submissions, refused = find_all(root, lock)
    rows = [_row(submission) for submission in submissions]
    problems = [str(error) for error in refused]
    found = {submission.card.name: submission for submission in submissions}
    if {*found} & {*lock.body.submissions}:
        unreadable = {Path(error.name).parts[len(root.parts)] for error in refused}
        lost = regressions(lock.body, found)
        problems += [f"{root}/{name}: {reason}." for name, reason in lost if name not in unreadable]
    if form == "json":
        return json.dumps({"schema": 1, "submissions": rows, "problems": problems}, indent=1) + "\n", not problems
    table = [[str(row[column]) for column in _LIST_COLUMNS] for row in rows]
    if form == "md":
        lines = _markdown_table([*_LIST_COLUMNS], table)
    else:
        lines = _terminal_table(_LIST_COLUMNS, table, [*_LIST_COLUMNS])
    return "\n".join([*lines, *(f"problem: {line}" for line in problems)]) + "\n", not problems


def _row(submission: Submission) -> dict[str, Any]:
    card, (cells, expected) = submission.card, submission.cells
    return {
        "name": card.name,
        "version": card.version,
        "type": card.type,
        "method": card.method_title,
        "suite": card.suite.name,
        "models": ", ".join(model.name for model in card.models) or "–",
        "cells": f"{cells}/{expected}",
        "badge": submission.badge,
    }
