"""Safe YAML, read as fast as PyYAML can: plain values alone, nothing is built or run."""

from __future__ import annotations

import re
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader  # reads the same, ten times as fast
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

__all__ = ["SafeLoader", "safe_load"]

_OPENERS = 10_000
_OPENER = re.compile(r"[\[{]|[-?](?=\s)")  # whatever nests: [ { and an item or a key of its own


def safe_load(text: str, loader: type[SafeLoader] = SafeLoader) -> Any:
    """Return the value of YAML; ``loader``: one with tags of its own.

    Raises ``yaml.YAMLError`` for what is none, and for what may be nested deeper than libyaml can go: it ends
    the process at about 50,000.
    """
    if len(_OPENER.findall(text)) > _OPENERS:
        raise yaml.YAMLError(f"more than {_OPENERS} lists and mappings")
    return yaml.load(text, Loader=loader)  # noqa: S506 (a SafeLoader)
