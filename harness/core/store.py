"""The run directory: where every file of a run lies, written atomically, read with checks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, with_config
from typing_extensions import TypedDict

from harness.core.errors import DamagedFileError, InvalidFileError, UnreadableFileError, UserError
from harness.core.files import is_locked, run_lock, write_json, write_json_gz, write_jsonl
from harness.core.interventions import Steering, load_steering, save_steering
from harness.core.reading import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_TEXT_BYTES,
    gunzip,
    parse_json,
    parse_json_lines,
    read_bytes,
    read_with_state,
)
from harness.core.records import CellScores, CellStatus, Generation, Manifest, Setting, State
from harness.core.schema import Kind, SafeFloat, SafeInt, format_validation_error, parse_record

_MARK = "\0"  # begins the string that replaces a list of digits; no string of a file that is read here has it

_TICK = 3_000_000_000  # nanoseconds; times of FAT are even seconds

CLASSIFIER = "classifier/"
"""Prefix of the scorers that train a classifier."""

CURVE = "curve/"
"""Prefix of the scorers that train a classifier on more and more texts."""

ANSWERS = "answers"
"""The scorer of a model that answers tasks itself."""

KEPT = ("predictions.json.gz", "audit.json.gz")
"""Artifacts next to the scores: those of scorers that train or answer, by far the largest, and those of all others."""


TEXTS = "generations.jsonl"


def kept_in(part: str) -> str:
    """Return the file that holds the artifacts of a scorer."""
    return KEPT[0] if part.startswith((CLASSIFIER, CURVE, ANSWERS)) else KEPT[1]


# Rows hold what tables need of tens of thousands of files. Pydantic reads them from the bytes in a third of the time
# that the full records take; fields that tables do not need are not checked.

AnyFloat = Annotated[float, Field(strict=True)]
"""May be NaN or beyond any bound, as in the records; the ranking drops such values."""


@with_config(ConfigDict(extra="ignore"))
class TextCounts(TypedDict):
    """The number of texts that a score is of, if stated."""

    texts: NotRequired[AnyFloat]


@with_config(ConfigDict(extra="ignore"))
class ScoreRow(TypedDict):
    """What tables need of a ``Score``."""

    metric: str
    value: AnyFloat | None
    signature: str
    human: NotRequired[AnyFloat | None]
    by_seed: NotRequired[dict[str, AnyFloat]]
    detail: NotRequired[TextCounts]


class UsageRow(TypedDict):
    """A step of a fit, as ``Usage``."""

    seconds: SafeFloat
    tokens: SafeInt


class CellKeyRow(TypedDict):
    """What tables need of a ``CellKey``; the plain JSON is checked when an entry is seen first."""

    method: dict[str, Any]
    model: dict[str, Any] | None
    setting: Setting
    task: str
    language: str
    seed: SafeInt


class StatusRow(TypedDict):
    """What tables need of a ``CellStatus``."""

    schema: int
    cell: CellKeyRow
    state: State
    reason: NotRequired[str]
    seconds: NotRequired[SafeFloat]
    device: NotRequired[str]
    finished: NotRequired[str]
    steering: NotRequired[str | None]
    generations_sha256: NotRequired[str | None]
    steering_sha256: NotRequired[str | None]
    prompt_tokens: NotRequired[SafeInt | None]
    new_tokens: NotRequired[SafeInt | None]
    fit: NotRequired[dict[str, UsageRow | None] | None]


@with_config(ConfigDict(extra="ignore"))
class Skipped(TypedDict):
    """An object whose fields are not looked at, so that nothing is built of them."""


class PartHead(TypedDict):
    """What decides whether the scores of a scorer count, of a ``PartRecord``."""

    signature: str
    metrics: NotRequired[Any]


@with_config(ConfigDict(extra="forbid"))
class ScoresHead(TypedDict):
    """What decides whether ``CellScores`` count, and which scorers are missing; the scores are not looked at."""

    schema: int
    generations_sha256: str
    protocol: str
    parts: NotRequired[dict[str, PartHead]]
    kept: NotRequired[dict[str, SafeInt]]
    cell_id: NotRequired[str]
    scores: NotRequired[list[Skipped]]


@with_config(ConfigDict(extra="forbid"))
class ScoresRow(TypedDict):
    """What tables need of ``CellScores``; a key that it does not have is refused here, too."""

    schema: int
    cell_id: str
    generations_sha256: str
    protocol: str
    parts: NotRequired[dict[str, Any]]
    scores: list[ScoreRow]
    kept: NotRequired[dict[str, Any]]


Version = tuple[int, int, int]


def version_of(state: os.stat_result) -> Version:
    """Return what changes with a file that is written again: time, size and number."""
    return state.st_mtime_ns, state.st_size, state.st_ino


class RunFiles:
    """The files of a run directory by their names in it, such as ``cells/ID/scores.json``.

    A submission has the same files under other names and reads them more strictly.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._above = root, f"{root}/"
        self._digests: dict[str, tuple[Version, str]] = {}

    def target(self, name: str) -> Path:
        """Return where a file is written."""
        return self.root / name

    def label(self, name: str) -> str:
        """Return what messages call a file."""
        return self._above + name

    def cell_dirs(self) -> list[str]:
        """Return the names in the directory of cells, sorted, without looking into them."""
        try:
            return sorted(os.listdir(f"{self._above}cells"))  # noqa: PTH208 (names, by the thousand)
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        """Say whether a file exists."""
        # Text and os.path: a path object for each of tens of thousands of files takes longer than reading them.
        return os.path.isfile(self._above + name)  # noqa: PTH113

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """Return what a file holds, unpacked if it is compressed; ``UserError`` if it cannot be read."""
        path = self._above + name
        data = read_bytes(path, limit)
        return gunzip(data, path) if name.endswith(".gz") else data

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file; one that has not changed is read once."""
        try:
            version = self.version(name)
            known = self._digests.get(name)
            if known is None or known[0] != version:
                data = read_bytes(self._above + name)
                known = self._digests[name] = (version, hashlib.sha256(data).hexdigest())
        except OSError as error:
            raise UnreadableFileError(self.root / name, f"cannot be read ({error.strerror or error})") from None
        return known[1]

    def version(self, name: str) -> Version:
        """Return the version of a file; raises ``OSError``."""
        return version_of(os.stat(self._above + name))  # noqa: PTH116 (see ``exists``)

    def read_with_version(self, name: str, limit: int = MAX_BYTES) -> tuple[bytes, Version]:
        """Return what a file holds that is not compressed, and its version; see ``read``."""
        data, state = read_with_state(self._above + name, limit)
        return data, version_of(state)


class Run:
    """A run directory. Nothing in it is ever edited but the manifest, which grows.

    ``files``: what reads its files, if they are not those below ``path``.
    """

    def __init__(self, path: Path, files: RunFiles | None = None) -> None:
        self.path = path
        self.manifest_path = path / "manifest.json"
        self.files = RunFiles(path) if files is None else files
        self._statuses: dict[str, tuple[Version, CellStatus]] = {}

    def exists(self) -> bool:
        """Say whether the directory already holds a run."""
        return self.files.exists("manifest.json")

    def manifest(self) -> Manifest:
        """Return the manifest; ``UserError`` if the directory holds no readable run."""
        if not self.exists():
            raise UserError(
                f"{self.path} does not contain a run (no manifest.json). "
                "Pass the directory that 'steerboard run --run DIR' made."
            )
        return parse_record(self.files.read("manifest.json"), self.files.label("manifest.json"), Manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest."""
        write_json(self.files.target("manifest.json"), manifest.to_json())

    def date_start(self, cell_ids: Iterable[str]) -> None:
        """Make the manifest newer than the statuses of cells, whatever the clock says: they are of earlier starts."""
        start = self.files.version("manifest.json")[0]
        names = (f"cells/{cell}/status.json" for cell in cell_ids)
        last = max((self.files.version(name)[0] for name in names if self.files.exists(name)), default=0)
        if last >= start:  # the clock was put back, or the times of the file system are coarse
            os.utime(self.manifest_path, ns=(last + _TICK, last + _TICK))

    def lock(self, shared: bool = False) -> AbstractContextManager[None]:
        """Lock the directory for one writing process, or for those that share its work by claims; see ``run_lock``."""
        return run_lock(self.path, "--run", shared)

    def is_locked(self) -> bool:
        """Say whether a process holds the lock of the directory now."""
        return is_locked(self.path / ".lock")

    def cell(self, cell_id: str) -> Path:
        """Return the directory of a cell."""
        return self.files.target(f"cells/{cell_id}")

    def cell_ids(self) -> list[str]:
        """Return the ids of all cells that have a status, sorted."""
        return [name for name in self.cell_dirs() if self.files.exists(f"cells/{name}/status.json")]

    def cell_dirs(self) -> list[str]:
        """Return the names in the directory of cells, sorted, without looking into them."""
        return self.files.cell_dirs()

    def load(self, cell_id: str, name: str, kind: type[Kind]) -> Kind | None:
        """Return a record of a cell, None if there is no such file."""
        path = f"cells/{cell_id}/{name}"
        try:  # not first a look whether it is there: there are tens of thousands
            data = self.files.read(path)
        except UserError:
            if not self.files.exists(path):
                return None
            raise
        # Scores are large and hold no free JSON, such as a method's config, that could be nested without end.
        depth = None if name == "scores.json" else MAX_DEPTH
        return parse_record(data, self.files.label(path), kind, depth)

    def status(self, cell_id: str) -> CellStatus | None:
        """Return how a cell ended, None if it never did; a file that has not changed is read once."""
        name = f"cells/{cell_id}/status.json"
        try:
            version = self.files.version(name)
        except OSError:  # it is missing, or in other files than those of a folder, or ``load`` says what is wrong
            return self.load(cell_id, "status.json", CellStatus) if self.files.exists(name) else None
        known = self._statuses.get(cell_id)
        if known is None or known[0] != version:
            status = self.load(cell_id, "status.json", CellStatus)
            if status is None:
                return None
            known = self._statuses[cell_id] = (version, status)
        return known[1]

    def read_status_fast(self, cell_id: str) -> StatusRow | None:
        """Return what tables need of a cell's status, None if it never ended."""
        return self.load(cell_id, "status.json", StatusRow)

    def scores(self, cell_id: str) -> CellScores | None:
        """Return the scores of a cell, None if it was never scored."""
        return self.load(cell_id, "scores.json", CellScores)

    def read_scores_head(self, cell_id: str) -> ScoresHead | None:
        """Return what decides whether the scores of a cell count, None if it was never scored."""
        return self.load(cell_id, "scores.json", ScoresHead)

    def read_scores_fast(self, cell_id: str) -> ScoresRow | None:
        """Return what tables need of a cell's scores, None if it was never scored."""
        return self.load(cell_id, "scores.json", ScoresRow)

    def finished(self, cell_id: str) -> bool:
        """Say whether a cell needs no more generation: it has texts, and they are those that were written."""
        try:
            return self.has_texts(cell_id)
        except DamagedFileError:
            return False

    def has_texts(self, cell_id: str) -> bool:
        """Say whether a cell ended with texts; ``DamagedFileError`` if they are not those that were written."""
        status = self.status(cell_id)
        if status is None or status.state != "ok":
            return False
        name, written = f"cells/{cell_id}/{TEXTS}", status.generations_sha256
        if not self.files.exists(name):
            raise DamagedFileError(f"{self.files.label(name)} is missing")
        if written and self.generations_digest(cell_id) != written:
            raise DamagedFileError(f"{self.files.label(name)} was edited or damaged")
        return True

    def texts_path(self, cell_id: str) -> Path:
        """Return where the texts of a cell are."""
        return self.cell(cell_id) / TEXTS

    def write_cell(self, cell_id: str, status: CellStatus, texts: list[Generation]) -> None:
        """Write a cell's texts, then its status: a cell with a status is complete."""
        if texts:
            sha256 = write_jsonl(self.texts_path(cell_id), (text.model_dump(mode="json") for text in texts))
            status = status.model_copy(update={"generations_sha256": sha256})
        write_json(self.cell(cell_id) / "status.json", status.to_json())

    def generations(self, cell_id: str) -> list[Generation]:
        """Return the texts of a cell; ``UserError`` names a foreign or broken line.

        Raises ``DamagedFileError`` if they are not those that the status was written with.
        """
        name = f"cells/{cell_id}/{TEXTS}"
        path, data = self.files.label(name), self.files.read(name, MAX_TEXT_BYTES)
        status = self.read_status_fast(cell_id)
        texts = []
        for number, row in enumerate(parse_json_lines(data, path), 1):
            try:
                texts.append(Generation.model_validate(row, strict=True))
            except ValidationError as error:
                problem = f"is not a text of steerboard ({format_validation_error(error)})"
                raise InvalidFileError(f"{path}, line {number}", problem) from None
        written = status.get("generations_sha256") if status else None
        if written and hashlib.sha256(data).hexdigest() != written:
            raise DamagedFileError(
                f"{path} was edited or damaged since it was written. Repeat the 'steerboard run' command: "
                "the cell is written again."
            )
        return texts

    def n_texts(self, cell_id: str) -> int:
        """Return how many texts a cell holds, without parsing them; 0 if there is no file."""
        try:
            return self.files.read(f"cells/{cell_id}/{TEXTS}", MAX_TEXT_BYTES).count(b"\n")
        except InvalidFileError:
            return 0

    def generations_digest(self, cell_id: str) -> str:
        """Return the SHA-256 of the file of texts; a file that has not changed is read once."""
        return self.files.digest(f"cells/{cell_id}/{TEXTS}")

    def write_scores(self, scores: CellScores, kept: Mapping[str, Any]) -> None:
        """Write the artifacts of the scorers (compressed; classifiers apart, by far the largest), then the scores."""
        folder = self.cell(scores.cell_id)
        files: dict[str, dict[str, Any]] = {name: {} for name in KEPT}
        for part, found in kept.items():
            files[kept_in(part)][part] = found
        sizes = {name: write_json_gz(folder / name, found) for name, found in files.items()}
        write_json(folder / "scores.json", scores.model_copy(update={"kept": sizes}).to_json())

    def lost(self, cell_id: str, written: Mapping[str, int]) -> set[str]:
        """Return the names of the artifacts of a cell that are missing or do not have the size that was ``written``.

        They are not read: a flipped bit shows when they are, since gzip has a checksum.
        """
        sizes = dict.fromkeys(KEPT, 0)
        for name in KEPT:
            with suppress(OSError):
                sizes[name] = self.files.version(f"cells/{cell_id}/{name}")[1]
        return {name for name, size in sizes.items() if not size or written.get(name, size) != size}

    def predictions(self, cell_id: str) -> dict[str, Any]:
        """Return scorer ``classifier/NAME`` -> gold labels and predictions per classifier seed."""
        return self._kept(cell_id, KEPT[0])

    def read_predictions_fast(self, cell_id: str) -> dict[str, Any]:
        """Return ``predictions`` with lists of digits as arrays of uint8, in a fraction of the time."""
        with suppress(ValueError, InvalidFileError):
            found = parse_digit_lists(self.files.read(f"cells/{cell_id}/{KEPT[0]}"))
            return {part: value for part, value in found.items() if kept_in(part) == KEPT[0]}
        return self.predictions(cell_id)  # says what is wrong

    def text_checks(self, cell_id: str) -> dict[str, Any]:
        """Return scorer -> its findings for every text, such as which ones are valid."""
        return self._kept(cell_id, KEPT[1])

    def _kept(self, cell_id: str, name: str) -> dict[str, Any]:
        path = f"cells/{cell_id}/{name}"
        label = self.files.label(path)
        try:
            found = parse_json(self.files.read(path), label)
        except InvalidFileError as error:
            if error.problem != "does not exist":
                raise
            raise UserError(f"{label} is missing. Run 'steerboard score {self.path}': it is made again.") from None
        return {part: value for part, value in found.items() if kept_in(part) == name}  # a submission has one file

    def steering_path(self, steering_id: str) -> Path:
        """Return where a fitted steering is stored."""
        return self.files.target(f"steering/{steering_id}.safetensors")

    def steering(self, steering_id: str) -> Steering | None:
        """Return a fitted steering, None if it was never fitted."""
        path = self.steering_path(steering_id)
        return load_steering(path) if path.is_file() else None

    def write_steering(self, steering_id: str, steering: Steering) -> None:
        """Write a fitted steering."""
        save_steering(self.steering_path(steering_id), steering)

    def applied(self, cell_ids: Iterable[str]) -> dict[str, set[str]]:
        """Return steering id -> SHA-256 of its file when finished cells were written with it."""
        found: dict[str, set[str]] = {}
        for status in filter(None, map(self.read_status_fast, cell_ids)):
            name, sha256 = status.get("steering"), status.get("steering_sha256")
            if name and sha256:
                found.setdefault(name, set()).add(sha256)
        return found


