"""Strict readers of foreign files: bounded, no links, no duplicate keys, no infinities, nothing executed."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import zlib
from pathlib import Path
from typing import Any, NoReturn

import yaml

from harness.core.errors import UserError
from harness.core.files import JsonValue
from harness.core.safeyaml import SafeLoader
from harness.submissions import limits

_LONGEST_NUMBER = 30  # characters
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class InvalidSubmissionError(UserError):
    """A file of a submission cannot be accepted: which, what is wrong with it, what to do."""

    def __init__(self, file: str, what: str, todo: str) -> None:
        super().__init__(f"{file}: {what}. {todo}")
        self.file, self.what, self.todo = file, what, todo


_PACK_AGAIN = "Pack it again with 'steerboard submission pack'."


def read_bytes(path: Path, file: str, cap: int) -> bytes:
    """Return the bytes of a plain file of at most ``cap``; ``InvalidSubmissionError``, with the name ``file``, else."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = "is missing" if missing else f"cannot be read ({error.strerror})"
        raise InvalidSubmissionError(file, what, _PACK_AGAIN) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):  # looked at before it is wrapped, which fails for a folder
        os.close(handle)
        raise InvalidSubmissionError(file, "is no plain file", "Remove it.")
    with os.fdopen(handle, "rb") as stream:
        data = stream.read(cap + 1) if found.st_size <= cap else b""
    if len(data) > cap or found.st_size > cap:
        size = max(len(data), found.st_size)
        raise InvalidSubmissionError(file, f"has {size:,} bytes, above the bound of {cap:,}", "Make it smaller.")
    return data


def unpack(data: bytes, file: str, cap: int) -> bytes:
    """Return what gzipped bytes hold; never unpacks more than ``cap`` and one byte."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(data, cap + 1)
    except zlib.error as error:
        raise InvalidSubmissionError(file, f"is no gzip file or a broken one ({error})", _PACK_AGAIN) from None
    if len(found) > cap:
        raise InvalidSubmissionError(
            file, f"unpacks to more than {cap:,} bytes", "Submit what the suite asks for only."
        )
    if not unpacker.eof:
        raise InvalidSubmissionError(file, "ends too early: it is truncated", _PACK_AGAIN)
    if unpacker.unused_data:
        raise InvalidSubmissionError(file, "has data after its end", _PACK_AGAIN)
    return found


def text_of(data: bytes, file: str) -> str:
    """Return UTF-8 text; ``InvalidSubmissionError`` for another encoding."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 (byte {error.start}: {error.reason})"
        raise InvalidSubmissionError(file, what, "Save it as UTF-8.") from None


def strict_json(data: bytes, file: str) -> JsonValue:
    """Return a JSON value; ``InvalidSubmissionError`` for duplicate keys, NaN, huge numbers, half characters."""
    text = text_of(data, file)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short_int,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        what = f"is no JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise InvalidSubmissionError(file, what, _PACK_AGAIN) from None
    except UnicodeEncodeError:
        raise InvalidSubmissionError(file, "holds half a character (a lone surrogate)", _PACK_AGAIN) from None
    except ValueError as error:
        raise InvalidSubmissionError(file, str(error), _PACK_AGAIN) from None
    except RecursionError:
        raise InvalidSubmissionError(file, "is nested too deeply", _PACK_AGAIN) from None
    return value


def json_object(data: bytes, file: str) -> dict[str, JsonValue]:
    """Return a JSON object, see ``strict_json``."""
    value = strict_json(data, file)
    if not isinstance(value, dict):
        raise InvalidSubmissionError(file, f"holds a JSON {type(value).__name__}, not an object", _PACK_AGAIN)
    if depth(value) > limits.NESTING:
        raise InvalidSubmissionError(file, f"is nested more than {limits.NESTING} deep", _PACK_AGAIN)
    return value


def depth(value: JsonValue) -> int:
    """Return how deep lists and objects lie in one another; 0 for a plain value."""
    level, found = [value], 0
    while level := [v for v in level if isinstance(v, dict | list)]:
        found += 1
        level = [w for v in level for w in (v.values() if isinstance(v, dict) else v)]
    return found


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"has the key {twice!r:.80} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text:.40}, which is too large")
    return value


def _short_int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"holds a number of {len(text)} digits")
    return int(text)


class _Loader(SafeLoader):
    """Safe YAML that refuses a key that stands twice and a merge key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping of plain keys."""
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise ValueError(f"has a key that is no plain word in line {line}")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(f"has the key {key!r:.40}, which is no text, in line {line}")
            if key in found:
                raise ValueError(f"has the key {key!r:.80} twice, again in line {line}")
            found[key] = self.construct_object(value_node, deep=True)
        return found


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)


def strict_yaml(data: bytes, file: str) -> dict[str, Any]:
    """Return a YAML mapping; ``InvalidSubmissionError`` for duplicate keys, references (``&``, ``*``) and tags."""
    text = text_of(data, file)
    todo = "Compare the example in 'steerboard docs submitting'."
    try:
        _scan(text)
        value = _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise InvalidSubmissionError(file, f"is no YAML: {' '.join(str(error).split()):.200}", todo) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidSubmissionError(file, " ".join(str(error).split())[:200], todo) from None
    if not isinstance(value, dict):
        raise InvalidSubmissionError(file, "holds no YAML mapping", todo)
    return value


def _scan(text: str) -> None:
    """Look at YAML piece by piece before anything is built from it."""
    deep = 0
    for number, event in enumerate(yaml.parse(text, Loader=SafeLoader)):
        if number > limits.YAML_EVENTS:
            raise ValueError(f"has more than {limits.YAML_EVENTS} keys and values")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("has references (& or *); write values out")
        tag = getattr(event, "tag", None)
        if tag:
            raise ValueError(f"has the tag {tag:.60}; write plain values")
        deep += isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        deep -= isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        if deep > limits.NESTING:
            raise ValueError(f"is nested more than {limits.NESTING} deep")
