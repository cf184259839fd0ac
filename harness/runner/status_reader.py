"""Reads where a run stands, from its files alone: nothing is locked, waited for or written."""

from __future__ import annotations

import datetime
import gc
import marshal
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.core.cells import entry_id, entry_of
from harness.core.errors import UserError
from harness.core.files import is_locked
from harness.core.reading import read_bytes
from harness.core.records import Manifest, State
from harness.core.schema import parse_record
from harness.core.store import Run, StatusRow, Version
from harness.core.workers import map_forked
from harness.runner.run_status import MethodProgress, Reason, RunStage, RunState, RunStatus, Speed, WorkerState

_WINDOWS = (600.0, 3600.0, float("inf"))  # seconds: the rate is that of the first one with enough cells
_ENOUGH = 3  # cells that a rate is computed from
_SKEW = 60.0  # seconds that the clocks of two machines may differ by
_SILENT = 120.0  # seconds without a heartbeat after which a worker is taken for dead
_WORKER, _SCORE = ".worker", "score-"  # of the files in claims
_DIGITS, _LONGEST_NAME = 18, 1000  # of a claim's number; bytes of a worker's name
_SIZED = 300  # cells whose files are looked at for the size of a run
_PART = 1000  # cells that a process reads at a time
_PATTERN = 300  # characters of a reason by which it is told from others


CellState = tuple[str, tuple[str, str, int], State, str, float | None, int, float, dict[str, float] | None]
"""What a status says: entry, place, state, reason, Unix time when it ended, tokens written, seconds, those of fits.

Plain, since a hundred thousand are sent between processes. The time is None if not recorded.
"""

_Read = tuple[str, Version, CellState, float | None]
"""A cell with a status, the version of the file, what it says, and the Unix time of its scores, None without any."""


class StatusReader:
    """Reads where a run stands, again and again: a status that has not changed is read once."""

    def __init__(self, path: Path) -> None:
        self.run = Run(path)
        self._known: dict[str, tuple[Version, CellState]] = {}
        self._entries: dict[bytes, str] = {}  # of a status, as bytes -> entry id; a hash of each would take long

    def read(self, now: float | None = None) -> RunStatus:
        """Return where the run stands; nothing is locked or written. ``now``: Unix time, by default the clock's.

        Raises ``UserError`` for a folder that holds no run, and for a manifest that cannot be read.
        """
        run, now = self.run, time.time() if now is None else now
        locked, size, free = run.is_locked(), folder_size(run.path), _free(run.path)
        if not run.exists() and (locked or run.files.exists(".lock")):  # it is written once the model is loaded
            return RunStatus(run.path, "starting" if locked else "empty", locked, size=size, free=free)
        manifest, started = run.manifest(), run.files.version("manifest.json")[0] / 1e9
        cells, damaged = self._read_cells()
        board = _Tally(manifest)
        for name, version, state, scored in cells:
            board.add(name, state, scored, again=version[0] / 1e9 < started)
        found = RunStatus(
            path=run.path,
            state="running",
            locked=locked,
            manifest=manifest,
            methods=board.methods,
            expected=board.expected,
            states=dict(board.states),
            scored=board.scored,
            unexpected=board.unexpected,
            reasons=board.reasons,
            damaged=damaged,
            last=max((when for when, _ in [*board.written, *board.rated] if when < now + _SKEW), default=None),
            seconds={"generate": board.seconds, "fit": sum(board.fits.values())} if board.states else {},
            workers=read_workers(run.path, now),
            size=size,
            free=free,
        )
        if not locked and not any(worker.alive for worker in found.workers):
            return replace(found, state=_state_at_rest(found))
        return _with_speed(found, board, started, now)

    def _read_cells(self) -> tuple[list[_Read], list[str]]:
        """Return the cells with a status, and what is damaged."""
        names = self.run.cell_dirs()
        parts = [names[i : i + _PART] for i in range(0, len(names), _PART)]
        found, damaged = list[_Read](), list[str]()
        gc.disable()  # it looks through all rows again and again, a quarter of the time
        try:
            for read, broken in map_forked(self._read_part, parts, worth=len(parts) > 2):
                found += read
                damaged += broken
        finally:
            gc.freeze()
            gc.enable()
        self._known = {name: (version, state) for name, version, state, _ in found}
        return found, damaged

    def _read_part(self, names: Sequence[str]) -> tuple[list[_Read], list[str]]:
        found, damaged = [], []
        for name in names:
            try:
                known = self._read_cell(name)
            except UserError as error:
                damaged.append(str(error))
                continue
            if known is None:
                continue
            scored = None
            with suppress(OSError):
                scored = self.run.files.version(f"cells/{name}/scores.json")[0] / 1e9
            # Scores of texts that were written again since are not theirs.
            if scored is not None and scored < (known[1][4] or 0.0) - _SKEW:  # ended
                scored = None
            found.append((name, *known, scored))
        return found, damaged

    def _read_cell(self, name: str) -> tuple[Version, CellState] | None:
        """Return what a cell's status says with its version, None where there is none; raises ``UserError``."""
        path = f"cells/{name}/status.json"
        known = self._known.get(name)
        try:
            if known is not None and known[0] == self.run.files.version(path):
                return known
            data, version = self.run.files.read_with_version(path)
        except (OSError, UserError):
            if self.run.files.exists(path):
                raise
            return None
        return version, self._cell_state(name, parse_record(data, self.run.files.label(path), StatusRow))

    def _cell_state(self, name: str, row: StatusRow) -> CellState:
        key = row["cell"]
        entry = marshal.dumps((key["method"], key["model"], key["setting"]), 2)  # equal for equal JSON, and fast
        if entry not in self._entries:
            record = self.run.status(name)  # with all that the quick reader does not check
            assert record is not None
            self._entries[entry] = entry_id(entry_of(record.cell))
        fit = row.get("fit")
        return (
            self._entries[entry],
            (key["task"], key["language"], key["seed"]),
            row["state"],
            row.get("reason", ""),
            _unix(row.get("finished", "")),
            row.get("new_tokens") or 0,
            row.get("seconds", 0.0),
            {step: usage["seconds"] for step, usage in fit.items() if usage} if fit else None,
        )


