"""The published suite with a change."""

from __future__ import annotations

from pathlib import Path

from support.helpers import TASKS

ONLY = "Output only the text and nothing else"


def edited_suite(folder: Path, old: str, new: str) -> str:
    """Write the suite with one change and return its path; its task files are the shipped ones."""
    text = (TASKS / "published.yaml").read_text(encoding="utf-8")
    assert old in text
    path = folder / "published.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return str(path)
