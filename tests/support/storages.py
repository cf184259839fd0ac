"""Fixtures: a run to be pushed, and empty storages."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.store import Run
from support.syncing import cell_of, write_run


@pytest.fixture
def a(tmp_path: Path) -> Run:
    """A run with two finished cells, one of them scored, and files that never travel."""
    run = write_run(tmp_path / "a", "am", "he")
    for name in (".lock", "log.txt", f"cells/{cell_of('am')}/.x.json.abcdefgh.tmp", "activations/x.safetensors"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("only here")
    return run


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder in a storage, empty."""
    return f"{request.param}://{tmp_path}/storage"


@pytest.fixture
def memory(tmp_path: Path) -> str:
    return f"memory://{tmp_path}/storage"
