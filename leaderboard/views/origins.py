"""Where results come from: the origin of every entry, and what the runs of a board share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from harness.core.errors import UserError
from harness.core.records import IMPORTED, OWN_ENGINE, Entry, Manifest
from harness.core.redaction import hide_secrets
from harness.core.store import Run
from harness.data.corpus import contrast_kind
from harness.data.suite import prompt_format_of
from harness.ranking.summary import format_number
from harness.submissions.submission import Submission
from leaderboard.boards import Board
from leaderboard.inputs import OWN, Input
from leaderboard.text import WORDS, clean, counted, day_of, name_of

_WEAKEST = list(WORDS["badges"])
_AS_SUBMITTED = "times, devices, versions and tuning are as submitted"
_COMMAND = 60  # words of a command
_GROUPS = 40
_LISTED = 40  # versions and data sets of a run
_DATES = 6  # of a group, named one by one
_VECTORS = 400  # steering files of an entry that are looked into

STEERING_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""A name of a steering file that may become part of a path."""


class EntryOrigin(NamedTuple):
    """The origin of an entry: its badge, and in words what was checked.

    ``people``: who submitted it. ``commands``: how its run was made, ready to be copied into a shell. ``contrast``:
    what the degraded text of its vectors is, where they have one, and whether it is of several kinds.
    """

    badge: str
    checked: str
    people: str
    date: str
    commands: list[str]
    contrast: str = ""


def entry_origins(board: Board, inputs: Sequence[Input]) -> dict[str, EntryOrigin]:
    """Return entry id -> its origin among the inputs that the board was built from."""
    by_path = {item.run.path: item for item in inputs}
    origin: dict[str, Input] = {}
    for index, (run, _) in board.result_set.cells.items():  # an entry of several runs has the weakest of their badges
        item = by_path.get(run.path, Input(run))
        origin[index[0]] = min(origin.get(index[0], item), item, key=lambda item: _WEAKEST.index(item.badge))
    found, kinds = {}, contrasts(board)
    for name, row in board.result_set.entries.items():
        own = [manifest for manifest in board.result_set.manifests if row.entry in manifest.entries]
        known = origin.get(name)
        card = known.submission.card if known and known.submission else None
        badge, checked = (known.badge, _checked(board, name, known)) if known else (OWN, "there are no cells yet")
        if known and card is None and board.kind(row.id) == IMPORTED:
            badge, checked = IMPORTED, WORDS["badges"][IMPORTED]
        people = ", ".join(name_of(author.name) for author in card.authors) if card else ""
        found[name] = EntryOrigin(
            badge=badge,
            checked=checked,
            people=f"{people}; texts under {name_of(card.licence)}" if card else "",
            date=max((day_of(manifest.created) for manifest in own), default=""),
            commands=list(dict.fromkeys(filter(None, (command(row.entry, manifest) for manifest in own)))),
            contrast=kinds.get(name, ""),
        )
    return found


def contrasts(board: Board) -> dict[str, str]:
    """Return entry id -> what the contrast text of its vectors is, in words; unreadable files are left out."""
    files: dict[str, dict[tuple[Path, str], Run]] = {}
    for index, (run, _) in board.result_set.cells.items():
        file = board.result_set.work[index].steering
        if file and STEERING_ID.fullmatch(file):
            files.setdefault(index[0], {})[run.path, file] = run
    found: dict[str, str] = {}
    read: dict[tuple[Path, str], str] = {}
    for name, own in files.items():
        for key in sorted(own)[:_VECTORS]:
            if key not in read:
                read[key] = _contrast_in(own[key], key[1])
        kinds = sorted({read[key] for key in sorted(own)[:_VECTORS]} - {""})
        if kinds:
            mixed = "" if len(kinds) == 1 else ", not of one kind: means over languages mix them"
            found[name] = f"Contrast text: {', '.join(kinds)}{mixed}."
    return found


def _contrast_in(run: Run, steering: str) -> str:
    """Return the kind of contrast text of a steering file; empty where it has none or cannot be read."""
    try:
        found = run.steering(steering)
    except (UserError, OSError, ValueError):  # the page of the method names it
        return ""
    return kind_of_contrast(found.provenance) if found else ""


