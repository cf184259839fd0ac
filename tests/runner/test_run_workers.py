"""Workers on one run: any number, joining and dying at any time, write each cell once, as one process does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.helpers import (
    Outcome,
    command,
    contents,
    deep_llm,
    environment,
    finished_cells,
    killed_after,
    small_suite,
    steerboard,
    untimed_files,
)

from harness.core.records import CellStatus
from harness.core.store import Run
from harness.runner.claims import claims_by_process

slow = pytest.mark.slow

PLUGIN = """
import os, time
from pathlib import Path
from steerboard import Steering, SteeringMethod, register

@register("slow")
class Slow(SteeringMethod):
    '''Takes its time to fit and to prompt, and writes down its fits.'''

    def fit(self, ctx):
        with Path(os.environ["FITS"]).open("a") as file:
            file.write(f"{ctx.task.name}/{ctx.task.language} {os.getpid()}\\n")
        time.sleep(0.3)
        return Steering()

    def prompt(self, ctx):
        time.sleep(0.05)
        return super().prompt(ctx)

@register("failing")
class Failing(SteeringMethod):
    '''Fails.'''
    settings = ("zero-shot",)

    def prompt(self, ctx):
        raise ValueError("no idea")
"""
METHODS = "human,zero-shot,language,slow"


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """A suite of two languages with a model of random weights that writes four tokens a text."""
    folder = tmp_path_factory.mktemp("suite")
    return small_suite(folder, deep_llm(folder / "deep"))


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "slow.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def run_words(suite: Path, plugin: Path, folder: Path, methods: str = METHODS) -> list[object]:
    """Return the words of a ``run`` command."""
    chosen = ["--languages", "am,he", "--seeds", "1,2", "--limit", "2", "--methods", methods, "--plugin", plugin]
    return ["run", "--suite", suite, "--run", folder, *chosen]


@pytest.fixture
def words(suite, plugin, tmp_path, monkeypatch) -> Callable[..., list[object]]:
    """Return the words of a ``run`` command in a folder."""
    monkeypatch.setenv("FITS", str(tmp_path / "fits"))
    return partial(run_words, suite, plugin)


@pytest.fixture
def begun(words, tmp_path) -> Path:
    """A run that was killed after its first cell."""
    with killed_after(1):
        steerboard(*words(tmp_path / "run"))
    assert finished_cells(tmp_path / "run") == 1
    assert not (tmp_path / "fits").exists()
    return tmp_path / "run"


@pytest.fixture(scope="module")
def alone(suite, plugin, tmp_path_factory) -> Path:
    """The run of one process, to compare with."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FITS", str(folder / "fits"))
        outcome = steerboard(*run_words(suite, plugin, folder / "run"))
    assert outcome.code == 0, outcome.err
    return folder / "run"


class Worker:
    """A process of its own on a run, and what it printed when it has ended."""

    def __init__(self, *arguments: object, **changes: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command(*arguments), stdout=pipe, stderr=pipe, env=environment(**changes), text=True
        )

    def end(self) -> Outcome:
        out, err = self.process.communicate(timeout=120)
        return Outcome(self.process.returncode, out, err)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Start processes that end with the test, whatever comes."""
    workers: list[Worker] = []

    def begin(*arguments: object, **changes: str) -> Worker:
        workers.append(Worker(*arguments, **changes))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that processes do."""
    end = time.monotonic() + 90
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def statuses(folder: Path) -> list[CellStatus]:
    run = Run(folder)
    return [status for cell in run.cell_ids() if (status := run.status(cell))]


def texts(folder: Path) -> dict[str, bytes]:
    """Return the texts and fits of a run."""
    ends = ("generations.jsonl", ".safetensors")
    return {name: data for name, data in contents(folder).items() if name.endswith(ends)}


def at_cells(folder: Path) -> list[int]:
    """Return the ids of the processes that write cells."""
    found = claims_by_process(folder)
    return [process for process, names in found.items() if any(re.fullmatch("[0-9a-f]{16}", name) for name in names)]