class _Tally:
    """Counts the cells of a run; ``written``, ``rated``: when texts and scores came, with the tokens written."""

    def __init__(self, manifest: Manifest) -> None:
        chosen = manifest.selection
        self._strata, self._seeds = set(chosen.task_languages()), set(chosen.seeds)
        self._names = {entry_id(entry): (entry.method.title, entry.setting) for entry in manifest.entries}
        each = len(self._strata) * len(self._seeds)
        self.expected = each * len(self._names)
        rows = Counter(self._names.values())
        self._counts = {row: Counter[str](expected=each * n) for row, n in rows.items()}
        self._seen: set[tuple[str, tuple[str, str, int]]] = set()
        self._reasons: dict[tuple[State, str], Reason] = {}
        self.states: Counter[State] = Counter()
        self.scored = self.unexpected = self.again = 0
        self.seconds, self.fits = 0.0, dict[str, float]()
        self.written, self.rated = list[tuple[float, int]](), list[tuple[float, int]]()

    def add(self, name: str, cell: CellState, scored: float | None, again: bool) -> None:
        """Count a cell; ``again``: whether it ended before the run was last started."""
        entry, place, state, reason, finished, tokens, seconds, fit = cell
        row, index = self._names.get(entry), (entry, place)
        if row is None or place[:2] not in self._strata or place[2] not in self._seeds or index in self._seen:
            self.unexpected += 1
            return
        self._seen.add(index)
        counts = self._counts[row]
        self.states[state] += 1
        counts["failed" if state.endswith("error") else state] += 1
        if finished is not None:
            self.written.append((finished, tokens))
        if state == "ok":
            self.seconds += seconds
            if fit:
                self.fits |= fit
            if scored is not None:
                self.scored += 1
                counts["scored"] += 1
                self.rated.append((scored, 0))
            return
        self.again += again and state != "skipped"
        pattern = (state, re.sub(r"\d+", "", reason[:_PATTERN]))
        method, setting = row
        example = f"{method}/{setting}/{'/'.join(place[:2])}/seed {place[2]}"
        before = self._reasons.get(pattern) or Reason(state, reason, 0, name, example)
        self._reasons[pattern] = replace(before, cells=before.cells + 1)

    @property
    def methods(self) -> list[MethodProgress]:
        return [
            MethodProgress(method, setting, n["expected"], n["ok"], n["scored"], n["skipped"], n["failed"])
            for (method, setting), n in self._counts.items()
        ]

    @property
    def reasons(self) -> list[Reason]:
        """Reasons, errors first, the most frequent first."""
        return sorted(self._reasons.values(), key=lambda found: (found.state == "skipped", -found.cells))


