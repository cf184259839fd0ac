"""Cells of a run share the rows of one batch: each is written when it is complete, and a kill loses only the others."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.helpers import (
    contents,
    finished_cells,
    killed_after,
    small_suite,
    snapshot,
    start_and_stop,
    steerboard,
    toy_llm,
    untimed_files,
)

from harness.core.store import Run
from harness.engine.decoding import CachedBatch
from harness.engine.generate import GenerationQueue

CELLS = 6
NARROW = ("--languages", "am,he", "--tasks", "sentiment", "--seeds", "1,2,3", "--limit", 3, "--methods", "zero-shot")


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[object]:
    """The words of a run of six cells with texts of up to 60 bytes, without scores."""
    folder = tmp_path_factory.mktemp("suite")
    suite = small_suite(folder, toy_llm(folder / "toy"))
    suite.write_text(suite.read_text("utf-8").replace("max_new_tokens: 4", "max_new_tokens: 60"), "utf-8")
    return ["run", "--suite", suite, *NARROW]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> Path:
    """The run that nothing stopped, a text at a time."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = steerboard(*words, "--run", folder, "--batch-size", 1)
    assert done.code == 0, done.err
    assert finished_cells(folder) == CELLS
    return folder


def texts_of(folder: Path) -> dict[str, bytes]:
    return {name: body for name, body in contents(folder).items() if name.endswith("generations.jsonl")}


def test_texts_do_not_depend_on_the_rows_that_cells_share(words, whole, tmp_path):
    for size in (5, 64):
        assert steerboard(*words, "--run", tmp_path / str(size), "--batch-size", size).code == 0
        assert texts_of(tmp_path / str(size)) == texts_of(whole)


def test_a_cell_is_on_disk_while_others_are_written_and_a_kill_loses_only_those(words, whole, tmp_path, monkeypatch):
    """At three cells the process ends: texts of others were in rows, and the three are whole and stay as they are."""
    folder, active = tmp_path / "run", []
    write = GenerationQueue.write

    def watch(queue: GenerationQueue, cells: Any) -> Any:
        for found in write(queue, cells):
            active.append(queue.active)
            yield found

    monkeypatch.setattr(GenerationQueue, "write", watch)
    with killed_after(3):
        steerboard(*words, "--run", folder, "--batch-size", 7)
    assert len(active) == 3
    assert active[-1] > 0
    before = {name: found for name, found in snapshot(folder).items() if name.startswith("cells")}
    assert texts_of(folder).items() <= texts_of(whole).items()
    assert (len(texts_of(folder)), finished_cells(folder)) == (3, 3)

    assert steerboard(*words, "--run", folder, "--batch-size", 64).code == 0
    assert untimed_files(folder) == untimed_files(whole)
    kept = snapshot(folder)
    assert {name: kept[name] for name in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_run_that_a_signal_ends_half_way_is_finished_with_equal_texts(words, whole, tmp_path, how):
    folder = tmp_path / "run"
    assert start_and_stop([*words, "--run", folder, "--batch-size", 2], folder, 2, how).code != 0
    assert 2 <= finished_cells(folder) < CELLS
    for cell in Run(folder).cell_ids():
        if Run(folder).status(cell):
            assert len(Run(folder).generations(cell)) == 6
    assert texts_of(folder).items() <= texts_of(whole).items()
    assert steerboard(*words, "--run", folder).code == 0
    assert untimed_files(folder) == untimed_files(whole)


def test_the_seconds_of_cells_sum_to_the_time_in_which_texts_were_written(words, tmp_path, monkeypatch):
    spent: list[float] = []
    for name in ("add", "step"):
        original = getattr(CachedBatch, name)

        def timed(batch: CachedBatch, *rows: Any, original: Any = original) -> Any:
            started = time.monotonic()
            found = original(batch, *rows)
            spent.append(time.monotonic() - started if len(batch.ends) else 0.0)  # the trial ends at no token
            return found

        monkeypatch.setattr(CachedBatch, name, timed)
    assert steerboard(*words, "--run", tmp_path / "run", "--batch-size", 20).code == 0
    run = Run(tmp_path / "run")
    seconds = [run.status(cell).seconds for cell in run.cell_ids()]
    assert len(seconds) == CELLS
    assert min(seconds) > 0
    assert sum(seconds) == pytest.approx(sum(spent), rel=0.1, abs=0.001 * CELLS)
