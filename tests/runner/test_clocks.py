"""A clock that is wrong or was put back, coarse times, file systems without locks: a run goes on as it should."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from support.helpers import MINI, small_suite, steerboard

from harness.core.store import Run

PLUGIN = """
from steerboard import Reference, register

@register("failing")
class Failing(Reference):
    '''Fails.'''

    def texts(self, ctx):
        raise ValueError("no idea")
"""


@pytest.fixture
def words(tmp_path) -> list[object]:
    """The words of a run with two cells that fail, and two of human text."""
    (tmp_path / "failing.py").write_text(PLUGIN, encoding="utf-8")
    suite = small_suite(tmp_path, MINI / "pocketlm")
    chosen = ["--tasks", "sentiment", "--seeds", 1, "--limit", 2, "--methods", "human,failing"]
    return ["run", "--suite", suite, *chosen, "--plugin", tmp_path / "failing.py", "--run", tmp_path / "run"]


def attempts(run: Run) -> dict[str, list[int]]:
    """Return the attempts of cells by state."""
    found: dict[str, list[int]] = {}
    for status in filter(None, map(run.status, run.cell_ids())):
        found.setdefault(status.state, []).append(status.attempts)
    return found


@pytest.mark.parametrize("seconds", [86_400.0, 1.0])
def test_a_cell_that_failed_by_a_clock_in_the_future_is_tried_again(words, tmp_path, seconds):
    run = Run(tmp_path / "run")
    assert steerboard(*words).code == 1
    later = time.time() + seconds
    for path in run.path.glob("cells/*/status.json"):
        os.utime(path, (later, later))
    assert steerboard(*words).code == 1
    assert attempts(run) == {"ok": [1, 1], "method_error": [2, 2]}
    assert steerboard("work", run.path).code == 1  # which tries nothing that this start of the run has tried
    assert attempts(run) == {"ok": [1, 1], "method_error": [2, 2]}


def test_a_failure_by_a_clock_that_is_behind_is_of_this_start(words, tmp_path, monkeypatch):
    """As where the clock is put back after the manifest was written: workers would try the cell once each."""
    write = Run.write_manifest

    def ahead(self: Run, manifest: object) -> None:
        write(self, manifest)
        os.utime(self.manifest_path, (time.time() + 3600,) * 2)

    run = Run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_manifest", ahead)
        assert steerboard(*words).code == 1
    assert steerboard("work", run.path).code == 1
    assert attempts(run) == {"ok": [1, 1], "method_error": [1, 1]}


def test_a_run_needs_no_locks(words, tmp_path, monkeypatch):
    def flock(handle: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    outcome = steerboard(*words)
    assert outcome.code == 1
    assert outcome.err.count("has no locks (No locks available)") == 1
    assert attempts(Run(tmp_path / "run")) == {"ok": [1, 1], "method_error": [1, 1]}
    assert sorted(path.name for path in Path(tmp_path / "run").iterdir()) == [".lock", "cells", "logs", "manifest.json"]
