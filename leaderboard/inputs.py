"""The inputs of a board: run directories, submissions, and directories that hold some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.cells import entry_id
from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.store import Run
from harness.methods.registry import SUBMISSIONS
from harness.submissions.check import check_files
from harness.submissions.duplicates import clashes
from harness.submissions.files import CARD, find_refusal, holds_submissions, is_root, list_submissions
from harness.submissions.lockfile import NO_LOCK, LockFile
from harness.submissions.protocol import CheckInputs
from harness.submissions.submission import Submission

OWN = "own run"
"""The badge of results that were generated and scored by whoever builds the board."""

_DEPTH = 4  # directories between the one that is named and a run
_ABOVE = 3  # directories between a part of a submission and its own: NAME/results/MODEL


@dataclass(frozen=True)
class Input:
    """A run and how far its numbers were checked; ``submission``: the one that it belongs to, if any."""

    run: Run
    badge: str = OWN
    submission: Submission | None = None


@dataclass(frozen=True)
class Refused:
    """Something in a submissions directory that a board does not show, and why, the first reasons first."""

    name: str
    reasons: list[str]


@dataclass
class Inputs:
    """The runs of a board, each once, and the submissions next to them that are not shown."""

    items: list[Input] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def inputs(paths: Sequence[Path], lock: LockFile = NO_LOCK) -> Inputs:
    """Return the runs at or below the paths, each once, in order of their paths.

    A submissions directory gives the submissions that pass the check of their files; nothing else in it is
    ever taken for an own run. A submission's rescored values are used where the maintainers have rescored it,
    which the ``lock`` says, else the self-reported ones. Raises ``UserError`` for a path without any run, and
    where nothing can be shown. Links to directories and hidden directories are not entered.
    """
    runs: dict[Path, Input] = {}
    submissions: dict[Path, list[Path]] = {}
    found = Inputs()
    for path in paths:
        below = list(_search(path.resolve() if ".." in path.parts else path.absolute(), path))
        if not below:
            raise UserError(
                f"{path} does not contain a run (a directory with manifest.json). "
                "Pass the directory that 'steerboard run --run DIR' made, or one that holds such directories."
            )
        for item in below:
            if isinstance(item, Run):
                runs.setdefault(item.path.resolve(), Input(item))
            elif isinstance(item, Refused):
                found.refused.append(item)
            else:
                submissions.setdefault(item[0], []).append(item[1])
    found.items += runs.values()
    _add_submissions(submissions, found, lock)
    if not found.items:
        first = found.refused[0] if found.refused else Refused(str(paths[0]), ["there are no results"])
        raise UserError(f"{first.name} cannot be shown: {first.reasons[0]} See 'steerboard submission check'.")
    return found


def _search(path: Path, shown: Path) -> Iterator[Run | Refused | tuple[Path, Path]]:
    """Yield the runs and submissions at or below a path; none of their files is read yet.

    A submission comes with the part of it that was named, mostly itself. ``shown``: the path in messages.
    """
    folder = next((f for f in [path, *path.parents][: _ABOVE + 1] if (f / CARD).is_file()), None)
    if is_root(path) or is_root(path.resolve()):
        yield from _submissions(path)
    elif folder is not None:
        if refusal := find_refusal(folder):
            raise UserError(f"{folder} {refusal.problem}.")
        yield folder, path
    elif _among_submissions(path.resolve()):
        refusal = find_refusal(path)
        raise UserError(f"{shown} is among submissions and {refusal.problem if refusal else 'is not a part of one'}.")
    else:
        yield from _enter(path, shown, _DEPTH)


def _submissions(root: Path) -> Iterator[Refused | tuple[Path, Path]]:
    folders, problems = list_submissions(root)
    yield from ((folder, folder) for folder in folders)
    yield from (Refused(problem.name, [f"{problem.problem}."]) for problem in problems)


def _enter(path: Path, shown: Path, depth: int) -> Iterator[Run | Refused | tuple[Path, Path]]:
    """Look for runs; messages name them relative to the path that the user gave."""
    if is_root(path):
        yield from _submissions(path)
    elif Run(path).exists():
        yield Run(shown)
    elif depth and path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                yield from _enter(child, shown / child.name, depth - 1)


def _add_submissions(folders: Mapping[Path, Sequence[Path]], found: Inputs, lock: LockFile) -> None:
    """Add the runs of the submissions that pass the check of their files and do not clash with others.

    ``folders``: submission -> the parts of it that were named. A checked submission stays where an unchecked one
    clashes with it; of two unchecked ones neither is shown.
    """
    passed: dict[Path, Submission] = {}
    for folder in folders:
        checked = check_files(folder, CheckInputs(), lock=lock, others=[])
        reasons = [finding.line for finding in checked.report.findings if finding.level != "note"]
        if reasons or checked.submission is None:
            found.refused.append(Refused(folder.name, reasons))
        else:
            passed[folder] = checked.submission
            checked.submission.reader.forget()  # a board reads few of the files, and some again
    own = {entry for item in found.items for entry in _entries(item.run)}
    for folder, submission in passed.items():
        rivals = [
            other.card
            for path, other in passed.items()
            if path != folder and (submission.badge == "self-reported" or other.badge != "self-reported")
        ]
        clashing = [str(problem) for problem in clashes(submission.card, rivals)]
        parts = {*folders[folder]}
        runs = [run for run in submission.best_runs if parts & {run.path, *run.path.parents}]
        if own & {entry for run in runs for entry in _entries(run)}:
            clashing.append("an own run has the same entry, and that is shown.")
        if clashing:
            found.refused.append(Refused(folder.name, clashing))
        else:
            found.items += [Input(run, submission.badge, submission) for run in runs]


def _among_submissions(path: Path) -> bool:
    """Return whether a path is in a directory called submissions, but not in a submission.

    A run next to a submission that somebody packed among own runs is an own run, and was named.
    """
    parent, *further = path.parents[:_ABOVE]
    return parent.name == SUBMISSIONS or any(f.name == SUBMISSIONS and holds_submissions(f) for f in further)


def _entries(run: Run) -> set[str]:
    """Return the entries of a run, each with everything that decides which table it belongs to."""
    manifest = run.manifest()
    table = digest([manifest.suite_hash, manifest.selection.identity(), manifest.data_hashes])
    return {f"{table} {entry_id(entry)}" for entry in manifest.entries}
