"""The cache directory that runs share: what is slow to compute and depends on nothing but its key."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return the directory for the cached files of one ``kind``, such as ``features``; it may not exist yet.

    It is below ``$STEERBOARD_CACHE``, by default below ``steerboard`` in ``$XDG_CACHE_HOME``, by default ``~/.cache``.
    It may be removed at any time: its files are made again.
    """
    if chosen := os.environ.get("STEERBOARD_CACHE"):
        return Path(chosen).expanduser() / kind
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "steerboard" / kind
