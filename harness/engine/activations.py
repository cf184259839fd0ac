"""Read a model in one pass over texts: mean hidden states and neurons, states per text, effect of a steering."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.core.errors import UserError
from harness.core.interventions import ReadAt, Steering
from harness.engine.hooks import down_projection
from harness.engine.model import SteerableModel
from harness.engine.sinks import AttentionSinkFilter

BUDGETS = {"cpu": 1024, "cuda": 16384}
"""Tokens of a batch, padding included, by device: what fits the caches of a CPU, and what fills a GPU."""

Tap = tuple[nn.ModuleList, Literal["input", "output"], Callable[[int, Tensor], None]]
"""Modules, what of them is read, and ``read(index, state)``, which gets it."""


@dataclass
class ReadingState:
    """How far a reading is: texts and tokens read, of how many."""

    n_texts: int
    n_tokens: int
    texts: int = 0
    tokens: int = 0


Progress = Callable[[ReadingState], None] | None


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
    """Mean input of every layer's ``down_proj``: float64, [layers, neurons].

    At the last token of every text, ``open`` is then None; or over all content tokens, and ``open`` is the share
    of them at which the neuron's gate, act(gate(h)), is above 0.
    """

    mean: NDArray[np.float64]
    n_texts: int
    open: NDArray[np.float64] | None = None

    def over_all(self, n_texts: int) -> MlpActivationMeans:
        """Return the means if they are of so many texts; ``UserError`` where some held no token."""
        if self.n_texts < n_texts:
            raise UserError(f"{n_texts - self.n_texts} texts hold no token, so no last token to read.")
        return self


def read_means(
    model: SteerableModel,
    texts: Sequence[str],
    budget: int | None = None,
    side: str = "right",
    *,
    states: bool = True,
    neurons: ReadAt | None = None,
    exclude_sinks: bool = False,
    progress: Progress = None,
) -> tuple[MeanStates | None, MlpActivationMeans | None]:
    """Return the means of hidden states and of neurons over ``texts``, all layers in one pass.

    Batches are those of ``for_batches``. Texts are cut to the model's context length. With ``exclude_sinks``,
    tokens that ``AttentionSinkFilter`` names are left out of the states, layer by layer. Raises ``UserError`` where
    there is no text or no token, and ``UnsupportedError`` for neurons of a layer without a gated MLP.
    """
    if not texts:
        raise UserError("no text to average over.")
    sums = _Sums(
        model, states, neurons, AttentionSinkFilter(model.tokenizer, len(model.layers)) if exclude_sinks else None
    )
    items = model.token_ids(texts, limit=model.context_length)
    done = ReadingState(n_texts=len(texts), n_tokens=sum(map(len, items)))
    if not done.n_tokens:
        raise UserError("the texts hold no token to average over.")
    done.texts = len(texts) - sum(map(bool, items))
    for_batches(model, items, lambda rows: sums.read([items[i] for i in rows], side), done, budget, progress)
    return sums.states(done), sums.neurons()


def for_batches(
    model: SteerableModel,
    items: Sequence[Sequence[int]],
    read: Callable[[list[int]], None],
    done: ReadingState,
    budget: int | None = None,
    progress: Progress = None,
) -> None:
    """Call ``read`` with the indices of every batch of texts that hold a token.

    A batch holds texts of similar length, the longest first, and at most ``budget`` tokens with its padding, but at
    least one text; where a device has too little memory, the budget is halved and the batch read again.
    """
    order = sorted((i for i, item in enumerate(items) if item), key=lambda i: (-len(items[i]), i))
    budget = budget or _budget(model)
    while order:
        longest = len(items[order[0]])
        batch = order[: max(budget // longest, 1)]
        try:
            read(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            budget = len(batch) * longest // 2
            torch.cuda.empty_cache()
            continue
        order = order[len(batch) :]
        done.texts, done.tokens = done.texts + len(batch), done.tokens + sum(len(items[i]) for i in batch)
        if progress is not None:
            progress(done)


def content_mask(model: SteerableModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Return ``mask`` without special tokens: [texts, positions]. A token for what is unknown is content."""
    special = set(model.tokenizer.all_special_ids) - {model.tokenizer.unk_token_id}
    return mask & ~torch.isin(ids, torch.tensor(sorted(special), dtype=torch.int64))


def mean_states(
    model: SteerableModel,
    texts: Sequence[str],
    budget: int | None = None,
    side: str = "right",
    exclude_sinks: bool = False,
) -> MeanStates:
    """Return the masked means of all layers; see ``read_means``. Padding on either side gives the same."""
    found, _ = read_means(model, texts, budget, side, exclude_sinks=exclude_sinks)
    assert found is not None
    return found


