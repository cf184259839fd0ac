"""Which files a submission may have and how large, and the strict reader that opens each of them once."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core import reading
from harness.core.errors import InvalidFileError
from harness.core.redaction import hide_secrets
from harness.core.schema import REMOVE, SCHEMA
from harness.methods.registry import SUBMISSIONS

CARD = "submission.yaml"
CODE = "method.py"
TEXTS = "generations.jsonl.gz"
SCORED_FILES = ("scores.json.gz", "predictions.json.gz")
CELL_FILES = (TEXTS, "status.json", *SCORED_FILES)
TOP_FILES = ("README.md", ".gitattributes", "ruff.toml")
"""Files of the maintainers in a submissions directory, next to the submissions."""

CHECKER_FILES = ("check.json", "measured")
"""What earlier versions kept in a submission; whoever finds it there must not believe it."""

# Bounds, all far above what the suite steer11 needs.
KIB, MIB = 2**10, 2**20
MAX_BYTES = {
    CARD: 64 * KIB,
    CODE: 256 * KIB,
    "manifest.json": 4 * MIB,
    "hashes.json": 4 * MIB,
    "status.json": MIB,
    TEXTS: 8 * MIB,
    "scores.json.gz": MIB,
    "predictions.json.gz": 8 * MIB,
}
MAX_STEERING_BYTES = 32 * MIB
MAX_UNPACKED_BYTES = {TEXTS: 16 * MIB, "scores.json.gz": 4 * MIB, "predictions.json.gz": 16 * MIB}
MAX_TOTAL_BYTES = 256 * MIB
MAX_FILES = 100_000
MAX_FOLDER_DEPTH = 5
MAX_NESTING = 40
MAX_MODELS = 20
MAX_CELLS = 5_000  # of one model
MAX_TEXTS = 20_000  # of one cell

PACK_AGAIN = "Pack it again with 'steerboard submission pack'."
_REMOVE = "Remove it."
_BAD_NAME = "has a name with characters other than A-Z a-z 0-9 . _ -"

SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
_NAME = re.compile(SLUG)
_HEX = r"[0-9a-f]{16}"
_ALLOWED = re.compile(
    rf"submission\.yaml|method\.py|steering/{_HEX}\.safetensors"
    rf"|results/{SLUG}/(manifest|hashes)\.json"
    rf"|results/{SLUG}/{_HEX}/({'|'.join(map(re.escape, CELL_FILES))})"
)


class InvalidSubmissionError(InvalidFileError):
    """A file of a submission cannot be accepted: its name, what is wrong with it, the next step."""

    def __init__(self, name: object, problem: str, hint: str = PACK_AGAIN) -> None:
        super().__init__(name, problem, hint)
        self.args = (hide_secrets(f"{name}: {problem}. {hint}".rstrip()),)

    @classmethod
    def from_reader(cls, error: InvalidFileError, hint: str = PACK_AGAIN) -> InvalidSubmissionError:
        """Return what a reader of any file refused as said of a submission's file."""
        generic = not error.hint or error.hint in {*reading.GENERIC_HINTS, REMOVE}
        return cls(error.name, error.problem, hint if generic else error.hint)


