"""Load a checkpoint into vLLM."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Any

import torch

from harness.core.checkpoints import Checkpoint, why_not_loaded
from harness.core.errors import MachineError, UserError, in_words, is_infrastructure
from harness.engine.vllm.model import VllmModel
from harness.engine.vllm.probe import check_steering
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
    return VllmModel(start, check_steering, config, tokenizer, _stops(checkpoint, config), kind, checkpoint.name)


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