def mean_mlp_activations(model: SteerableModel, texts: Sequence[str], budget: int | None = None) -> MlpActivationMeans:
    """Return the mean input of every ``down_proj`` at the last token of each text; see ``read_means``.

    Raises ``UserError`` also for a text without a token.
    """
    _, found = read_means(model, texts, budget, states=False, neurons="last")
    assert found is not None
    return found.over_all(len(texts))


class _Sums:
    """Running float64 sums of a reading, each on the device of its layer; a batch is added when all of it is read.

    Nothing here waits for the device: numbers of tokens are known before, and sums leave it at the end.
    """

    def __init__(
        self, model: SteerableModel, states: bool, neurons: ReadAt | None, sinks: AttentionSinkFilter | None
    ) -> None:
        self._model, self._sinks, self._at = model, sinks, neurons
        self._taps: list[Tap] = []
        if states:
            self._taps.append((model.layers, "output", self._add_states))
        if neurons:
            self._taps.append((gated_projections(model), "input", self._add_neurons))
        if neurons == "mean":
            self._taps.append((_gates(model), "output", self._add_gates))
        self._total: dict[tuple[str, int], tuple[Tensor, ...]] = {}
        self._batch: dict[tuple[str, int], tuple[Tensor, ...]] = {}
        self._n_texts = self._n_content = 0

    def read(self, items: list[list[int]], side: str) -> None:
        """Add the texts of a batch, as token ids."""
        ids, mask = self._model.padded(items, side)
        # Selected by position, not multiplied by the mask: a pad may hold NaN.
        real = mask.flatten().nonzero().squeeze(1)
        if self._at == "mean":
            read = content_mask(self._model, ids, mask).flatten().nonzero().squeeze(1)
        else:  # the last tokens
            read = mask.shape[1] * torch.arange(len(items)) + (mask.shape[1] if side == "left" else mask.sum(dim=1)) - 1
        device = self._model.device
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._real, self._chosen = _OnDevices(real), _OnDevices(read)
        self._batch = {}
        try:
            forward(self._model, {"input_ids": self._ids, "attention_mask": self._mask.long()}, *self._taps)
        except BaseException:
            if self._sinks is not None:
                self._sinks.forget_batch()
            raise
        for key, new in self._batch.items():
            old = self._total.get(key)
            self._total[key] = new if old is None else tuple(x + y for x, y in zip(old, new, strict=True))
        self._n_texts, self._n_content = self._n_texts + len(items), self._n_content + len(read)

    def _add_states(self, layer: int, hidden: Tensor) -> None:
        here = self._real.on(hidden.device)
        states = hidden.flatten(0, 1).index_select(0, here)
        count: tuple[Tensor, ...] = ()
        if self._sinks is not None:
            kept = self._sinks.keep(layer, hidden, self._ids, self._mask).flatten().index_select(0, here)
            states = torch.where(kept[:, None], states, 0.0)
            count = (kept.sum(),)
        total = states.sum(0, dtype=torch.float64)  # a float32 sum drifts
        norms = torch.linalg.vector_norm(states, dim=1, dtype=torch.float64)
        self._batch["states", layer] = (total, norms.sum(), *count)

    def _add_neurons(self, layer: int, inputs: Tensor) -> None:
        chosen = inputs.flatten(0, 1).index_select(0, self._chosen.on(inputs.device))
        self._batch["neurons", layer] = (chosen.sum(0, dtype=torch.float64),)

    def _add_gates(self, layer: int, output: Tensor) -> None:
        mlp: Any = self._model.layers[layer].mlp
        gate = output if hasattr(mlp, "gate_proj") else output.chunk(2, dim=-1)[0]  # of gate and up in one matrix
        chosen = gate.flatten(0, 1).index_select(0, self._chosen.on(gate.device))
        self._batch["gates", layer] = ((chosen > 0).sum(0, dtype=torch.float64),)  # the sign of act(gate)

    def _arrays(self, kind: str) -> list[list[NDArray[np.float64]]]:
        layers = range(len(self._model.layers))
        return [[_array(part) for part in self._total[kind, i]] for i in layers if (kind, i) in self._total]

    def states(self, done: ReadingState) -> MeanStates | None:
        """Return the mean states; None where they were not asked for, ``UserError`` where no token was left."""
        found = self._arrays("states")
        if not found:
            return None
        counts = [float(part[2]) if self._sinks else done.n_tokens for part in found]
        if not all(counts):
            raise UserError("the texts hold no token to average over.")
        mean = np.stack([part[0] / count for part, count in zip(found, counts, strict=True)])
        norm = np.array([float(part[1] / count) for part, count in zip(found, counts, strict=True)])
        report = self._sinks.report(done.n_tokens) if self._sinks else {}
        return MeanStates(mean, norm, done.n_tokens, done.n_texts, report)

    def neurons(self) -> MlpActivationMeans | None:
        """Return the mean neurons; None where they were not asked for, ``UserError`` where no token was read."""
        found = self._arrays("neurons")
        if not found:
            return None
        if not self._n_content:
            raise UserError("the texts hold no token but special ones to average over.")
        mean = np.stack([total for (total,) in found]) / self._n_content
        opened = [total for (total,) in self._arrays("gates")]
        return MlpActivationMeans(mean, self._n_texts, np.stack(opened) / self._n_content if opened else None)


