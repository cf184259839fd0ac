"""The beginnings of texts, all of one length, for metrics that length alone must not move."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def prefixes(texts: Sequence[str], width: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the first ``width`` characters of every text that has as many, and which texts these are.

    Characters are code points after NFC, any run of blanks counts as one, none at the ends. Shorter texts
    are left out: beside longer ones they would be alike, or different, by their length alone. The second
    value holds positions in ``texts``, ascending, one per window.
    """
    found: list[str] = []
    places: list[int] = []
    for i, text in enumerate(texts):
        plain = " ".join(unicodedata.normalize("NFC", text).split())
        if len(plain) >= width:
            found.append(plain[:width])
            places.append(i)
    return found, np.array(places, dtype=np.int64)
