"""Steering files: what a fitted method leaves comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering, load_steering, save_steering

FIELDS: dict[str, Any] = {
    "site": "layer_output",
    "layer": 7,
    "operation": "add",
    "strength": 0.1 + 0.2,
    "unit": "residual",
    "residual_norm": 12.34567890123,
    "positions": "generated",
}


def make(**changes: Any) -> Intervention:
    vector = np.random.default_rng(0).normal(size=6).astype(np.float32)
    return Intervention(**{"vector": vector, **FIELDS, **changes})


def write(path: Path, header: Any = None, vector: Any = (1.0, 2.0), schema: Any = 1, **changes: Any) -> Path:
    """Write a steering file by hand; ``header`` replaces it whole, ``changes`` fields of its intervention."""
    item = {**FIELDS, "tensor": "intervention.0", **changes}
    body = {"schema": schema, "interventions": [item], "provenance": {}} if header is None else header
    tensors = {"intervention.0": np.array(vector, dtype=np.float32)}
    save_file(tensors, path, metadata={"steerboard": body if isinstance(body, str) else json.dumps(body)})
    return path


def test_a_steering_file_brings_everything_back(tmp_path):
    items = (make(), make(layer=0, unit="raw", positions="all", strength=-4.0, residual_norm=0.0))
    provenance = {"rule": "mean – mean", "texts": {"am": 10, "he": 9}, "ቋንቋ": ["አማርኛ", None, 0.1]}
    save_steering(tmp_path / "s.safetensors", Steering(items, provenance))
    loaded = load_steering(tmp_path / "s.safetensors")
    assert loaded.provenance == provenance
    for before, after in zip(items, loaded.interventions, strict=True):
        assert after.vector.dtype == np.float32
        assert np.array_equal(before.vector, after.vector)
        assert {**vars(before), "vector": None} == {**vars(after), "vector": None}


def test_steering_without_interventions_comes_back_empty(tmp_path):
    save_steering(tmp_path / "none.safetensors", Steering(provenance={"why": "unsteered"}))
    assert load_steering(tmp_path / "none.safetensors") == Steering((), {"why": "unsteered"})


def test_a_file_written_by_hand_is_read(tmp_path):
    (item,) = load_steering(write(tmp_path / "s.safetensors")).interventions
    assert item.vector.tolist() == [1.0, 2.0]
    assert (item.layer, item.positions) == (7, "generated")


def test_equal_steering_gives_equal_bytes(tmp_path):
    for name in ("one", "two"):
        save_steering(tmp_path / name, Steering((make(),), {"b": 1, "a": 2}))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_reversed_or_strided_vector_is_written_as_it_reads(tmp_path):
    vector = np.arange(12, dtype=np.float32)[::-2]
    save_steering(tmp_path / "s", Steering((make(vector=vector),)))
    assert load_steering(tmp_path / "s").interventions[0].vector.tolist() == [11, 9, 7, 5, 3, 1]


def test_the_loaded_vector_steers_like_the_one_that_was_saved(tmp_path, tiny_models, steer):
    model, ids = tiny_models["llama"], torch.tensor([[5, 6, 7]])
    save_steering(tmp_path / "s", steer())
    logits = []
    for steering in (steer(), load_steering(tmp_path / "s")):
        with torch.inference_mode(), model.hooks.steer([steering], torch.ones_like(ids)):
            logits.append(model.model(ids).logits)
    assert torch.equal(*logits)


def test_the_raw_strength_is_the_strength_times_the_norm_in_residual_units_only():
    assert make(strength=0.25, residual_norm=8.0, unit="residual").raw_strength == 2.0
    assert make(strength=0.25, residual_norm=8.0, unit="raw").raw_strength == 0.25


@pytest.mark.parametrize(
    "header",
    ["{", "[]", "7", {}, {"schema": 1}, {"schema": 1, "interventions": 3, "provenance": {}}],
    ids=str,
)
def test_a_header_that_is_no_steering_is_refused(tmp_path, header):
    with pytest.raises(UserError, match="is not a steering file"):
        load_steering(write(tmp_path / "s.safetensors", header))


@pytest.mark.parametrize("change", [{"tensor": "other"}, {"colour": "red"}], ids=str)
def test_an_intervention_with_a_foreign_field_or_no_tensor_is_refused(tmp_path, change):
    with pytest.raises(UserError, match="is not a steering file"):
        load_steering(write(tmp_path / "s.safetensors", **change))


def test_safetensors_of_another_program_are_refused(tmp_path):
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is not a steering file"):
        load_steering(tmp_path / "model.safetensors")


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "trap.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="is not a steering file"):
        load_steering(tmp_path / "trap.safetensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 7, 60])
def test_a_truncated_file_is_refused(tmp_path, keep):
    save_steering(tmp_path / "s", Steering((make(),)))
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:keep])
    with pytest.raises(UserError, match="is not a steering file"):
        load_steering(tmp_path / "s")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        load_steering(tmp_path / "gone.safetensors")


def test_a_newer_schema_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(UserError, match=r"newer schema \(2\). Upgrade"):
        load_steering(write(tmp_path / "s.safetensors", schema=2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_refused_when_read(tmp_path, value):
    with pytest.raises(UserError, match="not finite"):
        load_steering(write(tmp_path / "s.safetensors", vector=(1.0, value)))


@pytest.mark.parametrize(
    "change",
    [
        {"vector": np.array([1.0, np.nan], np.float32)},
        {"strength": np.inf},
        {"residual_norm": np.nan, "unit": "raw"},
    ],
    ids=["vector", "strength", "norm"],
)
def test_numbers_that_are_not_finite_are_refused_when_made(change):
    with pytest.raises(UserError, match="not finite"):
        make(**change)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_a_vector_that_is_no_list_of_numbers_is_refused(shape):
    with pytest.raises(UserError, match="shape"):
        make(vector=np.ones(shape, np.float32))


@pytest.mark.parametrize(
    "change",
    [{"site": "attention"}, {"operation": "ablate"}, {"unit": "percent"}, {"positions": "last"}],
    ids=str,
)
def test_a_word_that_this_version_does_not_know_is_refused_and_not_guessed(tmp_path, change):
    (word,) = change.values()
    with pytest.raises(UserError, match=f"{word}.*valid"):
        load_steering(write(tmp_path / "s.safetensors", **change))
