"""The maintainers' lockfile: what was checked of every published submission, so that none of it gets lost.

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

from harness.core.errors import InvalidFileError, UserError, unknown
from harness.core.files import digest, waiting, write_text
from harness.core.reading import read_json
from harness.core.records import Record, Versioned, format_validation_error
from harness.core.store import Run
from harness.methods.registry import checkout
from harness.submissions.card import OLD_TYPES, CardResult, Name, Sha256, read_hashes, rename_keys
from harness.submissions.files import SCORED_FILES, SLUG, StrictReader

if TYPE_CHECKING:
    from harness.submissions.submission import Submission

FILE = "submissions.lock.json"
SCHEMA = 2
RESCORED = "measured"
"""Directory next to the lockfile of rescored values that differ from the submitted ones."""

_OLD_FIELDS = {"road": "type", "reproduced": "agrees", "regenerated": "reproduction"}
_OLD_BADGES = {"re-scored": "rescored", "regenerated": "reproduced"}
ScoredFile = Annotated[
    str, StringConstraints(pattern=rf"^{SLUG}/[0-9a-f]{{16}}/({'|'.join(SCORED_FILES)})$", max_length=200)
]


class Reproduction(Record):
    """How many texts of how many cells of a model came out equal when they were generated again."""

    model: str
    cells: Annotated[int, Field(ge=1)]
    texts: Annotated[int, Field(ge=1)]
    equal: Annotated[int, Field(ge=0)]


class PublishedResult(Record):
    """Results of one model: what they cover, the hashes of their texts and scores, and the headline.

    ``means``: setting -> mean of ``headline`` over the cells, as rescored.
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

    ``subject``: hash of all that was checked, see ``Card.subject``. ``parts``: scorers that ran; ``unmeasured``:
    scorers of the submission that did not. ``agrees``: whether the submitted scores are those measured.
    ``measured``: path below ``measured/NAME`` next to the lockfile -> SHA-256, of cells where the two differ by
    more than rounding.
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
    measured: dict[ScoredFile, Sha256] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_schema_1(cls, body: Any) -> Any:
        """Read an entry written before schema 2, which only renamed fields and values."""
        if not isinstance(body, dict) or "road" not in body or "type" in body:
            return body
        new = rename_keys(body, _OLD_FIELDS)
        values = {"badge": _OLD_BADGES, "type": OLD_TYPES}
        return new | {name: table.get(str(new.get(name)), new.get(name)) for name, table in values.items()}

    @model_validator(mode="after")
    def _is_consistent(self) -> LockedSubmission:
        if (self.badge == "reproduced") != (self.reproduction is not None):
            raise ValueError("the badge reproduced and the reproduction belong together")
        return self


class Lockfile(Versioned):
    """All checked submissions by name."""

    schema_version: Annotated[int, Field(alias="schema")] = SCHEMA
    submissions: dict[Name, LockedSubmission] = Field(default_factory=dict)


class ChangedError(UserError):
    """A submission is not what the lockfile has under the same version."""


