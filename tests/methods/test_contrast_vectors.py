"""Vectors from contrast pairs: equal to numbers by hand, and to scikit-learn on the same states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import fit
from pydantic import ValidationError
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from support.contexts import context, sentences
from support.model_probes import by_hand

from harness.core.errors import UnsupportedError, UserError
from harness.engine.activations import MeanStates
from harness.methods.contrast import Discriminant, MeanDifference, PrincipalComponent, Probe, contrast_pairs
from harness.methods.difference import LanguageSteering, QualitySteering

ALL = [MeanDifference, PrincipalComponent, Probe, Discriminant]
TEXTS = {
    "am": ["ምግቡ ጥሩ ነበር።", "ወደዚህ መጣን", "ዋጋው ውድ ነው።", "አገልግሎቱ ዘገምተኛ ነው"],
    "he": ["האוכל היה טוב.", "באנו לכאן", "המחיר יקר.", "השירות איטי"],
    "en": ["The food was good.", "We came here", "It is expensive.", "The service is slow"],
}
BAD = ["ምግቡ ምግቡ", "መጣን ወደዚህ", "ውድ", "ዘገምተኛ አገልግሎቱ"]
each = pytest.mark.parametrize("method", ALL)


def unit(vector: Any) -> np.ndarray:
    return np.asarray(vector) / np.linalg.norm(vector)


@pytest.fixture
def corpus(corpus_of):
    parallel = {code: sentences(texts) for code, texts in TEXTS.items()}
    return corpus_of(parallel, degraded={("noise", "am"): sentences(BAD)})


@pytest.fixture(params=[(40, 6), (5, 30)], ids=["more pairs than numbers", "more numbers than pairs"])
def pairs(request) -> tuple[np.ndarray, np.ndarray]:
    """States of two sides: apart along the first coordinate, most variable along the second."""
    rng, (n, d) = np.random.default_rng(3), request.param
    spread = np.array([1.0, 4.0] + [1.0] * (d - 2))
    other = rng.normal(size=(n, d)) * spread
    return other + rng.normal(size=(n, d)) * spread + 2 * np.eye(d)[0], other


def made_up(states: dict[str, list[float]]) -> dict[str, Any]:
    """Return an engine's functions for texts with given states at one layer; all means have the norm 10."""
    size = len(next(iter(states.values())))
    return {
        "means": lambda texts: MeanStates(np.zeros((1, size)), np.array([10.0]), 1, len(texts)),
        "states": lambda texts, at, layers, site: np.array([[states[text]] for text in texts], dtype=np.float32),
        "n_layers": 1,
    }


# Which pairs


def test_a_sentence_is_paired_with_its_translation_into_each_other_language_in_turn(corpus):
    found, details = contrast_pairs(context(corpus, None), "language")
    assert found == [
        (TEXTS["am"][0], TEXTS["he"][0]),
        (TEXTS["am"][2], TEXTS["he"][2]),
        (TEXTS["am"][1], TEXTS["en"][1]),
        (TEXTS["am"][3], TEXTS["en"][3]),
    ]
    assert details == {"translated_into": ["he", "en"]}


@each
def test_the_contrast_is_that_of_the_config_and_named(corpus, method):
    config = method.Config(contrast="quality", layer=0)
    rng = np.random.default_rng(0)
    states = {text: rng.normal(size=3).tolist() for text in [*TEXTS["am"], *BAD]}
    fitted = method(config).fit(context(corpus, **made_up(states)))
    assert fitted.provenance["contrast"] == "translations:noise"
    assert method(config).vector_languages(context(corpus, None)) == ["am"]
    assert method().vector_languages(context(corpus, None)) == ["am", "he", "en"]


@each
def test_too_few_pairs_are_refused(corpus_of, method):
    corpus = corpus_of({code: sentences(texts[:2]) for code, texts in TEXTS.items()})
    with pytest.raises(UnsupportedError, match="needs 4 contrast pairs of 'am', there are 2"):
        method(method.Config(layer=0, strength=1.0)).fit(context(corpus, None))


