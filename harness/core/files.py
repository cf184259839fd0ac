"""Files on disk: atomic writes, checked reads, hashes. Nothing here is ever unpickled."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import MachineError, UserError

JsonValue = Any  # what json.loads returns

MAX_BYTES = 2**27
"""Bytes of a JSON file, unpacked where it is packed; the largest that this program writes has some 2**20."""

LARGEST_TEXT = 2**30
"""Bytes of a file of text or of JSON lines."""

MAX_DEPTH = 64
"""Lists and objects within one another in a JSON file."""

_SHORT = 60  # characters of a file's name in that of its temporary file: together they have to fit
_STRAY_FILE = re.compile(
    r"\..*\.[a-z0-9_]{8}\.tmp|\..+\.(?:json|jsonl|gz|html|css|js|svg|csv|parquet|bib|safetensors|yaml|py|txt)"
    r"\.[a-z0-9_]{8}"  # as they were called before
)
_STRAY_FOLDER = re.compile(r"\.pack-[a-z0-9_]{8}")
_NO_BRACKETS = bytes(sorted({*range(256)} - {*b"[]{}"}))
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)


def canonical_json(value: JsonValue) -> str:
    """Return the one JSON text of ``value``: sorted keys, no blanks, no NaN.

    Raises ``ValueError`` for NaN or infinities, which have no JSON form.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: JsonValue, length: int = 64) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file beside it, are flushed to disk and renamed over it.
    Raises ``MachineError`` where the folder cannot be written: the disk is full or read-only, say.
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
            Path(temporary).replace(path)  # before it is closed: until then nobody takes it for a stray
    except BaseException as error:  # an interrupt, too, leaves nothing behind
        with contextlib.suppress(OSError):
            if temporary:
                Path(temporary).unlink()
        if not isinstance(error, OSError):
            raise
        raise MachineError(
            f"cannot write {path}: {error.strerror or error}. Choose a folder that can be written, or make room."
        ) from error


def _temporary(path: Path) -> tuple[int, str]:
    """Return handle and name of a new file beside ``path``, locked while its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_SHORT]}.", suffix=".tmp")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # swept away before it was locked


def sweep(folder: Path, deep: bool = True) -> None:
    """Remove what killed writers left in a folder and, if ``deep``, below it: temporary files and folders.

    That of a writer who lives is locked and stays; so does everything that only looks similar.
    """
    for root, folders, files in os.walk(folder):
        for name in [*filter(_STRAY_FOLDER.fullmatch, folders), *filter(_STRAY_FILE.fullmatch, files)]:
            path = Path(root, name)
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path) if name in folders else path.unlink()
                finally:
                    os.close(handle)
        if not deep:
            return


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new folder within ``folder``, gone after the block; locked, so that ``sweep`` leaves it."""
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
    """Write one JSON object a line, atomically; return the SHA-256 of the file."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    data = "".join(lines).encode()
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def write_json_gz(path: Path, value: JsonValue) -> int:
    """Write gzipped JSON atomically, equal bytes for equal values (no time stamp); return their number."""
    data = gzip.compress(canonical_json(value).encode(), mtime=0)
    write_bytes(path, data)
    return len(data)


def read_json_gz(path: Path) -> dict[str, JsonValue]:
    """Return the object of a gzipped JSON file; ``UserError`` where it is broken, too large or not ours."""
    packed = read_bytes(path, MAX_BYTES)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            data = stream.read(MAX_BYTES + 1)
        _check_size(path, len(data), MAX_BYTES, "unpacked ")
        return _parse_object(path, data)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable ({error}). Delete it and run again.") from None


def read_bytes(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """Return a file's bytes; ``UserError`` where it is missing, unreadable, too large or no regular file.

    A pipe in the place of a file is not waited for.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise UserError(f"cannot read {path}: it is no regular file.")
            _check_size(path, state.st_size, largest)
            return stream.read()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Check the path.") from None
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror or error}.") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_size(path: Path, size: int, largest: int, how: str = "") -> None:
    if size > largest:
        raise UserError(
            f"{path} is too large: {how}more than {largest >> 20} MiB. Not ours? Remove it from the folder."
        )


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Return a UTF-8 file's text, without a byte order mark, line breaks as ``\\n``.

    Raises ``UserError`` as ``read_bytes`` and where it is not UTF-8.
    """
    return decoded(path, read_bytes(path, largest))


def decoded(path: Path, data: bytes) -> str:
    """Return the text of a file's bytes, as ``read_text`` does."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_json(path: Path, schema: int | None = None) -> dict[str, JsonValue]:
    """Return a JSON object; ``UserError`` where it is truncated, foreign, too large or of a newer schema."""
    data = read_bytes(path, MAX_BYTES)
    try:
        value = _parse_object(path, data)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not valid JSON (line {error.lineno}: {error.msg}); it is truncated or not "
            "ours. Delete it and run the same command again."
        ) from None
    except ValueError:  # an integer of thousands of digits
        raise UserError(f"{path} holds a number that is too long; not ours.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply; not ours.") from None
    if schema is not None:
        check_schema(path, value, schema)
    return value


