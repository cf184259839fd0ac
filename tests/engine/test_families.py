"""Families of models as docs/models.md lists them, and what a model must do to be steered.

Tiny models with random weights, built from their configs. A family that is accepted has its texts compared: in a shared
batch, or without a cache, they equal those that are read from the start for every token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.families import FAST, PAGE, REFUSED, SLOW, Finding, examine, families, read_table, table, tiny_model
from support.helpers import deep_llm, small_suite, steerboard

from harness.core.errors import UserError
from harness.engine.architectures import check_config, check_model
from harness.engine.decoding import CachedBatch, UncachedBatch, open_batch

LISTED = read_table(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("family", [*FAST, *SLOW, *REFUSED])
def test_a_family_is_what_the_page_says(family):
    found = examine(family)
    assert found == LISTED[family], "write the table again: make models"
    assert found.status == ("supported" if family in FAST else "slow path" if family in SLOW else "refused")


@pytest.mark.nightly
def test_the_page_lists_every_family_of_transformers():
    assert f"transformers {transformers.__version__}" in PAGE.read_text(encoding="utf-8")
    assert {family: examine(family) for family in families()} == LISTED, "write the table again: make models"


def test_the_table_is_read_as_it_is_written():
    found = {
        "llama": Finding("supported", True),
        "rwkv": Finding("slow path", False, "its forward pass takes no cache"),
        "bart": Finding("refused", False, "it is an encoder-decoder"),
        "phi3": Finding("supported", True),
    }
    assert read_table(table(found)) == found
    assert table(found).count("\n") == 5
    assert table(LISTED) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("family", [FAST[0], SLOW[0]])
def test_a_model_without_a_shared_cache_says_so_once(family, capsys):
    model = tiny_model(family)
    assert type(open_batch(model)) is (CachedBatch if family in FAST else UncachedBatch)
    open_batch(model)
    assert capsys.readouterr().err.count("written without a cache") == (family in SLOW)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bart", "is_encoder_decoder": True}, "an encoder-decoder (bart)"),
        ({"model_type": "bart"}, "an encoder-decoder (bart)"),  # as its config class has it
        ({"model_type": "t5"}, "an encoder-decoder (t5)"),
        ({"model_type": "own", "is_encoder_decoder": True}, "an encoder-decoder (own)"),
        ({"model_type": "own", "architectures": ["OwnForMaskedLM"]}, "an encoder (own)"),
        ({"model_type": "xlm-roberta"}, "an encoder (xlm-roberta), which reads a text in both directions"),
        ({"model_type": "modernbert"}, "an encoder (modernbert), which"),
    ],
)
def test_a_config_alone_refuses_what_does_not_continue_a_text(config, words):
    with pytest.raises(UserError) as error:
        check_config(config, "some/model")
    assert str(error.value).startswith("some/model cannot be steered: it is ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "steerboard docs models" in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "gemma3"},
        {"model_type": "bart", "is_encoder_decoder": False},  # a decoder that was trained on its own: its layers tell
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "of-tomorrow"},
        {"model_type": "of-tomorrow", "architectures": "OwnForMaskedLM"},
    ],
)
def test_a_config_that_does_not_say_is_left_to_the_model(config):
    check_config(config, "some/model")


def look_ahead(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    """Let a token see all tokens of its text."""
    return output + output.mean(dim=1, keepdim=True)


def look_aside(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    """Let a text see the others of its batch."""
    return output + output.mean(dim=0, keepdim=True)


def fail(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel for this")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (look_ahead, "depends on the tokens after it"),
        (look_aside, "depend on the texts beside it"),
        (fail, "fails (RuntimeError: no kernel for this)"),
    ],
)
def test_a_model_that_does_not_behave_is_refused_whatever_its_name(new_model, fault, reason, dtype):
    model = new_model("llama")
    model.model.to(dtype)
    check_model(model, "M")
    model.layers[1].register_forward_hook(fault)
    with pytest.raises(UserError, match=r"^M cannot be steered: .+\. Give another --model") as error:
        check_model(model, "M")
    assert reason in str(error.value)


def test_a_layer_that_runs_twice_or_not_at_all_is_refused(new_model):
    model = new_model("llama")
    model.layers[2].register_forward_hook(lambda m, a, o: model.layers[1](o, position_embeddings=m.rotated))
    model.layers[2].register_forward_pre_hook(
        lambda m, a, k: setattr(m, "rotated", k["position_embeddings"]), with_kwargs=True
    )
    with pytest.raises(UserError, match=r"once in a pass \(layer 1: 2 times\)"):
        check_model(model, "M")


def test_a_layer_whose_output_is_not_read_is_refused(new_model):
    model = new_model("llama")
    kept: list[torch.Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda m, a: kept.append(a[0]))
    model.layers[1].register_forward_pre_hook(lambda m, a: (kept[-1], *a[1:]))
    with pytest.raises(UserError, match=r"does not reach the layer above it \(layer 0\)"):
        check_model(model, "M")


def test_no_memory_is_not_taken_for_a_bad_model(new_model):
    model = new_model("llama")

    def use_up(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    model.layers[0].register_forward_hook(use_up)
    with pytest.raises(torch.OutOfMemoryError):
        check_model(model, "M")


def test_a_run_with_a_translator_ends_at_once_and_writes_nothing(tmp_path: Path):
    folder = deep_llm(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mbart", "architectures": ["MBartForConditionalGeneration"], "is_encoder_decoder": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    run = tmp_path / "run"
    done = steerboard("run", "--suite", small_suite(tmp_path, folder), "--run", run, "--methods", "zero-shot")
    assert "model cannot be steered: it is an encoder-decoder (mbart)" in done.one_line()
    assert not run.exists()


def test_a_run_with_a_model_that_fails_the_check_writes_no_cells(tmp_path: Path):
    """A decoder with attention to an encoder, whose config does not say so."""
    from transformers import BartConfig, BartForCausalLM

    folder = deep_llm(tmp_path / "model")
    config = BartConfig(
        vocab_size=3000, d_model=16, decoder_layers=2, decoder_ffn_dim=16, decoder_attention_heads=2, is_decoder=True
    )
    network = BartForCausalLM(config)
    network.config.is_encoder_decoder = False
    network.save_pretrained(folder)
    run = tmp_path / "run"
    done = steerboard("run", "--suite", small_suite(tmp_path, folder), "--run", run, "--methods", "zero-shot")
    assert (done.code, len(done.err.splitlines())) == (2, 2), done.err
    assert "model cannot be steered: its layers attend to the states of an encoder" in done.err
    assert not (run / "cells").exists()
