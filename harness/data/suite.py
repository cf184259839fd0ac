"""Suites and their tasks: what is generated, and how it is prompted, sampled and scored."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from harness.core.errors import UserError, unknown
from harness.core.files import digest
from harness.core.languages import unknown_language
from harness.core.reading import read_yaml
from harness.core.schema import format_validation_error, refuse_flags

Split = Literal["train", "validation", "test"]
Prompting = Literal["zero-shot", "few-shot"]
PromptFormat = Literal["chat", "base", "instruction"]
"""How a prompt is put to a model.

``chat``: by the tokenizer's chat template. ``base``: as the beginning of a document that the model goes on with, for
models that were not taught to follow instructions. ``instruction``: plain text with headings for instruction and
response.
"""
FORMATS = ("auto", *get_args(PromptFormat))
"""What can be asked for; ``auto`` is ``chat`` where the tokenizer has a template, else ``base``."""
MethodSpec = str | dict[str, dict[str, Any]]
"""A method of a suite: its name, or its name with options; a list as an option is a grid."""

DATE = "2026-01-01"
"""The default date for chat templates that print today's: no text depends on a clock."""


def _iso_date(value: Any) -> str:
    return datetime.date.fromisoformat(str(value)).isoformat()


class SuiteModel(BaseModel):
    """A part of a suite file; unknown keys are errors, so that a typo is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _no_flags = field_validator("*", mode="before")(refuse_flags)


class TaskSize(SuiteModel):
    """Number of texts per label in a cell of the task."""

    texts_per_label: int = Field(gt=0)


class SamplingParams(SuiteModel):
    """How texts are drawn. ``max_attempts`` bounds the draws of one text, including the first.

    ``template``: how a prompt is put to the model, see ``PromptFormat``. ``keep``: the whole answer, or its first line
    that is not blank. ``strip_quotes``: whether all ``"`` and ``'`` are deleted from
    the answer. ``date``: today's date for chat templates, as YEAR-MONTH-DAY; the default is left out of hashes.
    """

    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(gt=0)
    max_attempts: int = Field(gt=0)
    template: PromptFormat = "chat"
    keep: Literal["all", "first-line"] = "all"
    strip_quotes: bool = False
    date: Annotated[str, BeforeValidator(_iso_date)] = DATE

    @model_serializer(mode="wrap")
    def _without_default_date(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return body if self.date != DATE else {name: value for name, value in body.items() if name != "date"}


class FewShotParams(SuiteModel):
    """Demonstrations: ``shots`` train texts of a label, drawn with ``seed`` from the ``pool`` shortest or from all."""

    shots: int = Field(gt=0)
    pool: int = Field(gt=0)
    seed: int
    selection: Literal["shortest", "random"] = "shortest"


class Vectors(SuiteModel):
    """Text for vectors. Contrast text: translation ``systems`` in order of preference, else word noise.

    ``sentences``: at most so many parallel sentences per language and contrast pairs; None, left out of
    hashes, for all.
    """

    systems: list[str]
    word_noise: float = Field(gt=0, lt=1)
    sentences: int | None = Field(default=None, gt=0)

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return {name: value for name, value in body.items() if name != "sentences" or value is not None}


class ClassifierProtocol(SuiteModel):
    """Fine-tuning of the downstream encoder (arXiv 2606.18389, ``finetune.py``)."""

    seeds: list[int] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    max_epochs: int = Field(gt=0)
    patience: int = Field(gt=0)
    max_tokens: int = Field(gt=0)


class Budgets(SuiteModel):
    """Fixed budgets of the diversity metrics, so that neither the number nor the length of texts decides.

    ``texts``: texts of a subsample; ``subsamples``: number of subsamples to average; ``window``: characters of a text
    (shorter texts do not count at all); ``ngrams``: n-grams of distinct-n; ``references``: other texts that a text is
    compared with; ``panel``: maximal number of compared texts; ``characters``: length of compressed text.
    """

    texts: int = Field(gt=1)
    subsamples: int = Field(gt=1)
    window: int = Field(gt=0)
    ngrams: int = Field(gt=0)
    references: int = Field(gt=0)
    panel: int = Field(gt=1)
    characters: int = Field(gt=0)


class FidelitySettings(SuiteModel):
    """Maximal number of parallel sentences per language to train the language identifier."""

    texts_per_language: int = Field(gt=0)


class CurveSettings(SuiteModel):
    """The data-size curve: training on the first ``sizes`` texts of every label.

    ``human``: human texts per label that the mixed curve adds the same texts to; 0 for no mixed curve.
    ``classifiers``: which of the suite's, by name.
    """

    sizes: list[Annotated[int, Field(gt=0)]] = Field(min_length=1)
    human: int = Field(default=10, ge=0)
    classifiers: list[str] = Field(default=["tfidf"], min_length=1)

    @field_validator("sizes")
    @classmethod
    def _increasing(cls, sizes: list[int]) -> list[int]:
        if sizes != sorted(set(sizes)):
            raise ValueError(f"sizes have to increase: {sizes}")
        return sizes


class Metrics(SuiteModel):
    """Settings of the metrics. ``embeddings``: encoders for Vendi score and pairwise distance.

    ``curve``: None, left out of hashes, for none.
    """

    budgets: Budgets
    language_fidelity: FidelitySettings
    embeddings: list[str] = ["tfidf"]
    curve: CurveSettings | None = None

    @model_serializer(mode="wrap")
    def _without_no_curve(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return {name: value for name, value in body.items() if name != "curve" or value is not None}


class Task(SuiteModel):
    """One task in one language, read from a YAML that lm-eval loads too.

    ``prompts`` maps a setting to a template with the fields ``{label}``, ``{language}`` and, for few-shot,
    ``{examples}``. ``base_prompt`` is for models without a chat template, in all settings, with ``{label}``,
    ``{language}`` and ``{items}``: the examples as a list, and the opening of its next item; only ``Suite.for_format``
    brings it into hashes. ``fields`` and ``label_map`` map the columns and labels of the hub's rows.
    """

    name: str
    language: str
    labels: list[str]
    prompts: dict[str, str]
    base_prompt: str = Field(default="", exclude=True)
    dataset_path: str
    dataset_name: str | None = None
    revision: str | None = None
    splits: dict[Split, str | None]
    fields: dict[str, str]
    label_map: dict[str, str] = {}
    parallel: bool = False


class ModelFamily(SuiteModel):
    """The deviations of a model family from the suite, applied by ``Suite.for_model``.

    ``model_types``: values of ``model_type`` in the config.json of its models. ``prompts`` (task -> setting ->
    template) and ``sampling`` replace single values of the suite; ``methods`` are appended.
    """

    model_types: list[str] = Field(min_length=1)
    methods: list[MethodSpec] = []
    prompts: dict[str, dict[Prompting, str]] = {}
    sampling: dict[str, Any] = {}


class Suite(SuiteModel):
    """A versioned definition of what is measured. ``root`` is the directory of the suite file.

    ``data_note``: what readers of results must know about the shipped data, such as that it is synthetic. It decides no
    number, hence it is neither in the dump nor in the hash. A suite with ``families`` is complete only after
    ``for_model`` has chosen one of them.
    """

    schema_: Literal[1] = Field(alias="schema")
    name: str
    version: int
    description: str
    languages: list[str] = Field(min_length=1)
    reference_language: str
    tasks: dict[str, TaskSize] = Field(min_length=1)
    settings: list[Prompting] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    methods: list[MethodSpec] = Field(min_length=1)
    sampling: SamplingParams
    few_shot: FewShotParams
    vectors: Vectors
    classifiers: list[str] = Field(min_length=1)
    scored_split: Literal["test", "validation"] = "test"
    classifier_protocol: ClassifierProtocol
    metrics: Metrics
    families: dict[str, ModelFamily] = {}
    data: str | None = None
    model: str | None = None
    data_note: str = Field(default="", exclude=True)

    root: Path = Field(default=Path(), exclude=True)
    definitions: dict[str, dict[str, Task]] = Field(default={}, exclude=True)

    @model_validator(mode="after")
    def _fits(self) -> Suite:
        for field in ("languages", "seeds", "settings"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"{field} holds a value twice: {values}")
        seen: dict[str, str] = {}
        for name, family in self.families.items():
            for task in family.prompts:
                if task not in self.tasks:
                    raise ValueError(f"families.{name}.prompts: {unknown('task', task, self.tasks)}")
            try:
                self._sampling_of(family)
            except ValidationError as error:
                raise ValueError(f"families.{name}.sampling.{format_validation_error(error)}") from None
            for model_type in family.model_types:
                if seen.setdefault(model_type, name) != name:
                    raise ValueError(f"model type {model_type!r} is in two families")
        return self

    @model_validator(mode="after")
    def _curve_fits(self) -> Suite:
        for spec in self.metrics.curve.classifiers if self.metrics.curve else ():
            if spec not in self.classifiers:
                raise ValueError(f"metrics.curve.classifiers: {unknown('classifier', spec, self.classifiers)}")
        return self

    def _sampling_of(self, family: ModelFamily) -> SamplingParams:
        return SamplingParams.model_validate({**self.sampling.model_dump(), **family.sampling})

    def for_model(self, model_type: str) -> Suite:
        """Return the suite with prompts, sampling and methods of the model's family; itself if it has no families.

        Of ``families`` only the chosen one's name and model types are left, so that the hash differs between families:
        two of them never share a table. Raises ``UserError`` for a model of no family.
        """
        if not self.families:
            return self
        name = next((name for name, family in self.families.items() if model_type in family.model_types), None)
        if name is None:
            known = "; ".join(f"{name} ({', '.join(f.model_types)})" for name, f in self.families.items())
            raise UserError(
                f"the suite {self.name!r} has no prompts for models of type {model_type!r}; its families: "
                f"{known}. Use --suite steer11, which serves every model."
            )
        family = self.families[name]
        changes = {
            "definitions": {
                task: {
                    code: item.model_copy(update={"prompts": {**item.prompts, **family.prompts.get(task, {})}})
                    for code, item in by_language.items()
                }
                for task, by_language in self.definitions.items()
            },
            "sampling": self._sampling_of(family),
            "methods": [*self.methods, *family.methods],
            "families": {name: ModelFamily(model_types=family.model_types)},
        }
        return self.model_copy(update=changes)

    def default_format(self, has_chat_template: bool) -> PromptFormat:
        """Return how prompts are put to a model with or without a chat template, unless it is said."""
        chosen = self.sampling.template
        if chosen != "chat" or has_chat_template:
            return chosen
        every = [item for by_language in self.definitions.values() for item in by_language.values()]
        return "base" if all(item.base_prompt for item in every) else "instruction"

    def for_format(self, chosen: PromptFormat) -> Suite:
        """Return the suite with the prompts of a format; ``UserError`` where it has none for it."""
        if chosen == self.sampling.template:
            return self
        sampling = {"template": chosen, **({"keep": "first-line"} if chosen == "base" else {})}
        changes: dict[str, Any] = {"sampling": self.sampling.model_copy(update=sampling)}
        if chosen == "base":
            if missing := [
                name for name, found in self.definitions.items() for t in found.values() if not t.base_prompt
            ]:
                raise UserError(f"task {missing[0]!r} has no base_prompt, which the prompt format base needs.")
            changes["definitions"] = {
                task: {
                    code: item.model_copy(update={"prompts": dict.fromkeys(item.prompts, item.base_prompt)})
                    for code, item in by_language.items()
                }
                for task, by_language in self.definitions.items()
            }
        return self.model_copy(update=changes)

    def with_vector_sentences(self, count: int | None) -> Suite:
        """Return the suite with at most ``count`` sentences per language for vectors; itself for None."""
        if count is None:
            return self
        return self.model_copy(update={"vectors": self.vectors.model_copy(update={"sentences": count})})

    @property
    def vector_languages(self) -> list[str]:
        """The suite's languages and its reference language: those with parallel text."""
        return list(dict.fromkeys([*self.languages, self.reference_language]))

    def task(self, task: str, language: str) -> Task:
        """Return one task of the suite; ``UserError`` names the valid ones."""
        if task not in self.definitions:
            raise unknown("task", task, self.definitions)
        if language not in self.definitions[task]:
            raise unknown_language(language, self.definitions[task])
        return self.definitions[task][language]

    def folder(self, field: Literal["data", "model"]) -> Path | None:
        """Return the directory that the suite ships for ``field``, None if it ships none."""
        relative = getattr(self, field)
        return self.root / relative if relative else None

    def dump(self) -> dict[str, Any]:
        """Return the suite with its tasks as plain JSON, for the manifest."""
        body = self.model_dump(mode="json", by_alias=True)
        body["definitions"] = {
            task: {code: item.model_dump(mode="json") for code, item in by_language.items()}
            for task, by_language in self.definitions.items()
        }
        return body

    @property
    def hash(self) -> str:
        """Hash of the whole definition: entries of different hashes never share a table."""
        return digest(self.dump(), 16)

    def text_protocol(self, task: str, language: str) -> str:
        """Return the hash of everything in the suite that decides the texts of a cell: prompts, sampling, shots."""
        definition = self.task(task, language)
        parts = {name: getattr(self, name).model_dump() for name in ("sampling", "few_shot", "vectors")}
        languages = [*self.languages, self.reference_language]
        return digest({"prompts": definition.prompts, "labels": definition.labels, "languages": languages, **parts}, 16)


