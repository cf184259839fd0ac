"""Fixtures: runs of strangers to be mutated, written once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.core.store import Run
from support.hostile import toy_run
from support.toyruns import selection


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run before anything is done to it."""
    return toy_run(tmp_path_factory.mktemp("good") / "run").path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is built sooner: one language, one seed."""
    return toy_run(tmp_path_factory.mktemp("tiny") / "run", selection(("am",), ("sentiment",), (1,))).path


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Run:
    """A copy to be mutated."""
    shutil.copytree(good, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def small(tiny: Path, tmp_path: Path) -> Run:
    """A copy of the small run to be mutated."""
    shutil.copytree(tiny, tmp_path / "run")
    return Run(tmp_path / "run")
