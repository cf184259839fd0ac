"""Claims: which worker of a run is at which cell or fit, as files that every machine with the run's folder can see.

``claims/WORKER.worker`` is of a living worker: it holds the id of its machine, is locked by its process, and its time
of change is the heartbeat. ``claims/NAME.N`` holds the name of the worker that has claimed NAME, a cell or a fit. It is
made only where it does not exist yet, so one worker alone can make it; the highest N counts. Whoever finds that worker
dead makes NAME.(N+1): of several thieves one wins, and no file that another may have made is ever replaced.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Self

from harness.core.errors import MachineError, UserError, remedy

FOLDER = "claims"
POLL = 1.0
"""Seconds between two looks at what others have claimed."""

EXPIRY_VARIABLE = "STEERBOARD_EXPIRY"
_EXPIRY = 60.0  # seconds without a heartbeat after which a worker counts as dead
_WORKER = ".worker"
_DIGITS = 6  # of the number of a claim, of which every lower one is looked for in the end


class Claims:
    """The claims of this process in a run, from the beginning of a ``with`` block to its end; ``held``: their names.

    ``expiry``: seconds without a heartbeat after which another worker counts as dead, by default those of the
    environment variable STEERBOARD_EXPIRY, else 60. One on this machine counts as dead as soon as its process is.
    Methods raise ``MachineError`` where the folder cannot be written.
    """

    def __init__(self, run: Path, expiry: float | None = None) -> None:
        self.folder = run / FOLDER
        self.expiry = _expiry() if expiry is None else expiry
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._file = self.folder / f"{self.worker}{_WORKER}"
        self._numbers: dict[str, int] = {}
        self._handle = -1
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._counted = (0.0, 1)
        self._seen: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> Self:
        self._register()
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._heart.join()
        for name in list(self._numbers):
            self.release(name)
        with suppress(OSError, MachineError):
            self._file.unlink(missing_ok=True)  # first, so that of several that end one sees no other
            self._remove_dead()
            self.folder.rmdir()
        if self._handle >= 0:
            os.close(self._handle)

    @property
    def held(self) -> set[str]:
        """The names that this worker has claimed."""
        return {*self._numbers}

    @property
    def workers(self) -> int:
        """Number of living workers, this one included, as it was at most ``POLL`` seconds ago."""
        now = time.monotonic()
        if now >= self._counted[0]:
            names = [name.removesuffix(_WORKER) for name in self._names() if name.endswith(_WORKER)]
            self._counted = (now + POLL, max(1, sum(map(self._lives, names))))
        return self._counted[1]

    def take(self, name: str) -> bool:
        """Claim a name; return whether this worker has it now: not where another living one has.

        Whoever gets a cell has to look whether it was finished in the meantime.
        """
        if name in self._numbers:
            return True
        last = self._last().get(name, -1)
        if last >= 0 and self._is_claimed(name, last):
            return False
        with _writing(self.folder):
            try:
                handle = os.open(self.folder / f"{name}.{last + 1}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            self._numbers[name] = last + 1
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(self.worker)
        return True

    def release(self, name: str) -> None:
        """Give a name back if this worker has it: a cell that is written, or that it will not write."""
        for number in range(self._numbers.pop(name, -1) + 1):  # its own last, so that none is free until it is gone
            with suppress(OSError):
                (self.folder / f"{name}.{number}").unlink()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold a name in a block, after waiting for the worker that has it."""
        mine = name in self._numbers
        while not self.take(name):
            time.sleep(POLL / 2)
        try:
            yield
        finally:
            if not mine:
                self.release(name)

    def taken(self) -> set[str]:
        """Return the names that other living workers have claimed."""
        return {n for n, number in self._last().items() if n not in self._numbers and self._is_claimed(n, number)}

    def _names(self) -> list[str]:
        with _writing(self.folder):
            return os.listdir(self.folder)  # noqa: PTH208 (names alone)

    def _last(self) -> dict[str, int]:
        """Return the number of the claim that counts, by name."""
        found: dict[str, int] = {}
        for entry in self._names():
            name, _, number = entry.rpartition(".")
            if number.isdecimal() and len(number) <= _DIGITS:  # else another program wrote it
                found[name] = max(found.get(name, -1), int(number))
        return found

    def _is_claimed(self, name: str, number: int) -> bool:
        """Say whether a claim is that of a living worker, or has just been given back: the next one is then 0."""
        path = self.folder / f"{name}.{number}"
        try:
            worker = path.read_text(encoding="utf-8", errors="replace")
            return self._lives(worker) if worker else not self._is_still(path.name, path.stat())  # just being written
        except OSError:
            return True

    def _lives(self, worker: str, watched: bool = True) -> bool:
        """Say whether a worker lives. ``watched``: whether it must have stood still while this process looked."""
        if worker == self.worker:
            return True
        try:
            # Opened and not only looked at: on a network file system the time is then a fresh one.
            with (self.folder / f"{worker}{_WORKER}").open("rb") as file:
                state = os.fstat(file.fileno())
                if self._is_still(worker, state) if watched else self._is_old(state):
                    return False
                if file.read() != _machine():
                    return True
                with suppress(OSError):  # it is locked, or there are no locks
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return False
                return True
        except (OSError, ValueError):  # ValueError: NUL characters, as a crash of the machine leaves them
            return False

    def _is_still(self, name: str, state: os.stat_result) -> bool:
        """Say whether a file has not changed for longer than the expiry.

        Its time is believed after two beats without a change: where a file system takes the time of the machine that
        writes, that of a living worker may be hours ago, or that of a dead one in the future.
        """
        now = time.monotonic()
        changed, since = self._seen.get(name, (0, now))
        if changed != state.st_mtime_ns:
            since = now
        self._seen[name] = (state.st_mtime_ns, since)
        return now - since > self.expiry or (now - since > self.expiry / 3 and self._is_old(state))

    def _is_old(self, state: os.stat_result) -> bool:
        """Compare with the time of a file that is changed now: it is that of the file system, perhaps."""
        with suppress(OSError):
            os.utime(self._handle)
            return os.fstat(self._handle).st_mtime - state.st_mtime > self.expiry
        return False

    def _register(self) -> None:
        """Make the file of this worker, locked."""
        with _writing(self.folder):
            while True:
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    handle = os.open(self._file, os.O_CREAT | os.O_RDWR, 0o644)
                except FileNotFoundError:  # the last of the others removed the folder
                    continue
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_nlink:
                    break
                os.close(handle)  # removed as that of a dead worker, before it was locked
            try:
                os.write(handle, _machine())
            except OSError:  # an empty file would look like a living worker of another machine
                self._file.unlink()
                raise
        before, self._handle = self._handle, handle
        if before >= 0:
            os.close(before)

    def _beat(self) -> None:
        while not self._over.wait(self.expiry / 6):
            try:
                os.utime(self._file)
            except FileNotFoundError:  # this process was stopped for long, and counted as dead
                with suppress(MachineError):
                    self._register()
            except OSError:
                continue

    def _remove_dead(self) -> None:
        """Remove what dead workers left, if none lives that could be about to take it over."""
        names = self._names()
        if any(self._lives(name.removesuffix(_WORKER), watched=False) for name in names if name.endswith(_WORKER)):
            return
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


def claims_by_process(run: Path) -> dict[int, set[str]]:
    """Return what processes of any machine have claimed in a run, by their process ids."""
    found: dict[int, set[str]] = {}
    with suppress(OSError):
        for path in (run / FOLDER).iterdir():
            if path.suffix != _WORKER:
                with suppress(OSError, ValueError, IndexError):
                    found.setdefault(int(path.read_text(encoding="utf-8").split("-")[-2]), set()).add(path.stem)
    return found


def _expiry() -> float:
    text = os.environ.get(EXPIRY_VARIABLE, "")
    try:
        seconds = float(text or _EXPIRY)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds < 1e9:
        raise UserError(f"{EXPIRY_VARIABLE}={text} is not a number of seconds; give 0.5 or more, such as 60.")
    return seconds


@cache
def _machine() -> bytes:
    """Return what processes have in common that see one another's locks: the start of their machine."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return socket.gethostname().encode()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = remedy(error, "Choose another --run folder.")
        raise MachineError(f"cannot write {folder}: {error.strerror or error}. {hint}") from None
