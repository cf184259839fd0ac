"""Worker processes: chunks stay together, a failure stays alone, nothing is left behind; scores are the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from support.helpers import environment, python, small_suite, steerboard, toy_llm
from support.working import CLAIM_AND_DIE, Script

from harness.core import store, threads
from harness.core.errors import DamagedFileError, MachineError, UserError
from harness.runner import score
from harness.runner.claims import Claims
from harness.runner.prepare import open_run
from harness.runner.workers import run_in_workers

STARTS = """
import sys
from pathlib import Path
from support.working import Script
from harness.core.signals import noting_stops
from harness.runner.workers import run_in_workers
if __name__ == "__main__":
    with noting_stops():
        list(run_in_workers(Script(Path(sys.argv[1])), [["sleep 1"], ["sleep 2"]], 2))
"""


def outcomes(folder: Path, chunks: list[list[str]], number: int = 2) -> dict[str, Exception | None]:
    return dict(run_in_workers(Script(folder), chunks, number))


def pids(folder: Path, *items: str) -> list[str]:
    return [(folder / item).read_text() for item in items]


def test_a_chunk_is_worked_on_by_one_worker_which_prepares_once(tmp_path):
    done = outcomes(tmp_path, [["a1", "a2", "a3"], ["b1", "b2"], ["c1", "threads"]])
    assert done == dict.fromkeys(["a1", "a2", "a3", "b1", "b2", "c1", "threads"])
    assert len({*pids(tmp_path, "a1", "a2", "a3")}) == len({*pids(tmp_path, "b1", "b2")}) == 1
    assert len(list(tmp_path.glob("made.*"))) == 2  # workers, not chunks
    assert pids(tmp_path, "threads") == ["1"]
    assert str(os.getpid()) not in pids(tmp_path, "a1", "b1", "c1")


def test_an_item_that_fails_fails_alone_in_the_same_words(tmp_path):
    done = outcomes(tmp_path, [["refuse", "a", "damaged", "fault", "b"]])
    assert [done["a"], done["b"]] == [None, None]
    assert (type(done["refuse"]), str(done["refuse"])) == (UserError, "refuse is bad. Mend it.")
    assert (type(done["damaged"]), str(done["damaged"])) == (DamagedFileError, "damaged was edited")
    assert isinstance(done["fault"], RuntimeError)
    assert "ZeroDivisionError: fault" in str(done["fault"])  # with its traceback


def test_an_item_whose_worker_is_killed_is_tried_once_more_and_takes_no_other_with_it(tmp_path):
    done = outcomes(tmp_path, [["a", "die once", "b"], ["c", "die", "d"], ["e"], ["die too"]], 1)
    assert [name for name, error in done.items() if error] == ["die", "die too"]
    assert len(done) == 8
    assert isinstance(done["die"], MachineError)
    assert "killed by signal 9, twice" in str(done["die"])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    tests = str(Path(__file__).parents[1])
    env = environment(PYTHONPATH=os.pathsep.join([tests, *sys.path]))
    with subprocess.Popen([sys.executable, "-c", STARTS, tmp_path], env=env, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: all((tmp_path / f"sleep {i}").exists() for i in (1, 2)) or process.poll() is not None)
        time.sleep(0.2)
        process.send_signal(how)
        process.wait(timeout=30)
    for pid in pids(tmp_path, "sleep 1", "sleep 2"):
        wait_until(lambda pid=pid: not alive(int(pid)))


def wait_until(done: object) -> None:
    until = time.monotonic() + 60
    while not done():  # type: ignore[operator]
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# Scores


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A scored run of human and constant text, Amharic and Hebrew."""
    folder = tmp_path_factory.mktemp("workers")
    words = ("--methods", "human,constant", "--languages", "am,he", "--seeds", "1,2", "--run", folder / "run")
    done = steerboard("run", "--suite", small_suite(folder, toy_llm(folder / "toy")), *words)
    assert done.code == 0, done.err
    return folder / "run"


def files(run: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(run.glob("cells/*/*")) if path.name != "status.json"]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


@pytest.fixture
def two_workers(monkeypatch) -> list[list[str]]:
    """Let every scoring have two workers; return the chunks, as lists, in which they get cells."""
    started = []

    def watched(worker, chunks, number):
        assert number == 2
        for chunk in chunks:
            started.append(chunk)
            yield from run_in_workers(worker, [chunk], number)

    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(score, "WORTH_WORKERS", 0)
    monkeypatch.setattr(score, "run_in_workers", watched)
    return started


@pytest.fixture
def unscored(run, tmp_path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("scores.json", "*.gz"))
    return copy


def test_scores_are_the_same_bytes_in_one_process_and_in_two(run, unscored, two_workers):
    done = steerboard("score", unscored)
    assert done.code == 0, done.err
    assert files(unscored) == files(run)
    places = {cell.id: (cell.key.task, cell.key.language) for cell in open_run(run).cells}
    assert [len({places[name] for name in chunk}) for chunk in two_workers] == [1] * len({*places.values()}) == [1] * 4
    assert f"{len(open_run(run).cells)} cells scored" in done.out


