"""The sweep that options with lists of values span."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, get_args, get_origin

from harness.core.errors import UserError, unknown
from harness.methods.contract import MethodConfig, SteeringMethod

_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable, Set)


def grid_of(method: type[SteeringMethod]) -> dict[str, list[Any]]:
    """Return the values that a method's class names for ``steerboard tune``, by option; empty for none.

    Raises ``UserError`` for a grid that is not one, or in a wrong spot: it may be an author's.
    """
    grid: Any = method.grid
    start, example = f"method {method.name!r}:", 'Write it as grid = {"strength": [0.1, 0.2]}, beside Config'
    if "grid" in method.Config.model_fields or hasattr(method.Config, "grid"):
        raise UserError(f"{start} grid lies in Config, and belongs into the class of the method. {example}.")
    if not isinstance(grid, Mapping) or not all(isinstance(v, list | tuple) and v for v in grid.values()):
        raise UserError(f"{start} grid = {grid!r:.80} gives no list of values for each field. {example}.")
    for field in grid:
        if field not in method.Config.model_fields:
            raise unknown(f"field in the grid of {start}", str(field), method.Config.model_fields)
    return {field: list(values) for field, values in grid.items()}


def expand_grid(config: type[MethodConfig], options: Mapping[str, Any], method: str) -> list[dict[str, Any]]:
    """Return the options of every point of the sweep, the last option running fastest.

    A list is a sweep where it is nested more deeply than the field's own type: for ``list[int]``,
    ``[1, 2]`` is one value and ``[[1, 2], [3]]`` are two. Raises ``UserError`` for an option that
    the config does not have and for a list without a value.
    """
    axes = []
    for key, value in options.items():
        _check_option(config, key, method)
        field = config.model_fields.get(key)
        sweep = _nested(value, _depth(field.annotation) if field else 0)
        if sweep and not value:
            raise UserError(f"option {key!r} of method {method!r} is an empty list. Give it a value.")
        axes.append([(key, item) for item in (value if sweep else [value])])
    return [dict(point) for point in itertools.product(*axes)]


def _check_option(config: type[MethodConfig], key: object, method: str) -> None:
    aliases = {field.alias for field in config.model_fields.values()} - {None}
    if config.model_config.get("extra") == "forbid" and key not in {*config.model_fields, *aliases}:
        raise unknown(f"option of method {method!r}:", str(key), config.model_fields)


def _depth(annotation: Any) -> int:
    """Return how many lists a type nests at most: 0 for a number, 1 for ``int | list[int]``."""
    annotation = getattr(annotation, "__value__", annotation)  # what a type alias stands for
    inner = max((_depth(part) for part in get_args(annotation)), default=0)
    own = get_origin(annotation) or annotation
    if any(own is kind for kind in _LISTS):
        return 1 + inner
    return 0 if isinstance(own, type) and issubclass(own, Mapping) else inner


def _nested(value: Any, depth: int) -> bool:
    """Say whether a value is nested more deeply than ``depth`` lists."""
    return isinstance(value, list) and (depth == 0 or any(_nested(item, depth - 1) for item in value))
