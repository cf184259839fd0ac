"""Time and memory of resuming a run that is finished: nothing is left to do, and no model is loaded.

    python benchmarks/resume.py make DIR [--cells 10000]
    python benchmarks/resume.py measure DIR [--repeats 3]

``make`` writes a run of the suite mini with as many seeds as that takes: a finished and scored cell with made-up
texts and scores (``made_up.py``) for every cell of its plan. ``measure`` repeats the command that would have made it,
``steerboard run``, in a process of its own: seconds, those of processor, peak memory, and whether torch was loaded.
Of a small run the command prints the results in the end; ``results`` is the part of it that this takes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import report
from made_up import (
    CLASSIFIER,
    SPECS,
    WHEN,
    Place,
    Row,
    audit_of,
    generations,
    scores_of,
    tested,
    write_plain,
)
from pydantic_core import to_json

from harness.core.cells import Cell, entry_of
from harness.core.files import write_text
from harness.core.records import CellScores, CellStatus, PartRecord
from harness.core.store import Run
from harness.data.suite import suite_files
from harness.runner.prepare import RunOptions, plan_run
from harness.runner.score import ScoringStage

PROGRAM = """
import json, sys, time
from harness.cli import options
from harness.cli.main import main
shown, original = [], options.summarise
def watched(folder):
    started = time.perf_counter()
    original(folder)
    shown.append(time.perf_counter() - started)
options.summarise = watched
try:
    main()
finally:
    print(json.dumps({"torch": "torch" in sys.modules, "results": sum(shown)}))
"""


def suite_of(folder: Path, cells: int) -> Path:
    """Write the suite mini with so many seeds that its plan has at least ``cells`` cells; return its path."""
    path = suite_files()["mini"]
    text = path.read_text(encoding="utf-8")
    three = len(plan_run(RunOptions(suite="mini", run=folder / "run"), scored=False).cells)
    seeds = list(range(1, math.ceil(3 * cells / three) + 1))
    for old, new in (
        ("seeds: [1, 2, 3]\nmethods", f"seeds: {seeds}\nmethods"),
        ("data: mini/data", f"data: {path.parent / 'mini/data'}"),
        ("model: mini/pocketlm", f"model: {path.parent / 'mini/pocketlm'}"),
    ):
        if old not in text:
            raise SystemExit(f"the suite mini has no {old!r}: change this script")
        text = text.replace(old, new)
    write_text(folder / "suite.yaml", text)
    return folder / "suite.yaml"


def make(folder: Path, cells: int) -> None:
    """Write suite and run; refuse a folder that is there."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already. Remove it, or name another folder.")
    started = time.perf_counter()
    options = RunOptions(suite=str(suite_of(folder, cells)), run=folder / "run")
    plan = plan_run(options)
    stage = ScoringStage(plan, None)  # type: ignore[arg-type]
    assert plan.selection is not None
    places: dict[tuple[str, str, int], Place] = {}
    for cell in plan.cells:
        key = cell.key
        axes = (key.task, key.language, key.seed)
        place = places.setdefault(axes, Place(plan.suite, plan.selection, *axes))
        write_cell(plan.run, cell, place, stage)
    write_plain(plan.run.manifest_path, plan.manifest(options).to_json())
    print(f"{len(plan.cells)} cells in {time.perf_counter() - started:.0f} s")


def write_cell(run: Run, cell: Cell, place: Place, stage: ScoringStage) -> None:
    """Write all files of a finished and scored cell; plainly, for there are thousands."""
    row = Row(entry_of(cell.key), 0.0, 0.0)
    rng = place.rng(place.seed, row.name)
    texts = generations(place, rng, place.size)
    digest = hashlib.sha256(texts).hexdigest()
    kept, known = tested(row, place, rng)
    parts = {
        part.name: PartRecord(signature=part.signature, metrics=[spec.name for spec in SPECS if spec.part == part.name])
        for part in stage.plan.parts
    }
    record = CellScores(
        cell_id=cell.id,
        generations_sha256=digest,
        protocol=stage.protocol(cell),
        parts=parts,
        scores=scores_of(row, place, rng, known),
    )
    status = CellStatus(
        cell=cell.key, state="ok", finished=WHEN, generations_sha256=digest, prompt_tokens=0, new_tokens=0, fit={}
    )
    folder = run.cell(cell.id)
    folder.mkdir(parents=True)
    (folder / "generations.jsonl").write_bytes(texts)
    write_plain(folder / "status.json", status.to_json())
    write_plain(folder / "scores.json", record.to_json())
    for name, found in (("predictions", {CLASSIFIER: kept}), ("audit", audit_of(row, place, rng, place.texts))):
        (folder / f"{name}.json.gz").write_bytes(packed(found))


def packed(value: object) -> bytes:
    """Return compressed JSON, always the same bytes."""
    import gzip

    return gzip.compress(to_json(value), 1, mtime=0)


def resume(folder: Path) -> dict[str, Any]:
    """Repeat the command in a process of its own; return what it took."""
    words = ["run", "--suite", folder / "suite.yaml", "--run", folder / "run"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"the run does not resume: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "seconds": seconds, "processor": used, "peak_mb": after.ru_maxrss / 1024}


def measure(folder: Path, repeats: int) -> None:
    """Print what resuming takes, and a line of JSON."""
    cells = len(Run(folder / "run").cell_ids())
    written = {path: path.stat().st_mtime_ns for path in (folder / "run").glob("cells/*/*")}
    found = [resume(folder) for _ in range(repeats + 1)][1:]  # the first one warms the cache of the disk
    if written != {path: path.stat().st_mtime_ns for path in (folder / "run").glob("cells/*/*")}:
        raise SystemExit("a cell was written again: the run was not finished")
    result = {
        "name": f"resume of a finished run of {cells} cells",
        **{
            name: round(statistics.median(one[name] for one in found), 2)
            for name in ("seconds", "results", "processor", "peak_mb")
        },
        "spread": [round(pick(one["seconds"] for one in found), 2) for pick in (min, max)],
        "torch": any(one["torch"] for one in found),
        "repeats": repeats,
        "bar": "<= 3 s, no model loaded",
    }
    result["figure"] = (
        f"{result['seconds']} s ({result['spread'][0]} to {result['spread'][1]}, n = {repeats}), "
        f"{result['peak_mb']:.0f} MB, torch {'' if result['torch'] else 'not '}loaded"
    )
    print(f"{result['name']}: {result['figure']}")
    report([result])


def main() -> None:
    """Make the run, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.folder, arguments.cells)
    else:
        measure(arguments.folder, arguments.repeats)


if __name__ == "__main__":
    main()
