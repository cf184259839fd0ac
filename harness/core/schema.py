"""What all records have in common: strict numbers, the version of their files, and how they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema

from harness.core.errors import InvalidFileError
from harness.core.reading import MAX_BYTES, MAX_DEPTH, check_depth, parse_json, read_bytes

SCHEMA = 1
"""Version of every JSON file written by this program."""

Kind = TypeVar("Kind")

_CURRENT = re.compile(rb'\s*\{\s*"schema": ?(\d{1,9})\s*,')

# Sums of such numbers fit 64 bits; NaN and infinities are outside, too.
SafeInt = Annotated[int, Field(gt=-(2**62), lt=2**62, strict=True)]
SafeFloat = Annotated[float, Field(gt=-(2.0**62), lt=2.0**62, strict=True)]


def _without_nan(value: Any) -> Any:
    """Return a JSON value with null for NaN and infinities, which have no JSON form, as in its hash."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value


Options = Annotated[dict[str, Any], AfterValidator(_without_nan)]
"""The fields of a method's config by name."""


def strict_numbers(schema: Any) -> Any:
    """Make all numbers of a pydantic core schema strict, in place: no true, no text; an int may be a float's value."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float"):  # a field of this name has a dict here
            schema["strict"] = True
        for name, part in schema.items():
            if name not in {"metadata", "serialization"}:
                strict_numbers(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            strict_numbers(part)
    return schema


def refuse_flags(cls: Any, value: Any, info: ValidationInfo) -> Any:
    """Refuse true and false, in lists and mappings, too, for a field of numbers; a number as YAML text may stay."""
    words = str(cls.model_fields[info.field_name or ""].annotation)
    inner = list(value.values()) if isinstance(value, dict) and "dict[" in words else value
    items = inner if isinstance(inner, list) else [inner]
    if any(isinstance(item, bool) for item in items) and "bool" not in words and "Any" not in words:
        raise ValueError("true and false are not numbers")
    return value


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


REMOVE = "Remove it and run the same command again."

adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""The pydantic reader of a record or row class; making one takes milliseconds."""


def parse_record(data: bytes, path: object, kind: type[Kind], depth: int | None = MAX_DEPTH) -> Kind:
    """Return a record of a JSON file; ``UserError`` says what is wrong with it.

    ``depth``: how deep it may be nested; None for a kind without free JSON, which pydantic bounds by itself.
    """
    if depth is not None:
        check_depth(data, path, depth)
    current = _CURRENT.match(data)
    if current and 1 <= int(current[1]) <= SCHEMA:
        with suppress(ValidationError):  # from the bytes: half the time of json.loads and a check of its objects
            record: Kind = adapter(kind).validate_json(data)
            return record
    try:
        record = adapter(kind).validate_python(parse_json(data, path, schema=SCHEMA))
    except ValidationError as error:
        problem = f"is not a valid {Path(str(path)).stem} file of steerboard: {format_validation_error(error)}"
        raise InvalidFileError(path, problem, REMOVE) from None
    return record


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """Return the record of a JSON file, see ``parse_record``."""
    return parse_record(read_bytes(path, MAX_BYTES), path, kind)


def format_validation_error(error: Exception) -> str:
    """Return a validation error as one line: the first problem and how many more there are."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    problems = error.errors()
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"]) or "(top)"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {first['msg']}, got {first['input']!r:.80}{more}"
