"""Results do not change by accident: cell ids, texts, scores and board JSON equal those of commit 846e0e3.

``golden/run.tar.gz`` is a run of the mini suite as it was then (``golden/mini.yaml``), written by that commit;
``golden/results.json.gz`` is the board's JSON of that run and of ``submissions/``. A change that is meant to change
results writes them again and says so here:

- The language identifier gives the same answer on every processor. The run's scores stayed equal but for its
  signature; ``submissions/`` were scored again, and with them the board's JSON was written again.
- The mini suite became smaller (version 2). ``submissions/`` and the board's JSON were written again.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.helpers import MINI, ROOT, steerboard

GOLDEN = Path(__file__).parent / "golden"
COMMAND = "--languages am,he --tasks sentiment --methods zero-shot,language --settings zero-shot --seeds 1"
_TRAINED = "+".join(f"{code}:100" for code in ["am", "cs", "da", "de", "en", "he", "id", "jv", "mt", "sk", "sl", "su"])
_RECIPE = "tfidf-char_wb-1-3{}+logreg-C10|benefit:2|neighbours:3|train:" + _TRAINED + "|version:{}"
RENAMED = {_RECIPE.format("", 3): _RECIPE.format("-df3", 4)}
PROGRAM = {"generator", "schema", "git_commit", "versions", "definition"}  # said about the program and metrics


def unequal(old: Any, new: Any, path: str = "") -> list[str]:
    """Return where two JSON values differ, but for a last digit that another machine may round differently."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted((old.keys() | new.keys()) - PROGRAM)
        return [line for key in keys for line in unequal(old.get(key), new.get(key), f"{path}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new, strict=True)) for line in unequal(*pair, f"{path}[{i}]")]
    if isinstance(old, float) and isinstance(new, float | int):
        return [] if new == pytest.approx(old, rel=1e-9, abs=1e-12) else [f"{path}: {old} -> {new}"]
    return [] if old == new or RENAMED.get(str(old)) == new else [f"{path}: {old!r:.80} -> {new!r:.80}"]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as version 0.1.0 wrote it."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "run.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The command that wrote the run."""
    suite = tmp_path_factory.mktemp("suite") / "mini.yaml"
    shutil.copy(GOLDEN / "mini.yaml", suite)
    (suite.parent / "mini").symlink_to(MINI)  # a suite names its data and model relative to its file
    return ["run", "--suite", suite, *COMMAND.split(), "--run"]


def test_equal_cells_texts_and_scores(before, command, tmp_path):
    steerboard(*command, tmp_path / "run")
    cells = {path.name: path for path in (tmp_path / "run" / "cells").iterdir()}
    assert sorted(cells) == sorted(path.name for path in (before / "cells").iterdir())
    for name, cell in cells.items():
        old = before / "cells" / name
        assert (cell / "generations.jsonl").read_bytes() == (old / "generations.jsonl").read_bytes()
        for file in ("predictions.json.gz", "audit.json.gz"):
            assert json.loads(gzip.decompress((cell / file).read_bytes())) == json.loads(
                gzip.decompress((old / file).read_bytes())
            )
        scores = [json.loads((folder / "scores.json").read_bytes()) for folder in (old, cell)]
        assert unequal(*scores) == []


def test_an_older_run_is_read_and_goes_on(before, command):
    texts = {path: path.read_bytes() for path in before.rglob("generations.jsonl")}
    outcome = steerboard(*command, before)
    assert outcome.code == 0
    assert {path: path.read_bytes() for path in before.rglob("generations.jsonl")} == texts


def test_equal_board(before, tmp_path):
    submissions = ROOT / "submissions"
    outcome = steerboard("board", "build", before, submissions, "--out", tmp_path, "--date", "2026-11-29")
    assert outcome.code == 0
    old = json.loads(gzip.decompress((GOLDEN / "results.json.gz").read_bytes()))
    new = json.loads((tmp_path / "results.json").read_bytes())
    assert unequal(old, new) == []


def test_a_difference_would_be_seen():
    assert unequal({"a": [1.0, "x"]}, {"a": [1.0 + 1e-6, "y"]}) == [".a[0]: 1.0 -> 1.000001", ".a[1]: 'x' -> 'y'"]
