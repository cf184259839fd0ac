"""Numbers of files from outside: true and false are not among them, though Python counts with them."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo


def strict_numbers(schema: Any) -> Any:
    """Make all numbers of a pydantic core schema strict: no true, no text; a whole number may be a float's.

    The schema is changed in place and returned.
    """
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float"):  # a field that is called so has a schema there
            schema["strict"] = True
        for name, part in schema.items():
            if name not in {"metadata", "serialization"}:
                strict_numbers(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            strict_numbers(part)
    return schema


def refuse_flags(cls: Any, value: Any, info: ValidationInfo) -> Any:
    """Refuse true and false, also in a list, for a field of numbers: what YAML has as text may stay text."""
    items = value if isinstance(value, list) else [value]
    name = info.field_name or ""
    if any(isinstance(item, bool) for item in items):
        words = str(cls.model_fields[name].annotation)
        if "bool" not in words and "Any" not in words:
            raise ValueError("true and false are not numbers")
    return value
