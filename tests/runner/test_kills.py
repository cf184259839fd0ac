"""Commands that are killed at any moment: in the end every result file is that of a run that nobody killed."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.helpers import deep_llm, small_suite
from support.killing import Commands, Storm, warm_commands

pytestmark = pytest.mark.slow

PLUGIN = """
import os, time
from pathlib import Path
from steerboard import SteeringMethod, register

@register("counted")
class Counted(SteeringMethod):
    '''Writes down which process works on which cell.'''

    def prompt(self, ctx):
        with Path(os.environ["COUNTS"]).open("a") as file:
            file.write(f"{os.getpid()} {ctx.task.name}/{ctx.task.language}/{ctx.setting}/{ctx.seed}/{ctx.label}\\n")
        time.sleep(0.05)
        return super().prompt(ctx)
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Iterator[Commands]:
    folder = tmp_path_factory.mktemp("warm")
    changes = {"COUNTS": str(folder / "counts"), "STEERBOARD_CACHE": str(folder / "cache")}
    with warm_commands(folder / "log", **changes) as warm:
        yield warm


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    return small_suite(folder, deep_llm(folder / "deep"))


def words(suite: Path, methods: str, *more: object) -> list[object]:
    """Return the words of ``steerboard run`` without --run."""
    return ["--suite", suite, "--languages", "am,he", "--limit", 2, "--methods", methods, *more]


def test_ten_kills_leave_the_files_of_a_run_that_nobody_killed(commands, suite, tmp_path):
    narrow = words(suite, "human,language", "--tasks", "sentiment", "--seeds", 1)
    storm = Storm(commands, narrow, tmp_path / "storm", tmp_path / "alone", random.Random(17))
    storm.measure()
    storm.blow(run=2, work=3, score=1, push=1, pull=1, board=1)
    assert storm.kills.total() >= 5, storm.kills  # the others came after the end of what they were meant for


@pytest.mark.nightly
def test_two_hundred_kills_leave_the_files_of_a_run_that_nobody_killed(commands, suite, tmp_path):
    storm = Storm(
        commands,
        words(suite, "human,zero-shot,language,clas", "--seeds", 1),
        tmp_path / "storm",
        tmp_path / "alone",
        random.Random(200),
    )
    storm.measure()
    while storm.kills.total() < 200:
        storm.blow(run=8, work=12, score=3, push=2, pull=2, board=2)
        shutil.rmtree(commands.log.with_name("cache"))  # so that fits are killed while they read, too
    assert storm.kills.keys() == {"run", "work", "score", "push", "pull", "board"}


def test_of_eight_workers_one_computes_each_cell(commands, suite, tmp_path):
    """One is killed with cells in its hands, one is told to stop, one comes later."""
    (tmp_path / "counted.py").write_text(PLUGIN, encoding="utf-8")
    counted = words(suite, "human,counted", "--plugin", tmp_path / "counted.py", "--tasks", "sentiment")
    counted += ["--seeds", "1,2"]
    storm = Storm(commands, counted, tmp_path / "storm", tmp_path / "alone", random.Random(8))
    assert commands.wait(commands.start("run", *counted, "--run", tmp_path / "alone/run")) == 0, commands.said()
    counts, folder = commands.log.with_name("counts"), tmp_path / "run"
    storm.begin(folder)
    counts.write_text("", encoding="utf-8")
    workers = {commands.start("work", folder) for _ in range(8)}
    killed = hit = stopped = 0
    while not (killed and stopped):
        for pid in [pid for pid in workers - {killed} if claims(folder, pid)]:
            if not killed:
                killed, hit = pid, commands.end(pid)
            elif not stopped:
                stopped, left = pid, commands.end(pid, signal.SIGTERM)
        time.sleep(0.01)
    assert hit == -signal.SIGKILL
    assert left == 143
    assert claims(folder, stopped) == []
    workers = {*workers, commands.start("work", folder)} - {killed, stopped}
    assert [commands.wait(pid) for pid in workers] == [0] * 7, commands.said()
    by_cell = defaultdict(set)
    for line in counts.read_text(encoding="utf-8").splitlines():
        pid, cell = line.split()
        by_cell[cell].add(int(pid))
    assert len(by_cell) == 2 * 2 * 2 * 2  # labels, languages, settings, seeds
    twice = {cell: pids for cell, pids in by_cell.items() if len(pids) > 1}
    assert all(len(pids - {killed, stopped}) == 1 for pids in twice.values()), twice  # by the heir of one who left
    assert commands.wait(commands.start("run", *counted, "--run", folder)) == 0, commands.said()
    storm.check(folder)


def test_sigterm_ends_every_command_in_one_line(commands, suite, tmp_path):
    """Wherever it is: a moment later in each, so that the moments are of reading, work and writing."""
    run, copy, url = tmp_path / "run", tmp_path / "copy", (tmp_path / "storage").as_uri()
    start = words(suite, "human,zero-shot,language", "--tasks", "sentiment", "--seeds", 1)
    tune = ["tune", *words(suite, "language", "--tasks", "sentiment"), "--run", tmp_path / "tuned"]
    commands.log.write_text("", encoding="utf-8")
    for part, command in enumerate(
        [
            ["run", *start, "--run", run],
            *(["work", run], ["score", run], ["push", run, url], ["pull", url, copy]),
            ["board", "build", run, "--out", tmp_path / "site"],
            tune,
        ]
    ):
        before = commands.log.stat().st_size
        pid = commands.start(*command)
        time.sleep(0.1 + 0.03 * part)
        code = commands.end(pid, signal.SIGTERM)
        said = commands.log.read_bytes()[before:].decode("utf-8", "replace")
        assert "Traceback" not in said
        if code == 143:
            assert said.splitlines()[-1].startswith("steerboard: stopped by SIGTERM; finished cells are kept")
        else:  # it was done, or had not begun
            assert code == 0 or (code, said) == (-signal.SIGTERM, ""), (command, code, said)
        if code and command[0] in {"run", "push", "pull"}:  # what the next ones need
            assert commands.wait(commands.start(*command)) == 0, commands.said()


def claims(folder: Path, pid: int) -> list[str]:
    """Return the cells that a worker has claimed."""
    found = []
    for path in (folder / "claims").glob("*.[0-9]"):
        try:
            found += [path.stem] if f"-{pid}-" in path.read_text() else []
        except OSError:  # given back
            continue
    return found