def kind_of_contrast(provenance: Mapping[str, Any]) -> str:
    """Return the kind of a vector's contrast text, empty where it has none."""
    fit = provenance.get("fit")
    return contrast_kind(str(fit.get("contrast") or "")) if isinstance(fit, Mapping) else ""


def _checked(board: Board, entry: str, item: Input) -> str:
    """Return how far an entry was checked, and its self-reported value where another one was measured."""
    words: str = WORDS["badges"][item.badge]
    if item.submission is None:
        return words
    check = item.submission.entry
    if check is None:
        if item.submission.lock.path is None:
            words = "submitted; this page was built without a lock, and a check counts only with one"
        note = clean(item.submission.note)
        return f"{words}{f'; {note}' if note else ''}; {_AS_SUBMITTED}"
    if check.reproduction:
        again = check.reproduction
        words += f" ({again.equal} of {again.texts} texts of {counted(again.cells, 'cell')} came out equal)"
    if not check.measured:
        return f"{words}; the rescored values equal the self-reported ones; {_AS_SUBMITTED}"
    values = _self_reported(board, entry, item.submission)
    title = board.headline.title
    said = f" Self-reported {title}: {format_number(sum(values) / len(values))}." if values else ""
    agree = "within the seed noise" if check.agrees else "NOT reproduced"
    return f"{words}; the self-reported values are {agree}; {_AS_SUBMITTED}. The tables show what was measured.{said}"


def _self_reported(board: Board, entry: str, submission: Submission) -> list[float]:
    """Return the self-reported values of the headline of an entry's cells."""
    runs = {run.path: run for run in submission.runs}
    values = []
    for index, (run, cell) in board.result_set.cells.items():
        scores = runs[run.path].scores(cell) if index[0] == entry and run.path in runs else None
        values += [s.value for s in scores.scores if s.metric == board.headline.name] if scores else []
    return [value for value in values if value is not None]


def command(entry: Entry, manifest: Manifest) -> str:
    """Return the command that makes one entry's cells again, with the baseline of its gain.

    Directories of the machine that made the run are named by their last part alone. Defaults of the suite need
    no option. Imported texts cannot be made again: the command imports them.
    """
    if entry.method.version == IMPORTED:
        return _import_command(entry, manifest)
    if manifest.track != "generation":
        return _as_given(entry, manifest)
    words = ["steerboard", "run", "--suite", _last_part(manifest.suite_source)]
    words += _model(entry, manifest)
    words += ["--engine", entry.model.engine] if entry.model and entry.model.engine != OWN_ENGINE else []
    methods = dict.fromkeys([entry.method.name, "zero-shot"] if entry.model else [entry.method.name])
    words += ["--methods", ",".join(methods), *_selection(manifest)]
    if manifest.data_source not in {"", "hub"} and not manifest.suite.get("data"):
        words += ["--data", _last_part(manifest.data_source)]
    words += ["--contrast", _last_part(manifest.contrast)] if manifest.contrast else []
    words += ["--tuned"] if entry.method.name in manifest.tuning else []
    for plugin in manifest.plugins:
        words += ["--plugin", _last_part(plugin)]
    return _shown(words)


def _as_given(entry: Entry, manifest: Manifest) -> str:
    """Return the command that started a run of another track, for one method."""
    given = next((words for words in manifest.commands if len(words) > 1), [])[:_COMMAND]
    words: list[str] = []
    for word in given:
        kept = word.startswith("-") or words[-1:] == ["--methods"] or word == (entry.model and entry.model.name)
        words.append(word if kept else _last_part(word))
    methods = ",".join(dict.fromkeys([entry.method.name, "zero-shot"]))
    if "--methods" in words[:-1]:
        words[words.index("--methods") + 1] = methods
    elif words:
        words += ["--methods", methods]
    return _shown(words)


