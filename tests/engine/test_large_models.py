"""Models that do not fit on one device: weights elsewhere between passes, quantised weights, missing packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from rich.console import Console
from support.helpers import deep_llm, small_suite, steerboard

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering
from harness.core.records import ModelIdentity
from harness.engine.activations import read_means
from harness.engine.architectures import check_model
from harness.engine.decoding import Row, write_rows
from harness.engine.model import SteerableModel, device_of, load_model
from harness.engine.train_vector import Alignment, Likelihood, TrainConfig, train_vector
from harness.engine.weights import load_network, load_tokenizer
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, plan_run
from harness.runner.readings import ReadingCache

TEXTS = ["שלום עולם", "ሰላም ለዓለም፣ እንዴት ነህ?", "hello"]
EVERYWHERE = "transformers.integrations.accelerate.get_max_memory"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of four layers. Leave it as it is."""
    return deep_llm(tmp_path_factory.mktemp("models") / "deep")


@pytest.fixture(scope="module")
def plain(folder) -> SteerableModel:
    return load_model(resolve_checkpoint(str(folder)), "float32", "cpu")


@pytest.fixture(params=["memory", "disk", "both"])
def offloaded(request, folder, tmp_path) -> SteerableModel:
    """The same model, whose weights are on no device between passes: in memory, on the disk, or some on each."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    checkpoint = resolve_checkpoint(str(folder))
    if request.param == "both":  # as --device-map auto does where the memory is too small
        size = (folder / "model.safetensors").stat().st_size
        with mock.patch(EVERYWHERE, return_value={"cpu": size // 2}):
            return load_model(checkpoint, "float32", "cpu", "auto")
    network, tokenizer = load_network(checkpoint, torch.float32), load_tokenizer(checkpoint)
    where = {"execution_device": torch.device("cpu")}
    if request.param == "disk":
        accelerate.disk_offload(network, tmp_path, **where)
    else:
        accelerate.cpu_offload(network, **where)
    return SteerableModel(network, tokenizer)


def tokens_of(model: SteerableModel) -> list[list[int]]:
    """Return tokens of five texts: two unsteered, three by a vector and by neurons."""
    rng = np.random.default_rng(0)
    vector, neurons = (
        rng.normal(size=size).astype(np.float32)
        for size in (model.hidden_size, model.layers[2].mlp.down_proj.in_features)
    )
    added = Steering((Intervention("layer_output", 1, "add", vector, 2.0, "raw", 1.0, "all"),))
    scaled = Steering((Intervention("mlp_neurons", 2, "scale", neurons, 2.0, "raw", 1.0, "generated"),))
    prompts = [tuple(row) for row in model.token_ids([*TEXTS, *TEXTS[:2]])]
    steerings = [Steering(), added, scaled, added, Steering()]
    rows = [Row(p, s, key, 8, 1.0, 0.9) for key, (p, s) in enumerate(zip(prompts, steerings, strict=True))]
    write_rows(model, rows)
    return [row.tokens for row in rows]


def learned(model: SteerableModel) -> list[np.ndarray]:
    """Return a vector that is learned by each objective."""
    pairs = [(f"a {i}", text) for i in range(2) for text in TEXTS]
    plan = TrainConfig(steps=3, batch_size=3, lr=0.1, max_norm=2.0)
    objectives = [Likelihood(model, 1, pairs, 12), Alignment(model, 1, 2, pairs, 1.0, 12, 3)]
    return [train_vector(o, range(4), range(4, 6), 1.0, plan, np.random.default_rng(0)).vector for o in objectives]


def test_texts_and_vectors_do_not_depend_on_where_weights_are(offloaded, plain):
    assert any(weight.is_meta for weight in offloaded.model.parameters())
    check_model(offloaded, "offloaded")
    assert tokens_of(offloaded) == tokens_of(plain)
    assert offloaded.rows_can_enter
    found, wanted = (read_means(model, TEXTS, neurons=True) for model in (offloaded, plain))
    assert np.array_equal(found[0].mean, wanted[0].mean)
    assert np.array_equal(found[1].mean, wanted[1].mean)
    for vector, expected in zip(learned(offloaded), learned(plain), strict=True):
        assert np.array_equal(vector, expected)
        assert np.linalg.norm(expected) > 0


def test_readings_are_kept_where_weights_are_fetched_for_each_pass(offloaded, tmp_path):
    identity = ModelIdentity(name="deep", fingerprint="0", dtype="float32")
    cache = ReadingCache(offloaded, identity, tmp_path, print)
    read_means(offloaded, TEXTS)
    assert cache.usable
    handle = offloaded.layers[0].register_forward_hook(lambda *_: None)
    assert not cache.usable
    handle.remove()


def test_a_module_computes_where_its_weights_are_sent():
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2, device="meta"))
    layer[0]._hf_hook = mock.Mock(hooks=[mock.Mock(execution_device=None), mock.Mock(execution_device="cuda:1")])
    assert device_of(layer) == torch.device("cuda:1")


def test_rows_that_fit_are_those_of_the_fullest_device(plain, monkeypatch):
    """A position takes 8 bytes, so 100 of them twice 1,600 for half of the layers each; logits take 24 x 10."""
    from harness.engine import generate

    queue = generate.GenerationQueue(plain)  # which tries the model's cache
    monkeypatch.setattr(SteerableModel, "layer_shares", {torch.device("cuda:0"): 0.5, torch.device("cuda:1"): 0.5})
    monkeypatch.setattr(generate, "free_memory", lambda device: 30_000 if device.index else 15_000)
    monkeypatch.setattr(plain, "row_bytes", (8, 0))
    monkeypatch.setattr(plain.model.config, "vocab_size", 10)
    assert queue._rows_that_fit(100) == 9  # 15,000 / 1.5 / (800 + 240)


def test_a_run_whose_model_is_spread_has_the_files_of_one_that_is_not(folder, tmp_path, capsys):
    found = {}
    for device_map in (None, "auto"):
        run = tmp_path / str(device_map)
        options = RunOptions(
            str(small_suite(tmp_path, folder)),
            run=run,
            languages=["am", "he"],
            tasks=["sentiment"],
            seeds=[1],
            methods=["zero-shot", "language"],
            settings=["zero-shot"],
            device_map=device_map,
        )
        with mock.patch(EVERYWHERE, return_value={"cpu": (folder / "model.safetensors").stat().st_size // 2}):
            GenerationStage.start(plan_run(options, scored=False), options, Console(quiet=True))
        found[device_map] = {path.name: path.read_bytes() for path in run.glob("steering/*.safetensors")}
        found[device_map] |= {path.parent.name: path.read_bytes() for path in run.glob("cells/*/generations.jsonl")}
    assert len(found[None]) == 2 + 4  # a fit in each language, two cells of each method
    assert found["auto"] == found[None]
    assert "of 4 layers do not fit on cpu and are fetched for every token" in capsys.readouterr().err


# Quantised weights


def quantised(folder: Path, target: Path, method: str) -> Path:
    """Write the model with a config that says it is quantised; nothing is changed in its weights."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method}}))
    return target


