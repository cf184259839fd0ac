"""``submission.yaml``: who submits what, how it was made, and the hashes that everything else depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from harness.core.files import canonical_json, digest, write_text
from harness.core.lookalikes import check_lookalikes, unseen
from harness.core.records import MethodIdentity, ModelIdentity
from harness.core.schema import Record, Versioned, format_validation_error
from harness.data.suite import PromptFormat
from harness.submissions.files import CARD, CODE, MAX_CELLS, MAX_MODELS, SLUG, InvalidSubmissionError, StrictReader

SCHEMA = 2
_MAX_CONFIG_LENGTH = 2**18
_TODO = re.compile(r"\bTODO\b|FILL[ -]IN")  # the second until schema 1


def has_todo(text: str) -> bool:
    """Say whether a value is still the template's, which its author has to replace."""
    return _TODO.search(text) is not None


def _visible(text: str) -> str:
    if unseen(text):
        raise ValueError("holds an invisible character, such as a line break")
    if text != text.strip() or not text:
        raise ValueError("is empty, or begins or ends with a space")
    return text


def _named(text: str) -> str:
    check_lookalikes(text)
    return _visible(text)


def _keys(value: Any) -> Iterator[str]:
    """Yield the keys of a JSON value, at all depths."""
    if isinstance(value, dict):
        yield from value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(part)


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    for key in _keys(value):
        try:
            check_lookalikes(key)
        except ValueError as error:
            raise ValueError(f"the key {key!a} {error}") from None
    if len(canonical_json(value)) > _MAX_CONFIG_LENGTH:
        raise ValueError("is too large")
    return value


def _like(pattern: str, longest: int = 200) -> StringConstraints:
    return StringConstraints(pattern=f"^(?:{pattern})$", max_length=longest)


