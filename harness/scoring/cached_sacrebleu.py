"""chrF and BLEU of sacrebleu for texts that are compared again and again: each is taken apart once.

sacrebleu counts the n-grams of a text anew for every text that it is held against. Here a text becomes a set
of n-grams for every order; the second "aa" of a text is another element than the first, so that what texts
have in common is the size of an intersection. Tokens, n-grams and formulas remain sacrebleu's, and so do the
values, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams, extract_all_word_ngrams

Grams = list[set[Any]]
"""The n-grams of a text with their repeats: one set per order, the first of single characters."""
_References = Sequence[Sequence[str]] | None


def multiset(counts: Mapping[Any, int]) -> set[Any]:
    """Return counted n-grams as a set: the first of a kind by itself, a later one with its number."""
    found: set[Any] = set(counts)
    for gram, count in counts.items():
        if count > 1:
            found.update((gram, number) for number in range(1, count))
    return found


class CachedCHRF(CHRF):  # type: ignore[misc]
    """chrF that keeps the n-grams of every text, and the statistics of every pair of texts.

    Without word n-grams, as by default.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._grams_of: dict[str, Grams] = {}
        self._pairs: dict[tuple[str, str], tuple[float, list[int]]] = {}

    def _check_sentence_score_args(self, hyp: str, refs: Sequence[str]) -> None:
        """Leave the check of types to mypy: it takes longer than the score."""

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: _References) -> list[list[int]]:
        """Return the statistics of a text and the reference that it is most like, the first of several."""
        others = [other for (other,) in references or ()]
        self.num_refs = len(others)
        pairs = [self._pair(hypotheses[0], other) for other in others]
        return [max(pairs, key=lambda pair: pair[0])[1]]

    def _pair(self, text: str, other: str) -> tuple[float, list[int]]:
        """Return chrF of a text against another, and the statistics that it comes from."""
        if (text, other) not in self._pairs:
            one, two = self._grams(text), self._grams(other)
            common = [len(a & b) for a, b in zip(one, two, strict=True)]
            sizes = list(map(len, one)), list(map(len, two))
            self._pairs[text, other] = self._match(*sizes, common)
            self._pairs[other, text] = self._match(*sizes[::-1], common)
        return self._pairs[text, other]

    def _match(self, own: list[int], other: list[int], common: list[int]) -> tuple[float, list[int]]:
        """Return chrF with its statistics; an order that the reference is too short for counts nothing."""
        stats = [n for a, b, both in zip(own, other, common, strict=True) for n in (a if b else 0, b, both)]
        return self._compute_f_score(stats), stats

    def _grams(self, text: str) -> Grams:
        if text not in self._grams_of:
            plain = self._preprocess_segment(text)
            orders = extract_all_char_ngrams(plain, self.char_order, self.whitespace)
            self._grams_of[text] = [multiset(counts) for counts in orders]
        return self._grams_of[text]


class CachedBLEU(BLEU):  # type: ignore[misc]
    """BLEU that keeps the n-grams of every text, and the score of all statistics that it has met."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._grams_of: dict[str, tuple[set[Any], list[int]]] = {}
        self._orders: dict[Any, int] = {}
        self._scores: dict[tuple[int, ...], Any] = {}

    def _check_sentence_score_args(self, hyp: str, refs: Sequence[str]) -> None:
        """Leave the check of types to mypy: it takes longer than the score."""

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: _References) -> list[list[int]]:
        """Return the statistics of a text and all references together: the most of an n-gram counts."""
        grams, total = self._grams(hypotheses[0])
        others = [self._grams(other) for (other,) in references or ()]
        self.num_refs = len(others)
        correct = [0] * self.max_ngram_order
        for gram in grams.intersection(set().union(*(found for found, _ in others))):
            correct[self._orders[gram]] += 1
        length = self._get_closest_ref_len(total[0], [sizes[0] for _, sizes in others])
        return [[total[0], length, *correct, *total]]

    def _compute_score_from_stats(self, stats: list[int]) -> Any:
        key = tuple(stats)
        if key not in self._scores:
            self._scores[key] = super()._compute_score_from_stats(stats)
        return self._scores[key]

    def _grams(self, text: str) -> tuple[set[Any], list[int]]:
        """Return the n-grams of a text, of all orders, and how many of each order."""
        if text not in self._grams_of:
            counts, _ = extract_all_word_ngrams(self._preprocess_segment(text), 1, self.max_ngram_order)
            total = [0] * self.max_ngram_order
            for gram, count in counts.items():
                order = len(gram) - 1
                total[order] += count
                self._orders |= dict.fromkeys([gram, *((gram, number) for number in range(1, count))], order)
            self._grams_of[text] = multiset(counts), total
        return self._grams_of[text]
