"""JSON that is mostly lists of digits, such as kept predictions: read several times as fast."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from harness.core.reading import MAX_BYTES, MAX_DEPTH

_MARK = "\0"  # begins what stands for a list of digits; no string of a file that is read here has it
_GZIP = 31  # how zlib calls the format


def unpacked(packed: bytes) -> bytes:
    """Return what a gzip file of one part holds; ValueError for any other and where it is too large."""
    stream = zlib.decompressobj(_GZIP)
    try:
        data = stream.decompress(packed, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not stream.eof or stream.unused_data:
        raise ValueError("broken, too large or of several parts")
    return data


def load_digits(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON text with lists of digits as arrays of uint8.

    Raises ValueError for what is no such object, and for what takes a closer look: deep nesting, escapes.
    """
    if b"\\u" in data or b"\0" in data:
        raise ValueError("escapes")
    first, *rest = data.split(b"[")
    marked = first + b"".join(_marked(part) for part in rest)
    if marked.count(b"[") + marked.count(b"{") > MAX_DEPTH:
        raise ValueError("perhaps nested too deeply")
    value = json.loads(marked.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("no object")
    return {name: _restored(item) for name, item in value.items()}


def _marked(part: bytes) -> bytes:
    """Return what follows a bracket, a list of digits as a string; in a string that breaks the JSON."""
    body, closed, after = part.partition(b"]")
    digits, commas = body[::2], body[1::2]
    if closed and digits.isdigit() and len(body) % 2 and commas.count(b",") == len(commas):
        return b'"\\u0000' + digits + b'"' + after
    return b"[" + part


def _restored(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_MARK):
        return np.frombuffer(value[1:].encode("ascii"), dtype=np.uint8) - 48
    if isinstance(value, dict):
        return {name: _restored(item) for name, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value
