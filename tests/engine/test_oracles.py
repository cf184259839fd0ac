"""Outside checks: vectors of other people's code on the same model and text, and pads that hold poison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, HIDDEN, LAYERS
from support.contexts import context, sentences
from support.model_probes import answer_with

from harness.core.errors import UserError
from harness.engine.activations import mean_states
from harness.engine.model import SteerableModel
from harness.methods.difference import LanguageSteering, QualitySteering

GOOD = ["ምግቡ በጣም ጥሩ ነበር", "האוכל היה טעים", "the food was very good today", "ሰላም"]
BAD = ["ጥሩ ምግቡ ነበር ነበር", "היה היה האוכל", "food the was today very very", "שלום"]
EVERY_WORD = sorted({word for text in GOOD + BAD for word in text.split()})
OTHERS = ["llama", "gemma2", "gemma3_text", "qwen2", "qwen3", "mistral", "phi3", "gpt2", "gpt_neox"]


@pytest.fixture(scope="module")
def package() -> Any:
    """The package ``steering-vectors``, installed without its dependencies (``make test`` does it)."""
    return pytest.importorskip(
        "steering_vectors", reason="NOT CHECKED against the package steering-vectors, which is not installed"
    )


def word_tokenizer() -> Any:
    """Return a tokenizer of one token per word, without BOS: any prefix of a text is a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *EVERY_WORD]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


@pytest.fixture(scope="module")
def worded(new_network) -> Any:
    """Build a tiny model of a family that reads whole words."""
    return lambda family: SteerableModel(new_network(family), word_tokenizer())


def prefixes(texts: list[str]) -> list[str]:
    """Return every beginning of every text: a causal model's last state of each is a token's state."""
    return [" ".join(text.split()[:stop]) for text in texts for stop in range(1, len(text.split()) + 1)]


def theirs(package: Any, model: SteerableModel, good: list[str], bad: list[str], side: str, n: int) -> Any:
    """Return the package's vector of every layer, at the last token of the pairs: [layers, hidden size]."""
    model.tokenizer.padding_side = side
    found = package.train_steering_vector(model.model, model.tokenizer, list(zip(good, bad, strict=True)), batch_size=n)
    assert sorted(found.layer_activations) == list(range(LAYERS))
    return np.stack([found.layer_activations[layer].double().numpy() for layer in range(LAYERS)])


@pytest.mark.parametrize("family", OTHERS)
def test_texts_of_one_token_give_the_packages_vectors(package, worded, family):
    """Both read the only token there is; nothing but the states and their mean is compared."""
    model, (half, rest) = worded(family), np.array_split(EVERY_WORD, 2)
    good, bad = half[: len(rest)].tolist(), rest.tolist()
    expected = theirs(package, model, good, bad, "right", 4)
    ours = mean_states(model, good).mean - mean_states(model, bad).mean
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_means_over_all_tokens_give_the_packages_vectors_of_all_prefixes(package, worded, family, batch_size):
    """We average over every token, the package over the last one: it gets every prefix of every text.

    The pairs have equal numbers of words, so that its mean of differences is our difference of means.
    """
    model = worded(family)
    expected = theirs(package, model, prefixes(GOOD), prefixes(BAD), "right", batch_size)
    for side in ("left", "right"):
        means = [mean_states(model, texts, 60, side).mean for texts in (GOOD, BAD)]
        np.testing.assert_allclose(means[0] - means[1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "phi3"])
