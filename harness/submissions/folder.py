"""The files of a submission: which there are, and that none leads out of its folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from harness.submissions import limits
from harness.submissions.reading import RefusedError

CARD = "submission.yaml"
CODE = "method.py"
CHECK = "check.json"
CELL_FILES = ("generations.jsonl.gz", "status.json", "scores.json.gz", "predictions.json.gz")
MEASURED_FILES = ("scores.json.gz", "predictions.json.gz")

SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
_NAME = re.compile(SLUG)
_HEX = r"[0-9a-f]{16}"
_ALLOWED = re.compile(
    rf"submission\.yaml|method\.py|check\.json|steering/{_HEX}\.safetensors"
    rf"|results/{SLUG}/(manifest|hashes)\.json"
    rf"|results/{SLUG}/{_HEX}/({'|'.join(map(re.escape, CELL_FILES))})"
    rf"|measured/{SLUG}/{_HEX}/({'|'.join(map(re.escape, MEASURED_FILES))})"
)


def cap_of(file: str) -> int:
    """Return how many bytes a file of a submission may have, by its path."""
    name = file.rpartition("/")[2]
    return limits.STEERING if name.endswith(".safetensors") else limits.FILES.get(name, 0)


def walk(folder: Path) -> tuple[dict[str, int], list[RefusedError]]:
    """Return path within the folder -> bytes of every file, and what must not be there.

    Links, hidden and foreign files, names that are not ASCII, sizes and numbers above the bounds are
    refused; nothing is opened, no link followed.
    """
    files: dict[str, int] = {}
    problems: list[RefusedError] = []
    todo = [("", 0)]
    folders = 0
    while todo and len(files) + len(problems) + folders <= limits.N_FILES:
        inside, depth = todo.pop()
        folders += 1
        try:
            with os.scandir(folder / inside) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(RefusedError(inside or ".", f"cannot be read ({error.strerror})", "Repair it."))
            continue
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    _check_folder(path, depth + 1)
                    todo.append((path, depth + 1))
                else:
                    _check_file(path, status)
                    files[path] = status.st_size
            except RefusedError as problem:
                problems.append(problem)
            except OSError as error:
                problems.append(
                    RefusedError(_shown(path), f"cannot be read ({error.strerror})", "Remove it.")
                )
    if todo:
        problems.append(RefusedError(".", f"has more than {limits.N_FILES:,} files", "Remove files."))
    if sum(files.values()) > limits.SUBMISSION:
        size = sum(files.values())
        what = f"has {size:,} bytes in all, above the bound of {limits.SUBMISSION:,}"
        problems.append(RefusedError(".", what, "Make it smaller."))
    return dict(sorted(files.items())), problems


def _check_folder(path: str, depth: int) -> None:
    _check_name(path)
    top = path.partition("/")[0]
    if top not in {"results", "steering", "measured"}:
        raise RefusedError(path, "is a folder that does not belong to a submission", "Remove it.")
    if depth > limits.DEPTH:
        raise RefusedError(path, "lies too deep", "Remove it.")


def _check_file(path: str, status: os.stat_result) -> None:
    _check_name(path)
    if stat.S_ISLNK(status.st_mode):
        raise RefusedError(path, "is a link", "Put the file itself there, or remove it.")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(path, "is no plain file", "Remove it.")
    if not _ALLOWED.fullmatch(path):
        raise RefusedError(path, "does not belong to a submission", "Remove it.")
    cap = cap_of(path)
    if status.st_size > cap:
        raise RefusedError(
            path, f"has {status.st_size:,} bytes, above the bound of {cap:,}", "Make it smaller."
        )


def _check_name(path: str) -> None:
    name = path.rpartition("/")[2]
    if not _NAME.fullmatch(name):
        what = (
            "has a hidden name"
            if name.startswith(".")
            else "has a name of other signs than A-Z a-z 0-9 . _ -"
        )
        raise RefusedError(_shown(path), what, "Rename or remove it.")


def _shown(path: str) -> str:
    return path if path.isascii() and path.isprintable() else ascii(path)[1:-1]
