"""Keyed sampling inside vLLM, which loads this module by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

from harness.engine.sampling import draw_tokens, signed
from harness.engine.vllm.worker import asked


@dataclass
class _Draw:
    """How the tokens of a request are drawn; ``tokens``: those so far, a list that vLLM goes on filling."""

    key: int
    temperature: float
    top_p: float
    tokens: list[int]


class KeyedSampler(LogitsProcessor):  # type: ignore[misc]
    """Leaves every row one token, the own engine's draw from the same logits, so that the likeliest one is it.

    Requests have temperature 0 in vLLM, and their own temperature, top-p and key in ``extra_args``; those without are
    left alone.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._draws: dict[int, _Draw] = {}

    def is_argmax_invariant(self) -> bool:
        """Say that the likeliest token becomes another one."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow requests that enter, leave and change their rows."""
        process_dict_updates(self._draws, batch_update, self._open)

    @staticmethod
    def _open(params: Any, prompt: list[int] | None, tokens: list[int]) -> _Draw | None:
        found = asked(params)
        return _Draw(found["key"], found["temperature"], found["top_p"], tokens) if "key" in found else None

    def apply(self, logits: Tensor) -> Tensor:
        """Return the logits with all tokens but the drawn one at minus infinity."""
        if not self._draws:
            return logits
        draws = list(self._draws.values())
        rows = torch.tensor(list(self._draws), device=self._device)
        drawn = draw_tokens(
            logits[rows],
            torch.tensor([signed(draw.key) for draw in draws], device=self._device),
            torch.tensor([len(draw.tokens) for draw in draws], device=self._device),
            torch.tensor([draw.temperature for draw in draws], dtype=torch.float32, device=self._device),
            torch.tensor([draw.top_p for draw in draws], dtype=torch.float64, device=self._device),
        )
        logits[rows] = float("-inf")
        logits[rows, drawn] = 0.0
        return logits
