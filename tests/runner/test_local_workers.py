"""Workers of ``run --workers`` as processes: killed ones are started again, a few times; others are not."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from harness.runner.claims import Claims, claims_by_process
from harness.runner.local import Team
from harness.runner.score import score_claim

ORDERS = {"cells": ["a", "b"]}


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Return what starts two workers, each a shell that does as it is told, and waits until all have ended."""

    def run(script: str) -> Team:
        shell = tmp_path / "shell"
        shell.write_text(f"#!/bin/sh\necho started\n{script}\n")
        shell.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(shell))
            team = Team(tmp_path, 2, [], [], ORDERS)
            until = time.monotonic() + 60
            while team.look():
                assert time.monotonic() < until
                time.sleep(0.02)
        return team

    return run


def starts(folder: Path) -> list[int]:
    return [(folder / f"logs/worker-{i}.log").read_text().count("started") for i in (1, 2)]


def test_a_worker_that_is_killed_is_started_again_three_times(team, tmp_path, capsys):
    ended = team("kill -9 $$")
    assert starts(tmp_path) == [4, 4]
    warnings = capsys.readouterr().err.splitlines()
    assert sum(line.endswith("; started again") for line in warnings) == 6
    assert sum("was killed by signal 9" in line for line in warnings) == len(warnings) == 7
    assert sum(line.endswith("; the others go on") for line in warnings) == 1  # of the first that is given up
    assert ended.last is not None
    assert "was killed by signal 9" in ended.last.how()


@pytest.mark.parametrize("code", [0, 2, 143])
def test_a_worker_that_ends_by_itself_is_not_started_again(team, tmp_path, capsys, code):
    team(f"exit {code}")
    assert starts(tmp_path) == [1, 1]
    assert ("started again" in capsys.readouterr().err) is False


def test_a_worker_that_finishes_cells_may_be_killed_more_often(team, tmp_path):
    worker = team("exit 0").last
    assert worker is not None
    worker.kills = 2
    for claims, kills in (({"a"}, 2), ({"a", "b"}, 2), ({"b"}, 0)):
        worker.note(claims)
        assert worker.kills == kills
    worker.kills = 1
    worker.start()
    worker.note(set())  # what the dead one had is not finished
    assert worker.kills == 1
    worker.process.wait(30)


def test_claims_are_found_by_process(tmp_path):
    assert claims_by_process(tmp_path) == {}
    with Claims(tmp_path) as claims:
        for name in ("a", score_claim("b"), "steering-c"):
            assert claims.take(name)
        (tmp_path / "claims/torn.0").write_text("")
        assert claims_by_process(tmp_path) == {os.getpid(): {"a", "score-b", "steering-c"}}
