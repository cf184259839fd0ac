"""Where entries come from: the run or submission, when it was made, how far it was checked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from harness.core.records import Entry, Manifest
from harness.ranking.summary import format_number
from harness.submissions.submission import Submission
from leaderboard.boards import Board
from leaderboard.inputs import OWN, Input
from leaderboard.text import clean, counted, day_of, name_of

_WORDS = {
    "self-reported": "submitted; nobody has rescored its texts yet",
    "rescored": "submitted; its texts were rescored",
    "reproduced": "submitted; its texts were rescored, and some were generated again",
    OWN: "generated and scored by whoever built this page",
}
"""Badge, from the one that says least to the one that says most, -> what was checked."""

_LEAST = list(_WORDS)
_AS_HANDED_IN = "times, devices, versions and tuning are as submitted"


@dataclass(frozen=True)
class EntryOrigin:
    """The origin of an entry: its badge, and in words what was checked.

    ``people``: who handed it in. ``commands``: how its run was made, ready to be copied into a shell.
    """

    badge: str
    checked: str
    people: str
    date: str
    commands: list[str]


def entry_origins(board: Board, inputs: Sequence[Input]) -> dict[str, EntryOrigin]:
    """Return entry id -> where it comes from, of the inputs that the board was built from."""
    by_path = {item.run.path: item for item in inputs}
    origin: dict[str, Input] = {}
    for place, (run, _) in board.cellset.cells.items():  # an entry of several runs has the least of badges
        origin[place[0]] = min(
            origin.get(place[0], by_path.get(run.path, Input(run))),
            by_path.get(run.path, Input(run)),
            key=lambda item: _LEAST.index(item.badge),
        )
    found = {}
    for name, row in board.cellset.entries.items():
        own = [manifest for manifest in board.cellset.manifests if row.entry in manifest.entries]
        dates = sorted(day_of(manifest.created) for manifest in own)
        item = origin.get(name)
        found[name] = EntryOrigin(
            badge=item.badge if item else OWN,
            checked=_checked(board, name, item) if item else "no cell is there yet",
            people=_people(item.submission) if item and item.submission else "",
            date=dates[-1] if dates else "",
            commands=_commands(row.entry, own),
        )
    return found


def _checked(board: Board, entry: str, item: Input) -> str:
    """Say how far an entry was checked, and what was claimed where something else was measured."""
    words = _WORDS[item.badge]
    if item.submission is None:
        return words
    check = item.submission.entry
    if check is None:
        if item.submission.lock.path is None:
            words = "submitted; this page was built without a lock, by which alone a check counts"
        note = clean(item.submission.note)
        return f"{words}{f'; {note}' if note else ''}; {_AS_HANDED_IN}"
    if check.reproduction:
        anew = check.reproduction
        words += f" ({anew.equal} of {anew.texts} texts of {counted(anew.cells, 'cell')} came out equal)"
    if not check.measured:
        return f"{words}; measured is what was claimed; {_AS_HANDED_IN}"
    values = _headline_claimed(board, entry, item.submission)
    said = f" {board.headline.title} {format_number(sum(values) / len(values))} was claimed." if values else ""
    agree = "within the seed noise" if check.agrees else "NOT reproduced"
    return f"{words}; the claim is {agree}; {_AS_HANDED_IN}. The tables show what was measured.{said}"


def _headline_claimed(board: Board, entry: str, submission: Submission) -> list[float]:
    """Return the claimed values of the headline of an entry's cells."""
    claimed = {run.path: run for run in submission.runs}
    values = []
    for place, (run, cell) in board.cellset.cells.items():
        scores = claimed[run.path].scores(cell) if place[0] == entry and run.path in claimed else None
        values += [s.value for s in scores.scores if s.metric == board.headline.name] if scores else []
    return [value for value in values if value is not None]


def _people(submission: Submission) -> str:
    """Return who handed a submission in, and under which licence its texts are."""
    card = submission.card
    names = ", ".join(name_of(author.name) for author in card.authors)
    return f"{names}; texts under {name_of(card.licence)}"


def _commands(entry: Entry, manifests: list[Manifest]) -> list[str]:
    """Return one command for every run that holds the entry, narrowed to its method and setting."""
    return list(dict.fromkeys(command(entry, manifest) for manifest in manifests))


def command(entry: Entry, manifest: Manifest) -> str:
    """Return the command that makes one entry's cells again, with the row that its gain is against.

    Folders of the machine that made the run are named by their last part alone. What the suite ships needs
    no option.
    """
    if manifest.track != "generation":
        return _as_given(entry, manifest)
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


def _as_given(entry: Entry, manifest: Manifest) -> str:
    """Return the command that started a run of another track, for one method."""
    given = next((words for words in manifest.commands if len(words) > 1), [])[:_WORDS_OF_A_COMMAND]
    words: list[str] = []
    for word in given:
        kept = word.startswith("-") or words[-1:] == ["--methods"] or word == (entry.model and entry.model.name)
        words.append(word if kept else _place(word))
    methods = ",".join(dict.fromkeys([entry.method.name, "zero-shot"]))
    if "--methods" in words[:-1]:
        words[words.index("--methods") + 1] = methods
    elif words:
        words += ["--methods", methods]
    return clean(shlex.join(words), 2000)


_WORDS_OF_A_COMMAND = 60


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
