"""What a model computes: states before and after steering, by hand, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.core.interventions import Steering
from harness.engine.model import SteerableModel

IDS = torch.tensor([[5, 40, 90, 200, 7], [5, 60, 61, 62, 63]])


FULL = torch.ones_like(IDS)


NOTHING = Steering()


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def bits(state: Tensor) -> Tensor:
    """Return the bytes of a state, so that -0.0 is not 0.0."""
    return state.contiguous().view(torch.uint8)


@contextmanager
def watch(model: SteerableModel, layer: int, site: str = "layer_output") -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Record the state of a site before and after steering, one tensor per forward pass."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    module: Any = model.layers[layer]
    if site == "layer_output":
        handles = [
            module.register_forward_hook(lambda m, a, o: before.append(first(o)), prepend=True),
            module.register_forward_hook(lambda m, a, o: after.append(first(o))),
        ]
    else:
        down = module.mlp.down_proj
        handles = [
            down.register_forward_pre_hook(lambda m, a: before.append(a[0]), prepend=True),
            down.register_forward_pre_hook(lambda m, a: after.append(a[0])),
        ]
    try:
        yield before, after
    finally:
        for handle in handles:
            handle.remove()


def forward(model: SteerableModel, rows: list[Steering], mask: Tensor = FULL, **options: Any) -> Any:
    with torch.inference_mode(), model.hooks.steer(rows, mask):
        return model.model(input_ids=IDS[: len(rows)], attention_mask=mask, **options)


def states(model: SteerableModel, rows: list[Steering], mask: Tensor = FULL) -> list[Tensor]:
    """Return the output of every layer in one pass, as the next layer gets it."""
    seen: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda m, a, o: seen.append(first(o))) for layer in model.layers]
    try:
        forward(model, rows, mask)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def token_ids(model: SteerableModel, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def by_hand(model: SteerableModel, text: str) -> np.ndarray:
    """Return the output of every layer for one text alone: [layers, tokens, hidden size]."""
    seen: list[Any] = []
    handles = [
        layer.register_forward_hook(lambda m, a, o: seen.append(o if isinstance(o, torch.Tensor) else o[0]))
        for layer in model.layers
    ]
    with torch.inference_mode():
        model.model(torch.tensor([token_ids(model, text)]))
    for handle in handles:
        handle.remove()
    return np.stack([state[0].double().numpy() for state in seen])


def gates_and_neurons(model: SteerableModel, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return act(gate) and act(gate) x up at every token of one text, from the weights."""
    gates: list[np.ndarray] = []
    neurons: list[np.ndarray] = []

    def note(mlp: Any, args: Any, output: Any) -> None:
        x, weight = args[0][0].double(), lambda m: m.weight.double()
        if hasattr(mlp, "gate_up_proj"):
            gate, up = (x @ weight(mlp.gate_up_proj).T).chunk(2, dim=-1)
        else:
            gate, up = x @ weight(mlp.gate_proj).T, x @ weight(mlp.up_proj).T
        act = (getattr(mlp, "act_fn", None) or mlp.activation_fn)(gate)
        gates.append(act.numpy())
        neurons.append((act * up).numpy())

    handles = [layer.mlp.register_forward_hook(note) for layer in model.layers]
    with torch.inference_mode():
        model.model(torch.tensor([token_ids(model, text)]))
    for handle in handles:
        handle.remove()
    return np.stack(gates), np.stack(neurons)


def content(model: SteerableModel, text: str) -> list[int]:
    """Return the positions of the tokens that no list of special tokens has."""
    return [i for i, token in enumerate(token_ids(model, text)) if token not in model.tokenizer.all_special_ids]


def answer_with(model: SteerableModel, value: float) -> None:
    """Make every layer give ``value`` everywhere."""
    for layer in model.layers:
        layer.register_forward_hook(lambda m, a, o: torch.full_like(o, value) if isinstance(o, torch.Tensor) else o)
