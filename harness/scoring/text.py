"""Words, sentences and first characters of texts in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import NDArray

_WORD = regex.compile(r"\w+|[^\w\s]")
_RUN_OF_LETTERS = re.compile(r"[^\W\d_]+")
_POINTS = re.compile(r"[\u0591-\u05c7]")
_HEBREW_POINTS = regex.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_NO_MARKS = str.maketrans("đĐłŁ", "dDlL")
# "።" and its like end a sentence wherever they stand; "።" is often typed as two word separators.
# The others do so only before whitespace or the end of the text: not in 3.5, a.b or watch?v=1. A single full stop
# does not after one letter (J. Smith, z. B.), nor after one or two digits, which are mostly an ordinal.
_END = regex.compile(
    r"""
    (?: [።፧፨։׃。！？؟۔।॥] | ፡፡ )+ [\p{Pe}\p{Pf}"'.!?]{0,5}
    | (?<![.!?…])
      (?: [.!?…]{2,}+ | [!?…] | (?<! (?<![\p{L}\p{M}]) \p{L} | (?<!\d) \d{1,2} ) \. )
      [\p{Pe}\p{Pf}"']{0,5}+ [.!?…]{0,5}+ (?=\s|$)
    | [\n\r\v\f\u0085\u2028\u2029]+
    """,
    regex.VERBOSE,
)


def words(text: str) -> list[str]:
    """Split a text (NFC, Hebrew points removed, case kept) into words and punctuation marks.

    A word is a run of letters with their marks, digits and underscores of any script (``\\w`` of Unicode TR 18;
    the standard library would cut Telugu words at every vowel sign). Scripts without blanks, such as Thai, are
    not segmented: use the character metrics for them.
    """
    found: list[str] = _WORD.findall(_HEBREW_POINTS.sub("", unicodedata.normalize("NFC", text)))
    return found


def prefixes(texts: Sequence[str], width: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the first ``width`` characters of every text that is long enough, and the positions of these texts.

    Characters are code points after NFC; a run of whitespace counts as one, none at the ends. Shorter texts are
    left out: next to longer ones, their length alone would make them alike or different.
    """
    plain = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    long_enough = [i for i, text in enumerate(plain) if len(text) >= width]
    return [plain[i][:width] for i in long_enough], np.array(long_enough, dtype=np.int64)


def sentences(text: str) -> list[str]:
    """Split a text into stripped, non-empty sentences.

    A sentence ends at a line break, at marks such as ``።``, and at ``. ! ? …`` before whitespace. One set of rules
    for all languages, without lists of abbreviations: "approx. three" is split.
    """
    pieces, start = [], 0
    for match in _END.finditer(text):
        pieces.append(text[start : match.end()])
        start = match.end()
    pieces.append(text[start:])
    return [piece for piece in map(str.strip, pieces) if piece]


def pieces(text: str, least: int = 20) -> list[str]:
    """Return the sentences of a text; those with fewer than ``least`` letters are joined to a neighbour.

    That is the sentence before, for the first one the sentence after. Empty for a text without letters.
    """
    joined: list[str] = []
    for sentence in sentences(text):
        if joined and (letters(sentence) < least or (len(joined) == 1 and letters(joined[0]) < least)):
            joined[-1] += " " + sentence
        else:
            joined.append(sentence)
    return joined if any(letters(piece) for piece in joined) else []


def runs(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return the runs of ``size`` words in a row, in order."""
    return list(zip(*(words[i:] for i in range(size)), strict=False))


def letters(text: str) -> int:
    """Count the letters of a text, of any script."""
    return sum(map(str.isalpha, text))


def plain_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without Hebrew points and numbers."""
    return _RUN_OF_LETTERS.findall(lowercase(text))


def lowercase(text: str) -> str:
    """Return a text in lower case, composed (NFC), without Hebrew points."""
    return _POINTS.sub("", unicodedata.normalize("NFC", text)).lower()


def letters_of(piece: str) -> str:
    """Return only the letters of a piece of text."""
    return piece if piece.isalpha() else "".join(_RUN_OF_LETTERS.findall(piece))


def without_diacritics(text: str) -> str:
    """Return a text as it is typed without diacritics: ``čeština`` becomes ``cestina``."""
    pieces = unicodedata.normalize("NFD", text).translate(_NO_MARKS)
    return "".join(c for c in pieces if not unicodedata.combining(c))
