"""What the scoring found of every text, in a few words: is it valid, in which language, of which label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.core.errors import UserError
from harness.core.languages import language
from harness.core.store import Run
from leaderboard.text import name_of

REASONS = {
    "language": "mostly in another language",
    "script": "mostly in another script",
    "empty": "empty",
    "loop": "repeats itself",
    "echo": "repeats the prompt",
    "gibberish": "gibberish",
    "refusal": "refuses",
    "preamble": "talks about the task",
}
"""Why a text is not valid, by the names that the scoring keeps."""

_COPIED = "copied/"
_NAMES = 8  # of reasons and corpora of a text


class Mark(NamedTuple):
    """One finding in words; ``off``: not what was asked for."""

    words: str
    off: bool


Marks = list[Mark]


def marks(run: Run, cell: str, labels: Sequence[str], code: str, reference: bool = False) -> list[Marks]:
    """Return the findings of every text of a cell; none where the scoring kept nothing that can be read.

    ``labels``: what was asked for, by text; ``code``: the language that was asked for; ``reference``: no
    model wrote the texts, so that nobody minds if they are human text. What is kept may come
    from strangers: a list that is not as long as the texts is left out, and so is what is of another type.
    """
    try:
        kept = run.text_checks(cell)
    except (UserError, OSError, ValueError):
        return [[] for _ in labels]
    validity = _columns(kept.get("validity"), len(labels))
    leakage = _columns(kept.get("leakage"), len(labels))
    copied = {name.removeprefix(_COPIED): flags for name, flags in leakage.items() if _COPIED in name}
    return [
        [
            *_valid(_at(validity, "valid", i), _at(validity, "reasons", i)),
            *_language(_at(validity, "language", i), code),
            *_label(_at(validity, "label", i), asked),
            *_copied([name for name, flags in copied.items() if flags[i] is True], reference),
        ]
        for i, asked in enumerate(labels)
    ]


def _columns(part: object, count: int) -> dict[str, list[object]]:
    """Return the lists of a part that are as long as the texts."""
    if not isinstance(part, Mapping):
        return {}
    return {name: column for name, column in part.items() if isinstance(column, list) and len(column) == count}


def _at(columns: Mapping[str, list[object]], name: str, i: int) -> object:
    return columns[name][i] if name in columns else None


def _valid(valid: object, reasons: object) -> Marks:
    if valid is True:
        return [Mark("valid", off=False)]
    if valid is not False:
        return []
    found = reasons if isinstance(reasons, list) else []
    words = ", ".join(REASONS.get(str(reason)) or name_of(reason, 40) for reason in found[:_NAMES])
    return [Mark(f"not valid: {words}" if words else "not valid", off=True)]


def _language(found: object, code: str) -> Marks:
    if not isinstance(found, str):
        return []
    if not found:
        return [Mark("no language found", off=True)]
    name = name_of(language(found).name, 40)
    return [Mark(name if name != found else f"language {name}", off=found != code)]


def _label(judged: object, asked: str) -> Marks:
    if not isinstance(judged, str) or not judged:  # of a blank text there is none
        return []
    return [Mark(f"judged {name_of(judged, 60)}", off=judged != asked)]


def _copied(corpora: Sequence[str], reference: bool) -> Marks:
    if not corpora:
        return []
    named = ", ".join(name_of(name, 40) for name in corpora[:_NAMES])
    return [Mark(f"copied from {named}", off=not reference)]
