"""Build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.store import Run


def build_board(runs: Sequence[Run], out: Path) -> Path:
    """Build."""
    return out
