"""Reading a model: mean hidden states and neurons, and what a steering changes, in one pass over texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.engine.hooks import down_projection
from harness.engine.model import SteerableModel


@dataclass(frozen=True)
class MeanStates:
    """Mean residual stream after every decoder layer, over all tokens that are no padding.

    ``mean``: float64, [layers, hidden size]; ``norm``: float64, [layers], the mean of ||h||.
    Every token weighs the same, so long texts weigh more. No BOS is added. ``excluded`` reports which
    sink tokens were left out, empty where none were looked for.
    """

    mean: NDArray[np.float64]
    norm: NDArray[np.float64]
    n_tokens: int
    n_texts: int
    excluded: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MlpActivationMeans:
    """Mean input of every layer's ``down_proj`` at the last token of a text: float64, [layers, neurons]."""

    mean: NDArray[np.float64]
    n_texts: int


class _RunningSums:
    """Running float64 sums of h, of ||h|| and of the count, on each layer's own device."""

    def __init__(self, n_layers: int) -> None:
        self.sums: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * n_layers

    def add(self, layer: int, hidden: Tensor, mask: Tensor) -> None:
        kept = hidden[mask.to(hidden.device)].to(torch.float64)  # selected: a pad may hold NaN
        new = (kept.sum(0), kept.norm(dim=1).sum(), torch.tensor(len(kept), device=hidden.device))
        old = self.sums[layer]
        a, b, c = new if old is None else tuple(x + y for x, y in zip(old, new, strict=True))
        self.sums[layer] = (a, b, c)

    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the means of h, [layers, size], and of ||h||, [layers]."""
        arrays = [[_array(part) for part in layer] for layer in self.sums if layer is not None]
        if not arrays or any(count == 0 for _, _, count in arrays):
            raise UserError("the texts hold no token to average over.")
        states = np.stack([state / count for state, _, count in arrays])
        return states, np.array([float(norm / count) for _, norm, count in arrays])


def mean_states(
    model: SteerableModel,
    texts: list[str],
    batch_size: int = 32,
    side: str = "right",
    exclude_sinks: bool = False,
    progress: Callable[[int], None] | None = None,
) -> MeanStates:
    """Return the masked means of all layers; every text is run once, either padding side.

    Texts are cut to the model's context length. With ``exclude_sinks``, tokens that ``AttentionSinkFilter`` names
    are left out, layer by layer. ``progress`` is called with the number of texts of every batch. Raises
    ``UserError`` for no text at all.
    """
    if not texts:
        raise UserError("no text to average over.")
    sums, n_tokens = _RunningSums(len(model.layers)), 0
    sinks = AttentionSinkFilter(model.tokenizer, len(model.layers)) if exclude_sinks else None
    for inputs in _batches(model, texts, batch_size, side, progress):
        mask = inputs["attention_mask"].bool()
        n_tokens += int(mask.sum())

        def add(layer: int, hidden: Tensor, inputs: Any = inputs, mask: Tensor = mask) -> None:
            kept = sinks.keep(layer, hidden, inputs["input_ids"], mask) if sinks else mask
            sums.add(layer, hidden, kept)

        forward(model, inputs, model.layers, add, "output")
    states, norms = sums.means()
    return MeanStates(states, norms, n_tokens, len(texts), sinks.report(n_tokens) if sinks else {})


def mean_mlp_activations(
    model: SteerableModel,
    texts: list[str],
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> MlpActivationMeans:
    """Return the mean input of every ``down_proj`` at the last token that is no padding, over ``texts``.

    ``progress`` is called with the number of texts of every batch. Raises ``UnsupportedError`` for a layer
    without a gated MLP, and ``UserError`` for a text without a token.
    """
    projections = nn.ModuleList(
        [down_projection(layer, required=i) for i, layer in enumerate(model.layers)]  # type: ignore[misc]
    )
    if not texts:
        raise UserError("no text to average over.")
    sums: list[Tensor | None] = [None] * len(projections)
    n_read = 0
    for inputs in _batches(model, texts, batch_size, "left", progress):
        n_read += int(inputs["attention_mask"][:, -1].sum())

        def add(layer: int, state: Tensor) -> None:
            total, old = state[:, -1].to(torch.float64).sum(0), sums[layer]
            sums[layer] = total if old is None else old + total

        forward(model, inputs, projections, add, "input")
    if n_read < len(texts):
        raise UserError(f"{len(texts) - n_read} texts hold no token, so no last token to read.")
    return MlpActivationMeans(np.stack([_array(total) for total in sums]) / len(texts), len(texts))


def relative_residual_shift(
    model: SteerableModel,
    steering: Steering,
    texts: list[str],
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Return by how much a steering moves the residual stream: mean ||h' - h|| / ||h||, [layers].

    The unit in which strengths of different kinds and families can be compared. Every token is steered
    here, whatever the positions: the figure is that of a steered token.
    """
    steering = Steering(tuple(replace(item, positions="all") for item in steering.interventions))
    totals, n_tokens = np.zeros(len(model.layers)), 0
    for inputs in _batches(model, texts, batch_size, "left", progress):
        mask = inputs["attention_mask"].bool()
        plain = _states(model, inputs)
        with model.hooks.steer([steering] * len(mask), inputs["attention_mask"]):
            steered = _states(model, inputs)
        for layer, (before, after) in enumerate(zip(plain, steered, strict=True)):
            here = mask.to(before.device)
            before, moved = before[here].double(), (after[here].double() - before[here].double())
            totals[layer] += float((moved.norm(dim=1) / before.norm(dim=1).clamp(min=1e-12)).sum())
        n_tokens += int(mask.sum())
    return totals / max(n_tokens, 1)


