"""Random input for parsers: values, and valid files with something wrong in them.

A test gets few inputs, the same in every run; the environment variable FUZZ_EXAMPLES asks for more, and other ones.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from harness.core.errors import UserError

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))

settings.register_profile(
    "steerboard",
    max_examples=_EXAMPLES or 20,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=30_000,  # ms: no input may keep a parser busy, on a busy machine neither
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("steerboard")

ODD = [
    "",
    " ",
    "\0",
    "..",
    "../x",
    "/",
    "a/b",
    "x" * 300,
    "ሰላም",
    "שלום",
    "\ud800",
    "\u202e",
    "{",
    "{}",
    "%s",
    "=",
    ",",
    ":",
    "*",
    "&a",
    "!!x",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")]

words = st.sampled_from(ODD) | st.text(max_size=12)
scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | st.floats() | words
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)


def changed(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value in which up to three places have another value, are gone, or are there twice."""
    return st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(["put", "drop", "add"]), values), max_size=3).map(
        lambda changes: _apply(copy.deepcopy(value), changes)
    )


def _apply(value: Any, changes: list[tuple[int, str, Any]]) -> Any:
    for number, kind, new in changes:
        places = list(_places(value))
        if not places:
            return new
        holder, name = places[number % len(places)]
        if kind == "put":
            holder[name] = new
        elif kind == "drop":
            del holder[name]
        elif isinstance(holder, list):
            holder.insert(name, holder[name])
        else:
            holder[str(new)] = holder[name]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every list or object with every index or key of it; of long lists the first."""
    for name in list(value) if isinstance(value, dict) else range(min(len(value), 20)):
        yield value, name
        if isinstance(value[name], dict | list):
            yield from _places(value[name])


def json_files(value: Any) -> st.SearchStrategy[bytes]:
    """A JSON file that was changed in its values, else in its bytes."""
    plain = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    other = changed(value).map(lambda new: json.dumps(new).encode())
    return other | other | damaged(plain)


def json_lines(rows: list[Any]) -> st.SearchStrategy[bytes]:
    """A file of JSON lines that was changed in its values, else in its bytes."""
    plain = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    other = changed(rows).map(
        lambda new: "".join(json.dumps(row) + "\n" for row in (new if isinstance(new, list) else [new])).encode()
    )
    return other | damaged(plain)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of which a piece was replaced, cut or doubled; now and then any bytes."""
    size = len(data)
    piece = st.binary(max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8, b"[" * 100, b'"', b"\n", b"\xed\xa0\x80"])
    edits = st.lists(st.tuples(st.integers(0, size), st.integers(0, 40), piece), min_size=1, max_size=3)
    return (
        edits.map(lambda found: _edited(data, found)) | st.integers(0, size).map(lambda end: data[:end]) | st.binary()
    )


def _edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in edits:
        data = data[:at] + new + data[at + length :]
    return data


@contextmanager
def only_user_errors() -> Iterator[None]:
    """Let a parser refuse its input in words; anything else that it raises fails the test."""
    try:
        yield
    except UserError as error:
        assert str(error).strip()
        str(error).encode("utf-8", "backslashreplace")
