"""Baseline files: scored cells, predictions, the spread between equal runs and tolerances, protected by a checksum.

A file holds only what the gate reads: no texts, no names of directories. The checksum is not a signature: it stops
edits by hand, bad merges and damage, not forgery.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field, ValidationError
from typing_extensions import override

from harness.core.cells import entry_id
from harness.core.errors import InvalidFileError, UserError
from harness.core.files import JsonValue, canonical_json, digest, write_bytes
from harness.core.reading import check_schema, gunzip, parse_json, read_bytes
from harness.core.records import CellScores, Manifest, Selection
from harness.core.schema import Record, format_validation_error
from harness.core.store import Run
from harness.ranking.results import CELL, CellIndex, ResultSet, build_result_set
from harness.scoring.metrics import metric

SCHEMA = 1
"""The version of the format of baseline files."""

_KIND = "baseline"
_NAMES = ["entry", "task", "language", "metric", "signature", "protocol", "texts"]
_NUMBERS = ["value", "human", "size"]
_LIMIT = 2**28  # bytes of a file once unpacked: a thousand times what the mini suite takes
_GZIP_HEAD = b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x02\xff"  # gzip with a comment, no time stamp, no system

NonNegative = Annotated[float, Field(ge=0)]


class Strict(Record):
    """A record of finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Tolerance(Strict):
    """The largest loss that may go undetected: in units of the metric, or as a share of the baseline's mean."""

    value: Annotated[float, Field(gt=0)]
    relative: bool = False

    def of(self, mean: float) -> float:
        """Return it in units of the metric."""
        return self.value * abs(mean) if self.relative else self.value


class Spread(Strict):
    """How far runs of the same code differ in a metric.

    ``variance``: task -> variance of one cell between generation seeds, mean over languages and entries. ``factor``: by
    how much the means of whole runs vary more than that; 1 where one run was measured. ``df``: degrees of freedom.
    ``bound``: between two runs of the baseline's size, for readers.
    """

    variance: dict[str, NonNegative]
    df: Annotated[float, Field(gt=0)]
    factor: Annotated[float, Field(ge=1)] = 1.0
    bound: NonNegative = 0.0


class MetricColumn(Strict):
    """One metric, a value per cell; ``signature``: an index of ``signatures``; None: not scored, no value, unknown."""

    signatures: list[str]
    signature: list[int | None]
    value: list[float | None]
    human: list[float | None]
    size: list[float | None]
    trainings: list[int]


class ExampleSet(Strict):
    """The test examples of a task and language: their digest, the labels, and the right label of each."""

    examples: str
    labels: list[str]
    gold: list[int]


class Prediction(Strict):
    """Predicted labels of one cell: ``test``: an index of ``tests``; ``found``: metric -> seed -> labels."""

    cell: int
    part: str
    test: int
    found: dict[str, dict[str, list[int]]]


class BaselineData(Strict):
    """Scored cells as columns; ``entry``: an index of the manifest's entries."""

    entry: list[int]
    task: list[str]
    language: list[str]
    seed: list[int]
    texts: list[str]
    protocol: list[str]
    columns: dict[str, MetricColumn]
    tests: list[ExampleSet]
    predictions: list[Prediction]


class PreviousBaseline(Strict):
    """A baseline that was replaced: its hash, and why it had been accepted."""

    sha256: str
    reason: str
    date: str
    suite_hash: str
    git_commit: str | None


class Baseline(Strict):
    """A baseline. ``source``: origin of the spread, in words. ``history``: oldest first."""

    manifest: Manifest
    packed: BaselineData
    metrics: list[str]
    spread: dict[str, Spread]
    source: str
    tolerance: dict[str, Tolerance]
    reason: str
    date: str
    history: list[PreviousBaseline] = Field(default_factory=list)


# From runs


def strip_private_fields(manifest: Manifest, selection: Selection) -> Manifest:
    """Return a manifest without names of directories and command lines."""
    empty: dict[str, Any] = {"model_path": None, "contrast": None, "commands": [], "plugins": []}
    empty |= {"suite_source": "", "data_source": "", "tuning": {}, "selection": selection}
    empty["suite"] = {key: value for key, value in manifest.suite.items() if key not in {"data", "model"}}
    return manifest.model_copy(update=empty)


