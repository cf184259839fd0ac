"""A model that vLLM runs, and the batch by which the generation queue writes its texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from harness.core.checkpoints import Checkpoint
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
    """A model inside vLLM, with the hooks that steer it. ``engine``: vLLM's; ``stops``: tokens that end a text."""

    def __init__(self, engine: Any, config: Any, tokenizer: Any, stops: int | list[int] | None) -> None:
        super().__init__(config, tokenizer)
        self.engine = engine
        self._stops = stops
        self.n_layers = int(self.config.num_hidden_layers)
        self._known: dict[int, tuple[str, Steering]] = {}  # kept, so that no other steering gets an id again
        self._numbers = count()
        self._asked: set[str] = set()
        engine.collective_rpc("steerboard_attach", args=(self.n_layers,))

    @property
    @override
    def device(self) -> torch.device:
        return torch.device(self.engine.vllm_config.device_config.device_type)

    @property
    @override
    def stops(self) -> int | list[int] | None:
        return self._stops

    @override
    def open_batch(self) -> DecodingBatch:
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


def layer_vectors(steering: Steering, n_layers: int, size: int) -> dict[int, tuple[np.ndarray, Positions]]:
    """Return the vector that a steering adds to each layer's output, and at which positions.

    Raises ``UnsupportedError`` for what vLLM's layers are not asked for, ``UserError`` for what no engine does.
    """
    found: dict[int, tuple[np.ndarray, Positions]] = {}
    for item in steering.interventions:
        if (item.site, item.operation) != ("layer_output", "add"):
            raise UnsupportedError(
                f"the engine vllm only adds vectors at layer_output; this steering {_VERBS[item.operation]} "
                f"{item.site}. Use --engine transformers."
            )
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


_VERBS = {"add": "adds to", "scale": "scales"}


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


def load_vllm(
    checkpoint: Checkpoint,
    dtype: str,
    device: str | None = None,
    device_map: str | None = None,
    most: int | None = None,
) -> VllmModel:
    """Load a checkpoint into vLLM, without running code that comes with it, and prove that it can be steered.

    ``device_map``: ``auto`` spreads it over all GPUs. ``most``: texts at once. Raises ``UserError`` for what vLLM does
    not load, or does not steer.
    """
    from harness.engine.vllm.probe import check_steering

    os.environ.update(_SETTINGS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if checkpoint.gguf or checkpoint.base:
        kind = "a GGUF file" if checkpoint.gguf else "a LoRA adapter"
        raise UserError(
            f"{checkpoint.path} is {kind}, which the engine vllm does not take. Give a folder of safetensors, or use "
            "--engine transformers."
        )
    from vllm import LLMEngine
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    kind = current_platform.device_type
    if device not in (None, kind):
        raise UserError(
            f"this vLLM runs on {kind}, not on {device}. Leave out --device; CUDA_VISIBLE_DEVICES chooses GPUs."
        )
    tokenizer, config = load_tokenizer(checkpoint), load_config(checkpoint)
    rows = most or _MOST_ROWS
    try:
        arguments = EngineArgs(
            model=str(checkpoint.folder),
            dtype=dtype,
            load_format="safetensors",
            trust_remote_code=False,
            generation_config="vllm",  # none of the checkpoint's own settings, such as a repetition penalty
            enforce_eager=True,  # a compiled graph would leave the hooks out
            async_scheduling=False,  # the sampler counts the tokens of a text
            max_model_len=-1,  # as long as memory allows
            max_num_seqs=rows,
            tensor_parallel_size=torch.cuda.device_count() if device_map and kind == "cuda" else 1,
            language_model_only=True,
            logits_processors=[f"{_HERE}.sampler:KeyedSampler"],
            worker_extension_cls=f"{_HERE}.worker.SteeringWorker",
            use_tqdm_on_load=False,
            disable_log_stats=True,
        )
        model = VllmModel(LLMEngine.from_engine_args(arguments), config, tokenizer, _stops(checkpoint, config))
    except Exception as error:  # whatever vLLM raises on its way
        if isinstance(error, UserError):
            raise
        words = f"{checkpoint.path} cannot be loaded by vLLM: {in_words(error)}"
        raise (MachineError if is_infrastructure(error) else UserError)(words) from error
    check_steering(model, checkpoint.name)
    return model


def _stops(checkpoint: Checkpoint, config: Any) -> int | list[int] | None:
    """Return the tokens that end a text, as transformers finds them."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(checkpoint.folder)
    except OSError:
        found = GenerationConfig.from_model_config(config)
    stops: int | list[int] | None = found.eos_token_id
    return stops