@contextmanager
def submission_errors(hint: str = PACK_AGAIN) -> Iterator[None]:
    """Raise what readers refuse as ``InvalidSubmissionError``."""
    try:
        yield
    except InvalidSubmissionError:
        raise
    except InvalidFileError as error:
        raise InvalidSubmissionError.from_reader(error, hint) from None


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as hex."""
    return hashlib.sha256(data).hexdigest()


def max_bytes(path: str) -> int:
    """Return how many bytes a file of a submission may have, by its path; 0 for an unknown one."""
    name = path.rpartition("/")[2]
    return MAX_STEERING_BYTES if name.endswith(".safetensors") else MAX_BYTES.get(name, 0)


class StrictReader:
    """Reads files below a directory: regular files within their bounds, no links, strict JSON and YAML.

    Each file is opened once: its bytes are kept until ``forget``. Later it is opened again where it is needed,
    and refused if it is not what it was. ``prefix`` comes before paths in messages.
    """

    def __init__(self, root: Path, prefix: str = "") -> None:
        self.root, self.prefix = root, prefix
        self._data: dict[str, bytes] = {}
        self._digests: dict[str, str] = {}
        self._strict: set[str] = set()
        self._keep = True

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; ``InvalidSubmissionError`` where it is missing, a link or too large."""
        if path in self._data:
            return self._data[path]
        name = self.prefix + path
        with submission_errors():
            data = reading.read_bytes(self.root / path, max_bytes(path), name=name, follow_links=False)
        found = sha256(data)
        if self._digests.setdefault(path, found) != found:
            raise InvalidSubmissionError(name, "was changed while it was read", "Repeat the command.")
        if self._keep:
            self._data[path] = data
        return data

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file's bytes."""
        if path not in self._digests:
            self.read(path)
        return self._digests[path]

    def content(self, path: str) -> bytes:
        """Return what a file holds, unpacked where it is compressed."""
        data = self.read(path)
        if not path.endswith(".gz"):
            return data
        with submission_errors():
            return reading.gunzip(data, self.prefix + path, MAX_UNPACKED_BYTES[path.rpartition("/")[2]])

    def json(self, path: str, schema: int | None = SCHEMA) -> dict[str, Any]:
        """Return the object of a JSON file; ``schema``: the newest version of it that is read."""
        data = self.content(path)
        with submission_errors():
            return reading.parse_json(data, self.prefix + path, depth=MAX_NESTING, strict=True, schema=schema)

    def strict_content(self, path: str) -> bytes:
        """Return the content of a file of JSON or JSON lines that hides nothing from a less strict reader."""
        if path not in self._strict:
            if path.endswith(TEXTS):
                data = self.content(path)
                if data.count(b"\n") > MAX_TEXTS:
                    problem = f"has more than {MAX_TEXTS:,} lines"
                    raise InvalidSubmissionError(self.prefix + path, problem, "Submit the suite's texts only.")
                with submission_errors():
                    reading.parse_json_lines(data, self.prefix + path, depth=MAX_NESTING, strict=True)
            else:
                self.json(path, None if path.endswith("predictions.json.gz") else SCHEMA)
            self._strict.add(path)
        return self.content(path)

    def yaml(self, path: str) -> dict[str, Any]:
        """Return the mapping of a YAML file without anchors, aliases, tags and duplicate keys."""
        data = self.read(path)
        with submission_errors("Compare the example in 'steerboard docs submitting'."):
            return reading.parse_yaml(data, self.prefix + path, depth=MAX_NESTING, strict=True)

    def forget(self) -> None:
        """Free the bytes that were read, and keep none from now on."""
        self._data, self._keep = {}, False


def find_refusal(path: Path) -> InvalidSubmissionError | None:
    """Return why a path of a submissions directory is not a submission; None where it is one.

    A submission is a real directory, not a link, with a plain name, that holds a regular file ``submission.yaml``.
    Whether its content is right is for ``check_files`` to say.
    """
    problem = None
    try:
        if path.is_symlink():
            problem = "is a link"
        elif not path.is_dir():
            problem = "is a stray file"
        elif not _NAME.fullmatch(path.name):
            problem = _BAD_NAME
        elif not stat.S_ISREG((path / CARD).lstat().st_mode):
            problem = f"is not a submission: its {CARD} is not a regular file"
    except (FileNotFoundError, NotADirectoryError):
        problem = f"is not a submission: it has no {CARD}"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    return InvalidSubmissionError(printable(path.name), problem, _REMOVE) if problem else None


def is_root(path: Path) -> bool:
    """Say whether a directory is one of submissions: it is named so, or holds a submission."""
    return path.name == SUBMISSIONS or holds_submissions(path)


def holds_submissions(path: Path) -> bool:
    """Say whether a submission lies directly below a directory."""
    try:
        return path.is_dir() and any(find_refusal(child) is None for child in path.iterdir())
    except OSError:
        return False


