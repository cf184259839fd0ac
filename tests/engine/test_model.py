"""Loading a model: what is not a decoder, devices, precision, and tokenizers that lack tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from support.checkpoints import byte_model
from support.writing import write
from transformers import AutoTokenizer

from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.devices import choose_device, choose_dtype
from harness.core.errors import UserError
from harness.engine.model import SteerableModel, find_layers, load_model


def test_a_network_without_decoder_layers_is_refused():
    with pytest.raises(UserError, match="no decoder layers found in Linear"):
        find_layers(torch.nn.Linear(2, 2))


def test_an_unknown_device_is_refused_with_the_valid_ones():
    with pytest.raises(UserError, match="unknown device 'gpu'; valid: cpu, cuda"):
        choose_device("gpu")


# Precision


def stored(dtype: str | None) -> Checkpoint:
    class Stored(Checkpoint):
        stored_dtype = dtype  # type: ignore[assignment]

    return Stored(Path(), "a", None, "b")


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_a_cpu_runs_in_float32_whatever_is_stored(dtype):
    assert choose_dtype("cpu", stored(dtype)) == "float32"


@pytest.mark.parametrize(
    ("dtype", "new", "old"),
    [
        ("bfloat16", "bfloat16", "float32"),  # in float16 it would overflow
        ("float16", "float16", "float16"),
        ("float32", "bfloat16", "float32"),
        (None, "bfloat16", "float32"),
    ],
)
def test_a_gpu_runs_in_what_it_does_fast(monkeypatch, dtype, new, old):
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    for has, wanted in ((True, new), (False, old)):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True, has=has: has)
        assert choose_dtype("cuda:1", stored(dtype)) == wanted


def test_a_gpu_that_emulates_bfloat16_is_not_taken_for_one_that_has_it(monkeypatch):
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_dtype("cuda", stored("bfloat16")) == "float32"


# Tokenizers


@pytest.fixture
def spoiled(tmp_path) -> Callable[..., SteerableModel]:
    """Return what loads a byte model after a change of its tokenizer's settings, and of its tokens."""

    def build(tokens: list[str] | None = None, **settings: str | None) -> SteerableModel:
        folder = byte_model(tmp_path / "model")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer.add_tokens(tokens or [])
        for name, token in settings.items():
            setattr(tokenizer, name, token)
        tokenizer.save_pretrained(folder)
        return load_model(resolve_checkpoint(str(folder)), "float32", "cpu")

    return build


PADS = {
    "no pad": ({"pad_token": None}, 2),
    "neither pad nor end": ({"pad_token": None, "eos_token": None}, 0),
    "a pad without an embedding": ({"pad_token": "<new>"}, 2),
    "no end and a pad without an embedding": ({"pad_token": "<new>", "eos_token": None}, 0),
}


@pytest.mark.parametrize("name", PADS)
def test_what_pads_a_row_changes_no_text_and_no_state(spoiled, tmp_path, name):
    settings, pad = PADS[name]
    wanted = load_model(resolve_checkpoint(str(byte_model(tmp_path / "whole"))), "float32", "cpu")
    model = spoiled(**settings)
    assert (wanted.pad_id, model.pad_id) == (0, pad)
    texts = ["ሰላም", "שלום עולם ab", ""]
    for side in ("left", "right"):
        one, two = (m.encode(texts, special_tokens=False, side=side) for m in (wanted, model))
        assert torch.equal(one["attention_mask"], two["attention_mask"])
        real = one["attention_mask"].bool()
        assert torch.equal(one["input_ids"][real], two["input_ids"][real])
        assert set(two["input_ids"][~real].tolist()) == {pad}
        assert torch.equal(mean_state(wanted, texts[:2], side), mean_state(model, texts[:2], side))
    assert [text.text for text in write(model, batch_size=3)] == [text.text for text in write(wanted, batch_size=3)]


def mean_state(model: SteerableModel, texts: list[str], side: str) -> torch.Tensor:
    batch = model.encode(texts, special_tokens=False, side=side)
    with torch.no_grad():
        states = model.decoder(**batch, position_ids=(batch["attention_mask"].cumsum(1) - 1).clamp(min=0))[0]
    return states[batch["attention_mask"].bool()].mean(0)


def test_a_token_without_an_embedding_is_named(spoiled):
    model = spoiled(["ሰላም", "שלום"])  # tokens 260 and 261 of a model of 260
    assert model.token_ids(["ab"]) == [[259]]
    with pytest.raises(UserError, match=r"writes 'שלום' as token 261, but the model has 260 embeddings"):
        model.token_ids(["ab", "שלום"])


def test_a_token_that_the_tokenizer_does_not_know_adds_nothing_to_a_text(tmp_path):
    folder = byte_model(tmp_path / "wide", vocab_size=320)  # as rows that only fill up a table
    model = load_model(resolve_checkpoint(str(folder)), "float32", "cpu")
    (ids,) = model.token_ids(["ሰላም"])
    assert model.tokenizer.decode([*ids, 300, 319], skip_special_tokens=True) == "ሰላም"
    assert all(text.finish_reason in {"stop", "length"} for text in write(model))


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path):
    folder = byte_model(tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"bare has no tokenizer \(tokenizer\.json or tokenizer\.model\)") as caught:
        load_model(resolve_checkpoint(str(folder)), "float32", "cpu")
    assert "\n" not in str(caught.value)
