"""Train one vector at one layer of a frozen model by gradient descent: Adam, two objectives.

Only the vector requires a gradient, so that the layers below it build no graph. It is added out of place,
in float32 until it meets the layer's own precision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.core.errors import UserError
from harness.core.interventions import Positions
from harness.core.terminal import clock
from harness.data.prompts import ITEM_END
from harness.data.suite import PromptFormat
from harness.engine.chat import end_token
from harness.engine.model import SteerableModel
from harness.engine.upper import UpperLayers, replaced

EVERY = 10  # steps between two evaluations of the held-out loss
PATIENCE = 3  # evaluations without a better one, after which training stops
_SORTED = 8  # batches whose texts are sorted by length
_HALF_SCALE = 1024.0  # float16 gradients below 6e-8 are 0


class Objective(Protocol):
    """A loss over numbered texts. Lower is better."""

    model: SteerableModel

    def length(self, row: int) -> int:
        """Return the number of tokens of a text that the loss is about."""

    def loss(self, rows: Sequence[int], vector: Tensor) -> tuple[Tensor, int]:
        """Return the loss summed over its parts, and how many parts there are."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train: at most ``steps`` batches; a step moves the vector by about ``lr`` at most.

    ``lr`` and ``max_norm``, the longest that the vector may get, are in units of the residual norm.
    """

    steps: int
    batch_size: int
    lr: float
    max_norm: float


@dataclass(frozen=True)
class TrainResult:
    """The vector with the lowest held-out loss, float32 [hidden size]; zero where none beat no vector.

    ``curve``: step, mean train loss since the last entry, held-out loss, norm in residual norms.
    """

    vector: NDArray[np.float32]
    curve: list[dict[str, float]]
    best_step: int
    stopped: str


def train_vector(
    objective: Objective,
    train: Sequence[int],
    held_out: Sequence[int],
    residual_norm: float,
    plan: TrainConfig,
    rng: np.random.Generator,
    say: Callable[[str], None] = lambda words: None,
) -> TrainResult:
    """Return the vector that Adam finds from 0 on; batches of ``train`` are drawn by ``rng``.

    The vector is ``residual_norm`` times what Adam works on. Training stops early when the held-out loss,
    evaluated every 10 steps, has not improved three times in a row. Raises ``UserError`` for a loss or a
    gradient that is not finite.
    """
    size = objective.model.hidden_size
    unit = torch.zeros(size, dtype=torch.float32, device=objective.model.device, requires_grad=True)
    adam = torch.optim.Adam([unit], lr=plan.lr / math.sqrt(size))
    batches = _batches(train, plan.batch_size, objective.length, rng)
    held_out = sorted(held_out, key=objective.length)

    def evaluate(step: int, train_loss: float) -> dict[str, float]:
        loss = mean_loss(objective, held_out, unit.detach() * residual_norm, plan.batch_size)
        left = f"{clock((time.monotonic() - started) / step * (plan.steps - step))} left, " if step else ""
        say(f"step {step}/{plan.steps}, {left}held-out {loss:.4g}")
        return {"step": step, "train": train_loss, "held_out": loss, "norm": float(unit.detach().norm())}

    start = mean_loss(objective, train[: plan.batch_size], unit.detach(), plan.batch_size)
    started = time.monotonic()
    curve, best, stopped = [evaluate(0, start)], unit.detach().clone(), f"all {plan.steps} steps done"
    best_entry, sums = 0, np.zeros(2)
    for step in range(1, plan.steps + 1):
        sums += _step(objective, next(batches), unit, residual_norm, adam, step)
        with torch.no_grad():
            unit *= (plan.max_norm / unit.norm().clamp(min=1e-12)).clamp(max=1.0)
        if step % EVERY and step < plan.steps:
            continue
        curve.append(evaluate(step, float(sums[0] / sums[1])))
        sums = np.zeros(2)
        if curve[-1]["held_out"] < curve[best_entry]["held_out"]:
            best, best_entry = unit.detach().clone(), len(curve) - 1
        elif len(curve) - 1 - best_entry >= PATIENCE:
            stopped = f"held-out loss not lower {PATIENCE} times in a row, at step {step}"
            break
    vector = (best * residual_norm).cpu().numpy().astype(np.float32)
    return TrainResult(vector, curve, int(curve[best_entry]["step"]), stopped)


def mean_loss(objective: Objective, rows: Sequence[int], vector: Tensor, batch_size: int) -> float:
    """Return the loss per part over ``rows``, without gradients; ``batch_size`` does not change it."""
    total, parts = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            loss, count = objective.loss(rows[start : start + batch_size], vector)
            total, parts = total + float(loss), parts + count
    _check_finite("loss", 0, math.isfinite(total))
    return total / max(parts, 1)


def _step(
    objective: Objective,
    rows: Sequence[int],
    unit: Tensor,
    residual_norm: float,
    adam: torch.optim.Optimizer,
    step: int,
) -> tuple[float, int]:
    """Take one step of Adam; return the batch's summed loss and its parts, both from before the step."""
    scale = _HALF_SCALE if objective.model.model.dtype == torch.float16 else 1.0
    adam.zero_grad()
    loss, count = objective.loss(rows, unit * residual_norm)
    (loss * (scale / max(count, 1))).backward()  # type: ignore[no-untyped-call]
    assert unit.grad is not None
    unit.grad /= scale
    _check_finite("gradient", step, bool(torch.isfinite(unit.grad).all()))
    adam.step()
    return float(loss.detach()), count


