"""The neuron site: the input of ``down_proj`` scaled exactly, read exactly, refused where there is none."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import FAMILIES, GATED_FAMILIES, HIDDEN, LAYERS, MIXTURES, NEURONS
from support.model_probes import NOTHING, bits, forward, gates_and_neurons, states, watch

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.engine.activations import mean_mlp_activations, mean_states, relative_residual_shift
from harness.engine.hooks import down_projection, has_sandwich_norm
from harness.engine.model import SteerableModel

LAYER = 1

TEXTS = ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "a b", "Output only the text.", "c"]
each_family = pytest.mark.parametrize("family", GATED_FAMILIES)
half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def neurons_by_hand(model: SteerableModel, text: str) -> np.ndarray:
    """Return act(gate) x up of one text alone, from the weights: [layers, tokens, neurons]."""
    return gates_and_neurons(model, text)[1]


def test_the_neurons_of_all_gated_families_are_found_and_of_no_other(tiny_models):
    assert {"llama", "gemma2", "gemma3_text", "qwen2", "qwen3", "mistral", "phi3"} == set(GATED_FAMILIES)
    for family, model in tiny_models.items():
        sizes = [getattr(down_projection(layer), "in_features", None) for layer in model.layers]
        assert sizes == [NEURONS if family in GATED_FAMILIES else None] * LAYERS


@each_family
def test_a_neuron_is_scaled_by_one_plus_strength_times_gain_and_the_others_are_untouched(
    tiny_models, scale, gains, family
):
    model, strength = tiny_models[family], -1.5
    with watch(model, LAYER, "mlp_neurons") as (before, after):
        forward(model, [scale(strength=strength), NOTHING])
    x, y = before[0].numpy(), after[0].numpy()
    factor = np.float32(1) + gains * np.float32(strength)
    assert np.array_equal(y[0], x[0] * factor)
    alone = gains == 0.0
    assert torch.equal(bits(after[0][0][:, torch.from_numpy(alone)]), bits(before[0][0][:, alone]))
    assert (y[0] != x[0])[:, ~alone].all()
    assert torch.equal(bits(after[0][1]), bits(before[0][1]))


@each_family
def test_the_layer_moves_by_what_down_proj_makes_of_the_scaled_neurons(tiny_models, scale, gains, family):
    model = tiny_models[family]
    plain, moved = states(model, [NOTHING] * 2), states(model, [scale()] * 2)
    assert torch.equal(bits(moved[0]), bits(plain[0]))
    assert not torch.allclose(moved[LAYER], plain[LAYER])
    if not has_sandwich_norm(model.layers[LAYER]):
        with watch(model, LAYER, "mlp_neurons") as (before, _):
            forward(model, [NOTHING] * 2)
        change = (before[0] * torch.from_numpy(-1.5 * gains)) @ model.layers[LAYER].mlp.down_proj.weight.T
        torch.testing.assert_close(moved[LAYER] - plain[LAYER], change, rtol=1e-4, atol=1e-4)


@half
def test_gains_follow_the_dtype_of_the_neurons(new_model, scale, gains, dtype):
    model = new_model("llama")
    model.model.to(dtype)
    with watch(model, LAYER, "mlp_neurons") as (before, after):
        forward(model, [scale(), NOTHING])
    assert after[0].dtype == dtype
    factor = (1 + torch.from_numpy(gains) * -1.5).to(dtype)
    assert torch.equal(after[0][0], before[0][0] * factor)
    assert torch.equal(bits(after[0][1]), bits(before[0][1]))


def test_rows_of_one_batch_have_gains_vectors_and_nothing_of_their_own(tiny_models, scale, gains):
    model = tiny_models["llama"]
    rows = [scale(), scale(operation="add", strength=0.5)]
    with watch(model, LAYER, "mlp_neurons") as (before, after):
        forward(model, rows)
    factor, added = 1 + torch.from_numpy(gains) * -1.5, 0.5 * torch.from_numpy(gains)
    assert torch.equal(after[0][0], before[0][0] * factor)
    assert torch.equal(after[0][1], before[0][1] + added)


def test_gains_at_one_site_multiply_and_come_before_what_is_added(tiny_models, scale, gains):
    model, part = tiny_models["llama"], torch.from_numpy(gains)
    items = [
        scale(operation="add", strength=0.5),
        scale(strength=2.0),
        scale(strength=-0.25),
    ]
    with watch(model, LAYER, "mlp_neurons") as (before, after):
        forward(model, [Steering(tuple(s.interventions[0] for s in items))] * 2)
    expected = before[0] * (1 + 2 * part) * (1 - 0.25 * part) + 0.5 * part
    torch.testing.assert_close(after[0], expected, rtol=1e-5, atol=1e-6)


def test_the_residual_stream_can_be_scaled_too(tiny_models, steer, direction):
    model = tiny_models["bloom"]
    plain, moved = states(model, [NOTHING] * 2), states(model, [steer(operation="scale"), NOTHING])
    assert torch.equal(moved[LAYER][0], plain[LAYER][0] * (1 + 2.0 * torch.from_numpy(direction)))
    assert torch.equal(bits(moved[LAYER][1]), bits(plain[LAYER][1]))


def test_both_sites_of_a_layer_are_steered_in_one_pass_with_positions_of_their_own(
    tiny_models, steer, scale, direction
):
    model = tiny_models["llama"]
    gained = states(model, [scale(positions="prompt")] * 2)[LAYER]
    both = (*steer(positions="generated").interventions, *scale(positions="prompt").interventions)
    moved = states(model, [Steering(both)] * 2)[LAYER]
    added = moved - gained
    assert torch.equal(moved[:, :-1], gained[:, :-1])
    torch.testing.assert_close(added[:, -1], torch.from_numpy(2.0 * direction).expand(2, -1))


@pytest.mark.parametrize("size", [1, NEURONS - 1, HIDDEN])
def test_gains_of_another_size_are_refused(tiny_models, scale, size):
    with pytest.raises(UserError, match=f"{size} numbers.* number of MLP neurons is {NEURONS}"):
        forward(tiny_models["llama"], [scale(vector=np.ones(size, np.float32))] * 2)


# Families without such neurons

REFUSALS = {
    "gpt2": "layer 1 of this model has no gated MLP with a down_proj (GPT2MLP)",
    "gpt_neox": "layer 1 of this model has no gated MLP with a down_proj (GPTNeoXMLP)",
    "bloom": "layer 1 of this model has no gated MLP with a down_proj (BloomMLP)",
    "falcon": "layer 1 of this model has no gated MLP with a down_proj (FalconMLP)",
    "mixtral": "layer 1 of this model is a mixture of experts (MixtralDecoderLayer, mlp.experts)",
    "qwen3_moe": "layer 1 of this model is a mixture of experts (Qwen3MoeDecoderLayer, mlp.experts)",
}


@pytest.fixture(scope="module")
def refusing(tiny_models, new_model):
    return {**{f: m for f, m in tiny_models.items() if f in REFUSALS}, **{f: new_model(f) for f in MIXTURES}}


def test_every_family_either_has_neurons_or_a_refusal():
    assert set(REFUSALS) | set(GATED_FAMILIES) == {*FAMILIES, *MIXTURES}


@pytest.mark.parametrize("family", REFUSALS)
def test_steering_neurons_that_are_not_there_is_refused_with_the_layer_and_the_block(refusing, scale, family):
    with pytest.raises(UserError, match="^" + re.escape(REFUSALS[family])) as refusal:
        forward(refusing[family], [scale()] * 2)
    assert "\n" not in str(refusal.value)
    assert "a method that adds a vector" in str(refusal.value)
    assert not refusing[family].hooks.active


@pytest.mark.parametrize("family", REFUSALS)
def test_reading_neurons_that_are_not_there_is_refused_at_the_first_such_layer(refusing, family):
    first = 1 if family == "qwen3_moe" else 0  # whose layer 0 is dense
    words = REFUSALS[family].replace("layer 1", f"layer {first}")
    with pytest.raises(UserError, match="^" + re.escape(words)):
        mean_mlp_activations(refusing[family], TEXTS)


def test_the_dense_layer_of_a_mixture_has_neurons(refusing, scale):
    with watch(refusing["qwen3_moe"], 0, "mlp_neurons") as (before, after):
        forward(refusing["qwen3_moe"], [scale(layer=0), NOTHING])
    assert not torch.equal(after[0][0], before[0][0])
    assert torch.equal(bits(after[0][1]), bits(before[0][1]))


@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_of_experts_take_vectors(refusing, steer, direction, family):
    model = refusing[family]
    plain, moved = states(model, [NOTHING] * 2), states(model, [steer(), NOTHING])
    assert torch.equal(moved[LAYER][0], plain[LAYER][0] + 2.0 * torch.from_numpy(direction))
    assert torch.equal(bits(moved[LAYER][1]), bits(plain[LAYER][1]))
    assert mean_states(model, TEXTS).mean.shape == (LAYERS, HIDDEN)


# Reading


@each_family
def test_the_mean_is_that_of_the_last_tokens_worked_out_from_the_weights(tiny_models, family):
    model = tiny_models[family]
    last = np.stack([neurons_by_hand(model, text)[:, -1] for text in TEXTS])
    found = mean_mlp_activations(model, TEXTS, budget=40)
    assert found.mean.dtype == np.float64
    assert found.n_texts == len(TEXTS)
    np.testing.assert_allclose(found.mean, last.mean(axis=0), rtol=1e-5, atol=1e-5)


@each_family
def test_batches_and_the_order_of_the_texts_change_no_mean(tiny_models, family):
    model = tiny_models[family]
    one, many = mean_mlp_activations(model, TEXTS, 1), mean_mlp_activations(model, TEXTS[::-1], 1000)
    np.testing.assert_allclose(one.mean, many.mean, rtol=1e-4, atol=1e-5)


@each_family
def test_what_stands_in_the_padding_changes_no_neuron(new_model, family):
    model = new_model(family)
    clean = mean_mlp_activations(model, TEXTS)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[model.tokenizer.pad_token_id] = 1e6
    np.testing.assert_allclose(mean_mlp_activations(model, TEXTS).mean, clean.mean, rtol=1e-5, atol=1e-6)


@half
def test_sums_of_neurons_do_not_stall_in_half_precision(new_model, dtype):
    model = new_model("llama")
    model.model.to(dtype)
    for layer in model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda m, a: (torch.full_like(a[0], 1000.0),), prepend=True)
    assert (mean_mlp_activations(model, TEXTS * 20, 200).mean == 1000.0).all()


@pytest.mark.parametrize("budget", [1, 40, 1000])
def test_a_text_without_a_token_is_refused_whatever_the_batch(tiny_models, budget):
    with pytest.raises(UserError, match="1 texts hold no token"):
        mean_mlp_activations(tiny_models["llama"], ["", *TEXTS], budget)


def test_no_text_is_refused(tiny_models):
    with pytest.raises(UserError, match="no text"):
        mean_mlp_activations(tiny_models["llama"], [])


def test_reading_leaves_no_hook_behind(tiny_models):
    model = tiny_models["llama"]
    before = [len(layer.mlp.down_proj._forward_pre_hooks) for layer in model.layers]
    mean_mlp_activations(model, TEXTS)
    assert [len(layer.mlp.down_proj._forward_pre_hooks) for layer in model.layers] == before


# What a steering changes


def test_the_change_of_the_residual_stream_is_that_of_a_loop_over_texts(tiny_models, scale):
    model, ratios = tiny_models["llama"], []
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
        seen: list[list[np.ndarray]] = []
        for steering in (NOTHING, scale()):
            found: list[np.ndarray] = []
            handles = [
                layer.register_forward_hook(lambda m, a, o, found=found: found.append(o[0].double().numpy()))
                for layer in model.layers
            ]
            with torch.inference_mode(), model.hooks.steer([steering], torch.ones_like(ids)):
                model.decoder(ids)
            seen.append(found)
            for handle in handles:
                handle.remove()
        plain, moved = map(np.stack, seen)
        ratios.append(np.linalg.norm(moved - plain, axis=2) / np.linalg.norm(plain, axis=2))
    expected = np.concatenate(ratios, axis=1).mean(axis=1)
    for batch_size in (1, 3):
        found_change = relative_residual_shift(model, scale(), TEXTS, batch_size)
        np.testing.assert_allclose(found_change, expected, rtol=1e-4)
    assert expected[0] == 0.0
    assert (expected[LAYER:] > 0.01).all()


def test_the_change_by_a_vector_is_its_length_over_the_length_of_the_states(tiny_models, steer, direction):
    model = tiny_models["gpt2"]
    ones = relative_residual_shift(model, steer(strength=1.0), ["c"])[LAYER]
    norm = mean_states(model, ["c"]).norm[LAYER]
    assert ones == pytest.approx(np.linalg.norm(direction) / norm, rel=1e-4)
    assert relative_residual_shift(model, steer(strength=3.0), ["c"])[LAYER] == pytest.approx(3 * ones, rel=1e-4)


def test_the_change_is_that_of_every_token_whatever_positions_are_steered(tiny_models, steer):
    """The texts stand for what is steered: most of them being prompt must not dilute the figure."""
    model = tiny_models["llama"]
    changes = [relative_residual_shift(model, steer(positions=p), TEXTS)[LAYER] for p in ("all", "generated", "prompt")]
    assert changes[0] > 0.1
    assert changes[1:] == [changes[0]] * 2


@pytest.mark.parametrize(("family", "sandwich"), [("llama", False), ("gemma2", True), ("gemma3_text", True)])
def test_gains_move_the_stream_in_proportion_and_saturate_behind_a_norm(tiny_models, scale, family, sandwich):
    model = tiny_models[family]
    assert has_sandwich_norm(model.layers[0]) is sandwich
    every_second = (np.arange(NEURONS) % 2).astype(np.float32)
    steerings = [scale(vector=every_second, strength=s) for s in (100, 1000, 10000)]
    change = [relative_residual_shift(model, steering, TEXTS)[LAYER] for steering in steerings]
    assert change[0] < change[1]
    if sandwich:
        np.testing.assert_allclose(change[2], change[1], rtol=0.02)
    else:
        np.testing.assert_allclose(np.array(change) / change[0], [1, 10, 100], rtol=1e-3)
