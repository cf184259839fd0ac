"""Where entries come from: the run or submission, when it was made, how far it was checked."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePath

from harness.ranking.tables import Cellset
from harness.records import Entry, Manifest
from leaderboard.text import clean, day_of

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
        dates = sorted(day_of(manifest.created) for manifest in own)
        found[name] = Source(badge, dates[-1] if dates else "", _commands(row.entry, own))
    return found


def _commands(entry: Entry, manifests: list[Manifest]) -> list[str]:
    """Return one command for every run that holds the entry, narrowed to its method and setting."""
    return list(dict.fromkeys(command(entry, manifest) for manifest in manifests))


def command(entry: Entry, manifest: Manifest) -> str:
    """Return the command that makes one entry's cells again, with the row that its gain is against.

    Folders of the machine that made the run are named by their last part alone. What the suite ships needs
    no option.
    """
    words = ["steerboard", "run", "--suite", _place(manifest.suite_source)]
    words += _model(entry, manifest)
    methods = dict.fromkeys([entry.method.name, "zero-shot"] if entry.model else [entry.method.name])
    words += ["--methods", ",".join(methods), *_selection(manifest)]
    if manifest.data_source not in {"", "hub"} and not manifest.suite.get("data"):
        words += ["--data", _place(manifest.data_source)]
    words += ["--contrast", _place(manifest.contrast)] if manifest.contrast else []
    words += ["--tuned"] if entry.method.name in manifest.tuning else []
    for plugin in manifest.plugins:
        words += ["--plugin", _place(plugin)]
    return clean(shlex.join(words), 2000)


def _model(entry: Entry, manifest: Manifest) -> list[str]:
    if entry.model is None or manifest.suite.get("model"):
        return []
    if entry.model.revision:
        return ["--model", entry.model.name, "--revision", entry.model.revision]
    return ["--model", _place(manifest.model_path or entry.model.name)]


def _selection(manifest: Manifest) -> list[str]:
    """Return the options of a narrowed run; none for a full one."""
    chosen = manifest.selection
    if not chosen.narrowed:
        return []
    words = ["--languages", ",".join(chosen.languages), "--tasks", ",".join(chosen.tasks)]
    words += ["--settings", ",".join(chosen.settings), "--seeds", ",".join(map(str, chosen.seeds))]
    sizes = chosen.texts_per_label.values()
    return [*words, "--limit", str(max(sizes))] if sizes else words


def _place(path: str) -> str:
    """Return a path without the folders of the machine around it; a plain name as it is."""
    name = PurePath(path).name
    return path if path == name or not name else f"PATH/{name}"
