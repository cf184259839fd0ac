"""Separation of languages: silhouettes of pooled states, before and after steering, and the file of them.

The oracles are a plain forward pass of transformers, one text at a time, and silhouettes by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS, SENTENCES
from support.helpers import snapshot
from support.separations import HOSTILE, TINY, body, made

from harness.core.errors import BrokenFileError, UnsupportedError, UserError
from harness.core.interventions import Intervention, Steering
from harness.core.store import Run
from harness.data.sources import Example, Sentence
from harness.engine import activations as pooling
from harness.engine.activations import pooled_states
from harness.methods.contract import MethodConfig, Skip, SteeringMethod, register
from harness.runner.fit import Fitter
from harness.runner.plan import plan_cells, select_cells
from harness.runner.prepare import RunOptions, RunPlan, plan_run
from harness.tracks.separation import (
    analyse,
    parallel_sentences,
    path_of,
    read_separation,
    separation_with_gain,
    silhouette_by_layer,
    silhouettes,
    write_separation,
)

TEXTS = [
    *SENTENCES,
    "ሰላም",
    "שלום לכולם",
    "one more text that is a little longer than all of the others here",
    "c",
]


# Silhouettes


def states_of(*points: float) -> np.ndarray:
    """Return states of one layer and one number: [sentences, 1, 1]."""
    return np.array(points, dtype=np.float32)[:, None, None]


def test_silhouettes_are_those_worked_out_by_hand():
    # Clusters {0, 2} and {10, 14}. Of 0: own cluster at 2, the other at (10 + 14) / 2 = 12.
    found = silhouettes(states_of(0, 2, 10, 14), [0, 0, 1, 1])
    assert found.shape == (1, 4)
    np.testing.assert_allclose(found[0], [(12 - 2) / 12, (10 - 2) / 10, (9 - 4) / 9, (13 - 4) / 13])


def test_languages_that_are_mixed_up_have_negative_silhouettes():
    # Every point's neighbour is of the other language: of 0, own at 10, the other at (1 + 11) / 2 = 6.
    found = silhouettes(states_of(0, 10, 1, 11), [0, 0, 1, 1])
    np.testing.assert_allclose(found[0], [(6 - 10) / 10, (5 - 10) / 10, (5 - 10) / 10, (6 - 10) / 10])


def test_every_layer_is_measured_on_its_own():
    apart, mixed = states_of(0, 2, 10, 14), states_of(0, 10, 1, 11)
    found = silhouettes(np.concatenate([apart, mixed], axis=1), [0, 0, 1, 1])
    np.testing.assert_allclose(found, np.concatenate([silhouettes(s, [0, 0, 1, 1]) for s in (apart, mixed)]))
    assert found[0].min() > 0 > found[1].max()


def test_the_nearest_other_language_counts():
    # Of 0: its own at 2; the others at 5 and 101.
    assert silhouettes(states_of(0, 2, 5, 5, 101, 101), [0, 0, 1, 1, 2, 2])[0, 0] == pytest.approx(3 / 5)


def test_figures_are_means_over_all_sentences_and_over_those_of_a_language():
    whole, by_language = silhouette_by_layer({"am": states_of(0, 2), "he": states_of(10, 14)})
    am, he = (10 / 12 + 8 / 10) / 2, (5 / 9 + 9 / 13) / 2
    assert by_language == {"am": [round(am, 6)], "he": [round(he, 6)]}
    assert whole == [round((am + he) / 2, 6)]


# Pooled states


def token_ids(model: Any, text: str) -> torch.Tensor:
    return torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])


def plain_means(model: Any, text: str) -> np.ndarray:
    """Return the mean over tokens of transformers' own hidden states, without the last: a norm follows it."""
    with torch.inference_mode():
        seen = model.model(token_ids(model, text), output_hidden_states=True).hidden_states
    return np.stack([state[0].double().mean(dim=0).numpy() for state in seen[1:-1]])


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooled_states_are_the_means_of_a_plain_forward_pass(each_model, side):
    found = pooled_states(each_model, TEXTS, batch_size=4, side=side)
    assert (found.shape, found.dtype) == ((len(TEXTS), LAYERS, HIDDEN), np.float32)
    wanted = np.stack([plain_means(each_model, text) for text in TEXTS])
    np.testing.assert_allclose(found[:, :-1], wanted, rtol=1e-4, atol=1e-4)


