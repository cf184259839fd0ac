"""Models that also read pictures, as text models: texts come from the language model, the rest is not kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.checkpoints import byte_model
from support.writing import write

from harness.core.checkpoints import resolve_checkpoint
from harness.engine.model import load_model

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SEEN: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
IMAGE = {"image_token_index": 290}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {"text_config": TEXT, "vision_config": SEEN, "mm_tokens_per_image": 4, **IMAGE},
    ),
    "mistral3": (
        "Mistral3ForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "mistral"},
            "vision_config": {**SEEN, "model_type": "pixtral", "head_dim": 8},
            **IMAGE,
        },
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**SEEN, "model_type": "clip_vision_model"},
            **IMAGE,
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {
                **TEXT,
                "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            },
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "out_hidden_size": 32,
                "fullatt_block_indexes": [0],
            },
            "image_token_id": 290,
            "video_token_id": 291,
            "vision_start_token_id": 292,
        },
    ),
    "llama4": (
        "Llama4ForCausalLM",
        {
            "text_config": {**TEXT, "intermediate_size_mlp": 64, "num_local_experts": 2, "num_experts_per_tok": 1},
            "vision_config": {**SEEN, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
            **IMAGE,
        },
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return byte_model(tmp_path_factory.mktemp("models") / "bytes")


@pytest.mark.parametrize("family", CONFIGS)
def test_texts_come_from_the_language_model_and_the_rest_is_not_kept(tokenizer, tmp_path, family):
    loaded_as, options = CONFIGS[family]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **options)
    whole = transformers.AutoModelForImageTextToText.from_config(config).eval()
    folder = tmp_path / family
    whole.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    checkpoint = resolve_checkpoint(str(folder))
    assert checkpoint.model_type == family
    model = load_model(checkpoint, "float32", "cpu")
    assert type(model.model).__name__ == loaded_as
    assert not [name for name, _ in model.model.named_parameters() if "vision" in name or "visual" in name]
    assert [name for name, _ in whole.named_parameters() if "vision" in name or "visual" in name]
    batch = model.encode(["ሰላም", "שלום ab"], special_tokens=False, side="right")
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        assert torch.equal(model.model(**batch).logits[real], whole(**batch).logits[real])
    assert (model.context_length, model.hidden_size, len(model.layers)) == (256, 32, 2)
    one, many = ([text.text for text in write(model, batch_size=size)] for size in (1, 8))
    assert one == many
    assert any(one)
