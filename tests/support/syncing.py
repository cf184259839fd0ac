"""Small runs to be pushed and pulled, and a look at what a storage holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from harness.core.cells import cell_id, entry_of
from harness.core.interventions import Intervention, Steering
from harness.core.records import CellScores, CellStatus, PartRecord, Score, Selection
from harness.core.store import Run
from harness.data.suite import load_suite
from support.helpers import Outcome, contents, generations, key, steerboard, toy_manifest

SUITE = load_suite("mini").dump()
TEXTS = {"positive": ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד."], "negative": ["a", "b\u2028c"]}
STEERING = "0123456789abcdef"
STAYS = (".lock", "log.txt", "activations/x.safetensors", ".tmp")
"""How the names of files end that never travel."""


def selection(*languages: str) -> Selection:
    return Selection(
        languages=list(languages),
        tasks=["sentiment"],
        settings=["zero-shot"],
        seeds=[1],
        texts_per_label={"sentiment": 2},
    )


def cell_of(language: str) -> str:
    return cell_id(key(language=language))


def write_scores(run: Run, language: str, *scorers: str) -> None:
    """Score a cell by some scorers."""
    name = cell_of(language)
    score = Score(metric="macro_f1/tfidf", value=0.5, direction="up", unit="F1", signature="s")
    record = CellScores(
        cell_id=name,
        generations_sha256=run.generations_digest(name),
        protocol="p",
        parts={scorer: PartRecord(signature="s", metrics=[]) for scorer in scorers},
        scores=[score],
    )
    run.write_scores(record, {scorer: {"gold": [0, 1]} for scorer in scorers})


def write_run(folder: Path, *languages: str, texts: Any = TEXTS, scored: bool = True, **manifest: Any) -> Run:
    """Write a run with a finished cell per language, and a steering file with its cost."""
    run = Run(folder)
    fields = {"suite": SUITE, "selection": selection(*languages), "entries": [entry_of(key())], "created": "2026-01-01"}
    run.write_manifest(toy_manifest(**{**fields, **manifest}))
    item = Intervention("layer_output", 1, "add", np.arange(4, dtype=np.float32), 2.0, "raw", 1.0)
    run.write_steering(STEERING, Steering((item,), {"method": "language"}))
    (run.path / "steering" / f"{STEERING}.cost.json").write_text('{"schema": 1, "parts": {}}')
    for language in languages:
        run.write_cell(cell_of(language), CellStatus(cell=key(language=language), state="ok"), generations(texts))
        if scored:
            write_scores(run, language, "classifier/tfidf", "validity")
    return run


def stored(url: str) -> dict[str, bytes]:
    """Return what a storage holds."""
    fs, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{root}/"): fs.cat_file(name) for name in fs.find(root)}


def travelling(run: Run) -> dict[str, bytes]:
    """Return the files of a run that travel."""
    return {name: data for name, data in contents(run.path).items() if not name.endswith(STAYS)}


def push(run: Run, url: str, *options: str) -> Outcome:
    return steerboard("push", run.path, url, *options)


def pull(url: str, folder: Path, *options: str) -> Outcome:
    return steerboard("pull", url, folder, *options)
