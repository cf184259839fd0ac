"""Checks of single texts: no letters, another script, a loop, an echo of the prompt, gibberish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from harness.core.languages import FLORES, language
from harness.scoring.folding import plain as folded
from harness.scoring.ngrams import NgramIndex
from harness.scoring.subsampling import generator
from harness.scoring.text import letters, runs

LOOP_OF_WORDS, SHORT_LOOP = 1 / 3, 6
LOOP_OF_ALL, LONG_LOOP = 1 / 2, 50
REPEATED = 1 / 2
"""Bounds of ``is_repetition_loop``: share and least number of the words' characters that one run covers; the same for
all characters; share of repeated runs of four words. Chosen so that hardly any human text is hit."""

ECHOED_WORDS, ECHOED_CHARACTERS = 5, 30
"""How much in a row must occur in the prompt for an echo."""

_TIMES, _LAST = 3, 4000
_GRAM = 4
_HELD_OUT = 200
_WEIGHT = 5.0
_BETWEEN = 0.4
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_LETTER = regex.compile(r"\p{L}")
_NUMBER = regex.compile(r"\p{N}+")


def empty(text: str) -> bool:
    """Return whether a text has no letter of any script."""
    return not letters(text)


def script_of(code: str) -> str:
    """Return the ISO 15924 script of a language, ``Zyyy`` where it is not known."""
    return FLORES[code].split("_")[1] if code in FLORES else language(code).script


def script_share(text: str, script: str) -> float | None:
    """Return the share of a text's letters that are of an ISO 15924 script (Unicode's property Script).

    None for a text without letters, and where the script is not known.
    """
    pattern, total = _letter_of(script), len(_LETTER.findall(text))
    return len(pattern.findall(text)) / total if pattern and total else None


@cache
def _letter_of(script: str) -> Any:
    # Hans and Hant are ways to write one script of Unicode; Zyyy is what belongs to no script.
    name = {"Hans": "Hani", "Hant": "Hani"}.get(script, script)
    try:
        return None if name == "Zyyy" else regex.compile(rf"(?=\p{{L}})\p{{Script={name}}}")
    except regex.error:
        return None


def is_repetition_loop(text: str) -> bool:
    """Return whether a text is a repetition loop.

    It is if one run of its words, numbers aside, or of all its characters repeats a piece at least three times and
    covers much of the text, or if most runs of four words are repeats (seq-rep-4 of Welleck et al. 2020). Case and
    numbers do not matter. Of a long text the last 4,000 characters count: a model that loops does so until its
    tokens are used up.
    """
    plain = _NUMBER.sub("0", folded(text))[-_LAST:]
    words = _LETTERS.findall(plain)
    if repeated_words(words) > REPEATED:
        return True
    return any(
        loop_share(part, share) * len(part) >= max(least, share * len(part))
        for part, share, least in ((" ".join(words), LOOP_OF_WORDS, SHORT_LOOP), (plain, LOOP_OF_ALL, LONG_LOOP))
    )


def loop_share(text: str, least: float) -> float:
    """Return the share of a text in its longest run of a piece three times or more in a row; 0 if below ``least``."""
    text += " "  # so that "a a a" is three times "a "
    if not _may_loop(text, least):
        return 0.0
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    best = 0.0
    for period in range(1, len(codes) // _TIMES + 1):
        same = codes[period:] == codes[:-period]
        needed = max((_TIMES - 1) * period, max(best, least) * len(codes) - period)
        if np.count_nonzero(same) >= needed:
            edges = np.flatnonzero(np.diff(same, prepend=False, append=False))
            longest = int(np.max(edges[1::2] - edges[::2], initial=0))
            if longest >= needed:
                best = (longest + period) / len(codes)
    return best


def _may_loop(text: str, least: float) -> bool:
    """Return whether a text repeats enough to contain such a run: quick, without false negatives."""
    # Two thirds of a run of ``least`` of the text are repeats, except for the last seven characters.
    grams = [text[i : i + 8] for i in range(max(len(text) - 7, 1))]
    return len(grams) - len(set(grams)) >= (_TIMES - 1) / _TIMES * least * len(text) - 8


def repeated_words(words: list[str], size: int = 4) -> float:
    """Return the share of runs of ``size`` words that occurred in the text before."""
    found = runs(words, size)
    return 1 - len(set(found)) / len(found) if found else 0.0


class PromptEchoDetector:
    """Finds long pieces of prompts in texts: five words in a row, or thirty characters."""

    def __init__(self, prompts: Iterable[str]) -> None:
        plain = [folded(prompt) for prompt in prompts]
        self._words = {run for prompt in plain for run in runs(_WORD.findall(prompt), ECHOED_WORDS)}
        self._characters = {piece for prompt in plain for piece in _windows(prompt)}

    def echoed(self, text: str) -> bool:
        """Return whether a text repeats one of the prompts; case does not matter."""
        plain = folded(text)
        words = runs(_WORD.findall(plain), ECHOED_WORDS)
        return not self._words.isdisjoint(words) or not self._characters.isdisjoint(_windows(plain))


def _windows(text: str) -> list[str]:
    size = ECHOED_CHARACTERS
    return [text[i : i + size] for i in range(len(text) - size + 1)]


class CharacterNgramModel:
    """The character 4-grams of human text of a language, and the share of known ones below which a text is gibberish.

    ``known``: human text; ``held_out``: other human text, of which a sample is used. Held-out texts share many 4-grams
    with known text, the same texts with their characters shuffled few. The bound lies two fifths of the way from the
    second mean to the first. A short text gets the benefit of the doubt: five more ordinary 4-grams.
    """

    def __init__(self, known: Sequence[str], held_out: Sequence[str]) -> None:
        self._index = NgramIndex(known, _GRAM)
        draw = generator("gibberish")
        held_out = [text for text in held_out if text.strip()]
        chosen = [held_out[i] for i in draw.permutation(len(held_out))[:_HELD_OUT]]
        scrambled = ["".join(draw.permutation(list(text))) for text in chosen]
        self.human, self.random = self._mean(chosen), self._mean(scrambled)
        self.bound = self.random + _BETWEEN * (self.human - self.random)

    def gibberish(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return which texts have too few known 4-grams."""
        found, sizes = self._found(texts)
        flags: NDArray[np.bool_] = (found + _WEIGHT * self.human) / (sizes + _WEIGHT) < self.bound
        return flags

    def _found(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the number of known 4-grams of each text, and of all."""
        grams, known = self._index.known(texts)
        sizes = np.diff(grams.starts)
        return grams.mean(known) * sizes, sizes

    def _mean(self, texts: Sequence[str]) -> float:
        found, sizes = self._found(texts)
        return float(found.sum() / max(sizes.sum(), 1))