def owned(folder: Path, worker: Worker) -> int:
    """Return how many cells a worker has claimed."""
    name = f"-{worker.process.pid}-"
    found = 0
    for path in (folder / "claims").glob("*.[0-9]"):
        try:
            found += name in path.read_text() and not path.name.startswith(("steering-", "reading-"))
        except OSError:  # given back
            continue
    return found


@slow
def test_two_workers_write_each_cell_once_and_fit_each_steering_once(begun, alone, start, tmp_path):
    workers = [start("work", begun, "--batch-size", 4) for _ in range(2)]
    ended = [worker.end() for worker in workers]
    assert [outcome.code for outcome in ended] == [0, 0], ended
    written, scored = zip(
        *(map(int, re.findall(r"\d+", outcome.out.splitlines()[0])) for outcome in ended), strict=True
    )
    assert sum(written) == len(statuses(begun)) - 1  # the first was there
    assert sum(scored) == len(statuses(begun))
    assert {status.attempts for status in statuses(begun)} == {1}
    assert untimed_files(begun) == untimed_files(alone)
    fits = Counter(line.split()[0] for line in (tmp_path / "fits").read_text().splitlines())
    assert fits == {f"{task}/{code}": 1 for task in ("sentiment", "topic") for code in ("am", "he")}
    assert not (begun / "claims").exists()
    assert "next: steerboard board build" in ended[0].out


@slow
def test_cells_of_a_worker_that_is_killed_or_stands_still_go_to_others(begun, alone, start):
    """On this machine a death is seen at once; whoever stands still is given up after the expiry."""
    soon = {"STEERBOARD_EXPIRY": "2"}
    killed, stopped = (start("work", begun, "--batch-size", 4, **soon) for _ in range(2))
    until(lambda: owned(begun, killed) > 0 and owned(begun, stopped) > 0)
    stopped.process.send_signal(signal.SIGSTOP)
    killed.process.kill()
    killed.process.wait()
    assert owned(begun, killed) > 0
    assert owned(begun, stopped) > 0
    heir = start("work", begun, **soon).end()
    assert heir.code == 0, heir.err
    assert texts(begun) == texts(alone)
    before = {path: path.stat().st_mtime_ns for path in begun.glob("cells/*/*")}
    stopped.process.send_signal(signal.SIGCONT)
    assert stopped.end().code == 0
    after = {path: path.stat().st_mtime_ns for path in begun.glob("cells/*/*")}
    assert before.keys() == after.keys()
    # What is there is left alone, but for a cell that it had begun to write when it stood still.
    assert len({path.parent for path in after if after[path] != before[path]}) <= 1
    assert texts(begun) == texts(alone)
    assert {status.attempts for status in statuses(begun)} == {1}
    assert not (begun / "claims").exists()


@slow
def test_a_run_with_workers_is_that_of_one_process_also_where_one_is_killed(words, alone, start, tmp_path):
    folder = tmp_path / "run"
    parent = start(*words(folder), "--workers", "2")
    until(lambda: bool(at_cells(folder)))
    os.kill(at_cells(folder)[0], signal.SIGKILL)
    outcome = parent.end()
    assert outcome.code == 0, outcome.err
    assert len(re.findall(r"warning: worker [12] was killed by signal 9 .*; started again", outcome.err)) == 1
    logs = [(folder / f"logs/worker-{i}.log").read_text() for i in (1, 2)]
    assert all("cells written" in log for log in logs), logs
    shutil.rmtree(folder / "logs")
    assert untimed_files(folder) == untimed_files(alone)  # with scores
    assert {status.attempts for status in statuses(folder)} == {1}
    before = contents(folder)
    again = steerboard(*words(folder), "--workers", "2")
    assert again.code == 0
    assert {n for n, data in contents(folder).items() if before.get(n) != data} <= {"manifest.json"}