# The directions


def test_caa_is_the_mean_difference_by_hand(corpus):
    own = [[1.0, 2.0], [3.0, 0.0], [0.0, 0.0], [2.0, 2.0]]
    he, en = [[0.0, 1.0], [9.0, 9.0], [1.0, 0.0], [9.0, 9.0]], [[9.0, 9.0], [1.0, 0.0], [9.0, 9.0], [0.0, 1.0]]
    states = dict(zip([t for texts in TEXTS.values() for t in texts], [*own, *he, *en], strict=True))
    fitted = MeanDifference(MeanDifference.Config(strength=0.3)).fit(context(corpus, **made_up(states)))
    # (1, 1) and (-1, 0) against Hebrew, (2, 0) and (2, 1) against English: (4, 2) / 4
    (item,) = fitted.interventions
    np.testing.assert_allclose(item.vector, unit([1.0, 0.5]), rtol=1e-6)
    assert (item.strength, item.unit, item.residual_norm) == (0.3, "residual", 10.0)
    assert fitted.provenance["norm_before_unit"] == pytest.approx(np.hypot(1.0, 0.5))


def test_pca_is_that_of_scikit_learn_on_the_differences_in_both_directions(pairs):
    wanted, other = pairs
    d = wanted - other
    found = unit(PrincipalComponent().direction(wanted, other))
    component = PCA(1).fit(np.concatenate([d, -d])).components_[0]
    np.testing.assert_allclose(found, component * np.sign(component @ found), atol=1e-6)
    assert found @ d.mean(axis=0) > 0
    np.testing.assert_allclose(unit(PrincipalComponent().direction(other, wanted)), -found, atol=1e-6)


@pytest.mark.parametrize("c", [0.1, 1.0])
def test_probe_is_the_regression_of_scikit_learn_at_any_scale_and_place(pairs, c):
    wanted, other = pairs
    probe = Probe(Probe.Config(C=c))
    states = np.concatenate([wanted, other]) - np.concatenate([wanted, other]).mean(axis=0)
    scaled = states / np.linalg.norm(states, axis=1).mean()
    plain = LogisticRegression(C=c, tol=1e-8).fit(scaled, [1] * len(wanted) + [0] * len(other)).coef_[0]
    np.testing.assert_allclose(unit(probe.direction(wanted, other)), unit(plain), atol=1e-3)
    moved = unit(probe.direction(7 * wanted + 3, 7 * other + 3))
    np.testing.assert_allclose(moved, unit(plain), atol=1e-3)


def test_lda_is_fishers_formula_with_the_shrunk_covariance(pairs):
    wanted, other = pairs
    within = (np.cov(wanted.T, bias=True) + np.cov(other.T, bias=True)) / 2
    d = len(within)
    shrunk = 0.7 * within + 0.3 * np.trace(within) / d * np.eye(d)
    found = Discriminant(Discriminant.Config(shrinkage=0.3)).direction(wanted, other)
    np.testing.assert_allclose(unit(found), unit(np.linalg.solve(shrunk, (wanted - other).mean(axis=0))), atol=1e-6)


def test_lda_shrinks_as_ledoit_and_wolf_say(pairs):
    wanted, other = pairs

    def covariance(side: np.ndarray) -> np.ndarray:
        scale = side.std(axis=0)
        return ledoit_wolf((side - side.mean(axis=0)) / scale)[0] * np.outer(scale, scale)

    shrunk = (covariance(wanted) + covariance(other)) / 2
    expected = np.linalg.solve(shrunk, (wanted - other).mean(axis=0))
    np.testing.assert_allclose(unit(Discriminant().direction(wanted, other)), unit(expected), atol=1e-6)


