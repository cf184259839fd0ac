"""Reading a model: mean hidden states of all layers in one pass over the texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import UserError
from harness.steering.model import SteerableModel


@dataclass(frozen=True)
class MeanStates:
    """Mean residual stream after every decoder layer, over all tokens that are no padding.

    ``mean``: float64, [layers, hidden size]; ``norm``: float64, [layers], the mean of ||h||.
    Every token weighs the same, so long texts weigh more. No BOS is added.
    """

    mean: NDArray[np.float64]
    norm: NDArray[np.float64]
    n_tokens: int
    n_texts: int


class _Sums:
    """Running float64 sums on each layer's own device."""

    def __init__(self, n_layers: int) -> None:
        self.state: list[Tensor | None] = [None] * n_layers
        self.norm: list[Tensor | None] = [None] * n_layers
        self.mask: Tensor | None = None

    def add(self, layer: int, hidden: Tensor) -> None:
        assert self.mask is not None
        weights = self.mask.to(hidden.device)
        kept = hidden[weights].to(torch.float64)  # selected, not multiplied: a pad may hold NaN
        state, norm = kept.sum(0), kept.norm(dim=1).sum()
        old_state, old_norm = self.state[layer], self.norm[layer]
        self.state[layer] = state if old_state is None else old_state + state
        self.norm[layer] = norm if old_norm is None else old_norm + norm


def mean_states(
    model: SteerableModel, texts: list[str], batch_size: int = 32, side: str = "right"
) -> MeanStates:
    """Return the masked means of all layers; every text is run once, either padding side.

    Texts are cut to the model's context length. Raises ``UserError`` for no text at all.
    """
    if not texts:
        raise UserError("no text to average over.")
    sums, n_tokens = _Sums(len(model.layers)), 0
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    with torch.inference_mode(), _capture(model, sums):
        for start in range(0, len(order), batch_size):
            batch = [texts[i] for i in order[start : start + batch_size]]
            n_tokens += _run(model, batch, side, sums)
    if n_tokens == 0:
        raise UserError("the texts hold no token to average over.")
    return MeanStates(
        mean=np.stack([_array(total) for total in sums.state]) / n_tokens,
        norm=np.array([float(_array(total)) for total in sums.norm]) / n_tokens,
        n_tokens=n_tokens,
        n_texts=len(texts),
    )


def _run(model: SteerableModel, batch: list[str], side: str, sums: _Sums) -> int:
    inputs = model.encode(batch, special_tokens=False, side=side, limit=model.context_length)
    mask = inputs["attention_mask"]
    if not mask.shape[1]:  # a batch of empty texts
        return 0
    sums.mask = mask.bool()
    # Positions follow the mask: a bare forward would count padding on the left as text.
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    decoder = model.model.get_decoder()
    decoder(**inputs, position_ids=positions, use_cache=False)
    return int(mask.sum())


@contextmanager
def _capture(model: SteerableModel, sums: _Sums) -> Iterator[None]:
    def hook(layer: int) -> Any:
        def add(module: Any, args: Any, output: Any) -> None:
            sums.add(layer, output if isinstance(output, Tensor) else output[0])

        return add

    handles = []
    try:
        for index, layer in enumerate(model.layers):
            handles.append(layer.register_forward_hook(hook(index)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _array(total: Tensor | None) -> NDArray[np.float64]:
    assert total is not None
    return np.asarray(total.cpu().numpy(), dtype=np.float64)
