"""Keyed sampling: the noise of a text comes from its name, not from a stream.

The noise for token v at step t of a text is a pure function of (the text's 64-bit key, t, v), so a
text does not depend on batch size, order, resume point or number of workers. A token is drawn as the
arg-max of log-probability plus Gumbel noise over the nucleus (Gumbel-max; nucleus: Holtzman et al. 2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CANDIDATES = (64, 512)  # the nucleus is looked for among so many likeliest tokens, then among more, then among all
_BLOCK = 16  # tokens of which the maximum is taken first: a maximum costs a fraction of a partial sort


def signed(value: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit integer."""
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = signed(0x9E3779B97F4A7C15)
_MIX_A = signed(0xBF58476D1CE4E5B9)
_MIX_B = signed(0x94D049BB133111EB)


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


def uniform(keys: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
    """Return float64 numbers in (0, 1), shape of ``tokens`` [rows, n], for ``keys`` and ``steps`` [rows]."""
    row = mix_hash(keys ^ mix_hash(steps))
    bits = mix_hash(row[:, None] ^ mix_hash(tokens))
    return (_rotate(bits, 12).to(torch.float64) + 0.5) * 2.0**-52  # exact, so never 0 or 1


def draw_tokens(logits: Tensor, keys: Tensor, steps: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """Return the drawn token of every row of ``logits`` [rows, vocabulary].

    ``keys`` and ``steps``, int64 [rows]: the text's key and the number of its new tokens so far; ``temperature``
    and ``top_p``: [rows], float32 and float64. A row's draw does not depend on the other rows.
    """
    scaled = logits.to(torch.float32) / temperature[:, None]
    total = torch.logsumexp(scaled, dim=-1, keepdim=True)
    drawn = torch.zeros_like(keys)
    rows = torch.arange(len(keys), device=keys.device)
    for size in (*(n for n in _CANDIDATES if n < scaled.shape[1]), scaled.shape[1]):
        values, tokens = _find_likeliest(scaled, size)
        # Float64, on candidates alone: rounding decides where a nucleus ends and which of two tokens wins.
        mass = (values - total).exp().to(torch.float64)
        before = mass.cumsum(-1) - mass  # of all likelier tokens: 0 for the first, so one is left
        noise = -torch.log(-torch.log(uniform(keys, steps, tokens)))
        perturbed = torch.where(before < top_p[:, None], values + noise, -math.inf)
        drawn[rows] = tokens.gather(1, perturbed.argmax(-1, keepdim=True)).squeeze(1)
        surely = torch.where(values > values[:, -1:], mass, 0.0)  # ties of the last may be cut off
        beyond = surely.sum(-1) < top_p
        if size == scaled.shape[1] or not bool(beyond.any()):
            break
        rows, scaled, total, keys, steps, top_p = (part[beyond] for part in (rows, scaled, total, keys, steps, top_p))
    return drawn


def _find_likeliest(scaled: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return values and tokens of the ``size`` likeliest candidates, likeliest first, ties by number.

    Half-precision logits hold many ties. Top-k orders those arbitrarily, so a draw could depend on how the
    other rows of the batch are looked up.
    """
    if size == scaled.shape[1]:
        return torch.sort(scaled, dim=-1, descending=True, stable=True)
    pool = _find_blocks(scaled, size)
    top = torch.topk(scaled if pool is None else scaled.gather(1, pool), size, dim=-1, sorted=False).indices
    tokens = (top if pool is None else pool.gather(1, top)).sort(-1).values
    values, order = torch.sort(scaled.gather(1, tokens), dim=-1, descending=True, stable=True)
    return values, tokens.gather(1, order)


def _find_blocks(scaled: Tensor, size: int) -> Tensor | None:
    """Return tokens [rows, n] that hold the ``size`` likeliest: those of the blocks with the greatest maxima.

    None where that would be most of the vocabulary. (A likelier token in another block would make that block's
    maximum one of the greatest.)
    """
    rows, vocabulary = scaled.shape
    blocks = vocabulary // _BLOCK
    if blocks < 2 * size:
        return None
    whole = blocks * _BLOCK
    maxima = scaled[:, :whole].view(rows, blocks, _BLOCK).amax(-1)
    best = torch.topk(maxima, size, dim=-1, sorted=False).indices
    within = torch.arange(_BLOCK, device=scaled.device)
    pool = (best[:, :, None] * _BLOCK + within).flatten(1)
    rest = torch.arange(whole, vocabulary, device=scaled.device).expand(rows, -1)
    return torch.cat([pool, rest], dim=1)
