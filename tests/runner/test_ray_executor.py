"""A run on Ray: actors write what one process does and may be killed, tasks score, and bad input is one line."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.helpers import (
    command,
    deep_llm,
    environment,
    finished_cells,
    small_suite,
    steerboard,
    untimed_files,
)
from support.killing import statuses, warm_commands

from harness.core.errors import UserError
from harness.core.store import Run
from harness.runner import score
from harness.runner.claims import claims_by_process
from harness.runner.prepare import open_run
from harness.runner.ray_executor import RayScoring, RayWorker, Share, check_folder, ray_session
from harness.runner.work import WorkOptions

ray = pytest.importorskip("ray", reason="NOT CHECKED: Ray is not installed: pip install 'steerboard[ray]'")

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
def cluster() -> Iterator[str]:
    """Ray on this machine with one core, which several commands join; its address."""
    with ray_session(None, ray) as session:
        yield session.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Callable[[Path], list[object]]:
    """Return the words of a run of 12 cells with a model of random weights."""
    folder = tmp_path_factory.mktemp("suite")
    suite, plugin = small_suite(folder, deep_llm(folder / "deep")), folder / "slow.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    chosen = ["--languages", "he", "--seeds", "1,2", "--limit", "2", "--methods", "human,slow", "--plugin", plugin]
    return lambda run: ["run", "--suite", suite, "--run", run, *chosen]


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory) -> Path:
    """The run of one process, to compare with."""
    folder = tmp_path_factory.mktemp("alone")
    outcome = steerboard(*words(folder / "run"))
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start commands that end with the test, whatever comes."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: object) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen(command(*arguments), stdout=pipe, stderr=pipe, env=environment(), text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def workers_at_cells(folder: Path, number: int) -> list[int]:
    """Wait until so many workers of a run are at cells, and some are finished; return their process ids."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = [pid for pid, claims in claims_by_process(folder).items() if any("." not in name for name in claims)]
        if len(found) == number and finished_cells(folder):
            return found
        time.sleep(0.01)
    raise AssertionError(f"{number} workers did not come")


def unlogged(folder: Path) -> dict[str, bytes]:
    """Return the files of a run but for logs, and what a writer left that was killed while it wrote."""
    files = untimed_files(folder).items()
    return {name: data for name, data in files if not name.startswith("logs/") and not name.endswith(".tmp")}


# Real runs


@pytest.mark.slow
def test_a_run_whose_actor_is_killed_is_that_of_one_process(cluster, words, alone, tmp_path, monkeypatch):
    """Ray starts the actor again, and it takes up the cells of the one that was killed."""
    folder = tmp_path / "run"
    monkeypatch.setattr("harness.runner.ray_executor.ray_session", lambda address, stage: nullcontext(stage))
    killing = threading.Thread(target=lambda: os.kill(workers_at_cells(folder, 1)[0], signal.SIGKILL))
    killing.start()
    outcome = steerboard(*words(folder), "--executor", "ray", "--workers", "1")
    killing.join()
    assert outcome.code == 0, outcome.err
    assert unlogged(folder) == unlogged(alone)
    assert (folder / "logs/worker-1.log").read_text().count("loading deep") == 2
    assert not (folder / "claims").exists()