def _state_at_rest(found: RunStatus) -> RunState:
    """Return the state of a run that nobody works on."""
    if found.not_run or found.damaged or found.scored < found.states.get("ok", 0):
        return "stopped"
    return "failed" if found.failed else "finished"


def _with_speed(found: RunStatus, board: _Tally, started: float, now: float) -> RunStatus:
    """Return the status of a run that is worked on, with its stage, its rate and the time that is left."""
    open_cells = found.not_run + board.again
    texts, scores = (max((when for when, _ in times), default=0.0) for times in (board.written, board.rated))
    stage: RunStage = "score" if not open_cells or scores > max(texts, started) else "generate"
    times = [each for each in board.written if each[0] >= started - 1]
    if stage == "score":
        times, open_cells = board.rated, found.states.get("ok", 0) - found.scored
    speed = measure_speed(times, now)
    if speed and stage == "score":
        speed = replace(speed, tokens=None)
    left = open_cells * speed.seconds / speed.cells if speed and open_cells else None
    return replace(found, stage=stage if open_cells else None, speed=speed if open_cells else None, left=left)


def measure_speed(times: Sequence[tuple[float, int]], now: float) -> Speed | None:
    """Return how many cells ended lately, since the first of them did; None where too few have.

    ``times``: Unix time and tokens of every cell. Cells end in groups, so the time without any counts until ``now``.
    """
    for window in _WINDOWS:
        recent = sorted(each for each in times if now - window <= each[0] <= now)
        if len(recent) >= _ENOUGH and now > recent[0][0]:
            return Speed(len(recent) - 1, sum(tokens for _, tokens in recent[1:]), round(now - recent[0][0], 3))
    return None


def read_workers(folder: Path, now: float) -> list[WorkerState]:
    """Return the workers of a run, from ``claims/WORKER.worker`` and ``claims/NAME.N``, which holds the name of one.

    One of this machine lives as long as it holds its lock, any other one while it gives signs of life.
    """
    names, claims, found = sorted(_names_in(folder / "claims")), Counter[str](), []
    scoring = Counter[str]()
    machine = _read_bytes(Path("/proc/sys/kernel/random/boot_id"))
    last = {name.rpartition(".")[0]: name for name in sorted(names, key=_number_of) if _number_of(name) >= 0}
    for name in last.values():
        worker = _read_bytes(folder / "claims" / name).decode("utf-8", "replace")
        claims[worker] += 1
        scoring[worker] += name.startswith(_SCORE)
    for name in names:
        path = folder / "claims" / name
        with suppress(OSError):  # workers come and go
            if name.endswith(_WORKER):
                worker, silent = name.removesuffix(_WORKER), max(0.0, now - path.stat().st_mtime)
                alive = silent < _SILENT and (_read_bytes(path) != machine or is_locked(path))
                found.append(WorkerState(worker, claims[worker], round(silent, 1), alive, scoring[worker]))
    return found


def _names_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)  # noqa: PTH208 (names alone)
    return []


def _number_of(claim: str) -> int:
    """Return the number of a claim by its file name; -1 where it is none."""
    number = claim.rpartition(".")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < _DIGITS else -1


def _read_bytes(path: Path) -> bytes:
    with suppress(UserError):
        return read_bytes(path, _LONGEST_NAME)
    return b""


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a run's directory and below it; links are not followed.

    Of more than 300 cells, some are looked at, spread evenly, and the others taken to be as large.
    """
    cells = sorted(_names_in(folder / "cells"))
    some = cells[:: 1 + len(cells) // _SIZED]
    rest = (name for name in _names_in(folder) if name != "cells")
    size = sum(sum(_sizes(f"{folder}/cells/{name}")) for name in some) * len(cells) / max(len(some), 1)
    return round(size) + sum(sum(_sizes(f"{folder}/{name}")) for name in rest)


def _sizes(folder: str) -> Iterator[int]:
    """Yield the sizes of a file, or of all files below a directory."""
    with suppress(OSError):  # a temporary file that is gone
        state = os.lstat(folder)
        if not stat.S_ISDIR(state.st_mode):
            yield state.st_size
            return
        for name in os.listdir(folder):  # noqa: PTH208 (names alone)
            yield from _sizes(f"{folder}/{name}")


def _free(folder: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def _unix(text: str) -> float | None:
    """Return a time in ISO 8601 as Unix time; None where it is none."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
