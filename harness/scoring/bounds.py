"""Bounds above which texts are flagged: where honest texts end and copies begin. See docs/metrics.md."""

from __future__ import annotations

import math

COPIED_BOUND = 0.1
"""Share of copies above which texts are flagged, for every corpus.

It lies above what people copy from one another: of the human train texts of eleven languages and two tasks
(`steer11`), 0.8 % on average copy a human test text, at most 8.1 % (short Slovak reviews; then 5.8 %, German
posts), 0.5 % and 6.2 % a validation text, none a vector text. Vector text contains the train sentences of the topic
task on purpose: there all of them are copies."""
HIDDEN_BOUND = 0.1
"""Share of texts with hidden characters, above that of human text (at most 6 % of a cell, mostly none)."""
OVERLAP_BOUND = 0.2
"""Share of n-grams that occur in a held-out split, above that of human text."""
RECITED_BOUND = 0.3
"""Share of n-grams that occur in train text, above that of the model's unsteered texts."""
MARGIN, SPREAD = 0.02, 0.25
"""``MARGIN + SPREAD / sqrt(n)`` is the bound of membership. Honest rows lie below ``MARGIN`` but for chance;
``SPREAD`` is three standard deviations of a text's difference where it varies most."""


def membership_bound(texts: float) -> float:
    """Return the mean difference above which texts are flagged, for so many independent ones."""
    return MARGIN + SPREAD / math.sqrt(max(texts, 1.0))


def flagged(copies: int, texts: int, usual: float = 0.0) -> bool:
    """Return whether there are too many copies: the whole 95 % interval is above ``usual + COPIED_BOUND``.

    ``usual``: the share of the same model, task and language without the method (zero-shot or few-shot, whichever is
    more). A model that recites train text does so under every method; a method is flagged for what it adds.
    Nothing excuses copies of validation and test text: leave it 0 there.
    """
    return texts > 0 and share_interval(copies, texts)[0] > usual + COPIED_BOUND


def share_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, ``count`` of ``n`` (Wilson 1927)."""
    # Not ``validity.wilson``, which takes a share: the last digits of stored intervals would change.
    z = 1.959964
    middle, half = (count + z * z / 2) / (n + z * z), z * (count * (n - count) / n + z * z / 4) ** 0.5
    return (max(middle - half / (n + z * z), 0.0), min(middle + half / (n + z * z), 1.0))
