"""What the head of a GGUF file says of its model, without torch and without reading its weights.

The gguf package has a reader too, but it makes arrays of every token: seconds for a large vocabulary.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UserError

_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)  # transformers reads no others
_MODEL_TYPES = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gpt-oss": "gpt_oss",
    "minimax-m2": "minimax_m2",
    "qwen2moe": "qwen2_moe",
    "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text",
    "qwen3moe": "qwen3_moe",
}
"""llama.cpp's name of an architecture -> transformers' ``model_type`` for it, where the two differ."""

_FILE_TYPES = {0: "float32", 1: "float16", 32: "bfloat16"}
_TURN_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<end_of_turn>", "<turn|>")


def read_header(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file, key -> number or text; a list is only counted.

    Raises ``UserError`` for a file that is not GGUF, is truncated or is one part of several.
    """
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _read(_Cursor(data))
    except (struct.error, ValueError, OverflowError) as error:  # also an empty file, and text that is not UTF-8
        raise UserError(f"{path} is truncated or not a GGUF file ({error!s:.100}). Get it again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from None
    parts = found.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise UserError(
            f"{path} is one of {parts} parts of a model. Join them first: llama-gguf-split --merge FIRST_PART NEW_FILE."
        )
    if not isinstance(found.get("general.architecture"), str):
        raise UserError(f"{path} names no architecture (general.architecture), so it holds no language model.")
    return found


def end_tokens_of(header: dict[str, Any], vocabulary: Mapping[str, int]) -> list[int]:
    """Return the tokens that end a text or a turn: those the file names, and those llama.cpp knows by name."""
    named = (header.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom"))
    known = (vocabulary.get(name) for name in _TURN_ENDS)
    return sorted({token for token in (*named, *known) if isinstance(token, int)})


def stored_dtype_of(header: dict[str, Any]) -> str | None:
    """Return the precision of the weights by name, None for a quantised file."""
    return _FILE_TYPES.get(header.get("general.file_type", -1))


def model_type_of(header: dict[str, Any]) -> str:
    """Return transformers' ``model_type`` of the model that a header describes."""
    architecture = str(header["general.architecture"])
    return _MODEL_TYPES.get(architecture, architecture)


class _Cursor:
    """A position in the bytes of a file; what lies beyond their end raises ``struct.error``."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at = data, 0

    def numbers(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self._data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise struct.error(f"it ends before byte {self.at}")

    def text(self) -> str:
        (length,) = self.numbers("Q")
        start = self.at
        self.skip(length)
        return self._data[start : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind in _FIXED:
            return self.numbers(_FIXED[kind])[0]
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"a value of the unknown type {kind}")
        item, count = self.numbers("IQ")
        if item in _FIXED:
            self.skip(count * struct.calcsize(f"<{_FIXED[item]}"))
        elif item == _STRING:
            for _ in range(count):
                self.skip(self.numbers("Q")[0])
        else:
            raise ValueError(f"a list of the unknown type {item}")
        return count

    @property
    def left(self) -> int:
        """Bytes behind the position."""
        return len(self._data) - self.at


def _read(cursor: _Cursor) -> dict[str, Any]:
    magic, version, tensors, count = cursor.numbers("4sIQQ")
    if magic != b"GGUF" or version not in _VERSIONS:
        raise ValueError(f"it begins with {magic!r}, version {version}")
    found: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text()
        found[key] = cursor.value(cursor.numbers("I")[0])
    end = max(_ends(cursor, tensors), default=0)
    alignment = found.get("general.alignment", 32)
    cursor.skip(-cursor.at % alignment if isinstance(alignment, int) and alignment > 0 else 0)
    if cursor.left < end:
        raise ValueError(f"{end - cursor.left} bytes of its weights are missing")
    return found


def _ends(cursor: _Cursor, tensors: int) -> Iterator[int]:
    """Yield where each tensor ends, in bytes from the start of the weights."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for _ in range(tensors):
        cursor.text()
        (dimensions,) = cursor.numbers("I")
        shape = cursor.numbers(f"{min(dimensions, 5)}Q")  # GGUF knows at most four
        kind, offset = cursor.numbers("IQ")
        elements = 1
        for length in shape:
            elements *= length
        per_block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        yield offset + elements // per_block * size
