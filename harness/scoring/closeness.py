"""chrF and BLEU of every text of a group against the others, with the n-grams of each text counted once.

The values are sacrebleu's ``sentence_score``, bit for bit. It counts the n-grams of every reference again for every
hypothesis, which took more than half of the time of scoring a small cell.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from itertools import combinations
from typing import Any

Bag = set[Hashable]
"""A multiset as a set: the second time that an item occurs it is (item, 1), then (item, 2).

Two of them have as many elements in common as the multisets have, and the union has the larger count of each item.
"""

_CHRF_ORDERS, _BLEU_ORDERS = range(1, 7), range(1, 5)
_RECALL = 4  # sacrebleu's beta**2


class ChrfGroups:
    """Groups of ``texts`` by chrF2 of each text against the best match among the others."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._bags = cache(lambda i: _char_bags(texts[i]))
        self._pair = cache(self._both_ways)

    def scores(self, group: Sequence[int]) -> list[float]:
        """Return the score of every text of a group (positions), 0 to 100."""
        best = [0.0] * len(group)
        for a, b in combinations(range(len(group)), 2):
            there, back = self._pair(group[a], group[b])
            best[a], best[b] = max(best[a], there), max(best[b], back)
        return best

    def _both_ways(self, one: int, other: int) -> tuple[float, float]:
        """Return chrF2 of a text against another, and of the other against it."""
        first = second = 0.0  # summed shares of the n-grams of each that the other has
        orders = 0
        for mine, theirs in zip(self._bags(one), self._bags(other), strict=True):
            if mine and theirs:
                common = len(mine & theirs)
                first += common / len(mine)
                second += common / len(theirs)
                orders += 1
        if not first or not second:
            return 0.0, 0.0
        first, second = first / orders, second / orders
        return _f_score(first, second), _f_score(second, first)


class BleuGroups:
    """Groups of ``texts`` by BLEU of each text against all others; ``bleu``: sacrebleu's metric."""

    def __init__(self, texts: Sequence[str], bleu: Any) -> None:
        self._bleu = bleu
        self._bags = cache(lambda i: _word_bags(bleu.tokenizer(texts[i].rstrip()).split()))

    def scores(self, group: Sequence[int]) -> list[float]:
        """Return the score of every text of a group (positions), 0 to 100."""
        bags = [self._bags(i) for i in group]
        return [self._score(own, [*bags[:at], *bags[at + 1 :]]) for at, own in enumerate(bags)]

    def _score(self, own: list[Bag], others: Sequence[list[Bag]]) -> float:
        """Return BLEU of n-grams of four orders against those of other texts."""
        total = list(map(len, own))
        correct = [len(mine) - len(mine.difference(*theirs)) for mine, *theirs in zip(own, *others, strict=True)]
        size = total[0]
        closest = min((len(bags[0]) for bags in others), key=lambda n: (abs(n - size), n))
        bleu = self._bleu
        found = bleu.compute_bleu(
            correct, total, size, closest, bleu.smooth_method, bleu.smooth_value, bleu.effective_order
        )
        return float(found.score)


def _f_score(precision: float, recall: float) -> float:
    score = (1 + _RECALL) * precision * recall
    score /= _RECALL * precision + recall
    return 100 * score


def _char_bags(text: str) -> list[Bag]:
    line = "".join(text.split())
    return [_bag(line[i : i + n] for i in range(len(line) - n + 1)) for n in _CHRF_ORDERS]


def _word_bags(tokens: Sequence[str]) -> list[Bag]:
    return [_bag(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for n in _BLEU_ORDERS]


def _bag(items: Iterable[Hashable]) -> Bag:
    counts: dict[Hashable, int] = {}
    found: Bag = set()
    for item in items:
        times = counts.get(item, 0)
        counts[item] = times + 1
        found.add((item, times) if times else item)
    return found
