"""A run of 100,000 cells: seconds and memory of planning, claiming, listing and resuming it.

    python benchmarks/many_cells.py make DIR [--cells 100000]
    python benchmarks/many_cells.py measure DIR

``make`` writes the suite of ``scale.py`` and a finished cell of two short texts for every cell of its plan. ``measure``
runs each in a process of its own: ``plan``, ``status``, and the repeated generation of ``run``, which finds every cell
finished. Claims are taken and given back while 1,000 others are held, as many as 20 workers of 50 cells hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import report
from made_up import WHEN, write_plain
from scale import suite_of

from harness.core.files import write_text
from harness.core.records import CellStatus
from harness.runner.claims import Claims
from harness.runner.prepare import RunOptions, plan_run

HELD, CLAIMED = 1000, 10_000
RESUME = """
import sys
from pathlib import Path
from rich.console import Console
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, plan_run
options = RunOptions(sys.argv[1], run=Path(sys.argv[2]))
plan = plan_run(options, scored=False)
with plan.run.lock():
    stage = GenerationStage.start(plan, options, Console(quiet=True))
assert not stage.count and stage.states == {"ok": len(plan.cells)}, stage.states
assert "torch" not in sys.modules
"""


def make(folder: Path, cells: int) -> None:
    """Write suite and run; refuse a folder that is there."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already. Remove it, or name another folder.")
    folder.mkdir(parents=True)
    options = RunOptions(str(suite_of(cells, folder)), run=folder / "run")
    plan = plan_run(options, scored=False)
    write_text(plan.run.manifest_path, json.dumps(plan.manifest(options).to_json()))
    for cell in plan.cells:
        labels = plan.suite.task(cell.key.task, cell.key.language).labels
        rows = [{"index": 0, "label": label, "text": f"{label} {cell.id}", "finish_reason": "stop"} for label in labels]
        target = plan.run.texts_path(cell.id)
        target.parent.mkdir(parents=True)
        target.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        status = CellStatus(
            cell=cell.key,
            state="ok",
            finished=WHEN,
            prompt_tokens=40,
            new_tokens=6,
            fit={},
            generations_sha256=plan.run.generations_digest(cell.id),
        )
        write_plain(plan.run.cell(cell.id) / "status.json", status.to_json())
    print(f"{len(plan.cells)} cells")


def command(*words: object) -> dict[str, float]:
    """Return the seconds and the peak of memory of a Python command; the second of two calls, with warm caches."""
    found: dict[str, float] = {}
    for _ in range(2):
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
        _, code, used = os.wait4(process.pid, 0)
        if code:
            raise SystemExit(f"{words} ended with code {os.waitstatus_to_exitcode(code)}")
        found = {"seconds": round(time.perf_counter() - started, 2), "megabytes": round(used.ru_maxrss / 1024)}
    return found


def claims_per_second() -> float:
    """Return how many names a worker claims and gives back in a second, while others are held."""
    with tempfile.TemporaryDirectory() as folder, Claims(Path(folder)) as claims:
        held = [f"{number:016x}" for number in range(HELD)]
        for name in held:
            claims.take(name)
        started = time.perf_counter()
        for number in range(HELD, HELD + CLAIMED):
            name = f"{number:016x}"
            assert claims.take(name)
            claims.release(name)
        return CLAIMED / (time.perf_counter() - started)


def measure(folder: Path) -> None:
    """Print what every command takes, and a line of JSON for each."""
    suite, run = folder / "scale.yaml", folder / "run"
    cells = len(list((run / "cells").iterdir()))
    new = tempfile.mkdtemp()
    parts: dict[str, tuple[dict[str, Any], str]] = {
        "plan": (command("-m", "steerboard", "plan", "--suite", suite, "--run", f"{new}/run"), "linear in cells"),
        "status": (command("-m", "steerboard", "status", run), "< 3 s"),
        "resume": (command("-c", RESUME, suite, run), "linear in cells, no model loaded"),
    }
    results = [
        {"name": f"{name} of {cells} cells", **found, "figure": figure(found), "bar": bar, "repeats": 1}
        for name, (found, bar) in parts.items()
    ]
    rate = claims_per_second()
    claimed = f"{rate:,.0f} claims a second while {HELD:,} are held"
    results.append({"name": "claims", "figure": claimed, "rate": round(rate), "bar": "", "repeats": 1})
    for result in results:
        print(f"{result['name']}: {result['figure']}", flush=True)
    report(results)


def figure(found: dict[str, Any]) -> str:
    """Return seconds and memory in words."""
    return f"{found['seconds']} s, {found['megabytes']} MB"


def main() -> None:
    """Make the run, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=100_000)
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, given.cells)
    else:
        measure(given.folder)


if __name__ == "__main__":
    main()
