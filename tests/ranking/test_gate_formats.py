"""How the gate speaks: nothing from outside can form markup, XML or a workflow command."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from support.helpers import steerboard
from support.toyruns import F1, flat, selection, toy, write_run

from harness.ranking.gate.report import (
    GateReport,
    GateRow,
    as_annotations,
    as_json,
    as_junit,
    as_markdown,
    print_report,
)
from harness.ranking.stats.estimates import Estimate

HOSTILE = [
    "a|b|c",
    "עברית",
    "አማርኛ",
    "\u202etxt.exe",
    "--> <!-- </failure>",
    "]]>&amp;<b>",
    "x\n::error::boo",
    "x\r\n\n# title",
    "[a](javascript:b) ![c](d)",
    "@everyone #12",
    "$x$ `y` *z* ~w~",
    "100%0Abc",
    "nul\x00bell\x07",
    "\ufffe\uffff",
    "\ud800",
]
WORSE = GateRow(
    "m", F1, "worse", "", 0.6, 0.4, Estimate(-0.2, 0.01, 44, -0.22, -0.18, 0.0, 0.03), 1e-9, 0.03, 0.04, 0.05
)


def report(name: str = "m", **changes) -> GateReport:
    lines = [
        replace(WORSE, entry=name),
        replace(WORSE, entry=name, verdict="inconclusive", reason=name),
        replace(WORSE, entry=name, verdict="same", min_detectable_loss=float("inf")),
        replace(WORSE, entry=name, verdict="same", reason="identical"),
        replace(WORSE, entry=name, verdict="better"),
    ]
    more = {"lines": lines, "flags": [(name, name)], "missing_entries": [name], "new_entries": [name], "notes": [name]}
    return GateReport(name, name, name, **{**more, **changes})


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_forms_no_markup_from_names(name):
    text = as_markdown(report(name))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}
    assert not re.search(r"^#(?!##)|<b>|<!--|\]\((?<!\\\]\()|(?<!&#8203;)@e|\u202e", text, re.MULTILINE)
    assert text.splitlines()[0] == "### ❌ gate: worse"
    assert "::error" not in [line[:7] for line in text.splitlines()]


@pytest.mark.parametrize("name", HOSTILE)
def test_junit_is_xml_with_the_name_in_it(name):
    text = as_junit(report(name)).encode("utf-8", "strict")
    root = ET.fromstring(text)
    [suite] = root
    kinds = [child.tag for case in suite for child in case]
    assert kinds == ["failure", "error", "system-out", "system-out", "system-out", "failure", "error"]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("7", "2", "2")
    shown = {case.get("classname") for case in suite}
    assert len(shown) == 1
    if name in {"עברית", "አማርኛ", "a|b|c", "]]>&amp;<b>", "--> <!-- </failure>"}:
        assert shown == {name}


@pytest.mark.parametrize("name", HOSTILE)
def test_annotations_are_one_command_a_line_and_no_name_starts_another(name):
    lines = as_annotations(report(name)).split("\n")
    assert lines.pop() == ""
    kinds = [line.split(" ")[0] for line in lines]
    assert kinds == ["::error", "::error", "::warning", "::warning", "::notice"]
    for line in lines:
        assert re.fullmatch(r"::\w+ title=gate(%3A (worse|inconclusive))?::.+", line)
        assert not re.search(r"%(?!25|0A|0D|3A)", line)


def test_percent_and_line_ends_are_escaped_as_github_wants():
    [line] = as_annotations(GateReport("r", "b", "s", reason="50 % :: of, it")).splitlines()[:1]
    assert line == "::warning title=gate%3A inconclusive::50 %25 :: of, it"


def test_annotations_are_few():
    lines = as_annotations(report(lines=[WORSE] * 50, flags=[], missing_entries=[])).splitlines()
    assert len(lines) == 11
    assert lines[9].endswith("and 41 more, see the table")


@pytest.mark.parametrize("name", HOSTILE)
def test_json_and_table_take_every_name(name):
    shown = json.loads(as_json(report(name)).encode())["results"][0]["entry"]
    assert shown == name.replace("\ud800", "?")
    console = Console(width=160, record=True, file=io.StringIO())
    print_report(console, report(name))
    assert "gate: worse" in console.export_text()


def test_json_has_no_infinity():
    assert json.loads(as_json(report()))["results"][2]["min_detectable_loss"] is None


def test_a_comment_stays_below_what_github_takes():
    text = as_markdown(report(lines=[replace(WORSE, entry="e" * 300)] * 2000))
    assert len(text) < 65_536
    assert re.search(r"\| and \d+ more ", text)


def test_what_cannot_be_compared_is_said_in_every_format(tmp_path):
    chosen = selection(["am"])
    entry = toy("m")
    entry.scores[F1] = flat(0.5, chosen)
    old = write_run(tmp_path / "old", [entry], chosen).path
    new = write_run(tmp_path / "new", [entry], chosen, suite_hash="0").path
    for kind in ("table", "md", "junit", "json", "github"):
        done = steerboard("gate", new, "--against", old, "--format", kind)
        assert (done.code, done.err) == (2, "")
        assert "the runs are of different suites" in " ".join(done.out.split())


@pytest.mark.parametrize("kind", ["table", "md", "junit", "json", "github"])
def test_output_goes_to_a_file_and_the_table_is_printed(tmp_path, kind):
    chosen = selection(["am"])
    entry = toy("m")
    entry.scores[F1] = flat(0.5, chosen)
    old = write_run(tmp_path / "old", [entry], chosen).path
    out = tmp_path / "out"
    done = steerboard("gate", old, "--against", old, "--format", kind, "--output", out)
    assert (done.code, done.out.splitlines()[-1]) == (0, "gate: same: 1 same")
    assert "same" in out.read_text(encoding="utf-8")
    refused = steerboard("gate", old, "--against", old, "--format", "xml")
    assert "unknown format 'xml'" in refused.one_line()
