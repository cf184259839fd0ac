"""What the processes of a run did, as JSON lines: ``logs/HOST-PID.jsonl``, a file per process that is only added to.

A line has the time, the event and the peak of the process's memory so far, so that also one that is killed has left
what it took: ``start`` and ``end`` of a stage, ``fit``, ``cell`` and ``scored`` with their seconds, ``error``.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, in_words
from harness.core.machine import peak_memory
from harness.core.reading import read_jsonl
from harness.core.records import StageCost
from harness.core.redaction import hide_secrets
from harness.core.store import Run
from harness.runner.claims import Claims

LOGS = "logs"


def log_event(run: Path, event: str, **fields: Any) -> None:
    """Add a line to the log of this process; nothing happens where it cannot be written."""
    line: dict[str, Any] = {"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")}
    line |= {"event": event, **fields, "peak_memory": peak_memory()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        line["peak_gpu_memory"] = int(torch.cuda.max_memory_allocated())
    data = hide_secrets(json.dumps(line, ensure_ascii=False)).encode("utf-8", "replace") + b"\n"
    path = run / LOGS / f"{socket.gethostname()}-{os.getpid()}.jsonl"
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, data)  # at once, so that no other line is in it
        finally:
            os.close(handle)


@contextmanager
def logged_stage(run: Path, stage: str, cells: int) -> Iterator[None]:
    """Log start and end of a stage that works on so many cells, or the error that ends it."""
    log_event(run, "start", stage=stage, cells=cells)
    began = time.monotonic()
    try:
        yield
    except BaseException as error:
        log_event(run, "error", stage=stage, reason=in_words(error))
        raise
    log_event(run, "end", stage=stage, seconds=round(time.monotonic() - began, 3))


def record_stages(run: Run) -> None:
    """Write what the stages took, by all logs of the run, into its manifest, whose time of change stays.

    That time is the one at which the run was last started.
    """
    if not run.exists():
        return
    with Claims(run.path) as claims, claims.exclusive("manifest"):  # others may add to it
        manifest = run.manifest()
        found = read_stages(run.path)
        if not found or found == manifest.stages:
            return
        started = run.manifest_path.stat().st_mtime_ns
        run.write_manifest(manifest.model_copy(update={"stages": found}))
        with suppress(OSError):
            os.utime(run.manifest_path, ns=(started, started))


def read_stages(run: Path) -> dict[str, StageCost]:
    """Return stage -> what it took, by the logs of all processes; a file that is damaged counts for nothing."""
    spans: dict[str, list[tuple[float, float]]] = {}
    peaks: dict[str, list[dict[str, int]]] = {}
    for path in sorted((run / LOGS).glob("*.jsonl")):
        with suppress(UserError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            for stage, begin, end, peak in _spans(path):
                spans.setdefault(stage, []).append((begin, end))
                peaks.setdefault(stage, []).append(peak)
    return {
        stage: StageCost(
            seconds=round(_length(spans[stage]), 3),
            **{name: value for name in ("peak_memory", "peak_gpu_memory") if (value := _largest(peaks[stage], name))},
        )
        for stage in spans
    }


def _spans(path: Path) -> list[tuple[str, float, float, dict[str, int]]]:
    """Return for each stage that a process began: its name, Unix times of begin and end, and the peaks of memory."""
    found: list[tuple[str, float, float, dict[str, int]]] = []
    for line in read_jsonl(path):
        now = datetime.datetime.fromisoformat(line["time"]).timestamp()
        peak = {name: int(line[name]) for name in ("peak_memory", "peak_gpu_memory") if line.get(name)}
        stage, event = line.get("stage"), line["event"]
        if event == "start" or not found or (stage and stage != found[-1][0]):
            found.append((str(stage), now - float(line.get("seconds", 0)), now, peak))
        else:
            found[-1] = (found[-1][0], found[-1][1], now, peak)
    return found


def _length(spans: list[tuple[float, float]]) -> float:
    """Return the seconds in which at least one of several spans lasts."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _largest(peaks: list[dict[str, int]], name: str) -> int:
    return max((peak.get(name, 0) for peak in peaks), default=0)
