"""What a model is like: its hooks, weights and modes. Two looks at it show what a method left behind."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

State = dict[tuple[str, str], Any]
"""(what, where) -> value, such as ("hooks", "layers.1") -> the ids of its hooks."""

_MAX_PLACES = 3  # that a line names


def look(model: SteerableModel) -> State:
    """Return the state of a model that no method may change, and torch's own switches."""
    import torch

    network = model.model
    state: State = {
        ("steering", "the engine"): model.hooks.active,
        ("config", "the model"): network.config.to_json_string(),
        ("generation config", "the model"): network.generation_config.to_json_string(),
        ("tokenizer", "the model"): (model.tokenizer_hash, model.tokenizer.padding_side),
        ("grad mode", "torch"): torch.is_grad_enabled(),
        ("default dtype", "torch"): torch.get_default_dtype(),
        ("hooks", "every module (global)"): _hooks(vars(torch.nn.modules.module), "_global_"),
    }
    for name, module in network.named_modules():
        place = name or "the model"
        state["modules", place] = (id(module), id(vars(module).get("forward")))
        state["hooks", place] = _hooks(vars(module), "_")
        state["training mode", place] = module.training
    for name, tensor in network.named_parameters():
        state["requires_grad", name] = tensor.requires_grad
        state["gradient", name] = tensor.grad is None
        state["weights", name] = _hash(tensor)
    for name, tensor in network.named_buffers():
        state["weights", name] = _hash(tensor)
    return state


def differences(before: State, after: State) -> list[str]:
    """Return in words what two looks do not agree on, such as "hooks of layers.1"."""
    changed: dict[str, list[str]] = {}
    for what, place in {**before, **after}:
        if before.get((what, place)) != after.get((what, place)):
            changed.setdefault(what, []).append(place)
    return [f"{what} of {_listed(places)}" for what, places in changed.items()]


def _hooks(names: dict[str, Any], prefix: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the ids of all hooks in the dictionaries of hooks among ``names``."""
    tables = {k: v for k, v in names.items() if k.startswith(prefix) and k.endswith("_hooks")}
    return tuple((name, tuple(table)) for name, table in sorted(tables.items()) if isinstance(table, dict))


def _hash(tensor: Any) -> str:
    values = tensor.detach().cpu().contiguous().numpy()
    return f"{values.dtype}{values.shape}{hashlib.sha256(values.tobytes()).hexdigest()}"


def _listed(places: list[str]) -> str:
    more = len(places) - _MAX_PLACES
    return ", ".join(places[:_MAX_PLACES]) + (f" and {more} more" if more > 0 else "")
