"""Tensor files of a run: safetensors with a JSON header that has the hash of everything in the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import DamagedFileError
from harness.core.files import canonical_json, write_bytes
from harness.core.reading import read_bytes

_HASH = "sha256"

Tensors = Mapping[str, NDArray[Any]]


def save_tensors(path: Path, tensors: Tensors, key: str, header: Mapping[str, Any]) -> None:
    """Write arrays and, under ``key`` of the metadata, a header; equal content gives equal bytes."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    text = canonical_json({**header, _HASH: _hash(arrays, header)})
    write_bytes(path, save(arrays, metadata={key: text}))


def load_tensors(path: Path, key: str, data: bytes | None = None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the header of a file; one without a hash is of an earlier version and passes.

    ``data``: the bytes of the file, if they were read already.

    Raises ``DamagedFileError`` if the content does not match its hash, ``InvalidFileError`` for a missing file, and the
    errors of safetensors and JSON for a foreign one.
    """
    from safetensors.numpy import load

    data = read_bytes(path) if data is None else data
    tensors = load(data)  # checks all lengths
    header = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][key])
    stored = header.pop(_HASH, None)
    if stored is not None and stored != _hash(tensors, header):
        raise DamagedFileError(f"{path} was edited or damaged: its content does not fit its hash.")
    return tensors, header


def _hash(tensors: Tensors, header: Mapping[str, Any]) -> str:
    found = hashlib.sha256(canonical_json(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        found.update(tensor.tobytes())
    return found.hexdigest()
