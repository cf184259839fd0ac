"""Keyed sampling: the noise of a text comes from its name, not from a stream.

The noise for token v at step t of a text is a pure function of (the text's 64-bit key, t, v), so a
text does not depend on batch size, order, resume point or number of workers. A token is drawn as the
arg-max of log-probability plus Gumbel noise over the nucleus (Gumbel-max; nucleus: Holtzman et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

_CANDIDATES = 512  # the nucleus is looked for among this many likeliest tokens first


def _signed(value: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit integer."""
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_A = _signed(0xBF58476D1CE4E5B9)
_MIX_B = _signed(0x94D049BB133111EB)


def _rotate(value: Tensor, bits: int) -> Tensor:
    """Shift right without carrying the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix_hash(value: Tensor) -> Tensor:
    """Return SplitMix64 of int64 values, element-wise (Steele, Lea and Flood 2014).

    Integer arithmetic only, so that every device gives the same bits.
    """
    value = value + _GOLDEN
    value = (value ^ _rotate(value, 30)) * _MIX_A
    value = (value ^ _rotate(value, 27)) * _MIX_B
    return value ^ _rotate(value, 31)


def uniform(keys: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Return float64 numbers in (0, 1), shape of ``tokens`` [rows, n], for ``keys`` [rows]."""
    row = mix_hash(keys ^ mix_hash(torch.full_like(keys, step)))
    bits = mix_hash(row[:, None] ^ mix_hash(tokens))
    return (_rotate(bits, 12).to(torch.float64) + 0.5) * 2.0**-52  # exact, so never 0 or 1


class KeyedSampler(LogitsProcessor):  # type: ignore[misc]  # transformers ships no types
    """Leave one token per row: the draw of that row at that step.

    ``keys`` holds one unsigned 64-bit integer per row; ``prompt_length`` is the padded width of the
    prompt, from which the step is counted. Used with greedy search, which then takes the token left.
    """

    def __init__(self, keys: Sequence[int], prompt_length: int, temperature: float, top_p: float) -> None:
        self.keys = torch.tensor([_signed(key) for key in keys], dtype=torch.int64)
        self.prompt_length = prompt_length
        self.temperature = temperature
        self.top_p = top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return ``scores`` [rows, vocabulary] with all but the drawn token at minus infinity."""
        self.keys = self.keys.to(scores.device)
        step = input_ids.shape[1] - self.prompt_length
        chosen = self._draw(scores.to(torch.float32) / self.temperature, step)
        left = torch.full_like(scores, -math.inf)
        return left.scatter_(1, chosen[:, None], 0.0)

    def _draw(self, scaled: Tensor, step: int) -> Tensor:
        """Return the drawn token of every row of tempered logits [rows, vocabulary].

        The nucleus is looked for among the likeliest tokens; only rows where it reaches beyond them
        are sorted whole.
        """
        total = torch.logsumexp(scaled, dim=-1, keepdim=True)
        values, tokens = _argmax(scaled)
        drawn = self._pick(values, tokens, total, self.keys, step)
        if values.shape[1] == scaled.shape[1]:
            return drawn
        surely = (values - total).exp() * (values > values[:, -1:])  # ties of the last may be cut off
        flat = surely.sum(-1) < self.top_p
        if bool(flat.any()):
            values, tokens = torch.sort(scaled[flat], dim=-1, descending=True, stable=True)
            drawn[flat] = self._pick(values, tokens, total[flat], self.keys[flat], step)
        return drawn

    def _pick(self, values: Tensor, tokens: Tensor, total: Tensor, keys: Tensor, step: int) -> Tensor:
        """Return each row's Gumbel-max draw over the nucleus of its candidates, likeliest first."""
        mass = (values - total).exp().to(torch.float64)
        before = mass.cumsum(-1) - mass  # of all likelier tokens: 0 for the first, so one is left
        noise = -torch.log(-torch.log(uniform(keys, step, tokens)))
        perturbed = torch.where(before < self.top_p, values + noise, -math.inf)
        return tokens.gather(1, perturbed.argmax(-1, keepdim=True)).squeeze(1)


def _argmax(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and tokens of the likeliest candidates, likeliest first, ties by number.

    Half-precision logits hold many ties. Top-k orders those arbitrarily, so a draw could depend on how the
    other rows of the batch are looked up.
    """
    top = torch.topk(scaled, min(_CANDIDATES, scaled.shape[1]), dim=-1, sorted=False)
    tokens = top.indices.sort(-1).values
    values, order = torch.sort(scaled.gather(1, tokens), dim=-1, descending=True, stable=True)
    return values, tokens.gather(1, order)