def pack(runs: Sequence[ResultSet], metrics: Iterable[str]) -> BaselineData:
    """Return the cells of runs that have the same entries, with these metrics and all stored predictions."""
    entries, names = [entry_id(entry) for entry in runs[0].manifest.entries], list(metrics)
    lines = pd.concat([run.scores.astype(dict.fromkeys(_NAMES, object)) for run in runs], ignore_index=True)
    lines = lines[lines["metric"].isin(names) & lines["entry"].isin(entries)]
    heads = lines.drop_duplicates(CELL, keep="last").set_index(CELL).sort_index()
    cells: list[CellIndex] = list(heads.index)
    where = {index: found for each in runs for index, found in each.cells.items()}
    tests: dict[str, ExampleSet] = {}
    predictions = []
    for i, (run, cell) in enumerate(where[index] for index in cells):
        for part, body in run.predictions(cell).items():
            try:
                test = ExampleSet(examples=body["examples"], labels=body["labels"], gold=body["gold"])
                name = test.model_dump_json()
                index = list(tests).index(name) if name in tests else len(tests)
                predictions.append(Prediction(cell=i, part=part, test=index, found=body["predictions"]))
            except (KeyError, TypeError, ValueError):
                continue  # nothing that statistics could use: test examples are then not resampled
            tests.setdefault(name, test)
    columns = {name: lines[lines["metric"] == name].drop_duplicates(CELL, keep="last") for name in names}
    return BaselineData(
        entry=[entries.index(entry) for entry, _, _, _ in cells],
        task=[task for _, task, _, _ in cells],
        language=[code for _, _, code, _ in cells],
        seed=[seed for _, _, _, seed in cells],
        texts=heads["texts"].tolist(),
        protocol=heads["protocol"].tolist(),
        columns={name: _column(own.set_index(CELL).reindex(heads.index)) for name, own in columns.items()},
        tests=list(tests.values()),
        predictions=predictions,
    )


def _column(lines: pd.DataFrame) -> MetricColumn:
    """Return one metric from its scores, a line per cell, with NaN where there is none."""
    signatures = sorted(lines["signature"].dropna().unique())
    numbers = {name: lines[name].astype(object).where(lines[name].notna(), None).tolist() for name in _NUMBERS}
    return MetricColumn(
        signatures=signatures,
        signature=[signatures.index(each) if isinstance(each, str) else None for each in lines["signature"]],
        trainings=lines["trainings"].fillna(0).astype(int).tolist(),
        **numbers,
    )


# To a score table


class _BaselineCells(Run):
    """The parts of a baseline's cells that are looked up after the score table was read; cells are numbered."""

    def __init__(self, packed: BaselineData) -> None:
        super().__init__(Path("baseline"))
        self._packed = packed
        self._predictions: dict[str, dict[str, Any]] = {}
        for found in packed.predictions:
            body = {**packed.tests[found.test].model_dump(), "predictions": found.found}
            self._predictions.setdefault(str(found.cell), {})[found.part] = body

    @override
    def read_predictions_fast(self, cell_id: str) -> dict[str, Any]:
        return self._predictions.get(cell_id, {})

    @override
    def scores(self, cell_id: str) -> CellScores:
        i, columns = int(cell_id), self._packed.columns.items()
        known = [(name, column) for name, column in columns if column.signature[i] is not None]
        scores = [metric(name).score(column.value[i], "") for name, column in known]
        return CellScores(cell_id=cell_id, generations_sha256="", protocol="", scores=scores)


def load_results(baseline: Baseline) -> ResultSet:
    """Return the cells of a baseline as a score table."""
    packed, store = baseline.packed, _BaselineCells(baseline.packed)
    ids = [entry_id(entry) for entry in baseline.manifest.entries]
    indices = list(zip((ids[i] for i in packed.entry), packed.task, packed.language, packed.seed, strict=True))
    cells: dict[CellIndex, tuple[Run, str]] = {index: (store, str(i)) for i, index in enumerate(indices)}
    heads = pd.DataFrame(indices, columns=CELL)
    heads = heads.assign(protocol=packed.protocol, texts=packed.texts)
    frames = []
    for name, column in packed.columns.items():
        numbers = {each: np.array(getattr(column, each), dtype=np.float64) for each in _NUMBERS}
        signatures = [None if i is None else column.signatures[i] for i in column.signature]
        frame = heads.assign(metric=name, signature=signatures, trainings=column.trainings, **numbers)
        frames.append(frame[frame["signature"].notna()])
    return build_result_set([baseline.manifest], pd.concat(frames, ignore_index=True), cells, {}, {})


