"""Two workers against one process on the same run: fits, texts and scores, from the command to its end.

    python benchmarks/workers.py [--model FOLDER] [--languages am,he] [--limit 8] [--repeats 3]

Both sides are ``steerboard run`` of the suite mini in a process of its own, with an empty cache of readings, on as many
cores as the benchmark may use: one process with all of them as threads, two workers with half of them each. Texts and
scores must be the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import compare, options, report

COMPARED = ("generations.jsonl", "scores.json")


def run(folder: Path, words: list[str], workers: int) -> str:
    """Run every cell afresh; return a hash of the texts and scores."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "steerboard", "run", "--suite", "mini", "--yes", "--run", str(folder / "run")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "STEERBOARD_CACHE": str(folder / "cache")}
    subprocess.run([*command, *words, "--workers", str(workers)], check=True, capture_output=True, env=env)
    found = hashlib.sha256()
    for path in sorted((folder / "run" / "cells").glob("*/*")):
        if path.name in COMPARED:
            found.update(f"{path.parent.name}/{path.name}".encode() + path.read_bytes())
    return found.hexdigest()


def main() -> None:
    """Measure both in turns."""
    parser = options(__doc__, repeats=3)
    parser.add_argument("--model", help="folder of a model (default: the one that ships)")
    parser.add_argument("--languages", default="am,he", help="of the suite (default: am,he)")
    parser.add_argument("--limit", default="8", help="texts per label (default: 8)")
    given = parser.parse_args()
    words = ["--languages", given.languages, "--limit", given.limit, "--device", given.device]
    words += ["--model", given.model] if given.model else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = compare(
            f"a run with two workers, against one process ({given.languages}, {given.limit} texts per label)",
            lambda: run(folder, words, 2),
            lambda: run(folder, words, 1),
            given.repeats,
            bar="at least 1x",
        )
    report([found], given.device)


if __name__ == "__main__":
    main()
