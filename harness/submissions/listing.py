"""All submissions of a folder at a glance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.submissions.lockfile import LockFile, regressions
from harness.submissions.submission import Submission, find_all

_COLUMNS = ("name", "version", "type", "method", "suite", "models", "cells", "badge")
_DROPPED = {"models": 1, "type": 2, "suite": 3, "version": 4}  # what is left out where it is narrow


def listing(root: Path, form: str, lock: LockFile) -> tuple[str, bool]:
    """Return the submissions as ``table``, ``md`` or ``json``, and whether nothing is wrong with them.

    Wrong is what cannot be read, what is not a submission, and what the lock has and is lost or changed in
    the same version, if the lock has any of these.
    """
    found, problems = find_all(root, lock)
    rows = [_row(submission) for submission in found]
    words = [str(problem) for problem in problems]
    there = {submission.card.name: submission for submission in found}
    if {*there} & {*lock.body.submissions}:
        unreadable = {Path(problem.file).parts[len(root.parts)] for problem in problems}
        lost = regressions(lock.body, there)
        words += [f"{root}/{name}: {what}." for name, what in lost if name not in unreadable]
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
        "type": card.type,
        "method": f"{card.method.name} {card.method.version}",
        "suite": card.suite.name,
        "models": ", ".join(model.name for model in card.models) or "–",
        "cells": f"{cells}/{of}",
        "badge": submission.badge,
    }


def _table(rows: list[list[str]]) -> list[str]:
    from harness.core.terminal import TerminalColumn, output, print_table

    console = output()
    with console.capture() as shown:
        print_table(console, [TerminalColumn(c, words=True, drop=_DROPPED.get(c, 0)) for c in _COLUMNS], rows)
    return [line.rstrip() for line in shown.get().splitlines()]


def _markdown(rows: list[list[str]]) -> list[str]:
    whole = [list(_COLUMNS), ["---"] * len(_COLUMNS), *rows]
    return [f"| {' | '.join(row)} |" for row in whole]