def _check_finite(what: str, step: int, finite: bool) -> None:
    if not finite:
        raise UserError(
            f"learned: the {what} is not finite at step {step}. Take --dtype bfloat16 or float32, or a lower lr."
        )


def _batches(
    rows: Sequence[int], size: int, length: Callable[[int], int], rng: np.random.Generator
) -> Iterator[list[int]]:
    """Yield batches of one size without end; what remains of an epoch opens the next one.

    Batches are cut from randomly drawn texts sorted by length, so that little is padding, and come in
    random order.
    """
    left: list[int] = []
    size = min(size, len(rows))
    n_batches = min(_SORTED, len(rows) // size)
    while True:
        while len(left) < size * n_batches:
            left += [rows[i] for i in rng.permutation(len(rows))]
        pool, left = sorted(left[: size * n_batches], key=length), left[size * n_batches :]
        for i in rng.permutation(n_batches):
            yield pool[i * size : (i + 1) * size]


class Likelihood:
    """Negative log-likelihood of answers under their prompts: nats per token, the end token included.

    ``examples``: (rendered prompt, text). A text of more than ``max_tokens`` tokens, or than the context
    has room for, is cut, and then has no end token. The vector is added at ``positions``.
    Raises ``UserError`` for a prompt that fills the context.
    """

    def __init__(
        self,
        model: SteerableModel,
        layer: int,
        examples: Sequence[tuple[str, str]],
        max_tokens: int,
        positions: Positions = "all",
        template: PromptFormat = "chat",
    ) -> None:
        self.model, self.positions = model, positions
        self.cut = 0
        distinct = list(dict.fromkeys(prompt for prompt, _ in examples))
        prompts = dict(zip(distinct, model.token_ids(distinct), strict=True))
        # A base prompt's list has no end token between its items: generation stops at the line break.
        closing, end = (ITEM_END, None) if template == "base" else ("", end_token(model, template))
        texts = model.token_ids([text + closing for _, text in examples])
        self.items = [
            (prompts[prompt], self._target(text, len(prompts[prompt]), max_tokens, end))
            for (prompt, _), text in zip(examples, texts, strict=True)
        ]
        # The last token of the prompt predicts the first of the answer: there the "generated" positions begin.
        rests = [(prompt[:-1], [*prompt[-1:], *target[:-1]]) for prompt, target in self.items]
        self._upper = UpperLayers(model, layer, rests)

    def _target(self, text: list[int], n_prompt: int, max_tokens: int, end: int | None) -> list[int]:
        limit = self.model.context_length
        # The last token is predicted and never read, hence one more than the context holds.
        room = max_tokens if limit is None else min(max_tokens, limit - n_prompt + 1)
        if room < 1:
            raise UserError(f"learned: the prompt has {n_prompt} tokens, the model takes {limit}.")
        target = text if end is None else [*text, end]
        self.cut += len(target) > room
        return target[:room]

    def length(self, row: int) -> int:
        """Return how many tokens of a text are predicted."""
        return len(self.items[row][1])

    def loss(self, rows: Sequence[int], vector: Tensor) -> tuple[Tensor, int]:
        """Return the summed negative log-likelihood and the number of predicted tokens."""
        batch = self._upper.batch(rows)

        def select(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (args[0][batch.after.to(args[0].device)][None], *args[1:])

        # The head computes only the logits that the loss needs: [tokens, vocabulary].
        handle = self.model.model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            output = self._upper.run(self.model.model, batch, vector, self.positions)
        finally:
            handle.remove()
        logits: Tensor = output.logits[0]
        tokens = torch.tensor([token for row in rows for token in self.items[row][1]], device=logits.device)
        return nn.functional.cross_entropy(logits.float(), tokens, reduction="sum"), len(tokens)


class Alignment:
    """Squared distance of steered sentences to their translations, in squared residual norms, per pair.

    Both are hidden states after layer ``readout``, averaged over the tokens of a sentence except padding;
    the translation's is read once, unsteered. ``pairs``: (sentence, translation).
    """

    def __init__(
        self,
        model: SteerableModel,
        layer: int,
        readout: int,
        pairs: Sequence[tuple[str, str]],
        residual_norm: float,
        max_tokens: int,
        batch_size: int,
    ) -> None:
        self.model, self.readout = model, model.layers[readout]
        limit = min(max_tokens, model.context_length or max_tokens)
        sentences, translations = (model.token_ids(side) for side in zip(*pairs, strict=True))
        self.items = [sentence[:limit] for sentence in sentences]
        self.cut = sum(len(sentence) > limit for sentence in sentences)
        self._unit = residual_norm
        others = [translation[:limit] for translation in translations]
        self._upper = UpperLayers(model, layer, [((), item) for item in self.items])
        with torch.no_grad():
            read = [self._translated(others[i : i + batch_size]) for i in range(0, len(others), batch_size)]
        self.references = torch.cat(read)

    def length(self, row: int) -> int:
        """Return how many tokens a sentence has."""
        return len(self.items[row])

    def loss(self, rows: Sequence[int], vector: Tensor) -> tuple[Tensor, int]:
        """Return the summed squared distance and the number of pairs."""
        batch = self._upper.batch(rows)
        steered = self._pooled(batch.mask, lambda: self._upper.run(self.model.decoder, batch, vector))
        distance = (steered - self.references[list(rows)]) / self._unit
        return distance.square().sum(), len(rows)

    def _translated(self, items: list[list[int]]) -> Tensor:
        ids, mask = _padded(self.model, items)
        decoder = self.model.decoder
        return self._pooled(mask, lambda: decoder(input_ids=ids, attention_mask=mask.long(), use_cache=False))

    def _pooled(self, mask: Tensor, run: Callable[[], object]) -> Tensor:
        """Return the mean state after the read-out layer in a pass: float32, [sentences, hidden size]."""
        found: list[Tensor] = []

        def read(state: Tensor) -> Tensor:
            found.append(state)
            return state.detach()  # so that the layers above build no graph

        with replaced(self.readout, read):
            run()
        (state,) = found
        mask = mask.to(state.device)
        kept = torch.where(mask[:, :, None], state, 0).sum(1, dtype=torch.float32)
        return kept / mask.sum(1, keepdim=True).clamp(min=1)


def _padded(model: SteerableModel, items: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids padded on the right and which of them are real, [texts, longest] each, on the model's device."""
    ids, mask = model.padded(items)
    return ids.to(model.device), mask.to(model.device)
