"""``steerboard bench``: measure how fast steerboard is on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import argument, option
from harness.core.errors import UserError

BENCH = Path(__file__).resolve().parents[2] / "benchmarks" / "bench.py"


def bench(
    names: Annotated[list[str] | None, argument("NAME", "Benchmarks. Default: all.")] = None,
    device: Annotated[str, option("DEVICE", "cpu, cuda, cuda:1.")] = "cpu",
) -> None:
    """Measure the claims of speed, each side of a claim in turns.

    Works in a checkout, and writes benchmarks/results.jsonl and benchmarks/RESULTS.md there. Close other programs
    first: all of them take about half an hour on two cores. Example:

        steerboard bench packed steered
    """
    if not BENCH.is_file():
        raise UserError("the benchmarks are not part of the installed package. Run this command in a checkout.")
    from harness.core.devices import choose_device

    choose_device(device)
    command = [sys.executable, str(BENCH), *(names or []), "--device", device]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603  # our own script
