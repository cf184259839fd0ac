"""Cell identity: cells and the ids of cells, entries and steering. No other module computes one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from harness.core.files import digest
from harness.core.records import CellKey, Entry


@dataclass(frozen=True)
class Cell:
    """The unit of work, of resuming and of failure."""

    key: CellKey

    @cached_property
    def id(self) -> str:
        """The cell's folder name."""
        return cell_id(self.key)

    @property
    def title(self) -> str:
        """The name of the cell in progress lines and errors."""
        key = self.key
        return f"{key.method.name}/{key.setting}/{key.task}/{key.language}/seed {key.seed}"


def cell_id(key: CellKey) -> str:
    """Return the short hash of everything that decides the texts."""
    return digest(key.model_dump(mode="json"), 16)


def entry_of(key: CellKey) -> Entry:
    """Return the board row that a cell belongs to."""
    return Entry(method=key.method, model=key.model, setting=key.setting)


def entry_id(entry: Entry) -> str:
    """Return the short hash that names a board row."""
    return digest(entry.model_dump(mode="json"), 12)


def steering_id(key: CellKey) -> str:
    """Return the hash of everything that decides a fit; one fit serves all settings and seeds."""
    return digest(
        {
            "model": key.model.fitted if key.model else None,
            "method": key.method.model_dump(mode="json"),
            "task": key.task,
            "language": key.language,
            "data": key.data,
        },
        16,
    )


def sampling_key(key: CellKey, label: str, index: int, attempt: int) -> int:
    """Return the 64-bit key of the sampling noise of one draw of a text.

    It does not depend on method and model: all get the same noise, so that comparisons are paired and strength 0 gives
    the unsteered texts.
    """
    name = f"{key.seed}/{key.task}/{key.language}/{label}/{index}/{attempt}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
