"""The log of what processes did, and what the manifest says of time and memory by it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from support.helpers import steerboard, toy_manifest

from harness.core.machine import peak_memory
from harness.core.records import Manifest, StageCost
from harness.core.store import Run
from harness.runner.event_log import log_event, logged_stage, read_stages, record_stages


def lines(run: Path) -> list[dict[str, object]]:
    [path] = (run / "logs").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_log(run: Path, name: str, *rows: tuple[float, str, str | None, int], **more: object) -> None:
    """Write a log by hand: second of a minute, event, stage and peak of memory."""
    path = run / "logs" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [
        {"time": f"2026-11-30T10:00:{at:06.3f}+00:00", "event": event, "peak_memory": peak, **more}
        | ({"stage": stage} if stage else {})
        for at, event, stage, peak in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def test_a_line_is_whole_and_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "my-own-token")
    many = [
        threading.Thread(target=log_event, args=(tmp_path, "cell"), kwargs={"reason": "ሰላם" * 50}) for _ in range(20)
    ]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    log_event(tmp_path, "error", reason="my-own-token at https://a:b@c/d\n\ud800")
    *cells, last = lines(tmp_path)
    assert [line["reason"] for line in cells] == ["ሰላם" * 50] * 20
    assert last["reason"] == "*** at https://***@c/d\n?"
    assert peak_memory() >= last["peak_memory"] > 10_000_000


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / "logs").write_text("")
    log_event(tmp_path, "cell")
    log_event(tmp_path / "nowhere", "cell")
    assert read_stages(tmp_path) == {}


def test_a_stage_that_breaks_says_why(tmp_path):
    with pytest.raises(ValueError, match="no"), logged_stage(tmp_path, "generate", 2):
        raise ValueError("no")
    assert [(line["event"], line.get("reason")) for line in lines(tmp_path)] == [
        ("start", None),
        ("error", "ValueError: no"),
    ]


def test_time_counts_once_however_many_work_and_the_largest_memory_counts(tmp_path):
    write_log(tmp_path, "a-1", (0, "start", "generate", 10), (6, "cell", None, 50), (8, "end", "generate", 50))
    write_log(tmp_path, "b-1", (4, "start", "generate", 20), (10, "cell", None, 70))  # killed after a cell
    write_log(tmp_path, "c-1", (20, "start", "generate", 5), (21, "end", "generate", 5), (21, "start", "score", 5))
    write_log(tmp_path, "d-1", (23, "scored", "score", 30), (25, "scored", "score", 40), seconds=1)  # by a worker
    found = read_stages(tmp_path)
    assert found["generate"] == StageCost(seconds=11, peak_memory=70)  # 0 to 10, 20 to 21
    assert found["score"] == StageCost(seconds=3, peak_memory=40)  # the first took a second: 22 to 25


@pytest.mark.parametrize(
    "text", ["", "{", "[]\n", '{"time": 1, "event": "start"}\n', '{"event": "start"}\n', '{"time": "x", "event": 1}\n']
)
def test_a_damaged_log_counts_for_nothing(text, tmp_path):
    write_log(tmp_path, "a-1", (0, "start", "generate", 10), (2, "end", "generate", 10))
    (tmp_path / "logs" / "b-1.jsonl").write_text(text, encoding="utf-8")
    assert read_stages(tmp_path) == {"generate": StageCost(seconds=2, peak_memory=10)}


def test_the_manifest_has_it_and_stays_as_old_as_the_start(tmp_path):
    run = Run(tmp_path)
    record_stages(run)  # nothing to write into
    run.write_manifest(toy_manifest())
    before = run.manifest_path.read_bytes()
    record_stages(run)
    assert run.manifest_path.read_bytes() == before
    assert b"stages" not in before
    write_log(tmp_path, "a-1", (0, "start", "generate", 10), (2, "end", "generate", 10))
    started = run.manifest_path.stat().st_mtime_ns
    record_stages(run)
    assert run.manifest_path.stat().st_mtime_ns == started
    assert run.manifest().stages == {"generate": StageCost(seconds=2, peak_memory=10)}
    assert Manifest.model_validate(run.manifest().to_json()) == run.manifest()


def test_a_run_says_what_it_took(tmp_path):
    words = "run --suite mini --methods human --tasks topic --languages am --limit 2 --classifier tfidf"
    assert steerboard(*words.split(), "--run", tmp_path).code == 0
    found = [(line["event"], line.get("stage")) for line in lines(tmp_path)]
    cells = len(list(tmp_path.glob("cells/*/scores.json")))
    assert found[0] == ("start", "generate")
    assert found.count(("cell", None)) == found.count(("scored", "score")) == cells > 0
    assert found[-1] == ("end", "score")
    stages = json.loads((tmp_path / "manifest.json").read_bytes())["stages"]
    assert {*stages} == {"generate", "score"}
    assert all(stage["seconds"] >= 0 and stage["peak_memory"] > 10_000_000 for stage in stages.values())
    shown = steerboard("status", tmp_path)
    assert "memory" in shown.out
    assert "generate" in next(line for line in shown.out.splitlines() if line.startswith("memory"))
    assert json.loads(steerboard("status", tmp_path, "--json").out)["stages"] == stages
