"""Steering inside vLLM: hooks on the decoder layers of its workers. vLLM loads this module by its name.

A batch of vLLM is one row of tokens: those of each request in turn, as many as this step computes. A layer returns the
residual stream, or two tensors whose sum it is (what the layer wrote, and what came before it); a vector that is added
to the first of them is added to the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.core.interventions import Positions
from harness.engine.hooks import position_range

NAME = "steerboard"
"""Under which name requests carry what is ours in ``extra_args``."""

LayerVectors = Mapping[int, tuple[NDArray[np.float32], Positions]]
"""Layer -> the vector that is added to its output, and at which positions."""


def asked(params: Any) -> dict[str, Any]:
    """Return what a request has for the sampler and the hooks: ``key``, ``steering``, and so on."""
    found: dict[str, Any] = (params.extra_args or {}).get(NAME, {}) if params is not None else {}
    return found


@dataclass(frozen=True)
class _Span:
    """The tokens of one request in this step: ``count`` from row ``row`` on, after ``past`` that are in the cache."""

    steering: str
    watch: str
    row: int
    count: int
    past: int
    prompt: int

    def rows(self, positions: Positions) -> slice:
        """Return the rows at steered positions."""
        start, stop = position_range(positions, 0, self.prompt)
        ends = (min(max(end - self.past, 0), self.count) for end in (start, stop))
        return slice(*(self.row + end for end in ends))


class RowSteering:
    """The hooks on the layers of one worker. ``runner``: vLLM's runner of the model, which knows the batch."""

    def __init__(self, runner: Any, model: nn.Module, n_layers: int) -> None:
        self._runner = runner
        self._vectors: dict[str, dict[int, tuple[Tensor, Positions]]] = {}
        self._scheduled: Mapping[str, int] = {}  # request -> its tokens in this step; none outside of steps
        self._spans: list[_Span] | None = None
        self._watched: dict[tuple[int, str], list[Tensor]] | None = None
        self._layers: list[int] = []  # that are watched
        inner = runner.execute_model
        runner.execute_model = partial(self._step, inner)
        for index, layer in enumerate(find_layers(model, n_layers)):
            layer.register_forward_hook(partial(self._after, index))

    def add(self, name: str, layers: LayerVectors) -> None:
        """Take up a steering by its name."""
        self._vectors[name] = {i: (torch.from_numpy(vector), where) for i, (vector, where) in layers.items()}

    def watch(self, layers: list[int]) -> None:
        """Keep what these layers return for requests that ask for it."""
        self._layers, self._watched = layers, {}

    def seen(self) -> dict[tuple[int, str], NDArray[np.float32]]:
        """Return the residual stream after layers by the request's own name, [positions, size]; stop watching."""
        found, self._watched, self._layers = self._watched or {}, None, []
        return {name: torch.cat(states).numpy() for name, states in found.items()}

    def _step(self, inner: Callable[..., Any], scheduler_output: Any, *args: Any, **options: Any) -> Any:
        self._scheduled, self._spans = scheduler_output.num_scheduled_tokens, None
        try:
            return inner(scheduler_output, *args, **options)
        finally:
            self._scheduled = {}

    def _after(self, layer: int, module: nn.Module, args: Any, output: Any) -> Any:
        """Return a layer's output, steered: a tensor, or a tuple that starts with one."""
        if not self._scheduled:  # a pass without requests, by which vLLM measures memory
            return None
        if self._spans is None:
            self._spans = self._find_spans()
        state: Tensor = output if isinstance(output, Tensor) else output[0]
        steered = self._steered(layer, state)
        if layer in self._layers:
            self._keep(layer, steered, output)
        if steered is state:
            return None
        return steered if isinstance(output, Tensor) else (steered, *output[1:])

    def _find_spans(self) -> list[_Span]:
        """Return the rows of every request; the batch is complete when the first layer has run."""
        batch, spans, row = self._runner.input_batch, [], 0
        for i, name in enumerate(batch.req_ids):
            request, count = self._runner.requests[name], self._scheduled.get(name, 0)
            found = asked(request.sampling_params)
            past = int(batch.num_computed_tokens_cpu[i])
            spans.append(
                _Span(found.get("steering", ""), found.get("watch", ""), row, count, past, request.num_prompt_tokens)
            )
            row += count
        if row != sum(self._scheduled.values()):
            raise RuntimeError(f"vLLM's batch has {row} tokens, its scheduler gave {sum(self._scheduled.values())}")
        return spans

    def _steered(self, layer: int, state: Tensor) -> Tensor:
        """Return ``state`` [tokens, size] with each request's vector added; the same tensor where there is none."""
        assert self._spans is not None
        names = sorted({span.steering for span in self._spans if layer in self._vectors.get(span.steering, {})})
        if not names:
            return state
        index = torch.zeros(self._tokens(layer, state), dtype=torch.int64)  # of padding after the last request, too
        for span in self._spans:
            if span.steering in names:
                index[span.rows(self._vectors[span.steering][layer][1])] = 1 + names.index(span.steering)
        table = [torch.full_like(state.reshape(-1, state.shape[-1])[0], -0.0)]  # leaves a number as it is, bit for bit
        for name in names:
            vector, where = self._vectors[name][layer]
            vector = vector.to(state.device, state.dtype)
            self._vectors[name][layer] = vector, where  # moved once
            table.append(vector)
        return state + torch.stack(table)[index.to(state.device)]

    def _tokens(self, layer: int, state: Tensor) -> int:
        """Return the number of tokens of a state: [tokens, size], or [1, tokens, size] in models of transformers."""
        assert self._spans is not None
        tokens = state.shape[-2] if state.ndim > 1 else 0
        if (
            state.ndim - (state.ndim > 2 and len(state) == 1) != 2
            or tokens < self._spans[-1].row + self._spans[-1].count
        ):
            raise RuntimeError(f"layer {layer} returns {list(state.shape)}, not one state for every token")
        return tokens

    def _keep(self, layer: int, state: Tensor, output: Any) -> None:
        assert self._watched is not None
        assert self._spans is not None
        before = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        stream = state + before if isinstance(before, Tensor) and before.shape == state.shape else state
        stream = stream.reshape(self._tokens(layer, state), -1)
        for span in self._spans:
            if span.watch:
                rows = stream[span.row : span.row + span.count].float().cpu()
                self._watched.setdefault((layer, span.watch), []).append(rows.clone())


def find_layers(model: nn.Module, n_layers: int) -> nn.ModuleList:
    """Return the decoder layers of vLLM's model; ``LookupError`` where it has no list of so many."""
    model = model.get_language_model() if hasattr(model, "get_language_model") else model  # type: ignore[operator]
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part) == n_layers:
            return part
    raise LookupError(f"vLLM's {type(model).__name__} has no list of {n_layers} layers")


class SteeringWorker:
    """What vLLM's worker gets in addition, to be called by ``collective_rpc``."""

    model_runner: Any
    steerboard_hooks: RowSteering

    def steerboard_attach(self, n_layers: int) -> None:
        """Put the hooks on the layers."""
        self.steerboard_hooks = RowSteering(self.model_runner, self.model_runner.get_model(), n_layers)

    def steerboard_call(self, name: str, *args: Any) -> Any:
        """Call a method of the hooks."""
        return getattr(self.steerboard_hooks, name)(*args)
