"""Time, memory and size of the board, on made-up results.

    python benchmarks/board.py make DIR [--entries 200] [--seeds 3] [--texts 2]
    python benchmarks/board.py measure DIR [--repeats 3]

``make`` writes run folders of the suite steer11, DIR/1, DIR/2, ..., each of one model, with all that a
finished and scored run with the classifier tfidf has (``made_up.py``). Of the texts only ``--texts`` per
label are in the files, although the manifest and the scores say all. ``measure`` builds the board of DIR in
a process of its own into DIR.site, and prints seconds, peak memory and the size of the first page; where
there are chromium and playwright also the page's first paint, and the slowest sort by a column.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import report
from made_up import Place, Row, manifest_of, rows_of, write_cell, write_plain

from harness.core.store import Run
from harness.data.suite import load_suite
from harness.runner.plan import select_cells

CHROMIUM = Path("/usr/bin/chromium")
SORT = "table.ranking thead th button"
PAINT = "performance.getEntriesByType('paint').find(e => e.name == 'first-contentful-paint').startTime"
CLICKS = """selector => {
  const times = [...document.querySelectorAll(selector)].map(button => {
    const start = performance.now();
    button.click();
    document.body.offsetHeight;  // the layout is part of it
    return performance.now() - start;
  });
  return Math.max(...times);
}"""


def make(folder: Path, entries: int, seeds: int, texts: int) -> None:
    """Write the run folders; refuse a folder that is there."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already. Remove it, or name another folder.")
    started = time.perf_counter()
    suite = load_suite("steer11")
    suite = suite.model_copy(update={"seeds": list(range(1, seeds + 1))})
    selection = select_cells(suite)
    places = [
        Place(suite, selection, task, language, seed)
        for task in selection.tasks
        for language in selection.languages
        for seed in selection.seeds
    ]
    with ProcessPoolExecutor() as pool:
        for number, rows in enumerate(rows_of(entries), 1):
            run = Run(folder / str(number))
            jobs = [pool.submit(write_cells, run, rows, place, texts) for place in places]
            for job in jobs:
                job.result()
            write_plain(run.manifest_path, manifest_of(suite, selection, rows).to_json())
    seconds = time.perf_counter() - started
    print(f"{entries} entries, {entries * len(places)} cells in {seconds:.0f} s")


def write_cells(run: Run, rows: list[Row], place: Place, texts: int) -> None:
    """Write the cells of all entries of a run in one place."""
    for row in rows:
        write_cell(run, row, place, texts)


def build(folder: Path, site: Path) -> tuple[float, float, float]:
    """Build the board in its own process; return seconds, those of processors, and the MB of its peak (Linux)."""
    runs = sorted(str(path.parent) for path in folder.glob("*/manifest.json"))
    program = Path(sys.executable).with_name("steerboard")
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [program, "board", "build", *runs, "--out", site]
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, megabytes(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit("the board was not built")
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, peak


def megabytes(pid: int) -> float:
    """Return the memory of a process and those that it forked, which share most of it; 0 where it has ended."""
    total = 0.0
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (str(pid), *children):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def browse(page: Path) -> dict[str, float]:
    """Return milliseconds to the first paint of a page and of its slowest sort; nothing without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if not CHROMIUM.is_file():
        return {}
    with sync_playwright() as play:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=options)
        shown = browser.new_page(viewport={"width": 1280, "height": 900})
        shown.goto(page.resolve().as_uri())
        found = {"first_paint_ms": float(shown.evaluate(PAINT))}
        if shown.locator(SORT).count():
            found["sort_ms"] = float(shown.evaluate(CLICKS, SORT))
        browser.close()
    return found


def measure(folder: Path, repeats: int) -> None:
    """Print what the board of a folder takes: medians with their spread, and the largest peak."""
    site = folder.with_name(f"{folder.name}.site")
    built = [build(folder, site) for _ in range(repeats)]
    seconds = sorted(each for each, _, _ in built)
    page = site / "index.html"
    seen = [browse(page) for _ in range(repeats)]
    result: dict[str, Any] = {
        "name": "board build",
        "seconds": round(statistics.median(seconds), 2),
        "spread": [round(seconds[0], 2), round(seconds[-1], 2)],
        "processor_seconds": round(statistics.median(busy for _, busy, _ in built), 2),
        "peak_mb": round(max(peak for _, _, peak in built)),
        "page_mb": round(page.stat().st_size / 1e6, 3),
        "files": sum(path.is_file() for path in site.rglob("*")),
        **{name: round(statistics.median(one[name] for one in seen), 1) for name in seen[0]},
        "repeats": repeats,
    }
    paint = f", first paint {result['first_paint_ms']:.0f} ms" if "first_paint_ms" in result else ""
    result["figure"] = (
        f"{result['seconds']} s ({result['spread'][0]} to {result['spread'][1]}, n = {repeats}), "
        f"{result['peak_mb']} MB, first page {result['page_mb']} MB{paint}"
    )
    result["bar"] = "<= 6 s, < 2 MB, < 300 ms"
    print(f"board build: {result['figure']}")
    report([result])


def main() -> None:
    """Make results, or measure the board of those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making, measuring = commands.add_parser("make"), commands.add_parser("measure")
    making.add_argument("folder", type=Path)
    making.add_argument("--entries", type=int, default=200)
    making.add_argument("--seeds", type=int, default=3)
    making.add_argument("--texts", type=int, default=2)
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.command == "make":
        make(given.folder, given.entries, given.seeds, given.texts)
    else:
        measure(given.folder, given.repeats)


if __name__ == "__main__":
    main()
