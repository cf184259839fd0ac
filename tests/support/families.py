"""Every family of causal language models that transformers offers, as a tiny model with random weights.

Sizes go by the names of a config's fields, with exceptions by family below, so that most families of a new version of
transformers build without a change here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering
from harness.engine.activations import has_gated_projections
from harness.engine.architectures import check_config, check_model
from harness.engine.decoding import CachedBatch, DecodingBatch, Row, UncachedBatch, why_uncached
from harness.engine.model import SteerableModel
from support.helpers import ROOT, byte_tokenizer

HIDDEN, LAYERS, VOCABULARY = 32, 4, 300  # of every model
PAGE = ROOT / "docs" / "models.md"
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MOST = 5_000_000  # weights

_NAMES: dict[int, str] = {
    HIDDEN: "hidden_size d_model n_embd dim embed_dim embedding_size word_embed_proj_dim attention_hidden_size "
    "lru_width mamba_d_ssm output_dim text_hidden_size projection_dim",
    48: "intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim d_ff dim_ff dff shared_intermediate_size "
    "intermediate_size_mlp feed_forward_size",
    4: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers "
    "num_encoder_layers num_blocks depth "
    "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads num_decoder_attention_heads "
    "num_encoder_attention_heads num_heads num_experts num_local_experts n_routed_experts moe_num_experts "
    "mamba_n_heads mamba_num_heads linear_num_value_heads linear_num_heads mamba_d_state ssm_state_size state_size",
    2: "num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk moe_k linear_num_key_heads "
    "num_dense_layers num_layers_per_stack",
    8: "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim sliding_window attention_window_size dim_head rotary_dim "
    "mamba_d_head mamba_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim mamba_headdim "
    "mamba_chunk_size chunk_size block_size index_head_dim attention_head_size attention_head_dim global_head_dim "
    "hidden_size_per_layer_input laurel_rank adapter_rank kv_channels",
    16: "qk_head_dim moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank "
    "expert_ffn_hidden_size router_hidden_size pronunciation_embed_dim shape_embed_dim",
    1: "n_shared_experts num_shared_experts n_group topk_group num_expert_group mamba_n_groups n_groups mamba_ngroups "
    "first_k_dense_replace mamba_expand expand",
    VOCABULARY: "vocab_size vocab_size_per_layer_input pronunciation_vocab_size shape_vocab_size "
    "encoder_hash_byte_group_vocab",
    256: "max_position_embeddings n_positions n_ctx max_sequence_length seq_length max_seq_len",
}
_SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}

_ALL_HEADS: dict[str, Any] = {"num_key_value_heads": 4}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}
_LATENT_LINEAR = {**_ALL_HEADS, **_LINEAR}
_CONVOLUTION = {"layer_types": ["conv", "full_attention"] * 2}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LATENT = "axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa longcat_flash minicpm3 youtu"
_DOTS = {
    **_ALL_HEADS,
    **{f"swa_{name}": 16 for name in ("q_lora_rank", "kv_lora_rank")},
    **{f"swa_{name}": 8 for name in ("qk_nope_head_dim", "v_head_dim")},
    "swa_head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
}
_INKLING = {"layer_types": ["hybrid_sliding", "hybrid"] * 2}
_ZAMBA = {
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
    "n_mamba_heads": 4,
    "mamba_expand": 1,
}
_QSA = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
    "layer_types": ["linear_attention", "indexed_attention"] * 2,
}
_EXCEPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_LATENT.split(), _ALL_HEADS),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "minimax"), _LINEAR),
    **dict.fromkeys(("lfm2", "lfm2_moe"), _CONVOLUTION),
    **dict.fromkeys(("gemma3_text", "kolibri1"), _SLIDING),
    **dict.fromkeys(("bailing_hybrid", "kimi_linear"), _LATENT_LINEAR),
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {**_SLIDING, "rope_parameters": dict.fromkeys(_SLIDING["layer_types"], _ROPE)},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48},
    },
    "dots3_note": {"text_config": _DOTS},
    "dots3_note_text": _DOTS,
    "gemma3": {"text_config": _SLIDING},
    "gemma3n_text": {
        **_SLIDING,
        "num_kv_shared_layers": 2,
        "intermediate_size": [48] * LAYERS,
        "activation_sparsity_pattern": [0.0] * LAYERS,
    },
    "inkling2_text": _INKLING,
    "inkling_text": {**_INKLING, "logits_mup_width_multiplier": 1.0},  # else any text is as likely as any other
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "lfm3": {"layer_types": ["conv", "full_attention", "conv", "sliding_attention"]},
    "nemotron_h": {"hybrid_override_pattern": "M*M-"},
    "qwen4_exp": {"text_config": _QSA},
    "qwen4_exp_text": _QSA,
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [8, 24],
        "attn_layers": ["local", "lsh"] * 2,
    },
    **dict.fromkeys(("zamba", "zamba2"), _ZAMBA),
    "zaya": {"num_experts_per_tok": 1},
}
NOT_TRIED = {
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "drafts tokens for another model"),
    "gemma3n": "its parts for pictures need the package timm; its language model is `gemma3n_text`",
    "dots3_note": "has no small form yet; its language model is `dots3_note_text`",
}
"""Families that are not built, and why."""

ATTENTION = ("llama", "gpt2", "opt", "mpt", "gpt_oss", "llama4_text", "modernbert-decoder")
FAST = (
    *ATTENTION,
    *("lfm2", "qwen3_next", "qwen3_5_text", "mamba", "mamba2", "falcon_h1", "granitemoehybrid", "nemotron_h"),
    *("olmo_hybrid", "zamba2"),
)
SLOW = ("rwkv", "recurrent_gemma", "minimax", "xlstm", "openai-gpt")
REFUSED = ("bart", "bert", "bert-generation", "trocr", "gemma3n_text", "hrm_text", "xlnet")
"""What stands for the others in tests: families with unlike layers, caches and reasons; ``ATTENTION``: no states."""


def families() -> list[str]:
    """Return the names of all families, as a config's ``model_type`` has them."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(family: str) -> Any:
    """Return the config of a family's tiny model."""
    cls = CONFIG_MAPPING[family]
    return cls(**{**SPECIAL, **_fields(cls, _EXCEPTIONS.get(family, {}))})


