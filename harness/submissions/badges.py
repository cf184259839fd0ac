"""``check.json``: what was found when the texts were scored anew, and whether it is of what lies there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from harness.records import Record, Versioned
from harness.submissions import limits
from harness.submissions.card import Card, Sha256
from harness.submissions.chain import broken_links, sha256
from harness.submissions.folder import CHECK, cap_of
from harness.submissions.reading import RefusedError, json_object, read_bytes


class Regenerated(Record):
    """How many texts of how many cells of a model came out equal when they were generated anew."""

    model: str
    cells: Annotated[int, Field(ge=1)]
    texts: Annotated[int, Field(ge=1)]
    equal: Annotated[int, Field(ge=0)]


class Check(Versioned):
    """What 'steerboard submission check --write' found.

    ``subject``: hash of what was checked, see ``Card.subject``. ``parts``: what was measured. ``unmeasured``:
    parts of the claim that were not. ``reproduced``: whether the claim was what was measured. ``files``:
    path in ``measured/`` -> SHA-256, of cells where the two are not equal to the last digit.
    """

    badge: Literal["re-scored", "regenerated"]
    subject: Sha256
    steerboard: str
    cells: int
    parts: list[str]
    unmeasured: list[str] = Field(default_factory=list)
    reproduced: bool
    flags: list[str] = Field(default_factory=list)
    files: dict[str, Sha256] = Field(default_factory=dict)
    regenerated: Regenerated | None = None


def read_check(folder: Path) -> Check:
    """Return ``check.json`` as it stands; ``RefusedError`` where it is none."""
    body = json_object(read_bytes(folder / CHECK, CHECK, limits.FILES[CHECK]), CHECK)
    try:
        return Check.model_validate(body)
    except ValidationError:
        raise RefusedError(CHECK, "was not written by this steerboard", "Remove it.") from None


def valid_check(folder: Path, card: Card, files: Mapping[str, int]) -> Check | None:
    """Return ``check.json`` where it is of the very files that lie there, measured ones included."""
    measured = {file for file in files if file.startswith("measured/")}
    if CHECK not in files:
        return None
    try:
        check = read_check(folder)
        fits = check.subject == card.subject and {*check.files} == measured
        fits = fits and all(
            sha256(read_bytes(folder / file, file, cap_of(file))) == found
            for file, found in check.files.items()
        )
    except RefusedError:
        return None
    if not fits or (check.badge == "regenerated" and check.regenerated is None):
        return None
    return None if broken_links(folder, card, files) else check