def parse_digit_lists(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON text with every list of digits as an array of uint8.

    Predictions are little else, and Python's reader makes an object of every digit. Raises ValueError for anything
    that needs the careful reader: escapes, deep nesting, broken JSON.
    """
    if b"\\u" in data or b"\0" in data:
        raise ValueError("escapes")
    first, *rest = data.split(b"[")
    marked = first + b"".join(map(_mark_digits, rest))
    if marked.count(b"[") + marked.count(b"{") > MAX_DEPTH:
        raise ValueError("perhaps nested too deeply")
    value = json.loads(marked.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return {name: _restore_digits(item) for name, item in value.items()}


def _mark_digits(part: bytes) -> bytes:
    """Return what follows a bracket, with a list of digits as a marked string; inside a string this breaks the JSON."""
    body, closed, after = part.partition(b"]")
    digits, commas = body[::2], body[1::2]
    if closed and digits.isdigit() and len(body) % 2 and commas.count(b",") == len(commas):
        return b'"\\u0000' + digits + b'"' + after
    return b"[" + part


def _restore_digits(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_MARK):
        return np.frombuffer(value[1:].encode("ascii"), dtype=np.uint8) - 48
    if isinstance(value, dict):
        return {name: _restore_digits(item) for name, item in value.items()}
    return [_restore_digits(item) for item in value] if isinstance(value, list) else value
