"""States of single texts equal those of one plain pass per text; neurons over content tokens, and open gates, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import GATED_FAMILIES, HIDDEN, LAYERS, NEURONS
from support.model_probes import by_hand, content, gates_and_neurons

from harness.core.errors import UserError
from harness.engine.activations import read_means
from harness.engine.states import text_states
from harness.runner.readings import ReadingCache

TEXTS = ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "a b", "<|user|>Output only<|assistant|>the text.", "c"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("budget", [1, 40, 1000])
def test_states_are_those_of_a_plain_pass_over_each_text(each_model, side, budget):
    states = [by_hand(each_model, text) for text in TEXTS]
    expected = {
        "last": np.stack([state[:, -1] for state in states]),
        "mean": np.stack(
            [state[:, content(each_model, text)].mean(axis=1) for state, text in zip(states, TEXTS, strict=True)]
        ),
    }
    for at, wanted in expected.items():
        found = text_states(each_model, TEXTS, at, side=side, budget=budget)
        assert (found.shape, found.dtype) == ((len(TEXTS), LAYERS, HIDDEN), np.float32)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_special_tokens_of_a_prompt_count_for_the_last_token_and_not_for_the_mean(tiny_models):
    model, text = tiny_models["llama"], "<|user|>a<|assistant|>"
    state = by_hand(model, text)
    np.testing.assert_allclose(text_states(model, [text], "last")[0], state[:, 2], atol=1e-5)
    np.testing.assert_allclose(text_states(model, [text], "mean")[0], state[:, 1], atol=1e-5)
    assert text_states(model, ["<|user|>"], "last").shape == (1, LAYERS, HIDDEN)
    with pytest.raises(UserError, match=r"the text '<\|user\|>' holds no token to read"):
        text_states(model, ["a", "<|user|>"], "mean")


def test_an_unknown_token_is_content(new_model):
    model = new_model("llama")
    model.tokenizer.unk_token = "<pad>"  # as small vocabularies have it
    np.testing.assert_allclose(text_states(model, ["<pad>"], "mean"), text_states(model, ["<pad>"], "last"), atol=1e-6)


def test_only_the_layers_that_are_asked_for_are_returned_in_their_order(tiny_models):
    model = tiny_models["gemma2"]
    whole = text_states(model, TEXTS)
    assert np.array_equal(text_states(model, TEXTS, layers=[2, 0]), whole[:, [2, 0]])
    assert text_states(model, []).shape == (0, LAYERS, HIDDEN)


@pytest.mark.parametrize("at", ["last", "mean"])
def test_a_text_without_a_token_is_refused(tiny_models, at):
    with pytest.raises(UserError, match="the text '' holds no token to read"):
        text_states(tiny_models["llama"], ["a", ""], at)


def test_what_stands_in_the_padding_changes_no_state(new_model):
    model = new_model("llama")
    clean = text_states(model, TEXTS, "mean")
    with torch.no_grad():
        model.model.get_input_embeddings().weight[model.tokenizer.pad_token_id] = 1e6
    np.testing.assert_allclose(text_states(model, TEXTS, "mean"), clean, rtol=1e-5, atol=1e-6)


def test_where_memory_is_short_batches_are_halved(tiny_models, monkeypatch):
    from harness.engine import states

    model, rows, real = tiny_models["llama"], [], states.forward

    def short(model: Any, inputs: Any, *taps: Any) -> None:
        rows.append(len(inputs["input_ids"]))
        if rows[-1] > 2:
            raise torch.OutOfMemoryError
        real(model, inputs, *taps)

    monkeypatch.setattr(states, "forward", short)
    found = text_states(model, TEXTS, "mean")
    monkeypatch.undo()
    np.testing.assert_allclose(found, text_states(model, TEXTS, "mean"), atol=1e-5)
    assert rows[:2] == [5, 2]


# Neurons


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_neurons_are_read_at_all_content_tokens_and_gates_counted_where_they_are_open(tiny_models, family):
    model = tiny_models[family]
    by_text = [gates_and_neurons(model, text) for text in TEXTS]
    kept = [content(model, text) for text in TEXTS]
    gates = np.concatenate([gate[:, own] for (gate, _), own in zip(by_text, kept, strict=True)], axis=1)
    neurons = np.concatenate([neuron[:, own] for (_, neuron), own in zip(by_text, kept, strict=True)], axis=1)
    _, found = read_means(model, TEXTS, 40, neurons="mean")
    np.testing.assert_allclose(found.mean, neurons.mean(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.open, (gates > 0).mean(axis=1), atol=1e-12)
    assert found.open.shape == (LAYERS, NEURONS)
    last = text_states(model, TEXTS, "last", site="mlp_neurons")
    np.testing.assert_allclose(last, [neuron[:, -1] for _, neuron in by_text], rtol=1e-3, atol=1e-4)


def test_texts_of_special_tokens_alone_have_no_mean_neuron(tiny_models):
    with pytest.raises(UserError, match="no token but special ones"):
        read_means(tiny_models["llama"], ["<|user|>"], neurons="mean")


def test_both_readings_of_neurons_are_cached_apart(new_fitter, corpus_of, tiny_models, monkeypatch):
    fitter = new_fitter(tiny_models["llama"], corpus_of({}))
    last, mean = fitter.neuron_means(TEXTS), fitter.neuron_means(TEXTS, at="mean")
    assert last.open is None
    monkeypatch.setattr(ReadingCache, "save", None)  # another process finds both
    again = new_fitter(tiny_models["llama"], corpus_of({}), "other")
    for at, before in (("last", last), ("mean", mean)):
        after = again.neuron_means(TEXTS, at)
        assert np.array_equal(after.mean, before.mean)
        assert np.array_equal(after.open, before.open) if at == "mean" else after.open is None
    assert not np.array_equal(last.mean, mean.mean)
