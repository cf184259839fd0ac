"""The maintainers' lockfile: what was checked of every published submission, so that none of it gets lost.

Badges come from this file alone. It lies in the maintainers' repository (``baselines/``), never in a
submission, and an entry counts only for the very texts, scores and files that it was written for.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from harness.core.errors import InvalidFileError, UserError, unknown
from harness.core.files import waiting, write_text
from harness.core.reading import read_json
from harness.core.schema import Record, Versioned, format_validation_error
from harness.methods.registry import checkout
from harness.submissions.card import OLD_TYPES, Name, Sha256, rename_keys
from harness.submissions.files import SCORED_FILES, SLUG

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