@dataclass(frozen=True)
class LockFile:
    """A lockfile and its path; None where none is trusted, and then nothing has a badge."""

    path: Path | None = None

    @cached_property
    def body(self) -> Lockfile:
        """The content; empty where there is no file. ``UserError`` for a broken one."""
        if self.path is None or not self.path.is_file():
            return Lockfile()
        try:
            return Lockfile.model_validate({**read_json(self.path, SCHEMA), "schema": SCHEMA})
        except ValidationError as error:
            problem = f"is not a lock of submissions: {format_validation_error(error)}"
            raise InvalidFileError(self.path, problem, "Restore it from version control.") from None

    def rescored(self, name: str) -> Path:
        """Return the directory of a submission's rescored values."""
        return self._path.parent / RESCORED / name

    def valid(self, submission: Submission) -> tuple[LockedSubmission | None, str]:
        """Return the entry of a submission, and why there is one that does not count (else empty)."""
        name = submission.card.name
        entry = self.body.submissions.get(name)
        if entry is None:
            return None, ""
        try:
            check_unchanged(entry, submission)
            reader = StrictReader(self.rescored(name), f"{RESCORED}/{name}/")
            for path, expected in entry.measured.items():
                if reader.digest(path) != expected:
                    raise ChangedError(f"{reader.prefix}{path} is not what was measured")
        except UserError as error:
            return None, f"version {entry.version} was {entry.badge}, but these files differ: {error}"
        return entry, ""

    def check_writable(self) -> None:
        """Raise ``UserError`` where no lockfile was named and the code does not run from a checkout."""
        _ = self._path

    @property
    def _path(self) -> Path:
        if self.path is None:
            raise UserError(
                "no lockfile to write: steerboard does not run from a checkout. Pass the lockfile of your repository "
                f"with --lock baselines/{FILE}."
            )
        return self.path

    def put(self, name: str, entry: LockedSubmission | None) -> None:
        """Write the lockfile with this entry of a submission; None removes it."""
        path = self._path
        with waiting(path.parent):  # a check takes minutes: what others wrote in the meantime has to stay
            self.__dict__.pop("body", None)
            entries = {key: value for key, value in self.body.submissions.items() if key != name}
            whole = Lockfile(submissions=dict(sorted([*entries.items(), *([(name, entry)] if entry else [])])))
            write_text(path, json.dumps(whole.to_json(), ensure_ascii=False, indent=1, sort_keys=True) + "\n")
            self.__dict__.pop("body", None)

    def remove(self, name: str) -> None:
        """Remove a submission's entry and its rescored values; ``UserError`` for an unknown one."""
        if name not in self.body.submissions:
            raise unknown("submission in the lockfile", name, self.body.submissions)
        self.put(name, None)
        shutil.rmtree(self.rescored(name), ignore_errors=True)


NO_LOCK = LockFile()
"""Nothing has a badge."""


def open_lock(path: Path | None, new: bool = False) -> LockFile:
    """Return the lockfile that was named, else that of the checkout whose code runs, else none.

    One that lies next to submissions or in the working directory is not looked at: whoever made these can
    have made it, too. ``new``: a named file need not exist yet. Raises ``UserError`` for one that is missing or
    broken.
    """
    if path is None:
        root = checkout()
        found = LockFile(root / "baselines" / FILE if root else None)
    elif path.is_file() or (new and path.parent.is_dir()):
        found = LockFile(path)
    else:
        raise UserError(f"--lock {path} does not exist. Pass the maintainers' file, such as baselines/{FILE}.")
    found.body  # noqa: B018 - a broken lockfile is reported before any work
    return found


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


def check_version(submission: Submission, lock: LockFile) -> None:
    """Raise ``UserError`` where other texts than the locked ones come under the same or a lower version.

    Other scores of the same texts are fine: whoever writes the lockfile has just measured them.
    """
    name, version = submission.card.name, submission.card.version
    before = lock.body.submissions.get(name)
    if before is None or version > before.version:
        return
    if version < before.version:
        raise UserError(f"{name}: version {version} is below the locked {before.version}. Raise 'version'.")
    try:
        check_unchanged(before, submission, texts_only=True)
    except ChangedError as error:
        raise UserError(
            f"{name}: {error}, which version {version} in {lock.path} does not have. Raise 'version' in "
            f"submission.yaml, or give it up on purpose: steerboard submission list --allow-removed {name}."
        ) from None


def check_against(entry: LockedSubmission, submission: Submission) -> None:
    """Raise ``ChangedError`` where a published submission was changed under the same version or has a lower one."""
    version = submission.card.version
    if version < entry.version:
        raise ChangedError(f"version {version} is below the published {entry.version}. Raise it")
    if version == entry.version:
        try:
            check_unchanged(entry, submission)
        except UserError as error:
            reason = str(error).rstrip(".")
            raise ChangedError(f"{reason}. Restore it, or raise 'version' in submission.yaml") from None


def regressions(lock: Lockfile, found: Mapping[str, Submission]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of every published submission that is gone or was changed under the same version."""
    for name, entry in lock.submissions.items():
        if name not in found:
            hint = f"Restore it, or remove it on purpose: steerboard submission list --allow-removed {name}"
            yield name, f"was published and is gone. {hint}"
            continue
        try:
            check_against(entry, found[name])
        except ChangedError as error:
            yield name, str(error)
