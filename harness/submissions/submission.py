"""Submissions as run directories with a card and checksums: what boards, tables and checks read.

Works without torch; nothing of a submission is executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from typing_extensions import override

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.store import Run, RunFiles
from harness.submissions.card import Card, CardResult, read_card, read_hashes
from harness.submissions.files import (
    CARD,
    PACK_AGAIN,
    SCORED_FILES,
    TEXTS,
    InvalidSubmissionError,
    StrictReader,
    list_submissions,
    scan,
    sha256,
)
from harness.submissions.lockfile import NO_LOCK, RESCORED, LockedSubmission, LockFile, PublishedResult

Badge = Literal["self-reported", "rescored", "reproduced"]

_STORED_AS = {"generations.jsonl": TEXTS, "scores.json": "scores.json.gz", "audit.json.gz": "predictions.json.gz"}
"""File of a cell in a run directory -> the one that has it in a submission, where they differ."""


class ResultFiles(RunFiles):
    """The results of one model in a submission under the names of a run directory, read strictly, never written.

    ``rescored``: reader of the directory of the maintainers' scores, of the paths ``rescored_paths`` in it; they
    replace those submitted.
    """

    def __init__(
        self,
        submission: Submission,
        folder: str,
        rescored: StrictReader | None = None,
        rescored_paths: Iterable[str] = (),
    ) -> None:
        super().__init__(submission.folder / "results" / folder)
        self._submission, self._folder = submission, folder
        self._rescored, self._rescored_paths = rescored, {*rescored_paths}

    @override
    def target(self, name: str) -> Path:
        raise UserError(f"{self.root} is part of a submission, which is never written. Choose another folder.")

    @override
    def cell_dirs(self) -> list[str]:
        above = f"results/{self._folder}/"
        paths = [path for path in self._submission.files if path.startswith(above) and path.endswith("/status.json")]
        return [path.removeprefix(above).partition("/")[0] for path in paths]

    @override
    def exists(self, name: str) -> bool:
        reader, path = self._find(name)
        return reader is self._rescored or path in self._submission.files

    @override
    def label(self, name: str) -> str:
        reader, path = self._find(name)
        return reader.prefix + path

    @override
    def read(self, name: str, limit: int = 0) -> bytes:
        """Return the content of a file; it has its own bound."""
        reader, path = self._find(name)
        return reader.read(path) if path.endswith(".safetensors") else reader.strict_content(path)

    @override
    def digest(self, name: str) -> str:
        return sha256(self.read(name))

    def _find(self, name: str) -> tuple[StrictReader, str]:
        """Return who reads a file, and its path there."""
        top, _, below = name.partition("/")
        if top == "steering":
            return self._submission.reader, name
        path = f"{self._folder}/{name}"
        if top == "cells":
            cell, _, last = below.partition("/")
            path = f"{self._folder}/{cell}/{_STORED_AS.get(last, last)}"
        if self._rescored and path in self._rescored_paths:
            return self._rescored, path
        return self._submission.reader, f"results/{path}"


class ChangedError(UserError):
    """A submission is not what the lockfile has under the same version."""


class Submission:
    """A submission that can be read: its ``card`` (submission.yaml), and its runs, one for every model.

    ``files``: path -> size. Reading says nothing on whether it is true: see ``badge``.
    """

    def __init__(
        self, folder: Path, files: dict[str, int], lock: LockFile = NO_LOCK, reader: StrictReader | None = None
    ) -> None:
        self.folder, self.files, self.lock = folder, files, lock
        self.reader = reader or StrictReader(folder)
        self.card: Card = read_card(self.reader)

    def run(self, result: CardResult) -> Run:
        """Return the results of a model as submitted."""
        return Run(self.folder / "results" / result.folder, ResultFiles(self, result.folder))

    @cached_property
    def runs(self) -> list[Run]:
        """The results as submitted."""
        return [self.run(result) for result in self.card.results]

    @cached_property
    def rescored_runs(self) -> list[Run]:
        """The results as scored by the maintainers; empty where the badge is ``self-reported``.

        A cell that the lockfile names no files of was scored just as submitted.
        """
        if self.entry is None:
            return []
        reader = StrictReader(self.lock.rescored(self.card.name), f"{RESCORED}/{self.card.name}/")
        return [Run(run.path, ResultFiles(self, run.path.name, reader, self.entry.measured)) for run in self.runs]

    @property
    def best_runs(self) -> list[Run]:
        """The results as scored by the maintainers where they did, else as submitted."""
        return self.rescored_runs or self.runs

    @cached_property
    def broken(self) -> list[InvalidSubmissionError]:
        """Files that are not what the checksums say, which begin in submission.yaml."""
        return verify_checksums(self)

    @cached_property
    def _locked(self) -> tuple[LockedSubmission | None, str]:
        return find_locked(self.lock, self)

    @property
    def entry(self) -> LockedSubmission | None:
        """The lockfile's entry; None where there is none, or one for something else than these files."""
        return self._locked[0]

    @property
    def note(self) -> str:
        """Why the lockfile's entry does not count; empty where there is none, or it does."""
        return self._locked[1]

    @property
    def badge(self) -> Badge:
        """``self-reported``, ``rescored`` (from these texts) or ``reproduced`` (some texts were generated again)."""
        return "self-reported" if self.entry is None else self.entry.badge

    @property
    def cells(self) -> tuple[int, int]:
        """How many cells have texts, and how many the suite has."""
        return sum(r.n_cells for r in self.card.results), sum(r.n_expected for r in self.card.results)


