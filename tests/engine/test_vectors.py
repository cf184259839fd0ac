"""Steering files exported for other programs, whose own readers judge what they get."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, HIDDEN, LAYERS
from safetensors.numpy import save_file
from support.helpers import Outcome, steerboard
from support.steering_files import SCALED, THREE, added, vector

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.engine.export import hookpoints, layer_vectors

TEXTS = ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "Write a review in Amharic language."]


@pytest.fixture(scope="session")
def llama(tmp_path_factory, new_network, new_tokenizer) -> Path:
    """The tiny llama of conftest in a folder, with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    new_network("llama").save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def repeng(monkeypatch) -> Any:
    """The package repeng, which was written for numpy 1: it names a type that numpy 2 took away."""
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    return pytest.importorskip("repeng", reason="NOT CHECKED: repeng is not installed")


def export(*words: object) -> Path:
    """Export, and return the file that came of it."""
    outcome = steerboard("vectors", "export", *words)
    assert outcome.code == 0, outcome.err
    out = words[words.index("--out") + 1]
    assert isinstance(out, Path)
    assert str(out) in outcome.out
    return out


def logits(model: Any, steering: Steering, ids: Any) -> Any:
    """Return the logits of a steerable model under our own hooks."""
    with torch.inference_mode(), model.hooks.steer([steering] * len(ids), torch.ones_like(ids)):
        return model.model(ids).logits


# GGUF, for repeng and llama.cpp


