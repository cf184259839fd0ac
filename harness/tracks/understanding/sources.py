"""The arguments of the model type, and the method's options among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import UserError
from harness.data.suite import Suite
from harness.methods.contract import SteeringMethod
from harness.methods.registry import Registry, pick_methods


@dataclass(frozen=True)
class Arguments:
    """What the model type takes beside lm-eval's own arguments, as it was written.

    ``more``: all others, options of the method's Config among them. ``layer`` and ``strength``: None where
    not given.
    """

    steering: str
    language: str | None = None
    layer: Any = None
    strength: Any = None
    suite: str = "steer11"
    data: str | None = None
    contrast: str | None = None
    task: str | None = None
    run: str | None = None
    plugin: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def classes_of(registry: Registry, given: Arguments) -> list[type[SteeringMethod]]:
    """Return the class of the method, and that of the method that it controls where it is a control."""
    own = registry.get(given.steering)
    fields = own.Config.model_fields
    if not {"of", "options"} <= fields.keys():
        return [own]
    return [own, registry.get(str(given.more.get("of", fields["of"].default)))]


def named(classes: list[type[SteeringMethod]], given: Arguments) -> dict[str, Any]:
    """Return the options of the method as its Config has them.

    ``strength`` is what the method calls its strength. What a control does not have itself belongs to the
    method that it controls.
    """
    own = classes[0].Config.model_fields
    known = {name for cls in classes for name in cls.Config.model_fields}
    options = {name: value for name, value in given.more.items() if name in known}
    if given.layer is not None:
        options["layer"] = given.layer
    if given.strength is not None:
        called = classes[-1].strength_field or ""
        options[called if called in classes[-1].Config.model_fields else "strength"] = finite(given.strength)
    if len(classes) == 1:
        return options
    inner = {name: value for name, value in options.items() if name not in own}
    outer = {name: value for name, value in options.items() if name in own}
    return {**outer, "options": {**outer.get("options", {}), **inner}} if inner else outer


def single(registry: Registry, suite: Suite, name: str, options: dict[str, Any]) -> SteeringMethod:
    """Return the one configured method that is meant: with the suite's options where none are given."""
    found: dict[str, SteeringMethod] = {}
    for spec in pick_methods(suite.methods, [name]):
        own = spec[name] if isinstance(spec, dict) else {}
        for method in registry.configure(name, {**(own or {}), **options}):
            found.setdefault(method.identity.model_dump_json(), method)
    method, *more = found.values()
    if more:
        raise UserError(
            f"method {name!r} has lists of options in suite {suite.name!r}, {1 + len(more)} points in all. "
            "Give one value of each."
        )
    if not method.has_fit:
        raise UserError(
            f"method {name!r} steers nothing: lm-eval writes the prompts. Leave steering= out, or name one "
            "that steers, such as language."
        )
    return method


def finite(strength: Any) -> float:
    """Return a strength as a number; ``UserError`` for anything else, infinity and NaN among them."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
        raise UserError(f"strength={strength} is no finite number. Give one such as 0.2.")
    return float(strength)
