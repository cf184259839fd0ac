"""Read the weights and the tokenizer of a checkpoint: safetensors, a GGUF file, a LoRA adapter on its base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from harness.core.checkpoints import Checkpoint
from harness.core.errors import UserError
from harness.core.gguf_header import end_tokens_of, read_header
from harness.core.reading import read_json

_TOWERS = ("vision_tower", "vision_model", "visual", "audio_tower")
_LORA = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias", "lora_bias"),
    *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "trainable_token_indices", "layer_replication", "ensure_weight_tying", "fan_in_fan_out"),
}
_OF_TRAINING = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "runtime_config", "init_lora_weights", "eva_config", "loftq_config"),
    *("megatron_core", "qalora_group_size"),
}
_HARMLESS_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # others change the base when training starts


def load_network(checkpoint: Checkpoint, dtype: torch.dtype, device_map: str | None = None) -> nn.Module:
    """Return the causal language model of a checkpoint, without running code that comes with it.

    ``device_map``: a device, or how to spread the model over several (``auto``); None leaves it on the CPU.
    Of a model that also sees or hears, the towers for that are left out. Raises ``UserError`` where weights are
    missing or the adapter does not fit; errors of transformers pass.
    """
    import transformers

    whole = checkpoint.base or checkpoint
    with _source(whole) as source:
        config = transformers.AutoConfig.from_pretrained(**source, trust_remote_code=False)
        if whole.gguf and hasattr(transformers, "GgufConfig"):  # newer versions keep the blocks otherwise
            source["quantization_config"] = transformers.GgufConfig(dequantize=True)
        text_alone = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        pictures = not text_alone and type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        auto = transformers.AutoModelForImageTextToText if pictures else transformers.AutoModelForCausalLM
        with redirect_stderr(StringIO()) if whole.gguf else nullcontext():  # a progress bar that nothing switches off
            model, report = auto.from_pretrained(
                **source,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
                **({"device_map": device_map} if device_map else {}),
            )
    missing = sorted(report["missing_keys"])
    if missing:  # they would be random numbers, other ones in every process
        raise UserError(f"{whole.path} is missing {len(missing)} weights, such as {missing[0]}. Download it again.")
    _drop_towers(model)
    network: nn.Module = _merge_adapter(model, checkpoint) if checkpoint.base else model
    return network


def load_config(checkpoint: Checkpoint) -> Any:
    """Return the config of a checkpoint's model; errors of transformers pass."""
    from transformers import AutoConfig

    with _source(checkpoint.base or checkpoint) as source:
        return AutoConfig.from_pretrained(**source, trust_remote_code=False)


@contextmanager
def _source(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield the arguments by which transformers finds config and weights, or the tokenizer of a GGUF file."""
    if checkpoint.gguf is None:
        yield {"pretrained_model_name_or_path": checkpoint.folder}
        return
    with TemporaryDirectory() as empty:  # the file is read alone: transformers would take in what lies beside it
        # A relative name would be looked up in the working directory first.
        yield {"pretrained_model_name_or_path": empty, "gguf_file": str(checkpoint.gguf.absolute())}


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer of a checkpoint: of its folder, else of its GGUF file or of its base.

    Raises ``UserError`` where there is none; errors of transformers pass.
    """
    from transformers import AutoTokenizer

    base = checkpoint.base
    if base and not checkpoint.has_tokenizer:
        return load_tokenizer(base)
    if checkpoint.gguf and not checkpoint.has_tokenizer:
        with _source(checkpoint) as source:
            tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
        tokenizer.name_or_path = str(checkpoint.path)
        return tokenizer
    known = {"config": load_config(checkpoint)} if base or checkpoint.gguf else {}  # such a folder has no config.json
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False, **known)
    except (OSError, ValueError) as error:
        if checkpoint.has_tokenizer or "trust_remote_code" in str(error):
            raise
        raise UserError(
            f"{checkpoint.folder} has no tokenizer (tokenizer.json or tokenizer.model). Put that of the model there."
        ) from None
    if base and not tokenizer.chat_template:
        tokenizer.chat_template = load_tokenizer(base).chat_template
    return tokenizer


def end_tokens(checkpoint: Checkpoint, tokenizer: Any) -> list[int] | None:
    """Return the tokens that end a text, None where the checkpoint's generation config says so already."""
    whole = checkpoint.base or checkpoint
    turns = tokenizer.get_vocab() if tokenizer.chat_template else {}  # a base model writes on
    return end_tokens_of(read_header(whole.gguf), turns) if whole.gguf else None


def _drop_towers(model: nn.Module) -> None:
    """Let go of the parts of a model that read pictures and sound; texts never reach them."""
    for module in list(model.modules()):
        for name in _TOWERS:
            if isinstance(getattr(module, name, None), nn.Module):
                setattr(module, name, None)


def _merge_adapter(model: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """Return the model with the weights of a LoRA adapter added to its own.

    peft would take fields of the config that import modules by name, and weights that fit nowhere, without a word.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    folder, base = checkpoint.folder, checkpoint.base and checkpoint.base.path
    given = read_json(folder / "adapter_config.json")
    odd = sorted(name for name, value in given.items() if value and name not in _LORA | _OF_TRAINING)
    if given.get("init_lora_weights", True) not in _HARMLESS_STARTS:
        odd.insert(0, "init_lora_weights")
    if odd:
        raise UserError(
            f"the adapter {folder} cannot be merged: {odd[0]} = {given[odd[0]]!s:.60} in its config asks for more than "
            "plain LoRA. Merge it with the program that trained it, and give the merged folder."
        )
    config = LoraConfig.from_peft_type(
        peft_type="LORA", **{name: value for name, value in given.items() if name in _LORA}
    )
    adapted = get_peft_model(model, config)
    found = set_peft_model_state_dict(adapted, load_file(folder / "adapter_model.safetensors"))
    missing = [name for name in found.missing_keys if "lora_" in name]
    if found.unexpected_keys or missing:
        name = (found.unexpected_keys or missing)[0]
        raise UserError(
            f"the adapter {folder} does not fit its base {base}, by {name}. Name the base it was trained on."
        )
    merged: nn.Module = adapted.merge_and_unload()
    return merged
