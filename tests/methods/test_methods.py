"""The shipped methods: vectors equal to means worked out by hand, floors and ceilings from human text.

Hand-made mean states check the formulas with numbers that can be followed; a tiny model checks the whole
way from sentences to the vector.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from conftest import HIDDEN, LAYERS
from pydantic import ValidationError
from support.contexts import BAD, PARALLEL, context, prompt_context, sentences
from support.model_probes import by_hand

from harness.core.errors import UserError
from harness.data.prompts import Prompt
from harness.data.sources import Example, LocalData
from harness.engine.activations import MeanStates, mean_states
from harness.methods.contract import PromptContext, Reference, ReferenceContext, SteeringMethod, register
from harness.methods.difference import LanguageSteering, QualitySteering
from harness.methods.prompting import FewShot, ZeroShot
from harness.methods.references import Constant, Human


@pytest.fixture
def corpus(corpus_of):
    parallel = {code: sentences(texts) for code, texts in PARALLEL.items()}
    return corpus_of(parallel, degraded={("noise", "am"): sentences(BAD)})


@pytest.fixture
def by_model(tiny_models):
    """Fit on the tiny Llama; the second item says what the mean of some texts is, from plain loops."""
    model = tiny_models["llama"]

    def plain_mean(texts: list[str]) -> np.ndarray:
        return np.concatenate([by_hand(model, text) for text in texts], axis=1).mean(axis=1)

    return lambda texts: mean_states(model, texts), plain_mean


def made_up(states: dict[str, list[float]], tokens: dict[str, int] | None = None):
    """Return ``mean_states`` that knows the mean of a list of texts by its first text, at one layer."""

    def means(texts: list[str]) -> MeanStates:
        state = np.array([states[texts[0]]])
        n = (tokens or {}).get(texts[0], 5)
        return MeanStates(state, np.linalg.norm(state, axis=1) * 10, n, len(texts))

    return means


def test_the_language_vector_is_the_own_mean_minus_the_mean_of_the_others(corpus):
    # (9, 4) - ((2, 0) + (4, 0)) / 2 = (6, 4); the numbers of tokens are no weights
    states = {PARALLEL["am"][0]: [9.0, 4.0], PARALLEL["he"][0]: [2.0, 0.0], PARALLEL["en"][0]: [4.0, 0.0]}
    ctx = context(corpus, made_up(states, {PARALLEL["he"][0]: 1000}), n_layers=1)
    fitted = LanguageSteering().fit(ctx)
    (item,) = fitted.interventions
    np.testing.assert_allclose(item.vector, np.array([6.0, 4.0]) / np.sqrt(52), rtol=1e-6)
    assert fitted.provenance["norm_before_unit"] == pytest.approx(np.sqrt(52))
    assert item.residual_norm == pytest.approx(10 * np.sqrt(97))


def test_the_language_vector_of_a_model_equals_means_of_plain_loops(corpus, by_model):
    means, plain = by_model
    config = LanguageSteering.Config(layer=2)
    (item,) = LanguageSteering(config).fit(context(corpus, means, "he")).interventions
    direction = plain(PARALLEL["he"]) - (plain(PARALLEL["am"]) + plain(PARALLEL["en"])) / 2
    np.testing.assert_allclose(item.vector, direction[2] / np.linalg.norm(direction[2]), atol=1e-5)
    assert (item.layer, item.vector.shape, item.vector.dtype) == (2, (HIDDEN,), np.float32)


def test_the_reference_language_is_among_the_others_and_counted_once(corpus_of, small_suite):
    suite = small_suite.model_copy(update={"languages": ["am", "he", "en"]})
    corpus = corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()}, suite=suite)
    states = {PARALLEL["am"][0]: [9.0, 4.0], PARALLEL["he"][0]: [2.0, 0.0], PARALLEL["en"][0]: [4.0, 0.0]}
    fitted = LanguageSteering().fit(context(corpus, made_up(states), n_layers=1))
    assert {code: n["texts"] for code, n in fitted.provenance["counts"].items()} == {
        "am": 2,
        "he": 2,
        "en": 2,
    }
    np.testing.assert_allclose(fitted.interventions[0].vector, np.array([6, 4]) / np.sqrt(52), rtol=1e-6)


def test_the_quality_vector_points_from_degraded_to_human_text(corpus):
    states = {PARALLEL["am"][0]: [1.0, 7.0], BAD[0]: [4.0, 3.0]}
    (item,) = QualitySteering().fit(context(corpus, made_up(states), n_layers=1)).interventions
    np.testing.assert_allclose(item.vector, [-0.6, 0.8], rtol=1e-6)
    assert item.residual_norm == pytest.approx(10 * np.sqrt(50))  # of human text


def test_the_quality_vector_of_a_model_equals_means_of_plain_loops(corpus, by_model):
    means, plain = by_model
    fitted = QualitySteering(QualitySteering.Config(layer=1)).fit(context(corpus, means))
    direction = plain(PARALLEL["am"]) - plain(BAD)
    np.testing.assert_allclose(fitted.interventions[0].vector, direction[1] / np.linalg.norm(direction[1]), atol=1e-5)
    assert fitted.provenance["contrast"] == "translations:noise"
    assert [n["texts"] for n in fitted.provenance["counts"].values()] == [2, 2]


@pytest.mark.parametrize("method", [LanguageSteering, QualitySteering])
@pytest.mark.parametrize("unit", ["residual", "raw"])
def test_a_vector_has_norm_one_and_the_strength_and_unit_of_the_config(corpus, by_model, method, unit):
    config = method.Config(layer=1, strength=-1.5, unit=unit)
    (item,) = method(config).fit(context(corpus, by_model[0])).interventions
    assert np.linalg.norm(item.vector) == pytest.approx(1.0, abs=1e-6)
    assert (item.strength, item.unit, item.positions) == (-1.5, unit, "all")
    assert (item.site, item.operation) == ("layer_output", "add")


def test_the_residual_norm_is_that_of_the_steered_layer(corpus, by_model, tiny_models):
    states = np.concatenate([by_hand(tiny_models["llama"], text) for text in PARALLEL["am"]], axis=1)
    norms = np.linalg.norm(states, axis=2).mean(axis=1)
    for layer in range(LAYERS):
        config = LanguageSteering.Config(layer=layer)
        (item,) = LanguageSteering(config).fit(context(corpus, by_model[0])).interventions
        assert item.residual_norm == pytest.approx(norms[layer], rel=1e-4)


def test_provenance_counts_texts_tokens_and_what_was_held_out(corpus_of, by_model):
    test = {("sentiment", "am", "test"): [Example("t", PARALLEL["am"][0], "positive")]}
    corpus = corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()}, test)
    provenance = LanguageSteering().fit(context(corpus, by_model[0])).provenance
    assert {code: n["texts"] for code, n in provenance["counts"].items()} == {"am": 1, "he": 2, "en": 2}
    assert provenance["dropped_held_out"] == {"am": 1, "he": 0, "en": 0}
    assert len(provenance["residual_norm"]) == LAYERS


@pytest.mark.parametrize("numbers", [[2.0, 2.0], [float("nan"), 1.0]], ids=["equal", "not a number"])
def test_means_without_a_direction_between_them_are_refused(corpus, numbers):
    states = {texts[0]: [2.0, 2.0] for texts in PARALLEL.values()} | {PARALLEL["am"][0]: numbers}
    with pytest.raises(UserError, match="no direction to add"):
        LanguageSteering().fit(context(corpus, made_up(states), n_layers=1))


@pytest.mark.parametrize(
    ("n_layers", "expected"),
    [(32, [7, 15, 24]), (42, [9, 20, 31]), (46, [10, 22, 34]), (80, [17, 38, 59])],
)
def test_depths_give_the_published_layers(corpus, n_layers, expected):
    ctx = context(corpus, None, n_layers=n_layers)
    assert [ctx.layer(depth) for depth in (0.21, 0.48, 0.74)] == expected


def test_an_int_is_a_layer_and_a_fraction_never_leaves_the_model(corpus):
    ctx = context(corpus, None, n_layers=4)
    assert [ctx.layer(depth) for depth in (0, 3, 0.0, 0.99)] == [0, 3, 0, 3]


@pytest.mark.parametrize("layer", [4, 99, -1])
def test_a_layer_outside_of_the_model_is_refused(corpus, layer):
    with pytest.raises(UserError, match=f"layer {layer} is outside of this model's 0 to 3"):
        context(corpus, None, n_layers=4).layer(layer)


@pytest.mark.parametrize(
    "options",
    [
        {"layer": 1.5},
        {"layer": -1},
        {"layer": -0.1},
        {"strength": float("nan")},
        {"unit": "percent"},
        {"lyer": 3},
    ],
    ids=str,
)
def test_a_config_with_a_bad_value_is_refused(options):
    with pytest.raises(ValidationError):
        LanguageSteering.Config(**options)


def test_the_config_is_part_of_the_identity():
    assert LanguageSteering().identity.config == {
        "layer": 0.21,
        "strength": 0.2,
        "unit": "residual",
        "positions": "all",
        "exclude_sinks": False,
    }
    assert LanguageSteering(LanguageSteering.Config(layer=3)).identity.config["layer"] == 3


def test_the_unsteered_methods_steer_nothing_in_one_setting_each(corpus):
    for method, setting in ((ZeroShot, "zero-shot"), (FewShot, "few-shot")):
        assert method.settings == (setting,)
        assert method().fit(context(corpus, None)).interventions == ()


def test_the_suite_prompt_names_label_and_language(small_suite):
    prompt = ZeroShot().prompt(prompt_context(small_suite, "zero-shot"))
    assert "positive" in prompt.user
    assert "Amharic" in prompt.user
    assert not set("{}") & set(prompt.user)
    assert prompt.system is None


def test_the_few_shot_prompt_holds_the_examples_one_a_line_and_unchanged(small_suite):
    examples = ("ምግቡ ጥሩ ነው {label}", "{language} ok", "third")
    prompt = FewShot().prompt(prompt_context(small_suite, "few-shot", demonstrations=examples))
    assert "\n".join(examples) in prompt.user


def test_a_setting_without_a_prompt_is_refused(small_suite):
    task = small_suite.task("sentiment", "am").model_copy(update={"prompts": {"zero-shot": "x {label}"}})
    ctx = PromptContext(small_suite, task, "few-shot", 1, 2, label="positive")
    with pytest.raises(UserError, match="no prompt for setting 'few-shot'; it has zero-shot"):
        ctx.suite_prompt()


@pytest.fixture
def train(corpus_of):
    """Eight train texts of each label, and a test text that no reference may show."""
    rows = [Example(f"{label}{i}", f"{label} {i}", label) for label in ("positive", "negative") for i in range(8)]
    held_out = [Example("t", "held out", "positive")]
    return corpus_of({}, {("sentiment", "am", "train"): rows, ("sentiment", "am", "test"): held_out})


def texts_of(reference: type[Reference], corpus: Any, n: int = 5, seed: int = 1) -> dict[str, list[str]]:
    task = corpus.suite.task("sentiment", "am")
    rng = np.random.default_rng(seed)
    return reference().texts(ReferenceContext(corpus.suite, task, "none", seed, n, _corpus=corpus, rng=rng))


def test_the_human_ceiling_draws_train_texts_of_each_label_without_repeats(train):
    for label, texts in texts_of(Human, train).items():
        assert len(texts) == len(set(texts)) == 5
        assert set(texts) <= {f"{label} {i}" for i in range(8)}


def test_the_human_ceiling_draws_anew_for_every_seed_and_alike_for_the_same(train):
    draws = [texts_of(Human, train, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_the_human_ceiling_takes_every_text_equally_often(train):
    counts = Counter(t for seed in range(400) for t in texts_of(Human, train, 2, seed)["positive"])
    assert len(counts) == 8
    assert all(abs(n - 100) <= 4.5 * np.sqrt(400 * 0.25 * 0.75) for n in counts.values())


def test_the_human_ceiling_says_where_train_text_is_short(train):
    with pytest.raises(UserError, match=r"9 train texts of '(posi|nega)tive' are needed .*, there are 8"):
        texts_of(Human, train, 9)


def test_the_constant_floor_repeats_one_train_text_per_label(train):
    for label, texts in texts_of(Constant, train, 20).items():
        assert len(texts) == 20
        assert set(texts) < {f"{label} {i}" for i in range(8)}
        assert len(set(texts)) == 1


def test_references_prompt_no_model():
    for reference in (Human, Constant):
        assert reference.settings == ("none",)
        assert not reference.needs_model


@pytest.mark.parametrize("name", ["", "my method", "a/b", "../x", "ዘዴ"])
def test_a_name_that_is_no_slug_is_refused(name):
    with pytest.raises(UserError, match="use ASCII letters"):
        register(name)


def test_a_minimal_method_has_the_suites_prompt_no_steering_and_no_objection(small_suite, corpus):
    @register("minimal")
    class Minimal(SteeringMethod):
        """Nothing of its own."""

    ctx = prompt_context(small_suite, "zero-shot")
    assert Minimal().prompt(ctx) == ctx.suite_prompt() == Prompt(ctx.suite_prompt().user)
    assert Minimal().fit(context(corpus, None)).interventions == ()
    assert Minimal().supports(ctx) is None
    assert Minimal().identity.model_dump() == {"name": "minimal", "version": "1", "config": {}}


@pytest.mark.slow
def test_language_vectors_of_real_text_and_a_trained_model_tell_their_language_apart(shared, corpus_of):
    """Held-out sentences of a language lie further along its own vector than those of the others."""
    from harness.core.checkpoints import resolve_checkpoint
    from harness.engine.model import load_model

    model = load_model(resolve_checkpoint(str(shared / "models" / "devlm")), "float32", "cpu")
    rows = {code: LocalData(shared / "data").parallel(code)[:36] for code in ("am", "he", "en")}
    corpus = corpus_of({code: part[:24] for code, part in rows.items()})
    later = {code: mean_states(model, [row.text for row in part[24:]]).mean for code, part in rows.items()}
    for code in ("am", "he"):
        ctx = context(corpus, lambda texts: mean_states(model, texts), code, len(model.layers))
        (item,) = LanguageSteering(LanguageSteering.Config(layer=0.48)).fit(ctx).interventions
        along = {other: float(item.vector @ state[item.layer]) for other, state in later.items()}
        assert max(along, key=along.__getitem__) == code
