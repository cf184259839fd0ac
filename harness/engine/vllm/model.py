"""A model that vLLM runs, and the batch by which the generation queue writes its texts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import count
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from harness.core.checkpoints import Checkpoint, why_not_loaded
from harness.core.errors import MachineError, UnsupportedError, UserError, in_words, is_infrastructure
from harness.core.interventions import Positions, Steering
from harness.engine.decoding import DecodingBatch, Row, ServedModel
from harness.engine.vllm.worker import NAME
from harness.engine.weights import load_config, load_tokenizer

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process: every step is seen, and ends with it
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # it takes no logits processors
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "4"}  # GiB, without a GPU
_MOST_ROWS = 256
_HERE = "harness.engine.vllm"


class VllmModel(ServedModel):
    """A model inside vLLM, which loads it with the first batch, with the hooks that steer it.

    ``start``: returns vLLM's engine. ``stops``: tokens that end a text. ``kind``: of the device.
    """

    def __init__(
        self, start: Callable[[], Any], config: Any, tokenizer: Any, stops: int | list[int] | None, kind: str, name: str
    ) -> None:
        super().__init__(config, tokenizer)
        self.name, self.n_layers = name, int(self.config.num_hidden_layers)
        self._start, self._stops, self._kind = start, stops, kind
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
        if not self._proven:
            from harness.engine.vllm.probe import check_steering

            self._proven = True
            check_steering(self)
        self.engine.abort_request(list(self._asked))
        self._asked.clear()
        return VllmBatch(self)

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


def open_model(
    checkpoint: Checkpoint,
    dtype: str,
    device: str | None = None,
    device_map: str | None = None,
    most: int | None = None,
) -> VllmModel:
    """Return a model that vLLM loads with the first batch, and that then proves that it can be steered.

    No code that comes with it is run. ``device_map``: ``auto`` spreads it over all GPUs. ``most``: texts at once.
    Raises ``UserError`` for what vLLM does not take.
    """
    os.environ.update(_SETTINGS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if checkpoint.gguf or checkpoint.base:
        kind = "a GGUF file" if checkpoint.gguf else "a LoRA adapter"
        raise UserError(
            f"{checkpoint.path} is {kind}, which the engine vllm does not take. Give a folder of safetensors, or use "
            "--engine transformers."
        )
    with warnings.catch_warnings(action="ignore"):
        from vllm.platforms import current_platform

    kind = current_platform.device_type
    if device not in (None, kind):
        raise UserError(
            f"this vLLM runs on {kind}, not on {device}. Leave out --device; CUDA_VISIBLE_DEVICES chooses GPUs."
        )
    try:
        tokenizer, config = load_tokenizer(checkpoint), load_config(checkpoint)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{checkpoint.path} cannot be loaded as a causal LM: {why_not_loaded(error)}") from None
    gpus = torch.cuda.device_count() if device_map and kind == "cuda" else 1
    start = partial(_start, checkpoint, dtype, gpus, most or _MOST_ROWS)
    return VllmModel(start, config, tokenizer, _stops(checkpoint, config), kind, checkpoint.name)


def _start(checkpoint: Checkpoint, dtype: str, gpus: int, most: int) -> Any:
    """Return vLLM's engine with a checkpoint; ``UserError`` where it does not load."""
    try:
        with warnings.catch_warnings(action="ignore"):
            from vllm import LLMEngine
            from vllm.engine.arg_utils import EngineArgs

            arguments = EngineArgs(
                model=str(checkpoint.folder),
                dtype=dtype,
                load_format="safetensors",
                trust_remote_code=False,
                generation_config="vllm",  # none of the checkpoint's own settings, such as a repetition penalty
                enforce_eager=True,  # a compiled graph would leave the hooks out
                async_scheduling=False,  # the sampler counts the tokens of a text
                max_model_len=-1,  # as long as memory allows
                max_num_seqs=most,
                tensor_parallel_size=gpus,
                language_model_only=True,
                logits_processors=[f"{_HERE}.sampler:KeyedSampler"],
                worker_extension_cls=f"{_HERE}.worker.SteeringWorker",
                use_tqdm_on_load=False,
                disable_log_stats=True,
            )
            return LLMEngine.from_engine_args(arguments)
    except Exception as error:  # whatever vLLM raises on its way
        words = f"{checkpoint.path} cannot be loaded by vLLM: {in_words(error)}"
        raise (MachineError if is_infrastructure(error) else UserError)(words) from error


def _stops(checkpoint: Checkpoint, config: Any) -> int | list[int] | None:
    """Return the tokens that end a text, as transformers finds them."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(checkpoint.folder)
    except OSError:
        found = GenerationConfig.from_model_config(config)
    stops: int | list[int] | None = found.eos_token_id
    return stops
