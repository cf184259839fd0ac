"""Small checkpoints of every format that loads: safetensors, GGUF, a LoRA adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from support.helpers import byte_tokenizer

SPECIAL = ["<pad>", "<s>", "</s>"]
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
HEADS = 2


def byte_model(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a Llama with random weights: two layers of 32, a token per byte and one for ``ab``."""
    from tokenizers import AddedToken, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = byte_tokenizer(SPECIAL)
    vocabulary = {**backend.get_vocab(), "ab": 259}
    backend.model = models.BPE(vocab=vocabulary, merges=[("a", "b")])
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **{"vocab_size": 260, "initializer_range": 0.2, **changes},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_gguf(source: Path, path: Path, kind: str = "F32", metadata: Mapping[str, str | int] | None = None) -> Path:
    """Write a ``byte_model`` as llama.cpp's converter would, by the format's own writer.

    ``kind``: of the matrices. ``metadata``: further keys.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type({"F32": 0, "F16": 1, "Q8_0": 7}[kind])
    tokens = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tokens, key=tokens.__getitem__))
    writer.add_token_types([3 if token in SPECIAL else 1 for token in sorted(tokens, key=tokens.__getitem__)])
    writer.add_token_merges(["a b"])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    for name, value in (metadata or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    for name, weight in load_file(source / "model.safetensors").items():
        array = weight.float().numpy()
        if ".q_proj" in name or ".k_proj" in name:  # llama.cpp pairs the halves of rotary positions
            array = array.reshape(HEADS, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        stored = GGMLQuantizationType[kind if array.ndim > 1 else "F32"]
        data = np.ascontiguousarray(array)
        writer.add_tensor(gguf_name(name), quants.quantize(data, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a weight of a Llama."""
    named = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    owner = name.removesuffix(".weight")
    if owner in named:
        return f"{named[owner]}.weight"
    _, _, layer, part = owner.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.weight"


def write_adapter(folder: Path, base: str, rank: int = 2, **changes: Any) -> dict[str, torch.Tensor]:
    """Write a LoRA adapter of the queries of a ``byte_model`` by hand, as peft lays it out; return its weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(7)
    weights = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, 32, generator=draw)
        weights[f"{name}.lora_B.weight"] = torch.randn(32, rank, generator=draw)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank}
    config |= {"lora_alpha": 8, "target_modules": ["q_proj"], "megatron_core": "megatron.core", **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return weights