@each
@pytest.mark.parametrize("odd", [1.0, float("nan")], ids=["equal", "not a number"])
def test_states_without_a_direction_between_them_are_refused(corpus, method, odd):
    states = {text: [1.0, 2.0, 3.0] for texts in TEXTS.values() for text in texts}
    states[TEXTS["am"][0]][0] = odd
    with pytest.raises(UserError, match="no direction to add"):
        method(method.Config(strength=1.0)).fit(context(corpus, **made_up(states)))


# On a model


@each
def test_strengths_share_one_fit_whose_dose_is_that_of_language(new_fitter, tiny_models, corpus, method):
    model, read = tiny_models["llama"], []
    fitter = new_fitter(model, corpus)
    real = fitter.states
    fitter.states = lambda *args: read.append(args) or real(*args)  # type: ignore[method-assign]
    one, two = (fit(fitter, method(method.Config(layer=1, strength=s))).interventions[0] for s in (0.1, -0.4))
    assert len(read) == 2  # the two sides
    assert np.array_equal(one.vector, two.vector)
    assert (one.strength, two.strength) == (0.1, -0.4)
    assert np.linalg.norm(one.vector) == pytest.approx(1.0, abs=1e-6)
    (language,) = fit(fitter, LanguageSteering(LanguageSteering.Config(layer=1, strength=0.1))).interventions
    assert one.raw_strength == language.raw_strength


@pytest.mark.parametrize("language", ["am", "he"])
def test_caa_of_a_model_is_that_of_plain_passes_in_every_script(new_fitter, tiny_models, corpus, language):
    model = tiny_models["gemma2"]
    fitted = fit(new_fitter(model, corpus), MeanDifference(MeanDifference.Config(layer=2)), language)
    others = [code for code in ("am", "he") if code != language] + ["en"]
    d = [by_hand(model, TEXTS[language][i])[2, -1] - by_hand(model, TEXTS[others[i % 2]][i])[2, -1] for i in range(4)]
    np.testing.assert_allclose(fitted.interventions[0].vector, unit(np.mean(d, axis=0)), atol=1e-4)
    assert fitted.provenance["token_rule"] == "last token of every text"
    assert fitted.provenance["counts"] == {"wanted": {"texts": 4}, "other": {"texts": 4}}


# Values per language


@pytest.mark.parametrize("method", [LanguageSteering, QualitySteering, *ALL])
def test_layer_and_strength_may_differ_by_language(new_fitter, tiny_models, corpus, method):
    config = method.Config(layer={"am": 1, "he": 0}, strength={"am": 0.4, "he": 0.1})
    plain = method.Config(layer=1, strength=0.4)
    fitter = new_fitter(tiny_models["llama"], corpus)
    (one,), (two,) = (fit(fitter, method(c)).interventions for c in (config, plain))
    assert (one.layer, one.strength) == (1, 0.4)
    assert np.array_equal(one.vector, two.vector)
    assert method(config).identity.config["strength"] == {"am": 0.4, "he": 0.1}
    missing = method(method.Config(layer=1, strength={"he": 0.1}))
    with pytest.raises(UserError, match="option 'strength' has no value for 'am'; it has he"):
        missing.fit(context(corpus, lambda texts: MeanStates(np.eye(3), np.ones(3), 1, 1)))


@pytest.mark.parametrize(
    "options",
    [
        {"strength": {"am": float("nan")}},
        {"layer": {"am": 1.5}},
        {"strength": {"am": True}},
        {"contrast": "topic"},
        {"at": "first"},
    ],
    ids=str,
)
def test_a_config_with_a_bad_value_is_refused(options):
    with pytest.raises(ValidationError):
        MeanDifference.Config(**options)


@pytest.mark.parametrize("value", [-0.1, 1.1, "some"])
def test_a_shrinkage_is_auto_or_a_share(value):
    assert Discriminant.Config(shrinkage=0.5).shrinkage == 0.5
    with pytest.raises(ValidationError):
        Discriminant.Config(shrinkage=value)