def tasks_root() -> Path:
    """Return the directory of the shipped suites: inside the wheel, else next to the package."""
    package = Path(__file__).parents[1]
    installed = package / "_tasks"
    return installed if installed.is_dir() else package.parent / "tasks"


def suite_files() -> dict[str, Path]:
    """Return the shipped suites, by name."""
    return {path.stem: path for path in sorted(tasks_root().glob("*.yaml"), key=lambda path: path.stem)}


def data_note(suite: Mapping[str, Any], suite_hash: str, data_source: str) -> str:
    """Return the ``data_note`` of the shipped suite that a dump is of; empty for other suites and other data.

    ``suite_hash``: the dump's; ``data_source``: the directory that was read.
    """
    name, vectors = suite.get("name"), suite.get("vectors")
    if not isinstance(name, str) or name not in suite_files():
        return ""
    count = vectors.get("sentences") if isinstance(vectors, dict) else None
    shipped = load_suite(name).with_vector_sentences(count if isinstance(count, int) else None)
    shipped = shipped.for_format(prompt_format_of(suite))
    own = PurePath(shipped.data).parts if shipped.data else ()
    same = bool(own) and PurePath(data_source).parts[-len(own) :] == own
    return shipped.data_note if same and shipped.hash == suite_hash else ""


def prompt_format_of(suite: Mapping[str, Any]) -> PromptFormat:
    """Return how prompts were put to the model, from the dump of a suite."""
    sampling = suite.get("sampling")
    found = sampling.get("template") if isinstance(sampling, dict) else None
    return cast(PromptFormat, found) if found in get_args(PromptFormat) else "chat"


