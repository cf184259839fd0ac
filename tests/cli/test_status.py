"""``steerboard status``: what a user sees of a run, whatever became of it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from support.helpers import killed_after, snapshot, steerboard
from support.references import assert_line, finished_references, run_references
from support.toyruns import F1, flat, plain, selection, toy, write_run

from harness.core.store import Run

HOSTILE = "ValueError: \x1b[2J\x1b]0;mine\x07אין זיכרון \u202eיומס\u202c ስህተት \x9b31m"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of two cells."""
    return finished_references(tmp_path_factory)


def shown(folder: Path, *options: str, monkeypatch: pytest.MonkeyPatch | None = None, width: int = 80) -> str:
    """Return what the command prints at this width, and check that it does not break the terminal."""
    if monkeypatch:
        monkeypatch.setenv("COLUMNS", str(width))
    outcome = steerboard("status", folder, *options)
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    assert all(sign.isprintable() or sign == "\n" for sign in outcome.out)
    if monkeypatch:
        assert all(len(line) <= width for line in outcome.out.splitlines() if not line.startswith("next: "))
    return outcome.out


def fields(text: str) -> dict[str, str]:
    """Return the lines of the beginning by name."""
    return dict(re.findall(r"^(\w+) +(\S.*?) *$", text, re.MULTILINE))


def test_a_finished_run_says_so_and_changes_nothing(finished, monkeypatch):
    before = snapshot(finished)
    text = shown(finished, monkeypatch=monkeypatch, width=200)
    assert snapshot(finished) == before
    lines = fields(text)
    assert lines["suite"].startswith("mini, no model; ")
    assert lines["state"] == "finished"
    assert (lines["generated"], lines["scored"]) == ("2 of 2 cells", "2 of 2 cells")
    assert re.search(r"^human +1/1 +1 +– +–$", text, re.MULTILINE)
    assert text.splitlines()[-1] == f"next: steerboard board build {finished} --out site"


def test_a_killed_run_shows_what_is_left_and_the_command_that_does_it(tmp_path, monkeypatch):
    folder = tmp_path / "my run"
    with killed_after(1):
        run_references(folder)
    text = shown(folder, monkeypatch=monkeypatch)
    lines = fields(text)
    assert lines["state"] == "not finished, and no process works on it"
    assert lines["generated"] == "1 of 2 cells, 1 not run"
    last = text.splitlines()[-1]
    assert last.startswith("next: steerboard run --run '")
    with Run(folder).lock():
        assert fields(shown(folder))["state"] == "running: writing texts; a process holds the lock"
    assert run_references(folder).code == 0
    assert fields(shown(folder))["state"] == "finished"


def test_the_words_of_a_method_reach_no_terminal_as_commands(tmp_path, monkeypatch):
    chosen = selection(["am"], seeds=[1])
    drop = [("አማርኛ", "sentiment", "am", 1)]
    entries = [toy("אמהרית"), toy("አማርኛ")]
    entries[0].scores[F1] = flat(0.5, chosen)
    commands = [["steerboard", "run", "\x1b[2J"]]
    run = write_run(tmp_path / "run", entries, chosen, drop, commands=commands)
    [cell] = [cell for cell in run.cell_ids() if run.status(cell).state == "method_error"]
    path = run.cell(cell) / "status.json"
    plain(path, {**json.loads(path.read_text(encoding="utf-8")), "reason": HOSTILE})
    text = shown(run.path, monkeypatch=monkeypatch)
    assert "אמהרית" in text
    assert re.search(r"^አማርኛ +0/1 +– +– +1$", text, re.MULTILINE)
    whole = " ".join(text.split())
    assert "failed 1 × method_error: ValueError: �[2J�]0;mine�אין זיכרון" in whole
    assert "ስህተት" in whole
    assert f"cells/{cell}" in whole.replace(" ", "")
    assert text.splitlines()[-1] == "next: fix what failed, then the command that made the run, once more"
    printed = shown(run.path, "--json")
    assert json.loads(printed)["reasons"][0]["reason"] == HOSTILE
    assert "ስህተት" in printed


def test_a_damaged_status_is_named(tmp_path, monkeypatch):
    entry = toy("zero-shot")
    entry.scores[F1] = flat(0.5, selection())
    run = write_run(tmp_path / "run", [entry], selection())
    path = run.cell(run.cell_ids()[0]) / "status.json"
    path.write_bytes(path.read_bytes()[:-9])
    text = shown(run.path, monkeypatch=monkeypatch, width=300)
    assert fields(text)["generated"] == "5 of 6 cells, 1 not run"
    assert f"damaged\n  {path} is not valid JSON" in text
    assert text.splitlines()[-1].startswith("next: remove the damaged files, then ")


def test_texts_without_scores_are_scored_next(tmp_path):
    entry = toy("zero-shot")
    entry.scores[F1] = flat(0.5, selection())
    run = write_run(tmp_path / "run", [entry], selection())
    for path in run.path.glob("cells/*/scores.json"):
        path.unlink()
    text = shown(run.path)
    assert fields(text)["scored"] == "0 of 6 cells"
    assert text.splitlines()[-1] == f"next: steerboard score {run.path}"


def test_a_run_that_begins_has_no_cells_yet(tmp_path):
    run = Run(tmp_path / "run")
    with run.lock():
        assert fields(shown(run.path))["state"].startswith("starting: a process reads the text")
    assert fields(shown(run.path))["state"] == "not begun: it was stopped before its first cell"
    assert json.loads(shown(run.path, "--json"))["state"] == "empty"


def test_what_is_not_a_run_is_one_line(finished, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        assert_line(steerboard("status", folder), r"does not contain a run \(no manifest\.json\)")
    (tmp_path / "manifest.json").write_text("{")
    assert_line(steerboard("status", tmp_path, "--json"), r"manifest\.json is not valid JSON")
    assert_line(steerboard("status", finished, "--watch"), r"--watch needs a terminal")


def test_watching_ends_with_the_run(finished):
    from harness.cli.status import _watch
    from harness.runner.status_reader import StatusReader

    out = io.StringIO()
    _watch(StatusReader(finished), Console(file=out, force_terminal=True, width=80, height=50))
    assert "2 of 2 cells" in out.getvalue()
