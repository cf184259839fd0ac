"""Checks of result files, once, before anything is computed or shown: they may come from strangers.

What a page can show as text stays; everything else is refused with an explanation.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, StringConstraints, ValidationError

from harness.core.errors import UserError
from harness.core.reading import MAX_BYTES
from harness.core.records import Manifest
from harness.core.schema import format_validation_error
from harness.core.store import Run
from harness.ranking.results import ResultSet
from harness.tracks.separation import FOLDER as SEPARATIONS
from leaderboard.text import clean, name_of

MOST = {"languages": 300, "tasks": 50, "seeds": 1000, "entries": 500, "metrics": 400, "cells": 200_000}
"""The most that a board holds: the pages of more would not fit on a disk."""

_NAME = 200  # characters of the name of a suite, language, task, method, model or metric
_CONFIG = 2**16  # bytes of a method's config, as Python writes it
_EXTREME = 1e12  # a score beyond is invalid: no metric comes near, and squares must stay finite
_REASON = 1000  # characters of a reason that are kept


class _SuiteInfo(BaseModel):
    """The fields of the suite in a manifest that a board needs."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_NAME)]
    version: int | str | None = None
    description: str = ""
    classifiers: list[str]


def check_folder(run: Run, claimed: bool) -> None:
    """Check types and sizes of a run's files before one is read; raises ``UserError``.

    ``claimed``: whether the run was submitted; then links must not lead out of its directory either.
    """
    root, cells = run.path.resolve(), _entries(f"{run.path}/cells")
    folders = [str(run.path), f"{run.path}/steering", f"{run.path}/{SEPARATIONS}"]
    inside = (_entries(cell.path) for cell in cells if cell.is_dir())
    for entry in chain(*map(_entries, folders), cells, chain.from_iterable(inside)):
        path = entry.path
        if claimed and entry.is_symlink() and not Path(path).resolve().is_relative_to(root):
            raise UserError(f"{path} is a link out of the directory. Put the file itself there.")
        try:
            state = entry.stat()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}.") from None
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise UserError(f"{path} is not a regular file. Remove it.")
        if state.st_size > MAX_BYTES and stat.S_ISREG(state.st_mode):
            raise UserError(f"{path} is too large: more than {MAX_BYTES >> 20} MiB. Remove it.")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what is in a directory, in order of names; nothing where it is none that can be read."""
    try:
        # not path objects, which take longer than all the rest
        with os.scandir(folder) as found:
            return sorted(found, key=attrgetter("name"))
    except OSError:
        return []


def check_manifest(path: Path, manifest: Manifest) -> None:
    """Raise ``UserError`` for a manifest that no board can be made of."""
    try:
        _SuiteInfo.model_validate(manifest.suite)
    except ValidationError as error:
        raise UserError(f"{path}: the suite has no readable {format_validation_error(error)}.") from None
    chosen = manifest.selection
    codes = [*chosen.languages, *chosen.checked]
    axes: dict[str, Sequence[object]] = {"languages": codes, "tasks": chosen.tasks, "seeds": chosen.seeds}
    for axis, values in axes.items():
        _check_count(path, axis, len(values))
        if not values or len(set(values)) < len(values):
            raise UserError(f"{path}: {axis} of the selection are {'named twice' if values else 'missing'}.")
    if not chosen.task_languages():
        raise UserError(f"{path}: the selection is empty: all of its tasks are declared absent.")
    for axis, names in (("language", codes), ("task", chosen.tasks)):
        for name in names:
            _check_name(path, axis, name, printable=True)
    _check_count(path, "entries", len(manifest.entries))
    _check_count(path, "cells", len(manifest.entries) * math.prod(map(len, axes.values())))
    for entry in manifest.entries:
        method = entry.method
        _check_name(path, "method", method.name)
        _check_name(path, "version", method.version)
        if entry.model:
            _check_name(path, "model", entry.model.name)
        if len(repr(method.config)) > _CONFIG:
            raise UserError(f"{path}: the config of method {name_of(method.name)} is longer than {_CONFIG >> 10} KiB.")


def _check_name(where: object, kind: str, name: str, printable: bool = False) -> None:
    """Refuse an empty or endless name; with ``printable`` also one of invisible characters."""
    if not name.strip() or len(name) > _NAME or (printable and not name.isprintable()):
        visible = "visible " if printable else ""
        raise UserError(
            f"{where}: {kind} {name_of(name, 40)!r} is not valid: names have 1 to {_NAME} {visible}characters."
        )


def _check_count(where: object, kind: str, count: int) -> None:
    if count > MOST[kind]:
        raise UserError(f"{where}: {count:,} {kind}; a board holds up to {MOST[kind]:,}.")


def drop_invalid(result_set: ResultSet) -> ResultSet:
    """Return the cells of a board's entries and selection alone, with scores that are numbers.

    A score that is not finite or beyond ``_EXTREME`` counts as missing. Raises ``UserError`` for too much.
    """
    where = name_of(result_set.title)
    _check_count(where, "entries", len(result_set.entries))
    _check_count(where, "metrics", len(result_set.signatures))
    for name in result_set.signatures:
        _check_name(where, "metric", name, printable=True)
    chosen, scores = result_set.manifest.selection, result_set.scores
    axes: dict[str, set[Any]] = {
        "entry": set(result_set.entries),
        "task": set(chosen.tasks),
        "language": {*chosen.languages, *chosen.checked},
        "seed": set(chosen.seeds),
    }
    scores = scores[np.logical_and.reduce([scores[name].isin(list(axis)) for name, axis in axes.items()])]
    scores = scores.reset_index(drop=True)
    for name, least in (("value", -_EXTREME), ("human", -_EXTREME), ("size", 0.0)):
        column = scores[name].astype(np.float64)
        scores[name] = column.where(column.between(least, _EXTREME))
    cells = {
        index: cell
        for index, cell in result_set.cells.items()
        if all(part in axis for part, axis in zip(index, axes.values(), strict=True))
    }
    rows = {
        name: replace(row, missing=[replace(item, reason=clean(item.reason, _REASON)) for item in row.missing])
        for name, row in result_set.entries.items()
    }
    return replace(result_set, scores=scores, cells=cells, entries=rows)
