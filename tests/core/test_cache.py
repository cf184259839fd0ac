"""Where the files are that runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.cache import cache_folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"STEERBOARD_CACHE": "/big/disk", "XDG_CACHE_HOME": "/xdg"}, "/big/disk/features"),
        ({"STEERBOARD_CACHE": "~/other"}, "/home/me/other/features"),
        ({"STEERBOARD_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/steerboard/features"),
        ({"XDG_CACHE_HOME": "not/absolute"}, "/home/me/.cache/steerboard/features"),
        ({}, "/home/me/.cache/steerboard/features"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, variables, folder):
    for name in ("STEERBOARD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("features") == Path(folder)
