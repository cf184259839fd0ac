"""Translation models of random weights, one of every kind, for the tests of contrast text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.helpers import ROOT, byte_tokenizer

DATA = ROOT / "tasks" / "mini" / "data"


CODES = ["amh_Ethi", "heb_Hebr", "deu_Latn", "zho_Hans", "dan_Latn"]


POSITIONS = 40


# Wide initial weights: the output then depends on the input and on the language tokens.
SMALL: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": POSITIONS,
    "init_std": 1.5,
}


def sentences(code: str) -> list[dict[str, str]]:
    lines = (DATA / "parallel" / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def letters() -> list[str]:
    texts = (row["text"] for code in ("am", "he", "de", "da") for row in sentences(code))
    return sorted(set("".join(texts)) - {" "})


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory) -> Path:
    """A model with a token per language: NLLB's own tokenizer with a token per letter."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    first = [f"▁{letter}" for letter in letters()]  # with them the output has words
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters(), *first]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [("▁", letter) for letter in letters()]
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=CODES)
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), **ids, **SMALL))
    model.generation_config.no_repeat_ngram_size = 1  # random weights would repeat themselves
    return save(tmp_path_factory.mktemp("models") / "nllb", model, tokenizer)


@pytest.fixture(scope="module")
def madlad(tmp_path_factory) -> Path:
    """A T5 that is told the target language by a token such as <2de> in front of the text."""
    import torch
    from tokenizers import AddedToken
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((x, -3.0) for x in letters())]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.add_tokens([AddedToken(f"<2{code}>", normalized=False) for code in ("am", "iw", "de", "zh")])
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    small = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "initializer_factor": 6.0}
    config = T5Config(vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, **ids, **small)
    model = T5ForConditionalGeneration(config)
    model.generation_config.no_repeat_ngram_size = 1
    return save(tmp_path_factory.mktemp("models") / "madlad", model, tokenizer)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """A folder of Marian models for one direction each, with three beams; Chinese has two variants."""
    import torch
    from tokenizers import processors
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("am-de", "de-zh", "zh-de", "de-am")):
        special = ["</s>", "<unk>", "<pad>", *([">>yue<<", ">>cmn_Hans<<"] if name == "de-zh" else [])]
        backend = byte_tokenizer(special)
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
        )
        tokenizer.add_tokens(special[3:], special_tokens=True)
        torch.manual_seed(seed)
        ids = {"pad_token_id": 2, "eos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": 0}
        model = MarianMTModel(MarianConfig(vocab_size=256 + len(special), **ids, **SMALL))
        model.generation_config.num_beams = 3
        model.generation_config.do_sample = True  # never followed
        model.generation_config.no_repeat_ngram_size = 1
        save(folder / f"opus-mt-{name}", model, tokenizer)
    return folder
