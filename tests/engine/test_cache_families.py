"""Families with unlike caches: their texts in a shared batch equal those that are read from the start for every token.

Tiny models with random weights, built from their configs. Which families share a cache is stated here, so that a new
version of transformers that changes it is noticed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.core.interventions import Intervention, Steering
from harness.engine.decoding import CachedBatch, DecodingBatch, Row, UncachedBatch, open_batch
from harness.engine.model import SteerableModel

WIDE = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 300}
GATED = {**WIDE, "intermediate_size": 24, "num_key_value_heads": 2, "max_position_embeddings": 256}
ALTERNATING = {"layer_types": ["linear_attention", "full_attention"] * 2}
DELTA = {
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    **ALTERNATING,
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}

SHARED: dict[str, dict[str, Any]] = {
    "lfm2": {**GATED, "layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
    "qwen3_next": {
        **GATED,
        **DELTA,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8,
    },
    "qwen3_5_text": {**GATED, **DELTA},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 4, "state_size": 4, "vocab_size": 300},
    "falcon_h1": {**GATED, **MAMBA, "mamba_d_ssm": 32},
    "granitemoehybrid": {
        **GATED,
        **MAMBA,
        "layer_types": ["mamba", "attention"] * 2,
        "shared_intermediate_size": 16,
        "num_local_experts": 0,
    },
    "nemotron_h": {
        **GATED,
        "hybrid_override_pattern": "M*M-",
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 4,
        "n_groups": 1,
        "chunk_size": 8,
        "head_dim": 4,
    },
    "gpt_oss": {**GATED, **EXPERTS, "head_dim": 4, "sliding_window": 8},
    "llama4_text": {**GATED, **EXPERTS, "head_dim": 4, "attention_chunk_size": 64, "intermediate_size_mlp": 16},
    "opt": {**WIDE, "ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 256},
}
ALONE: dict[str, dict[str, Any]] = {  # state inside of the model, a cache of its own, none
    "recurrent_gemma": {**GATED, "head_dim": 4, "lru_width": 16, "attention_window_size": 8},
    "minimax": {**GATED, **EXPERTS, **ALTERNATING, "head_dim": 4, "block_size": 8},
    "rwkv": {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 4, "vocab_size": 300},
}


@pytest.fixture(scope="module")
def steerable(new_tokenizer: Callable[..., Any]) -> Callable[[str], SteerableModel]:
    def build(family: str) -> SteerableModel:
        torch.manual_seed(0)
        shape = {**SHARED, **ALONE}[family]
        config = AutoConfig.for_model(family, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape)
        network = AutoModelForCausalLM.from_config(config).float()
        with torch.no_grad():  # sharper than its own initialisation, so that steering changes texts
            network.get_output_embeddings().weight.mul_(8)
        return SteerableModel(network, new_tokenizer())

    return build


def rows_of(seed: int = 1) -> list[Row]:
    """Return texts with prompts of 1 to 12 tokens, of other lengths and kinds of steering."""
    draw, numbers = random.Random(seed), np.random.default_rng(seed)
    vector = numbers.normal(size=16).astype(np.float32)
    kinds = [Steering()] + [
        Steering((Intervention("layer_output", 1, "add", vector, 3.0, "raw", 1.0, positions),))
        for positions in ("all", "prompt", "generated")
    ]
    return [
        Row(tuple(draw.randrange(5, 300) for _ in range(length)), kinds[key % 4], key, 6 + key % 4, 1.0, 0.95)
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


@pytest.mark.parametrize("family", [*SHARED, *ALONE])
def test_texts_in_a_shared_batch_equal_texts_that_are_read_from_the_start(steerable, family, capsys):
    model = steerable(family)
    kind = type(open_batch(model))
    assert kind is (CachedBatch if family in SHARED else UncachedBatch)
    assert ("written without a cache" in capsys.readouterr().err) == (family in ALONE)
    alone = [write(UncachedBatch(model), [row], 1)[0] for row in rows_of()]
    assert write(kind(model), rows_of(), 3) == alone
    assert write(kind(model), rows_of(), 8) == alone
    unsteered = rows_of()
    for row in unsteered:
        row.steering = Steering()
    assert write(kind(model), unsteered, 8) != alone, "steering changes nothing: it was not tested"
