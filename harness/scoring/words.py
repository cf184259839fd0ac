"""Words and punctuation marks of any script."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+|[^\w\s]")
_HEBREW_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")


def words(text: str) -> list[str]:
    """Return words and punctuation marks: NFC, Hebrew points removed, Unicode letters of any script."""
    return _WORD.findall(_HEBREW_POINTS.sub("", unicodedata.normalize("NFC", text)))
