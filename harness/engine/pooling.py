"""One state per text: the mean of the residual stream over its tokens, after every layer, steered or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.engine.activations import forward
from harness.engine.model import SteerableModel


def pooled_states(
    model: SteerableModel,
    texts: Sequence[str],
    rows: Sequence[Steering] | None = None,
    batch_size: int = 32,
    side: str = "right",
) -> NDArray[np.float32]:
    """Return the mean state of every text after every layer: [texts, layers, hidden size].

    The mean is over all tokens that are no padding; no BOS is added, and a text is cut to the model's
    context length. Text i is steered by ``rows[i]``, at every token whatever the positions, as in
    ``residual_change``: the state is that of steered text. Raises ``UserError`` for a text without a token,
    and where a steering does not fit the model.
    """
    if rows is not None and len(rows) != len(texts):
        raise ValueError(f"{len(rows)} steerings for {len(texts)} texts")
    steered = None if rows is None else [_everywhere(row) for row in rows]
    found = np.zeros((len(texts), len(model.layers), model.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))  # like lengths: little padding
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        own = None if steered is None else [steered[i] for i in batch]
        found[batch] = _batch(model, [texts[i] for i in batch], own, side)
    return found


def _everywhere(steering: Steering) -> Steering:
    return Steering(tuple(replace(item, positions="all") for item in steering.interventions))


def _batch(model: SteerableModel, texts: list[str], rows: list[Steering] | None, side: str) -> NDArray[np.float32]:
    """Return the mean states of one batch: [texts, layers, hidden size]."""
    inputs = model.encode(texts, special_tokens=False, side=side, limit=model.context_length)
    mask = inputs["attention_mask"].bool()
    empty = [text for text, tokens in zip(texts, mask.sum(dim=1).tolist(), strict=True) if not tokens]
    if empty:
        raise UserError(f"the text {empty[0][:40]!r} holds no token to average over.")
    means: list[Tensor] = []

    def read(layer: int, hidden: Tensor) -> None:
        here = mask.to(hidden.device)
        kept = torch.where(here[:, :, None], hidden.float(), 0.0)  # chosen: a pad may hold NaN
        means.append((kept.sum(dim=1) / here.sum(dim=1, keepdim=True)).cpu())

    with model.hooks.steer(rows or [Steering()] * len(texts), inputs["attention_mask"]):
        forward(model, inputs, model.layers, read, "output")
    return np.asarray(torch.stack(means, dim=1).numpy(), dtype=np.float32)
