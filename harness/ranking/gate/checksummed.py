"""JSON files that a person must not edit: the content carries its hash, a changed byte is noticed.

A seal is no signature: who wants to forge one can. It stops edits by hand, bad merges and damage on the way.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import NoReturn

from harness.core.errors import UserError
from harness.core.files import JsonValue, canonical_json, digest, write_bytes
from harness.core.reading import check_schema

_LIMIT = 2**28  # bytes of a file once unpacked: a thousand times what the mini suite takes
_HEAD = b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x02\xff"  # gzip with a comment, no time stamp, no system


def write_checksummed(path: Path, kind: str, schema: int, content: JsonValue) -> str:
    """Write a value with its hash, compressed where the name ends in ``.gz``; return the hash."""
    seal = digest(content)
    body = {"kind": kind, "schema": schema, "sha256": seal, "content": content}
    data = canonical_json(body).encode() + b"\n"
    write_bytes(path, _packed(data) if path.suffix == ".gz" else data)
    return seal


def read_checksummed(path: Path, kind: str, schema: int) -> tuple[JsonValue, str]:
    """Return the content and its hash.

    Raises ``UserError`` for a file that is missing, broken, edited, of another kind or of a newer schema.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. Check the path.") from None
    data = _unpacked(path, data) if data.startswith(b"\x1f\x8b") else data
    body = _parsed(path, data)
    if body.get("kind") != kind:
        raise UserError(f"{path} is no {kind} of steerboard. Make one with 'steerboard gate calibrate'.")
    check_schema(path, body, schema)
    if set(body) != {"kind", "schema", "sha256", "content"} or digest(body["content"]) != body["sha256"]:
        _edited(path)
    if canonical_json(body).encode() + b"\n" != data:
        _edited(path)
    return body["content"], str(body["sha256"])


def _edited(path: Path) -> NoReturn:
    raise UserError(
        f"{path} was edited by hand or damaged: its content does not fit its hash. Restore it, or make it "
        "anew with 'steerboard gate calibrate' or 'steerboard gate accept'."
    )


def _parsed(path: Path, data: bytes) -> dict[str, JsonValue]:
    try:
        body = json.loads(data.decode(), parse_constant=_refuse)
        canonical_json(body).encode()  # refuses half characters and numbers beyond a float
    except (ValueError, RecursionError):
        _edited(path)
    if not isinstance(body, dict):
        _edited(path)
    return body


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _packed(data: bytes) -> bytes:
    """Return gzip of which the comment holds the hash of the rest: that covers idle bits, too."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    rest = deflate.compress(data) + deflate.flush()
    rest += zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return _HEAD + _comment(rest) + rest


def _comment(rest: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(rest).hexdigest().encode() + b"\x00"


def _unpacked(path: Path, data: bytes) -> bytes:
    start = len(_HEAD) + len(_comment(b""))
    if data[:start] != _HEAD + _comment(data[start:]):
        _edited(path)
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        found = reader.decompress(data, _LIMIT)
    except zlib.error:
        _edited(path)
    if reader.unconsumed_tail:
        raise UserError(f"{path} holds more than {_LIMIT:,} bytes; no baseline is that large.")
    if not reader.eof or reader.unused_data:
        _edited(path)
    return found
