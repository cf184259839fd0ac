"""Steering hooks: what is changed, where, in which rows and positions, and that nothing is left behind.

A hook in front of the steering hook and one behind it see a site's state before and after, in the same
pass; what lies between is compared bit for bit with the steering. Most tests run at both sites: vectors
added to the residual stream, and gains on the neurons in front of ``down_proj``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, GATED_FAMILIES, HIDDEN, LAYERS
from support.model_probes import FULL, IDS, NOTHING, bits, forward, states, watch
from torch import Tensor
from transformers import GenerationConfig

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.engine.model import SteerableModel

LAYER, STRENGTH = 1, 2.0


PLACES = [(f, "layer_output") for f in FAMILIES] + [(f, "mlp_neurons") for f in GATED_FAMILIES]


def in_turn(rows: Iterable[tuple[Any, ...]]) -> pytest.MarkDecorator:
    """Run two families, plain and with a sliding window, with all rows, and the others with one row each in turn."""
    rows = list(rows)
    cases = [(p, *row) for p in PLACES if p[0] in {"llama", "gemma3_text"} for row in rows]
    others = [p for p in PLACES if p[0] not in {"llama", "gemma3_text"}]
    cases += [(p, *rows[i % len(rows)]) for i, p in enumerate(others)]
    names = ("place", "side", "positions") if len(cases[0]) == 3 else ("place", "use_cache", "positions", "on")
    ids = ["-".join(map(str, (*case[0], *case[1:]))) for case in cases]
    return pytest.mark.parametrize(names, cases, indirect=["place"], ids=ids)


@pytest.fixture(params=PLACES, ids="-".join)
def place(request, tiny_models, steer, scale):
    """A model, and what builds a steering of one of its sites."""
    family, site = request.param
    return tiny_models[family], steer if site == "layer_output" else scale


def padded(prompts: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    """Return ids and mask of prompts of several lengths; pads hold a token whose state is not zero."""
    width = max(map(len, prompts))
    real = torch.zeros(len(prompts), width, dtype=torch.int64)
    ids = torch.full_like(real, 3)
    for row, prompt in enumerate(prompts):
        here = slice(width - len(prompt), None) if side == "left" else slice(len(prompt))
        ids[row, here], real[row, here] = torch.tensor(prompt), 1
    return ids, real


def steered_positions(
    model: SteerableModel,
    prompts: list[list[int]],
    steering: Steering,
    new: int,
    side: str = "left",
    **options: Any,
):
    """Greedily write ``new`` tokens after padded prompts; return per pass and row where x was steered."""
    ids, mask = padded(prompts, side)
    config = GenerationConfig(max_new_tokens=new, min_new_tokens=new, pad_token_id=0, **options)
    with (
        torch.inference_mode(),
        watch(model, LAYER, steering.interventions[0].site) as (before, after),
        model.hooks.steer([steering] * len(ids), mask),
    ):
        model.model.generate(ids, attention_mask=mask, generation_config=config)
    return [trace(b, a, steering) for b, a in zip(before, after, strict=True)]


def trace(before: Tensor, after: Tensor, steering: Steering) -> list[str]:
    """Say for every row and position whether it was steered exactly (x) or left exactly alone (.)."""
    (item,) = steering.interventions
    change = torch.from_numpy(item.vector) * item.raw_strength
    moved = before + change if item.operation == "add" else before * (1 + change)
    same, steered = (bits(after) == bits(before)).all(-1), (after == moved).all(-1)
    assert (same ^ steered).all(), "a position is neither untouched nor steered by exactly strength x vector"
    return ["".join("x" if x else "." for x in row) for row in steered.tolist()]


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


def test_hidden_states_are_right_where_the_capture_was_installed_first(new_network, new_tokenizer, steer, direction):
    network = new_network("llama")
    network(input_ids=IDS, output_hidden_states=True)  # installs the library's own hooks
    model = SteerableModel(network, new_tokenizer())
    plain = forward(model, [NOTHING] * 2, output_hidden_states=True).hidden_states
    moved = forward(model, [steer()] * 2, output_hidden_states=True).hidden_states
    assert torch.equal(moved[LAYER + 1], plain[LAYER + 1] + STRENGTH * torch.from_numpy(direction))


@pytest.mark.parametrize("change", [{"strength": 0.0}, {"vector": 0.0}], ids=str)
def test_strength_zero_gives_the_unsteered_logits_bit_for_bit(place, change):
    model, build = place
    nothing = {k: v if k == "strength" else 0 * build().interventions[0].vector for k, v in change.items()}
    with torch.inference_mode():
        untouched = model.model(input_ids=IDS, attention_mask=FULL).logits
    assert torch.equal(bits(forward(model, [build(**nothing)] * 2).logits), bits(untouched))


def test_steering_without_interventions_gives_the_unsteered_logits_bit_for_bit(each_model):
    with torch.inference_mode():
        untouched = each_model.model(input_ids=IDS, attention_mask=FULL).logits
    assert torch.equal(bits(forward(each_model, [NOTHING] * 2).logits), bits(untouched))


def test_a_row_without_steering_stays_bit_for_bit(place):
    model, build = place
    plain, mixed = (forward(model, [s, NOTHING]).logits for s in (NOTHING, build()))
    assert torch.equal(bits(mixed[1]), bits(plain[1]))
    assert not torch.allclose(mixed[0], plain[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("site", ["layer_output", "mlp_neurons"])
def test_a_negative_zero_keeps_its_sign_where_nothing_is_steered(new_model, steer, scale, site, dtype):
    model, build = new_model("llama"), steer if site == "layer_output" else scale
    model.model.to(dtype)
    part = torch.arange(build().interventions[0].vector.size) % 2 == 0  # every second number
    zeros, layer = torch.tensor(-0.0, dtype=dtype), model.layers[LAYER]
    vector = np.where(part, 0.0, build().interventions[0].vector).astype(np.float32)
    with watch(model, LAYER, site) as (before, after):
        if site == "layer_output":
            layer.register_forward_hook(lambda m, a, o: torch.where(part, zeros, o), prepend=True)
        else:
            put = lambda m, a: (torch.where(part, zeros, a[0]),)  # noqa: E731
            layer.mlp.down_proj.register_forward_pre_hook(put, prepend=True)
        forward(model, [build(strength=0.0), build(vector=vector)])
    assert torch.signbit(before[0][..., part]).all()
    assert torch.equal(bits(after[0][0]), bits(before[0][0]))
    assert torch.equal(bits(after[0][..., part]), bits(before[0][..., part]))


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


MASKS = {
    "left": (torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]), ["..xxx", "xxxxx"]),
    "right": (torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]), ["xxx..", "xxxxx"]),
}


@pytest.mark.parametrize("side", MASKS)
def test_padding_is_never_steered(place, side):
    model, build = place
    mask, expected = MASKS[side]
    with watch(model, LAYER, build().interventions[0].site) as (before, after):
        forward(model, [build()] * 2, mask)
    assert trace(before[0], after[0], build()) == expected


@pytest.mark.parametrize("side", MASKS)
def test_a_steered_row_is_the_same_alone_and_padded_in_a_batch(place, side):
    model, build = place
    ids, mask = padded([[5, 40, 90], [5, 60, 61, 62, 63]], side)
    positions = (mask.cumsum(1) - 1).clamp(min=0)  # the library's, for both sides
    with torch.inference_mode(), model.hooks.steer([build(), NOTHING], mask):
        batch = model.decoder(input_ids=ids, attention_mask=mask, position_ids=positions)[0]
    with torch.inference_mode(), model.hooks.steer([build()], FULL[:1, :3]):
        alone = model.decoder(input_ids=torch.tensor([[5, 40, 90]]))[0]
    torch.testing.assert_close(batch[0][mask[0].bool()], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_a_row_of_padding_alone_is_never_steered(tiny_models, steer, scale, positions):
    mask = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    for steering in (steer(positions=positions), scale(positions=positions)):
        with watch(tiny_models["llama"], LAYER, steering.interventions[0].site) as (before, after):
            forward(tiny_models["llama"], [steering] * 2, mask)
        none, some = trace(before[0], after[0], steering)
        assert none == "....."
        assert "x" in some


@pytest.mark.parametrize("position", range(5))
def test_the_row_of_a_padded_tuple_is_the_row_that_was_meant(tiny_models, steer, direction, position):
    """Families that return tuples: [0] is the batch, not its first row."""
    model, mask = tiny_models["bloom"], torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with watch(model, LAYER) as (before, after):
        forward(model, [steer(strength=3.0), steer(strength=-1.0)], mask)
    moved = (after[0] - before[0])[:, position] @ torch.from_numpy(direction) / float(direction @ direction)
    on = 3.0 if position < 3 else 0.0
    np.testing.assert_allclose(moved, [on, -1.0], atol=1e-4)


EXPECTED = {  # prompts of three and five tokens, six new ones; the pass over the prompt comes first
    ("left", "all"): (["..xxx", "xxxxx"], "x"),
    ("left", "prompt"): (["..xx.", "xxxx."], "."),
    ("left", "generated"): (["....x", "....x"], "x"),
    ("right", "all"): (["xxx..", "xxxxx"], "x"),
    ("right", "prompt"): (["xx...", "xxxx."], "."),
    ("right", "generated"): (["..x..", "....x"], "x"),
}
PROMPTS, NEW = [[5, 6, 7], [8, 9, 10, 11, 12]], 6  # nine positions and more: beyond the sliding window


@in_turn(EXPECTED)
def test_positions_are_kept_while_a_cache_grows(place, side, positions):
    model, build = place
    found = steered_positions(model, PROMPTS, build(positions=positions), NEW, side)
    prompt, later = EXPECTED[side, positions]
    assert found == [prompt] + [[later, later]] * (NEW - 1)


@in_turn(EXPECTED)
def test_positions_are_the_same_without_a_cache(place, side, positions):
    model, build = place
    found = steered_positions(model, PROMPTS, build(positions=positions), NEW, side, use_cache=False)
    prompt, later = EXPECTED[side, positions]
    assert found == [[row + later * new for row in prompt] for new in range(NEW)]


@pytest.mark.parametrize(("side", "positions"), EXPECTED)
@pytest.mark.parametrize(
    "place", [("llama", "layer_output"), ("gemma3_text", "mlp_neurons")], ids="-".join, indirect=True
)
def test_positions_are_right_with_a_static_cache(place, side, positions):
    model, build = place
    options = {"cache_implementation": "static"}
    found = steered_positions(model, PROMPTS, build(positions=positions), NEW, side, **options)
    prompt, later = EXPECTED[side, positions]
    assert found == [prompt] + [[later, later]] * (NEW - 1)


@in_turn((cache, *rule) for cache in (True, False) for rule in (("all", "x"), ("prompt", "."), ("generated", "x")))
def test_a_prompt_of_one_token_predicts_the_first_new_token(place, use_cache, positions, on):
    model, build = place
    found = steered_positions(model, [[9], [8]], build(positions=positions), 3, use_cache=use_cache)
    assert found == [[on * (1 if use_cache else n)] * 2 for n in (1, 2, 3)]


PIECES = {  # the same prompts; the last piece has one token
    ("left", "all"): [["..", "xx"], ["xx", "xx"], ["x", "x"]],
    ("left", "prompt"): [["..", "xx"], ["xx", "xx"], [".", "."]],
    ("left", "generated"): [["..", ".."], ["..", ".."], ["x", "x"]],
    ("right", "all"): [["xx", "xx"], ["x.", "xx"], [".", "x"]],
    ("right", "prompt"): [["xx", "xx"], ["..", "xx"], [".", "."]],
    ("right", "generated"): [["..", ".."], ["x.", ".."], [".", "x"]],
}


@in_turn(PIECES)
def test_positions_are_right_where_the_prompt_is_read_in_pieces(place, side, positions):
    model, build = place
    steering = build(positions=positions)
    ids, mask = padded(PROMPTS, side)
    with (
        torch.inference_mode(),
        watch(model, LAYER, steering.interventions[0].site) as seen,
        model.hooks.steer([steering] * 2, mask),
    ):
        cache = None
        for start, stop in ((0, 2), (2, 4), (4, 5)):
            output = model.model(
                ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
    assert [trace(b, a, steering) for b, a in zip(*seen, strict=True)] == PIECES[side, positions]


@in_turn(PIECES)
def test_positions_are_right_where_the_library_reads_the_prompt_in_chunks(place, side, positions):
    model, build = place
    found = steered_positions(model, PROMPTS, build(positions=positions), 3, side, prefill_chunk_size=2)
    later = EXPECTED[side, positions][1]
    assert found == [*PIECES[side, positions], [later, later], [later, later]]


ENDS = {  # the same rows with text after the prompt: prompts of two and four tokens
    ("left", "all"): ["..xxx", "xxxxx"],
    ("left", "prompt"): ["..x..", "xxx.."],
    ("left", "generated"): ["...xx", "...xx"],
    ("right", "all"): ["xxx..", "xxxxx"],
    ("right", "prompt"): ["x....", "xxx.."],
    ("right", "generated"): [".xx..", "...xx"],
}


@in_turn(ENDS)
def test_a_mask_may_cover_text_after_the_prompt(place, side, positions):
    model, build = place
    steering = build(positions=positions)
    ids, mask = padded(PROMPTS, side)
    ends = [4, 4] if side == "left" else [2, 4]
    with (
        torch.inference_mode(),
        watch(model, LAYER, steering.interventions[0].site) as (before, after),
        model.hooks.steer([steering] * 2, mask, ends),
    ):
        model.model(ids, attention_mask=mask)
    assert trace(before[0], after[0], steering) == ENDS[side, positions]


@pytest.mark.parametrize("ends", [[5], [0, 4], [4, 6]], ids=str)
def test_a_prompt_that_does_not_end_inside_its_row_is_an_error(tiny_models, steer, ends):
    with (
        pytest.raises(ValueError, match="prompt"),
        tiny_models["llama"].hooks.steer([steer()] * 2, FULL, ends),
    ):
        pass


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


def test_the_logits_are_restored_bit_for_bit_after_the_block(place):
    model, build = place
    with torch.inference_mode():
        plain = model.model(input_ids=IDS, attention_mask=FULL).logits
        forward(model, [build()] * 2)
        assert not model.hooks.active
        assert torch.equal(bits(model.model(input_ids=IDS, attention_mask=FULL).logits), bits(plain))


def test_a_block_within_a_block_steers_alone_and_gives_back_to_the_outer_one(tiny_models, steer):
    model = tiny_models["llama"]
    inner, outer = steer(strength=-1.0), steer(layer=2)
    alone = {name: forward(model, [s] * 2).logits for name, s in (("inner", inner), ("outer", outer))}
    with torch.inference_mode(), model.hooks.steer([outer] * 2, FULL):
        assert torch.equal(forward(model, [inner] * 2).logits, alone["inner"])
        assert torch.equal(model.model(input_ids=IDS, attention_mask=FULL).logits, alone["outer"])
    assert not model.hooks.active


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


@pytest.mark.parametrize("layer", [LAYERS, 99])
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
