"""Safe YAML, read as fast as PyYAML can: plain values alone, nothing is built or run."""

from __future__ import annotations

import re
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as _Loader  # reads the same, ten times as fast
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

__all__ = ["SafeLoader", "safe_load"]

_OPENERS = 10_000
_OPENER = re.compile(r"[\[{]|[-?](?=\s)")  # whatever nests: [ { and an item or a key of its own
_LONGEST_NUMBER = 80  # characters; 64 bits in any base are shorter


class SafeLoader(_Loader):
    """Plain YAML in which no key stands twice and no number is longer than 64 bits.

    YAML 1.1 reads ``59:59:59`` as a number of base 60: a few hundred of these give one that Python does not
    write down again.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put merged keys in, as PyYAML does, after a look at the node's own keys."""
        flat = vars(self).setdefault("_flat", set())
        if id(node) not in flat:  # later it holds merged keys, which its own may replace
            flat.add(id(node))
            _check_keys(node)
        super().flatten_mapping(node)


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r:.80} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))


def _number(loader: SafeLoader, node: yaml.ScalarNode) -> int:
    value = loader.construct_yaml_int(node) if len(node.value) <= _LONGEST_NUMBER else 2**64
    if abs(value) >= 2**64:
        problem = "a number of too many digits; put text in quotes"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return int(value)


SafeLoader.add_constructor("tag:yaml.org,2002:int", _number)


def safe_load(text: str, loader: type[SafeLoader] = SafeLoader) -> Any:
    """Return the value of YAML; ``loader``: one with tags of its own.

    Raises ``yaml.YAMLError`` for what is none, such as the date 2026-99-99, and for what may be nested deeper
    than libyaml can go: it ends the process at about 50,000.
    """
    if len(_OPENER.findall(text)) > _OPENERS:
        raise yaml.YAMLError(f"more than {_OPENERS} lists and mappings")
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 (a SafeLoader)
    except (ValueError, OverflowError, AttributeError, TypeError, RecursionError) as error:
        raise yaml.YAMLError(f"a value that is none of its kind: {error}") from None
