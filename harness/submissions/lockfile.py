"""The maintainers' lock: what was checked of every published submission, and that none of it gets lost.

Badges come from this file alone. It lies in the maintainers' repository (``baselines/``), never in a
submission, and an entry counts only for the very texts, scores and files that it was written for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from harness.core.errors import UserError, unknown
from harness.core.files import digest, waiting, write_text
from harness.core.reading import read_json
from harness.core.records import Record, Versioned, format_validation_error
from harness.methods.registry import checkout
from harness.submissions.card import OLD_TYPES, Card, CardResult, Name, Sha256, read_hashes
from harness.submissions.checksums import sha256
from harness.submissions.folder import MEASURED_FILES, SLUG, max_bytes
from harness.submissions.strict_io import InvalidSubmissionError, read_bytes

if TYPE_CHECKING:
    from harness.submissions.bundle import SubmittedRun
    from harness.submissions.submission import Submission

FILE = "submissions.lock.json"
FOLDER = "measured"
LOCK_SCHEMA = 2
_OLD_FIELDS = {"road": "type", "reproduced": "agrees", "regenerated": "reproduction"}
_OLD_BADGES = {"re-scored": "rescored", "regenerated": "reproduced"}
MeasuredFile = Annotated[
    str, StringConstraints(pattern=rf"^{SLUG}/[0-9a-f]{{16}}/({'|'.join(MEASURED_FILES)})$", max_length=200)
]


class Reproduction(Record):
    """How many texts of how many cells of a model came out equal when they were generated again."""

    model: str
    cells: Annotated[int, Field(ge=1)]
    texts: Annotated[int, Field(ge=1)]
    equal: Annotated[int, Field(ge=0)]


class PublishedResult(Record):
    """Results of one model: what they cover, the hashes of their texts and scores, and the headline.

    ``means``: setting -> mean of ``headline`` over the cells, of what was measured.
    """

    model: str | None
    languages: list[str]
    tasks: list[str]
    settings: list[str]
    cells: int
    texts: Sha256
    scores: Sha256
    headline: str
    means: dict[str, float | None]


class LockedSubmission(Record):
    """One submission as it was checked.

    ``subject``: hash of all that was checked, see ``Card.subject``. ``parts``: what was measured;
    ``unmeasured``: parts of the claim that were not. ``agrees``: whether the claim was what was measured.
    ``measured``: path below ``measured/NAME`` beside the lock -> SHA-256, of cells where the two are not
    equal but for rounding.
    """

    version: int
    badge: Literal["rescored", "reproduced"]
    method: str
    suite: str
    type: str
    subject: Sha256
    steerboard: str
    parts: list[str]
    unmeasured: list[str]
    agrees: bool
    flags: list[str]
    reproduction: Reproduction | None = None
    results: dict[Name, PublishedResult]
    measured: dict[MeasuredFile, Sha256] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_schema_1(cls, body: Any) -> Any:
        """Read an entry written before schema 2, which only renamed fields and words."""
        if not isinstance(body, dict) or "road" not in body or "type" in body:
            return body
        new = {_OLD_FIELDS.get(name, name): value for name, value in body.items()}
        words = {"badge": _OLD_BADGES, "type": OLD_TYPES}
        return new | {name: table.get(str(new.get(name)), new.get(name)) for name, table in words.items()}

    @model_validator(mode="after")
    def _says_what_was_reproduced(self) -> LockedSubmission:
        if (self.badge == "reproduced") != (self.reproduction is not None):
            raise ValueError("the badge reproduced and what was generated again belong together")
        return self


class Lockfile(Versioned):
    """All checked submissions by name."""

    schema_version: Annotated[int, Field(alias="schema")] = LOCK_SCHEMA

    submissions: dict[Name, LockedSubmission] = Field(default_factory=dict)


@dataclass(frozen=True)
class LockFile:
    """A lock and where it lies; ``path`` is None where none is trusted, and then nothing has a badge."""

    path: Path | None = None

    @cached_property
    def body(self) -> Lockfile:
        """The lock as it stands; an empty one where there is no file. ``UserError`` for a broken one."""
        if self.path is None or not self.path.is_file():
            return Lockfile()
        try:
            return Lockfile.model_validate({**read_json(self.path, LOCK_SCHEMA), "schema": LOCK_SCHEMA})
        except ValidationError as error:
            what = f"{self.path} is not a lock of submissions: {format_validation_error(error)}"
            raise UserError(f"{what}. Restore it from version control.") from None

    def measured(self, name: str) -> Path:
        """Return the folder of what was measured of a submission where that is not what it claims."""
        assert self.path is not None
        return self.path.parent / FOLDER / name

    def valid(self, submission: Submission) -> tuple[LockedSubmission | None, str]:
        """Return the entry of a submission, and why there is one that does not count (else empty)."""
        entry = self.body.submissions.get(submission.card.name)
        if entry is None:
            return None, ""
        try:
            reason = changed(entry, submission) or self._measured_changed(entry, submission.card.name)
        except InvalidSubmissionError as error:
            reason = str(error)
        if reason:
            return None, f"version {entry.version} was {entry.badge}, but what lies here differs: {reason}"
        return entry, ""

    def _measured_changed(self, entry: LockedSubmission, name: str) -> str:
        for file, wanted in entry.measured.items():
            shown = f"{FOLDER}/{name}/{file}"
            if sha256(read_bytes(self.measured(name) / file, shown, max_bytes(file))) != wanted:
                return f"{shown} is not what was measured"
        return ""

    def check_writable(self) -> None:
        """Raise ``UserError`` where no lock was named and the code does not run from a checkout."""
        if self.path is None:
            raise UserError(
                "no lock to write: steerboard does not run from a checkout. Give the lock of your repository "
                f"with --lock baselines/{FILE}."
            )

    def put(self, name: str, entry: LockedSubmission | None) -> None:
        """Write the lock with this entry of a submission; None removes it."""
        self.check_writable()
        assert self.path is not None
        with waiting(self.path.parent):  # a check takes minutes: what others wrote meanwhile has to stay
            self.__dict__.pop("body", None)
            entries = {**self.body.submissions}
            entries.pop(name, None)
            if entry is not None:
                entries[name] = entry
            whole = Lockfile(submissions=dict(sorted(entries.items())))
            text = json.dumps(whole.to_json(), ensure_ascii=False, indent=1, sort_keys=True)
            write_text(self.path, f"{text}\n")
            self.__dict__.pop("body", None)  # read again when it is asked for

    def withdraw(self, name: str) -> None:
        """Remove a submission from the lock, and what was measured; ``UserError`` for an unknown one."""
        if name not in self.body.submissions:
            raise unknown("submission in the lock", name, self.body.submissions)
        self.put(name, None)
        shutil.rmtree(self.measured(name), ignore_errors=True)


NO_LOCK = LockFile()
"""Nothing has a badge."""


def open_lock(path: Path | None, new: bool = False) -> LockFile:
    """Return the lock that was named, else that of the checkout whose code runs, else none.

    A lock that lies beside submissions or in the working directory is not looked at: whoever made these can
    have made it, too. ``new``: a named file need not be there yet. Raises ``UserError`` for one that is
    missing or broken.
    """
    if path is None:
        root = checkout()
        found = LockFile(root / "baselines" / FILE if root else None)
    elif path.is_file() or (new and path.parent.is_dir()):
        found = LockFile(path)
    else:
        raise UserError(f"--lock {path} does not exist. Give the maintainers' file, such as baselines/{FILE}.")
    found.body  # noqa: B018 - a broken lock is named before any work
    return found


def hashes_of(submission: Submission, result: CardResult) -> dict[str, str]:
    """Return one hash of all texts and one of all scores and predictions of a model's results."""
    hashes, _ = read_hashes(submission.folder, result)
    scored = {name: found for name, found in hashes.files.items() if name.endswith(MEASURED_FILES)}
    return {"texts": digest(hashes.texts), "scores": digest(scored)}


