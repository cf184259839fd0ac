"""LAPE: on a table of probabilities that can be followed by hand, and on models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import LAYERS, NEURONS, fit
from support.contexts import PARALLEL, sentences
from support.model_probes import IDS, bits, content, gates_and_neurons

from harness.core.errors import UnsupportedError
from harness.methods.lape import Lape, language_specific

P = np.array(  # [languages, one layer, neurons]: P(gate is open)
    [
        [[0.9, 0.8, 0.0, 0.8, 0.1]],
        [[0.0, 0.8, 0.9, 0.8, 0.0]],
        [[0.0, 0.0, 0.1, 0.8, 0.0]],
    ]
)
# Shares (1, 0, 0), (1/2, 1/2, 0), (0, 0.9, 0.1), (1/3, 1/3, 1/3) and (1, 0, 0):
# entropies 0, ln 2, 0.325, ln 3 and 0; the last neuron never passes a bar of 0.1 or more.


@pytest.fixture
def corpus(corpus_of):
    return corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()})


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.2, [[0], [], []]),
        (0.4, [[0], [2], []]),
        (0.6, [[0, 1], [1, 2], []]),
        (0.8, [[0, 1, 3], [1, 2, 3], [3]]),
        (1.0, [[0, 1, 3], [1, 2, 3], [3]]),  # the neuron that never passes the bar belongs to no language
    ],
)
def test_the_neurons_of_lowest_entropy_belong_to_the_languages_in_which_they_pass_the_bar(share, expected):
    found = language_specific(P, share, bar=0.5)  # of 15 values the 8th smallest, 0.1
    assert [np.flatnonzero(mask[0]).tolist() for mask in found] == expected


def test_a_higher_bar_leaves_the_language_where_the_neuron_fires_most():
    table = np.array([[[0.9, 0.2]], [[0.6, 0.2]], [[0.0, 0.2]]])  # two thirds are 0.2 or less: 4 of 6
    assert language_specific(table, 1.0, bar=0.66)[:, 0, 0].tolist() == [True, True, False]
    assert language_specific(table, 1.0, bar=0.8)[:, 0, 0].tolist() == [True, False, False]


def test_neurons_that_never_fire_are_in_no_language():
    assert not language_specific(np.zeros((3, 2, 4)), 1.0, bar=0.95).any()


def test_own_neurons_get_their_mean_and_those_of_others_are_switched_off(new_fitter, tiny_models, corpus):
    model, codes = tiny_models["llama"], ["am", "he", "en"]
    opened, means = [], []
    for code in codes:
        read = [gates_and_neurons(model, text) for text in PARALLEL[code]]
        kept = [content(model, text) for text in PARALLEL[code]]
        gates, neurons = (
            np.concatenate([one[i][:, own] for one, own in zip(read, kept, strict=True)], axis=1) for i in (0, 1)
        )
        opened.append((gates > 0).mean(axis=1))
        means.append(neurons.mean(axis=1))
    specific = language_specific(np.stack(opened), 0.5, 0.8)
    own, others = specific[1], (specific[0] | specific[2]) & ~specific[1]
    assert own.any()
    assert others.any()
    steering = fit(new_fitter(model, corpus), Lape(Lape.Config(share=0.5, bar=0.8, strength=2.0)), "he")
    added, scaled = np.zeros((LAYERS, NEURONS)), np.zeros((LAYERS, NEURONS))
    for item in steering.interventions:
        assert (item.site, item.unit) == ("mlp_neurons", "raw")
        (added if item.operation == "add" else scaled)[item.layer] = item.strength * item.vector
    np.testing.assert_allclose(added, 2.0 * own * means[1], rtol=1e-4, atol=1e-5)
    assert np.array_equal(scaled, -1.0 * others)  # off, not beyond: at strength 2 too
    header = steering.provenance
    assert header["fit"]["specific"]["he"] == own.sum(axis=1).tolist()
    assert max(header["fit"]["residual_change"]) > 0


def test_without_suppression_other_neurons_are_left_alone(new_fitter, tiny_models, corpus):
    options = Lape.Config(share=0.5, bar=0.8, suppress=False, strength={"he": 0.5})
    steering = fit(new_fitter(tiny_models["llama"], corpus), Lape(options), "he")
    assert {(item.operation, item.strength) for item in steering.interventions} == {("add", 0.5)}


def test_strength_zero_changes_nothing_bit_for_bit(new_fitter, tiny_models, corpus):
    model = tiny_models["llama"]
    steering = fit(new_fitter(model, corpus), Lape(Lape.Config(share=0.5, bar=0.8, strength=0.0)), "he")
    with torch.inference_mode():
        plain = model.model(IDS).logits
        with model.hooks.steer([steering] * len(IDS), torch.ones_like(IDS)):
            assert torch.equal(bits(model.model(IDS).logits), bits(plain))


def test_a_language_without_a_neuron_of_its_own_is_refused(new_fitter, tiny_models, corpus):
    with pytest.raises(UnsupportedError, match=r"no neuron is specific to 'am' at share 0\.001"):
        fit(new_fitter(tiny_models["llama"], corpus), Lape(Lape.Config(share=0.001)), "am")


def test_a_family_without_gated_neurons_is_refused(new_fitter, tiny_models, corpus):
    with pytest.raises(UnsupportedError, match=r"layer 0 of this model has no gated MLP .*GPT2MLP"):
        fit(new_fitter(tiny_models["gpt2"], corpus), Lape())
