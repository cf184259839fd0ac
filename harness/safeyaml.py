"""Safe YAML, read as fast as PyYAML can: plain values alone, nothing is built or run."""

from __future__ import annotations

try:
    from yaml import CSafeLoader as SafeLoader  # reads the same, ten times as fast
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

__all__ = ["SafeLoader"]