def _states(model: SteerableModel, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Return the output of every layer, [texts, positions, size] each."""
    found: list[Tensor] = []
    forward(model, inputs, model.layers, lambda layer, hidden: found.append(hidden), "output")
    return found


def _batches(
    model: SteerableModel,
    texts: list[str],
    batch_size: int,
    side: str,
    progress: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Yield tokenised batches of texts of like length; batches without any token are left out."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    for start in range(0, len(order), batch_size):
        batch = [texts[i] for i in order[start : start + batch_size]]
        inputs = model.encode(batch, special_tokens=False, side=side, limit=model.context_length)
        if inputs["attention_mask"].shape[1]:
            yield inputs
        if progress is not None:
            progress(len(batch))


def forward(
    model: SteerableModel,
    inputs: dict[str, Tensor],
    modules: nn.ModuleList,
    read: Callable[[int, Tensor], Any],
    what: str,
) -> None:
    """Run the decoder and give the input or output of every module to ``read(index, state)``."""
    # Positions follow the mask: a bare forward would count padding on the left as text.
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode(), _reading(modules, read, what):
        model.decoder(**inputs, position_ids=positions, use_cache=False)


@contextmanager
def _reading(modules: nn.ModuleList, read: Callable[[int, Tensor], Any], what: str) -> Iterator[None]:
    def after(index: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            read(index, output if isinstance(output, Tensor) else output[0])

        return hook

    def before(index: int) -> Any:
        def hook(module: Any, args: Any) -> None:
            read(index, args[0])

        return hook

    handles = []
    try:
        for index, module in enumerate(modules):
            if what == "output":
                handles.append(module.register_forward_hook(after(index)))
            else:
                handles.append(module.register_forward_pre_hook(before(index)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _array(total: Tensor | None) -> NDArray[np.float64]:
    assert total is not None
    return np.asarray(total.cpu().numpy(), dtype=np.float64)


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


FACTOR = 10.0
"""A token is an outlier where its norm exceeds this many times the median of its text at that layer."""


class AttentionSinkFilter:
    """Says which tokens to keep, and remembers which it dropped."""

    def __init__(self, tokenizer: Any, n_layers: int) -> None:
        self._tokenizer = tokenizer
        self._special = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.int64)
        self._by_norm = [0] * n_layers
        self._by_id = 0
        self._first = 0
        self._tokens: Counter[int] = Counter()

    def keep(self, layer: int, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Return ``mask`` without sinks: [texts, positions], for states [texts, positions, size].

        By id: special tokens, at every layer. By norm: tokens above ``FACTOR`` times the median norm of
        the text's tokens that are not special, at this layer; the median is over the text alone, so no
        batch matters.
        """
        special = torch.isin(ids, self._special.to(ids.device)) & mask
        rest = (mask & ~special).to(hidden.device)
        norms = hidden.float().norm(dim=2).masked_fill(~rest, float("nan"))
        median = norms.nanmedian(dim=1, keepdim=True).values
        outlier = (norms > FACTOR * median) & rest
        self._note(layer, special, outlier, ids, mask)
        kept: Tensor = rest & ~outlier
        return kept

    def _note(self, layer: int, special: Tensor, outlier: Tensor, ids: Tensor, mask: Tensor) -> None:
        outlier = outlier.to(ids.device)
        self._by_norm[layer] += int(outlier.sum())
        first = mask.int().argmax(dim=1)
        self._first += int(outlier[torch.arange(len(first), device=ids.device), first].sum())
        self._tokens.update(ids[outlier | special].tolist())
        if layer == 0:
            self._by_id += int(special.sum())

    def report(self, n_tokens: int) -> dict[str, Any]:
        """Return what was dropped, as JSON: counts by rule and layer, and the commonest tokens.

        A token counts once for every layer at which it was dropped; ``by_id`` counts it once in all.
        """
        total = sum(self._by_norm)
        common = self._tokens.most_common(10)
        return {
            "rule": f"special tokens; norm above {FACTOR:g} x the text's median at that layer",
            "of_tokens": n_tokens,
            "by_id": self._by_id,
            "by_norm_per_layer": list(self._by_norm),
            "by_norm_at_first_token": f"{self._first} of {total}",
            "tokens": {self._tokenizer.convert_ids_to_tokens(i): count for i, count in common},
        }
