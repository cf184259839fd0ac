"""The one bounded reader of files that this process did not just write: nothing waits, grows without end or is run.

Callers that need their own words catch ``InvalidFileError`` and use its ``name``, ``problem`` and ``hint``::

    data = read_bytes(path, limit=8 * MIB, name="results/m/scores.json.gz", follow_links=False)
    body = parse_json(gunzip(data, name, limit=16 * MIB), name, depth=40, strict=True)

``name`` is what messages call the file, ``limit`` counts bytes, ``depth`` counts lists and objects inside one
another. ``strict`` refuses what a file of somebody else could hide something in: duplicate keys, NaN and infinities,
numbers of endless digits, lone surrogates, a byte order mark; in YAML also anchors, aliases, tags and merge keys.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import yaml

from harness.core.errors import InvalidFileError, UnreadableFileError
from harness.core.files import JsonValue

try:
    from yaml import CSafeLoader as _BaseLoader  # ten times as fast
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]

MAX_BYTES = 2**27
"""Bytes of a JSON file, unpacked if it is compressed; the largest that this program writes has about 2**20."""

MAX_TEXT_BYTES = 2**30
"""Bytes of a text file or of a file of JSON lines."""

MAX_DEPTH = 64
"""Lists and objects inside one another in a JSON file."""

MAX_YAML_COLLECTIONS = 10_000
"""Lists and mappings of a YAML file: libyaml ends the process at about 50,000 inside one another."""

MAX_YAML_EVENTS = 20_000
"""Keys, values and brackets of a strict YAML file."""

_MAX_DIGITS = 30  # characters of an integer in strict JSON
_MAX_YAML_DIGITS = 80  # characters; 64 bits in any base are shorter
_GZIP = 31  # wbits: a gzip header and trailer
_CHUNK = 2**20
_NO_BRACKETS = bytes(sorted({*range(256)} - {*b"[]{}"}))
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_YAML_OPENER = re.compile(r"[\[{]|[-?](?=\s)")  # whatever nests: [ { and an item or a key on its own line
_YAML_TEXT = "tag:yaml.org,2002:str"

_FOREIGN = "It was not written by steerboard: remove it from the folder."
_AGAIN = "It is truncated or was not written by steerboard: delete it and run the same command again."
_LINE = "Correct the line."
_COMPARE = "Correct it; tasks/mini.yaml is an example."
GENERIC_HINTS = frozenset({_FOREIGN, _AGAIN, _LINE, _COMPARE})
"""Next steps that fit any file; a caller that knows the file has a better one."""


def read_bytes(
    path: str | Path, limit: int = MAX_TEXT_BYTES, *, name: object = None, follow_links: bool = True
) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes; a pipe or device is never waited for.

    Raises ``InvalidFileError`` for anything else, and its kind ``UnreadableFileError`` where the machine fails.
    """
    return read_with_state(path, limit, name=name, follow_links=follow_links)[0]


def read_with_state(
    path: str | Path, limit: int = MAX_TEXT_BYTES, *, name: object = None, follow_links: bool = True
) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a file and its state when it was opened; see ``read_bytes``."""
    name = path if name is None else name
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        # Tens of thousands of files are read: Python's file objects and paths would take most of the time.
        handle = os.open(path, flags)
        try:
            state = os.fstat(handle)  # of what was opened: the path may name something else by now
            if not stat.S_ISREG(state.st_mode):
                what = "a directory, not a file" if stat.S_ISDIR(state.st_mode) else "not a regular file"
                raise InvalidFileError(name, f"is {what}", "Remove it.")
            _check_size(name, state.st_size, limit)
            data = os.read(handle, state.st_size + 1)
            while len(data) != state.st_size and (more := os.read(handle, _CHUNK)):  # it grows, or comes in parts
                data += more
                _check_size(name, len(data), limit)
            return data, state
        finally:
            os.close(handle)
    except (FileNotFoundError, ValueError):  # ValueError: a path with a NUL character
        raise InvalidFileError(name, "does not exist", "Check the path.") from None
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise InvalidFileError(name, "is a symbolic link", "Put the file itself there.") from None
        raise UnreadableFileError(name, f"cannot be read ({error.strerror or error})") from None


def _check_size(name: object, size: int, limit: int, what: str = "has") -> None:
    if size > limit:
        bound = f"{limit >> 20} MiB" if limit >= 2**20 else f"{limit:,} bytes"
        raise InvalidFileError(name, f"is too large: it {what} more than {bound}", "Make it smaller, or remove it.")


def gunzip(data: bytes, name: object, limit: int = MAX_BYTES) -> bytes:
    """Return what one whole gzip member holds; never unpacks more than ``limit`` bytes and one."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidFileError(name, f"is not a gzip file or is damaged ({error})", _AGAIN) from None
    _check_size(name, len(found), limit, "unpacks to")
    if not unpacker.eof:
        raise InvalidFileError(name, "is a truncated gzip file", _AGAIN)
    if unpacker.unused_data:
        raise InvalidFileError(name, "has data after the end of the gzip file", _AGAIN)
    return found


