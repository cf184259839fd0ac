"""Runs of the references of the mini suite, which load no model, and what a command says of bad input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.helpers import Outcome, steerboard

BASE = {
    "--suite": "mini",
    "--languages": "am",
    "--tasks": "sentiment",
    "--methods": "human,constant",
    "--seeds": "1",
    "--limit": "2",
}


def run_references(folder: Path, **changes: object) -> Outcome:
    """Run references of the mini suite, which load no model, with changed or further options."""
    options = {**BASE, **{"--" + name.replace("_", "-"): value for name, value in changes.items()}}
    return steerboard("run", "--run", folder, *(word for pair in options.items() for word in pair))


_FINISHED: list[Path] = []


def finished_references(factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of two cells, made once a process. Leave it as it is."""
    if not _FINISHED:
        folder = factory.mktemp("finished") / "run"
        outcome = run_references(folder)
        assert outcome.code == 0, outcome.err
        _FINISHED.append(folder)
    return _FINISHED[0]


def assert_line(outcome: Outcome, words: str) -> None:
    assert re.search(words, outcome.one_line()), outcome.err
