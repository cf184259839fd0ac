"""What a baseline file holds: cells, predictions, the spread between runs of the same code, tolerances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from harness.core.errors import UserError
from harness.core.records import Manifest, Record, format_validation_error
from harness.ranking.gate.checksummed import read_checksummed, write_checksummed

SCHEMA = 1
"""Of baseline files."""

KIND = "baseline"

NonNegative = Annotated[float, Field(ge=0)]


class Strict(Record):
    """A record of finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Tolerance(Strict):
    """The largest loss that may stay unseen: in units of the metric, or as a share of the baseline's mean."""

    value: Annotated[float, Field(gt=0)]
    relative: bool = False

    def of(self, mean: float) -> float:
        """Return it in units of the metric."""
        return self.value * abs(mean) if self.relative else self.value


class Spread(Strict):
    """How far runs of the same code lie apart in a metric.

    ``variance``: task -> of one cell between generation seeds, mean over languages and entries. ``factor``:
    by how much the means of whole runs vary more than that; 1 where one run was measured. ``df``: degrees
    of freedom. ``bound``: between two runs of the baseline's size, for readers.
    """

    variance: dict[str, NonNegative]
    df: Annotated[float, Field(gt=0)]
    factor: Annotated[float, Field(ge=1)] = 1.0
    bound: NonNegative = 0.0


class MetricColumn(Strict):
    """A metric, a value per cell. ``signature``: place in ``signatures``. None: not known."""

    signatures: list[str]
    signature: list[int | None]
    value: list[float | None]
    human: list[float | None]
    size: list[float | None]
    trainings: list[int]


class ExampleSet(Strict):
    """Test examples of a task and language: their digest, labels, and the right label of each."""

    examples: str
    labels: list[str]
    gold: list[int]


class Prediction(Strict):
    """What one cell's classifier said: ``test`` is a place in ``tests``; metric -> seed -> labels."""

    cell: int
    part: str
    test: int
    found: dict[str, dict[str, list[int]]]


class BaselineData(Strict):
    """Scored cells as columns: ``entry`` is a place in the manifest's entries."""

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
    """A baseline that was replaced: its hash and why it had been accepted."""

    sha256: str
    reason: str
    date: str
    suite_hash: str
    git_commit: str | None


class Baseline(Strict):
    """A baseline. ``source``: in words, where the spread is from. ``history``: oldest first."""

    manifest: Manifest
    packed: BaselineData
    metrics: list[str]
    spread: dict[str, Spread]
    source: str
    tolerance: dict[str, Tolerance]
    reason: str
    date: str
    history: list[PreviousBaseline] = Field(default_factory=list)


def write_baseline(path: Path, baseline: Baseline) -> str:
    """Write a baseline file; return the hash of its content."""
    return write_checksummed(path, KIND, SCHEMA, baseline.model_dump(mode="json", by_alias=True))


def read_baseline(path: Path) -> tuple[Baseline, str]:
    """Return a baseline and its hash; ``UserError`` for a file that is edited, broken or not ours."""
    content, seal = read_checksummed(path, KIND, SCHEMA)
    try:
        baseline = Baseline.model_validate(content)
        _check(baseline)
    except ValidationError as error:
        raise UserError(f"{path} is no baseline of steerboard: {format_validation_error(error)}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no baseline of steerboard: {error}.") from None
    return baseline, seal


def _check(baseline: Baseline) -> None:
    """Refuse columns of other lengths and places that do not exist."""
    packed, count = baseline.packed, len(baseline.packed.entry)
    rows: list[list[int] | list[str]] = [packed.task, packed.language, packed.seed]
    rows += [packed.texts, packed.protocol]
    if any(len(row) != count for row in rows):
        raise ValueError("columns of different lengths")
    if not all(0 <= place < len(baseline.manifest.entries) for place in packed.entry):
        raise ValueError("a cell of no entry")
    for name in baseline.metrics:
        if not (name in baseline.spread and name in baseline.tolerance and name in packed.columns):
            raise ValueError(f"nothing known of {name}")
    for column in packed.columns.values():
        parts = (column.signature, column.value, column.human, column.size, column.trainings)
        if any(len(part) != count for part in parts):
            raise ValueError("columns of different lengths")
        if not all(place is None or 0 <= place < len(column.signatures) for place in column.signature):
            raise ValueError("a value without its signature")
    for found in packed.predictions:
        if not (0 <= found.cell < count and 0 <= found.test < len(packed.tests)):
            raise ValueError("predictions of no cell")
