"""Runs of one entry and the gate's commands on them."""

from __future__ import annotations

import json
from pathlib import Path

from harness.core.records import Selection
from harness.scoring.metrics import Metric
from support.helpers import steerboard
from support.toyruns import F1, ToyEntry, flat, selection, toy, write_run

LANGUAGES = ["am", "cs", "da", "de", "he", "id", "jv", "mt"]
CHOSEN: Selection = selection(LANGUAGES)
OTHER = selection(LANGUAGES, seeds=(4, 5, 6))


def scored(name: str, value: float, metric: Metric = F1, chosen=CHOSEN, wobble=(0, 0.01, -0.01)) -> ToyEntry:
    """Return an entry with one metric."""
    entry = toy(name)
    entry.scores[metric] = flat(value, chosen, wobble)
    return entry


def run_at(folder: Path, value: float = 0.6, chosen=CHOSEN, wobble=(0, 0.01, -0.01), **more) -> Path:
    """Write a run with one entry; other wobbles are of other texts."""
    return write_run(folder, [scored("m", value, chosen=chosen, wobble=wobble)], chosen, **more).path


def baseline(tmp_path: Path, *runs: Path, **options) -> Path:
    """Return a baseline file of runs, by default of ``run_at``."""
    out = tmp_path / "base.json.gz"
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = steerboard("gate", "calibrate", *(runs or [run_at(tmp_path / "old")]), "--out", out, *words)
    assert done.code == 0, done.err
    return out


def gate(run: Path, against: Path, *options) -> tuple[int, dict]:
    """Return exit code and report of a run."""
    done = steerboard("gate", run, "--against", against, "--format", "json", *options)
    assert not done.err, done.err
    return done.code, json.loads(done.out)


def only(found: dict) -> dict:
    """Return the only row of a report."""
    [line] = found["results"]
    return line
