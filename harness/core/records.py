"""The records that stages hand to one another through files. One class per kind of file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from pydantic import (
    SerializerFunctionWrapHandler,
    model_serializer,
)

from harness.core.errors import UserError
from harness.core.schema import (
    Options,
    Record,
    SafeFloat,
    SafeInt,
    Versioned,
)

Number = TypeVar("Number", int, float)

Setting = Literal["zero-shot", "few-shot", "none"]
"""How the model is prompted; ``none`` for references, which prompt no model."""

Track = Literal["generation", "understanding", "forcing"]
"""What a run measures: texts as training data; tasks that the steered model answers itself; answers in a language
that the prompt does not ask for. Values of two tracks never share a table."""

State = Literal["ok", "skipped", "method_error", "infra_error"]
Direction = Literal["up", "down", "none"]
"""Whether a higher or a lower value is better; ``none`` for what only describes, such as length."""

FinishReason = Literal["stop", "length", "reference", "imported"]
"""Why a text ended; ``reference`` and ``imported``: no model of this run wrote it."""


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


Engine = Literal["transformers", "vllm"]
"""What ran the model: transformers with the decode loop of steerboard, or vLLM."""

OWN_ENGINE: Engine = "transformers"


class ModelIdentity(Record):
    """Which model wrote the texts: hub id or folder name, commit, content hash, precision.

    ``engine``: what ran it; the default is left out of hashes.
    """

    name: str
    revision: str | None = None
    fingerprint: str
    dtype: str
    engine: Engine = OWN_ENGINE

    @model_serializer(mode="wrap")
    def _without_own_engine(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return {name: value for name, value in body.items() if (name, value) != ("engine", OWN_ENGINE)}

    @property
    def title(self) -> str:
        """The name, with the engine where it is another one."""
        return self.name if self.engine == OWN_ENGINE else f"{self.name} ({self.engine})"

    @property
    def fitted(self) -> dict[str, Any]:
        """What fits depend on, as JSON: all but the engine that writes texts with them."""
        return self.model_dump(mode="json", exclude={"engine"})


IMPORTED = "imported"
"""The version of a method of which nothing but its texts is known."""


class MethodIdentity(Record):
    """Which method wrote the texts: its name, version and full config."""

    name: str
    version: str
    config: Options

    @property
    def title(self) -> str:
        """The name, with the method that it controls or is steered by, and a mark where texts were imported."""
        of, steering = self.config.get("of"), self.config.get("steering")
        if isinstance(of, str):
            return f"{self.name} of {of}"
        if isinstance(steering, str) and "steering_version" in self.config:
            return f"{self.name} + {steering}"
        return f"{self.name} ({IMPORTED})" if self.version == IMPORTED else self.name

    @property
    def options(self) -> dict[str, Any]:
        """The config as one level; a control's with the options that it shares with its method."""
        flat = {k: v for k, v in self.config.items() if k not in {"of", "options", "steering", "steering_version"}}
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
    """The cost of a piece of work: seconds, and the tokens that the model read and wrote."""

    seconds: SafeFloat
    tokens: SafeInt


UsageByStep = dict[str, Usage | None]
"""Step -> its cost; None for a step that ran before costs were recorded."""


class FitCost(Versioned):
    """The cost of a fit on its own: its own work, and all activations and other fits that it used.

    A step is named by the file that it left, such as ``steering/ID`` or ``activations/HASH``, so that fits share
    it by name. Tokens are those of forward passes; backward passes show in the seconds only.
    """

    parts: UsageByStep


class PromptRecord(Record):
    """What the prompts of a method add to the protocol of the suite.

    ``sampling``: the options that replace the suite's, for each kind of prompt. ``texts_per_answer``: more than 1 where
    answers were taken apart. ``rejected``: draws that the model itself turned down; ``kept``: texts that it turned down
    at the last attempt, too; None where it was not asked. ``edited``: texts that were changed after they were written.
    """

    sampling: list[dict[str, SafeInt | SafeFloat]] = []
    texts_per_answer: SafeInt = 1
    rejected: SafeInt | None = None
    kept: SafeInt | None = None
    edited: SafeInt = 0


class CellStatus(Versioned):
    """How a cell ended. ``reason`` is for people; ``seconds`` is generation alone, on ``device``.

    ``prompt_tokens``: tokens of the prompt, once per draw of a text; ``new_tokens``: tokens written without the
    end token; both include redraws. ``fit``: steps of the fit (see ``FitCost``), empty if nothing was fitted.
    ``generations_sha256``, ``steering_sha256``: of the files as they were written and applied. All of these are
    None if not recorded. ``prompts``: None, and left out of the file, where a method keeps to the suite's protocol.
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
    prompts: PromptRecord | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; of ``prompts`` without defaults."""
        body = super().to_json()
        del body["prompts"]
        own = self.prompts.model_dump(mode="json", exclude_defaults=True) if self.prompts else None
        return {**body, "prompts": own} if own else body


def fit_of(statuses: Iterable[CellStatus]) -> Usage | None:
    """Return the total cost of the fits of cells, shared steps counted once; None if one is not known."""
    return total_usage(status.fit for status in statuses)


