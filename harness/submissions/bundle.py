"""The results of a submission as runs, read strictly and never written."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from typing_extensions import override

from harness.core.errors import UserError
from harness.core.records import (
    SCHEMA,
    CellScores,
    CellStatus,
    Generation,
    Kind,
    Manifest,
    adapter,
    format_validation_error,
)
from harness.core.store import CLASSIFIER, Run
from harness.submissions import limits
from harness.submissions.checksums import sha256
from harness.submissions.strict_io import InvalidSubmissionError, json_object, read_bytes, unpack

_CELL = re.compile(r"[0-9a-f]{16}")
_NEXT_STEP = "See 'steerboard submission check'."


class SubmittedRun(Run):
    """The results of one model in a submission, as a run that can be read and never written.

    ``root``: the submission's folder; ``path``: ``results/MODEL`` in it. Cells lie in it without a level
    ``cells``, texts and scores compressed. Raises ``UserError`` for whatever is not as it must be.
    """

    def __init__(self, root: Path, folder: str) -> None:
        super().__init__(root / "results" / folder)
        self.root, self.folder = root, folder

    @override
    def manifest(self) -> Manifest:
        return self._parsed("manifest.json", Manifest)

    @override
    def write_manifest(self, manifest: Manifest) -> NoReturn:
        self._refuse()

    @override
    def lock(self) -> AbstractContextManager[None]:
        self._refuse()

    @override
    def cell(self, cell_id: str) -> Path:
        return self.path / cell_id

    @override
    def cell_ids(self) -> list[str]:
        try:
            with os.scandir(self.path) as found:
                names = sorted(entry.name for entry in found if _CELL.fullmatch(entry.name))
        except OSError:
            return []
        return [name for name in names if (self.path / name / "status.json").is_file()]

    @override
    def cell_dirs(self) -> list[str]:
        return self.cell_ids()

    @override
    def load(self, cell_id: str, name: str, kind: type[Kind]) -> Kind | None:
        if name == "scores.json":
            body = self._scored(cell_id, "scores.json.gz")
            return None if body is None else _valid(body, kind, self._named(f"{cell_id}/scores.json.gz"))
        if not (self.path / cell_id / name).is_file():
            return None
        status = self._parsed(f"{cell_id}/{name}", CellStatus)  # all of it is checked, also for a row
        fields = status if kind is CellStatus else status.model_dump(by_alias=True)
        record: Kind = adapter(kind).validate_python(fields)
        return record

    @override
    def write_cell(self, cell_id: str, status: CellStatus, texts: list[Generation]) -> NoReturn:
        self._refuse()

    @override
    def generations(self, cell_id: str) -> list[Generation]:
        name = f"{cell_id}/generations.jsonl.gz"
        file = self._named(name)
        lines = [line for line in self.unpacked(name).split(b"\n") if line.strip()]
        if len(lines) > limits.LINES:
            raise InvalidSubmissionError(
                file, f"has more than {limits.LINES:,} lines", "Submit the suite's texts only."
            )
        texts = []
        for number, line in enumerate(lines, 1):
            place = f"{file}, line {number}"
            try:
                texts.append(Generation.model_validate(json_object(line, place), strict=True))
            except ValidationError as error:
                raise InvalidSubmissionError(place, format_validation_error(error), _NEXT_STEP) from None
        return texts

    @override
    def n_texts(self, cell_id: str) -> int:
        name = f"{cell_id}/generations.jsonl.gz"
        return self.unpacked(name).count(b"\n") if (self.path / name).is_file() else 0

    @override
    def generations_digest(self, cell_id: str) -> str:
        return sha256(self.unpacked(f"{cell_id}/generations.jsonl.gz"))

    @override
    def write_scores(self, scores: CellScores, kept: Any) -> NoReturn:
        self._refuse()

    @override
    def predictions(self, cell_id: str) -> dict[str, Any]:
        return {name: found for name, found in self.kept(cell_id).items() if name.startswith(CLASSIFIER)}

    @override
    def read_predictions_fast(self, cell_id: str) -> dict[str, Any]:
        return self.predictions(cell_id)

    @override
    def text_checks(self, cell_id: str) -> dict[str, Any]:
        return {name: found for name, found in self.kept(cell_id).items() if not name.startswith(CLASSIFIER)}

    @override
    def steering_path(self, steering_id: str) -> Path:
        return self.root / "steering" / f"{steering_id}.safetensors"

    @override
    def write_steering(self, steering_id: str, steering: Any) -> NoReturn:
        self._refuse()

    def kept(self, cell_id: str) -> dict[str, Any]:
        """Return what all parts of the scoring kept of a cell; empty where the file is not there."""
        return self._scored(cell_id, "predictions.json.gz") or {}

    def unpacked(self, name: str) -> bytes:
        """Return what a compressed file below the results holds."""
        file = self._named(name)
        return _unpack(self.root / file, file)

    @override
    def texts_path(self, cell_id: str) -> Path:
        return self.cell(cell_id) / "generations.jsonl.gz"

    def _scored(self, cell_id: str, name: str) -> dict[str, Any] | None:
        """Return what a file of the scoring holds; None where there is none."""
        path, file = self._scored_path(cell_id, name)
        return json_object(_unpack(path, file), file) if path.is_file() else None

    def _scored_path(self, cell_id: str, name: str) -> tuple[Path, str]:
        """Return where a file of the scoring lies, and how messages call it."""
        file = self._named(f"{cell_id}/{name}")
        return self.root / file, file

    def _named(self, name: str) -> str:
        return f"results/{self.folder}/{name}"

    def _parsed(self, name: str, kind: type[Kind]) -> Kind:
        file, cap = self._named(name), limits.FILES[name.rpartition("/")[2]]
        return _valid(json_object(read_bytes(self.path / name, file, cap), file), kind, file)

    def _refuse(self) -> NoReturn:
        raise UserError(f"{self.path} is part of a submission, which is never written. Choose another folder.")


class MeasuredRun(SubmittedRun):
    """The same cells with the scores that the maintainers measured, which lie below ``measured``.

    A cell without a file there was measured just as it was claimed.
    """

    def __init__(self, root: Path, folder: str, measured: Path) -> None:
        super().__init__(root, folder)
        self.measured_root = measured / folder

    @override
    def _scored_path(self, cell_id: str, name: str) -> tuple[Path, str]:
        path = self.measured_root / cell_id / name
        if not path.is_file():
            return super()._scored_path(cell_id, name)
        return path, f"measured/{self.root.name}/{self.folder}/{cell_id}/{name}"


def _unpack(path: Path, file: str) -> bytes:
    name = path.name
    return unpack(read_bytes(path, file, limits.FILES[name]), file, limits.UNPACKED[name])


def _valid(body: dict[str, Any], kind: type[Kind], file: str) -> Kind:
    schema = body.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or not 1 <= schema <= SCHEMA:
        raise InvalidSubmissionError(
            file, f"has schema {schema!r:.20}, not 1 to {SCHEMA}", "Upgrade steerboard, or pack again."
        )
    try:
        record: Kind = adapter(kind).validate_python(body)
    except ValidationError as error:
        raise InvalidSubmissionError(file, format_validation_error(error), _NEXT_STEP) from None
    return record
