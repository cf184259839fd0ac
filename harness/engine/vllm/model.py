"""A model that vLLM runs, and the batch by which the generation queue writes its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from harness.core.errors import MachineError, UnsupportedError, UserError
from harness.core.interventions import Positions, Steering
from harness.engine.decoding import DecodingBatch, Row, ServedModel
from harness.engine.vllm.worker import NAME


class VllmModel(ServedModel):
    """A model inside vLLM, which loads it with the first batch, with the hooks that steer it.

    ``start``: returns vLLM's engine. ``prove``: raises an error where it does not steer. ``stops``: tokens that end a
    text. ``kind``: of the device.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        prove: Callable[[VllmModel], None],
        config: Any,
        tokenizer: Any,
        stops: int | list[int] | None,
        kind: str,
        name: str,
    ) -> None:
        super().__init__(config, tokenizer)
        self.name, self.n_layers = name, int(self.config.num_hidden_layers)
        self._start, self._prove, self._stops, self._kind = start, prove, stops, kind
        self._known: dict[int, tuple[str, Steering]] = {}  # kept, so that no other steering gets an id again
        self._numbers = count()
        self._asked: set[str] = set()
        self._proven = False

    @cached_property
    def engine(self) -> Any:
        """vLLM's engine, with hooks."""
        engine = self._start()
        engine.collective_rpc("steerboard_attach", args=(self.n_layers,))
        return engine

    @property
    @override
    def device(self) -> torch.device:
        return torch.device(self._kind)

    @property
    @override
    def stops(self) -> int | list[int] | None:
        return self._stops

    @override
    def open_batch(self) -> VllmBatch:
        engine = self.engine  # now, so that what keeps it from loading is not taken for a failure of the proof
        if not self._proven:
            self._proven = True
            self._prove(self)
        engine.abort_request(list(self._asked))
        self._asked.clear()
        return VllmBatch(self)

    def close(self) -> None:
        """Stop vLLM, which would otherwise end some time later, and take what another engine has begun with it."""
        if "engine" in self.__dict__:
            self.engine.engine_core.shutdown()
            del self.engine
        self._known, self._asked, self._proven = {}, set(), False

    def call_workers(self, name: str, *args: Any) -> Any:
        """Call a method of the hooks in every worker; return what the first says."""
        return self.engine.collective_rpc("steerboard_call", args=(name, *args))[0]

    def check(self, row: Row) -> None:
        """Raise an error where a text cannot be written here."""
        room = int(self.engine.model_config.max_model_len)
        if len(row.prompt) + row.max_new_tokens > room:
            raise MachineError(
                f"a text of {len(row.prompt)} + {row.max_new_tokens} tokens does not fit into the cache that vLLM has "
                f"on this machine, {room} tokens. Give it more memory, or several GPUs with --device-map auto."
            )
        self._steering_name(row.steering)

    def ask(self, row: Row, **more: Any) -> str:
        """Let vLLM write a text; return the name of the request. ``more``: further fields of its parameters."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        steering, watch = self._steering_name(row.steering), more.pop("watch", "")
        own = {"steering": steering, "watch": watch, "key": row.key}
        params = SamplingParams(
            **{"temperature": 0.0, **more},
            max_tokens=row.max_new_tokens,
            ignore_eos=True,
            stop_token_ids=sorted(self.end_tokens),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={NAME: {**own, "temperature": row.temperature, "top_p": row.top_p}},
        )
        prompt: dict[str, Any] = {"prompt_token_ids": list(row.prompt)}
        if steering:  # what vLLM keeps of a prompt holds for one steering, and for where its positions begin
            prompt["cache_salt"] = f"{steering} {len(row.prompt)}"
        name = str(next(self._numbers))
        self.engine.add_request(name, prompt, params)
        self._asked.add(name)
        return name

    def forget(self, name: str, ended: bool) -> None:
        """Let go of a request, which vLLM has ended itself or is to end."""
        self._asked.discard(name)
        if not ended:
            self.engine.abort_request([name])

    def _steering_name(self, steering: Steering) -> str:
        """Return the name under which the workers have a steering; empty for none."""
        if not steering.interventions:
            return ""
        if id(steering) not in self._known:
            layers = layer_vectors(steering, self.n_layers, self.hidden_size)
            name = f"steering-{len(self._known)}"
            self.call_workers("add", name, layers)
            self._known[id(steering)] = name, steering
        return self._known[id(steering)][0]


def check_supported(steering: Steering) -> None:
    """Raise ``UnsupportedError`` for what vLLM's layers are not asked for."""
    for item in steering.interventions:
        if (item.site, item.operation) != ("layer_output", "add"):
            verb = "adds to" if item.operation == "add" else "scales"
            raise UnsupportedError(
                f"the engine vllm only adds vectors at layer_output, and this method {verb} {item.site}. Use --engine "
                "transformers."
            )


def layer_vectors(steering: Steering, n_layers: int, size: int) -> dict[int, tuple[np.ndarray, Positions]]:
    """Return the vector that a steering adds to each layer's output, and at which positions.

    Raises ``UnsupportedError`` for what vLLM's layers are not asked for, ``UserError`` for what no engine does.
    """
    found: dict[int, tuple[np.ndarray, Positions]] = {}
    check_supported(steering)
    for item in steering.interventions:
        if item.layer >= n_layers:
            raise UserError(
                f"the steering is for layer {item.layer}, this model has layers 0 to {n_layers - 1}. Fit it on this "
                "model."
            )
        if len(item.vector) != size:
            raise UserError(
                f"the vector has {len(item.vector)} numbers, the model's hidden size is {size}. Fit it on this model."
            )
        total, positions = found.get(item.layer, (np.zeros(size, np.float32), item.positions))
        if positions != item.positions:
            raise UserError("two interventions at one layer must share their positions.")
        found[item.layer] = total + item.vector * np.float32(item.raw_strength), positions
    return found


class VllmBatch(DecodingBatch):
    """Texts that vLLM writes: it decides itself which of them are computed in a step."""

    model: VllmModel

    def __init__(self, model: VllmModel) -> None:
        super().__init__(model)
        self._texts: dict[str, Row] = {}

    @property
    @override
    def active(self) -> int:
        return len(self._texts)

    @property
    @override
    def rows(self) -> int:
        return len(self._texts)

    @override
    def add(self, rows: Sequence[Row]) -> list[Row]:
        for row in rows:
            self.model.check(row)
        for row in rows:
            self.follow(row)
        return []

    def follow(self, row: Row, **more: Any) -> None:
        """Take up a text that fits; ``more`` as in ``VllmModel.ask``."""
        self._texts[self.model.ask(row, **more)] = row

    @override
    def step(self) -> list[Row]:
        complete = []
        for output in self.model.engine.step():
            row = self._texts[output.request_id]
            for token in output.outputs[0].token_ids:
                if not row.done:
                    self._append(row, token)
            if output.finished and not row.done:
                raise MachineError(f"vLLM ended a text early ({output.outputs[0].finish_reason}). Run it again.")
            if row.done:
                del self._texts[output.request_id]
                self.model.forget(output.request_id, output.finished)
                complete.append(row)
        return complete
