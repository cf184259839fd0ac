"""Where entries come from: the run or submission, when it was made, how far it was checked."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from harness.ranking.tables import Cellset
from harness.records import Entry, Manifest
from leaderboard.text import clean, name_of

OWN, CLAIMED = "own run", "claimed"


@dataclass(frozen=True)
class Source:
    """The origin of an entry. ``commands``: how its run was made, ready to be copied into a shell."""

    badge: str
    date: str
    commands: list[str]


def sources(cellset: Cellset, claimed: set[str] | None = None) -> dict[str, Source]:
    """Return entry id -> where it comes from. ``claimed``: entries that were handed in, not run here."""
    found = {}
    for name, row in cellset.entries.items():
        own = [manifest for manifest in cellset.manifests if row.entry in manifest.entries]
        badge = CLAIMED if claimed and name in claimed else OWN
        dates = sorted(name_of(manifest.created, 40)[:10] for manifest in own)
        found[name] = Source(badge, dates[-1] if dates else "", _commands(row.entry, own))
    return found


def _commands(entry: Entry, manifests: list[Manifest]) -> list[str]:
    """Return one command for every run that holds the entry, narrowed to its method and setting."""
    return list(dict.fromkeys(command(entry, manifest) for manifest in manifests))


def command(entry: Entry, manifest: Manifest) -> str:
    """Return the command that makes one entry's cells again, with the references that it is held against."""
    words = ["steerboard", "run", "--suite", manifest.suite_source]
    if entry.model:
        words += ["--model", manifest.model_path or entry.model.name]
        words += ["--revision", entry.model.revision] if entry.model.revision else []
    methods = dict.fromkeys([entry.method.name, "zero-shot"] if entry.model else [entry.method.name])
    words += ["--methods", ",".join(methods)]
    chosen = manifest.selection
    if chosen.narrowed:
        words += ["--languages", ",".join(chosen.languages), "--tasks", ",".join(chosen.tasks)]
        words += ["--seeds", ",".join(map(str, chosen.seeds))]
        sizes = set(chosen.texts_per_label.values())
        words += ["--limit", str(max(sizes))] if sizes else []
    if manifest.data_source not in {"", "hub"}:
        words += ["--data", manifest.data_source]
    words += ["--contrast", manifest.contrast] if manifest.contrast else []
    words += ["--tuned"] if entry.method.name in manifest.tuning else []
    for plugin in manifest.plugins:
        words += ["--plugin", plugin]
    return clean(shlex.join(words), 2000)
