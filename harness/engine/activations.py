"""Read a model in one pass over texts: mean hidden states and neurons, states per text, effect of a steering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.engine.hooks import down_projection
from harness.engine.model import SteerableModel

FACTOR = 10.0
"""A token is a norm outlier above this many times the median norm of its text at that layer."""

Progress = Callable[[int], None] | None
_Sums = dict[int, tuple[Tensor, ...]]


@dataclass(frozen=True)
class MeanStates:
    """Mean residual stream after every decoder layer, over all tokens except padding.

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


def mean_states(
    model: SteerableModel,
    texts: list[str],
    batch_size: int = 32,
    side: str = "right",
    exclude_sinks: bool = False,
    progress: Progress = None,
) -> MeanStates:
    """Return the masked means of all layers; padding on either side gives the same.

    Texts are cut to the model's context length. With ``exclude_sinks``, tokens that ``AttentionSinkFilter`` names
    are left out, layer by layer. ``progress`` gets the number of texts of every batch. Raises ``UserError`` where
    there is no text, and where there is no token.
    """
    sums: _Sums = {}
    n_tokens = 0
    sinks = AttentionSinkFilter(model.tokenizer, len(model.layers)) if exclude_sinks else None
    for inputs in _batches(model, texts, batch_size, side, progress):
        mask = inputs["attention_mask"].bool()
        n_tokens += int(mask.sum())

        def add(layer: int, hidden: Tensor, ids: Tensor = inputs["input_ids"], mask: Tensor = mask) -> None:
            kept = sinks.keep(layer, hidden, ids, mask) if sinks else mask
            # Selected, not multiplied by the mask: a pad may hold NaN. Float64, since a float32 sum drifts.
            states = hidden[kept.to(hidden.device)].to(torch.float64)
            count = torch.tensor(len(states), device=hidden.device)
            _add(sums, layer, states.sum(0), states.norm(dim=1).sum(), count)

        forward(model, inputs, model.layers, add, "output")
    arrays = [[_array(part) for part in layer] for layer in sums.values()]
    if not arrays or any(count == 0 for _, _, count in arrays):
        raise UserError("the texts hold no token to average over.")
    mean = np.stack([state / count for state, _, count in arrays])
    norm = np.array([float(norm / count) for _, norm, count in arrays])
    return MeanStates(mean, norm, n_tokens, len(texts), sinks.report(n_tokens) if sinks else {})


def mean_mlp_activations(
    model: SteerableModel, texts: list[str], batch_size: int = 32, progress: Progress = None
) -> MlpActivationMeans:
    """Return the mean input of every ``down_proj`` at the last token of each text, over ``texts``.

    Raises ``UnsupportedError`` for a layer without a gated MLP, and ``UserError`` for a text without a token.
    """
    projections = nn.ModuleList(
        [down_projection(layer, required=i) for i, layer in enumerate(model.layers)]  # type: ignore[misc]
    )
    sums: _Sums = {}
    n_read = 0
    for inputs in _batches(model, texts, batch_size, "left", progress):
        n_read += int(inputs["attention_mask"][:, -1].sum())
        forward(model, inputs, projections, lambda i, x: _add(sums, i, x[:, -1].to(torch.float64).sum(0)), "input")
    if n_read < len(texts):
        raise UserError(f"{len(texts) - n_read} texts hold no token, so no last token to read.")
    return MlpActivationMeans(np.stack([_array(total) for (total,) in sums.values()]) / len(texts), len(texts))


def relative_residual_shift(
    model: SteerableModel, steering: Steering, texts: list[str], batch_size: int = 8, progress: Progress = None
) -> NDArray[np.float64]:
    """Return by how much a steering moves the residual stream: mean ||h' - h|| / ||h||, [layers].

    The unit in which strengths of different kinds and families can be compared. Every token is steered
    here, whatever the positions: the figure is that of a steered token.
    """
    steering = _everywhere(steering)
    totals, n_tokens = np.zeros(len(model.layers)), 0
    for inputs in _batches(model, texts, batch_size, "left", progress):
        mask = inputs["attention_mask"].bool()
        plain: list[Tensor] = []
        steered: list[Tensor] = []
        forward(model, inputs, model.layers, lambda _, h, to=plain: to.append(h), "output")  # type: ignore[misc]
        with model.hooks.steer([steering] * len(mask), inputs["attention_mask"]):
            forward(model, inputs, model.layers, lambda _, h, to=steered: to.append(h), "output")  # type: ignore[misc]
        for layer, (before, after) in enumerate(zip(plain, steered, strict=True)):
            here = mask.to(before.device)
            before, moved = before[here].double(), (after[here].double() - before[here].double())
            totals[layer] += float((moved.norm(dim=1) / before.norm(dim=1).clamp(min=1e-12)).sum())
        n_tokens += int(mask.sum())
    return totals / max(n_tokens, 1)