def test_the_last_layer_is_read_before_the_final_norm(tiny_models):
    model = tiny_models["llama"]
    norm = model.model.model.norm
    text = "ሰላም"  # of several tokens: the norm of a mean is another thing than the mean of norms
    seen: list[torch.Tensor] = []
    handle = model.layers[-1].register_forward_hook(lambda m, a, o: seen.append(o))
    with torch.inference_mode():
        last = model.model(token_ids(model, text), output_hidden_states=True).hidden_states[-1]
    handle.remove()
    np.testing.assert_allclose(norm(seen[0]).detach(), last, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled_states(model, [text])[0, -1], seen[0][0].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_texts_keep_their_places_whatever_the_batch(tiny_models):
    model = tiny_models["llama"]
    one, four = (pooled_states(model, TEXTS, batch_size=size) for size in (1, 4))
    np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-5)
    back = pooled_states(model, TEXTS[::-1], batch_size=4)[::-1]
    np.testing.assert_allclose(four, back, rtol=1e-4, atol=1e-5)


def test_a_vector_shifts_its_layer_by_itself_and_nothing_before(each_model, steer, direction):
    plain = pooled_states(each_model, TEXTS, batch_size=4)
    steered = pooled_states(each_model, TEXTS, [steer(strength=2.0)] * len(TEXTS), batch_size=4)
    np.testing.assert_array_equal(steered[:, 0], plain[:, 0])
    np.testing.assert_allclose(steered[:, 1] - plain[:, 1], np.tile(2 * direction, (len(TEXTS), 1)), atol=2e-4)
    assert np.abs(steered[:, 2] - plain[:, 2]).max() > 0.1


@pytest.mark.parametrize("positions", ["prompt", "generated"])
def test_every_token_is_steered_whatever_the_positions(tiny_models, steer, positions):
    model = tiny_models["llama"]
    found, everywhere = (pooled_states(model, TEXTS, [steer(positions=p)] * len(TEXTS)) for p in (positions, "all"))
    np.testing.assert_array_equal(found, everywhere)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_mixed_batch_are_steered_as_each_alone(tiny_models, steer, scale, side):
    model = tiny_models["llama"]
    kinds = [steer(), Steering(), scale(), steer(layer=0, strength=-1.0)]
    rows = [kinds[i % 4] for i in range(len(TEXTS))]
    mixed = pooled_states(model, TEXTS, rows, batch_size=len(TEXTS), side=side)
    alone = [pooled_states(model, [text], [row])[0] for text, row in zip(TEXTS, rows, strict=True)]
    np.testing.assert_allclose(mixed, np.stack(alone), rtol=1e-4, atol=1e-4)


def test_strength_0_changes_no_bit(each_model, steer):
    plain = pooled_states(each_model, TEXTS, batch_size=4)
    steered = pooled_states(each_model, TEXTS, [steer(strength=0.0)] * len(TEXTS), batch_size=4)
    np.testing.assert_array_equal(steered, plain)


def test_a_text_without_a_token_and_too_few_steerings_are_refused(tiny_models):
    with pytest.raises(UserError, match="holds no token"):
        pooled_states(tiny_models["llama"], ["a", ""])
    with pytest.raises(ValueError, match="1 steerings for 2 texts"):
        pooled_states(tiny_models["llama"], ["a", "b"], [Steering()])


# Sentences


def sentences(code: str, n: int = 12) -> list[Sentence]:
    words = {"am": "ሰላም ለሁሉም", "he": "שלום לכולם", "en": "peace to all", "da": "fred til alle"}
    return [Sentence(id=f"s{i}", text=f"{words[code]} {'abcdefghijkl'[i] * (i + 1)}") for i in range(n)]