def test_the_package_agrees_with_padding_on_the_left_too(package, worded, family):
    """Not for learned positions, whose pads the package counts as text."""
    model = worded(family)
    expected = theirs(package, model, prefixes(GOOD), prefixes(BAD), "left", 5)
    ours = mean_states(model, GOOD).mean - mean_states(model, BAD).mean
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_quality_method_gives_the_packages_direction(package, worded, corpus_of, layer):
    """The whole way: sentences and their noisy copies, the fit, the unit vector and its norm before."""
    model = worded("llama")
    good, bad = GOOD[:1], BAD[:1]
    corpus = corpus_of({"am": sentences(good)}, degraded={("noise", "am"): sentences(bad)})
    ctx = context(corpus, lambda texts: mean_states(model, texts))
    fitted = QualitySteering(QualitySteering.Config(layer=layer)).fit(ctx)
    expected = theirs(package, model, prefixes(good), prefixes(bad), "right", 3)[layer]
    found = fitted.interventions[0].vector * fitted.provenance["norm_before_unit"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_language_method_gives_the_packages_direction_between_two_languages(
    package, worded, corpus_of, small_suite, layer
):
    """With one language beside it, the mean of the others is that language's."""
    model = worded("gemma2")
    suite = small_suite.model_copy(update={"languages": ["am"], "reference_language": "en"})
    own, other = ["ምግቡ በጣም ጥሩ ነበር", "ሰላም ጥሩ"], ["the food was good", "very today"]
    corpus = corpus_of({"am": sentences(own), "en": sentences(other)}, suite=suite)
    ctx = context(corpus, lambda texts: mean_states(model, texts))
    fitted = LanguageSteering(LanguageSteering.Config(layer=layer)).fit(ctx)
    expected = theirs(package, model, prefixes(own), prefixes(other), "right", 3)[layer]
    found = fitted.interventions[0].vector * fitted.provenance["norm_before_unit"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_the_packages_steering_gives_our_logits(package, worded, steer, direction, family):
    """Its vector at the same layer with the same multiplier, on a batch without padding."""
    model, ids = worded(family), torch.tensor([[4, 5, 6, 7], [8, 9, 4, 3]])
    vector = package.SteeringVector({1: torch.from_numpy(direction)}, "decoder_block")
    with torch.inference_mode(), model.hooks.steer([steer()] * 2, torch.ones_like(ids)):
        ours = model.model(ids).logits
    with torch.no_grad(), vector.apply(model.model, multiplier=2.0):
        expected = model.model(ids).logits
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(model.model(ids).logits, expected)


# Padding, through the methods

PARALLEL = {
    "am": ["ምግቡ በጣም ጥሩ ነበር።", "ሰላም"],
    "he": ["האוכל היה טעים מאוד.", "שלום לכולם ולכל מי שבא"],
    "en": ["The food was very good, and there was a lot of it.", "a"],
}
NOISY = ["ጥሩ ምግቡ ነበር።", "ሰላም ሰላም ሰላም ሰላም"]
METHODS = [LanguageSteering, QualitySteering]


def vectors(model: SteerableModel, corpus: Any, method: Any, side: str, **options: Any) -> np.ndarray:
    """Return what a method fits at every layer, the vector x its norm: [layers, hidden size]."""
    ctx = context(corpus, lambda texts: mean_states(model, texts, 200, side, **options))
    found = []
    for layer in range(LAYERS):
        fitted = method(method.Config(layer=layer)).fit(ctx)
        (item,) = fitted.interventions
        found.append(np.append(item.vector * fitted.provenance["norm_before_unit"], item.residual_norm))
    return np.stack(found)


@pytest.fixture
def padded_corpus(corpus_of):
    texts = {code: sentences(rows) for code, rows in PARALLEL.items()}
    return corpus_of(texts, degraded={("noise", "am"): sentences(NOISY)})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_left_and_right_padding_give_the_same_vector_and_norm(tiny_models, padded_corpus, family, method):
    model = tiny_models[family]
    left, right = (vectors(model, padded_corpus, method, side) for side in ("left", "right"))
    assert left.shape == (LAYERS, HIDDEN + 1)
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "bloom"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("exclude_sinks", [False, True])
def test_poison_in_the_padding_changes_no_vector(new_model, padded_corpus, family, method, side, exclude_sinks):
    model = new_model(family)
    clean = vectors(model, padded_corpus, method, side, exclude_sinks=exclude_sinks)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[model.tokenizer.pad_token_id] = 1e6
    poisoned = vectors(model, padded_corpus, method, side, exclude_sinks=exclude_sinks)
    np.testing.assert_allclose(poisoned, clean, rtol=1e-5, atol=1e-6)


def test_equal_states_have_no_direction_whatever_the_padding(new_model, padded_corpus):
    """The denominators: a constant stays that constant, so that no vector is left to normalise."""
    model = new_model()
    answer_with(model, 0.75)
    with pytest.raises(UserError, match="no direction to add"):
        vectors(model, padded_corpus, LanguageSteering, "left")
