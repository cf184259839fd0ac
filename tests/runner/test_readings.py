"""Cached activations: what is read once is not read again, by any run; what is doubtful is read again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS, fit
from support.contexts import PARALLEL, sentences

from harness.core.records import Usage
from harness.core.tensors import load_tensors, save_tensors
from harness.data.corpus import Corpus
from harness.engine.model import SteerableModel
from harness.methods.clas import Clas
from harness.methods.difference import LanguageSteering, QualitySteering
from harness.runner.fit import Fitter

AM = PARALLEL["am"]


@pytest.fixture
def corpus(corpus_of) -> Corpus:
    return corpus_of(
        {code: sentences(texts) for code, texts in PARALLEL.items()},
        degraded={("noise", "am"): sentences(["ጥሩ ምግቡ", "ወደዚህ ወደዚህ መጣን"])},
    )


@pytest.fixture
def model(new_model) -> SteerableModel:
    return new_model()


@pytest.fixture
def run(new_fitter, model, corpus) -> Callable[..., Fitter]:
    """Start another run on the same cache: ``run(folder)``."""
    return lambda folder="first", on=model: new_fitter(on, corpus, folder)


@contextmanager
def passes(model: SteerableModel) -> Iterator[list[int]]:
    """Record the forward passes of the block by their number of rows; invisible to those who look at hooks."""
    seen: list[int] = []
    network, own = model.decoder, model.decoder.forward

    def counted(*args: Any, **options: Any) -> Any:
        seen.append(len(options["input_ids"]))
        return own(*args, **options)

    network.forward = counted
    try:
        yield seen
    finally:
        network.forward = own


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "activations").glob("*.safetensors"))


def test_a_second_run_makes_no_forward_pass_and_gets_the_same_vectors(run, model, tmp_path):
    with passes(model) as cold:
        first = fit(run("first"), LanguageSteering())
    with passes(model) as warm:
        second = fit(run("second"), LanguageSteering())
    assert cold
    assert not warm
    assert first.interventions[0].vector.tobytes() == second.interventions[0].vector.tobytes()
    assert first.provenance == second.provenance
    assert len(files(tmp_path)) == 3  # am, he, en


def test_other_layers_strengths_and_languages_read_nothing_again(run, model):
    fit(run(), LanguageSteering())
    with passes(model) as warm:
        for config in ({"layer": 0}, {"layer": 2}, {"strength": 0.7}, {"unit": "raw"}):
            fit(run("second"), LanguageSteering(LanguageSteering.Config(**config)))
        fit(run("second"), LanguageSteering(), "he")
    assert not warm


def test_another_method_reads_only_what_was_not_read(run, model, tmp_path):
    fit(run(), LanguageSteering())
    with passes(model) as more:
        fit(run("second"), QualitySteering())
    assert more == [2]  # the degraded sentences; the human ones are the parallel text
    assert len(files(tmp_path)) == 4


def test_neurons_come_with_the_states(run, model):
    fit(run(), LanguageSteering())
    with passes(model) as warm:
        fitted = fit(run("second"), Clas(Clas.Config(min_texts=2, layers=[1])))
    assert fitted.interventions
    assert warm == [2, 2]  # plain and steered, for the record of how far it moves the residual stream


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "beef"}, {"dtype": "bfloat16"}, {"revision": "1"}, {"name": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_another_model_is_read_anew(run, model, change, tmp_path):
    run().mean_states(AM)
    other = run("second")
    identity = other.plan.model.model_copy(update=change)
    other = Fitter(type(other.plan)(**{**vars(other.plan), "model": identity}), model)
    with passes(model) as again:
        other.mean_states(AM)
    assert again == [2]
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("texts", [AM[::-1], AM[:1], [*AM, AM[0]], [AM[0], AM[1] + " "]])
def test_other_texts_are_read_anew(run, model, texts):
    run().mean_states(AM)
    with passes(model) as again:
        run("second").mean_states(texts)
    assert again


def test_means_without_sinks_are_another_reading(run, model):
    run().mean_states(AM)
    with passes(model) as again:
        run("second").mean_states(AM, exclude_sinks=True)
    assert again


def rewritten(path: Path, arrays: dict[str, Any] | None = None, **header: Any) -> None:
    """Write a cached file with other content and a hash that fits it."""
    old, known = load_tensors(path, "reading")
    save_tensors(path, {**old, **(arrays or {})}, "reading", {**known, **header})


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "a flipped bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "no safetensors": lambda path: path.write_bytes(b"\x80\x04\x95 pickled " * 50),
    "of another key": lambda path: rewritten(path, key="0" * 16),
    "another shape": lambda path: rewritten(path, {"mean": np.zeros((LAYERS, HIDDEN + 1))}),
    "another type": lambda path: rewritten(path, {"norm": np.zeros(LAYERS, np.float32)}),
    "another tensor": lambda path: rewritten(path, {"more": np.zeros(2)}),
    "a newer schema": lambda path: rewritten(path, schema="x"),
    "counts that are none": lambda path: rewritten(path, n_tokens="many"),
    "no cost": lambda path: rewritten(path, usage=None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_ignored_with_a_warning_and_made_again(run, model, tmp_path, damage, capsys):
    expected = run().mean_states(AM)
    (path,) = files(tmp_path)
    before = load_tensors(path, "reading")[0]
    DAMAGE[damage](path)
    with passes(model) as again:
        found = run("second").mean_states(AM)
    assert again == [2]
    assert np.array_equal(found.mean, expected.mean)
    assert f"{path} was edited or damaged; its activations are computed again" in " ".join(
        capsys.readouterr().err.split()
    )
    for name, array in load_tensors(path, "reading")[0].items():
        assert np.array_equal(array, before[name])


@pytest.mark.parametrize("spoil", ["a file is in its place", "a directory is in the place of its file"])
def test_where_the_cache_cannot_be_written_the_fit_goes_on(run, model, tmp_path, spoil, capsys):
    expected = run().mean_states(AM)
    (path,) = files(tmp_path)
    shutil.rmtree(path.parent)
    if spoil == "a file is in its place":
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
        (path / "x").write_text("")
    fitter = run("second")
    for texts in (AM, PARALLEL["he"]):
        fitter.mean_states(texts)
    assert np.array_equal(fitter.mean_states(AM).mean, expected.mean)
    assert capsys.readouterr().err.count("activations are not cached") == 1


def with_hook(model: SteerableModel) -> None:
    model.layers[0].register_forward_hook(lambda module, args, output: output + 1.0)


def with_other_weights(model: SteerableModel) -> None:
    with torch.no_grad():
        model.model.get_input_embeddings().weight.mul_(2.0)


@pytest.mark.parametrize("change", [with_hook, with_other_weights])
def test_a_changed_model_neither_fills_nor_uses_the_cache(new_model, run, model, change, tmp_path):
    first = run()
    first.mean_states(AM)
    change(model)  # as the code of a method might, and leave it so
    with passes(model) as again:
        moved = first.mean_states(AM)
        first.mean_states(PARALLEL["he"])
    assert again == [2, 2]
    assert len(files(tmp_path)) == 1
    clean = run("second", new_model()).mean_states(AM)
    assert not np.allclose(moved.mean, clean.mean)


def test_a_steered_model_neither_fills_nor_uses_the_cache(run, model, steer, tmp_path):
    fitter, ones = run(), torch.ones(2, 50, dtype=torch.int64)
    plain = fitter.mean_states(AM)
    with model.hooks.steer([steer()] * 2, ones):
        steered = fitter.mean_states(AM)
        fitter.mean_states(PARALLEL["he"])
    assert not np.allclose(plain.mean, steered.mean)
    assert np.array_equal(fitter.mean_states(AM).mean, plain.mean)
    assert len(files(tmp_path)) == 1


def test_what_the_cache_supplied_costs_as_if_it_were_read(run, tmp_path):
    def cost(fitter: Fitter) -> dict[str, Usage | None]:
        fit(fitter, LanguageSteering())
        (parts,) = fitter._costs.values()
        return {name: usage for name, usage in parts.items() if name.startswith("activations/")}

    first, second = cost(run("first")), cost(run("second"))
    assert first == second
    assert all(usage.tokens > 0 for usage in first.values())
    assert {f"activations/{path.stem}" for path in files(tmp_path)} == set(first)


def test_the_run_folder_holds_no_activations(run):
    fitter = run()
    fit(fitter, LanguageSteering())
    assert not list(fitter.plan.run.path.rglob("activations"))
