"""The prose of the page; text from outside made fit for it, and names made fit for addresses."""

from __future__ import annotations

import datetime
import functools
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from harness.core.files import digest

ASSETS = Path(__file__).parent / "assets"

WORDS: dict[str, Any] = yaml.safe_load((ASSETS / "words.yaml").read_text(encoding="utf-8"))
"""The prose of the page: tracks, columns, badges, reasons and costs."""

LONGEST = 400
"""Characters of a text on a page, unless said otherwise."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
"""Signs that turn or isolate the direction of what follows: in a name they could hide its end."""


def clean(value: object, longest: int = LONGEST) -> str:
    """Return a text fit for a page: no control characters or lone surrogates, cut if very long."""
    shown = _UNPRINTABLE.sub("\ufffd", str(value)[: longest + 1])
    return shown if len(shown) <= longest else shown[:longest] + "…"


def name_of(text: object, longest: int = 80) -> str:
    """Return a name on one line, without signs that change its direction."""
    return _name_of(str(text)[: longest + 1], longest)


@functools.lru_cache(maxsize=2**14)  # pages name the same few things, again and again
def _name_of(text: str, longest: int) -> str:
    return _TURNING.sub("\ufffd", " ".join(clean(text, longest).split()))


def direction_of(text: str, otherwise: str) -> str:
    """Return the direction of most letters of a text: "ltr" or "rtl"; ``otherwise`` where it has none or as many.

    A model may answer in another language than the page is of, and a name may come first, so the first letter, by which
    browsers decide, is not enough.
    """
    kinds = Counter(map(unicodedata.bidirectional, text))
    left, right = kinds["L"], kinds["R"] + kinds["AL"]
    return otherwise if left == right else "ltr" if left > right else "rtl"


def slug(text: str, longest: int = 40) -> str:
    """Return a name for files and addresses: ASCII letters, digits, dashes; others for other texts."""
    plain = re.sub(r"[^a-z0-9]+", "-", text[: 4 * longest].lower()).strip("-")
    if plain and plain == text and len(plain) <= longest:
        return plain
    return f"{plain[:longest].strip('-')}-{digest(text.encode('utf-8', 'replace').hex(), 6)}".strip("-")


def day_of(text: str) -> str:
    """Return the day that an ISO 8601 time begins with; empty where it is none."""
    try:
        return datetime.date.fromisoformat(text[:10]).isoformat()
    except ValueError:
        return ""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: 1 entry, 2 entries."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"
