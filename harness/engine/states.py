"""States of single texts: at the last token, or the mean over the content tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.core.errors import UserError
from harness.core.interventions import ReadAt, Site
from harness.engine.activations import (
    Progress,
    ReadingState,
    content_mask,
    for_batches,
    forward,
    gated_projections,
)
from harness.engine.model import SteerableModel


def text_states(
    model: SteerableModel,
    texts: Sequence[str],
    at: ReadAt = "last",
    layers: Sequence[int] | None = None,
    site: Site = "layer_output",
    budget: int | None = None,
    side: str = "right",
    progress: Progress = None,
) -> NDArray[np.float32]:
    """Return the state of every text: [texts, layers, size], layers in the order of ``layers``, by default all.

    ``last``: at the last token; ``mean``: over all tokens but special ones. Nothing is added to a text, BOS
    neither, and a text is cut to the model's context length. Beyond the result, memory holds one batch (see
    ``for_batches``). Raises ``UserError`` for a text without a token to read.
    """
    items = model.token_ids(texts, limit=model.context_length) if texts else []
    sources = model.layers if site == "layer_output" else gated_projections(model)
    chosen = list(range(len(sources)) if layers is None else layers)
    modules = nn.ModuleList([sources[layer] for layer in chosen])
    size = model.hidden_size if site == "layer_output" else int(sources[0].in_features)  # type: ignore[arg-type]
    found = np.zeros((len(items), len(chosen), size), dtype=np.float32)
    if empty := [text for text, item in zip(texts, items, strict=True) if not item]:
        raise _no_token(empty[0])

    def read(rows: list[int]) -> None:
        ids, mask = model.padded([items[i] for i in rows], side)
        position = torch.arange(mask.shape[1])
        last = mask & (position == (mask * position).amax(dim=1, keepdim=True))
        here = last if at == "last" else content_mask(model, ids, mask)
        if not here.any(dim=1).all():
            raise _no_token(texts[rows[int(here.any(dim=1).int().argmin())]])
        inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.long().to(model.device)}

        def tap(index: int, state: Tensor) -> None:
            tokens = here.to(state.device)
            kept = torch.where(tokens[:, :, None], state.float(), 0.0)  # chosen: a pad may hold NaN
            found[rows, index] = (kept.sum(dim=1) / tokens.sum(dim=1, keepdim=True)).cpu().numpy()

        forward(model, inputs, (modules, "output" if site == "layer_output" else "input", tap))

    for_batches(model, items, read, ReadingState(len(items), sum(map(len, items))), budget, progress)
    return found


def _no_token(text: str) -> UserError:
    return UserError(f"the text {text[:40]!r} holds no token to read.")