def find_locked(lock: LockFile, submission: Submission) -> tuple[LockedSubmission | None, str]:
    """Return the lockfile's entry of a submission, and why there is one that does not count (else empty)."""
    name = submission.card.name
    entry = lock.body.submissions.get(name)
    if entry is None:
        return None, ""
    try:
        check_unchanged(entry, submission)
        reader = StrictReader(lock.rescored(name), f"{RESCORED}/{name}/")
        for path, expected in entry.measured.items():
            if reader.digest(path) != expected:
                raise ChangedError(f"{reader.prefix}{path} is not what was measured")
    except UserError as error:
        return None, f"version {entry.version} was {entry.badge}, but these files differ: {error}"
    return entry, ""


def result_hashes(submission: Submission, result: CardResult) -> dict[str, str]:
    """Return one hash of all texts and one of all scores and predictions of a model's results."""
    hashes = read_hashes(submission.reader, result)
    scored = {path: value for path, value in hashes.files.items() if path.endswith(SCORED_FILES)}
    return {"texts": digest(hashes.texts), "scores": digest(scored)}


def coverage(run: Run) -> dict[str, list[str]]:
    """Return which languages, tasks and settings the texts of a model cover."""
    keys = [status.cell for status in map(run.status, run.cell_ids()) if status and status.state == "ok"]
    axes = {"languages": "language", "tasks": "task", "settings": "setting"}
    return {name: sorted({getattr(key, field) for key in keys}) for name, field in axes.items()}


def check_unchanged(entry: LockedSubmission, submission: Submission, texts_only: bool = False) -> None:
    """Raise ``ChangedError`` for the first thing in a submission that is not as it was checked.

    ``texts_only``: new scores of the same texts are fine, as after a change of the metrics.
    """
    card = submission.card
    for what, old, new in (
        ("method", entry.method, card.method_title),
        ("suite", entry.suite, card.suite_title),
        ("type", entry.type, card.type),
    ):
        if old != new:
            raise ChangedError(f"its {what} was {old}, is {new}")
    runs = {result.folder: (result, run) for result, run in zip(card.results, submission.runs, strict=True)}
    for folder, locked in entry.results.items():
        if folder not in runs:
            raise ChangedError(f"the results of {locked.model} are gone")
        _check_result(locked, submission, *runs[folder], texts_only)
    if texts_only:
        return
    if submission.broken:
        raise ChangedError(str(submission.broken[0]).rstrip("."))
    if entry.subject != card.subject:
        raise ChangedError("its card or other files were changed")


def _check_result(
    locked: PublishedResult, submission: Submission, result: CardResult, run: Run, texts_only: bool
) -> None:
    for axis, found in coverage(run).items():
        if gone := [name for name in getattr(locked, axis) if name not in found]:
            raise ChangedError(f"{result.folder} has lost {axis} {', '.join(gone)}")
    for what, value in result_hashes(submission, result).items():
        if getattr(locked, what) != value and not (texts_only and what == "scores"):
            raise ChangedError(f"{result.folder} has other {what}")


