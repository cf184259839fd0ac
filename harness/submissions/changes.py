"""Which submissions a pull request touches, and what else of it must not be there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.reading import read_bytes
from harness.methods.registry import SUBMISSIONS
from harness.submissions.folder import listed, shown
from harness.submissions.lockfile import Lockfile
from harness.submissions.report import SubmissionReport
from harness.submissions.strict_io import InvalidSubmissionError

_MAINTAINERS = "Leave it as it is: the maintainers change it, in a change of their own."
_LOCKED = ("baselines", ".github")


@dataclass
class Changes:
    """The submissions to check by name, and the report on everything else that was changed."""

    report: SubmissionReport
    names: list[str] = field(default_factory=list)


def read_changed(path: Path) -> list[str]:
    """Return the paths that ``git diff --name-only -z`` wrote into a file; not UTF-8 is escaped."""
    data = read_bytes(path)
    return [part.decode("utf-8", "backslashreplace") for part in data.split(b"\0") if part]


def changes(changed: Iterable[str], repository: Path, lock: Lockfile) -> Changes:
    """Sort the changed paths of a pull request, which lies in ``repository``; nothing of it is believed.

    ``lock``: what the branch that it goes into has checked. Nothing is reported where no path is below
    ``submissions/``.
    """
    report = SubmissionReport("pull request")
    done = Changes(report)
    paths = sorted(set(changed))
    inside = [path for path in paths if path.split("/")[0] == SUBMISSIONS]
    if not inside:
        return done
    try:
        folders, problems = listed(repository / SUBMISSIONS)
    except InvalidSubmissionError as error:
        report.refused(InvalidSubmissionError(SUBMISSIONS, error.what, "Restore the directory."))
        return done
    for problem in problems:
        report.refused(InvalidSubmissionError(f"{SUBMISSIONS}/{problem.file}", problem.what, problem.todo))
    there = {folder.name for folder in folders}
    wrong = {problem.file for problem in problems}
    for path in inside:
        _sort(path, there, wrong, lock, done)
    for path in sorted({*paths} - {*inside}):
        if path.split("/")[0] in _LOCKED or path.rpartition("/")[2] == ".gitattributes":
            report.problem(shown(path), "is changed together with submissions", _MAINTAINERS)
    more = len(paths) - len(inside)
    if more:
        report.note(".", f"changes {more} files outside of {SUBMISSIONS}/ as well", "Review them as code.")
    return done


def _sort(path: str, there: set[str], wrong: set[str], lock: Lockfile, done: Changes) -> None:
    parts = path.split("/")
    name = parts[1] if len(parts) > 1 else ""
    if name == "README.md" and len(parts) == 2:
        done.report.note(path, "is changed")
    elif name.startswith("."):
        done.report.problem(shown(path), "is not part of a submission", _MAINTAINERS)
    elif name in there and len(parts) > 2:
        done.names += [] if name in done.names else [name]
    elif len(parts) > 2 and shown(name) not in wrong:
        _removed(name, lock, done)
    elif shown(name) not in wrong:
        done.report.problem(shown(path), "is not part of a submission", _MAINTAINERS)


def _removed(name: str, lock: Lockfile, done: Changes) -> None:
    file = f"{SUBMISSIONS}/{shown(name)}"
    known = {finding.file for finding in done.report.findings}
    if file in known:
        return
    if name in lock.submissions:
        todo = f"Restore it. Maintainers remove it with: steerboard submission list --allow-removed {name}"
        done.report.problem(file, "was published and is removed", todo)
    else:
        done.report.note(file, "is removed")
