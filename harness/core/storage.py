"""A folder in a storage that fsspec reaches (s3://, gs://, memory://, file://), in which copies of runs' files lie.

Stores of objects have neither a lock nor an atomic rename, and two machines may push at once. So nothing in a storage
is ever changed, and nothing is named by where it belongs:

    objects/SHA256       a file of a run, named by its content: two pushes of it write the same bytes
    index/SHA256.json    one push: which files of the run it added, with the SHA-256 and the size of each

An index is written after all objects that it names, hence a push that is stopped leaves objects that nothing names, and
never half a cell. The next push finds them by name and size and does not send them again. What a storage holds is the
union of its indexes in the order of their times: every reader sees the same, whoever wrote last. Of two pushes of one
cell with different texts the first counts. Clocks that differ change which one that is and nothing else.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.core.errors import DamagedFileError, InvalidFileError, MachineError, UserError, in_words
from harness.core.files import sweep, write_bytes
from harness.core.reading import MAX_BYTES, MAX_TEXT_BYTES, read_bytes
from harness.core.schema import Record, Versioned, parse_record
from harness.core.store import KEPT, TEXTS

MAX_INDEXES = 100_000
MAX_INDEX_BYTES = 2**24
MAX_ALL_INDEX_BYTES = 2**28
"""Bytes of the indexes of a storage, one and all of them."""

MAX_FILES = 2**20
"""Files that all indexes of a storage name, and those of one index."""

SWEEP = "tuning/"
"""What the names of the files of the search of 'steerboard tune' begin with: a run within the run."""

CELL_FILES = (TEXTS, *KEPT, "scores.json", "status.json")
"""The files of a cell, in the order in which they are written: with the last one the cell is there."""

_HEX = "[0-9a-f]{16}"
NAMES = re.compile(
    rf"tuned\.json|({SWEEP})?(manifest\.json|steering/{_HEX}\.(safetensors|cost\.json)|separation/{_HEX}\.json"
    rf"|cells/{_HEX}/({'|'.join(map(re.escape, CELL_FILES))}))"
)
"""Names of the files of a run that travel: no other is taken from a storage."""

_INDEX = re.compile(r"([0-9a-f]{64})\.json")
_LOGIN = re.compile(r"(?<=://)[^/]*@|[?].*$", re.DOTALL)
_CHECK = "Check the name, and the credentials of this machine (s3: AWS_ACCESS_KEY_ID or ~/.aws)."


class StoredFile(Record):
    """A file of a run as it was pushed. ``scorers``: those of ``scores.json``."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(gt=0, le=MAX_TEXT_BYTES)]
    scorers: tuple[str, ...] = ()


class Push(Versioned):
    """The index of a push: when it was made, and name in the run -> file."""

    created: str
    files: dict[str, StoredFile]


def hide_login(url: str) -> str:
    """Return a URL without user, password and query, which messages must not show."""
    return _LOGIN.sub("", url)


