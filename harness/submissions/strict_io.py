"""Strict readers of foreign files: bounded, no links, no duplicate keys, no infinities, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core import reading
from harness.core.errors import InvalidFileError, UserError
from harness.core.files import JsonValue
from harness.submissions import limits


class InvalidSubmissionError(UserError):
    """A file of a submission cannot be accepted: which, what is wrong with it, what to do."""

    def __init__(self, file: str, what: str, todo: str) -> None:
        super().__init__(f"{file}: {what}. {todo}")
        self.file, self.what, self.todo = file, what, todo


_PACK_AGAIN = "Pack it again with 'steerboard submission pack'."


@contextmanager
def _as_submission_error(todo: str = _PACK_AGAIN) -> Iterator[None]:
    try:
        yield
    except InvalidFileError as error:
        hint = todo if not error.hint or error.hint in reading.GENERIC_HINTS else error.hint
        raise InvalidSubmissionError(error.name, error.problem, hint) from None


def read_bytes(path: Path, file: str, cap: int) -> bytes:
    """Return the bytes of a plain file of at most ``cap``; ``InvalidSubmissionError``, with the name ``file``, else."""
    with _as_submission_error():
        return reading.read_bytes(path, cap, name=file, follow_links=False)


def unpack(data: bytes, file: str, cap: int) -> bytes:
    """Return what gzipped bytes hold; never unpacks more than ``cap`` and one byte."""
    with _as_submission_error():
        return reading.gunzip(data, file, cap)


def json_object(data: bytes, file: str) -> dict[str, JsonValue]:
    """Return a JSON object; ``InvalidSubmissionError`` for duplicate keys, NaN, huge numbers, half characters."""
    with _as_submission_error():
        return reading.parse_json(data, file, depth=limits.NESTING, strict=True)


def strict_yaml(data: bytes, file: str) -> dict[str, Any]:
    """Return a YAML mapping; ``InvalidSubmissionError`` for duplicate keys, references (``&``, ``*``) and tags."""
    with _as_submission_error("Compare the example in 'steerboard docs submitting'."):
        return reading.parse_yaml(data, file, depth=limits.NESTING, strict=True)
