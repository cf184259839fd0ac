"""Texts that hold no words of the language: characters in an order that human text does not know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.scoring.ngrams import NgramIndex
from harness.scoring.subsampling import generator

SIZE = 4
_HELD_OUT = 200
_WEIGHT = 5.0
_BETWEEN = 0.4


class CharacterNgramModel:
    """The character 4-grams of human text of a language, and how few of them make a text gibberish.

    ``known``: human text; ``held_out``: human text that is not in it, of which some is used. Held-out texts
    share much with what is known, the same with their characters in random order share little. The bound
    lies two fifths of the way from the second mean to the first. A short text gets the benefit of the doubt:
    it counts as if it held five more 4-grams of ordinary human text.
    """

    def __init__(self, known: Sequence[str], held_out: Sequence[str]) -> None:
        self._index = NgramIndex(known, SIZE)
        draw = generator("gibberish")
        held_out = [text for text in held_out if text.strip()]
        chosen = [held_out[i] for i in draw.permutation(len(held_out))[:_HELD_OUT]]
        scrambled = ["".join(draw.permutation(list(text))) for text in chosen]
        self.human, self.random = self._mean(chosen), self._mean(scrambled)
        self.bound = self.random + _BETWEEN * (self.human - self.random)

    def gibberish(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return which texts hold too few known 4-grams."""
        found, sizes = self._found(texts)
        flags: NDArray[np.bool_] = (found + _WEIGHT * self.human) / (sizes + _WEIGHT) < self.bound
        return flags

    def _found(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return how many 4-grams of each text are known, and how many there are."""
        grams, known = self._index.known(texts)
        sizes = np.diff(grams.starts)
        return grams.mean(known) * sizes, sizes

    def _mean(self, texts: Sequence[str]) -> float:
        found, sizes = self._found(texts)
        return float(found.sum() / max(sizes.sum(), 1))
