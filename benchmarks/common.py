"""What the benchmarks share: both sides of a claim measured in turns, and one JSON line per claim."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def options(doc: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """Return a parser with the options of every script: ``--device`` and ``--repeats``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"measurements of each side (default: {repeats})")
    return parser


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    name: str,
    ours: Callable[[], Any],
    other: Callable[[], Any],
    repeats: int,
    *,
    same: bool = True,
    bar: str = "",
    measure: Callable[[Callable[[], Any]], float] = timed,
) -> dict[str, Any]:
    """Measure both sides in turns; print and return how many times longer the other side takes.

    The first call of each is not measured: it warms up, and shows that both give the same where they must (``same``).
    ``measure`` returns the cost of a call, by default its seconds. ``bar``: what the ratio should be, in words.
    """
    first, second = ours(), other()
    if same and first != second:
        raise SystemExit(f"{name}: the two sides do not give the same")
    pairs = [(measure(ours), measure(other)) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in pairs)
    ratio = statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)
    found = {
        "name": name,
        "ratio": round(ratio, 3),
        "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
        "seconds": [round(statistics.median(side), 4) for side in zip(*pairs, strict=True)],
        "bar": bar,
        "repeats": repeats,
    }
    print(f"{name}: {ratio:.2f}x (pairs {ratios[0]:.2f} to {ratios[-1]:.2f}, n = {repeats})", flush=True)
    return found


def report(results: Sequence[dict[str, Any]], device: str = "cpu") -> None:
    """Print one JSON line per result, with the machine and the versions."""
    versions = {name: version(name) for name in ("torch", "transformers", "numpy", "scikit-learn")}
    for result in results:
        print(json.dumps({**result, "device": device, "machine": machine(device), "versions": versions}), flush=True)


def machine(device: str = "cpu") -> str:
    """Return the processor, the number of cores that may be used and the GPU, if one is."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = f"{names[0] if names else platform.processor()}, {cores} cores"
    if device.startswith("cuda"):
        import torch

        words += f", {torch.cuda.get_device_name(device)}"
    return words


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
