"""The run folder: where every file of a run lies, written atomically, read with checks."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from harness.core.digits import load_digits, unpacked
from harness.core.errors import DamagedFileError, MachineError, UserError
from harness.core.files import file_digest, run_lock, write_json, write_json_gz, write_jsonl
from harness.core.interventions import Steering, load_steering, save_steering
from harness.core.reading import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_TEXT_BYTES,
    parse_json_lines,
    read_bytes,
    read_json,
    read_json_gz,
)
from harness.core.records import (
    SCHEMA,
    CellScores,
    CellStatus,
    Generation,
    Manifest,
    Setting,
    State,
    Versioned,
    format_validation_error,
)

File = TypeVar("File", bound=Versioned)

_OURS = re.compile(rb'\s*\{\s*"schema": ?(\d{1,9})\s*,')

CLASSIFIER = "classifier/"
"""How the names of those parts of the scoring begin that train a classifier."""

ANSWERS = "answers"
"""The part of the scoring that a model gives which answers tasks itself."""


KEPT = ("predictions.json.gz", "audit.json.gz")
"""Files beside the scores: of the parts that train or answer, by far the largest, and of all others."""


def kept_in(part: str) -> str:
    """Return the file that holds what a part of the scoring keeps."""
    return KEPT[0] if part.startswith((CLASSIFIER, ANSWERS)) else KEPT[1]


SafeInt = Annotated[int, Field(gt=-(2**62), lt=2**62, strict=True)]
SafeFloat = Annotated[float, Field(gt=-(2.0**62), lt=2.0**62, strict=True)]
Figure = Annotated[float, Field(strict=True)]
"""As in records; what lies beyond is left to these, which say so in words."""


class TextCounts(TypedDict):
    """How many texts a score is of, where it says so."""

    texts: NotRequired[Figure]


class ScoreRow(TypedDict):
    """What tables need of a ``Score``."""

    metric: str
    value: Figure | None
    signature: str
    human: NotRequired[Figure | None]
    by_seed: NotRequired[dict[str, Figure]]
    detail: NotRequired[TextCounts]


class UsageRow(TypedDict):
    """What a part of a fit took, as ``Spent``."""

    seconds: SafeFloat
    tokens: SafeInt


class CellKeyRow(TypedDict):
    """What tables need of ``CellKey``; what is plain JSON here is checked where an entry is new."""

    method: dict[str, Any]
    model: dict[str, Any] | None
    setting: Setting
    task: str
    language: str
    seed: SafeInt


class StatusRow(TypedDict):
    """What tables need of ``CellStatus``."""

    schema: int
    cell: CellKeyRow
    state: State
    reason: NotRequired[str]
    seconds: NotRequired[SafeFloat]
    device: NotRequired[str]
    steering: NotRequired[str | None]
    generations_sha256: NotRequired[str | None]
    steering_sha256: NotRequired[str | None]
    prompt_tokens: NotRequired[SafeInt | None]
    new_tokens: NotRequired[SafeInt | None]
    fit: NotRequired[dict[str, UsageRow | None] | None]


class ScoresRow(TypedDict):
    """What tables need of ``CellScores``."""

    schema: int
    generations_sha256: str
    protocol: str
    scores: list[ScoreRow]


class Run:
    """One run folder. Nothing in it is ever edited but the manifest, which grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cells = str(path / "cells")
        self._digests: dict[str, tuple[tuple[int, int, int], str]] = {}

    @property
    def manifest_path(self) -> Path:
        """Where the manifest lies."""
        return self.path / "manifest.json"

    def exists(self) -> bool:
        """Say whether the folder already holds a run."""
        return self.manifest_path.is_file()

    def manifest(self) -> Manifest:
        """Return the manifest; ``UserError`` where the folder holds no readable run."""
        if not self.exists():
            raise UserError(
                f"{self.path} holds no run (no manifest.json). Give the folder that 'steerboard run --run DIR' made."
            )
        return _read(self.manifest_path, Manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest."""
        write_json(self.manifest_path, manifest.to_json())

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for one writing process; freed by the system when the process dies."""
        return run_lock(self.path, "--run")

    def cell(self, cell_id: str) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / cell_id

    def cell_ids(self) -> list[str]:
        """Return the ids of all cells that have a status, sorted."""
        return [name for name in self.folders() if (self.cell(name) / "status.json").is_file()]

    def folders(self) -> list[str]:
        """Return the names of what lies where cells lie, sorted; without a look into it."""
        try:
            return sorted(os.listdir(self._cells))  # noqa: PTH208 (names, by the thousand)
        except OSError:
            return []

    def status(self, cell_id: str) -> CellStatus | None:
        """Return how a cell ended, None where it never did."""
        return self._record(cell_id, "status.json", CellStatus)

    def finished(self, cell_id: str) -> bool:
        """Say whether a cell needs no more generation: it has texts, and they are those that were written."""
        status = self.status(cell_id)
        return status is not None and status.state == "ok" and not self._damage(status, cell_id)

    def damage(self, cell_id: str) -> str:
        """Return in words what happened to the texts of a cell that ended ``ok``; empty for nothing."""
        status = self.status(cell_id)
        return self._damage(status, cell_id) if status is not None and status.state == "ok" else ""

    def _damage(self, status: CellStatus, cell_id: str) -> str:
        path, written = self._generations_path(cell_id), status.generations_sha256
        if not path.is_file():
            return f"{path} is missing"
        if written and self.generations_digest(cell_id) != written:
            return f"{path} was edited or damaged"
        return ""

    def write_cell(self, cell_id: str, status: CellStatus, texts: list[Generation]) -> None:
        """Write a cell's texts, then its status: a cell with a status is whole."""
        if texts:
            rows = (text.model_dump(mode="json") for text in texts)
            sha256 = write_jsonl(self._generations_path(cell_id), rows)
            status = status.model_copy(update={"generations_sha256": sha256})
        write_json(self.cell(cell_id) / "status.json", status.to_json())

    def generations(self, cell_id: str) -> list[Generation]:
        """Return the texts of a cell; ``UserError`` names a foreign or broken line.

        Raises ``DamagedFileError`` where they are not those that the status was written with.
        """
        path = self._generations_path(cell_id)
        data, ended = read_bytes(path), self.ended(cell_id)
        texts = []
        for number, row in enumerate(parse_json_lines(data, path), 1):
            try:
                texts.append(Generation.model_validate(row))
            except ValidationError as error:
                raise UserError(f"{path}, line {number}: {format_validation_error(error)}. Not ours?") from None
        written = ended.get("generations_sha256") if ended else None
        if written and hashlib.sha256(data).hexdigest() != written:
            raise DamagedFileError(
                f"{path} was edited or damaged since it was written. Repeat the 'steerboard run' command: "
                "the cell is written again."
            )
        return texts

    def n_texts(self, cell_id: str) -> int:
        """Return how many texts a cell holds, without reading them; 0 where there is no file."""
        return _plain(f"{self._cells}/{cell_id}/generations.jsonl", MAX_TEXT_BYTES).count(b"\n")

    def generations_digest(self, cell_id: str) -> str:
        """Return the SHA-256 of the file of texts; a file that has not changed is read once."""
        path = self._generations_path(cell_id)
        try:
            state = path.stat()
            version = (state.st_mtime_ns, state.st_size, state.st_ino)
            known = self._digests.get(cell_id)
            if known is None or known[0] != version:
                known = self._digests[cell_id] = (version, file_digest(path))
        except OSError as error:
            raise MachineError(f"cannot read {path}: {error.strerror or error}.") from None
        return known[1]

    def scores(self, cell_id: str) -> CellScores | None:
        """Return the scores of a cell, None where it was never scored."""
        return self._record(cell_id, "scores.json", CellScores)

    def ended(self, cell_id: str) -> StatusRow | None:
        """Return of a cell's status what tables need, in half the time; None where it never ended.

        Fields that tables do not need are not looked at.
        """
        data = self._ours(cell_id, "status.json")
        if _shallow(data):
            with suppress(ValidationError):
                return _ended().validate_json(data)
        status = self.status(cell_id)  # is not there, or says what is wrong
        return None if status is None else _ended().validate_python(status.model_dump(by_alias=True))

    def measured(self, cell_id: str) -> ScoresRow | None:
        """Return of a cell's scores what tables need, in half the time; None where it was never scored.

        Fields that tables do not need are not looked at.
        """
        with suppress(ValidationError):
            return _measured().validate_json(self._ours(cell_id, "scores.json"))
        scores = self.scores(cell_id)  # is not there, or says what is wrong
        return None if scores is None else _measured().validate_python(scores.model_dump(by_alias=True))

    def write_scores(self, scores: CellScores, kept: Mapping[str, Any]) -> None:
        """Write what the parts keep (compressed; classifiers apart, by far the largest), then the scores."""
        folder = self.cell(scores.cell_id)
        files: dict[str, dict[str, Any]] = {name: {} for name in KEPT}
        for part, found in kept.items():
            files[kept_in(part)][part] = found
        sizes = {name: write_json_gz(folder / name, found) for name, found in files.items()}
        write_json(folder / "scores.json", scores.model_copy(update={"kept": sizes}).to_json())

    def lost(self, scores: CellScores) -> set[str]:
        """Return the names of the kept files of a cell that are missing or not as long as they were written.

        They are not read: a bit that flipped in them shows where they are, for gzip has a checksum.
        """
        sizes = {name: _size(f"{self._cells}/{scores.cell_id}/{name}") for name in KEPT}
        return {name for name, size in sizes.items() if size is None or scores.kept.get(name, size) != size}

    def predictions(self, cell_id: str) -> dict[str, Any]:
        """Return part ``classifier/NAME`` -> gold labels and predictions per classifier seed."""
        return self._kept(cell_id, KEPT[0])

    def audit(self, cell_id: str) -> dict[str, Any]:
        """Return part of the scoring -> what it found out about every text, such as which are valid."""
        return self._kept(cell_id, KEPT[1])

    def _kept(self, cell_id: str, name: str) -> dict[str, Any]:
        path = self.cell(cell_id) / name
        if not path.exists():
            raise UserError(f"{path} is missing. Run 'steerboard score {self.path}': it is made again.")
        return read_json_gz(path)

    def steering_path(self, steering_id: str) -> Path:
        """Where a fitted steering lies."""
        return self.path / "steering" / f"{steering_id}.safetensors"

    def steering(self, steering_id: str) -> Steering | None:
        """Return a fitted steering, None where it was never fitted."""
        path = self.steering_path(steering_id)
        return load_steering(path) if path.is_file() else None

    def applied(self, cell_ids: Iterable[str]) -> dict[str, set[str]]:
        """Return name of a fit -> SHA-256 of its file as finished cells were written with it."""
        found: dict[str, set[str]] = {}
        for cell_id in cell_ids:
            ended = self.ended(cell_id)
            name, sha256 = (ended.get("steering"), ended.get("steering_sha256")) if ended else (None, None)
            if name and sha256:
                found.setdefault(name, set()).add(sha256)
        return found

    def write_steering(self, steering_id: str, steering: Steering) -> None:
        """Write a fitted steering."""
        save_steering(self.steering_path(steering_id), steering)

    def predicted(self, cell_id: str) -> dict[str, Any]:
        """Return what ``predictions`` does, several times as fast: lists of digits are arrays of bytes."""
        with suppress(ValueError):
            return load_digits(unpacked(_plain(f"{self._cells}/{cell_id}/predictions.json.gz")))
        return self.predictions(cell_id)  # says what is wrong

    def _record(self, cell_id: str, name: str, kind: type[File]) -> File | None:
        """Return a file of a cell, None where there is none."""
        data = self._ours(cell_id, name)
        if kind is not CellStatus or _shallow(data):
            with suppress(ValidationError):
                return kind.model_validate_json(data)
        path = self.cell(cell_id) / name
        return _read(path, kind) if path.is_file() else None

    def _ours(self, cell_id: str, name: str) -> bytes:
        """Return a file of a cell that begins as this program writes them; empty for any other and none."""
        data = _plain(f"{self._cells}/{cell_id}/{name}")
        begin = _OURS.match(data)
        return data if begin and 1 <= int(begin[1]) <= SCHEMA else b""

    def _generations_path(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "generations.jsonl"


@cache
def _ended() -> TypeAdapter[StatusRow]:
    return TypeAdapter(StatusRow)


@cache
def _measured() -> TypeAdapter[ScoresRow]:
    return TypeAdapter(ScoresRow)


def _plain(path: str, largest: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file; empty for anything else, and for what cannot be read.

    Tens of thousands are read. To open them as Python's files, by paths, takes longer than all the rest.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe is not waited for
    except OSError:
        return b""
    try:
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode) or state.st_size > largest:
            return b""
        data = os.read(file, state.st_size + 1)
        return data if len(data) == state.st_size else b""
    except OSError:
        return b""
    finally:
        os.close(file)


def _size(path: str) -> int | None:
    """Return the size of a regular file, None where there is none."""
    try:
        state = os.stat(path)  # noqa: PTH116 (as in _plain)
    except OSError:
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) and state.st_size else None


def _shallow(data: bytes) -> bool:
    """Say whether nothing can be nested too deeply: a method's config may hold anything."""
    return data.count(b"{") + data.count(b"[") <= MAX_DEPTH


def _read(path: Path, kind: type[File]) -> File:
    body = read_json(path, SCHEMA)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise UserError(
            f"{path} is not a {kind.__name__.lower()} of steerboard: {format_validation_error(error)}. "
            "Remove it and run the same command again."
        ) from None
