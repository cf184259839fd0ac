"""Steering hooks: what is added, where, to which rows and positions, and that nothing is left behind.

A hook in front of the steering hook and one behind it see a layer's state before and after, in the same
pass; the difference is compared bit for bit with strength x vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS
from torch import Tensor
from transformers import GenerationConfig

from harness.errors import UserError
from harness.steering.interventions import Steering
from harness.steering.model import SteerableModel, choose_device, find_layers

LAYER, STRENGTH = 1, 2.0
IDS = torch.tensor([[5, 40, 90, 200, 7], [5, 60, 61, 62, 63]])
FULL = torch.ones_like(IDS)
NOTHING = Steering()


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@contextmanager
def watch(model: SteerableModel, layer: int) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Record the state of a layer before and after steering, one tensor per forward pass."""
    before: list[Tensor] = []
    after: list[Tensor] = []
    handles = [
        model.layers[layer].register_forward_hook(lambda m, a, o: before.append(first(o)), prepend=True),
        model.layers[layer].register_forward_hook(lambda m, a, o: after.append(first(o))),
    ]
    try:
        yield before, after
    finally:
        for handle in handles:
            handle.remove()


def forward(model: SteerableModel, rows: list[Steering], mask: Tensor = FULL, **options: Any) -> Any:
    with torch.inference_mode(), model.hooks.steer(rows, mask):
        return model.model(input_ids=IDS[: len(rows)], attention_mask=mask, **options)


