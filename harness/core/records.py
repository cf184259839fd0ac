"""The records that stages hand to one another through files. One class per kind of file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from harness.core.errors import UserError
from harness.core.strict import strict_numbers

SCHEMA = 1
"""Version of every JSON file written by this program."""

Number = TypeVar("Number", int, float)

_BEYOND = 2**62


def _bounded(value: Number) -> Number:
    """Refuse what is no number of a run: NaN, infinities, and beyond what sums of 64 bits can hold."""
    if not -_BEYOND < value < _BEYOND:
        raise ValueError("is no number that can be counted with")
    return value


SafeInt = Annotated[int, AfterValidator(_bounded)]
SafeFloat = Annotated[float, AfterValidator(_bounded)]


def _plain(value: Any) -> Any:
    """Return a JSON value with null for NaN and infinities, which have no JSON: as its hash takes them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


Options = Annotated[dict[str, Any], AfterValidator(_plain)]
"""The fields of a method's config by name."""

Setting = Literal["zero-shot", "few-shot", "none"]
"""How the model is prompted; ``none`` for references, which prompt no model."""

Track = Literal["generation", "understanding", "forcing"]
"""What a run measures: texts as training data; tasks that the steered model answers itself; answers in a
language that nobody asked for. Numbers of two tracks never share a table."""

State = Literal["ok", "skipped", "method_error", "infra_error"]
Direction = Literal["up", "down", "none"]
"""Whether a higher or a lower value is better; ``none`` for what only describes, such as length."""

FinishReason = Literal["stop", "length", "reference"]


class Record(BaseModel):
    """An immutable record; unknown keys are refused, so that a foreign file is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema with strict numbers: a score of true is not a score."""
        schema: CoreSchema = strict_numbers(handler(source))
        return schema


class Versioned(Record):
    """A record that is a file of its own and therefore carries the schema number."""

    schema_version: Annotated[int, Field(alias="schema")] = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the file's own key names."""
        return self.model_dump(mode="json", by_alias=True)


class Generation(Record):
    """One text of a cell. ``index`` counts within the label, from 0.

    ``attempts`` is 1 plus the number of redraws; ``duplicate`` says that the text still equals an
    earlier one, or is still empty, after the last attempt. Token counts are 0 for references, which
    run no model.
    """

    index: int
    label: str
    text: str
    n_prompt_tokens: int = 0
    n_new_tokens: int = 0
    finish_reason: FinishReason
    attempts: int = 1
    duplicate: bool = False


class ModelIdentity(Record):
    """Which model wrote the texts: hub id or folder name, commit, content hash, precision."""

    name: str
    revision: str | None = None
    fingerprint: str
    dtype: str


class MethodIdentity(Record):
    """Which method wrote the texts: its name, version and full config."""

    name: str
    version: str
    config: Options

    @property
    def title(self) -> str:
        """The name; a control's with the method that it controls."""
        of = self.config.get("of")
        return f"{self.name} of {of}" if isinstance(of, str) else self.name

    @property
    def options(self) -> dict[str, Any]:
        """The config as one level; a control's with the options that it shares with its method."""
        flat = {k: v for k, v in self.config.items() if k not in {"of", "options"}}
        shared = self.config.get("options")
        return {**flat, **shared} if isinstance(shared, dict) else self.config


class Entry(Record):
    """A row of the board: a method config on a model in one setting, over all its cells."""

    method: MethodIdentity
    model: ModelIdentity | None
    setting: Setting


class CellKey(Record):
    """What decides the texts of a cell, and nothing else. ``harness.core.cells`` turns it into the id."""

    suite: str
    text_protocol: str
    data: str
    model: ModelIdentity | None
    method: MethodIdentity
    task: str
    language: str
    setting: Setting
    seed: SafeInt
    texts_per_label: SafeInt


class Usage(Record):
    """What a piece of work took: seconds, and the tokens that the model read and wrote."""

    seconds: SafeFloat
    tokens: SafeInt


