"""The published result file: the numbers of a board for programs. Its JSON Schema is made from these classes.

Numbers have six significant digits. A number that is unknown, not finite or not computable is null.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from harness.core.records import Direction, MethodIdentity, ModelIdentity, Selection, Setting
from harness.core.schema import Record
from harness.ranking.flags import is_floor
from harness.ranking.rivals import RowKind
from harness.scoring.metrics import Group

RESULTS_SCHEMA: Literal[1] = 1
"""Version of the published result file; raised when a field is added, removed or means something else."""

DATE = r"^(\d{4}-\d{2}-\d{2}(T[0-9:.]+(Z|[+-]\d{2}:\d{2})?)?)?$"
"""ISO 8601, or empty where it is unknown."""

BySeed = list[float | None]
"""One value per generation seed, in the order of ``selection.seeds``."""

ByPlace = dict[str, dict[str, BySeed]]
"""Task -> language -> values."""

ByMetric = dict[str, ByPlace]
"""Metric -> task -> language -> values."""


class Published(Record):
    """A part of the file; NaN and infinities, which are not JSON, are refused."""

    model_config = ConfigDict(allow_inf_nan=False)


class ProgramInfo(Published):
    """The program that wrote the file."""

    name: Literal["steerboard"]
    version: str


class SuiteFacts(Published):
    """The suite; ``hash`` is of the whole suite with its task definitions."""

    name: str
    version: int | None
    hash: str


class MetricFacts(Published):
    """One metric. ``signatures``: how its values were computed."""

    name: str
    title: str
    unit: str
    direction: Direction
    group: Group
    primary: bool
    definition: str
    signatures: list[str]


class EstimateFacts(Published):
    """A mean with its 95 % interval (``low``, ``high``), standard error, degrees of freedom, two-sided p
    of no difference and minimum detectable effect; one seed gives only the mean."""

    mean: float
    low: float | None
    high: float | None
    se: float | None
    df: float | None
    p: float | None
    mde: float | None


class LanguageGainFacts(Published):
    """Mean gain over zero-shot in one language. ``p``: adjusted over all entries and languages (false
    discovery rate); ``found``: whether the gain, up or down, is a discovery at 5 %."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    found: bool


class FlagFacts(Published):
    """A quality flag of an entry: the metric and the bound that it breaks, and both in words."""

    metric: str
    task: str
    value: float | None
    bound: float | None
    words: str


class StandingFacts(Published):
    """The rank of an entry by the headline metric. ``tier`` is null for the ``reason`` given.

    ``over_zero_shot``, ``over_few_shot``: paired differences to the rows of the same model. ``gap_closed``:
    percent of the way from zero-shot to human-written text. ``win_share``: share of tasks and languages in which
    the entry beats zero-shot. ``borda``, ``mean_rank``: over those in tiers. ``languages``: by code.
    """

    tier: int | None
    reason: str
    mean: EstimateFacts | None
    over_zero_shot: EstimateFacts | None
    over_few_shot: EstimateFacts | None
    gap_closed: EstimateFacts | None
    win_share: float | None
    borda: float | None
    mean_rank: float | None
    languages: dict[str, LanguageGainFacts]


class CostFacts(Published):
    """The cost of the finished cells of an entry, see docs/metrics.md. ``devices``: of the ``seconds``."""

    texts: int
    valid_texts: int | None
    prompt_tokens: int | None
    new_tokens: int | None
    seconds: float | None
    fit_seconds: float | None
    fit_tokens: int | None
    tuning_seconds: float | None
    tuning_tokens: int | None
    texts_per_second: float | None
    seconds_per_1000_valid: float | None
    tokens_per_1000_valid: float | None
    devices: list[str]


class CellFacts(Published):
    """The number of finished and of expected cells (task, language and generation seed) of an entry."""

    present: int
    expected: int


class MissingFacts(Published):
    """A missing cell of an entry, and why it is missing."""

    task: str
    language: str
    seed: int
    reason: str


class EntryFacts(Published):
    """One entry: a method with its config on a model in one setting. ``model`` is null for references.

    ``name`` is unique in a board and as shown; ``id`` depends on method, config, model and setting alone.
    ``note`` is the first line of the method's description. ``cost`` is null where no cell is finished.
    """

    id: str
    name: str
    family: RowKind
    method: MethodIdentity
    model: ModelIdentity | None
    setting: Setting
    note: str
    standing: StandingFacts
    flags: list[FlagFacts]
    cost: CostFacts | None
    cells: CellFacts
    missing: list[MissingFacts]

    @property
    def flagged(self) -> bool:
        """Whether flags count for the entry, see ``RankedEntry.flagged``."""
        return bool(self.flags) and not is_floor(self.method.name, self.setting)

    @property
    def tier_words(self) -> str:
        """The tier, or why there is none: ``flag``, or a dash."""
        return str(self.standing.tier) if self.standing.tier is not None else "flag" if self.flagged else "–"


class BoardFacts(Published):
    """One set of comparable results. Entries are in the order of the ranking, the best first.

    ``reason``: why nobody is ranked, else empty. ``relative``: whether tiers are of gains over the own
    model's zero-shot, as there are several models. ``notes``: what limits the numbers.
    ``values``: entry id -> metric -> task -> language -> one value per seed of ``selection.seeds``; a metric
    that an entry has no value of is left out. ``human``: the same of human-written text, without the entry,
    where all entries that have one agree; where they do not, it is null and ``human_by_entry`` has their
    values.
    """

    id: str
    title: str
    suite: SuiteFacts
    selection: Selection
    data_hashes: dict[str, str]
    headline: str
    reason: str
    relative: bool
    notes: list[str]
    metrics: list[MetricFacts]
    entries: list[EntryFacts]
    values: dict[str, ByMetric]
    human: ByMetric
    human_by_entry: dict[str, ByMetric]

    def metric(self, name: str) -> MetricFacts | None:
        """Return a metric; None where it was not measured."""
        return next((item for item in self.metrics if item.name == name), None)

    def mean(self, entry: str, metric: str) -> float | None:
        """Return an entry's mean over all cells; None where one of them has no value."""
        places = self.values.get(entry, {}).get(metric, {})
        found = [value for by_code in places.values() for values in by_code.values() for value in values]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None


class ResultFile(Published):
    """All numbers of a site; written by ``steerboard board build``."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    generator: ProgramInfo
    date: Annotated[str, Field(pattern=DATE)]
    boards: list[BoardFacts]


def rounded(value: float | None) -> float | None:
    """Return a number with six significant digits; None for one that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}") + 0.0  # not a negative zero


def rounded_all(value: Any) -> Any:
    """Return plain values with all floats ``rounded``."""
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, dict):
        return {name: rounded_all(item) for name, item in value.items()}
    return [rounded_all(item) for item in value] if isinstance(value, list | tuple) else value


def encodable(text: str) -> str:
    """Return text that UTF-8 can hold: lone surrogates, which come from outside, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the result file."""
    body = ResultFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}