def _import_command(entry: Entry, manifest: Manifest) -> str:
    """Return the command that imported an entry's texts; empty where it is not recorded."""
    given = next((w for w in manifest.commands if w[1:3] == ["import", "texts"] and entry.method.name in w), [])
    stated = {entry.method.name, entry.model.name if entry.model else ""}
    return _shown(word if word in stated else _last_part(word) for word in given[:_COMMAND])


def _shown(words: Iterable[str]) -> str:
    """Return a command for the page, without secrets that a manifest of an earlier version may hold."""
    return hide_secrets(clean(shlex.join(words), 2000), known=())


def _model(entry: Entry, manifest: Manifest) -> list[str]:
    if entry.model is None or manifest.suite.get("model"):
        return []
    if entry.model.revision:
        return ["--model", entry.model.name, "--revision", entry.model.revision]
    return ["--model", _last_part(manifest.model_path or entry.model.name)]


def _selection(manifest: Manifest) -> list[str]:
    """Return the options of a narrowed run; none for a full one."""
    chosen = manifest.selection
    if not chosen.narrowed:
        return []
    words = ["--languages", ",".join(chosen.languages), "--tasks", ",".join(chosen.tasks)]
    words += ["--settings", ",".join(chosen.settings), "--seeds", ",".join(map(str, chosen.seeds))]
    sizes = chosen.texts_per_label.values()
    words += ["--limit", str(max(sizes))] if sizes else []
    vectors = manifest.suite.get("vectors")
    count = vectors.get("sentences") if isinstance(vectors, dict) else None
    return [*words, "--vector-sentences", str(count)] if isinstance(count, int) else words


def _last_part(path: str) -> str:
    """Return a path without the directories of the machine above it; a plain name as it is."""
    name = PurePath(path).name
    return path if path == name or not name else f"PATH/{name}"


def run_groups(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Group the runs of a board by their provenance, in the order of their first runs.

    ``shared``: label and words that all runs have in common. ``groups``: how many runs and when (``runs``), and
    provenance that not all groups share (``differs``). ``more``: groups that are left out.
    """
    groups: dict[tuple[tuple[tuple[str, str], str], ...], list[str]] = {}
    for manifest in manifests:
        groups.setdefault(tuple(_provenance(manifest).items()), []).append(manifest.created)
    shared = {item for item in next(iter(groups), ()) if all(item in group for group in groups)}
    listed = [
        {"runs": _when(dates), "differs": _lines(dict(item for item in group if item not in shared))}
        for group, dates in groups.items()
    ]
    common = dict(item for item in next(iter(groups), ()) if item in shared)
    return {"shared": _lines(common), "groups": listed[:_GROUPS], "more": max(len(listed) - _GROUPS, 0)}


def _provenance(run: Manifest) -> dict[tuple[str, str], str]:
    """Return the provenance of a run by label and name: the version of a package, the revision of a data set."""
    found = {}
    if run.model:
        revision = f" @ {run.model.revision}" if run.model.revision else ""
        found["model", ""] = f"{run.model.name}{revision}, content {run.model.fingerprint}, {run.model.dtype}"
        if run.model.engine != OWN_ENGINE:
            found["engine", ""] = run.model.engine
        found["prompt format", ""] = prompt_format_of(run.suite)
    if run.git_commit:
        found["steerboard at", ""] = run.git_commit[:12]
    if run.device:
        found["device", ""] = run.device
    found |= {("versions", name): number for name, number in list(run.versions.items())[:_LISTED]}
    found |= {("data", name): f"@ {commit}" for name, commit in list(run.data_revisions.items())[:_LISTED]}
    return found


def _lines(provenance: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Return label and words, those of one label on one line."""
    lines: dict[str, list[str]] = {}
    for (label, name), value in provenance.items():
        lines.setdefault(label, []).append(name_of(f"{name} {value}".strip(), 400))
    return [(label, ", ".join(words)) for label, words in lines.items()]


def _when(dates: Sequence[str]) -> str:
    days = sorted({name_of(date, 40) for date in dates if date})
    named = ", ".join(days) if len(days) <= _DATES else f"from {days[0]} to {days[-1]}"
    return f"{counted(len(dates), 'run')}{': ' if named else ''}{named}"