def states(model: SteerableModel, rows: list[Steering], mask: Tensor = FULL) -> list[Tensor]:
    """Return the output of every layer in one pass, as the next layer gets it."""
    seen: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda m, a, o: seen.append(first(o))) for layer in model.layers]
    try:
        forward(model, rows, mask)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def steered_positions(
    model: SteerableModel, prompts: list[list[int]], steering: Steering, new: int, **options: Any
):
    """Greedily write ``new`` tokens after left-padded prompts; return per pass and row where x was added."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    config = GenerationConfig(max_new_tokens=new, min_new_tokens=new, pad_token_id=0, **options)
    with (
        torch.inference_mode(),
        watch(model, LAYER) as (before, after),
        model.hooks.steer([steering] * len(ids), mask),
    ):
        model.model.generate(ids, attention_mask=mask, generation_config=config)
    return [trace(b, a, steering) for b, a in zip(before, after, strict=True)]


def trace(before: Tensor, after: Tensor, steering: Steering) -> list[str]:
    """Say for every row and position whether it was steered exactly (x) or left exactly alone (.)."""
    (item,) = steering.interventions
    moved = before + torch.from_numpy(item.vector) * item.raw_strength
    same, added = (after == before).all(-1), (after == moved).all(-1)
    assert (same ^ added).all(), "a position is neither untouched nor moved by exactly strength x vector"
    return ["".join("x" if x else "." for x in row) for row in added.tolist()]


def test_a_family_that_returns_tuples_and_one_that_returns_tensors_are_both_covered(tiny_models):
    kinds = set()
    for family in ("llama", "bloom"):
        handle = tiny_models[family].layers[0].register_forward_hook(lambda m, a, o: kinds.add(type(o)))
        forward(tiny_models[family], [NOTHING] * 2)
        handle.remove()
    assert kinds == {Tensor, tuple}


def test_the_steered_layer_moves_by_strength_times_vector_and_nothing_before_it(each_model, steer, direction):
    plain, moved = states(each_model, [NOTHING] * 2), states(each_model, [steer()] * 2)
    assert torch.equal(moved[0], plain[0])
    assert torch.equal(moved[LAYER], plain[LAYER] + STRENGTH * torch.from_numpy(direction))
    assert not torch.allclose(moved[2], plain[2])


@pytest.mark.parametrize("layer", range(LAYERS))
def test_layer_l_is_the_output_of_decoder_layer_l(tiny_models, steer, layer):
    plain, moved = (states(tiny_models["llama"], [s] * 2) for s in (NOTHING, steer(layer=layer)))
    changed = [not torch.equal(a, b) for a, b in zip(plain, moved, strict=True)]
    assert changed == [i >= layer for i in range(LAYERS)]


def test_recorded_hidden_states_show_the_steered_state(each_model, steer, direction):
    plain = forward(each_model, [NOTHING] * 2, output_hidden_states=True).hidden_states
    moved = forward(each_model, [steer()] * 2, output_hidden_states=True).hidden_states
    assert torch.equal(moved[LAYER], plain[LAYER])
    assert torch.equal(moved[LAYER + 1], plain[LAYER + 1] + STRENGTH * torch.from_numpy(direction))


def test_hidden_states_are_right_where_the_capture_was_installed_first(
    new_network, new_tokenizer, steer, direction
):
    network = new_network("llama")
    network(input_ids=IDS, output_hidden_states=True)  # installs the library's own hooks
    model = SteerableModel(network, new_tokenizer())
    plain = forward(model, [NOTHING] * 2, output_hidden_states=True).hidden_states
    moved = forward(model, [steer()] * 2, output_hidden_states=True).hidden_states
    assert torch.equal(moved[LAYER + 1], plain[LAYER + 1] + STRENGTH * torch.from_numpy(direction))


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"vector": np.zeros(HIDDEN, np.float32)}], ids=str)
def test_strength_zero_gives_the_unsteered_logits_bit_for_bit(each_model, steer, options):
    with torch.inference_mode():
        untouched = each_model.model(input_ids=IDS, attention_mask=FULL).logits
    assert torch.equal(forward(each_model, [steer(**options)] * 2).logits, untouched)


def test_steering_without_interventions_gives_the_unsteered_logits_bit_for_bit(each_model):
    with torch.inference_mode():
        untouched = each_model.model(input_ids=IDS, attention_mask=FULL).logits
    assert torch.equal(forward(each_model, [NOTHING] * 2).logits, untouched)


def test_a_row_without_steering_stays_bit_for_bit(each_model, steer):
    plain, mixed = (forward(each_model, [s, NOTHING]).logits for s in (NOTHING, steer()))
    assert torch.equal(mixed[1], plain[1])
    assert not torch.allclose(mixed[0], plain[0])


def test_every_row_gets_its_own_vector(tiny_models, steer, direction):
    model = tiny_models["llama"]
    plain, mixed = states(model, [NOTHING] * 2), states(model, [steer(strength=-1.0), steer(strength=3.0)])
    factors = torch.tensor([-1.0, 3.0])[:, None, None]
    assert torch.equal(mixed[LAYER], plain[LAYER] + factors * torch.from_numpy(direction))


def test_steering_at_two_layers_adds_at_both(tiny_models, steer, direction):
    model, vector = tiny_models["llama"], torch.from_numpy(direction)
    both = Steering((*steer(layer=0).interventions, *steer(layer=2).interventions))
    with watch(model, 0) as low, watch(model, 2) as high:
        forward(model, [both] * 2)
    for before, after in (low, high):
        assert torch.equal(after[0], before[0] + STRENGTH * vector)


def test_two_vectors_at_one_layer_add_up(tiny_models, steer, direction):
    twice = Steering((*steer(strength=2.0).interventions, *steer(strength=-0.5).interventions))
    with watch(tiny_models["llama"], LAYER) as (before, after):
        forward(tiny_models["llama"], [twice] * 2)
    torch.testing.assert_close(after[0], before[0] + 1.5 * torch.from_numpy(direction))


def test_the_residual_unit_multiplies_by_the_stored_norm(tiny_models, steer):
    residual = steer(strength=0.25, unit="residual", residual_norm=8.0)
    raw = steer(strength=2.0, unit="raw", residual_norm=8.0)
    model = tiny_models["llama"]
    assert torch.equal(forward(model, [residual] * 2).logits, forward(model, [raw] * 2).logits)


def test_padding_on_the_left_is_never_steered(each_model, steer):
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with watch(each_model, LAYER) as (before, after):
        forward(each_model, [steer()] * 2, mask)
    assert trace(before[0], after[0], steer()) == ["..xxx", "xxxxx"]


EXPECTED = {  # prompts of three and five tokens, four new ones; the pass over the prompt comes first
    "all": [["..xxx", "xxxxx"], ["x", "x"], ["x", "x"], ["x", "x"]],
    "prompt": [["..xx.", "xxxx."], [".", "."], [".", "."], [".", "."]],
    "generated": [["....x", "....x"], ["x", "x"], ["x", "x"], ["x", "x"]],
}


@pytest.mark.parametrize("positions", EXPECTED)
def test_positions_are_kept_while_a_cache_grows(each_model, steer, positions):
    found = steered_positions(each_model, [[5, 6, 7], [8, 9, 10, 11, 12]], steer(positions=positions), 4)
    assert found == EXPECTED[positions]


@pytest.mark.parametrize("positions", EXPECTED)
def test_positions_are_the_same_without_a_cache(each_model, steer, positions):
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    found = steered_positions(each_model, prompts, steer(positions=positions), 4, use_cache=False)
    seen = ["".join(passes[row] for passes in EXPECTED[positions]) for row in (0, 1)]
    assert found == [[row[:width] for row in seen] for width in (5, 6, 7, 8)]


def test_positions_are_right_with_a_static_cache(tiny_models, steer):
    prompts, options = [[5, 6, 7], [8, 9, 10, 11, 12]], {"cache_implementation": "static"}
    found = steered_positions(tiny_models["llama"], prompts, steer(positions="generated"), 4, **options)
    assert found == EXPECTED["generated"]


@pytest.mark.parametrize(("positions", "on"), [("all", "x"), ("prompt", "."), ("generated", "x")])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_prompt_of_one_token_predicts_the_first_new_token(each_model, steer, positions, on, use_cache):
    found = steered_positions(each_model, [[9], [8]], steer(positions=positions), 3, use_cache=use_cache)
    assert found == [[on * (1 if use_cache else n)] * 2 for n in (1, 2, 3)]


def test_positions_are_right_where_the_prompt_is_read_in_pieces(each_model, steer):
    steering = steer(positions="generated")
    with (
        torch.inference_mode(),
        watch(each_model, LAYER) as seen,
        each_model.hooks.steer([steering] * 2, FULL),
    ):
        cache = None
        for start, stop in ((0, 2), (2, 4), (4, 5)):  # the last piece of the prompt has one token
            output = each_model.model(
                IDS[:, start:stop], attention_mask=FULL[:, :stop], past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
    assert [trace(b, a, steering) for b, a in zip(*seen, strict=True)] == [
        ["..", ".."],
        ["..", ".."],
        ["x", "x"],
    ]


def test_the_cache_changes_no_steered_logit(each_model, steer):
    steering = steer(positions="generated")
    prompt = FULL[:, :3]
    with torch.inference_mode(), each_model.hooks.steer([steering] * 2, prompt):
        whole = each_model.model(IDS, attention_mask=FULL, use_cache=False).logits[:, 2:]
    with torch.inference_mode(), each_model.hooks.steer([steering] * 2, prompt):
        output = each_model.model(IDS[:, :3], attention_mask=prompt, use_cache=True)
        stepwise = [output.logits[:, -1]]
        for stop in (4, 5):
            output = each_model.model(
                IDS[:, stop - 1 : stop],
                attention_mask=FULL[:, :stop],
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            stepwise.append(output.logits[:, -1])
    torch.testing.assert_close(torch.stack(stepwise, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_vector_follows_the_dtype_of_the_layer(new_model, steer, direction, dtype):
    model = new_model("llama")
    model.model.to(dtype)
    with watch(model, LAYER) as (before, after):
        forward(model, [steer()] * 2)
    assert after[0].dtype == dtype
    assert torch.equal(after[0], before[0] + (STRENGTH * torch.from_numpy(direction)).to(dtype))


def test_a_vector_of_doubles_or_with_backward_strides_is_taken(tiny_models, steer, direction):
    model = tiny_models["llama"]
    other = direction[::-1].astype(np.float64, order="C")[::-1]
    assert torch.equal(forward(model, [steer(vector=other)] * 2).logits, forward(model, [steer()] * 2).logits)


def test_nothing_is_steered_after_the_block(tiny_models, steer):
    model = tiny_models["llama"]
    plain = forward(model, [NOTHING] * 2).logits
    forward(model, [steer()] * 2)
    assert not model.hooks.active
    with torch.inference_mode():
        assert torch.equal(model.model(input_ids=IDS, attention_mask=FULL).logits, plain)


def test_nothing_is_steered_after_an_exception_in_the_block(tiny_models, steer):
    model = tiny_models["llama"]
    with pytest.raises(KeyError, match="mine"), model.hooks.steer([steer()] * 2, FULL):
        assert model.hooks.active
        raise KeyError("mine")
    assert not model.hooks.active


def test_nothing_is_steered_after_a_refused_vector(tiny_models, steer):
    model = tiny_models["llama"]
    half_good = Steering((*steer().interventions, *steer(layer=99).interventions))
    with pytest.raises(UserError), model.hooks.steer([half_good], FULL[:1]):
        pass
    assert not model.hooks.active


def test_steering_adds_no_hooks_however_often_it_is_used(tiny_models, steer):
    model = tiny_models["llama"]
    before = [len(layer._forward_hooks) for layer in model.layers]
    for _ in range(3):
        forward(model, [steer()] * 2)
    assert [len(layer._forward_hooks) for layer in model.layers] == before


@pytest.mark.parametrize("layer", [-1, LAYERS, 99])
def test_a_layer_that_the_model_lacks_is_refused(tiny_models, steer, layer):
    with pytest.raises(UserError, match=f"layer {layer}, this model has layers 0 to 2"):
        forward(tiny_models["llama"], [steer(layer=layer)] * 2)


@pytest.mark.parametrize("size", [1, HIDDEN - 1, HIDDEN + 1])
def test_a_vector_of_another_size_is_refused(each_model, steer, size):
    wrong = np.ones(size, np.float32)
    with pytest.raises(UserError, match=f"{size} numbers.* hidden size is {HIDDEN}"):
        forward(each_model, [steer(vector=wrong)] * 2)
    assert not each_model.hooks.active


def test_vectors_of_two_sizes_at_one_layer_are_refused(tiny_models, steer):
    with pytest.raises(UserError, match="sizes"):
        forward(tiny_models["llama"], [steer(), steer(vector=np.ones(1, np.float32))])


def test_two_position_rules_at_one_layer_are_refused(tiny_models, steer):
    both = Steering((*steer().interventions, *steer(positions="prompt").interventions))
    with pytest.raises(UserError, match="share their positions"):
        forward(tiny_models["llama"], [both] * 2)


def test_two_models_in_one_process_do_not_interfere(new_model, steer):
    one, other = new_model("llama"), new_model("llama")
    plain = forward(other, [NOTHING] * 2).logits
    with torch.inference_mode(), one.hooks.steer([steer()] * 2, FULL):
        assert torch.equal(other.model(input_ids=IDS, attention_mask=FULL).logits, plain)
        assert not torch.allclose(one.model(input_ids=IDS, attention_mask=FULL).logits, plain)


def test_a_network_without_decoder_layers_is_refused():
    with pytest.raises(UserError, match="no decoder layers found in Linear"):
        find_layers(torch.nn.Linear(2, 2))


def test_an_unknown_device_is_refused_with_the_valid_ones():
    with pytest.raises(UserError, match="unknown device 'gpu'; valid: cpu, cuda"):
        choose_device("gpu")