class Storage:
    """The folder that a URL names. ``name``: what messages call it."""

    def __init__(self, url: str) -> None:
        self.name = hide_login(url)
        self._secrets = sorted({found for whole in _LOGIN.findall(url) for found in _secrets(whole)}, key=len)[::-1]
        protocol, is_url, _ = url.partition("://")
        if not is_url or "::" in url:
            raise UserError(f"{self.name!r:.200} is not a URL. Give one such as s3://BUCKET/FOLDER or file:///FOLDER.")
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        with self._failures():
            try:
                fsspec.get_filesystem_class(protocol)
            except (ImportError, ValueError) as error:
                raise _missing(protocol, error) from None
            # Caches would hide what another machine pushes meanwhile.
            found = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        self._fs: Any = found[0]
        self._root = str(found[1]).rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)
        if not self._root.strip("/"):
            raise UserError(f"{self.name} names no folder. Give one, such as {protocol}://runs/gemma.")

    def pushes(self) -> list[Push]:
        """Return all pushes in their order; ``UserError`` where one is damaged, foreign or too large."""
        with self._failures():
            listed = {match[1]: size for name, size in self._list("index") if (match := _INDEX.fullmatch(name))}
        largest = max(listed.values(), default=0)
        if len(listed) > MAX_INDEXES or largest > MAX_INDEX_BYTES or sum(listed.values()) > MAX_ALL_INDEX_BYTES:
            raise UserError(f"{self.name} holds too many or too large indexes. Push to another folder.")
        found: list[tuple[str, str, Push]] = []
        n_files = 0
        digests = sorted(listed)
        for start in range(0, len(digests), 100):
            some = digests[start : start + 100]
            names = [f"index/{digest}.json" for digest in some]
            for name, digest, data in zip(names, some, self._read(names, [listed[d] for d in some]), strict=True):
                push = self._parse(name, digest, data)
                n_files += len(push.files)
                if n_files > MAX_FILES:
                    raise UserError(f"{self.name} names more than {MAX_FILES:,} files. Push to another folder.")
                found.append((push.created, digest, push))
        return [push for _, _, push in sorted(found, key=lambda item: item[:2])]

    def _parse(self, name: str, digest: str, data: bytes) -> Push:
        label = f"{self.name}/{name}"
        if hashlib.sha256(data).hexdigest() != digest:
            raise DamagedFileError(f"{label} is truncated or was edited. Delete it, and push its cells again.")
        push = parse_record(data, label, Push)
        for file, stored in push.files.items():
            if not NAMES.fullmatch(file):
                raise InvalidFileError(label, f"names {file!r:.80}, which is not a file of a run", "Delete it.")
            if stored.size > MAX_BYTES and not file.endswith((".jsonl", ".safetensors")):
                raise InvalidFileError(label, f"names {file!r:.80} with {stored.size:,} bytes, too many", "Delete it.")
        return push

    def write_push(self, files: Mapping[str, StoredFile]) -> None:
        """Write the index of a push, after its objects."""
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        body = Push(created=created, files=dict(files)).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        data = json.dumps({"schema": 1, **body}, ensure_ascii=False).encode()
        self._write({f"index/{hashlib.sha256(data).hexdigest()}.json": data})
        if self._is_local:
            sweep(Path(self._root))

    def objects(self) -> dict[str, int]:
        """Return SHA-256 -> size of the objects that are there, named by an index or not."""
        with self._failures():
            return dict(self._list("objects"))

    def write(self, objects: Mapping[str, bytes]) -> None:
        """Write objects by their SHA-256."""
        self._write({f"objects/{digest}": data for digest, data in objects.items()})

    def read(self, files: Sequence[StoredFile]) -> list[bytes]:
        """Return the content of files; ``DamagedFileError`` where one is not what was pushed."""
        found = self._read([f"objects/{file.sha256}" for file in files], [file.size for file in files])
        for file, data in zip(files, found, strict=True):
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise DamagedFileError(
                    f"{self.name}/objects/{file.sha256} is not what was pushed (wrong checksum); nothing of it was "
                    "used. Delete it, and push again from where the run is."
                )
        return found

    def _list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield name and size of what lies in a folder, which may be missing."""
        path = f"{self._root}/{folder}"
        try:
            found = self._fs.find(path, maxdepth=1, detail=True)
        except FileNotFoundError:
            return
        for name, info in found.items():
            if info.get("type") == "file":
                yield name.rpartition("/")[2], int(info["size"])

    def _read(self, names: Sequence[str], sizes: Sequence[int]) -> list[bytes]:
        """Return what files hold, never more of one than its size and a byte."""
        paths = [f"{self._root}/{name}" for name in names]
        if self._is_local:  # a pipe or device is not waited for
            labels = [f"{self.name}/{name}" for name in names]
            return [read_bytes(path, size, name=label) for path, size, label in zip(paths, sizes, labels, strict=True)]
        with self._failures():
            ends = [size + 1 for size in sizes]
            found: list[bytes] = self._fs.cat_ranges(paths, [0] * len(paths), ends, on_error="raise")
            return found

    def _write(self, files: Mapping[str, bytes]) -> None:
        if self._is_local:  # whole or not at all, as a store of objects has it
            for name, data in files.items():
                write_bytes(Path(self._root) / name, data)
            return
        with self._failures():
            if not self._fs.async_impl:  # in a store of objects this would make a bucket
                for folder in {name.partition("/")[0] for name in files}:
                    self._fs.makedirs(f"{self._root}/{folder}", exist_ok=True)
            self._fs.pipe({f"{self._root}/{name}": data for name, data in files.items()})

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise what a library of a storage raises as one line without secrets."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            words = in_words(error)
            for secret in self._secrets:
                words = words.replace(secret, "***")
            raise MachineError(
                f"cannot use {self.name} ({words:.300}). {_CHECK} Then run the same command again."
            ) from None


def _secrets(login: str) -> Iterator[str]:
    """Yield the parts of a URL's login or query that no message may hold."""
    yield from (part for part in (login, login.rstrip("@"), *re.split("[:@?&=]", login)) if len(part) > 1)


def _missing(protocol: str, error: Exception) -> UserError:
    """Return the error for a kind of URL that cannot be used here."""
    if protocol == "s3":
        return UserError("s3:// needs s3fs, which is not installed: pip install 'steerboard[s3]'.")
    if isinstance(error, ImportError):
        from fsspec.registry import known_implementations

        package = str(known_implementations.get(protocol, {}).get("class", "fsspec")).partition(".")[0]
        if package == "fsspec":  # its own class, which needs another package
            return UserError(f"{protocol}:// needs a package that is not installed ({error}).")
        return UserError(f"{protocol}:// needs {package}, which is not installed: pip install {package}.")
    return UserError(f"{protocol!r:.40} is not a kind of storage that fsspec knows. Valid: s3, gs, az, file, ...")