def pooled_states(
    model: SteerableModel,
    texts: Sequence[str],
    rows: Sequence[Steering] | None = None,
    batch_size: int = 32,
    side: str = "right",
) -> NDArray[np.float32]:
    """Return the mean state of every text after every layer: [texts, layers, hidden size].

    The mean is over all tokens except padding; no BOS is added, and a text is cut to the model's
    context length. Text i is steered by ``rows[i]``, at every token whatever the positions. Raises
    ``UserError`` for a text without a token, and where a steering does not fit the model.
    """
    if rows is not None and len(rows) != len(texts):
        raise ValueError(f"{len(rows)} steerings for {len(texts)} texts")
    steered = [_everywhere(row) for row in rows or [Steering()] * len(texts)]
    found = np.zeros((len(texts), len(model.layers), model.hidden_size), dtype=np.float32)
    for batch in _by_length(texts, batch_size):
        inputs = _encode(model, [texts[i] for i in batch], side)
        mask = inputs["attention_mask"].bool()
        for i, n_tokens in zip(batch, mask.sum(dim=1).tolist(), strict=True):
            if not n_tokens:
                raise UserError(f"the text {texts[i][:40]!r} holds no token to average over.")
        means: list[Tensor] = []

        def read(layer: int, hidden: Tensor, mask: Tensor = mask, means: list[Tensor] = means) -> None:
            here = mask.to(hidden.device)
            kept = torch.where(here[:, :, None], hidden.float(), 0.0)  # chosen: a pad may hold NaN
            means.append((kept.sum(dim=1) / here.sum(dim=1, keepdim=True)).cpu())

        with model.hooks.steer([steered[i] for i in batch], inputs["attention_mask"]):
            forward(model, inputs, model.layers, read, "output")
        found[batch] = torch.stack(means, dim=1).numpy()
    return found


def forward(
    model: SteerableModel,
    inputs: dict[str, Tensor],
    modules: nn.ModuleList,
    read: Callable[[int, Tensor], None],
    what: Literal["input", "output"],
) -> None:
    """Run the decoder and give the input or output of every module to ``read(index, state)``."""

    def hook(index: int) -> Any:
        def after(module: Any, args: Any, output: Any = None) -> None:
            state = args if what == "input" else output
            read(index, state if isinstance(state, Tensor) else state[0])

        return after

    # Positions follow the mask: a bare forward would count padding on the left as text.
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with ExitStack() as stack, torch.inference_mode():
        for i, module in enumerate(modules):
            add = module.register_forward_hook if what == "output" else module.register_forward_pre_hook
            stack.callback(add(hook(i)).remove)
        model.decoder(**inputs, position_ids=positions, use_cache=False)


def _everywhere(steering: Steering) -> Steering:
    return Steering(tuple(replace(item, positions="all") for item in steering.interventions))


def _by_length(texts: Sequence[str], batch_size: int) -> list[list[int]]:
    """Return batches of the indices of texts of similar length, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _encode(model: SteerableModel, texts: list[str], side: str) -> dict[str, Tensor]:
    return model.encode(texts, special_tokens=False, side=side, limit=model.context_length)


def _batches(
    model: SteerableModel, texts: list[str], batch_size: int, side: str, progress: Progress
) -> Iterator[dict[str, Tensor]]:
    """Yield tokenised batches; those without any token are left out. Raises ``UserError`` for no text at all."""
    if not texts:
        raise UserError("no text to average over.")
    for batch in _by_length(texts, batch_size):
        inputs = _encode(model, [texts[i] for i in batch], side)
        if inputs["attention_mask"].shape[1]:
            yield inputs
        if progress is not None:
            progress(len(batch))


def _add(sums: _Sums, layer: int, *new: Tensor) -> None:
    """Add to the running sums of a layer, on its own device."""
    sums[layer] = tuple(x + y for x, y in zip(sums[layer], new, strict=True)) if layer in sums else new


def _array(total: Tensor) -> NDArray[np.float64]:
    return np.asarray(total.cpu().numpy(), dtype=np.float64)


class AttentionSinkFilter:
    """Leave out special tokens and norm outliers, which would dominate a mean; count what was left out.

    A few tokens, most often the first, carry states of far larger norm than all others (arXiv 2402.17762).
    With weight 1/length in the mean they turn differences of length, which languages have, into a direction.
    """

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
        the text's tokens that are not special, at this layer; the median is over the text alone, so that the
        batch does not matter.
        """
        special = torch.isin(ids, self._special.to(ids.device)) & mask
        rest = (mask & ~special).to(hidden.device)
        norms = hidden.float().norm(dim=2).masked_fill(~rest, float("nan"))
        outlier = (norms > FACTOR * norms.nanmedian(dim=1, keepdim=True).values) & rest
        kept: Tensor = rest & ~outlier
        outlier = outlier.to(ids.device)
        first = mask.int().argmax(dim=1)
        self._by_norm[layer] += int(outlier.sum())
        self._first += int(outlier[torch.arange(len(first), device=ids.device), first].sum())
        self._tokens.update(ids[outlier | special].tolist())
        self._by_id += int(special.sum()) if layer == 0 else 0
        return kept

    def report(self, n_tokens: int) -> dict[str, Any]:
        """Return what was left out, as JSON: counts by rule and layer, and the commonest tokens.

        A token counts once for every layer at which it was left out; ``by_id`` counts it once in all.
        """
        common = self._tokens.most_common(10)
        return {
            "rule": f"special tokens; norm above {FACTOR:g} x the text's median at that layer",
            "of_tokens": n_tokens,
            "by_id": self._by_id,
            "by_norm_per_layer": list(self._by_norm),
            "by_norm_at_first_token": f"{self._first} of {sum(self._by_norm)}",
            "tokens": {self._tokenizer.convert_ids_to_tokens(i): count for i, count in common},
        }