def test_repeng_reads_the_vectors_times_their_strength_bit_for_bit(stored, tmp_path, repeng):
    out = export(stored(), "--format", "repeng", "--out", tmp_path / "v.gguf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns of files that are no control vectors
        read = repeng.ControlVector.import_gguf(out)
    first = vector(1) * np.float32(0.3 * 1.7) + vector(3) * np.float32(0.7)
    expected = {1: first, 2: vector(2) * np.float32(-2.3)}
    assert list(read.directions) == [1, 2]
    for layer, direction in read.directions.items():
        assert direction.dtype == np.float32
        assert np.array_equal(direction, expected[layer])


def test_repengs_own_arithmetic_and_round_trip_take_the_file(stored, tmp_path, repeng):
    out = export(stored(), "--format", "repeng", "--out", tmp_path / "v.gguf")
    read = repeng.ControlVector.import_gguf(out)
    read.export_gguf(tmp_path / "again.gguf")
    assert repeng.ControlVector.import_gguf(tmp_path / "again.gguf") == read
    assert not any(direction.any() for direction in (read - read).directions.values())


def test_the_gguf_file_holds_what_llama_cpp_and_repeng_look_for(stored, tmp_path, llama):
    from gguf import GGUFReader

    provenance = {"language": "am", "rule": "אמצע – አማካይ"}
    words = ("--format", "repeng", "--model", llama, "--out", tmp_path / "v.gguf")
    reader = GGUFReader(export(stored(**provenance), *words))
    fields = {name: field.contents() for name, field in reader.fields.items() if "." in name}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 2
    assert json.loads(fields["steerboard.provenance"]) == provenance
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.2"]
    assert {(tensor.tensor_type.name, tuple(tensor.shape)) for tensor in tensors.values()} == {("F32", (HIDDEN,))}


@pytest.mark.parametrize("layer", range(LAYERS))
def test_repeng_steers_a_model_as_we_do(stored, tmp_path, repeng, new_network, tiny_models, layer):
    ours, text = tiny_models["llama"], TEXTS[layer]
    ids = ours.encode([text], special_tokens=True, side="left")["input_ids"]
    items = (added(layer=layer, strength=3.0), added(layer=layer, strength=0.5, vector=vector(4)))
    out = export(stored(*items), "--format", "repeng", "--out", tmp_path / "v.gguf")
    model = repeng.ControlModel(new_network("llama"), [layer])
    model.set_control(repeng.ControlVector.import_gguf(out), 1.0)
    with torch.inference_mode():
        steered = model(ids).logits
        model.reset()
        plain = model(ids).logits
    assert torch.equal(plain, logits(ours, Steering(), ids))
    assert (steered - plain).abs().max() > 0.1
    assert torch.allclose(steered, logits(ours, Steering(items), ids), atol=1e-6, rtol=0)


def test_layer_0_is_written_and_llama_cpp_is_said_not_to_read_it(stored, tmp_path):
    words = ("--format", "repeng", "--out", tmp_path / "v.gguf")
    outcome = steerboard("vectors", "export", stored(added(layer=0)), *words)
    assert outcome.code == 0
    assert "llama.cpp does not read this file: it cannot steer layer 0" in outcome.err
    assert "--control-vector" not in outcome.out


@pytest.mark.parametrize(
    ("model", "hint"), [({"name": "owner/gemma", "revision": "c0ffee"}, "owner/gemma"), (None, "unknown")]
)
def test_the_hint_is_the_name_in_the_file_where_no_model_is_given(stored, tmp_path, repeng, model, hint):
    out = export(stored(model=model), "--format", "repeng", "--out", tmp_path / "v.gguf")
    assert repeng.ControlVector.import_gguf(out).model_type == hint


@pytest.mark.parametrize("format_", ["repeng", "lm-eval"])
def test_equal_steering_gives_equal_files(stored, tmp_path, llama, format_):
    words = ("--format", format_, "--model", llama, "--out")
    one, two = (export(stored(), *words, tmp_path / name / "v.pt") for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


# lm-eval's steered model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_of_the_layers_are_those_of_the_model_itself(new_network, tiny_models, family):
    names = hookpoints(tiny_models[family].model.config)
    modules = dict(new_network(family).base_model.named_modules())
    kinds = {type(modules[name]) for name in names}
    assert len(names) == LAYERS
    assert kinds == {type(tiny_models[family].layers[0])}
    prefix = "h" if family in {"gpt2", "bloom", "falcon"} else "layers"
    assert names == [f"{prefix}.{layer}" for layer in range(LAYERS)]


def test_a_model_with_a_picture_tower_has_its_text_layers_named():
    from transformers import AutoConfig

    config = AutoConfig.for_model("gemma3")
    names = hookpoints(config)
    assert names[3] == "language_model.layers.3"
    assert len(names) == config.get_text_config().num_hidden_layers


def test_the_lm_eval_file_is_read_without_unpickling(stored, tmp_path, llama):
    words = ("--format", "lm-eval", "--model", llama, "--out", tmp_path / "v.pt")
    content = torch.load(export(stored(), *words), weights_only=True)
    assert list(content) == ["layers.1", "layers.2"]
    entry = content["layers.2"]
    assert torch.equal(entry.pop("steering_vector"), torch.from_numpy(vector(2) * np.float32(-2.3)))
    assert entry == {"steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}


@pytest.fixture(scope="session")
def lm_eval_model(llama) -> Callable[..., Any]:
    """Return lm-eval's own steered model of the tiny llama."""
    steered = pytest.importorskip("lm_eval.models.hf_steered", reason="NOT CHECKED: lm-eval is not installed")

    def build(path: Path) -> Any:
        return steered.SteeredModel(str(llama), steer_path=str(path), device="cpu", dtype="float32", batch_size=2)

    return build


def test_lm_eval_scores_texts_as_our_steered_model_does(stored, tmp_path, llama, lm_eval_model, tiny_models):
    from lm_eval.api.instance import Instance

    words = ("--format", "lm-eval", "--model", llama, "--out", tmp_path / "v.pt")
    items = (added(strength=3.0), *THREE[1:])
    theirs, ours = lm_eval_model(export(stored(*items), *words)), tiny_models["llama"]
    pairs = [(text[:6], text[6:]) for text in TEXTS]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found = [value for value, _ in theirs.loglikelihood(requests, disable_tqdm=True)]
    for steering, equal in ((Steering(items), True), (Steering(), False)):
        expected = [loglikelihood(ours, steering, *theirs._encode_pair(*pair)) for pair in pairs]
        assert np.allclose(found, expected, atol=1e-5, rtol=0) == equal


def loglikelihood(model: Any, steering: Steering, context: list[int], rest: list[int]) -> float:
    """Return the log-probability of ``rest`` after ``context`` under our own hooks."""
    ids = torch.tensor([context + rest])
    logs = logits(model, steering, ids)[0, len(context) - 1 : -1].log_softmax(-1)
    return float(logs.gather(1, torch.tensor(rest)[:, None]).sum())


def test_lm_eval_refuses_a_model_that_lacks_the_layers(stored, tmp_path, lm_eval_model, new_network):
    new_network("gpt2").save_pretrained(tmp_path / "gpt2")
    words = ("--format", "lm-eval", "--model", tmp_path / "gpt2", "--out", tmp_path / "v.pt")
    model = lm_eval_model(export(stored(), *words))
    with pytest.raises(ValueError, match="Not all hookpoints could be resolved"):
        model._model_call(torch.tensor([[5, 6]]))


def test_a_hub_model_in_the_file_needs_no_option(stored, tmp_path, monkeypatch, new_network):
    asked = []

    def config(name: str, **options: Any) -> Any:
        asked.append((name, options))
        return new_network("gpt2").config

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", config)
    steering = stored(model={"name": "owner/gpt", "revision": "c0ffee"})
    out = export(steering, "--format", "lm-eval", "--out", tmp_path / "v.pt")
    assert asked == [("owner/gpt", {"revision": "c0ffee", "trust_remote_code": False})]
    assert list(torch.load(out, weights_only=True)) == ["h.1", "h.2"]


# What cannot be exported

BAD_STEERING = {
    "neurons": ((added(**SCALED),), r"cannot express operation 'scale' at site 'mlp_neurons' \(layer 1\)"),
    "second of two": ((added(), added(layer=2, **SCALED)), r"'mlp_neurons' \(layer 2\)"),
    "prompt": ((added(positions="prompt"),), r"cannot express positions 'prompt'.*steerboard itself"),
    "generated": ((added(positions="generated"),), r"cannot express positions 'generated'"),
    "two sizes": ((added(), added(layer=2, vector=vector(1, 8))), r"two sizes, 16 and 8"),
    "overflow": ((added(strength=1e39, unit="raw"),), r"beyond float32"),
    "beyond the model": ((added(layer=3),), r"layer 3, this model has layers 0 to 2\. Give --model"),
    "other size": ((added(vector=vector(1, 8)),), r"have 8 numbers, the model's hidden size is 16\. Give"),
}


@pytest.mark.parametrize("format_", ["repeng", "lm-eval"])
@pytest.mark.parametrize("name", BAD_STEERING)
def test_what_a_format_cannot_express_is_refused_in_one_line(stored, tmp_path, llama, name, format_):
    items, words = BAD_STEERING[name]
    out = tmp_path / "new" / "v.pt"
    outcome = steerboard("vectors", "export", stored(*items), "--format", format_, "--model", llama, "--out", out)
    assert_line(outcome, words)
    assert not out.parent.exists()


def assert_line(outcome: Outcome, words: str) -> None:
    assert re.search(words, outcome.one_line()), outcome.err
    assert outcome.out == ""


def test_steering_that_changes_nothing_is_refused():
    with pytest.raises(UserError, match="no intervention to export"):
        layer_vectors(Steering(), "repeng")


def test_an_existing_file_is_never_overwritten(stored, tmp_path):
    (tmp_path / "v.gguf").write_text("mine")
    words = ("--format", "repeng", "--out", tmp_path / "v.gguf")
    assert_line(steerboard("vectors", "export", stored(), *words), r"v\.gguf exists and is not overwritten")
    assert (tmp_path / "v.gguf").read_text() == "mine"


OUTS = {
    "a folder": (lambda p: p, "repeng", r"is a directory\. Give the name of a new file"),
    "below a file": (lambda p: p / "steering.safetensors" / "v.gguf", "repeng", r"cannot write .*Choose"),
    "ending": (lambda p: p / "v.gguf", "lm-eval", r"lm-eval reads only files that end in \.pt or \.pth"),
    "format": (lambda p: p / "v.pt", "lmeval", r"valid: lm-eval, repeng\. Did you mean 'lm-eval'\?"),
}


@pytest.mark.parametrize("name", OUTS)
def test_a_bad_target_is_one_line(stored, tmp_path, llama, name):
    place, format_, words = OUTS[name]
    options = ("--format", format_, "--model", llama, "--out", place(tmp_path))
    assert_line(steerboard("vectors", "export", stored(), *options), words)
    assert [path.name for path in tmp_path.iterdir()] == ["steering.safetensors"]


MODELS = {
    "none": (None, r"names no model: give --model"),
    "missing": ("none/of/these", r"no model config at 'none/of/these'"),
    "an id": ("owner/none", r"no model config at 'owner/none'.*Give --model a folder"),
    "empty": ({}, r"no model config at"),
    "broken": ({"config.json": "{"}, r"no model config at"),
    "a list": ({"config.json": "[]"}, r"no model config at"),
    "unknown type": ({"config.json": '{"model_type": "abacus"}'}, r"no model config at"),
    "no decoder": (
        {"config.json": '{"model_type": "t5", "d_model": 16, "num_layers": 3}'},
        r"describes no causal language model",
    ),
    "absurd": (
        {"config.json": '{"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 0}'},
        r"no model config at|describes no causal language model",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_names_no_layers_is_one_line(stored, tmp_path, name):
    model, words = MODELS[name]
    if isinstance(model, dict):
        folder = tmp_path / "model"
        folder.mkdir()
        for file, text in model.items():
            (folder / file).write_text(text)
        model = folder
    options = [] if model is None else ["--model", model]
    out = tmp_path / "v.pt"
    assert_line(steerboard("vectors", "export", stored(), "--format", "lm-eval", "--out", out, *options), words)
    assert not out.exists()


def test_a_steering_of_a_local_folder_asks_for_the_model(stored, tmp_path):
    file = stored(model={"name": "pocketlm", "revision": None})
    outcome = steerboard("vectors", "export", file, "--format", "lm-eval", "--out", tmp_path / "v.pt")
    assert_line(outcome, r"was fitted on the local folder 'pocketlm': give --model")


# Files that are no steering


def spoil(stored: Callable[..., Path], tmp_path: Path, name: str) -> Path:
    """Return the path of a file that is not what it should be."""
    path = tmp_path / "spoilt"
    if name == "truncated":
        path.write_bytes(stored().read_bytes()[:-9])
    elif name == "text":
        path.write_text("ሰላም, שלום", encoding="utf-8")
    elif name == "foreign":
        save_file({"weight": np.ones(3, np.float32)}, path)
    elif name == "folder":
        path.mkdir()
    elif name in HEADERS:
        header = HEADERS[name].replace("FIELDS", FIELDS)
        save_file({"t": np.ones(3, np.float32)}, path, metadata={"steerboard": header})
    return path


FIELDS = (
    '"site": "layer_output", "operation": "add", "unit": "residual", "positions": "all", "tensor": "t", "strength": 1.0'
)
HEADERS = {
    "deep": '{"schema": 1, "interventions": [], "provenance": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "NaN": '{"schema": 1, "interventions": [], "provenance": {"a": NaN}}',
    "half a character": '{"schema": 1, "interventions": [], "provenance": {"a": "\\ud800"}}',
    "a list": '{"schema": 1, "interventions": [], "provenance": []}',
    "layer": '{"schema": 1, "interventions": [{FIELDS, "layer": "1", "residual_norm": 1}], "provenance": {}}',
    "below": '{"schema": 1, "interventions": [{FIELDS, "layer": -1, "residual_norm": 1}], "provenance": {}}',
}


@pytest.mark.parametrize("name", ["missing", "truncated", "text", "foreign", "folder", *HEADERS])
def test_a_file_that_is_no_steering_is_one_line_for_both_commands(stored, tmp_path, name):
    path, out = spoil(stored, tmp_path, name), tmp_path / "v.gguf"
    words = r"spoilt.*(not a steering file|does not exist|is a folder|is not an index)(?!.*Delete)"
    assert_line(steerboard("vectors", "show", path), words)
    assert_line(steerboard("vectors", "show", "--json", stored(), path), words)
    assert_line(steerboard("vectors", "export", path, "--format", "repeng", "--out", out), words)
    assert not out.exists()