def parallel(*codes: str) -> dict[str, list[Sentence]]:
    return {code: sentences(code) for code in codes}


def test_sentences_are_the_same_in_every_language_and_spread_evenly(corpus_of):
    found = parallel_sentences(corpus_of(parallel("am", "he")), ["am", "he"], 4)
    for code in ("am", "he"):
        assert found[code] == [sentences(code)[i].text for i in (0, 3, 6, 9)]


def test_a_sentence_that_one_language_lacks_or_tests_on_is_taken_from_none(corpus_of):
    text = parallel("am", "he")
    del text["am"][3]
    rows = {("sentiment", "he", "test"): [Example(id="t", text=text["he"][5].text, label="positive")]}
    found = parallel_sentences(corpus_of(text, rows), ["am", "he"], 40)
    for code in ("am", "he"):
        assert found[code] == [row.text for row in sentences(code) if row.id not in ("s3", "s5")]


def test_one_sentence_is_no_cluster(corpus_of):
    text = {"am": sentences("am")[:3], "he": sentences("he")[2:]}
    with pytest.raises(UserError, match="1 sentences are in all of am, he; a silhouette needs 2"):
        parallel_sentences(corpus_of(text), ["am", "he"], 40)


# Analysis of a run


@register("shifting")
class Shifting(SteeringMethod):
    """Adds to layer 1 a vector of its own in every language."""

    class Config(MethodConfig):
        strength: float = 3.0
        trouble: str = ""

    def supports(self, ctx):
        return Skip("not here") if self.config.trouble == "skip" and ctx.language == "he" else None

    def fit(self, ctx):
        if self.config.trouble == "unsupported" and ctx.language == "he":
            raise UnsupportedError("no such neurons")
        if self.config.trouble == "broken":
            raise RuntimeError("no fit")
        if self.config.trouble == "nothing":
            return Steering()
        seed = ctx.languages.index(ctx.language)
        vector = np.random.default_rng(seed).normal(size=HIDDEN).astype(np.float32)
        return Steering((Intervention("layer_output", 1, "add", vector, self.config.strength, "raw", 1.0),))


@pytest.fixture
def bench(tmp_path, mini, corpus_of, new_model) -> Callable[..., tuple[RunPlan, Fitter]]:
    """Return a prepared run of ``Shifting`` and its fitter: ``bench(config, ..., languages=...)``."""

    def build(*configs: dict[str, Any], languages: tuple[str, ...] = ("am", "he"), tasks=("sentiment",)) -> Any:
        suite = mini.model_copy(update={"languages": list(languages)})
        corpus = corpus_of(parallel(*{*languages, "en"}), suite=suite)
        methods = [Shifting(Shifting.Config(**config)) for config in configs or [{}]]
        cells = plan_cells(suite, select_cells(suite, tasks=list(tasks), seeds=[1]), methods, TINY, corpus)
        by_name = {method.identity.model_dump_json(): method for method in methods}
        run, cache = Run(tmp_path / "run"), tmp_path / "activations"
        prepared = RunPlan(run, suite, corpus, None, by_name, cells, [], TINY, cache=cache)
        return prepared, Fitter(prepared, new_model("llama"))

    return build


@pytest.fixture
def pooled(monkeypatch) -> list[tuple[str, bool]]:
    """Note every pooling: the first text, and whether it was steered."""
    noted: list[tuple[str, bool]] = []
    real = pooling.pooled_states

    def noting(model, texts, rows=None, *rest):
        noted.append((texts[0], bool(rows and rows[0].interventions)))
        return real(model, texts, rows, *rest)

    monkeypatch.setattr(pooling, "pooled_states", noting)
    return noted


