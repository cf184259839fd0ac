"""Sink tokens: special tokens and outliers of norm leave the means only where asked, and are reported.

A token of the tiny model is made a sink by hand: at one layer its state is a thousand times as long, at the
next one it is as it was.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS
from support.model_probes import by_hand, token_ids

from harness.core.errors import UserError
from harness.engine.activations import mean_states
from harness.engine.model import SteerableModel
from harness.engine.sinks import FACTOR, AttentionSinkFilter

SINK = "q"  # in none of the other texts
TEXTS = ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "one more text here", "a b c d"]
AT = 1  # the layer where the token is a sink


def make_sink(model: SteerableModel, times: float = 1000.0, word: str = SINK) -> SteerableModel:
    """Make a token a sink at layer ``AT`` alone."""
    (sink,) = token_ids(model, word)
    here: list[torch.Tensor] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        here[:] = [(kwargs["input_ids"] if "input_ids" in kwargs else args[0]) == sink]

    def stretch(factor: float) -> Any:
        def hook(module: Any, args: Any, output: Any) -> Any:
            state = output if isinstance(output, torch.Tensor) else output[0]
            state = torch.where(here[0][..., None], state * factor, state)
            return state if isinstance(output, torch.Tensor) else (state, *output[1:])

        return hook

    model.decoder.register_forward_pre_hook(note, with_kwargs=True)
    model.layers[AT].register_forward_hook(stretch(times), prepend=True)
    # what the next layer makes of it is hidden again: its own output is as long as before
    model.layers[AT + 1].register_forward_hook(stretch(1 / times), prepend=True)
    return model


def without_first(model: SteerableModel, texts: list[str], layer: int) -> np.ndarray:
    """Return the states of all tokens but the first at a layer, from plain loops."""
    return np.concatenate([by_hand(model, text)[layer, 1:] for text in texts])


@pytest.fixture
def with_sink(new_model):
    return make_sink(new_model())


def first_is_sink(model: SteerableModel) -> list[str]:
    texts = [SINK + text for text in TEXTS]
    assert all(token_ids(model, text)[0] == token_ids(model, SINK)[0] for text in texts)
    return texts


def test_an_outlier_is_dropped_and_reported_at_the_layer_where_it_is_one(with_sink):
    texts = first_is_sink(with_sink)
    found = mean_states(with_sink, texts, exclude_sinks=True)
    np.testing.assert_allclose(found.mean[AT], without_first(with_sink, texts, AT).mean(0), atol=1e-5)
    everywhere = np.concatenate([by_hand(with_sink, text)[0] for text in texts])
    np.testing.assert_allclose(found.mean[0], everywhere.mean(0), atol=1e-5)
    assert found.excluded["by_norm_per_layer"] == [0, len(texts), 0]
    assert found.excluded["by_norm_at_first_token"] == "4 of 4"
    assert found.excluded["tokens"] == {SINK: 4}
    assert found.excluded["by_id"] == 0


def test_the_mean_norm_is_that_of_the_tokens_that_are_kept(with_sink):
    texts = first_is_sink(with_sink)
    expected = np.linalg.norm(without_first(with_sink, texts, AT), axis=1).mean()
    assert mean_states(with_sink, texts, exclude_sinks=True).norm[AT] == pytest.approx(expected, rel=1e-4)
    assert mean_states(with_sink, texts).norm[AT] > 10 * expected


def test_a_sink_in_the_middle_of_a_text_is_found_too(with_sink):
    found = mean_states(with_sink, ["a b" + SINK + " c d", *TEXTS], exclude_sinks=True)
    assert found.excluded["by_norm_per_layer"] == [0, 1, 0]
    assert found.excluded["by_norm_at_first_token"] == "0 of 1"


def test_without_the_option_all_tokens_count_and_nothing_is_reported(with_sink):
    texts = first_is_sink(with_sink)
    states = np.concatenate([by_hand(with_sink, text) for text in texts], axis=1)
    found = mean_states(with_sink, texts)
    np.testing.assert_allclose(found.mean, states.mean(axis=1), rtol=1e-4, atol=1e-5)
    assert found.excluded == {}


def test_where_there_is_no_sink_the_option_changes_nothing_but_the_report(tiny_models):
    model = tiny_models["llama"]
    plain, filtered = mean_states(model, TEXTS), mean_states(model, TEXTS, exclude_sinks=True)
    assert np.array_equal(plain.mean, filtered.mean)
    assert np.array_equal(plain.norm, filtered.norm)
    assert filtered.excluded["by_norm_per_layer"] == [0] * LAYERS
    assert filtered.excluded["tokens"] == {}


@pytest.mark.parametrize("budget", [1, 20, 40, 1000])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_composition_of_the_batch_does_not_matter(with_sink, budget, side):
    texts = [*first_is_sink(with_sink), "one text without it"]
    whole = mean_states(with_sink, texts, 1000, exclude_sinks=True)
    found = mean_states(with_sink, texts[::-1], budget, side, exclude_sinks=True)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-4, atol=1e-5)
    assert found.excluded == whole.excluded


@pytest.mark.parametrize("family", FAMILIES)
def test_sinks_are_found_in_every_family(new_model, family):
    model = make_sink(new_model(family))
    texts = first_is_sink(model)
    found = mean_states(model, texts, exclude_sinks=True)
    assert found.excluded["by_norm_per_layer"][AT] == len(texts)
    np.testing.assert_allclose(found.mean[AT], without_first(model, texts, AT).mean(0), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sinks_are_found_in_half_precision(new_model, dtype):
    model = make_sink(new_model(), times=100.0)
    model.model.to(dtype)
    found = mean_states(model, first_is_sink(model), exclude_sinks=True)
    assert found.excluded["by_norm_per_layer"] == [0, 4, 0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_any_length_is_no_sink_and_moves_no_median(with_sink, side):
    with torch.no_grad():
        with_sink.model.get_input_embeddings().weight[with_sink.tokenizer.pad_token_id] = 1e6
    texts = [SINK + " b", "a much longer text beside the short one, so that there is padding"]
    found = mean_states(with_sink, texts, 1000, side, exclude_sinks=True)
    assert found.excluded["by_norm_per_layer"] == [0, 1, 0]
    assert found.excluded["tokens"] == {SINK: 1}


# Special tokens, by id


def test_special_tokens_in_a_text_are_dropped_at_every_layer(tiny_models):
    model = tiny_models["llama"]
    special = set(model.tokenizer.all_special_ids)
    texts = ["<s>a b", "ምግቡ</s><|user|>", "האוכל"]
    kept = []
    for text in texts:
        ordinary = [token not in special for token in token_ids(model, text)]
        kept.append(by_hand(model, text)[:, ordinary])
    found = mean_states(model, texts, exclude_sinks=True)
    np.testing.assert_allclose(found.mean, np.concatenate(kept, axis=1).mean(axis=1), rtol=1e-4, atol=1e-5)
    assert found.excluded["by_id"] == 3
    assert set(found.excluded["tokens"]) == {"<s>", "</s>", "<|user|>"}
    assert found.excluded["by_norm_per_layer"] == [0] * LAYERS


def test_the_counts_of_tokens_say_how_many_states_were_left_out(with_sink):
    """A special token is left out at all three layers, the outlier at one."""
    texts = ["<s>" + SINK + " b c"]
    assert mean_states(with_sink, texts, exclude_sinks=True).excluded["tokens"] == {"<s>": LAYERS, SINK: 1}


def test_texts_of_special_tokens_alone_are_refused(tiny_models):
    with pytest.raises(UserError, match="no token to average over"):
        mean_states(tiny_models["llama"], ["<s></s>"], exclude_sinks=True)
    assert mean_states(tiny_models["llama"], ["<s></s>"]).n_tokens == 2


# The rule


def filtered(norms: list[float], ids: list[int] | None = None) -> tuple[list[bool], AttentionSinkFilter, int]:
    """Return which tokens of one text with states of these norms are kept at layer 0."""

    class Tokenizer:
        all_special_ids = (0,)

        def convert_ids_to_tokens(self, token: int) -> str:
            return f"t{token}"

    sinks = AttentionSinkFilter(Tokenizer(), 1)
    hidden = torch.tensor(norms)[None, :, None] * torch.tensor([0.6, 0.8])
    row = torch.tensor([ids or list(range(1, len(norms) + 1))])
    kept = sinks.keep(0, hidden, row, torch.ones_like(row).bool())
    return kept[0].tolist(), sinks, len(norms)


def test_ten_times_the_median_is_kept_and_more_is_dropped():
    assert FACTOR == 10.0
    assert filtered([1.0, 1.0, 1.0, 9.9])[0] == [True] * 4
    assert filtered([1.0, 1.0, 1.0, 10.1])[0] == [True, True, True, False]


def test_of_two_tokens_the_outlier_is_dropped():
    assert filtered([1000.0, 1.0])[0] == [False, True]


def test_a_text_of_one_token_has_no_outlier():
    assert filtered([1000.0])[0] == [True]


def test_special_tokens_do_not_move_the_median():
    assert filtered([500.0, 500.0, 500.0, 1.0, 11.0], [0, 0, 0, 4, 5])[0] == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_the_median_is_that_of_the_text_alone():
    _, sinks, _ = filtered([1.0])
    norms = torch.tensor([[1.0, 1.0, 1.0, 11.0], [100.0, 100.0, 100.0, 100.0]])
    ids = torch.ones(2, 4, dtype=torch.int64)
    kept = sinks.keep(0, norms[..., None] * torch.tensor([0.6, 0.8]), ids, ids.bool())
    assert kept.tolist() == [[True, True, True, False], [True] * 4]


def test_the_report_is_json_of_counts_and_commonest_tokens():
    _, sinks, n = filtered([1.0, 1.0, 1.0, 99.0, 7.0], [5, 6, 7, 8, 0])
    report = sinks.report(n)
    assert json.loads(json.dumps(report)) == report
    assert report == {
        "rule": "special tokens; norm above 10 x the text's median at that layer",
        "of_tokens": 5,
        "by_id": 1,
        "by_norm_per_layer": [1],
        "by_norm_at_first_token": "0 of 1",
        "tokens": {"t8": 1, "t0": 1},
    }


def test_the_report_lists_ten_tokens_at_most():
    norms = [1.0] * 60 + [99.0] * 20
    assert len(filtered(norms)[1].report(80)["tokens"]) == 10


def test_the_methods_pass_the_option_on_and_store_the_report(with_sink, corpus_of):
    from support.contexts import context, sentences

    from harness.methods.difference import LanguageSteering, QualitySteering

    parallel = {"am": [SINK + "ምግቡ በጣም"], "he": ["האוכל היה טעים"], "en": ["the food was good"]}
    corpus = corpus_of(
        {code: sentences(texts) for code, texts in parallel.items()},
        degraded={("noise", "am"): sentences([SINK + "በጣም ምግቡ ምግቡ"])},
    )
    for method in (LanguageSteering, QualitySteering):
        vectors = []
        for exclude in (False, True):
            ctx = context(corpus, None)
            ctx.engine.mean_states = lambda texts, sinks=False: mean_states(with_sink, texts, exclude_sinks=sinks)
            fitted = method(method.Config(layer=AT, exclude_sinks=exclude)).fit(ctx)
            vectors.append(fitted.interventions[0])
            reports = fitted.provenance["excluded"]
            assert bool(reports) is exclude
            assert ("sinks" in fitted.provenance["token_rule"]) is exclude
        assert reports["am" if method is LanguageSteering else "good"]["by_norm_per_layer"] == [0, 1, 0]
        assert vectors[0].residual_norm > 10 * vectors[1].residual_norm
        assert vectors[0].vector @ vectors[1].vector < 0.9
        json.dumps(fitted.provenance)
