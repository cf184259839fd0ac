"""Groupings of text by chance, for the control ``shuffled``. Keyed by id and text, not streamed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from harness.core.errors import UnsupportedError
from harness.core.files import digest
from harness.data.corpus import Contrast


def permute_languages(pools: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return each language's sentences after their languages were permuted, sentence by sentence.

    ``pools``: language -> id -> text. Only ids that every language has are used, so that each
    "language" gets every sentence once, in a language drawn by chance. Raises ``UnsupportedError``
    where there is no such id.
    """
    codes = list(pools)
    shared = [i for i in pools[codes[0]] if all(i in pool for pool in pools.values())]
    if not shared:
        raise UnsupportedError(
            f"control 'shuffled': there is no sentence that all languages have ({', '.join(codes)})."
        )
    dealt: dict[str, list[str]] = {code: [] for code in codes}
    for identity in shared:
        order = random.Random(f"shuffled/{identity}").sample(codes, len(codes))
        for code, source in zip(codes, order, strict=True):
            dealt[code].append(pools[source][identity])
    return dealt


def swap_pairs(contrast: Contrast, key: str) -> Contrast:
    """Return the pairs with human and degraded text changed over in every second pair, by chance."""
    good, bad = [], []
    for one, other in zip(contrast.good, contrast.bad, strict=True):
        heads = random.Random(digest(["shuffled", key, one, other])).random() < 0.5
        good.append(other if heads else one)
        bad.append(one if heads else other)
    return replace(contrast, good=good, bad=bad, source=f"{contrast.source}, labels shuffled")


def permute_labels(texts: Mapping[str, list[str]], key: str) -> dict[str, list[str]]:
    """Return labelled texts with the labels dealt anew by chance, as many of each as before."""
    pool = [text for group in texts.values() for text in group]
    random.Random(f"shuffled/{key}").shuffle(pool)
    dealt, start = {}, 0
    for label, group in texts.items():
        dealt[label] = pool[start : start + len(group)]
        start += len(group)
    return dealt