def test_the_analysis_says_what_plain_means_and_sklearn_say(bench):
    from sklearn.metrics import silhouette_samples

    prepared, fitter = bench()
    [found] = analyse(prepared, fitter)
    texts = [row.text for code in ("am", "he") for row in sentences(code)]
    states = np.stack([plain_means(fitter.model, text) for text in texts])
    of = np.repeat([0, 1], 12)
    for layer in range(LAYERS - 1):
        wanted = silhouette_samples(states[:, layer], of)
        assert found.before[layer] == pytest.approx(wanted.mean(), abs=1e-4)
        assert found.before_by_language["am"][layer] == pytest.approx(wanted[:12].mean(), abs=1e-4)
        assert found.before_by_language["he"][layer] == pytest.approx(wanted[12:].mean(), abs=1e-4)
    assert (found.method.name, found.model, found.task) == ("shifting", TINY, "sentiment")
    assert (found.languages, found.sentences, found.steered) == (["am", "he"], 12, [1])


def test_other_vectors_in_every_language_set_the_languages_apart_from_their_layer_on(bench):
    [found] = analyse(*bench({"strength": 10.0}))
    assert found.after[0] == found.before[0]
    assert all(after > before + 0.2 for before, after in zip(found.before[1:], found.after[1:], strict=True))
    assert found.change > 0.2
    assert found.change == pytest.approx(np.mean(list(found.changes.values())), abs=1e-5)


def test_strength_0_leaves_the_very_numbers(bench):
    [found] = analyse(*bench({"strength": 0.0}))
    assert found.after == found.before
    assert found.after_by_language == found.before_by_language
    assert found.change == 0.0


def test_a_separation_is_written_once_and_read_back(bench, pooled):
    prepared, fitter = bench()
    [found] = analyse(prepared, fitter)
    files = snapshot(prepared.run.path / "separation")
    assert len(files) == 1
    del pooled[:]
    assert analyse(prepared, Fitter(prepared, fitter.model)) == [found]
    assert pooled == []
    assert snapshot(prepared.run.path / "separation") == files
    [name] = files
    assert read_separation(prepared.run.path / "separation" / name) == found


def test_more_sentences_or_languages_are_another_file(bench):
    prepared, fitter = bench()
    analyse(prepared, fitter)
    [few] = analyse(prepared, fitter, n=5)
    assert few.sentences == 5
    [more] = analyse(*bench(languages=("am", "he", "da")))
    assert more.languages == ["am", "he", "da"]
    assert len(snapshot(prepared.run.path / "separation")) == 3


def test_unsteered_sentences_are_read_once_and_equal_fits_once(bench, pooled):
    found = analyse(*bench({}, {"strength": 1.0}, tasks=("sentiment", "topic")))
    assert [(item.method.config["strength"], item.task) for item in found] == [
        (3.0, "sentiment"), (1.0, "sentiment"), (3.0, "topic"), (1.0, "topic"),
    ]  # fmt: skip
    assert found[0].after == found[2].after != found[1].after
    assert sorted(steered for _, steered in pooled) == [False] * 2 + [True] * 4


@pytest.mark.parametrize(("trouble", "why"), [("skip", "not here"), ("unsupported", "no such neurons")])
def test_a_language_without_the_method_is_left_out_and_two_must_remain(bench, trouble, why):
    [found] = analyse(*bench({"trouble": trouble}, languages=("am", "he", "da")))
    assert found.languages == ["am", "da"]
    assert found.left_out == {"he": why}
    said: list[str] = []
    assert analyse(*bench({"trouble": trouble}), said.append) == []
    assert said[-1].startswith("no separation of shifting, sentiment: steering in 1 languages")
    assert why in said[-1]


def test_a_method_that_fails_or_steers_nothing_is_said_and_ends_nothing_else(bench):
    said: list[str] = []
    prepared, fitter = bench({"trouble": "broken"}, {"trouble": "nothing"}, {})
    assert [item.method.config["trouble"] for item in analyse(prepared, fitter, said.append)] == [""]
    assert [words for words in said if words.startswith("no separation")] == [
        "no separation of shifting, sentiment: no fit",
        "no separation of shifting, sentiment: steering in 2 languages (nothing is steered); it takes two.",
    ]
    assert len(snapshot(prepared.run.path / "separation")) == 1


