"""Write files atomically, hash them, lock directories, remove what killed writers left. For reading see ``reading``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import MachineError, UserError, remedy, warn

JsonValue = Any  # what json.loads returns

_PREFIX = 60  # characters of a file's name in that of its temporary file, which must not get too long
_STRAY_FILE = re.compile(
    r"\..*\.[a-z0-9_]{8}\.tmp|\..+\.(?:json|jsonl|gz|html|css|js|svg|csv|parquet|bib|safetensors|yaml|py|txt)"
    r"\.[a-z0-9_]{8}"  # the pattern of earlier versions
)
_STRAY_FOLDER = re.compile(r"\.pack-[a-z0-9_]{8}")
_HELD = {errno.EWOULDBLOCK, errno.EACCES}  # why a file cannot be locked that another process has locked
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: JsonValue) -> str:
    """Return the one JSON text of ``value``: sorted keys, no blanks, no NaN.

    Raises ``ValueError`` for NaN or infinities, which have no JSON form.
    """
    return _CANONICAL.encode(value)


def digest(value: JsonValue, length: int = 64) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Raises ``MachineError`` if it cannot be written, for instance because the disk is full or read-only.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)  # before it is closed: the lock keeps sweep() away until then
    except BaseException as error:  # an interrupt, too, leaves nothing behind
        with contextlib.suppress(OSError):
            if temporary:
                Path(temporary).unlink()
        if not isinstance(error, OSError):
            raise
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}. {remedy(error, 'Choose a folder that can be written.')}"
        ) from error


def _temporary(path: Path) -> tuple[int, str]:
    """Return handle and name of a new file next to ``path``, locked while its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_PREFIX]}.", suffix=".tmp")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process swept it away before it was locked


def sweep(folder: Path, deep: bool = True) -> None:
    """Remove temporary files and directories of killed writers in a directory and, if ``deep``, below it.

    Those of a living writer are locked and stay, as does everything that only looks similar.
    """
    below = [os.fspath(folder)]
    while below:
        with contextlib.suppress(OSError), os.scandir(below.pop()) as found:
            for entry in found:
                is_folder = entry.is_dir(follow_symlinks=False)
                if (_STRAY_FOLDER if is_folder else _STRAY_FILE).fullmatch(entry.name):
                    _remove_if_free(entry.path, is_folder)
                elif deep and is_folder:
                    below.append(entry.path)


def _remove_if_free(path: str, is_folder: bool) -> None:
    """Remove a file or directory that no living process has locked; where there are no locks, it stays."""
    with contextlib.suppress(OSError):
        mode = os.O_RDONLY if is_folder else os.O_RDWR  # on a network file system, to lock a file takes writing
        handle = os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if is_folder else Path(path).unlink()
        finally:
            os.close(handle)


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new directory within ``folder``, removed after the block and locked against ``sweep``."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pack-") as temporary:
        handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(temporary)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically (see ``write_bytes``)."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: JsonValue) -> None:
    """Write indented JSON atomically; NaN and infinities are refused (``ValueError``)."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, JsonValue]]) -> str:
    """Write one JSON object per line, atomically; return the SHA-256 of the file."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    data = "".join(lines).encode()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def write_json_gz(path: Path, value: JsonValue) -> int:
    """Write gzipped JSON atomically and return its size; equal values give equal bytes (no time stamp)."""
    data = gzip.compress(canonical_json(value).encode(), mtime=0)
    write_bytes(path, data)
    return len(data)


@contextlib.contextmanager
def waiting(folder: Path) -> Iterator[None]:
    """Lock a directory, waiting for its holder, in order to read, change and write a file in it.

    Raises ``MachineError`` where the file system has no locks.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise MachineError(
                f"{folder} cannot be locked: {error.strerror}. Choose a folder on a local disk."
            ) from None
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def run_lock(folder: Path, option: str, shared: bool = False) -> Iterator[None]:
    """Lock a directory, made if missing, for one writing process, and sweep it; freed when that process dies.

    ``shared``: for one of several that claim what they write. Raises ``UserError`` if it cannot be written or is
    locked; ``option`` is the command line option that chose it. Where the file system has no locks there is a warning.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        hint = remedy(error, f"Choose another {option} folder.")
        raise MachineError(f"cannot write {folder}: {error.strerror}. {hint}") from None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            os.close(handle)
            again = f"Wait for it, or use another {option}."
            raise UserError(f"{folder} is in use by another steerboard. {again}") from None
        warn(
            f"the file system of {folder} has no locks ({error.strerror}): start one command on it at a time, "
            "'steerboard work' excepted"
        )
    try:
        sweep(folder)
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Say whether a process holds the lock of a file, without waiting or changing it; False where there is no file."""
    # An exclusive lock on a network file system, where it is one of a range of bytes, needs the right to write.
    for mode, kind in ((os.O_RDWR, fcntl.LOCK_EX), (os.O_RDONLY, fcntl.LOCK_SH)):
        try:
            handle = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _HELD
        finally:
            os.close(handle)
        return False
    return False