Name = Annotated[str, _like(SLUG, 80)]
SingleLine = Annotated[str, StringConstraints(max_length=300), AfterValidator(_visible)]
WhoseName = Annotated[str, StringConstraints(max_length=100), AfterValidator(_named)]
Short = Annotated[str, StringConstraints(max_length=100), AfterValidator(_visible)]
Sha256 = Annotated[str, _like("[0-9a-f]{64}")]
Hash16 = Annotated[str, _like("[0-9a-f]{16}")]
Orcid = Annotated[str, _like(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")]
Version = Annotated[str, _like(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", 40)]
Contact = Annotated[str, _like(r"https://[!-~]+|[!-?A-~]+@[!-?A-~]+\.[!-?A-~]+")]
Licence = Annotated[str, _like(r"[A-Za-z0-9][A-Za-z0-9.+-]*", 64)]
Paper = Annotated[str, _like(r"\d{4}\.\d{4,5}(v\d+)?|10\.\d{4,9}/[!-~]+|https://[!-~]+")]
EntryPoint = Annotated[str, _like(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")]
Count = Annotated[int, Field(ge=0, le=MAX_CELLS, strict=True)]
ModelName = Annotated[str, _like(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?", 120)]
SubmissionType = Literal["code", "vectors", "outputs"]
OLD_TYPES = {"steering": "vectors"}
"""Word of schema 1 -> that of today."""
_OLD_RESULT_FIELDS = {"cells": "n_cells", "of": "n_expected"}


def rename_keys(body: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with some keys renamed, as from one schema to the next."""
    return {names.get(name, name): value for name, value in body.items()}


class CardItem(Record):
    """A part of ``submission.yaml``; unknown fields are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class Author(CardItem):
    """Somebody who made the method or the submission."""

    name: WhoseName
    affiliation: SingleLine | None = None
    orcid: Orcid | None = None


class Method(CardItem):
    """Which method, and in one line what it does."""

    name: Name
    version: Version
    does: SingleLine


class SuiteRef(CardItem):
    """The suite by name, and the hash of its whole definition; how its prompts were put to the model."""

    name: Name
    hash: Hash16
    prompt_format: Annotated[
        PromptFormat, Field(description="chat (left out), base or instruction; see --prompt-format.")
    ] = "chat"

    @model_serializer(mode="wrap")
    def _without_chat(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return {name: value for name, value in body.items() if (name, value) != ("prompt_format", "chat")}


class Compute(CardItem):
    """What the run took: the devices, and the hours of fitting and generating on them."""

    device: Short
    hours: Annotated[float, Field(ge=0, le=1e6)]


class TunedOn(CardItem):
    """On which split options were chosen, and how, in words."""

    split: Literal["none", "train", "validation"]
    words: SingleLine


class CardResult(CardItem):
    """The results of one model: ``n_cells`` of the ``n_expected`` cells of the suite have texts.

    ``model`` is null for a reference, which no model writes. ``hashes``: SHA-256 of
    ``results/FOLDER/hashes.json``, which has those of all other files there.
    """

    model: ModelName | None
    folder: Name
    n_cells: Count
    n_expected: Count
    hashes: Sha256


class Card(CardItem):
    """The file ``submission.yaml`` of a submission of steerboard."""

    schema_version: Annotated[
        Literal[2],
        Field(
            alias="schema",
            description="Format: 'steerboard docs submission-schema'; 'submission check DIR' says what is missing.",
        ),
    ]
    name: Annotated[Name, Field(description="The submission's name: that of its folder.")]
    version: Annotated[
        int, Field(ge=1, le=10_000, strict=True, description="Raise it whenever published results change.")
    ]
    authors: Annotated[
        list[Author], Field(min_length=1, max_length=100, description="affiliation and orcid are optional.")
    ]
    contact: Annotated[Contact, Field(description="An e-mail or https address.")]
    licence: Annotated[
        Licence,
        Field(description="SPDX id of the licence of the texts, https://spdx.org/licenses, or LicenseRef-NAME."),
    ]
    paper: Annotated[Paper | None, Field(description="arXiv id, DOI or https address; null for none.")] = None
    method: Method
    type: Annotated[
        SubmissionType,
        Field(description="code: method.py or entry_point; vectors: steering/*.safetensors; outputs: texts alone."),
    ]
    entry_point: Annotated[
        EntryPoint | None,
        Field(description="Type code: module or module:Class of an installed package, instead of method.py."),
    ] = None
    config: Annotated[
        dict[str, Any],
        AfterValidator(_shallow),
        Field(description="All options, defaults included, as in the keys of the cells."),
    ] = Field(default_factory=dict)
    models: Annotated[list[ModelIdentity], Field(max_length=MAX_MODELS)] = Field(default_factory=list)
    suite: SuiteRef
    compute: Annotated[Compute, Field(description="Hours of fitting and generating, on which device.")]
    tuned_on: Annotated[
        TunedOn,
        Field(description="Which split layer and strength were chosen on: none, train or validation; never test."),
    ]
    files: Annotated[
        dict[str, Sha256], Field(description="SHA-256 of method.py or of every steering file, by path.")
    ] = Field(default_factory=dict)
    results: Annotated[
        list[CardResult],
        Field(max_length=MAX_MODELS, description="Written by 'steerboard submission pack RUN --out DIR'."),
    ] = Field(default_factory=list)

    @property
    def identity(self) -> MethodIdentity:
        """The method as it stands in the keys of the cells."""
        return MethodIdentity(name=self.method.name, version=self.method.version, config=self.config)

    @property
    def method_title(self) -> str:
        """Name and version of the method."""
        return f"{self.method.name} {self.method.version}"

    @property
    def suite_title(self) -> str:
        """Name and hash of the suite."""
        return f"{self.suite.name} {self.suite.hash}"

    @property
    def subject(self) -> str:
        """Hash of all that decides what the results are and say: what a check is of."""
        fields = {"name", "version", "method", "entry_point", "config", "models", "suite", "files"}
        body = self.model_dump(mode="json", include=fields)  # in the words of schema 1: hashes outlive words
        body["road"] = next((old for old, new in OLD_TYPES.items() if new == self.type), self.type)
        names = {new: old for old, new in _OLD_RESULT_FIELDS.items()}
        body["results"] = [rename_keys(result.model_dump(mode="json"), names) for result in self.results]
        return digest(body)

    def model(self, result: CardResult) -> ModelIdentity | None:
        """Return the model of a result; None for a reference."""
        return next((model for model in self.models if model.name == result.model), None)

    @model_validator(mode="before")
    @classmethod
    def _from_schema_1(cls, body: Any) -> Any:
        """Read what was written before schema 2, which only renamed fields."""
        if not isinstance(body, dict) or body.get("schema") != 1 or isinstance(body["schema"], bool) or "type" in body:
            return body
        new = rename_keys(body, {"road": "type"}) | {"schema": SCHEMA}
        if "type" in new:
            new["type"] = OLD_TYPES.get(str(new["type"]), new["type"])
        if isinstance(results := body.get("results"), list):
            new["results"] = [rename_keys(r, _OLD_RESULT_FIELDS) if isinstance(r, dict) else r for r in results]
        return new

    @model_validator(mode="after")
    def _type_fits(self) -> Card:
        code = CODE in self.files
        if self.type == "code" and code == (self.entry_point is not None):
            raise ValueError("type code needs either method.py under files or an entry_point")
        if self.type != "code" and (code or self.entry_point is not None):
            raise ValueError(f"type {self.type} has neither method.py nor an entry_point")
        steering = [file for file in self.files if file != CODE]
        if any(not re.fullmatch(r"steering/[0-9a-f]{16}\.safetensors", file) for file in steering):
            raise ValueError("files holds paths other than method.py and steering/ID.safetensors")
        if (self.type == "vectors") != bool(steering) and (self.results or steering):
            raise ValueError("steering files belong to type vectors, which needs them")
        return self

    @model_validator(mode="after")
    def _models_fit(self) -> Card:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("models holds a name twice")
        if self.results and {r.model for r in self.results} - {None} != set(names):
            raise ValueError("results and models do not name the same models")
        folders = [result.folder.lower() for result in self.results]
        if len(set(folders)) < len(folders):
            raise ValueError("results holds a folder twice")
        for result in self.results:
            if result.folder != folder_of(result.model):
                raise ValueError(f"the folder of {result.model} is not {result.folder!r}")
            if result.n_cells > result.n_expected:
                raise ValueError(f"{result.n_cells} cells of {result.n_expected}")
        return self


class Hashes(Versioned):
    """``results/MODEL/hashes.json``: SHA-256 of all other files there, and of every cell's texts unpacked."""

    files: dict[str, Sha256]
    texts: dict[Hash16, Sha256]


def folder_of(model: str | None) -> str:
    """Return the folder of a model's results; ``no-model`` for a reference."""
    return "no-model" if model is None else model.replace("/", "--")


def read_card(files: StrictReader) -> Card:
    """Return a submission's ``submission.yaml``; ``InvalidSubmissionError`` where it is not one."""
    body = files.yaml(CARD)
    schema = body.get("schema")
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        problem = f"has schema {schema}, this steerboard reads up to {SCHEMA}"
        raise InvalidSubmissionError(CARD, problem, "Upgrade steerboard.")
    try:
        return Card.model_validate(body)
    except ValidationError as error:
        hint = "See 'steerboard docs submission-schema'."
        raise InvalidSubmissionError(CARD, format_validation_error(error), hint) from None


def read_hashes(files: StrictReader, result: CardResult) -> Hashes:
    """Return the ``hashes.json`` of a result."""
    path = f"results/{result.folder}/hashes.json"
    try:
        return Hashes.model_validate(files.json(path))
    except ValidationError as error:
        raise InvalidSubmissionError(path, format_validation_error(error)) from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``submission.yaml``, as it is published in docs/submission-schema.json."""
    body = Card.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def card_text(card: Card) -> str:
    """Return ``submission.yaml``, with the description of a field above it."""
    body = card.model_dump(mode="json", by_alias=True)
    body["authors"] = [author.model_dump(exclude_none=True) for author in card.authors]
    lines = []
    for name, field in Card.model_fields.items():
        key = field.alias or name
        lines += [f"# {field.description}\n"] if field.description else []
        lines.append(yaml.dump({key: body[key]}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))
    return "".join(lines)


def write_card(folder: Path, card: Card) -> None:
    """Write ``submission.yaml`` atomically."""
    write_text(folder / CARD, card_text(card))