def test_states_that_are_not_finite_are_no_result(bench, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(pooling, "pooled_states", lambda m, texts, *r: np.full((len(texts), 3, 4), np.inf))
    prepared, fitter = bench()
    assert analyse(prepared, fitter, said.append) == []
    assert "not finite" in said[-1]
    assert not (prepared.run.path / "separation").exists()


def test_a_broken_file_is_named_and_not_measured_over(bench):
    prepared, fitter = bench()
    analyse(prepared, fitter)
    [path] = (prepared.run.path / "separation").iterdir()
    path.write_text("{")
    with pytest.raises(BrokenFileError, match=path.name):
        analyse(prepared, fitter)


@pytest.mark.slow
def test_the_mini_suite_has_a_separation_of_clas_and_of_language_vectors(tmp_path):
    from harness.engine.model import load_model

    codes = ["am", "de", "he", "id", "su"]
    options = RunOptions(
        suite="mini", run=tmp_path / "run", methods=["clas", "language"], tasks=["topic"], languages=codes
    )
    prepared = plan_run(options)
    assert prepared.checkpoint is not None
    fitter = Fitter(prepared, load_model(prepared.checkpoint, "float32", "cpu"))
    clas, vectors = analyse(prepared, fitter, n=20)
    assert clas.languages == vectors.languages == codes
    assert clas.before == vectors.before
    assert len(clas.before) == 4
    assert abs(clas.change) < 0.01
    assert vectors.change > 0.05, "another vector in every language sets them apart"
    assert min(vectors.changes.values()) > 0


# The file


def test_the_change_is_that_of_the_mean_from_the_first_steered_layer_on():
    found = made()
    assert found.change == pytest.approx((0.4 + 0.3) / 2 - (0.2 + 0.3) / 2)
    assert found.changes == pytest.approx({"am": 0.55 - 0.25, "he": 0.15 - 0.25})
    assert made(steered=[2, 1]).change == found.change


def test_a_separation_is_the_same_after_writing_and_reading(tmp_path):
    run = Run(tmp_path)
    write_separation(run, "a1", made(left_out={"עברית": "ሰላም <b>"}))
    assert read_separation(path_of(run, "a1")) == made(left_out={"עברית": "ሰላም <b>"})
    assert json.loads(path_of(run, "a1").read_text(encoding="utf-8"))["schema"] == 1


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_separation_is_refused_by_name(tmp_path, changes):
    path = tmp_path / "bad.json"
    path.write_text(body(**changes), encoding="utf-8")
    with pytest.raises(BrokenFileError, match=r"bad\.json"):
        read_separation(path)


# Correlation with the gain


def test_the_correlation_is_spearmans_by_hand():
    changes = {"am": 0.1, "he": 0.2, "da": 0.3, "mt": 0.4}
    found = separation_with_gain(changes, {"mt": 0.03, "da": 0.04, "he": 0.02, "am": 0.01})
    # Ranks 1 2 3 4 against 1 2 4 3: rho = 1 - 6 x 2 / (4 x 15). Of 24 orders 4 reach 0.8 and 4 reach -0.8.
    assert (found.rho, found.n) == (pytest.approx(0.8), 4)
    assert found.p == pytest.approx(8 / 24)


def test_only_languages_with_both_count_and_four_are_needed():
    changes = {"am": 0.1, "he": 0.2, "da": 0.3, "mt": 0.4}
    gains = {"am": 0.01, "he": 0.02, "da": 0.03}
    assert separation_with_gain(changes, {**gains, "sk": 0.04}) is None
    assert separation_with_gain({**changes, "su": -1.0}, {**gains, "mt": 0.04}).n == 4


def test_changes_that_are_all_the_same_go_with_nothing():
    assert separation_with_gain(dict.fromkeys("abcd", 0.0), dict(zip("abcd", range(4), strict=True))) is None