# Files


def write_baseline(path: Path, baseline: Baseline) -> str:
    """Write a baseline with its hash, compressed if the name ends in ``.gz``; return the hash."""
    content = baseline.model_dump(mode="json", by_alias=True)
    sha256 = digest(content)
    body = {"kind": _KIND, "schema": SCHEMA, "sha256": sha256, "content": content}
    data = canonical_json(body).encode() + b"\n"
    write_bytes(path, _compress(data) if path.suffix == ".gz" else data)
    return sha256


def read_baseline(path: Path) -> tuple[Baseline, str]:
    """Return a baseline and its hash.

    Raises ``UserError`` for a file that is missing, broken, edited, of another kind or of a newer schema.
    """
    content, sha256 = read_checksummed(path)
    try:
        baseline = Baseline.model_validate(content)
        _check(baseline)
    except ValidationError as error:
        raise UserError(f"{path} is not a baseline of steerboard: {format_validation_error(error)}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not a baseline of steerboard: {error}.") from None
    return baseline, sha256


def _check(baseline: Baseline) -> None:
    """Refuse columns of different lengths and indices out of range."""
    packed, count = baseline.packed, len(baseline.packed.entry)
    columns: list[Sequence[object]] = [packed.task, packed.language, packed.seed, packed.texts, packed.protocol]
    for column in packed.columns.values():
        columns += [column.signature, column.value, column.human, column.size, column.trainings]
    if any(len(column) != count for column in columns):
        raise ValueError("its columns have different lengths")
    if not all(0 <= i < len(baseline.manifest.entries) for i in packed.entry):
        raise ValueError("a cell belongs to no entry")
    for name in baseline.metrics:
        if not (name in baseline.spread and name in baseline.tolerance and name in packed.columns):
            raise ValueError(f"spread, tolerance or values of {name} are missing")
    for column in packed.columns.values():
        if not all(i is None or 0 <= i < len(column.signatures) for i in column.signature):
            raise ValueError("a value has no signature")
    if not all(0 <= each.cell < count and 0 <= each.test < len(packed.tests) for each in packed.predictions):
        raise ValueError("predictions belong to no cell")


def read_checksummed(path: Path) -> tuple[JsonValue, str]:
    """Return the content of a baseline file and its hash, both as they were written; raises as ``read_baseline``."""
    data = read_bytes(path, _LIMIT)
    if data.startswith(_GZIP_HEAD[:2]):
        start = len(_GZIP_HEAD) + len(_comment(b""))
        if data[:start] != _GZIP_HEAD + _comment(data[start:]):
            _edited(path)
        data = gunzip(data, path, _LIMIT)
    try:
        body = parse_json(data, path, strict=True)
    except InvalidFileError:
        _edited(path)
    if body.get("kind") != _KIND:
        raise UserError(f"{path} is not a baseline of steerboard. Make one with 'steerboard gate calibrate'.")
    check_schema(path, body, SCHEMA)
    whole = set(body) == {"kind", "schema", "sha256", "content"}
    if not whole or digest(body["content"]) != body["sha256"] or canonical_json(body).encode() + b"\n" != data:
        _edited(path)
    return body["content"], str(body["sha256"])


def _edited(path: Path) -> NoReturn:
    raise UserError(
        f"{path} was edited by hand or damaged: its content does not match its hash. Restore it, or make it "
        "again with 'steerboard gate calibrate' or 'steerboard gate accept'."
    )


def _compress(data: bytes) -> bytes:
    """Return gzip whose comment holds the hash of the rest: that covers idle bits, too."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    rest = deflate.compress(data) + deflate.flush()
    rest += zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return _GZIP_HEAD + _comment(rest) + rest


def _comment(rest: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(rest).hexdigest().encode() + b"\x00"