def test_a_cell_that_another_process_is_at_is_left_to_it(run, unscored):
    cells = sorted(path.name for path in (unscored / "cells").iterdir())
    with Claims(unscored) as other:
        assert other.take(score.score_claim(cells[0]))
        stage = score.ScoringStage(open_run(unscored), Console(quiet=True))
        with ThreadPoolExecutor() as pool:
            done = pool.submit(stage.run)
            wait_until(lambda: len(list(unscored.glob("cells/*/scores.json"))) == len(cells) - 1 or done.done())
            time.sleep(0.3)
            assert not done.done()
            assert not (unscored / "cells" / cells[0] / "scores.json").exists()
            for path in sorted((run / "cells" / cells[0]).iterdir(), reverse=True):  # scores.json is the last
                shutil.copy(path, unscored / "cells" / cells[0] / path.name)
            other.release(score.score_claim(cells[0]))
            assert done.result(timeout=60) == len(cells)
    assert stage.count == len(cells) - 1
    assert files(unscored) == files(run)
    assert not (unscored / "claims").exists()


def test_a_cell_whose_process_has_died_is_scored_by_another(run, unscored):
    cells = [path.name for path in (unscored / "cells").iterdir()]
    python(CLAIM_AND_DIE, unscored, *map(score.score_claim, cells[:3]))
    stage = score.ScoringStage(open_run(unscored), Console(quiet=True))
    assert stage.run() == stage.count == len(cells)
    assert files(unscored) == files(run)


def test_processes_keep_to_tasks_and_languages_of_their_own(unscored):
    plan = open_run(unscored)
    one, other = (score.ScoringStage(plan, Console(quiet=True)) for _ in range(2))
    names = [part.name for part in plan.parts]
    cells = [cell for cell, _ in one._open_cells()[0]]
    places = {cell.id: (cell.key.task, cell.key.language) for cell in cells}
    chunks = [[cell.id] for cell in cells]
    with Claims(unscored) as one._claims, Claims(unscored) as other._claims:
        turns = [stage.claimed(chunks, cells, names) for stage in (one, other)]
        got = [next(turn)[0] for turn in turns * 4]
    assert len({*got}) == 8
    assert {places[name] for name in got[::2]}.isdisjoint(places[name] for name in got[1::2])


def test_one_thread_has_no_workers(run, unscored, two_workers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        assert steerboard("score", unscored, "--threads", 1).code == 0
    assert two_workers == []
    assert files(unscored) == files(run)


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_cell_that_cannot_be_scored_loses_no_other(run, unscored, two_workers, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    first = min(path.parent for path in unscored.glob("cells/*/status.json"))
    texts = (first / "generations.jsonl").read_bytes().splitlines(keepends=True)
    status = (first / "status.json").read_text()
    (first / "generations.jsonl").write_bytes(b"".join(texts[1:]))  # with a status that says nothing of their hash
    lines = [line for line in status.splitlines() if "generations_sha256" not in line]
    (first / "status.json").write_text("\n".join(lines))
    done = steerboard("score", unscored)
    assert done.code == 2
    assert "Delete this folder and run the same command again" in done.err.splitlines()[-1]
    expected = {name: data for name, data in files(run).items() if first.name not in name}
    assert {name: data for name, data in files(unscored).items() if first.name not in name} == expected
    assert not (first / "scores.json").exists()


def test_a_large_group_is_cut_and_little_text_has_no_workers(run, monkeypatch):
    stage = score.ScoringStage(open_run(run), None)
    cells = sorted(stage.plan.cells, key=lambda cell: (cell.key.task, cell.key.language, cell.key.seed))
    assert stage.chunks(cells, 8) == []
    monkeypatch.setattr(score, "WORTH_WORKERS", 0)
    monkeypatch.setattr(score, "LEAST_CHUNK", 1)
    assert [name for chunk in stage.chunks(cells, 8) for name in chunk] == [cell.id for cell in cells]
    assert {len(chunk) for chunk in stage.chunks(cells, 8)} == {1}
    assert len(stage.chunks(cells, 1)) == len({(cell.key.task, cell.key.language) for cell in cells})


def test_resuming_a_finished_run_reads_every_file_of_it_a_fixed_number_of_times(run, monkeypatch):
    """One status, one head of scores and one hash of texts a cell, however often they are asked for."""
    opened, read = [], store.read_bytes
    monkeypatch.setattr(store, "read_bytes", lambda path, *more: opened.append(str(path)) or read(path, *more))
    plan = open_run(run)
    assert score.ScoringStage(plan, None).run() == 0
    of_cells = [path for path in opened if "/cells/" in path]
    names = Counter(Path(path).name for path in of_cells)
    assert names == dict.fromkeys(["status.json", "scores.json", "generations.jsonl"], len(plan.cells))


def test_resuming_a_finished_run_loads_no_model_and_no_torch(run):
    folder = run.parent
    words = ("run", "--suite", folder / "small.yaml", "--methods", "human,constant", "--run", run)
    words += ("--languages", "am,he", "--seeds", "1,2")
    code = (
        "import sys\nfrom harness.cli.main import main\ntry:\n    main()\nfinally:\n"
        "    assert 'torch' not in sys.modules and 'sklearn' not in sys.modules\n"
    )
    assert "next: steerboard board build" in python(code, *words)