def total_usage(fits: Iterable[UsageByStep | None]) -> Usage | None:
    """Return the total cost of fits, shared steps counted once; None if one is not known."""
    parts: UsageByStep = {}
    for fit in fits:
        parts |= {"not recorded": None} if fit is None else fit
    known = [part for part in parts.values() if part is not None]
    if len(known) < len(parts):
        return None
    seconds = round(sum(part.seconds for part in known), 3)
    return Usage(seconds=seconds, tokens=sum(part.tokens for part in known))


def sum_or_none(values: Iterable[Number | None]) -> Number | None:
    """Return the sum; None if one of the values is None."""
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
    """The metrics of a scorer and the signature of its recipe; after a change of recipe it is scored again."""

    signature: str
    metrics: list[str]


class CellScores(Versioned):
    """All scores of a cell by scorer, and the hashes of the texts and data that they are of.

    ``kept``: name of an artifact -> its size in bytes; empty if not recorded.
    """

    cell_id: str
    generations_sha256: str
    protocol: str
    parts: dict[str, PartRecord] = {}
    scores: list[Score]
    kept: dict[str, int] = {}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; of the many scores without defaults."""
        body = super().to_json()
        body = body if self.kept else {name: value for name, value in body.items() if name != "kept"}
        body["scores"] = [score.model_dump(mode="json", exclude_defaults=True) for score in self.scores]
        return body


class Selection(Record):
    """What a run covers of its suite. Empty ``narrowed`` means: all of it.

    ``absent``: TASK/LANGUAGE without data, which no entry is expected to cover. ``checked``: control languages
    such as English, which are measured and excluded from averages.
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
        """Return the JSON that two runs of one table have in common."""
        body = self.model_dump(mode="json")
        return {name: value for name, value in body.items() if value or name not in {"absent", "checked"}}

    def task_languages(
        self, tasks: Iterable[str] | None = None, languages: Iterable[str] | None = None
    ) -> list[tuple[str, str]]:
        """Return the pairs of task and language, all or some, with expected cells, task by task."""
        codes, absent = list(self.languages if languages is None else languages), set(self.absent)
        return [
            (task, code)
            for task in (self.tasks if tasks is None else tasks)
            for code in codes
            if f"{task}/{code}" not in absent
        ]


class DoseScores(Record):
    """Means over cells of validation text, of one configuration: all of its cells, or those of a language.

    ``gain``: macro-F1 minus the unsteered one of the same cells. ``valid``: share of texts that pass all checks,
    times the share of unique ones. ``distinct_2``: None also where a cell has fewer word pairs than the suite's
    budget. The last three are None in files of versions that did not record them.
    """

    macro_f1: SafeFloat | None
    gain: SafeFloat | None
    valid: SafeFloat | None
    eligible: bool
    chosen: bool = False
    language_fidelity: SafeFloat | None = None
    label_fidelity: SafeFloat | None = None
    distinct_2: SafeFloat | None = None


class GridPoint(DoseScores):
    """A configuration of the search grid and its scores.

    ``options``: the values of the searched fields. ``tokens`` (None if not recorded) and ``seconds`` are those of
    generation. ``languages``: the scores in every language, where each had its own choice.
    """

    method: str
    options: Options
    cells: SafeInt
    cells_expected: SafeInt
    texts: SafeInt
    tokens: SafeInt | None
    seconds: SafeFloat
    languages: dict[str, DoseScores] = {}


class TunedMethod(Record):
    """The chosen options of a method (None: no configuration was eligible), and the cost of the search.

    ``tokens`` and ``seconds`` are those of generation; ``fit`` that of all fits, shared steps counted once.
    """

    version: str
    options: Options | None
    configurations: SafeInt
    texts: SafeInt
    tokens: SafeInt | None
    seconds: SafeFloat
    fit: Usage | None = None


class Tuned(Versioned):
    """The outcome of ``steerboard tune``: the data, the rule, the choices and the whole grid."""

    suite: str
    suite_hash: str
    model: ModelIdentity
    data_hashes: dict[str, str]
    selection: Selection
    rule: str
    methods: dict[str, TunedMethod]
    surface: list[GridPoint]


class StageCost(Record):
    """What a stage of a run took. ``seconds``: of clock time in which at least one process worked on it.

    ``peak_memory`` and ``peak_gpu_memory``: the largest amount of memory of one process, in bytes; 0 for none known.
    """

    seconds: SafeFloat
    peak_memory: SafeInt = 0
    peak_gpu_memory: SafeInt = 0


class Manifest(Versioned):
    """What a run is: suite, model, data, versions; enough to render it without any other file."""

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
    engine: str = ""
    device: str = ""
    created: str = ""
    commands: list[list[str]] = []
    stages: dict[str, StageCost] = {}

    @model_serializer(mode="wrap")
    def _without_no_stages(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return body if self.stages else {name: value for name, value in body.items() if name != "stages"}

    def require_generation_track(self, where: object) -> Manifest:
        """Return itself; ``UserError`` for a run whose cells hold no texts to train on."""
        if self.track != "generation":
            raise UserError(
                f"{where} holds a run of the {self.track} track. Give one of 'steerboard run'; a board shows both."
            )
        return self