def decode(data: bytes, name: object) -> str:
    """Return UTF-8 text without a byte order mark and with line breaks as ``\\n``."""
    text = _utf8(data, name).removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _utf8(data: bytes, name: object) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start}: {error.reason})"
        raise InvalidFileError(name, problem, "Save it as UTF-8.") from None


# JSON


def parse_json(
    data: bytes, name: object, *, depth: int = MAX_DEPTH, strict: bool = False, schema: int | None = None
) -> dict[str, JsonValue]:
    """Return the object of a JSON text; ``schema``: the newest version that the caller reads.

    Unless ``strict``, a lone surrogate becomes a question mark and NaN stays.
    """
    check_depth(data, name, depth)
    text = _utf8(data if strict else data.removeprefix(codecs.BOM_UTF8), name)
    value = _load(text, name, strict)
    if _ESCAPED_SURROGATE.search(text):
        if strict and has_lone_surrogate(json.dumps(value, ensure_ascii=False)):
            raise InvalidFileError(name, "holds half a character (a lone surrogate)", _FOREIGN)
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    if schema is not None:
        check_schema(name, value, schema)
    return value


def parse_json_lines(
    data: bytes, name: object, *, depth: int = MAX_DEPTH, strict: bool = False
) -> list[dict[str, JsonValue]]:
    """Return the object of every line that is not blank; errors name the line, counted from 1."""
    text = (_utf8 if strict else decode)(data, name)
    return [row for _, row in number_json_lines(text, name, depth=depth, strict=strict)]


def number_json_lines(
    text: str, name: object, *, depth: int = MAX_DEPTH, strict: bool = False
) -> Iterator[tuple[int, dict[str, JsonValue]]]:
    """Yield the number, counted from 1, and the object of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            check_depth(line.encode(), name, depth)
            row = _load(line, name, strict)
            if _ESCAPED_SURROGATE.search(line) and has_lone_surrogate(json.dumps(row, ensure_ascii=False)):
                raise InvalidFileError(name, "holds half a character (a lone surrogate)")
        except InvalidFileError as error:
            raise InvalidFileError(f"{name}, line {number}", error.problem, _LINE) from None
        yield number, row


def read_json(path: Path, schema: int | None = None) -> dict[str, JsonValue]:
    """Return the object of a JSON file, see ``parse_json``."""
    return parse_json(read_bytes(path, MAX_BYTES), path, schema=schema)


def read_jsonl(path: Path) -> list[dict[str, JsonValue]]:
    """Return the objects of a JSON-lines file."""
    return parse_json_lines(read_bytes(path), path)


def check_schema(name: object, value: Mapping[str, JsonValue], newest: int) -> None:
    """Refuse an object whose ``schema`` is missing or newer than this program reads."""
    found = value.get("schema")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InvalidFileError(name, "has no integer 'schema'", _FOREIGN)
    if found > newest:
        raise InvalidFileError(name, f"has schema {found}, this steerboard reads up to {newest}", "Upgrade steerboard.")


def has_lone_surrogate(text: str) -> bool:
    """Say whether a text holds one half of a surrogate pair, which no UTF-8 file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _load(text: str, name: object, strict: bool) -> dict[str, JsonValue]:
    try:
        value = json.loads(text, **_STRICT) if strict else json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}: " if "\n" in text else ""
        raise InvalidFileError(name, f"is not valid JSON ({line}{error.msg})", _AGAIN) from None
    except ValueError as error:  # one of our own, or Python's for an integer of thousands of digits
        problem = str(error) if strict else "holds a number that is too long"
        raise InvalidFileError(name, problem, _FOREIGN) from None
    except RecursionError:
        raise InvalidFileError(name, "is nested too deeply", _FOREIGN) from None
    if not isinstance(value, dict):
        raise InvalidFileError(name, f"holds a JSON {type(value).__name__}, not an object", _FOREIGN)
    return value


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {key!r:.80} twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text:.40}, which is too large")
    return value


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"holds a number of {len(text)} digits")
    return int(text)


