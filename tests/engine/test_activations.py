"""Mean states: the masked average over all tokens, whatever the padding, the batch or the order.

The oracle is one forward pass per text, without padding, summed in plain loops.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import FAMILIES, GATED_FAMILIES, HIDDEN, LAYERS, SENTENCES
from support.model_probes import answer_with, by_hand, token_ids

from harness.core.errors import UserError
from harness.engine.activations import mean_mlp_activations, mean_states, read_means

TEXTS = [
    *SENTENCES,
    "ሰላም",
    "שלום לכולם",
    "one more text that is a little longer than all of the others here",
    "c",
]


def test_the_mean_is_that_of_a_loop_over_texts(each_model):
    states = np.concatenate([by_hand(each_model, text) for text in TEXTS], axis=1)
    found = mean_states(each_model, TEXTS, budget=60)
    assert found.mean.shape == (LAYERS, HIDDEN)
    np.testing.assert_allclose(found.mean, states.mean(axis=1), rtol=1e-5, atol=1e-5)


def test_the_norm_is_the_mean_of_the_norms_of_a_loop_over_texts(each_model):
    norms = np.concatenate([np.linalg.norm(by_hand(each_model, text), axis=2) for text in TEXTS], axis=1)
    np.testing.assert_allclose(mean_states(each_model, TEXTS, 60).norm, norms.mean(axis=1), rtol=1e-5)


def test_padding_on_either_side_gives_the_same(each_model):
    left, right = (mean_states(each_model, TEXTS, 1000, side) for side in ("left", "right"))
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(left.norm, right.norm, rtol=1e-4)


def test_the_budget_of_a_batch_changes_nothing(each_model):
    one, many = (mean_states(each_model, TEXTS, budget) for budget in (1, 150))
    np.testing.assert_allclose(one.mean, many.mean, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_texts_changes_nothing(tiny_models):
    model = tiny_models["llama"]
    there, back = mean_states(model, TEXTS, 60), mean_states(model, TEXTS[::-1], 60)
    np.testing.assert_allclose(there.mean, back.mean, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_stands_in_the_padding_does_not_matter(new_model, family, side):
    model = new_model(family)
    clean = mean_states(model, TEXTS, 1000, side)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[model.tokenizer.pad_token_id] = 1e6
    poisoned = mean_states(model, TEXTS, 1000, side)
    np.testing.assert_allclose(poisoned.mean, clean.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(poisoned.norm, clean.norm, rtol=1e-5)


def test_constant_activations_give_that_constant(new_model):
    model = new_model()
    answer_with(model, 0.75)
    found = mean_states(model, TEXTS, 60)  # in several batches, of several lengths
    assert (found.mean == 0.75).all()
    np.testing.assert_allclose(found.norm, 0.75 * np.sqrt(HIDDEN), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_do_not_overflow_or_stall_in_half_precision(new_model, dtype):
    model = new_model()
    model.model.to(dtype)
    answer_with(model, 1000.0)
    found = mean_states(model, TEXTS * 10, 200)
    assert found.mean.dtype == np.float64
    assert (found.mean == 1000.0).all()


def test_every_token_weighs_the_same_so_long_texts_weigh_more(tiny_models):
    model, (short, long) = tiny_models["llama"], ("a b", TEXTS[-2])
    n, m = len(token_ids(model, short)), len(token_ids(model, long))
    one, other = mean_states(model, [short]).mean, mean_states(model, [long]).mean
    both = mean_states(model, [short, long]).mean
    assert m > 5 * n
    np.testing.assert_allclose(both, (n * one + m * other) / (n + m), rtol=1e-4, atol=1e-5)
    assert not np.allclose(both, (one + other) / 2, rtol=1e-2)


def test_a_text_that_comes_twice_counts_twice(tiny_models):
    model = tiny_models["llama"]
    once, twice = mean_states(model, ["a b", "c"]), mean_states(model, ["a b", "c", "c"])
    assert (twice.n_texts, twice.n_tokens) == (3, once.n_tokens + len(token_ids(model, "c")))


def test_tokens_are_counted_without_padding_and_without_bos(tiny_models):
    model = tiny_models["llama"]
    found = mean_states(model, TEXTS, 60)
    assert model.tokenizer("a b")["input_ids"][0] == model.tokenizer.bos_token_id
    assert found.n_tokens == sum(len(token_ids(model, text)) for text in TEXTS)
    assert found.n_texts == len(TEXTS)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_beyond_the_context_is_cut_at_its_end(new_model, side):
    model = new_model("llama", max_position_embeddings=8)
    long = "one two three four five six seven eight nine ten"
    ids = token_ids(model, long)
    start = model.tokenizer.decode(ids[:8])
    assert token_ids(model, start) == ids[:8]
    cut, fitting = mean_states(model, [long, "a b"], side=side), mean_states(model, [start, "a b"], side=side)
    assert cut.n_tokens == 8 + len(token_ids(model, "a b"))
    np.testing.assert_allclose(cut.mean, fitting.mean, rtol=1e-5, atol=1e-6)


def test_learned_positions_stay_inside_the_context(new_model):
    model = new_model("gpt2", n_positions=8)
    assert mean_states(model, ["one two three four five six seven eight nine ten"]).n_tokens == 8


def test_no_text_is_refused(tiny_models):
    with pytest.raises(UserError, match="no text"):
        mean_states(tiny_models["llama"], [])


def test_texts_without_tokens_are_refused(tiny_models):
    with pytest.raises(UserError, match="no token"):
        mean_states(tiny_models["llama"], ["", ""])


@pytest.mark.parametrize("budget", [1, 60])
def test_an_empty_text_adds_nothing(tiny_models, budget):
    model = tiny_models["llama"]
    found = mean_states(model, ["", *TEXTS], budget)
    np.testing.assert_allclose(found.mean, mean_states(model, TEXTS, 60).mean, rtol=1e-4, atol=1e-5)


def test_nothing_is_left_on_the_model(tiny_models):
    model = tiny_models["llama"]
    before = [len(layer._forward_hooks) for layer in model.layers]
    mean_states(model, TEXTS)
    assert [len(layer._forward_hooks) for layer in model.layers] == before


def test_nothing_is_left_on_the_model_after_an_exception(new_model):
    model = new_model()

    def fail(*_):
        raise RuntimeError("out of luck")

    handle = model.layers[2].register_forward_hook(fail)
    before = [len(layer._forward_hooks) for layer in model.layers]
    with pytest.raises(RuntimeError, match="out of luck"):
        mean_states(model, TEXTS)
    assert [len(layer._forward_hooks) for layer in model.layers] == before
    handle.remove()


def test_steering_that_is_on_is_part_of_what_is_read(new_model, steer, direction):
    model = new_model()
    ids = torch.tensor([token_ids(model, "a b")])
    plain = mean_states(model, ["a b"]).mean
    with model.hooks.steer([steer()], torch.ones_like(ids)):
        moved = mean_states(model, ["a b"]).mean
    np.testing.assert_allclose(moved[0], plain[0])
    np.testing.assert_allclose(moved[1], plain[1] + 2.0 * direction, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_means_of_a_trained_model_over_real_text_do_not_depend_on_batching(shared):
    from harness.core.checkpoints import resolve_checkpoint
    from harness.data.sources import LocalData
    from harness.engine.model import load_model

    model = load_model(resolve_checkpoint(str(shared / "models" / "devlm")), "float32", "cpu")
    texts = [row.text for code in ("am", "he", "de") for row in LocalData(shared / "data").parallel(code)[:4]]
    one, many = mean_states(model, texts, 1), mean_states(model, texts, 4096, "left")
    assert one.n_tokens == many.n_tokens
    np.testing.assert_allclose(one.mean, many.mean, rtol=1e-3, atol=1e-4)
    states = np.concatenate([by_hand(model, text) for text in texts], axis=1)
    np.testing.assert_allclose(one.mean, states.mean(axis=1), rtol=1e-3, atol=1e-4)


# One pass for everything


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_states_and_neurons_of_one_pass_are_those_of_two(tiny_models, family):
    model, passes = tiny_models[family], []
    handle = model.decoder.register_forward_pre_hook(lambda *_: passes.append(1))
    states, neurons = read_means(model, TEXTS, 60, neurons="last")
    handle.remove()
    assert np.array_equal(states.mean, mean_states(model, TEXTS, 60).mean)
    assert np.array_equal(neurons.mean, mean_mlp_activations(model, TEXTS, 60).mean)
    assert len(passes) == len(widths(TEXTS, model, 60))


def widths(texts, model, budget) -> list[int]:
    """Return the longest text of every batch, worked out in a plain loop."""
    left, found = sorted((len(token_ids(model, text)) for text in texts), reverse=True), []
    while left:
        found.append(left[0])
        left = left[max(budget // left[0], 1) :]
    return found


@pytest.mark.parametrize("budget", [1, 30, 60, 1000])
def test_a_batch_holds_no_more_tokens_than_its_budget(tiny_models, budget):
    model, shapes = tiny_models["llama"], []

    def look(module, args, inputs):
        shapes.append(tuple(inputs["input_ids"].shape))

    handle = model.decoder.register_forward_pre_hook(look, with_kwargs=True)
    mean_states(model, TEXTS * 3, budget)
    handle.remove()
    assert sum(rows for rows, _ in shapes) == 3 * len(TEXTS)
    assert all(rows == 1 or rows * width <= budget for rows, width in shapes)
    assert [width for _, width in shapes] == widths(TEXTS * 3, model, budget)


@pytest.mark.parametrize("exclude_sinks", [False, True])
def test_where_memory_is_short_the_batch_is_halved_and_nothing_counts_twice(new_model, exclude_sinks):
    model, rows = new_model(), []
    expected, _ = read_means(model, TEXTS, 1000, exclude_sinks=exclude_sinks)

    def fail(module, args, output):
        rows.append(len(output if isinstance(output, torch.Tensor) else output[0]))
        if rows[-1] > 3:
            raise torch.OutOfMemoryError("out of memory")

    handle = model.layers[1].register_forward_hook(fail)  # layer 0 was read by then
    found, _ = read_means(model, TEXTS, 1000, exclude_sinks=exclude_sinks)
    handle.remove()
    assert rows[0] == len(TEXTS)
    assert sum(n for n in rows if n <= 3) == len(TEXTS)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-5)
    assert found.excluded == expected.excluded


def test_a_text_that_alone_is_too_much_for_memory_is_an_error(new_model):
    model = new_model()

    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    model.layers[1].register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        mean_states(model, TEXTS)


def test_progress_counts_texts_and_tokens_up_to_all(tiny_models):
    model, seen = tiny_models["llama"], []
    read_means(model, ["", *TEXTS], 60, progress=lambda done: seen.append((done.texts, done.tokens)))
    n_tokens = sum(len(token_ids(model, text)) for text in TEXTS)
    assert seen[-1] == (len(TEXTS) + 1, n_tokens)
    assert seen == sorted(set(seen))
