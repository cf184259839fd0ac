"""Passes through the layers above one of them, for a vector that is learned there.

What comes before does not change while the vector does: the states after the layer are read once per text, without
the vector, and a pass begins with them. What several texts begin with, a prompt, goes through a pass once.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from harness.core.errors import is_out_of_memory
from harness.core.interventions import Positions
from harness.engine.model import SteerableModel


class _HasRead(Exception):  # noqa: N818  # not an error
    """Ends a pass at the layer whose states were wanted."""


@dataclass(frozen=True)
class Batch:
    """Texts of one pass, padded on the right: token ids and which are real, [texts, positions].

    ``after``: the real positions that do not belong to a text's prompt. ``states``: those after the layer, without
    a vector; None where a pass is to run all layers.
    """

    rows: Sequence[int]
    ids: Tensor
    mask: Tensor
    after: Tensor
    states: Tensor | None = None


class UpperLayers:
    """The layers above ``layer``, run over numbered texts: a prompt, which may be empty, and what follows.

    ``shares``: whether a pass reads a prompt once for all its texts; ``skips``: whether it begins above the layer.
    Families differ in what passes from token to token and from layer to layer, so both are tried on two texts, and
    left out where the model's states are others.
    """

    def __init__(self, model: SteerableModel, layer: int, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
        self.model, self._layer, self._lower = model, model.layers[layer], model.layers[: layer + 1]
        self._texts = texts
        distinct = {tuple(prompt): None for prompt, _ in texts}
        number = {prompt: i for i, prompt in enumerate(distinct)}
        self._prompts, self._prompt_of = list(distinct), [number[tuple(prompt)] for prompt, _ in texts]
        self._takes_positions = "position_ids" in inspect.signature(model.model.forward).parameters
        self.shares, self.skips = False, False
        self._try()

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return texts as a pass takes them: without their prompts, where those are shared. New texts are read."""
        batch = self._tokens(rows)
        return replace(batch, states=self._states_of(batch)) if self.skips else batch

    def _tokens(self, rows: Sequence[int]) -> Batch:
        texts = [self._texts[row] for row in rows]
        items = [[*rest] if self.shares else [*prompt, *rest] for prompt, rest in texts]
        ids, mask = (part.to(self.model.device) for part in self.model.padded(items))
        starts = torch.tensor([[0 if self.shares else len(prompt)] for prompt, _ in texts], device=mask.device)
        return Batch(rows, ids, mask, mask & (torch.arange(mask.shape[1], device=mask.device) >= starts))

    def run(self, network: nn.Module, batch: Batch, vector: Tensor, positions: Positions = "all") -> Any:
        """Return what ``network``, the model or its decoder, gives with ``vector`` added after the layer."""
        where = {"all": batch.mask, "prompt": batch.mask & ~batch.after, "generated": batch.after}[positions]
        if not self.shares:
            return self._pass(network, batch.ids, batch.mask, None, batch.states, _adding(vector, where))
        used = sorted({self._prompt_of[row] for row in batch.rows})
        mask, cache = self._prompt_mask[used], DynamicCache(config=self.model.model.config)
        add = None if positions == "generated" else _adding(vector, mask)
        self._pass(self.model.decoder, self._prompt_ids[used], mask, cache, self._prompt_states[used], add)
        _fill(cache, mask)
        place = {prompt: i for i, prompt in enumerate(used)}
        of = torch.tensor([place[self._prompt_of[row]] for row in batch.rows])  # on the CPU: layers may be on others
        cache.batch_select_indices(of)
        whole = torch.cat([mask[of], batch.mask], 1)
        return self._pass(network, batch.ids, whole, cache, batch.states, _adding(vector, where))

    def _pass(
        self,
        network: nn.Module,
        ids: Tensor,
        mask: Tensor,
        cache: DynamicCache | None,
        states: Tensor | None,
        change: Callable[[Tensor], Tensor] | None,
    ) -> Any:
        """Run a network, from ``states`` on where there are any, over tokens after those in the cache."""
        options: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            options = {"use_cache": True, "past_key_values": cache}
            if self._takes_positions:  # a bare pass would count padding on the left as text
                options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with ExitStack() as stack:
            if states is not None:
                stack.enter_context(_giving(self._lower, self._as_output(states)))
            if change is not None:
                stack.enter_context(replaced(self._layer, change))
            return network(input_ids=ids, attention_mask=mask.long(), **options)

    def _states_of(self, batch: Batch) -> Tensor:
        """Return the states after the layer, zeros at padding; those of new texts are read first."""
        new = list(dict.fromkeys(row for row in batch.rows if row not in self._states))
        if new:
            with torch.inference_mode():
                reading = self._tokens(new)
                cache, mask = None, reading.mask
                if self.shares:
                    of = torch.tensor([self._prompt_of[row] for row in new])
                    cache, mask = copy.deepcopy(self._prompt_cache), torch.cat([self._prompt_mask[of], mask], 1)
                    cache.batch_select_indices(of)
                found = self._read(reading.ids, mask, cache).cpu()  # they may be many more than fit on a GPU
            for row, state, n in zip(new, found, reading.mask.sum(1).tolist(), strict=True):
                self._states[row] = state[:n].clone()
        kept = [self._states[row] for row in batch.rows]
        states = torch.zeros(*batch.ids.shape, kept[0].shape[1], dtype=kept[0].dtype)
        for padded_state, state in zip(states, kept, strict=True):
            padded_state[: len(state)] = state
        return states.to(self.model.device)

    def _read(self, ids: Tensor, mask: Tensor, cache: DynamicCache | None) -> Tensor:
        """Return the states after the layer; the layers above it are not run."""
        found: list[Tensor] = []

        def end(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            whole = isinstance(output, Tensor)
            self._as_output = (lambda state: state) if whole else (lambda state: (state, *[None] * (len(output) - 1)))
            found.append(output if isinstance(output, Tensor) else output[0])
            raise _HasRead

        handle = self._layer.register_forward_hook(end)
        try:
            with suppress(_HasRead):
                self._pass(self.model.decoder, ids, mask, cache, None, None)
        finally:
            handle.remove()
        return found[0]

    def _read_prompts(self) -> None:
        """Read the prompts, padded on the left, and keep their states and the keys and values up to the layer."""
        device = self.model.device
        ids, mask = self.model.padded(self._prompts, "left")
        self._prompt_ids, self._prompt_mask = ids.to(device), mask.to(device)
        self._prompt_cache = DynamicCache(config=self.model.model.config)
        with torch.inference_mode():
            states = self._read(self._prompt_ids, self._prompt_mask, self._prompt_cache)
            _fill(self._prompt_cache, self._prompt_mask)
        self._prompt_states = states.to(device).clone()  # a normal tensor, which a graph can take

    def _try(self) -> None:
        """Set ``shares`` and ``skips`` to the most that gives the states of whole texts through all layers."""
        filled = [row for row, (_, rest) in enumerate(self._texts) if rest]
        order = sorted(filled, key=lambda row: len(self._texts[row][0]))
        rows = list(dict.fromkeys([*order[:1], *order[-1:]]))
        zero = torch.zeros(self.model.hidden_size, device=self.model.device)
        bound = 1e-3 if self.model.exact else 0.1

        def states() -> Tensor:
            self._states: dict[int, Tensor] = {}
            if self.shares:
                self._read_prompts()
            batch = self.batch(rows)
            with torch.inference_mode():
                found: Tensor = self.run(self.model.decoder, batch, zero)[0]
            return found[batch.after.to(found.device)].float()

        plain = states()
        self.skips = True
        for shares in [True, False] if self._can_share() else [False]:
            self.shares = shares
            try:
                apart = float((states() - plain).abs().max()) / max(float(plain.abs().max()), 1e-12)
            except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                continue
            if apart <= bound:
                return
        self.shares, self.skips = False, False

    def _can_share(self) -> bool:
        """Say whether there is a prompt to share and all that passes from it to a text are keys and values."""
        if not all(self._prompts) or "past_key_values" not in inspect.signature(self.model.model.forward).parameters:
            return False
        layers = DynamicCache(config=self.model.model.config).layers
        return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _fill(cache: DynamicCache, mask: Tensor) -> None:
    """Let layers that were not run hold as many positions as those that were: masks are made for the first one."""
    rows, width = mask.shape
    for i, layer in enumerate(cache.layers):
        if not layer.is_initialized:
            nothing = torch.zeros(rows, 1, width, 1, device=mask.device)
            cache.update(nothing, nothing, i)


@contextmanager
def _giving(layers: Sequence[nn.Module] | nn.ModuleList, output: object) -> Iterator[None]:
    """Let layers give ``output`` without computing anything; their hooks run as ever."""
    kept = [vars(layer).get("forward") for layer in layers]  # a program that spreads a model over GPUs sets its own
    for layer in layers:
        layer.forward = lambda *args, **options: output
    try:
        yield
    finally:
        for layer, forward in zip(layers, kept, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


@contextmanager
def replaced(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace a decoder layer's hidden state by ``change`` of it inside the block, out of place."""

    def hook(module: nn.Module, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    handle = module.register_forward_hook(hook, prepend=True)  # within another block: before that one's
    try:
        yield
    finally:
        handle.remove()


def _adding(vector: Tensor, where: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the change that adds ``vector`` at the positions ``where``, bool [texts, positions]."""

    def add(state: Tensor) -> Tensor:
        moved = state + vector.to(state.device, state.dtype)
        return torch.where(where.to(state.device)[:, :, None], moved, state)

    return add