@slow
def test_two_run_commands_and_a_score_command_share_the_cells_of_a_folder(words, start, tmp_path):
    folder = tmp_path / "run"
    runs = [start(*words(folder, "human,constant")) for _ in range(2)]
    until(lambda: finished_cells(folder) > 0)
    scores = start("score", folder)
    assert [process.end().code for process in (*runs, scores)] == [0, 0, 0]
    assert [status.attempts for status in statuses(folder)] == [1] * 16  # of two methods, tasks, languages and seeds
    assert len(list(folder.glob("cells/*/scores.json"))) == 16
    assert not (folder / "claims").exists()


@slow
def test_a_cell_that_fails_is_tried_once_a_run(words, tmp_path):
    run = words(tmp_path / "run", "failing,human")
    for attempts, workers in ((1, "1"), (2, "2")):
        assert steerboard(*run, "--workers", workers).code == 1
        failed = [status for status in statuses(tmp_path / "run") if status.state == "method_error"]
        assert [status.attempts for status in failed] == [attempts] * 8  # two tasks, languages and seeds
    joined = steerboard("work", tmp_path / "run")  # the run has tried them: to try again is to run it again
    assert (joined.code, joined.out.splitlines()[0]) == (1, "0 cells written, 0 scored")


@slow
def test_a_stop_ends_the_workers_and_gives_their_cells_back(words, start, tmp_path):
    folder = tmp_path / "run"
    parent = start(*words(folder), "--workers", "2")
    until(lambda: finished_cells(folder) > 0)
    workers = [int(path.name.split("-")[-2]) for path in (folder / "claims").glob("*.worker")]
    parent.process.send_signal(signal.SIGINT)
    outcome = parent.end()
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].startswith("steerboard: stopped; finished cells are kept")
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not (folder / "claims").exists()


@slow
def test_workers_end_when_the_command_that_started_them_is_killed(words, alone, start, tmp_path):
    folder = tmp_path / "run"
    parent = start(*words(folder), "--workers", "2")
    until(lambda: finished_cells(folder) > 0)
    parent.process.kill()
    parent.process.wait()
    until(lambda: not (folder / "claims").exists())
    assert finished_cells(folder) < finished_cells(alone)


def test_workers_that_all_fail_are_one_line(words, tmp_path, monkeypatch):
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho steerboard: nothing works\nexit 2\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    outcome = steerboard(*words(tmp_path / "run"), "--workers", "2")
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith("steerboard: all workers ended while ")
    assert "nothing works" in last
    assert "Traceback" not in outcome.err


# Bad input


def test_work_needs_a_run(tmp_path):
    assert "does not contain a run" in steerboard("work", tmp_path).one_line()


def test_workers_are_at_least_one(suite):
    assert "--workers" in steerboard("run", "--suite", suite, "--workers", "0").one_line()


def test_one_model_on_all_gpus_is_not_for_many_workers(words, tmp_path):
    line = steerboard(*words(tmp_path / "run"), "--workers", "2", "--device-map", "auto").one_line()
    assert "leave out --workers" in line


@pytest.mark.parametrize(
    ("name", "value", "words_of_line"),
    [
        ("versions", {"steerboard": "0.0.1"}, "steerboard"),
        ("git_commit", "0" * 40, "commit"),
    ],
)
def test_a_worker_with_other_code_is_refused(begun, name, value, words_of_line):
    path = begun / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[name] = {**manifest[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(manifest))
    line = steerboard("work", begun).one_line()
    assert f"this worker has {words_of_line}" in line
    assert "repeat the 'steerboard run' command" in line


def test_a_worker_with_other_weights_is_refused(begun, tmp_path):
    other = deep_llm(tmp_path / "deep", seed=1)
    line = steerboard("work", begun, "--model", other).one_line()
    assert "has the fingerprint" in line
    assert finished_cells(begun) == 1


def test_a_worker_without_the_plugin_of_the_run_is_refused(begun, plugin, tmp_path):
    away = tmp_path / "elsewhere.py"
    plugin.rename(away)
    try:
        assert "unknown method 'slow'" in steerboard("work", begun).one_line()
    finally:
        away.rename(plugin)