def verify_checksums(submission: Submission) -> list[InvalidSubmissionError]:
    """Return every file that is not what the checksums say, has none, or is missing.

    submission.yaml has those of code, steering files and ``hashes.json``, which has those of a model's results
    and of the texts unpacked.
    """
    card, reader, there = submission.card, submission.reader, submission.files
    listings = {f"results/{result.folder}/hashes.json": result for result in card.results}
    own = [path for path in there if path in listings or (path != CARD and not path.startswith("results/"))]
    hashes = {listing: result.hashes for listing, result in listings.items()}
    problems = [*_differing(CARD, {**card.files, **hashes}, own, reader.digest)]
    for listing, result in listings.items():
        root = listing.removesuffix("hashes.json")
        inside = [path for path in there if path.startswith(root) and path != listing]
        try:
            found = read_hashes(reader, result)
        except InvalidSubmissionError as problem:
            problems.append(problem)
            continue
        files = {f"{root}{path:.120}": value for path, value in found.files.items()}
        texts = {f"{root}{cell}/{TEXTS}": value for cell, value in found.texts.items()}
        packed = [path for path in inside if path.endswith(TEXTS)]
        problems += _differing(listing, files, inside, reader.digest)
        problems += _differing(listing, texts, packed, lambda path: sha256(reader.content(path)), "its texts changed")
    known = {*map(os.path.dirname, listings)}
    strangers = {"/".join(path.split("/")[:2]) for path in there if path.startswith("results/")} - known
    return [
        *problems,
        *(InvalidSubmissionError(path, f"is not a result in {CARD}", "Remove it.") for path in sorted(strangers)),
    ]


def _differing(
    listing: str,
    listed: Mapping[str, str],
    there: Iterable[str],
    digest: Callable[[str], str],
    change: str = "was changed",
) -> Iterator[InvalidSubmissionError]:
    present = {*there}
    for path in sorted({*listed} | present):
        try:
            if path not in listed:
                raise InvalidSubmissionError(path, f"is not named in {listing}", f"Remove it. Or: {PACK_AGAIN}")
            if path not in present:
                raise InvalidSubmissionError(path, f"is missing; {listing} names it")
            if digest(path) != listed[path]:
                raise InvalidSubmissionError(path, f"{change}: its SHA-256 is not that in {listing}")
        except InvalidSubmissionError as problem:
            yield problem


def find(folder: Path, lock: LockFile = NO_LOCK) -> Submission:
    """Return the submission in a directory; it has a badge only by the ``lock``.

    Raises ``InvalidSubmissionError`` where there is none, where a file must not be there, or submission.yaml is broken.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidSubmissionError(
            folder, "is not a directory", "Pass the directory of a submission: submissions/NAME."
        )
    files, problems = scan(folder)
    if CARD not in files:
        hint = "Start one with 'steerboard submission new NAME', or pack a run."
        raise InvalidSubmissionError(folder, f"holds no {CARD}", hint)
    if problems:
        raise problems[0]
    return Submission(folder, files, lock)


def find_all(root: Path, lock: LockFile = NO_LOCK) -> tuple[list[Submission], list[InvalidSubmissionError]]:
    """Return the submissions of a submissions directory by name, and what is wrong with all else there.

    Raises ``InvalidSubmissionError`` where ``root`` is not such a directory.
    """
    found, problems = [], []
    paths, foreign = list_submissions(root)
    for path in paths:
        try:
            found.append(find(path, lock))
        except InvalidSubmissionError as error:
            problems.append(InvalidSubmissionError(path / error.name, error.problem, error.hint))
    foreign = [InvalidSubmissionError(root / error.name, error.problem, error.hint) for error in foreign]
    return found, [*problems, *foreign]


def siblings(folder: Path) -> list[Submission]:
    """Return the other submissions in the same directory whose submission.yaml can be read."""
    own, found = folder.resolve(), []
    with suppress(InvalidSubmissionError):
        for path in list_submissions(own.parent)[0]:
            if path.resolve() != own:
                with suppress(InvalidSubmissionError):
                    found.append(Submission(path, scan(path)[0]))
    return found
