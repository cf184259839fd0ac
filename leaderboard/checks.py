"""What a board believes of result files: checked once, before anything is computed or shown.

Files may come from strangers. What a page can show as text stays; what it cannot, is refused in words.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ValidationError

from harness.core.errors import UserError
from harness.core.reading import MAX_BYTES
from harness.core.records import Entry, Manifest, format_validation_error
from harness.core.store import Run
from harness.ranking.results import EntryRow, ResultSet
from harness.tracks.separation import FOLDER as SEPARATIONS
from leaderboard.text import clean, name_of

LONGEST = 200
"""Characters of a name: of a suite, a language, a task, a method, a model, a metric."""

CONFIG = 2**16
"""Bytes of a method's config, as Python writes it."""

MOST = {"languages": 300, "tasks": 50, "seeds": 1000, "entries": 500, "metrics": 400, "cells": 200_000}
"""How many a board holds at most: beyond, its pages would fit no disk."""

EXTREME = 1e12
"""Scores beyond are none: no metric comes near, and their squares must stay numbers."""

_REASON = 1000  # characters of a reason that are kept


def _name(text: str) -> str:
    if not text.strip() or len(text) > LONGEST:
        raise ValueError(f"a name has 1 to {LONGEST} characters")
    return text


class _SuiteFacts(BaseModel):
    """What a board needs of the suite in a manifest, a dict that holds more."""

    name: Annotated[str, AfterValidator(_name)]
    version: int | str | None = None
    description: str = ""
    classifiers: list[str]


def check_folder(run: Run, claimed: bool) -> None:
    """Look at the files of a run before one is read; ``UserError`` for what is no file, and beyond any size.

    ``claimed``: handed in; then no link may lead out of the folder, either.
    """
    root = run.path.resolve()
    for entry in _files(run.path):
        path = entry.path  # text: a path object for each of tens of thousands takes longer than all the rest
        try:
            if claimed and entry.is_symlink() and not Path(path).resolve().is_relative_to(root):
                raise UserError(f"{path} is a link out of the folder. Put the file itself there.")
            state = entry.stat()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}.") from None
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise UserError(f"{path} is not a regular file. Remove it.")
        if state.st_size > MAX_BYTES and stat.S_ISREG(state.st_mode):
            raise UserError(f"{path} is too large: more than {MAX_BYTES >> 20} MiB. Remove it from the folder.")


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what lies in a run folder where a run has files; folders of cells that are links are entered."""
    yield from _within(folder)
    yield from _within(folder / "steering")
    yield from _within(folder / SEPARATIONS)
    for cell in _within(folder / "cells"):
        yield cell
        yield from _within(Path(cell.path))


def _within(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}.") from None


def check_manifest(path: Path, manifest: Manifest) -> None:
    """Refuse a manifest that no board can be made of, in words."""
    try:
        _SuiteFacts.model_validate(manifest.suite)
    except ValidationError as error:
        raise UserError(f"{path}: the suite has no readable {format_validation_error(error)}.") from None
    chosen = manifest.selection
    axes: Mapping[str, Sequence[object]] = {
        "languages": [*chosen.languages, *chosen.checked],
        "tasks": chosen.tasks,
        "seeds": chosen.seeds,
    }
    for axis, values in axes.items():
        _check_count(path, axis, len(values))
        if not values or len(set(values)) < len(values):
            raise UserError(f"{path}: {axis} of the selection are {'named twice' if values else 'missing'}.")
    if not chosen.places():
        raise UserError(f"{path}: the selection has no place: all of its tasks are said to be absent.")
    for axis, names in (("language", [*chosen.languages, *chosen.checked]), ("task", chosen.tasks)):
        for name in names:
            _check_name(path, axis, name, seen=True)
    _check_count(path, "entries", len(manifest.entries))
    of_entry = math.prod(len(values) for values in axes.values())
    _check_count(path, "cells", len(manifest.entries) * of_entry)
    for entry in manifest.entries:
        _check_entry(path, entry)


def _check_entry(path: Path, entry: Entry) -> None:
    _check_name(path, "method", entry.method.name)
    _check_name(path, "version", entry.method.version)
    if entry.model:
        _check_name(path, "model", entry.model.name)
    if len(repr(entry.method.config)) > CONFIG:
        name = name_of(entry.method.name)
        raise UserError(f"{path}: the config of method {name} is longer than {CONFIG >> 10} KiB.")


def _check_name(where: object, kind: str, name: str, seen: bool = False) -> None:
    """Refuse an empty or endless name; with ``seen`` also one of signs that nobody sees."""
    if not name.strip() or len(name) > LONGEST or (seen and not name.isprintable()):
        what = " that are all seen" if seen else ""
        raise UserError(f"{where}: {kind} {name_of(name, 40)!r} is none: names have 1 to {LONGEST} signs{what}.")


def _check_count(where: object, kind: str, count: int) -> None:
    if count > MOST[kind]:
        raise UserError(f"{where}: {count:,} {kind}; a board holds up to {MOST[kind]:,}.")


def drop_invalid(cellset: ResultSet) -> ResultSet:
    """Return what a board is made of: cells of its entries and selection alone, scores that are numbers.

    A score that is not finite or beyond ``EXTREME`` counts as missing. Raises ``UserError`` for too much.
    """
    where = name_of(cellset.title)
    _check_count(where, "entries", len(cellset.entries))
    _check_count(where, "metrics", len(cellset.signatures))
    for name in cellset.signatures:
        _check_name(where, "metric", name, seen=True)
    chosen = cellset.manifest.selection
    places: dict[str, set[Any]] = {
        "entry": set(cellset.entries),
        "task": set(chosen.tasks),
        "language": {*chosen.languages, *chosen.checked},
        "seed": set(chosen.seeds),
    }
    scores = cellset.scores
    inside = np.logical_and.reduce([scores[name].isin(list(axis)) for name, axis in places.items()])
    scores = scores if inside.all() else scores[inside].reset_index(drop=True)
    numbers = {name: scores[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("value", "human", "size")}
    limits = {"value": -EXTREME, "human": -EXTREME, "size": 0.0}
    kept = {
        name: np.where((column >= limits[name]) & (column <= EXTREME), column, np.nan)
        for name, column in numbers.items()
    }
    axes = list(places.values())
    cells = {
        place: cell
        for place, cell in cellset.cells.items()
        if all(part in axis for part, axis in zip(place, axes, strict=True))
    }
    rows = {name: _short(row) for name, row in cellset.entries.items()}
    return replace(cellset, scores=scores.assign(**kept), cells=cells, entries=rows)


def _short(row: EntryRow) -> EntryRow:
    """Return a row whose reasons can be shown: one may be given for every cell."""
    missing = [replace(item, reason=clean(item.reason, _REASON)) for item in row.missing]
    return replace(row, missing=missing)