def list_submissions(root: Path) -> tuple[list[Path], list[InvalidSubmissionError]]:
    """Return the submissions of a submissions directory by name, and what else lies there and must not.

    Hidden names, such as caches of tools, are never looked into. A pull request that adds one is refused by
    its path (``check_changes``). Raises ``InvalidSubmissionError`` where the directory itself is a link or not
    a directory.
    """
    if root.is_symlink() or not root.is_dir():
        problem = "is a link" if root.is_symlink() else "is not a directory"
        raise InvalidSubmissionError(printable(root), problem, "Pass the directory that holds submissions itself.")
    found, problems = [], []
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or (path.name in TOP_FILES and not path.is_symlink() and path.is_file()):
            continue
        if refusal := find_refusal(path):
            problems.append(refusal)
        else:
            found.append(path)
    return found, problems


def scan(folder: Path) -> tuple[dict[str, int], list[InvalidSubmissionError]]:
    """Return path within the directory -> size in bytes of every file, and what must not be there.

    Links, hidden and foreign files, names that are not ASCII, sizes and numbers above the bounds are
    refused; nothing is opened, no link followed.
    """
    files: dict[str, int] = {}
    problems: list[InvalidSubmissionError] = []
    todo = [("", 0)]
    n_folders = 0
    while todo and len(files) + len(problems) + n_folders <= MAX_FILES:
        inside, depth = todo.pop()
        n_folders += 1
        try:
            with os.scandir(folder / inside) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(InvalidSubmissionError(inside or ".", f"cannot be read ({error.strerror})", "Repair it."))
            continue
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            try:
                state = entry.stat(follow_symlinks=False)
                is_folder = stat.S_ISDIR(state.st_mode)
                if refusal := _refusal(path, state, depth + is_folder):
                    problems.append(InvalidSubmissionError(printable(path), *refusal))
                elif is_folder:
                    todo.append((path, depth + 1))
                else:
                    files[path] = state.st_size
            except OSError as error:
                problems.append(InvalidSubmissionError(printable(path), f"cannot be read ({error.strerror})", _REMOVE))
    if todo:
        problems.append(InvalidSubmissionError(".", f"has more than {MAX_FILES:,} files", "Remove files."))
    if (size := sum(files.values())) > MAX_TOTAL_BYTES:
        problem = f"has {size:,} bytes in all, above the bound of {MAX_TOTAL_BYTES:,}"
        problems.append(InvalidSubmissionError(".", problem, "Make it smaller."))
    return dict(sorted(files.items())), problems


def _refusal(path: str, state: os.stat_result, depth: int) -> tuple[str, str] | None:
    """Return why a path must not be in a submission, and what to do; None for one that may."""
    top, _, name = path.partition("/")[0], *path.rpartition("/")[1:]
    limit = max_bytes(path)
    if path in CHECKER_FILES:
        return "only whoever checks writes it, and not here: it counts for nothing", _REMOVE
    if not _NAME.fullmatch(name):
        return "has a hidden name" if name.startswith(".") else _BAD_NAME, "Rename or remove it."
    if stat.S_ISDIR(state.st_mode):
        if top not in {"results", "steering"}:
            return "is a directory that does not belong to a submission", _REMOVE
        return ("lies too deep", _REMOVE) if depth > MAX_FOLDER_DEPTH else None
    if stat.S_ISLNK(state.st_mode):
        return "is a link", "Put the file itself there, or remove it."
    if not stat.S_ISREG(state.st_mode):
        return "is not a regular file", _REMOVE
    if not _ALLOWED.fullmatch(path):
        return "does not belong to a submission", _REMOVE
    if state.st_size > limit:
        return f"has {state.st_size:,} bytes, above the bound of {limit:,}", "Make it smaller."
    return None


def printable(path: object) -> str:
    """Return a path in visible ASCII, whatever its characters."""
    text = str(path)
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
