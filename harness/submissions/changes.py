"""Which submissions a pull request touches, and what else in it must not be there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.core.reading import read_bytes
from harness.methods.registry import SUBMISSIONS
from harness.submissions.files import InvalidSubmissionError, list_submissions, printable
from harness.submissions.lockfile import Lockfile
from harness.submissions.report import SubmissionReport

_MAINTAINERS = "Leave it as it is: the maintainers change it, in a change of its own."
_LOCKED = ("baselines", ".github")


def read_changed(path: Path) -> list[str]:
    """Return the paths that ``git diff --name-only -z`` wrote into a file; what is not UTF-8 is escaped."""
    return [part.decode("utf-8", "backslashreplace") for part in read_bytes(path).split(b"\0") if part]


def check_changes(changed: Iterable[str], repository: Path, lock: Lockfile) -> tuple[SubmissionReport, list[str]]:
    """Return the report on the changed paths of a pull request, and the names of the submissions to check.

    Nothing in ``repository`` is believed. ``lock``: what the target branch has checked. Nothing is reported where
    no path is below ``submissions/``.
    """
    report, names = SubmissionReport("pull request"), []
    paths = sorted({*changed})
    inside = [path for path in paths if path.split("/")[0] == SUBMISSIONS]
    if not inside:
        return report, []
    try:
        folders, problems = list_submissions(repository / SUBMISSIONS)
    except InvalidSubmissionError as error:
        report.add("problem", SUBMISSIONS, error.problem, "Restore the directory.")
        return report, []
    for problem in problems:
        report.add("problem", f"{SUBMISSIONS}/{problem.name}", problem.problem, problem.hint)
    valid = {folder.name for folder in folders}
    invalid = {problem.name for problem in problems}
    for path in inside:
        name, _, below = path.removeprefix(f"{SUBMISSIONS}/").partition("/")
        if name in valid and below:
            names += [] if name in names else [name]
        elif path == f"{SUBMISSIONS}/README.md":
            report.add("note", path, "is changed")
        elif name.startswith(".") or (printable(name) not in invalid and not below):
            report.add("problem", printable(path), "is not part of a submission", _MAINTAINERS)
        elif printable(name) not in invalid:
            _add_removed(report, name, lock)
    _check_others([path for path in paths if path not in {*inside}], report)
    return report, names


def _check_others(paths: list[str], report: SubmissionReport) -> None:
    for path in paths:
        if path.split("/")[0] in _LOCKED or path.rpartition("/")[2] == ".gitattributes":
            report.add("problem", printable(path), "is changed together with submissions", _MAINTAINERS)
    if paths:
        what = f"changes {len(paths)} files outside of {SUBMISSIONS}/ as well"
        report.add("note", ".", what, "Review them as code.")


def _add_removed(report: SubmissionReport, name: str, lock: Lockfile) -> None:
    file = f"{SUBMISSIONS}/{printable(name)}"
    if file in {finding.file for finding in report.findings}:
        return
    if name in lock.submissions:
        hint = f"Restore it. Maintainers remove it with: steerboard submission list --allow-removed {name}"
        report.add("problem", file, "was published and is removed", hint)
    else:
        report.add("note", file, "is removed")