def coverage(run: SubmittedRun) -> dict[str, list[str]]:
    """Return which languages, tasks and settings the texts of a model cover."""
    keys = [status.cell for status in map(run.status, run.cell_ids()) if status and status.state == "ok"]
    axes = {"languages": "language", "tasks": "task", "settings": "setting"}
    return {name: sorted({getattr(key, field) for key in keys}) for name, field in axes.items()}


def changed(entry: LockedSubmission, submission: Submission, texts_only: bool = False) -> str:
    """Return in words what of a submission is not as it was checked; empty for nothing.

    ``texts_only``: new scores of the same texts are fine, as after a change of the metrics.
    """
    card = submission.card
    for what, old, now in (
        ("method", entry.method, method_of(card)),
        ("suite", entry.suite, suite_of(card)),
        ("type", entry.type, card.type),
    ):
        if old != now:
            return f"its {what} was {old}, is {now}"
    runs = {result.folder: (result, run) for result, run in zip(card.results, submission.runs, strict=True)}
    for folder, locked in entry.results.items():
        if folder not in runs:
            return f"the results of {locked.model} are gone"
        reason = _result_changed(locked, submission, *runs[folder], texts_only)
        if reason:
            return reason
    if texts_only:
        return ""
    if submission.broken:
        return str(submission.broken[0]).rstrip(".")
    return "" if entry.subject == card.subject else "its card or other files were changed"


def _result_changed(
    locked: PublishedResult, submission: Submission, result: CardResult, run: SubmittedRun, texts_only: bool
) -> str:
    for axis, found in coverage(run).items():
        gone = [name for name in getattr(locked, axis) if name not in found]
        if gone:
            return f"{result.folder} has lost {axis} {', '.join(gone)}"
    for what, value in hashes_of(submission, result).items():
        if getattr(locked, what) != value and not (texts_only and what == "scores"):
            return f"{result.folder} has other {what}"
    return ""


def method_of(card: Card) -> str:
    """Return the method of a submission in words."""
    return f"{card.method.name} {card.method.version}"


def suite_of(card: Card) -> str:
    """Return the suite of a submission in words."""
    return f"{card.suite.name} {card.suite.hash}"


def against(entry: LockedSubmission, submission: Submission) -> str:
    """Return what of a checked submission is lost or changed in the same version; empty for nothing."""
    version = submission.card.version
    if version < entry.version:
        return f"version {version} is below the published {entry.version}. Raise it"
    if version > entry.version:
        return ""
    try:
        reason = changed(entry, submission)
    except InvalidSubmissionError as error:
        reason = str(error).rstrip(".")
    return reason and f"{reason}. Restore it, or raise 'version' in submission.yaml"


def regressions(lock: Lockfile, found: Mapping[str, Submission]) -> Iterator[tuple[str, str]]:
    """Yield name and words of every checked submission that is gone or was changed in the same version."""
    for name, entry in lock.submissions.items():
        if name not in found:
            todo = f"Restore it, or remove it on purpose: steerboard submission list --allow-removed {name}"
            yield name, f"was published and is gone. {todo}"
        elif words := against(entry, found[name]):
            yield name, words