def load_suite(name_or_path: str) -> Suite:
    """Load a shipped suite by name, or a suite file by path.

    Raises ``UserError`` for an unknown name, broken YAML and invalid fields.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        shipped = suite_files()
        if name_or_path not in shipped:
            raise unknown("suite", name_or_path, shipped, "Or give the path of a suite's .yaml.")
        path = shipped[name_or_path]
    body = read_yaml(path)
    try:
        suite = Suite.model_validate(body)
    except ValidationError as error:
        raise UserError(f"{path}: {format_validation_error(error)}") from None
    root = path.parent
    folders = root if (root / next(iter(suite.tasks))).is_dir() else tasks_root()
    definitions: dict[str, dict[str, Task]] = {}
    for task in suite.tasks:
        files = {code: folders / task / f"{code}.yaml" for code in [*suite.languages, suite.reference_language]}
        definitions[task] = {
            code: _load_task(file, task)
            for code, file in files.items()
            if code in suite.languages or file.is_file()  # the reference language may have no data
        }
    return suite.model_copy(update={"root": root, "definitions": definitions})


def restore_suite(body: dict[str, Any]) -> Suite:
    """Rebuild a suite from a manifest's dump; ``UserError`` if it is not one."""
    fields = {key: value for key, value in body.items() if key != "definitions"}
    try:
        suite = Suite.model_validate(fields)
        definitions = {
            task: {code: Task.model_validate(item) for code, item in by_language.items()}
            for task, by_language in body["definitions"].items()
        }
    except (ValidationError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"the manifest's suite is not readable: {format_validation_error(error)}") from None
    return suite.model_copy(update={"definitions": definitions})


