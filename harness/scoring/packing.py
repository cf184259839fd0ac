"""Texts of one batch laid end to end, without padding, in transformers' encoders of the BERT family.

Every token is computed once and none in vain: layers see [1, tokens, d], attention alone sees texts as rows, in groups
of similar length. In the last layer only the first tokens are computed beyond their attention: the others reach no
label. The results are those of padded batches up to rounding (``tests/scoring/test_finetuning.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_FROM_ZERO = {"bert", "electra"}  # model types that count positions from 0, the others from behind the pad's index
_GROUP = (
    4  # texts that attend in one call on a CPU, padded to the longest of them; on a GPU a call costs more than pads
)


@dataclass(frozen=True)
class _Group:
    """The tokens ``start`` to ``end`` of a batch as rows of a matrix [texts, longest].

    ``source`` [texts * longest]: the token of every position, counted from ``start`` (any for a pad); ``target``: the
    positions of the tokens; ``mask`` [texts, 1, 1, longest]: which positions are tokens.
    """

    start: int
    end: int
    source: Tensor
    target: Tensor
    mask: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float) -> Tensor:
        """Return [tokens, heads, d] for [heads, all tokens, d]; ``dropout`` is that of the probabilities."""
        rows, longest = self.mask.shape[0], self.mask.shape[-1]
        inputs = []
        for states in (query, key, value):
            own = states[:, self.start : self.end].transpose(0, 1)
            inputs.append(own[self.source].view(rows, longest, *own.shape[1:]).transpose(1, 2))
        q, k, v = inputs
        found: Tensor
        if dropout and not query.is_cuda:
            weights = (q * scale) @ k.transpose(2, 3)
            found = drop(weights.masked_fill(~self.mask, -torch.inf).softmax(-1), dropout) @ v
        else:
            found = nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask, dropout_p=dropout, scale=scale
            )
        tokens: Tensor = found.transpose(1, 2).flatten(0, 1)[self.target]
        return tokens


@dataclass(frozen=True)
class PackedBatch:
    """Texts of similar length next to one another; ``first``: where each begins, in the order in which they came."""

    tokens: Tensor
    positions: Tensor
    first: Tensor
    groups: list[_Group]


def pack(texts: Sequence[Sequence[int]], first_position: int, device: str | torch.device) -> PackedBatch:
    """Return token ids of texts, at least one and none of them empty, as one row of tokens, shortest text first."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    groups, end, together = [], 0, _GROUP if torch.device(device).type == "cpu" else len(order)
    for at in range(0, len(order), together):
        sizes = torch.tensor([len(texts[i]) for i in order[at : at + together]])
        mask = torch.arange(int(sizes[-1])) < sizes[:, None]
        source = (mask.flatten().cumsum(0) - 1).to(device)
        target = mask.flatten().nonzero()[:, 0].to(device)
        start, end = end, end + len(target)
        groups.append(_Group(start, end, source, target, mask[:, None, None].to(device)))
    sizes = torch.tensor([len(texts[i]) for i in order])
    starts = sizes.cumsum(0) - sizes
    tokens = torch.tensor([token for i in order for token in texts[i]])
    positions = torch.arange(end) - starts.repeat_interleave(sizes) + first_position
    first = starts[torch.tensor(order).argsort()]
    return PackedBatch(tokens[None].to(device), positions[None].to(device), first.to(device), groups)


class PackedClassifier:
    """A sequence classifier of transformers that reads packed batches; ``model`` is changed and used."""

    def __init__(self, model: Any) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register("steerboard_packed", _attention)
        self.model = model
        self._first_position = 0 if model.config.model_type in _FROM_ZERO else model.config.pad_token_id + 1
        self._batch: PackedBatch | None = None
        model.set_attn_implementation("steerboard_packed")
        encoder = model.base_model.encoder
        encoder.layer[-1].attention.output.register_forward_pre_hook(self._keep_first)
        encoder.register_forward_hook(_as_rows)
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Dropout:
                    setattr(module, name, _Dropout(child.p).train(child.training))

    def logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return [texts, labels] for token ids, in their order; computed in bfloat16 on a GPU."""
        self._batch = batch = pack(texts, self._first_position, self.model.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=batch.tokens.is_cuda):
            found: Tensor = self.model(
                input_ids=batch.tokens,
                position_ids=batch.positions,
                token_type_ids=torch.zeros_like(batch.tokens),
                packing=batch,
            ).logits
        return found.float()

    def _keep_first(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert self._batch is not None
        return tuple(states[:, self._batch.first] for states in inputs)


def _as_rows(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Return the states of first tokens, [1, texts, d], as those of texts with one token: heads read the first."""
    output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
    return output


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    packing: PackedBatch,
    dropout: float = 0.0,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return what transformers' attention functions return, [1, tokens, heads, d], for [1, heads, tokens, d]."""
    parts = [group.attend(query[0], key[0], value[0], dropout, scaling) for group in packing.groups]
    return torch.cat(parts)[None], None


class _Dropout(nn.Dropout):
    def forward(self, states: Tensor) -> Tensor:
        if not self.training or not self.p or states.is_cuda:
            return super().forward(states)
        return drop(states, self.p)


def drop(states: Tensor, share: float) -> Tensor:
    """Return ``states`` with about ``share`` of them 0 and the others scaled up, so that the expected values stay.

    On a CPU, torch's own dropout draws one number after the other, 64 bits each, and takes a tenth of the training;
    here every draw decides about four. The share is rounded to 2**-16.
    """
    level = round(share * 2**16)
    bits = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = (bits[: states.numel()] >= level - 2**15).view(states.shape)
    return states * kept.to(states.dtype).mul_(2**16 / (2**16 - level))
