"""Submissions as runs: what boards, tables and checks read. Without torch, and nothing of it is executed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.submissions.bundle import MeasuredRun, SubmittedRun
from harness.submissions.card import Card, read_card
from harness.submissions.checksums import verify_checksums
from harness.submissions.folder import CARD, listed, scan
from harness.submissions.lockfile import NO_LOCK, LockedSubmission, LockFile
from harness.submissions.strict_io import InvalidSubmissionError

Badge = Literal["self-reported", "rescored", "reproduced"]


class Submission:
    """A submission that can be read: its ``card`` (submission.yaml), and its runs, one for every model.

    Reading says nothing on whether it is true: see ``badge``.
    """

    def __init__(self, folder: Path, card: Card, files: dict[str, int], lock: LockFile) -> None:
        self.folder, self.card, self.files, self.lock = folder, card, files, lock

    @property
    def runs(self) -> list[SubmittedRun]:
        """The results as claimed."""
        return [SubmittedRun(self.folder, result.folder) for result in self.card.results]

    @property
    def measured_runs(self) -> list[SubmittedRun]:
        """The results as measured by the maintainers; empty where the badge is ``self-reported``."""
        if self.check is None:
            return []
        root = self.lock.measured(self.card.name)
        return [MeasuredRun(self.folder, result.folder, root) for result in self.card.results]

    @property
    def best_runs(self) -> list[SubmittedRun]:
        """The results as measured, where they were, else as claimed."""
        return self.measured_runs or self.runs

    @cached_property
    def broken(self) -> list[InvalidSubmissionError]:
        """Files that are not what the chain of hashes from submission.yaml says."""
        return verify_checksums(self.folder, self.card, self.files)

    @cached_property
    def _locked(self) -> tuple[LockedSubmission | None, str]:
        return self.lock.valid(self)

    @property
    def check(self) -> LockedSubmission | None:
        """What the maintainers found; None where they did not look, or at something else than lies here."""
        return self._locked[0]

    @property
    def note(self) -> str:
        """Why the maintainers' entry does not count; empty where there is none, or it does."""
        return self._locked[1]

    @property
    def badge(self) -> Badge:
        """``self-reported``, ``rescored`` (from the texts that lie here) or ``reproduced`` (texts, too)."""
        return "self-reported" if self.check is None else self.check.badge

    @property
    def cells(self) -> tuple[int, int]:
        """How many cells have texts, and how many the suite asks for."""
        return sum(r.n_cells for r in self.card.results), sum(r.n_expected for r in self.card.results)


def find(folder: Path, lock: LockFile = NO_LOCK) -> Submission:
    """Return the submission in a folder; it has a badge only by the ``lock``.

    Raises ``InvalidSubmissionError`` where there is none, where a file must not be there, or submission.yaml is broken.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidSubmissionError(str(folder), "is no folder", "Give the folder of a submission: submissions/NAME.")
    files, problems = scan(folder)
    if CARD not in files:
        todo = "Start one with 'steerboard submission new NAME', or pack a run."
        raise InvalidSubmissionError(str(folder), f"holds no {CARD}", todo)
    if problems:
        raise problems[0]
    return Submission(folder, read_card(folder), files, lock)


def find_all(root: Path, lock: LockFile = NO_LOCK) -> tuple[list[Submission], list[InvalidSubmissionError]]:
    """Return the submissions of a submissions directory by name, and what is wrong with all else there.

    Raises ``InvalidSubmissionError`` where ``root`` is not such a directory.
    """
    found, problems = [], []
    paths, foreign = listed(root)
    for path in paths:
        try:
            found.append(find(path, lock))
        except InvalidSubmissionError as error:
            problems.append(InvalidSubmissionError(f"{path}/{error.file}", error.what, error.todo))
    return found, [*problems, *(InvalidSubmissionError(f"{root}/{bad.file}", bad.what, bad.todo) for bad in foreign)]


__all__ = ["Badge", "InvalidSubmissionError", "MeasuredRun", "Submission", "SubmittedRun", "find", "find_all"]
