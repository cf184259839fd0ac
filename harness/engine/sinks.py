"""Attention sinks: special tokens and norm outliers, left out of a mean on request and counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

FACTOR = 10.0
"""A token is a norm outlier above this many times the median norm of its text at that layer."""


class AttentionSinkFilter:
    """Leave out special tokens and norm outliers, which would dominate a mean; count what was left out.

    A few tokens, most often the first, carry states of far larger norm than all others (arXiv 2402.17762).
    With weight 1/length in the mean they turn differences of length, which languages have, into a direction.
    Counts stay on the device while a batch is read, and are added up when the next one begins.
    """

    def __init__(self, tokenizer: Any, n_layers: int) -> None:
        self._tokenizer = tokenizer
        self._special = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.int64)
        self._by_norm = [0] * n_layers
        self._by_id = 0
        self._first = 0
        self._tokens: Counter[int] = Counter()
        self._ids: Tensor | None = None
        self._outliers: dict[int, Tensor] = {}

    def keep(self, layer: int, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return ``mask`` without sinks: [texts, positions], for states [texts, positions, size].

        By id: special tokens, at every layer. By norm: tokens above ``FACTOR`` times the median norm of
        the text's tokens that are not special, at this layer; the median is over the text alone, so that the
        batch does not matter.
        """
        special = torch.isin(ids, self._special.to(ids.device)) & mask
        rest = (mask & ~special).to(hidden.device)
        norms = hidden.float().norm(dim=2).masked_fill(~rest, float("nan"))
        outlier = (norms > FACTOR * norms.nanmedian(dim=1, keepdim=True).values) & rest
        kept: Tensor = rest & ~outlier
        if ids is not self._ids:
            self._add_batch()
            self._ids, self._n_special, self._times = ids, special.sum(), torch.zeros_like(ids)
        outlier = outlier.to(ids.device)
        first = mask.int().argmax(dim=1, keepdim=True)
        self._outliers[layer] = torch.stack([outlier.sum(), outlier.gather(1, first).sum()])
        self._times += outlier | special
        return kept

    def forget_batch(self) -> None:
        """Forget the batch that is being read, as if it had never begun."""
        self._ids, self._outliers = None, {}

    def _add_batch(self) -> None:
        if self._ids is None:
            return
        self._by_id += int(self._n_special)
        for layer, found in self._outliers.items():
            outliers, at_first = found.tolist()
            self._by_norm[layer] += outliers
            self._first += at_first
        left_out = self._times > 0
        for token, times in zip(self._ids[left_out].tolist(), self._times[left_out].tolist(), strict=True):
            self._tokens[token] += times
        self.forget_batch()

    def report(self, n_tokens: int) -> dict[str, Any]:
        """Return what was left out, as JSON: counts by rule and layer, and the commonest tokens.

        A token counts once for every layer at which it was left out; ``by_id`` counts it once in all.
        """
        self._add_batch()
        common = self._tokens.most_common(10)
        return {
            "rule": f"special tokens; norm above {FACTOR:g} x the text's median at that layer",
            "of_tokens": n_tokens,
            "by_id": self._by_id,
            "by_norm_per_layer": list(self._by_norm),
            "by_norm_at_first_token": f"{self._first} of {sum(self._by_norm)}",
            "tokens": {self._tokenizer.convert_ids_to_tokens(i): count for i, count in common},
        }
