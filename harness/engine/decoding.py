"""Decoding a batch of prompts with transformers' ``generate``, without work that is thrown away.

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
    """New tokens of a row, without the end token; ``ended`` says whether there was one."""

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

    ``enough`` says of a row's new tokens that nothing of what would follow is kept.
    """
    distinct = list(dict.fromkeys(prompts))
    encoded = model.encode(distinct, special_tokens=False, side="left")
    rows = torch.tensor([distinct.index(text) for text in prompts], device=model.device)
    with torch.inference_mode():
        cache = _prefill(model, encoded, steering, rows)
        batch = _Batch(model, steering, sampling, keys, encoded["input_ids"][rows], cache)
        batch.run(encoded["attention_mask"][rows], max_new_tokens, enough)
    lengths = encoded["attention_mask"].sum(1)[rows].tolist()
    return [_cut(length, tokens, batch.ends) for length, tokens in zip(lengths, batch.written, strict=True)]


class _Batch:
    """The rows that still write, and what each row has written."""

    def __init__(
        self,
        model: SteerableModel,
        steering: Steering,
        sampling: SamplingParams,
        keys: list[int],
        ids: Tensor,
        cache: Any,
    ) -> None:
        self.model, self.steering, self.sampling, self.keys = model, steering, sampling, keys
        self.width = ids.shape[1]
        self.ids, self.cache = ids, cache
        self.active = list(range(len(keys)))
        self.written: list[list[int]] = [[] for _ in keys]
        stops = model.model.generation_config.eos_token_id
        stops = model.tokenizer.eos_token_id if stops is None else stops
        listed = stops if isinstance(stops, list) else [stops]
        self.ends = {token for token in listed if token is not None}

    def run(self, prompt_mask: Tensor, max_new_tokens: int, enough: Callable[[list[int]], bool]) -> None:
        """Write until every row has ended, has ``enough`` or has ``max_new_tokens``."""
        left = max_new_tokens
        while self.active and left > 0:
            count = min(_STRIDE, left)
            output = self._step(prompt_mask[self.active], count)
            new = output.sequences[:, self.ids.shape[1] :].tolist()
            for row, tokens in zip(self.active, new, strict=True):
                self.written[row] += tokens
            left -= count
            going = [i for i, tokens in enumerate(new) if self.ends.isdisjoint(tokens)]
            self._keep(output, [i for i in going if not enough(self.written[self.active[i]])])

    def _step(self, prompt_mask: Tensor, count: int) -> Any:
        grown = self.ids.shape[1] - self.width
        mask = torch.nn.functional.pad(prompt_mask, (0, grown), value=1)
        keys = [self.keys[row] for row in self.active]
        sampler = KeyedSampler(keys, self.width, self.sampling.temperature, self.sampling.top_p)
        with self.model.hooks.steer([self.steering] * len(keys), prompt_mask):
            return self.model.model.generate(
                input_ids=self.ids,
                attention_mask=mask,
                generation_config=self._config(count),
                logits_processor=[sampler],
                past_key_values=self.cache,
            )

    def _keep(self, output: Any, rows: list[int]) -> None:
        """Go on with these rows of the last step's output."""
        cache = output.past_key_values
        if len(rows) < len(self.active):
            chosen = torch.tensor(rows, dtype=torch.int64, device=self.ids.device)
            if hasattr(cache, "batch_select_indices") and rows:
                cache.batch_select_indices(chosen)
            else:
                cache = None  # an unusual cache: generate() reads the rows that are left anew
        self.ids = output.sequences[rows]
        self.active = [self.active[row] for row in rows]
        self.cache = cache

    def _config(self, count: int) -> Any:
        """Return the settings of a plain search whose one candidate per step is the sampler's draw."""
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=count,
            eos_token_id=sorted(self.ends) or None,
            pad_token_id=self.model.tokenizer.pad_token_id,
            bos_token_id=self.model.tokenizer.bos_token_id,
            use_cache=True,
            return_dict_in_generate=True,
        )


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
    cache = output.past_key_values
    if not hasattr(cache, "batch_select_indices"):
        return None
    cache.batch_select_indices(rows)
    return cache


def _cut(n_prompt_tokens: int, tokens: list[int], ends: set[int]) -> Decoded:
    stop = next((i for i, token in enumerate(tokens) if token in ends), None)
    return Decoded(n_prompt_tokens, tokens[:stop], stop is not None)