def gated_projections(model: SteerableModel) -> nn.ModuleList:
    """Return the ``down_proj`` of every layer; ``UnsupportedError`` names the first that has none."""
    return nn.ModuleList([down_projection(layer, required=i) for i, layer in enumerate(model.layers)])  # type: ignore[misc]


def _gates(model: SteerableModel) -> nn.ModuleList:
    """Return the module of every layer whose output is the gate before its activation, or begins with it."""
    mlps: list[Any] = [layer.mlp for layer in model.layers]
    return nn.ModuleList([mlp.gate_proj if hasattr(mlp, "gate_proj") else mlp.gate_up_proj for mlp in mlps])


def has_gated_projections(model: SteerableModel) -> bool:
    """Say whether every layer has a gated MLP, whose neurons can be read."""
    return all(down_projection(layer) is not None for layer in model.layers)


class _OnDevices:
    """An index that is copied once to every device that the layers of a model are on."""

    def __init__(self, index: Tensor) -> None:
        self._copies = {index.device: index}

    def on(self, device: torch.device) -> Tensor:
        if device not in self._copies:
            self._copies[device] = next(iter(self._copies.values())).to(device)
        return self._copies[device]


def relative_residual_shift(
    model: SteerableModel, steering: Steering, texts: list[str], batch_size: int = 8
) -> NDArray[np.float64]:
    """Return by how much a steering moves the residual stream: mean ||h' - h|| / ||h||, [layers].

    The unit in which strengths of different kinds and families can be compared. Every token is steered
    here, whatever the positions: the figure is that of a steered token.
    """
    steering = _everywhere(steering)
    totals, n_tokens = np.zeros(len(model.layers)), 0
    for inputs in _batches(model, texts, batch_size, "left"):
        mask = inputs["attention_mask"].bool()
        plain: list[Tensor] = []
        steered: list[Tensor] = []
        forward(model, inputs, (model.layers, "output", lambda _, h, to=plain: to.append(h)))  # type: ignore[misc]
        with model.hooks.steer([steering] * len(mask), inputs["attention_mask"]):
            forward(model, inputs, (model.layers, "output", lambda _, h, to=steered: to.append(h)))  # type: ignore[misc]
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
            forward(model, inputs, (model.layers, "output", read))
        found[batch] = torch.stack(means, dim=1).numpy()
    return found


def forward(model: SteerableModel, inputs: dict[str, Tensor], *taps: Tap) -> None:
    """Run the decoder once; every tap gets the input or output of its modules by ``read(index, state)``."""

    def hook(read: Callable[[int, Tensor], None], index: int, what: str) -> Any:
        def after(module: Any, args: Any, output: Any = None) -> None:
            state = args if what == "input" else output
            read(index, state if isinstance(state, Tensor) else state[0])

        return after

    if "position_ids" in inspect.signature(model.decoder.forward).parameters:
        # Positions follow the mask: a bare forward would count padding on the left as text.
        inputs = {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    with ExitStack() as stack, torch.inference_mode():
        for modules, what, read in taps:
            for i, module in enumerate(modules):
                add = module.register_forward_hook if what == "output" else module.register_forward_pre_hook
                stack.callback(add(hook(read, i, what)).remove)
        model.decoder(**inputs, use_cache=False)


def _budget(model: SteerableModel) -> int:
    return BUDGETS.get(model.device.type, BUDGETS["cuda"])


def _everywhere(steering: Steering) -> Steering:
    return Steering(tuple(replace(item, positions="all") for item in steering.interventions))


def _by_length(texts: Sequence[str], batch_size: int) -> list[list[int]]:
    """Return batches of the indices of texts of similar length, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _encode(model: SteerableModel, texts: list[str], side: str) -> dict[str, Tensor]:
    return model.encode(texts, special_tokens=False, side=side, limit=model.context_length)


def _batches(model: SteerableModel, texts: list[str], batch_size: int, side: str) -> Iterator[dict[str, Tensor]]:
    """Yield tokenised batches; those without any token are left out. Raises ``UserError`` for no text at all."""
    if not texts:
        raise UserError("no text to average over.")
    for batch in _by_length(texts, batch_size):
        inputs = _encode(model, [texts[i] for i in batch], side)
        if inputs["attention_mask"].shape[1]:
            yield inputs


def _array(total: Tensor) -> NDArray[np.float64]:
    return np.asarray(total.cpu().numpy(), dtype=np.float64)
