"""A finished run that the tests of commands share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.helpers import toy_llm
from support.references import run_references


@pytest.fixture(scope="package")
def finished(tmp_path_factory) -> Path:
    """A finished run of two cells."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    outcome = run_references(folder)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="package")
def llm(tmp_path_factory) -> Path:
    return toy_llm(tmp_path_factory.mktemp("models") / "toy")