def _parse_object(path: Path, data: bytes) -> dict[str, JsonValue]:
    """Return the object that the bytes say. What is no Unicode, halves of signs, becomes a question mark."""
    if _exceeds_depth(data):
        raise UserError(f"{path} is nested too deeply; not ours.")
    value = json.loads(data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, not an object; not ours.")
    if b"\\ud" in data or b"\\uD" in data:
        whole: dict[str, JsonValue] = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        return whole
    return value


def _exceeds_depth(data: bytes) -> bool:
    """Say whether brackets stand deeper in one another than ``MAX_DEPTH``; quick where it is clear."""
    left = data.translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH // 2):
        if not left:
            return False
        left = left.replace(b"[]", b"").replace(b"{}", b"")  # takes away one level or two
    return _nesting_depth(data) > MAX_DEPTH


def _nesting_depth(data: bytes) -> int:
    """Return how deep brackets outside of strings stand in one another, closed or not."""
    depth = deepest = 0
    for token in _TOKENS.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def check_schema(path: Path, value: Mapping[str, JsonValue], newest: int) -> None:
    """Refuse an object whose ``schema`` is missing or newer than this program reads."""
    found = value.get("schema")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UserError(f"{path} has no integer 'schema'; it was not written by steerboard. Remove it from the folder.")
    if found > newest:
        raise UserError(f"{path} has schema {found}, this steerboard reads up to {newest}. Upgrade steerboard.")


def half_character(text: str) -> bool:
    """Say whether a text holds a surrogate without its other half, which no file of UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def read_jsonl(path: Path) -> list[dict[str, JsonValue]]:
    """Return the objects of a JSON-lines file; ``UserError`` names the first bad line."""
    return json_lines(path, read_bytes(path))


def json_lines(path: Path, data: bytes) -> list[dict[str, JsonValue]]:
    """Return the objects of a JSON-lines file's bytes; ``UserError`` names the first bad line."""
    rows = []
    for number, line in enumerate(decoded(path, data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if _ESCAPED.search(line) and half_character(json.dumps(row, ensure_ascii=False)):
                raise UserError(f"{path}, line {number}: holds half a character (a lone surrogate).")
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error.msg}).") from None
        except ValueError:  # an integer of thousands of digits
            raise UserError(f"{path}, line {number}: holds a number that is too long.") from None
        except RecursionError:
            raise UserError(f"{path}, line {number}: nested too deeply.") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a JSON {type(row).__name__}, not an object.")
        rows.append(row)
    return rows


@contextlib.contextmanager
def waiting(folder: Path) -> Iterator[None]:
    """Hold a folder for a moment, after whoever holds it: to read a file of it, change and write it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def run_lock(folder: Path, option: str) -> Iterator[None]:
    """Hold a folder, made where it is missing, for one writing process; freed when that process dies.

    What killed writers left in it is removed.

    Raises ``UserError`` for a folder that cannot be written or is held; ``option`` names what chose it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise MachineError(f"cannot write {folder}: {error.strerror}. Choose another {option} folder.") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UserError(f"{folder} is in use by another steerboard. Wait for it, or use another {option}.") from None
    try:
        sweep(folder)
        yield
    finally:
        os.close(handle)
