"""Decode a batch of prompts with transformers' ``generate``, without work that is thrown away.

A prompt that several texts share is read once. Rows that have ended leave the batch: ``generate`` is
called for a few tokens at a time, and goes on with the rows and the cache that are left. Since noise is
keyed, none of this changes a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.core.interventions import Steering
from harness.data.suite import SamplingParams
from harness.engine.model import SteerableModel
from harness.engine.sampling import KeyedSampler

_STRIDE = 16  # tokens between two looks at which rows have ended


@dataclass(frozen=True)
class Decoded:
    """New tokens of a row, without the end token; ``ended``: whether there was one."""

    n_prompt_tokens: int
    tokens: list[int]
    ended: bool


def decode(
    model: SteerableModel,
    prompts: list[str],
    steering: Steering,
    sampling: SamplingParams,
    keys: list[int],
    max_new_tokens: int,
    enough: Callable[[list[int]], bool] = lambda tokens: False,
) -> list[Decoded]:
    """Return the continuation of every prompt; ``keys`` are the 64-bit noise keys of the rows.

    ``enough`` returns whether nothing that follows a row's new tokens would be kept.
    """
    from transformers import GenerationConfig

    distinct = list(dict.fromkeys(prompts))
    encoded = model.encode(distinct, special_tokens=False, side="left")
    rows = torch.tensor([distinct.index(text) for text in prompts], device=model.device)
    ids, prompt_mask = encoded["input_ids"][rows], encoded["attention_mask"][rows]
    width = ids.shape[1]
    ends = _end_tokens(model)
    # A plain search, whose one candidate per step is the sampler's draw.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        eos_token_id=sorted(ends) or None,
        pad_token_id=model.tokenizer.pad_token_id,
        bos_token_id=model.tokenizer.bos_token_id,
        use_cache=True,
        return_dict_in_generate=True,
    )
    active, written = list(range(len(keys))), [list[int]() for _ in keys]
    with torch.inference_mode():
        cache = _prefill(model, encoded, steering, rows)
        for start in range(0, max_new_tokens, _STRIDE):
            grown = ids.shape[1] - width
            mask = prompt_mask[active]
            config.max_new_tokens = min(_STRIDE, max_new_tokens - start)
            sampler = KeyedSampler([keys[row] for row in active], width, sampling.temperature, sampling.top_p)
            with model.hooks.steer([steering] * len(active), mask):
                output = model.model.generate(
                    input_ids=ids,
                    attention_mask=torch.nn.functional.pad(mask, (0, grown), value=1),
                    generation_config=config,
                    logits_processor=[sampler],
                    past_key_values=cache,
                )
            new = output.sequences[:, ids.shape[1] :].tolist()
            for row, tokens in zip(active, new, strict=True):
                written[row] += tokens
            left = [i for i, row in enumerate(active) if ends.isdisjoint(new[i]) and not enough(written[row])]
            if not left:
                break
            # An unusual cache is dropped where rows leave: generate() then reads the remaining ones again.
            cache = output.past_key_values
            if len(left) < len(active):
                cache = _selected(cache, torch.tensor(left, dtype=torch.int64, device=ids.device))
            ids, active = output.sequences[left], [active[i] for i in left]
    lengths = encoded["attention_mask"].sum(1)[rows].tolist()
    return [_cut(length, tokens, ends) for length, tokens in zip(lengths, written, strict=True)]


def _end_tokens(model: SteerableModel) -> set[int]:
    stops = model.model.generation_config.eos_token_id
    stops = model.tokenizer.eos_token_id if stops is None else stops
    return {token for token in (stops if isinstance(stops, list) else [stops]) if token is not None}


def _prefill(model: SteerableModel, encoded: dict[str, Tensor], steering: Steering, rows: Tensor) -> Any:
    """Run each distinct prompt once, all but its last token; return the cache, a row per text.

    None, and generate() then reads the prompts itself, where there is nothing to share or no usual cache.
    """
    mask = encoded["attention_mask"]
    if mask.shape[1] < 2 or len(rows) == len(mask):
        return None
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with model.hooks.steer([steering] * len(mask), mask):
        output = model.decoder(
            input_ids=encoded["input_ids"][:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            use_cache=True,
        )
    return _selected(output.past_key_values, rows)


def _selected(cache: Any, rows: Tensor) -> Any:
    """Return a cache with these rows, None for a kind that cannot select rows."""
    if not hasattr(cache, "batch_select_indices"):
        return None
    cache.batch_select_indices(rows)
    return cache


def _cut(n_prompt_tokens: int, tokens: list[int], ends: set[int]) -> Decoded:
    stop = next((i for i, token in enumerate(tokens) if token in ends), None)
    return Decoded(n_prompt_tokens, tokens[:stop], stop is not None)
