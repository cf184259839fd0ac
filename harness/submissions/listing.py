"""All submissions of a folder at a glance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.submissions.reader import Submission, find_all

_COLUMNS = ("name", "version", "road", "method", "suite", "models", "cells", "badge")
_DROPPED = {"models": 1, "road": 2, "suite": 3, "version": 4}  # what is left out where it is narrow


def listing(root: Path, form: str) -> tuple[str, bool]:
    """Return the submissions as ``table``, ``md`` or ``json``, and whether all of them could be read."""
    found, problems = find_all(root)
    rows = [_row(submission) for submission in found]
    words = [str(problem) for problem in problems]
    if form == "json":
        return json.dumps({"schema": 1, "submissions": rows, "problems": words}, indent=1) + "\n", not words
    shown = [[str(row[column]) for column in _COLUMNS] for row in rows]
    lines = _markdown(shown) if form == "md" else _table(shown)
    return "\n".join([*lines, *(f"problem: {line}" for line in words)]) + "\n", not words


def _row(submission: Submission) -> dict[str, Any]:
    card, (cells, of) = submission.card, submission.cells
    return {
        "name": card.name,
        "version": card.version,
        "road": card.road,
        "method": f"{card.method.name} {card.method.version}",
        "suite": card.suite.name,
        "models": ", ".join(model.name for model in card.models) or "–",
        "cells": f"{cells}/{of}",
        "badge": submission.badge,
    }


def _table(rows: list[list[str]]) -> list[str]:
    from harness.terminal import Column, output, print_table

    console = output()
    with console.capture() as shown:
        print_table(console, [Column(c, words=True, drop=_DROPPED.get(c, 0)) for c in _COLUMNS], rows)
    return [line.rstrip() for line in shown.get().splitlines()]


def _markdown(rows: list[list[str]]) -> list[str]:
    whole = [list(_COLUMNS), ["---"] * len(_COLUMNS), *rows]
    return [f"| {' | '.join(row)} |" for row in whole]
