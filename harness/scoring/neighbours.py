"""Languages that are easily taken for one of the suites': words that tell them from it.

The files in ``neighbours/`` hold, per language, words and for each neighbour the log of how much likelier a
word is there. They come from word frequencies of one source for both sides, so that the kind of text makes
little difference; sources and licences: ``neighbours/README.md``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "neighbours"

_WORD = re.compile(r"[^\W\d_]+")
_POINTS = re.compile(r"[\u0591-\u05c7]")
_OWN_TEXT = frozenset({"am"})  # its list is short: words of the suite's text count, too
_FLOOR, _CLIP = 3e-5, 5.0  # as in benchmarks/neighbour_words.py
_NO_MARKS = str.maketrans("đĐłŁ", "dDlL")


def plain_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without Hebrew points and numbers."""
    return _WORD.findall(plain(text))


def plain(text: str) -> str:
    """Return a text in lower case, composed (NFC), without Hebrew points."""
    return _POINTS.sub("", unicodedata.normalize("NFC", text)).lower()


def letters_of(piece: str) -> str:
    """Return the letters of a piece of text alone."""
    return piece if piece.isalpha() else "".join(_WORD.findall(piece))


def unmarked(text: str) -> str:
    """Return a text as it is typed without diacritics: ``čeština`` becomes ``cestina``."""
    pieces = unicodedata.normalize("NFD", text).translate(_NO_MARKS)
    return "".join(c for c in pieces if not unicodedata.combining(c))


class NeighbourWords:
    """Weighs the words of texts: do they speak for the language ``code`` or for one of its ``neighbours``?

    ``own``: text of the language; used for languages with a short list. A word that is in no list says
    nothing.
    """

    def __init__(self, code: str, own: Sequence[str]) -> None:
        self.neighbours, weights = _table(code)
        self._weights = _with_own(weights, own) if code in _OWN_TEXT else weights

    def evidence(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return, per text and neighbour, log(likelihood there / likelihood in the language), in nats."""
        found = np.zeros((len(texts), len(self.neighbours)))
        for i, text in enumerate(texts):
            known = [self._weights[word] for word in plain_words(text) if word in self._weights]
            if known:
                found[i] = np.sum(known, axis=0)
        return found


@cache
def _table(code: str) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    path = FOLDER / f"{code}.tsv"
    if not path.is_file():
        return (), {}
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return tuple(head.split("\t")[1:]), {word: tuple(map(float, values)) for word, *values in rows}


def _with_own(weights: dict[str, tuple[float, ...]], own: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Return weights against the frequencies of words in text of the language."""
    counts = Counter(word for text in own for word in plain_words(text))
    width = len(next(iter(weights.values())))
    found = dict(weights)
    for word, count in counts.items():
        usual = max(float(np.log(count / counts.total() / _FLOOR)), 0.0)
        row = (value - usual for value in weights.get(word, (0.0,) * width))
        found[word] = tuple(max(-_CLIP, min(_CLIP, value)) for value in row)
    return found