def _load_task(path: Path, task: str) -> Task:
    body = read_yaml(path)
    if "include" in body:
        base = read_yaml(path.parent / str(body.pop("include")))
        body = {**base, **body, "metadata": {**_metadata(base), **_metadata(body)}}
    metadata = _metadata(body)
    if metadata.get("language", path.stem) != path.stem:
        raise UserError(f"{path}: the metadata name the language {metadata['language']!r}.")
    try:
        return Task(
            name=task,
            **{name: metadata[name] for name in ("language", "labels", "prompts", "fields")},
            **{name: metadata[name] for name in ("base_prompt", "label_map", "parallel") if name in metadata},
            dataset_path=body["dataset_path"],
            dataset_name=body.get("dataset_name"),
            revision=(body.get("dataset_kwargs") or {}).get("revision"),
            splits={
                "train": body["training_split"],
                "validation": body.get("validation_split"),
                "test": body["test_split"],
            },
        )
    except KeyError as error:
        raise UserError(f"{path}: the key {error} is missing. Compare tasks/topic/am.yaml.") from None
    except ValidationError as error:
        raise UserError(f"{path}: {format_validation_error(error)}") from None


def _metadata(body: dict[str, Any]) -> dict[str, Any]:
    found = body.get("metadata")
    return found if isinstance(found, dict) else {}