@pytest.mark.parametrize(
    ("method", "packages"),
    [("bitsandbytes", "bitsandbytes"), ("awq", "gptqmodel"), ("gptq", "optimum gptqmodel"), ("torchao", "torchao")],
)
def test_a_missing_package_is_named_before_weights_are_loaded(folder, tmp_path, monkeypatch, method, packages):
    for name in packages.split():
        monkeypatch.setitem(sys.modules, name, None)
    model = quantised(folder, tmp_path / "model", method)
    words = ["--suite", small_suite(tmp_path, model), "--model", model, "--run", tmp_path / "run"]
    expected = f"model is quantised by {method}, which needs {packages.replace(' ', ' and ')}, not installed here: pip"
    with mock.patch("harness.engine.model.load_network", side_effect=AssertionError("weights")):
        line, shown = steerboard("run", *words).one_line(), steerboard("plan", *words)
    assert expected in line
    assert line.endswith(f"pip install {packages}.")
    assert f"warning: {expected}" in " ".join(shown.out.split())
    assert shown.code == 0


def test_quantisation_is_part_of_the_models_identity(folder, tmp_path):
    found = resolve_checkpoint(str(quantised(folder, tmp_path / "model", "awq")))
    assert found.quantised == "awq"
    assert resolve_checkpoint(str(folder)).quantised == ""
    assert found.fingerprint != resolve_checkpoint(str(folder)).fingerprint


@pytest.fixture(scope="module")
def int8(folder, tmp_path_factory) -> Path:
    """The model with weights of 8 bits, as torchao and transformers store them."""
    pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    target = tmp_path_factory.mktemp("models") / "int8"
    network = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), dtype=torch.float32, device_map="cpu"
    )
    network.save_pretrained(target)
    load_tokenizer(resolve_checkpoint(str(folder))).save_pretrained(target)
    return target


def test_quantised_weights_are_loaded_by_config_and_steered_in_the_precision_of_the_states(int8, plain):
    model = load_model(resolve_checkpoint(str(int8)), "float32", "cpu")
    weight = model.layers[1].mlp.down_proj.weight
    assert weight.qdata.dtype == torch.int8
    check_model(model, "int8")  # among others: a vector moves a layer's output by that vector
    seen = []
    model.layers[1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    tokens_of(model)
    assert set(seen) == {torch.float32}
    assert not model.exact
    found, wanted = (read_means(each, TEXTS)[0].mean for each in (model, plain))
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    assert all(np.linalg.norm(vector) > 0 for vector in learned(model))


def test_a_quantisation_that_computes_in_another_precision_is_refused(folder, monkeypatch):
    checkpoint = resolve_checkpoint(str(folder))
    network = load_network(checkpoint, torch.float16)
    monkeypatch.setattr("harness.engine.model.load_network", lambda *_: network)
    with pytest.raises(UserError, match=r"computes in float16, not bfloat16\. Give --dtype\."):
        load_model(checkpoint, "bfloat16", "cpu")
