"""Workers as jobs of SLURM: submitit's local executor runs them; the script for sbatch says what was asked for."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.helpers import deep_llm, finished_cells, killed_after, small_suite, steerboard, untimed_files

from harness.core.records import CellStatus
from harness.core.store import Run
from harness.runner.claims import claims_by_process
from harness.runner.slurm_executor import submit_workers

submitit = pytest.importorskip("submitit", reason="NOT CHECKED: submitit is not installed: steerboard[slurm]")

PLUGIN = """
import time
from steerboard import Steering, SteeringMethod, register

@register("slow")
class Slow(SteeringMethod):
    '''Takes its time.'''

    def fit(self, ctx):
        return Steering()

    def prompt(self, ctx):
        time.sleep(0.2)
        return super().prompt(ctx)
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Callable[[Path], list[object]]:
    """Return the words of a run of 12 cells with a model of random weights."""
    folder = tmp_path_factory.mktemp("suite")
    suite, plugin = small_suite(folder, deep_llm(folder / "deep")), folder / "slow.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    chosen = ["--languages", "am", "--seeds", "1,2", "--limit", "2", "--methods", "human,slow", "--plugin", plugin]
    return lambda run: ["run", "--suite", suite, "--run", run, *chosen]


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Put an sbatch that does as the test says in the path, in place of a cluster; as ``srun`` it does nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(body: str) -> None:
        for name, lines in (("sbatch", body), ("srun", "exit 1")):
            (folder / name).write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
            (folder / name).chmod(0o755)

    return make


def statuses(folder: Path) -> list[CellStatus]:
    run = Run(folder)
    return [status for cell in run.cell_ids() if (status := run.status(cell))]


@pytest.mark.nightly
def test_a_job_that_is_preempted_gives_its_cells_back_and_is_queued_again(words, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    assert steerboard(*words(alone)).code == 0
    with killed_after(1):
        steerboard(*words(folder))
    executor = submitit.LocalExecutor(folder / "logs" / "slurm")
    executor.update_parameters(timeout_min=10, stderr_to_stdout=True)
    (job,) = submit_workers(executor, [str(folder)], 1)
    until = time.monotonic() + 120
    while not any(len(claims) > 1 for claims in claims_by_process(folder).values()) and time.monotonic() < until:
        time.sleep(0.01)
    before = finished_cells(folder)
    task = int(Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()[0])
    os.kill(task, signal.SIGUSR2)
    job.result()
    said = job.stdout()
    assert "steerboard: stopped by SIGTERM" in said
    assert "Requeued job" in said
    assert before < finished_cells(folder) == finished_cells(alone)
    assert {status.attempts for status in statuses(folder)} == {1}
    files = {name: data for name, data in untimed_files(folder).items() if not name.startswith("logs/")}
    assert files == untimed_files(alone)


def test_the_script_for_sbatch_has_what_was_asked_for(words, cluster, tmp_path):
    cluster("echo Submitted batch job 12")
    folder = tmp_path / "run"
    asked = ["partition=gpu", "time=4:00:00", "gpus-per-node=1", "mem=32G", "requeue", "comment=two words"]
    given = [word for option in asked for word in ("--slurm", option)]
    outcome = steerboard(*words(folder), "--executor", "slurm", "--workers", 3, *given)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        "submitted 3 workers as SLURM job 12",
        f"next: steerboard status {folder}",
    ]
    script = folder / "logs" / "slurm" / "12_submission.sh"
    lines = script.read_text(encoding="utf-8").splitlines()
    for option in ("array=0-2%3", "partition=gpu", "time=4:00:00", "gpus-per-node=1", "mem=32G", "comment='two words'"):
        assert f"#SBATCH --{option}" in lines
    assert "#SBATCH --requeue" in lines
    assert sum(line.startswith("#SBATCH --time") for line in lines) == 1
    assert Run(folder).manifest().entries
    assert finished_cells(folder) == 0


@pytest.mark.parametrize(
    ("options", "words_of_line"),
    [
        ([], "give --slurm time=4:00:00"),
        (["time=1", "array=3"], "--slurm array is set by steerboard"),
        (["time 1"], "is not KEY=VALUE"),
        (["time="], "is not KEY=VALUE"),
        (["time=1\n#"], "is not KEY=VALUE"),
    ],
)
def test_bad_options_of_sbatch_are_one_line(words, cluster, tmp_path, options, words_of_line):
    cluster("exit 1")
    given = [word for option in options for word in ("--slurm", option)]
    line = steerboard(*words(tmp_path / "run"), "--executor", "slurm", *given).one_line()
    assert words_of_line in line
    assert not (tmp_path / "run").exists()


def test_a_refusal_of_slurm_is_one_line(words, cluster, tmp_path):
    cluster("echo sbatch: error: invalid partition specified: nix >&2; exit 1")
    line = steerboard(*words(tmp_path / "run"), "--executor", "slurm", "--slurm", "time=1").one_line()
    assert line.endswith("SLURM refused the job: sbatch: error: invalid partition specified: nix")


def test_a_machine_without_slurm_is_one_line(words, tmp_path, monkeypatch):
    run = [*words(tmp_path / "run"), "--executor", "slurm", "--slurm", "time=1"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Run this on a login node" in steerboard(*run).one_line()
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'steerboard[slurm]'" in steerboard(*run).one_line()
    assert "--slurm is for --executor slurm" in steerboard(*run[:-4], "--slurm", "time=1").one_line()
