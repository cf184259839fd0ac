"""Sink tokens: special tokens and outliers of norm, which would dominate a mean of hidden states.

A few tokens, most often the first, carry states of far larger norm than all others (arXiv 2402.17762).
With weight 1/length in the mean they turn differences of length, which languages have, into a direction.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

FACTOR = 10.0
"""A token is an outlier where its norm exceeds this many times the median of its text at that layer."""


class AttentionSinkFilter:
    """Says which tokens to keep, and remembers which it dropped."""

    def __init__(self, tokenizer: Any, n_layers: int) -> None:
        self._tokenizer = tokenizer
        self._special = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.int64)
        self._by_norm = [0] * n_layers
        self._by_id = 0
        self._first = 0
        self._tokens: Counter[int] = Counter()

    def keep(self, layer: int, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return ``mask`` without sinks: [texts, positions], for states [texts, positions, size].

        By id: special tokens, at every layer. By norm: tokens above ``FACTOR`` times the median norm of
        the text's tokens that are not special, at this layer; the median is over the text alone, so no
        batch matters.
        """
        special = torch.isin(ids, self._special.to(ids.device)) & mask
        rest = (mask & ~special).to(hidden.device)
        norms = hidden.float().norm(dim=2).masked_fill(~rest, float("nan"))
        median = norms.nanmedian(dim=1, keepdim=True).values
        outlier = (norms > FACTOR * median) & rest
        self._note(layer, special, outlier, ids, mask)
        kept: Tensor = rest & ~outlier
        return kept

    def _note(self, layer: int, special: Tensor, outlier: Tensor, ids: Tensor, mask: Tensor) -> None:
        outlier = outlier.to(ids.device)
        self._by_norm[layer] += int(outlier.sum())
        first = mask.int().argmax(dim=1)
        self._first += int(outlier[torch.arange(len(first), device=ids.device), first].sum())
        self._tokens.update(ids[outlier | special].tolist())
        if layer == 0:
            self._by_id += int(special.sum())

    def report(self, n_tokens: int) -> dict[str, Any]:
        """Return what was dropped, as JSON: counts by rule and layer, and the commonest tokens.

        A token counts once for every layer at which it was dropped; ``by_id`` counts it once in all.
        """
        total = sum(self._by_norm)
        common = self._tokens.most_common(10)
        return {
            "rule": f"special tokens; norm above {FACTOR:g} x the text's median at that layer",
            "of_tokens": n_tokens,
            "by_id": self._by_id,
            "by_norm_per_layer": list(self._by_norm),
            "by_norm_at_first_token": f"{self._first} of {total}",
            "tokens": {self._tokenizer.convert_ids_to_tokens(i): count for i, count in common},
        }
