"""Provenance of a board: what all its runs share once, then every group of equal runs with what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.records import Manifest
from leaderboard.text import counted, name_of

_GROUPS = 40
_LISTED = 40  # versions and data sets of a run
_DATES = 6  # of a group, named one by one

Origin = dict[tuple[str, str], str]
"""What is said of a run, by label and name: the version of a package, the revision of a data set."""


@dataclass(frozen=True)
class RunGroup:
    """Runs of equal provenance: how many and when in words, and what not all groups share."""

    runs: str
    differs: list[tuple[str, str]]


@dataclass(frozen=True)
class Origins:
    """``shared``: label and words of what all runs have; ``more``: groups that are left out."""

    shared: list[tuple[str, str]]
    groups: list[RunGroup]
    more: int


def origins(manifests: Sequence[Manifest]) -> Origins:
    """Group the runs of a board by their provenance, in the order of their first runs."""
    groups: dict[tuple[tuple[tuple[str, str], str], ...], list[str]] = {}
    for manifest in manifests:
        groups.setdefault(tuple(_origin(manifest).items()), []).append(manifest.created)
    found = [dict(group) for group in groups]
    shared = (
        {key: value for key, value in found[0].items() if all(own.get(key) == value for own in found)} if found else {}
    )
    listed = [
        RunGroup(_when(dates), _lines({key: value for key, value in own.items() if key not in shared}))
        for own, dates in zip(found, groups.values(), strict=True)
    ]
    return Origins(_lines(shared), listed[:_GROUPS], max(len(listed) - _GROUPS, 0))


def _origin(run: Manifest) -> Origin:
    found: Origin = {}
    if run.model:
        revision = f" @ {run.model.revision}" if run.model.revision else ""
        found["model", ""] = f"{run.model.name}{revision}, content {run.model.fingerprint}, {run.model.dtype}"
    if run.git_commit:
        found["steerboard at", ""] = run.git_commit[:12]
    if run.device:
        found["device", ""] = run.device
    found |= {("versions", name): number for name, number in list(run.versions.items())[:_LISTED]}
    found |= {("data", name): f"@ {commit}" for name, commit in list(run.data_revisions.items())[:_LISTED]}
    return found


def _lines(origin: Origin) -> list[tuple[str, str]]:
    """Return label and words: what has the same label on one line."""
    lines: dict[str, list[str]] = {}
    for (label, name), value in origin.items():
        lines.setdefault(label, []).append(name_of(f"{name} {value}".strip(), 400))
    return [(label, ", ".join(words)) for label, words in lines.items()]


def _when(dates: Sequence[str]) -> str:
    days = sorted({name_of(date, 40) for date in dates if date})
    named = ", ".join(days) if len(days) <= _DATES else f"from {days[0]} to {days[-1]}"
    return f"{counted(len(dates), 'run')}{': ' if named else ''}{named}"
