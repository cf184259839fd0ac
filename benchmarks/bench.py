"""Run the benchmarks, keep their results in results.jsonl, and write RESULTS.md from them; see ``steerboard bench``."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
SHARED = HERE.parent.parent / "shared"  # stand-ins of real models and human text, where they are
MADE = {"resume", "board", "cells"}  # their files are made up first

# name -> script and its options; {device} is filled in
BENCHMARKS: dict[str, list[str]] = {
    "packed": ["generation.py", "packed"],
    "steered": ["generation.py", "steered", "--device", "{device}"],
    "alone": ["generation.py", "alone", "--device", "{device}"],
    "queue": ["generation.py", "queue", "--device", "{device}"],
    "batching": ["continuous_batching.py", "--device", "{device}"],
    "precision": ["half_precision.py", "--device", "{device}"],
    "fitting": ["fitting.py", "--device", "{device}"],
    "frozen": ["frozen_seeds.py"],
    "finetuning": ["finetuning.py", "--device", "{device}", "--repeats", "5"],
    "scoring": ["metrics.py", "--alone"],
    "workers": ["workers.py"],
    "resume": ["resume.py", "measure", "{scratch}/resume"],
    "cells": ["many_cells.py", "measure", "{scratch}/cells"],
    "board": ["board.py", "measure", "{scratch}/board"],
    "scale": ["scale.py"],
}
# Real models and text, where they lie beside the checkout: name -> more options
REAL: dict[str, list[str]] = {
    "alone": ["--model", "{shared}/models/devlm"],
    "queue": ["--model", "{shared}/models/devlm"],
    "fitting": ["--model", "{shared}/models/devlm"],
    "workers": ["--model", "{shared}/models/devlm"],
    "frozen": ["--model", "{shared}/models/devenc", "--data", "{shared}/data"],
    "finetuning": ["--model", "{shared}/models/devenc", "--data", "{shared}/data"],
}
CPU_ONLY = {"packed", "frozen", "scoring", "workers", "resume", "cells", "board", "scale"}


def main() -> int:
    """Run what is named, or all."""
    parser = argparse.ArgumentParser(prog="steerboard bench", description="Measure claims of speed; see benchmarks/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(BENCHMARKS)):
        print(f"error: unknown benchmark {unknown[0]!r}; valid: {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    skipped = CPU_ONLY if given.device != "cpu" else set()
    names = [name for name in BENCHMARKS if name not in skipped and (not given.names or name in given.names)]
    with tempfile.TemporaryDirectory() as scratch:
        failed = [
            name for i, name in enumerate(names, 1) if not run(name, given.device, f"{i} of {len(names)}", scratch)
        ]
    write_page()
    print(f"{len(names) - len(failed)} of {len(names)} measured; results: {HERE.name}/RESULTS.md")
    if failed:
        print(
            f"error: failed: {', '.join(failed)}. Run them again: steerboard bench {' '.join(failed)}", file=sys.stderr
        )
    return 1 if failed else 0


def run(name: str, device: str, number: str, scratch: str) -> bool:
    """Run one benchmark, pass its output through and keep its results; return whether it succeeded."""
    given = [*BENCHMARKS[name], *(REAL.get(name, ()) if SHARED.is_dir() and device == "cpu" else ())]
    script, *words = (word.format(device=device, scratch=scratch, shared=SHARED) for word in given)
    if name in MADE:
        subprocess.run([sys.executable, str(HERE / script), "make", words[-1]], check=True)
    print(f"{name} ({number}): {script} {' '.join(words)}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, str(HERE / script), *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    for line in process.stdout:
        if line.startswith("{"):
            found.append({"benchmark": name, "date": str(datetime.date.today()), **json.loads(line)})
        else:
            print(f"  {line}", end="", flush=True)
    done = process.wait() == 0
    if done:
        kept = [one for one in read_results() if (one["benchmark"], one["device"]) != (name, device)]
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in [*kept, *found])
        RESULTS.with_suffix(".new").write_text(text, encoding="utf-8")
        RESULTS.with_suffix(".new").replace(RESULTS)
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return done


def read_results() -> list[dict[str, Any]]:
    """Return the kept results, in the order of the benchmarks."""
    if not RESULTS.is_file():
        return []
    found = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    order = list(BENCHMARKS)
    return sorted(found, key=lambda one: order.index(one["benchmark"]) if one["benchmark"] in order else len(order))


def write_page() -> None:
    """Write RESULTS.md."""
    results = read_results()
    names = list(dict.fromkeys((one["benchmark"], one["name"]) for one in results))
    rows = []
    for benchmark, name in names:
        by_device = {
            one["device"].split(":")[0]: one for one in results if (one["benchmark"], one["name"]) == (benchmark, name)
        }
        cells = [figure(by_device.get(device)) for device in ("cpu", "cuda")]
        bar = next(iter(by_device.values())).get("bar", "")
        rows.append(f"| `{benchmark}` | {name} | {bar} | {' | '.join(cells)} |")
    machines = sorted({f"{one['device']}: {one['machine']}; {versions(one)}" for one in results})
    page = (HERE / "results-head.md").read_text(encoding="utf-8")
    table = ["| benchmark | what, against what | bar | CPU | GPU |", "|---|---|---|---|---|", *rows]
    (HERE / "RESULTS.md").write_text("\n".join([page, *table, "", *(f"- {m}" for m in machines), ""]), encoding="utf-8")


def figure(result: dict[str, Any] | None) -> str:
    """Return the figure of a claim in words."""
    if result is None:
        return "not measured"
    if "ratio" not in result:
        return f"{result['figure']} ({result['date']})"
    low, high = result["spread"]
    return f"**{result['ratio']:.2f}x** ({low:.2f} to {high:.2f}, n = {result['repeats']}; {result['date']})"


def versions(result: dict[str, Any]) -> str:
    """Return the versions of a result in words."""
    return ", ".join(f"{name} {number}" for name, number in result["versions"].items())


if __name__ == "__main__":
    raise SystemExit(main())
