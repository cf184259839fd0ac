"""Where a run stands: counted from its files, while it grows, after it was killed, and where files are damaged."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
from pathlib import Path

import pytest
from support.helpers import MODEL, method
from support.toyruns import F1, flat, plain, selection, toy, write_run

from harness.core.records import Entry
from harness.core.store import Run, RunFiles
from harness.runner.run_status import MethodProgress, RunStatus, Speed, WorkerState
from harness.runner.status_reader import StatusReader, folder_size, measure_speed

NOW = 1_800_000_000.0
CHOSEN = selection(["am", "he"])  # one task, three seeds: six cells an entry


def made(folder: Path, *names: str, drop=(), **manifest: object) -> Run:
    """Write a run whose cells have scores, but for those that failed."""
    entries = [toy(name) for name in names or ("zero-shot", "few-shot", "human")]
    for entry in entries:
        entry.scores[F1] = flat(0.5, CHOSEN)
    run = write_run(folder, entries, CHOSEN, drop, **manifest)
    for cell in run.cell_ids():
        change(run, cell)
        if (run.cell(cell) / "scores.json").exists():
            os.utime(run.cell(cell) / "scores.json", (NOW - 8000, NOW - 8000))
    os.utime(run.manifest_path, (NOW - 9500, NOW - 9500))
    return run


def iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def change(run: Run, cell: str, at: float = NOW - 9000, **fields: object) -> None:
    """Write a status again, at a time."""
    path = run.cell(cell) / "status.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    plain(path, {**body, "finished": iso(at), **fields})
    os.utime(path, (at, at))


def cells_of(run: Run, name: str) -> list[str]:
    return [cell for cell in run.cell_ids() if run.status(cell).cell.method.name == name]


def read(run: Run, now: float = NOW) -> RunStatus:
    return StatusReader(run.path).read(now)


def counted(found: RunStatus) -> dict[str, int]:
    return {**found.states, "scored": found.scored, "not_run": found.not_run, "expected": found.expected}


# What is done


def test_a_finished_run_is_counted_by_method_and_setting(tmp_path):
    found = read(made(tmp_path / "run"))
    assert found.state == "finished"
    assert counted(found) == {"ok": 18, "scored": 18, "not_run": 0, "expected": 18}
    assert found.methods == [
        MethodProgress("zero-shot", "zero-shot", 6, 6, 6),
        MethodProgress("few-shot", "few-shot", 6, 6, 6),
        MethodProgress("human", "none", 6, 6, 6),
    ]
    assert (found.speed, found.left, found.stage, found.reasons, found.damaged) == (None, None, None, [], [])
    assert found.last == NOW - 8000


def test_configurations_of_a_method_share_a_row(tmp_path):
    chosen = selection(["am"], seeds=[1])
    entries = [toy("language", strength=1.0), toy("language", strength=2.0)]
    found = read(write_run(tmp_path / "run", entries, chosen))
    assert found.methods == [MethodProgress("language", "zero-shot", 2, 2, 2)]


def test_what_is_missing_and_what_has_no_scores_is_left(tmp_path):
    run = made(tmp_path / "run")
    first, second, *_ = run.cell_ids()
    (run.cell(first) / "status.json").unlink()
    (run.cell(second) / "scores.json").unlink()
    found = read(run)
    assert found.state == "stopped"
    assert counted(found) == {"ok": 17, "scored": 16, "not_run": 1, "expected": 18}


def test_scores_of_texts_that_were_written_again_do_not_count(tmp_path):
    run = made(tmp_path / "run")
    change(run, run.cell_ids()[0], NOW - 100)
    assert counted(read(run))["scored"] == 17


def test_failures_are_grouped_by_reason_without_numbers(tmp_path):
    gone = [("zero-shot", "sentiment", code, seed) for code in ("am", "he") for seed in (1, 2, 3)]
    run = made(tmp_path / "run", "zero-shot", "human", drop=gone)
    cells = cells_of(run, "zero-shot")
    for i, cell in enumerate(cells[:4]):
        change(run, cell, state="infra_error", reason=f"OutOfMemoryError: {i} GiB")
    change(run, cells[4], state="skipped", reason="שפה לא נתמכת")
    found = read(run)
    assert found.state == "failed"
    assert counted(found) == {
        **{"ok": 6, "infra_error": 4, "skipped": 1, "method_error": 1},
        **{"scored": 6, "not_run": 0, "expected": 12},
    }
    assert [(r.state, r.cells, r.reason) for r in found.reasons] == [
        ("infra_error", 4, "OutOfMemoryError: 0 GiB"),
        ("method_error", 1, "ValueError: no"),
        ("skipped", 1, "שפה לא נתמכת"),
    ]
    assert found.reasons[0].cell == cells[0]
    assert found.reasons[0].example.startswith("zero-shot/zero-shot/sentiment/")
    assert found.methods[0] == MethodProgress("zero-shot", "zero-shot", 6, 0, 0, 1, 5)


def test_cells_that_the_manifest_does_not_name_are_counted_apart(tmp_path):
    run = made(tmp_path / "run")
    entries = [Entry(method=method("zero-shot"), model=MODEL, setting="zero-shot")]
    run.write_manifest(run.manifest().model_copy(update={"entries": entries}))
    found = read(run)
    assert (counted(found)["expected"], counted(found)["ok"], found.unexpected) == (6, 6, 12)


def test_pairs_without_data_are_not_expected(tmp_path):
    run = made(tmp_path / "run", "zero-shot", selection=CHOSEN.model_copy(update={"absent": ["sentiment/he"]}))
    found = read(run)
    assert (found.expected, counted(found)["ok"], found.unexpected) == (3, 3, 3)


# Damage


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"schema": 9}', b"\x89PNG\xff", b"[" * 100_000])
def test_a_damaged_status_is_named_and_the_rest_is_counted(tmp_path, data):
    run = made(tmp_path / "run")
    path = run.cell(run.cell_ids()[0]) / "status.json"
    path.write_bytes(data)
    found = read(run)
    assert found.state == "stopped"
    assert counted(found) == {"ok": 17, "scored": 17, "not_run": 1, "expected": 18}
    [line] = found.damaged
    assert line.startswith(str(path))


def test_a_status_with_a_method_that_is_none_is_damaged(tmp_path):
    run = made(tmp_path / "run")
    path = run.cell(run.cell_ids()[0]) / "status.json"
    body = json.loads(path.read_text())
    plain(path, {**body, "cell": {**body["cell"], "method": {"name": 3}}})
    assert len(read(run).damaged) == 1


@pytest.mark.parametrize("when", ["", "yesterday", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_cannot_be_is_not_counted_with(tmp_path, when):
    run = made(tmp_path / "run", "human")
    for cell in run.cell_ids():
        change(run, cell, finished=when)
    with run.lock():
        found = read(run)
    assert (found.states, found.speed) == ({"ok": 6}, None)
    json.dumps(found.to_json())


def test_a_status_is_read_again_only_after_a_change(tmp_path, monkeypatch):
    run = made(tmp_path / "run")
    seen: list[str] = []
    whole = RunFiles.read_with_version
    monkeypatch.setattr(RunFiles, "read_with_version", lambda self, name: seen.append(name) or whole(self, name))
    reader = StatusReader(run.path)
    assert counted(reader.read(NOW))["ok"] == len(seen) == 18
    change(run, run.cell_ids()[3], NOW, state="skipped", reason="no")
    assert counted(reader.read(NOW))["ok"] == 17
    assert seen[18:] == [f"cells/{run.cell_ids()[3]}/status.json"]


# A run that is worked on


def test_the_rate_is_that_of_the_cells_since_the_first_of_them():
    times = [(NOW - 60, 5), (NOW - 30, 7), (NOW - 20, 11), (NOW - 5000, 100)]
    assert measure_speed(times, NOW) == Speed(cells=2, tokens=18, seconds=60.0)


def test_the_rate_looks_further_back_where_few_cells_ended_lately():
    times = [(NOW - 60, 5), (NOW - 1800, 7), (NOW - 3000, 11)]
    assert measure_speed(times, NOW) == Speed(cells=2, tokens=12, seconds=3000.0)
    assert measure_speed(times[:2], NOW) is None


def growing(tmp_path: Path, cells: int = 12) -> Run:
    """Return a run without scores in which so many of 18 cells have ended, one every ten seconds."""
    run = made(tmp_path / "run")
    os.utime(run.manifest_path, (NOW - 300, NOW - 300))
    for i, cell in enumerate(run.cell_ids()):
        (run.cell(cell) / "scores.json").unlink()
        change(run, cell, NOW - 10 * (i + 1), new_tokens=50)
        if i >= cells:
            (run.cell(cell) / "status.json").unlink()
    return run


def test_a_run_in_progress_has_a_rate_and_the_time_that_is_left(tmp_path):
    run = growing(tmp_path)
    with run.lock():
        found = read(run)
    assert (found.state, found.stage, found.locked) == ("running", "generate", True)
    assert found.speed == Speed(cells=11, tokens=550, seconds=120.0)
    assert found.left == pytest.approx(6 * 120 / 11)
    assert read(run).state == "stopped"
    with run.lock():  # looking left nothing locked
        pass


def test_failures_from_before_the_latest_start_are_left_to_do(tmp_path):
    run = growing(tmp_path, 12)
    cell = run.cell_ids()[0]
    change(run, cell, NOW - 4000, state="infra_error", reason="no memory")
    with run.lock():
        found = read(run)
    assert found.speed == Speed(cells=10, tokens=500, seconds=120.0)
    assert found.left == pytest.approx(7 * 120 / 10)


def test_scoring_has_a_rate_of_its_own(tmp_path):
    run = growing(tmp_path, 18)
    for i, cell in enumerate(run.cell_ids()[:4]):
        path = run.cell(cell) / "scores.json"
        path.write_text("{}")
        os.utime(path, (NOW - 4 + i, NOW - 4 + i))
    with run.lock():
        found = read(run)
    assert (found.stage, found.scored) == ("score", 4)
    assert found.speed == Speed(cells=3, tokens=None, seconds=4.0)
    assert found.left == pytest.approx(14 * 4 / 3)


def claim(run: Run, name: str, data: bytes | str, age: float) -> Path:
    path = run.path / "claims" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_workers_are_those_of_the_claims(tmp_path):
    run = growing(tmp_path)
    claim(run, "node1-7.worker", "another machine", 5)
    claim(run, "node2-9.worker", "another machine", 4000)
    for name in ("a.0", "b.1", "score-c.0"):
        claim(run, name, "node1-7", 30)
    claim(run, "b.0", "node2-9", 40)  # taken over since
    claim(run, "d.0", "", 1)
    claim(run, "notes.txt", "", 1)
    found = read(run)
    assert found.workers == [WorkerState("node1-7", 3, 5.0, True, 1), WorkerState("node2-9", 0, 4000.0, False)]
    assert (found.locked, found.state) == (False, "running")
    assert read(run, NOW + 600).state == "stopped"


def test_a_worker_of_this_machine_is_dead_as_soon_as_its_process_is(tmp_path):
    run, machine = growing(tmp_path), Path("/proc/sys/kernel/random/boot_id").read_bytes()
    path = claim(run, "here-7.worker", machine, 1)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [worker.alive for worker in read(run).workers] == [True]
    assert [worker.alive for worker in read(run).workers] == [False]
    assert read(run).state == "stopped"


def test_a_run_that_has_no_manifest_yet_is_starting_or_was_stopped(tmp_path):
    run = Run(tmp_path / "run")
    with run.lock():
        assert read(run).state == "starting"
    assert read(run).state == "empty"
    assert read(run).to_json()["cells"]["expected"] == 0


def test_the_size_is_that_of_all_files(tmp_path):
    (tmp_path / "cells" / "a").mkdir(parents=True)
    (tmp_path / "cells" / "a" / "status.json").write_bytes(b"x" * 300)
    (tmp_path / "manifest.json").write_bytes(b"x" * 20)
    (tmp_path / "link").symlink_to(tmp_path / "cells")
    assert folder_size(tmp_path) == 320 + (tmp_path / "link").lstat().st_size


def test_the_json_has_every_number_of_the_table(tmp_path):
    run = growing(tmp_path)
    with run.lock():
        body = read(run).to_json()
    assert body["schema"] == 1
    assert (body["state"], body["stage"], body["suite"], body["prompt_format"]) == (
        "running",
        "generate",
        "toy",
        "chat",
    )
    assert body["model"]["name"] == "toy"
    assert body["cells"] == {
        **{"expected": 18, "ok": 12, "skipped": 0, "method_error": 0, "infra_error": 0},
        **{"not_run": 6, "scored": 0, "unexpected": 0, "damaged": 0},
    }
    assert body["rate"] == {"cells": 11, "tokens": 550, "seconds": 120.0}
    assert body["last_finished"] == iso(NOW - 10)
    assert sum(row["expected"] for row in body["methods"]) == 18


def test_the_size_of_many_cells_is_that_of_some_of_them(tmp_path, monkeypatch):
    """Every third of nine cells is looked at: of 1, 4 and 7 bytes; the nine have 45."""
    monkeypatch.setattr("harness.runner.status_reader._SIZED", 4)
    for size in range(1, 10):
        cell = tmp_path / "cells" / f"{size}"
        cell.mkdir(parents=True)
        (cell / "status.json").write_bytes(b"x" * size)
    (tmp_path / "manifest.json").write_bytes(b"x" * 100)
    assert folder_size(tmp_path) == 3 * (1 + 4 + 7) + 100