def _fields(cls: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a config: sizes of the fields that it has, and configs within it."""
    default = cls()
    known = {*vars(default), *default.to_dict(), *cls.attribute_map}
    fields = {name: size for name, size in _SIZES.items() if name in known}
    if "vocab_size" in known:
        fields.update(SPECIAL)
    inner = {
        name: type(value)(**_fields(type(value), changes.get(name, {})))
        for name, value in vars(default).items()
        if isinstance(value, PreTrainedConfig)
    }
    return {**fields, **changes, **inner}


def tiny_network(family: str, seed: int = 0) -> Any:
    """Return a family's tiny model, float32.

    Its weights are larger than its own initialisation makes them: what should not change a text would not be seen
    in a model that hardly reads its context.
    """
    config = tiny_config(family)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if size > _MOST:
        raise ValueError(f"{size} weights, with the sizes that are known here")
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim >= 2:
                weight.normal_(0, 0.25)
    return network


def new_rows(seed: int = 1) -> list[Row]:
    """Return texts to write, with prompts of 1 to 12 tokens, of other lengths and kinds of steering."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    vector = numbers.normal(size=HIDDEN).astype(np.float32)
    kinds = [Steering()] + [
        Steering((Intervention("layer_output", 1, "add", vector, 3.0, "raw", 1.0, positions),))
        for positions in ("all", "prompt", "generated")
    ]
    return [
        Row(tuple(draw.randrange(5, 250) for _ in range(length)), kinds[key % 4], key, 6 + key % 4, 1.0, 0.95)
        for key, length in enumerate((5, 9, 9, 3, 12, 1, 7, 2))
    ]


def write(batch: DecodingBatch, rows: list[Row], width: int) -> list[list[int]]:
    """Write texts at most ``width`` at once, each taking a row over as soon as one is free."""
    waiting = list(rows)
    while waiting or batch.active:
        if free := min(len(waiting), width - batch.active):
            batch.add([waiting.pop(0) for _ in range(free)])
        if batch.active:
            batch.step()
        if not waiting:
            batch.shrink()
    return [row.tokens for row in rows]


def tiny_model(family: str) -> SteerableModel:
    """Return a family's tiny model with a tokenizer of bytes."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(["<pad>", "<s>", "</s>"]), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    return SteerableModel(tiny_network(family), tokenizer)


@dataclass(frozen=True, order=True)
class Finding:
    """What becomes of a family: ``status``, whether its neurons can be steered, and why it is not supported."""

    status: str
    neurons: bool = False
    reason: str = ""


STATUSES = ("supported", "slow path", "refused", "not tried")


def examine(family: str) -> Finding:
    """Return what becomes of a family: by its config, then by its tiny model, whose texts are compared.

    Raises ``AssertionError`` where a model is accepted and its texts are wrong.
    """
    if family in NOT_TRIED:
        return Finding("not tried", reason=NOT_TRIED[family])
    try:
        check_config(tiny_config(family).to_dict(), family)
        model = tiny_model(family)
        check_model(model, family)
    except UserError as error:
        return Finding("refused", reason=_in_general(str(error)))
    reason = why_uncached(model)
    assert_texts_are_right(model, CachedBatch if not reason else UncachedBatch)
    return Finding("slow path" if reason else "supported", has_gated_projections(model), _in_general(reason))


def assert_texts_are_right(model: SteerableModel, kind: type[DecodingBatch]) -> None:
    """Compare texts that are written together with texts that are read from the start for every token, one by one."""
    alone = [write(UncachedBatch(model), [row], 1)[0] for row in new_rows()]
    assert write(kind(model), new_rows(), 3) == alone
    assert write(kind(model), new_rows(), 8) == alone
    plain, zero = new_rows(), new_rows()
    for row in plain:
        row.steering = Steering()
    for row in zero:
        items = (replace(item, strength=0.0) for item in row.steering.interventions)
        row.steering = Steering(tuple(items))
    unsteered = write(kind(model), plain, 8)
    assert unsteered != alone, "steering changes nothing: it was not tested"
    assert write(kind(model), zero, 8) == unsteered


def _in_general(reason: str) -> str:
    """Return a reason without what holds for one model or one run of it."""
    reason = re.sub(r"^\S+ cannot be steered: |\. Give another .*$| \([^)]*\)| by [\d.]+% of their range", "", reason)
    return re.sub(r" in \w+;", ";", reason).rstrip(".")


def table(found: Mapping[str, Finding]) -> str:
    """Return what becomes of families as a table in Markdown."""
    groups: dict[Finding, list[str]] = {}
    for family in sorted(found):
        groups.setdefault(found[family], []).append(f"`{family}`")
    lines = ["| status | neurons | why | `model_type` |", "|---|---|---|---|"]
    for kind in sorted(groups, key=lambda kind: (STATUSES.index(kind.status), not kind.neurons, kind.reason)):
        able = ("yes" if kind.neurons else "no") if kind.status in STATUSES[:2] else ""
        lines.append(f"| {kind.status} | {able} | {kind.reason} | {', '.join(groups[kind])} |")
    return "\n".join(lines) + "\n"


def read_table(text: str) -> dict[str, Finding]:
    """Return what a page that holds the table says of every family."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0] in STATUSES and len(cells) == 4:
            finding = Finding(cells[0], cells[1] == "yes", cells[2])
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[3]), finding)
    return found


def main() -> None:
    """Write the table of docs/models.md again, and the version that it is of."""
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # for models this small, threads would wait for each other
    text = PAGE.read_text(encoding="utf-8")
    old = re.search(rf"(?m)(?:^\|(?:---| status| {'| '.join(STATUSES)}).*\n)+", text)
    assert old is not None
    text = text.replace(old[0], table({family: examine(family) for family in families()}))
    PAGE.write_text(
        re.sub(r"transformers \d+\.\d+\.\d+", f"transformers {transformers.__version__}", text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