@pytest.mark.nightly
def test_two_actors_of_which_one_is_killed_write_what_one_process_does(cluster, words, alone, start, tmp_path):
    folder = tmp_path / "run"
    process = start(*words(folder), "--executor", "ray", "--address", cluster, "--workers", "2")
    os.kill(workers_at_cells(folder, 2)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "raylet" not in out + err
    assert unlogged(folder) == unlogged(alone)
    logs = [(folder / f"logs/worker-{i}.log").read_text() for i in (1, 2)]
    assert sorted(log.count("loading deep") for log in logs) == [1, 2]


@pytest.mark.nightly
def test_kills_of_drivers_and_actors_leave_the_files_of_a_run_that_nobody_killed(cluster, words, alone, tmp_path):
    """A driver takes its actors with it, wherever they are; the next one goes on with the cells that are left."""
    chance, kills, folder = random.Random(60), Counter[str](), tmp_path / "run"
    ray_words = [*words(folder), "--executor", "ray", "--address", cluster, "--workers", "2"]
    with warm_commands(tmp_path / "log") as commands:
        while kills.total() < 60:
            left = chance.randint(4, 12)  # kills until this run may come to its end
            while left:
                driver, code = commands.start(*ray_words), None
                patience = time.monotonic() + chance.uniform(2, 40)  # some drivers are killed before actors are at work
                while left and code is None and Path(f"/proc/{driver}").exists():
                    if not claims_by_process(folder) and time.monotonic() < patience:
                        time.sleep(0.02)
                        continue
                    time.sleep(chance.uniform(0, 1))
                    actors = sorted(claims_by_process(folder))
                    if actors and chance.random() < 0.6:
                        with suppress(ProcessLookupError):
                            os.kill(chance.choice(actors), signal.SIGKILL)
                            kills["actor"] += 1
                            left -= 1
                    else:
                        code = commands.end(driver)
                        kills["driver"] += code == -signal.SIGKILL
                        left -= 1
                if code is None:
                    commands.wait(driver)  # 1 where a worker has died four times and no other one is left
            assert commands.wait(commands.start(*ray_words)) == 0, commands.said()
            assert unlogged(folder) == unlogged(alone)
            assert statuses(folder) == statuses(alone)
            shutil.rmtree(folder)
    assert kills.keys() == {"driver", "actor"}


@pytest.mark.slow
def test_tasks_of_ray_score_as_one_process_does(cluster, alone, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    for name in ("scores.json", "predictions.json.gz", "audit.json.gz"):
        for path in folder.glob(f"cells/*/{name}"):
            path.unlink()
    monkeypatch.setattr(score, "WORTH_WORKERS", 0)  # of this process, which makes the chunks
    here = Console(quiet=True)
    done: list[str] = []
    monkeypatch.setattr(RayScoring, "score", lambda stage, cell, names: done.append(cell.id))  # scored here: not by Ray
    assert RayScoring(open_run(folder), here).run() == len(list(alone.glob("cells/*/scores.json")))
    assert done == []
    assert unlogged(folder) == unlogged(alone)


@pytest.mark.nightly
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_ends_the_actors_and_gives_their_cells_back(cluster, words, start, tmp_path, how, code):
    folder = tmp_path / "run"
    process = start(*words(folder), "--executor", "ray", "--address", cluster, "--workers", "2")
    actors = workers_at_cells(folder, 2)
    process.send_signal(how)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert err.splitlines()[-1].startswith("steerboard: stopped")
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in actors)
    assert not (folder / "claims").exists()


@pytest.mark.nightly
def test_a_local_run_takes_over_from_a_driver_that_is_killed_with_its_ray(words, alone, start, tmp_path):
    folder = tmp_path / "run"
    process = start(*words(folder), "--executor", "ray", "--workers", "2")  # it starts Ray itself
    actors = workers_at_cells(folder, 2)
    process.kill()
    process.wait()
    assert 0 < finished_cells(folder) < finished_cells(alone)
    assert steerboard(*words(folder)).code == 0
    assert unlogged(folder) == unlogged(alone)
    assert not any(Path(f"/proc/{pid}").exists() for pid in actors)


def test_a_node_that_does_not_see_the_folder_is_one_clear_error(cluster, tmp_path):
    worker = ray.remote(RayWorker).remote(tmp_path / "elsewhere", "now", {}, 1)
    with pytest.raises(ray.exceptions.RayTaskError) as raised:
        ray.get(worker.work.remote(tmp_path / "log", WorkOptions(), {}))
    assert isinstance(raised.value.cause, UserError)
    assert "does not see the run folder" in str(raised.value.cause)
    assert "\n" not in str(raised.value.cause)


def test_another_folder_of_the_same_name_is_noticed(alone):
    check_folder(alone, Run(alone).manifest().created)
    with pytest.raises(UserError, match="does not see the run folder"):
        check_folder(alone, "2001-01-01T00:00:00+00:00")


# Shares


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}}


@pytest.mark.parametrize(
    ("nodes", "asked", "device", "share"),
    [
        ([node(8)], None, None, Share(1, 0, 8)),
        ([node(8), node(8), node(8, alive=False)], None, None, Share(2, 0, 8)),  # one per node
        ([node(8)], 3, None, Share(3, 0, 2)),
        ([node(1)], 2, None, Share(2, 0, 0.5)),  # more workers than cores share them
        ([node(4), node(16)], 2, None, Share(2, 0, 10)),
        ([node(16, 4), node(16, 4)], None, None, Share(8, 1, 4)),  # one per GPU
        ([node(16, 4), node(64)], None, "cuda", Share(4, 1, 4)),  # the node without GPUs has no worker
        ([node(16, 2)], 3, None, Share(3, 0.5, 4)),  # thirds of two would not fit
        ([node(16, 4)], None, "cpu", Share(1, 0, 16)),
    ],
)
def test_workers_get_a_share_of_the_cluster(nodes, asked, device, share):
    assert Share.of(nodes, asked, device) == share


# Bad input


def test_an_address_without_a_cluster_is_one_line(words, tmp_path):
    run = words(tmp_path / "run")
    closed = steerboard(*run, "--executor", "ray", "--address", "127.0.0.1:1").one_line()
    assert "no Ray cluster answers at --address 127.0.0.1:1" in closed
    assert "ray start --head" in closed
    for address in ("nonsense", "ray://head:10001", "head:port"):
        assert "is not HOST:PORT" in steerboard(*run, "--executor", "ray", "--address", address).one_line()
    assert not (tmp_path / "run").exists()


def test_what_does_not_go_together_is_one_line(words, tmp_path):
    run = words(tmp_path / "run")
    assert "--address is for --executor ray" in steerboard(*run, "--address", "auto").one_line()
    assert "valid: local, ray, slurm" in steerboard(*run, "--executor", "kubernetes").one_line()


def test_ray_that_is_not_installed_is_one_line(words, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = steerboard(*words(tmp_path / "run"), "--executor", "ray").one_line()
    assert "pip install 'steerboard[ray]'" in line
