"""What the gate says, for machines: JSON, JUnit XML, GitHub's workflow commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

from harness.ranking.gate.report import GateReport, GateRow
from harness.ranking.gate.report_text import describe_row, headline, notable_rows
from harness.ranking.summary import strip_control

_MOST = 10  # annotations of a kind that GitHub shows for a step
_ESCAPED = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_TITLE = {**_ESCAPED, ":": "%3A", ",": "%2C"}


def as_json(report: GateReport) -> str:
    """Return the report as JSON, with full precision."""
    body = {
        "schema": 1,
        "verdict": report.verdict,
        "exit": report.exit,
        "run": report.run,
        "against": report.against,
        "suite": report.suite,
        "reason": report.reason,
        "flags": [{"entry": name, "words": words} for name, words in report.flags],
        "absent": report.absent,
        "fresh": report.fresh,
        "environment": [{"what": what, "baseline": a, "run": b} for what, a, b in report.environment],
        "notes": report.notes,
        "results": [_record(line) for line in report.lines],
    }
    text = json.dumps(body, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no UTF-8


def _record(line: GateRow) -> dict[str, Any]:
    found, least = line.difference, line.findable
    return {
        "entry": line.entry,
        "metric": line.metric.name,
        "direction": line.metric.direction,
        "verdict": line.verdict,
        "reason": line.reason,
        "baseline": line.base,
        "run": line.new,
        "difference": found.mean if found else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "se": found.se if found else None,
        "df": found.df if found else None,
        "p_holm": line.p,
        "bound": line.bound,
        "findable": None if least == float("inf") else least,
        "tolerance": line.tolerance,
        "decides": line.decides,
        "chances": [{"seeds": seeds, "found": share} for seeds, share in line.chances],
        "seeds": line.how,
    }


def as_junit(report: GateReport) -> str:
    """Return the report as JUnit XML: worse is a failure, cannot tell an error where it decides."""
    cases = list(_cases(report))
    failures, errors = (sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error"))
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
    suites = ET.Element("testsuites", {"name": "steerboard gate", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": _xml(report.suite), "skipped": "0", **counts})
    suite.extend(cases)
    ET.indent(suites, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _cases(report: GateReport) -> Iterator[ET.Element]:
    for line in report.lines:
        yield _case(line.entry, line.metric.name, line.verdict, describe_row(line), line.decides)
    for name, words in report.flags:
        yield _case(name, "flag", "worse", words)
    for name in report.absent:
        yield _case(name, "presence", "cannot tell", "the run lacks the entry")
    if report.reason:
        yield _case("gate", "comparable", "cannot tell", report.reason)


def _case(entry: str, name: str, verdict: str, words: str, decides: bool = True) -> ET.Element:
    case = ET.Element("testcase", {"classname": _xml(entry), "name": _xml(name), "time": "0"})
    kind = {"worse": "failure", "cannot tell": "error" if decides else None}.get(verdict)
    if kind:
        ET.SubElement(case, kind, {"type": verdict, "message": _xml(words)})
    else:
        ET.SubElement(case, "system-out").text = _xml(f"{verdict}: {words}")
    return case


def _xml(text: str) -> str:
    """Return text from outside without what XML 1.0 cannot hold; ElementTree escapes the rest."""
    return "".join(sign if sign not in "\ufffe\uffff" else "\ufffd" for sign in strip_control(text))


def as_annotations(report: GateReport) -> str:
    """Return GitHub's workflow commands: errors for worse, warnings for cannot tell, a notice in all."""
    lines: list[str] = []
    found = list(notable_rows(report))
    for verdict, kind in (("worse", "error"), ("cannot tell", "warning")):
        words = [text for own, text in found if own == verdict]
        lines += [_command(kind, f"gate: {verdict}", text) for text in words[: _MOST - 1]]
        if len(words) >= _MOST:
            more = f"and {len(words) - _MOST + 1} more, see the table"
            lines.append(_command(kind, f"gate: {verdict}", more))
    lines.append(_command("notice", "gate", headline(report)))
    return "".join(f"{line}\n" for line in lines)


def _command(kind: str, title: str, text: str) -> str:
    """Return one workflow command; text from outside can start none of its own."""
    return f"::{kind} title={_escaped(title, _IN_TITLE)}::{_escaped(strip_control(text), _ESCAPED)}"


def _escaped(text: str, signs: dict[str, str]) -> str:
    return "".join(signs.get(sign, sign) for sign in text)