_STRICT: dict[str, Any] = {
    "object_pairs_hook": _unique,
    "parse_constant": _refuse_constant,
    "parse_float": _finite,
    "parse_int": _short_int,
}


def check_depth(data: bytes, name: object, depth: int = MAX_DEPTH) -> None:
    """Refuse brackets nested deeper than ``depth`` before they are parsed."""
    if data.count(b"[") + data.count(b"{") <= depth:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    if max(accumulate(1 if sign in b"[{" else -1 for sign in brackets), default=0) > depth:
        raise InvalidFileError(name, "is nested too deeply", _FOREIGN)


# YAML


class _SafeLoader(_BaseLoader):
    """Plain YAML in which no key appears twice and no number is longer than 64 bits.

    YAML 1.1 reads ``59:59:59`` as a number of base 60: a few hundred of these give one that Python does not
    write down again.
    """

    strict = False

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put merged keys in, as PyYAML does, after a look at the node's own keys."""
        flat = vars(self).setdefault("_flat", set())
        if id(node) not in flat:  # later it holds merged keys, which its own may replace
            flat.add(id(node))
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if self.strict and (not isinstance(key, yaml.ScalarNode) or key.value == "<<"):
                    _refuse_node("a key that is not a plain word", key)
                if self.strict and key.tag != _YAML_TEXT:
                    _refuse_node(f"the key {key.value!r:.80} is not text; put it in quotes", key)
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        _refuse_node(f"the key {key.value!r:.80} appears twice", key)
                    seen.add((key.tag, key.value))
        super().flatten_mapping(node)


class _StrictLoader(_SafeLoader):
    strict = True


def _refuse_node(problem: str, node: yaml.Node) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _number(loader: _SafeLoader, node: yaml.ScalarNode) -> int:
    value = loader.construct_yaml_int(node) if len(node.value) <= _MAX_YAML_DIGITS else 2**64
    if abs(value) >= 2**64:
        _refuse_node("a number of too many digits; put text in quotes", node)
    return int(value)


def _text(loader: _SafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_SafeLoader.add_constructor("tag:yaml.org,2002:int", _number)
# lm-eval's tag for a function of a task file: it stays text, nothing is imported.
_SafeLoader.add_constructor("!function", _text)


def parse_yaml(data: bytes, name: object, *, depth: int = MAX_DEPTH, strict: bool = False) -> dict[str, Any]:
    """Return the mapping of a YAML text; ``depth`` bounds strict YAML, which is looked at piece by piece first."""
    text = decode(data, name)
    try:
        if strict:
            _check_events(text, depth)
        elif len(_YAML_OPENER.findall(text)) > MAX_YAML_COLLECTIONS:
            raise yaml.YAMLError(f"more than {MAX_YAML_COLLECTIONS} lists and mappings")
        value = yaml.load(text, Loader=_StrictLoader if strict else _SafeLoader)  # noqa: S506 (safe loaders)
    except yaml.YAMLError as error:
        raise InvalidFileError(name, f"is not valid YAML ({_describe(error)})", _COMPARE) from None
    except (ValueError, OverflowError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML's own constructors, such as that of the date 2026-99-99
        problem = f"is not valid YAML (a value that does not fit its type: {error})"
        raise InvalidFileError(name, problem, _COMPARE) from None
    if not isinstance(value, dict):
        raise InvalidFileError(name, "does not hold a YAML mapping", _COMPARE)
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file, see ``parse_yaml``."""
    return parse_yaml(read_bytes(path, MAX_BYTES), path)


def _describe(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    words = (getattr(error, "problem", None) or str(error)) if mark else str(error)
    return (f"line {mark.line + 1}: " if mark else "") + " ".join(words.split())[:200]


def _check_events(text: str, depth: int) -> None:
    """Look at YAML piece by piece before anything is built from it."""
    level = 0
    for number, event in enumerate(yaml.parse(text, Loader=_SafeLoader)):
        if number > MAX_YAML_EVENTS:
            raise yaml.YAMLError(f"more than {MAX_YAML_EVENTS} keys and values")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError("references (& or *); write values out")
        if tag := getattr(event, "tag", None):
            raise yaml.YAMLError(f"the tag {tag:.60}; write plain values")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > depth:
            raise yaml.YAMLError(f"nested more than {depth} deep")