UsageByStep = dict[str, Usage | None]
"""What the parts of a work took, by name; None for a part made before costs were recorded."""


class FitCost(Versioned):
    """What a fit took if it were alone: its own work, every reading and every other fit that it used.

    A part is named by the file that it left, such as ``steering/ID`` or ``activations/HASH``, so that parts
    which two fits share are known as the same. Tokens are those that the model read and wrote on the way
    forward; learning runs backward too, which only the seconds show.
    """

    parts: UsageByStep


class CellStatus(Versioned):
    """How a cell ended. ``reason`` is for people; ``seconds`` is generation alone, on ``device``.

    ``prompt_tokens``: tokens of the prompt, once per draw of a text; ``new_tokens``: tokens written, the end
    token not counted; both with all redraws. ``fit``: parts of the fit of the steering (see ``FitCost``),
    empty where nothing was fitted. All three are None where they were not recorded. ``generations_sha256``
    and ``steering_sha256``: of the files as they were written and applied; None for a cell without such a
    file, and where it was not recorded.
    """

    cell: CellKey
    state: State
    reason: str = ""
    attempts: int = 1
    finished: str = ""
    seconds: SafeFloat = 0.0
    device: str = ""
    steering: str | None = None
    demonstrations: dict[str, list[str]] = {}
    redraws: int = 0
    duplicates: int = 0
    prompt_tokens: SafeInt | None = None
    new_tokens: SafeInt | None = None
    fit: UsageByStep | None = None
    generations_sha256: str | None = None
    steering_sha256: str | None = None


def fit_of(statuses: Iterable[CellStatus]) -> Usage | None:
    """Return what the fits of cells took, parts that they share counted once; None where one is not known."""
    return total_usage(status.fit for status in statuses)


def total_usage(fits: Iterable[UsageByStep | None]) -> Usage | None:
    """Return what fits took, parts that they share counted once; None where one is not known."""
    parts: UsageByStep = {}
    for fit in fits:
        parts |= {"not recorded": None} if fit is None else fit
    known = [part for part in parts.values() if part is not None]
    if len(known) < len(parts):
        return None
    seconds = round(sum(part.seconds for part in known), 3)
    return Usage(seconds=seconds, tokens=sum(part.tokens for part in known))


def sum_or_none(values: Iterable[Number | None]) -> Number | None:
    """Return the sum; None where one of the values is."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


class Score(Record):
    """One metric of one cell. ``value`` is None, with the reason in ``note``, if not computable.

    ``interval``: 95 % interval of ``value`` over draws of texts, by subsampling without replacement.
    ``human``: the metric on human train text of the same task, language, seed and number, by the same
    budget. ``by_seed``: classifier seed -> value. ``detail``: further figures, such as quantiles.
    """

    metric: str
    value: float | None
    direction: Direction
    unit: str
    signature: str
    note: str = ""
    interval: tuple[float, float] | None = None
    human: float | None = None
    by_seed: dict[str, float] = {}
    detail: dict[str, float] = {}


class PartRecord(Record):
    """Which metrics a part of the scoring gave, and by which recipe; another recipe is scored anew."""

    signature: str
    metrics: list[str]


class CellScores(Versioned):
    """All scores of a cell by the parts of the scoring, and the hashes that say of which texts and data.

    ``kept``: name of a file beside it -> its size in bytes; empty where it was not recorded.
    """

    cell_id: str
    generations_sha256: str
    protocol: str
    parts: dict[str, PartRecord] = {}
    scores: list[Score]
    kept: dict[str, int] = {}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; of the scores only what says something, for there are many."""
        body = super().to_json()
        body = body if self.kept else {name: value for name, value in body.items() if name != "kept"}
        body["scores"] = [score.model_dump(mode="json", exclude_defaults=True) for score in self.scores]
        return body


