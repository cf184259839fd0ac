"""What is a submission, which files it has, and that none leads out of its folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from harness.methods.registry import SUBMISSIONS
from harness.submissions import limits
from harness.submissions.strict_io import InvalidSubmissionError

CARD = "submission.yaml"
CODE = "method.py"
TOP_FILES = ("README.md", ".gitattributes", "ruff.toml")
"""Files of the maintainers in a submissions directory, beside the submissions."""

CHECKER_FILES = ("check.json", "measured")
"""What earlier versions kept in a submission; who finds it there must not believe it."""

CELL_FILES = ("generations.jsonl.gz", "status.json", "scores.json.gz", "predictions.json.gz")
MEASURED_FILES = ("scores.json.gz", "predictions.json.gz")
_REMOVE = "Remove it."

SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
_NAME = re.compile(SLUG)
_HEX = r"[0-9a-f]{16}"
_ALLOWED = re.compile(
    rf"submission\.yaml|method\.py|steering/{_HEX}\.safetensors"
    rf"|results/{SLUG}/(manifest|hashes)\.json"
    rf"|results/{SLUG}/{_HEX}/({'|'.join(map(re.escape, CELL_FILES))})"
)


def why_not(path: Path) -> str:
    """Return why a path of a submissions directory is not a submission; empty where it is one.

    A submission is a real folder, no link, with a plain name, that holds a plain file ``submission.yaml``.
    Whether its content is right is for ``check_files`` to say.
    """
    try:
        if path.is_symlink():
            return "is a link"
        if not path.is_dir():
            return "is a stray file"
        if not _NAME.fullmatch(path.name):
            return "has a name of other signs than A-Z a-z 0-9 . _ -"
        card = (path / CARD).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return f"is not a submission: it has no {CARD}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if stat.S_ISREG(card.st_mode) else f"is not a submission: its {CARD} is not a plain file"


def is_root(path: Path) -> bool:
    """Say whether a folder is a submissions directory: it is named so, or holds a submission."""
    return path.name == SUBMISSIONS or holds_submissions(path)


def holds_submissions(path: Path) -> bool:
    """Say whether a submission lies directly below a folder."""
    try:
        return path.is_dir() and any(not why_not(child) for child in path.iterdir())
    except OSError:
        return False


def listed(root: Path) -> tuple[list[Path], list[InvalidSubmissionError]]:
    """Return the submissions of a submissions directory by name, and what else lies there and must not.

    Hidden names, such as caches of tools, are no submissions and never looked into. A pull request that adds
    one is refused by its path (``changes``).

    Raises ``InvalidSubmissionError`` where the directory itself is a link or not a directory.
    """
    if root.is_symlink() or not root.is_dir():
        what = "is a link" if root.is_symlink() else "is not a directory"
        raise InvalidSubmissionError(shown(str(root)), what, "Give the directory that holds submissions itself.")
    found, problems = [], []
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or (path.name in TOP_FILES and not path.is_symlink() and path.is_file()):
            continue
        reason = why_not(path)
        if reason:
            problems.append(InvalidSubmissionError(shown(path.name), reason, _REMOVE))
        else:
            found.append(path)
    return found, problems


def max_bytes(file: str) -> int:
    """Return how many bytes a file of a submission may have, by its path."""
    name = file.rpartition("/")[2]
    return limits.STEERING if name.endswith(".safetensors") else limits.FILES.get(name, 0)


def scan(folder: Path) -> tuple[dict[str, int], list[InvalidSubmissionError]]:
    """Return path within the folder -> bytes of every file, and what must not be there.

    Links, hidden and foreign files, names that are not ASCII, sizes and numbers above the bounds are
    refused; nothing is opened, no link followed.
    """
    files: dict[str, int] = {}
    problems: list[InvalidSubmissionError] = []
    todo = [("", 0)]
    folders = 0
    while todo and len(files) + len(problems) + folders <= limits.N_FILES:
        inside, depth = todo.pop()
        folders += 1
        try:
            with os.scandir(folder / inside) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(InvalidSubmissionError(inside or ".", f"cannot be read ({error.strerror})", "Repair it."))
            continue
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            try:
                _check_not_of_a_checker(path)
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    _check_folder(path, depth + 1)
                    todo.append((path, depth + 1))
                else:
                    _check_file(path, status)
                    files[path] = status.st_size
            except InvalidSubmissionError as problem:
                problems.append(problem)
            except OSError as error:
                problems.append(InvalidSubmissionError(shown(path), f"cannot be read ({error.strerror})", _REMOVE))
    if todo:
        problems.append(InvalidSubmissionError(".", f"has more than {limits.N_FILES:,} files", "Remove files."))
    if sum(files.values()) > limits.SUBMISSION:
        size = sum(files.values())
        what = f"has {size:,} bytes in all, above the bound of {limits.SUBMISSION:,}"
        problems.append(InvalidSubmissionError(".", what, "Make it smaller."))
    return dict(sorted(files.items())), problems


def _check_not_of_a_checker(path: str) -> None:
    if path in CHECKER_FILES:
        raise InvalidSubmissionError(
            path, "only whoever checks writes it, and not here: it counts for nothing", _REMOVE
        )


def _check_folder(path: str, depth: int) -> None:
    _check_name(path)
    top = path.partition("/")[0]
    if top not in {"results", "steering"}:
        raise InvalidSubmissionError(path, "is a folder that does not belong to a submission", _REMOVE)
    if depth > limits.DEPTH:
        raise InvalidSubmissionError(path, "lies too deep", _REMOVE)


def _check_file(path: str, status: os.stat_result) -> None:
    _check_name(path)
    if stat.S_ISLNK(status.st_mode):
        raise InvalidSubmissionError(path, "is a link", "Put the file itself there, or remove it.")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidSubmissionError(path, "is no plain file", _REMOVE)
    if not _ALLOWED.fullmatch(path):
        raise InvalidSubmissionError(path, "does not belong to a submission", _REMOVE)
    cap = max_bytes(path)
    if status.st_size > cap:
        raise InvalidSubmissionError(
            path, f"has {status.st_size:,} bytes, above the bound of {cap:,}", "Make it smaller."
        )


def _check_name(path: str) -> None:
    name = path.rpartition("/")[2]
    if not _NAME.fullmatch(name):
        what = "has a hidden name" if name.startswith(".") else "has a name of other signs than A-Z a-z 0-9 . _ -"
        raise InvalidSubmissionError(shown(path), what, "Rename or remove it.")


def shown(path: str) -> str:
    """Return a path in ASCII that can be seen, whatever its signs."""
    return path if path.isascii() and path.isprintable() else ascii(path)[1:-1]
