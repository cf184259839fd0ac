"""Sentences of a text, by the marks that end one in the scripts of the suites."""

from __future__ import annotations

import regex

# "።" and its like end a sentence wherever they stand; "።" is often typed as two word separators.
# The others do before a blank or the end of the text alone: not in 3.5, a.b or watch?v=1. A single full stop
# does not after one letter (J. Smith, z. B.), nor after one or two digits, which mostly are an ordinal.
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


def sentences(text: str) -> list[str]:
    """Return the sentences of a text without blanks around them, in order; none of a blank text.

    A sentence ends at a line break, at marks such as ``።``, and at ``. ! ? …`` before a blank. Rules that
    hold for all languages alike, without lists of abbreviations: "approx. three" comes apart.
    """
    pieces, start = [], 0
    for match in _END.finditer(text):
        pieces.append(text[start : match.end()])
        start = match.end()
    pieces.append(text[start:])
    return [piece for piece in map(str.strip, pieces) if piece]


def pieces(text: str, least: int = 20) -> list[str]:
    """Return the sentences of a text, those with fewer than ``least`` letters joined to a neighbour.

    That is the sentence before, for the first the one after. None where the text has no letters.
    """
    joined: list[str] = []
    for sentence in sentences(text):
        if joined and (letters(sentence) < least or (len(joined) == 1 and letters(joined[0]) < least)):
            joined[-1] += " " + sentence
        else:
            joined.append(sentence)
    return joined if any(letters(piece) for piece in joined) else []


def letters(text: str) -> int:
    """Return how many letters a text has, of any script."""
    return sum(map(str.isalpha, text))