class Selection(Record):
    """What a run covers of its suite. Empty ``narrowed`` means: all of it.

    ``absent``: places as TASK/LANGUAGE of which there is no data, so that nobody is expected to have them.
    ``checked``: languages that are measured beside the others and are in no mean, such as English.
    """

    languages: list[str]
    tasks: list[str]
    settings: list[str]
    seeds: list[SafeInt]
    texts_per_label: dict[str, SafeInt]
    narrowed: list[str] = []
    absent: list[str] = []
    checked: list[str] = []

    def identity(self) -> dict[str, Any]:
        """Return what decides which runs share a table, as JSON."""
        body = self.model_dump(mode="json")
        return {name: value for name, value in body.items() if value or name not in {"absent", "checked"}}

    def places(
        self, tasks: Iterable[str] | None = None, languages: Iterable[str] | None = None
    ) -> list[tuple[str, str]]:
        """Return the tasks and languages, all or some, that cells are expected of, task by task."""
        codes, absent = list(self.languages if languages is None else languages), set(self.absent)
        return [
            (task, code)
            for task in (self.tasks if tasks is None else tasks)
            for code in codes
            if f"{task}/{code}" not in absent
        ]


class GridPoint(Record):
    """One configuration that was tried: its means over cells of validation text.

    ``options``: the values of the swept config fields. ``gain``: macro-F1 minus the unsteered one of the
    same cells. ``valid``: share of texts that pass all checks, times the share that is no duplicate.
    ``tokens`` (None where not recorded) and ``seconds`` are those of generation.
    """

    method: str
    options: Options
    macro_f1: SafeFloat | None
    gain: SafeFloat | None
    valid: SafeFloat | None
    eligible: bool
    chosen: bool = False
    cells: SafeInt
    cells_expected: SafeInt
    texts: SafeInt
    tokens: SafeInt | None
    seconds: SafeFloat


class TunedMethod(Record):
    """What was chosen for a method (None: no configuration passed the gate), and what the search cost.

    ``tokens`` and ``seconds`` are those of generation; ``fit`` is what all fits took, each reading that
    they share counted once. None where not recorded.
    """

    version: str
    options: Options | None
    configurations: SafeInt
    texts: SafeInt
    tokens: SafeInt | None
    seconds: SafeFloat
    fit: Usage | None = None


class Tuned(Versioned):
    """The outcome of ``steerboard tune``: on what, by which rule, the choices, the whole surface."""

    suite: str
    suite_hash: str
    model: ModelIdentity
    data_hashes: dict[str, str]
    selection: Selection
    rule: str
    methods: dict[str, TunedMethod]
    surface: list[GridPoint]


class Manifest(Versioned):
    """What a run is: suite, model, data, versions; enough to render it without anything else."""

    track: Track = "generation"
    suite: dict[str, Any]
    suite_hash: str
    suite_source: str
    model: ModelIdentity | None
    model_path: str | None
    data_source: str
    data_revisions: dict[str, str] = {}
    data_hashes: dict[str, str] = {}
    contrast: str | None = None
    entries: list[Entry] = []
    selection: Selection
    plugins: list[str] = []
    chat: dict[str, str] = {}
    tuning: dict[str, TunedMethod] = {}
    method_notes: dict[str, str] = {}
    method_limits: dict[str, str] = {}
    versions: dict[str, str] = {}
    git_commit: str | None = None
    device: str = ""
    created: str = ""
    commands: list[list[str]] = []

    def of_texts(self, where: object) -> Manifest:
        """Return itself; ``UserError`` for a run whose cells hold no texts to train on."""
        if self.track != "generation":
            raise UserError(
                f"{where} holds a run of the {self.track} track. Give one of 'steerboard run'; a board shows both."
            )
        return self


def format_validation_error(error: Exception) -> str:
    """Return a validation error as one line: the first problem and how many more there are."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    problems = error.errors()
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"]) or "(top)"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {first['msg']}, got {first['input']!r:.80}{more}"
