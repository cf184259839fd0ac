"""Words and punctuation marks of any script."""

from __future__ import annotations

import unicodedata

import regex

_WORD = regex.compile(r"\w+|[^\w\s]")
_HEBREW_POINTS = regex.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")


def words(text: str) -> list[str]:
    """Return words and punctuation marks, case kept: NFC, Hebrew points removed.

    A word is a run of letters with their marks, digits and underscores of any script (``\\w`` of Unicode
    TR 18; the standard library would cut Telugu words at every vowel sign). Scripts without blanks, such
    as Thai, are not cut into words: for them the metrics of characters tell more.
    """
    found: list[str] = _WORD.findall(_HEBREW_POINTS.sub("", unicodedata.normalize("NFC", text)))
    return found
