"""CLAS: categories, bridge layers and steered states equal those of a few lines of numpy.

The toy model's neurons are known by construction: attention is switched off, the words of a language share
a coordinate of the residual stream, and ``up_proj`` says in which languages a neuron is above zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import NEURONS, fit
from pydantic import ValidationError
from support.contexts import sentences
from support.helpers import small_suite, steerboard, toy_llm
from support.model_probes import bits

from harness.core.cells import cell_id
from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.store import Run
from harness.engine.model import SteerableModel
from harness.methods.clas import Categories, Clas, ClasPublished, bridge_layers, categorise

LANGUAGES = ["am", "he", "en"]
WORDS = {"am": ["ምግቡ", "በጣም", "ጥሩ"], "he": ["האוכל", "היה", "טעים"], "en": ["food", "was", "good"]}
TEXTS = {code: [f"{a} {b} {c}", f"{c} {a}", b] for code, (a, b, c) in WORDS.items()}
DEAD, AM, HE, EN, AM_HE, HE_EN, ALL = [], [0], [1], [2], [0, 1], [1, 2], [0, 1, 2]
ACTIVE = [  # layer by layer, the languages in which each of the six neurons is active
    *[[DEAD, AM, HE, AM_HE, ALL, EN]] * 10,
    [AM_HE, HE_EN, HE, ALL, AM_HE, HE_EN],  # 4 partial - 1 specific = 3 of 6: the bridge
    [AM_HE, AM_HE, AM, DEAD, ALL, ALL],  # 2 - 1 - 1 = 0
    [AM_HE, AM_HE, AM_HE, AM_HE, AM_HE, AM_HE],  # better, but one of the final two
    [DEAD, DEAD, AM, ALL, ALL, ALL],
]
BRIDGE, HIDDEN = 10, 8
PARTIAL, SPECIFIC = np.array([1, 1, 0, 0, 1, 1.0]), np.array([0, 0, 1.0, 0, 0, 0])


def rotated(layer: int) -> list[list[int]]:
    """Return a layer's neurons in another order than the layers beside it."""
    neurons = ACTIVE[layer]
    return neurons[layer:] + neurons[:layer] if layer < BRIDGE and layer < len(neurons) else neurons


def toy_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", *(word for code in LANGUAGES for word in WORDS[code])]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


@pytest.fixture(scope="module")
def toy(new_network) -> SteerableModel:
    """A Llama of 14 layers of six neurons whose categories are those of ``ACTIVE``."""
    shape = {"hidden_size": HIDDEN, "intermediate_size": 6, "num_hidden_layers": len(ACTIVE)}
    network = new_network("llama", **shape, head_dim=2)
    with torch.no_grad():
        embedding = network.get_input_embeddings().weight
        embedding.zero_()
        for i, code in enumerate(np.repeat(LANGUAGES, 3)):
            embedding[2 + i, LANGUAGES.index(code)] = 1.0 + 0.1 * i
        for index, layer in enumerate(network.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.gate_proj.weight.zero_()
            layer.mlp.gate_proj.weight[:, :3] = 2.0
            layer.mlp.up_proj.weight.zero_()
            layer.mlp.up_proj.weight[:, :3] = -1.0
            for neuron, codes in enumerate(rotated(index)):
                layer.mlp.up_proj.weight[neuron, codes] = 1.0
            layer.mlp.down_proj.weight[:3] = 0.0  # writes beside what gate and up read
    return SteerableModel(network, toy_tokenizer())


def numpy_states(model: SteerableModel, text: str, factor: dict[int, np.ndarray]) -> tuple[Any, Any]:
    """Return the residual stream after every layer and the neurons, neurons multiplied by ``factor``."""
    weight = lambda module: module.weight.double().numpy()  # noqa: E731
    h = weight(model.model.get_input_embeddings())[model.tokenizer(text)["input_ids"]]
    stream, neurons = [], []
    for i, layer in enumerate(model.layers):
        x = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6)
        gate, up = x @ weight(layer.mlp.gate_proj).T, x @ weight(layer.mlp.up_proj).T
        neurons.append(gate / (1 + np.exp(-gate)) * up)
        h = h + (neurons[-1] * factor.get(i, 1.0)) @ weight(layer.mlp.down_proj).T
        stream.append(h)
    return np.stack(stream), np.stack(neurons)


def states(model: SteerableModel, text: str, steering: Steering) -> np.ndarray:
    """Return the residual stream after every layer of one text: [layers, tokens, hidden size]."""
    seen: list[np.ndarray] = []
    handles = [layer.register_forward_hook(lambda m, a, o: seen.append(o[0].numpy())) for layer in model.layers]
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.inference_mode(), model.hooks.steer([steering], torch.ones_like(ids)):
        model.model(ids)
    for handle in handles:
        handle.remove()
    return np.stack(seen)


@pytest.fixture
def corpus(corpus_of):
    return corpus_of({code: sentences(texts) for code, texts in TEXTS.items()})


@pytest.fixture
def fitted(new_fitter, toy, corpus):
    """Fit clas on the toy model with these options; the steering with its header."""
    fitter = new_fitter(toy, corpus)
    return lambda language="am", **options: fit(fitter, Clas(Clas.Config(**{"min_texts": 3, **options})), language)


# Against numpy


def test_categories_and_their_counts_are_those_of_the_construction(fitted):
    n_active = np.array([[len(codes) for codes in rotated(layer)] for layer in range(len(ACTIVE))])
    expected = [
        {
            "dead": int((row == 0).sum()),
            "specific": int((row == 1).sum()),
            "partial": int((row == 2).sum()),
            "shared": int((row == 3).sum()),
        }
        for row in n_active
    ]
    assert fitted().provenance["fit"]["categories"] == expected
    assert expected[0] == {"dead": 1, "specific": 3, "partial": 1, "shared": 1}


def test_active_neurons_are_those_above_zero_at_the_last_token_in_numpy(fitted, toy):
    active = [
        np.mean([numpy_states(toy, text, {})[1][:, -1] for text in texts], axis=0) > 0 for texts in TEXTS.values()
    ]
    categories = categorise(np.stack(active))
    assert categories.counts() == fitted().provenance["fit"]["categories"]
    assert np.array_equal(categories.partial[BRIDGE], PARTIAL)
    assert np.array_equal(categories.specific[BRIDGE], SPECIFIC)


def test_the_bridge_is_the_best_late_layer_before_the_final_two(fitted):
    steering = fitted()
    assert steering.provenance["fit"]["bridge"] == [BRIDGE]
    (item,) = steering.interventions
    assert (item.layer, item.site, item.operation) == (BRIDGE, "mlp_neurons", "scale")
    np.testing.assert_allclose(item.vector, 0.4 * PARTIAL - 0.2 * SPECIFIC, rtol=1e-6)
    assert (item.strength, item.unit, item.positions) == (-1.0, "raw", "all")


@pytest.mark.parametrize("alpha", [-5.0, -1.0, 0.5, 1.0])
@pytest.mark.parametrize("text", [TEXTS["am"][0], TEXTS["he"][1], "good ምግቡ היה"])
def test_steered_states_are_those_of_the_blend_in_numpy(fitted, toy, alpha, text):
    h2 = (1 + 0.4 * PARTIAL) * (1 - 0.2 * SPECIFIC)
    expected, _ = numpy_states(toy, text, {BRIDGE: (1 - alpha) + alpha * h2})
    np.testing.assert_allclose(states(toy, text, fitted(alpha=alpha)), expected, rtol=1e-5, atol=1e-5)


def test_at_alpha_minus_five_shared_neurons_flip_and_specific_ones_double(fitted):
    (item,) = fitted(alpha=-5.0).interventions
    factor = 1 + item.strength * item.vector
    np.testing.assert_allclose(factor, np.where(PARTIAL, -1.0, np.where(SPECIFIC, 2.0, 1.0)), atol=1e-6)


def test_alpha_zero_changes_nothing_bit_for_bit(fitted, toy):
    ids = torch.tensor([toy.tokenizer(TEXTS["he"][0])["input_ids"]])
    with torch.inference_mode():
        plain = toy.model(ids).logits
        with toy.hooks.steer([fitted(alpha=0.0)], torch.ones_like(ids)):
            assert torch.equal(bits(toy.model(ids).logits), bits(plain))


def test_the_fit_is_the_same_in_every_language(fitted):
    one, other = fitted("am"), fitted("he")
    assert np.array_equal(one.interventions[0].vector, other.interventions[0].vector)
    assert one.provenance["fit"]["categories"] == other.provenance["fit"]["categories"]


def test_the_change_of_the_stream_is_that_of_numpy_over_the_own_sentences(fitted, toy):
    for code in ("am", "he"):
        ratios = []
        for text in TEXTS[code]:
            plain, _ = numpy_states(toy, text, {})
            moved, _ = numpy_states(toy, text, {BRIDGE: 1 - 0.4 * PARTIAL + 0.2 * SPECIFIC})
            ratios.append(np.linalg.norm(moved - plain, axis=2) / np.linalg.norm(plain, axis=2))
        expected = np.concatenate(ratios, axis=1).mean(axis=1)
        details = fitted(code).provenance["fit"]
        np.testing.assert_allclose(details["residual_change"], expected, rtol=1e-4, atol=1e-7)
        assert details["residual_change_texts"] == 3


def test_chosen_layers_are_taken_each_once_and_in_order(fitted):
    steering = fitted(layers=[12, 2, 12])
    assert [item.layer for item in steering.interventions] == [2, 12]
    np.testing.assert_allclose(steering.interventions[1].vector, np.full(6, 0.4), rtol=1e-6)


@pytest.mark.parametrize("layers", [[], [14], [3, -1]])
def test_layers_that_the_model_lacks_are_refused(fitted, layers):
    with pytest.raises(UserError, match="valid are 0 to 13"):
        fitted(layers=layers)


def test_the_header_says_where_the_figures_are_from(fitted):
    header = fitted().provenance
    assert header["token_rule"] == "last token of every sentence"
    assert header["counts"] == {code: {"texts": 3} for code in LANGUAGES}
    assert header["fit"]["sandwich_norm"] is False
    assert header["method"]["config"]["beta"] == 0.4


@pytest.mark.parametrize(
    "options",
    [{"alpha": float("nan")}, {"beta": -0.1}, {"gamma": -1}, {"min_texts": 0}, {"layers": "all"}],
    ids=str,
)
def test_a_config_with_a_bad_value_is_refused(options):
    with pytest.raises(ValidationError):
        Clas.Config(**options)


# As published


def test_as_published_neurons_are_read_at_all_tokens_of_question_prompts(new_fitter, toy, corpus):
    config = ClasPublished.Config(min_texts=3, texts=2, alpha={"am": -5.0, "he": 0.5})
    fitter = new_fitter(toy, corpus)
    steerings = {code: fit(fitter, ClasPublished(config), code) for code in ("am", "he")}
    active = []
    for texts in TEXTS.values():
        prompts = [f"Context: {text}\nQuestion: What is this text about?\nAnswer:" for text in texts[:2]]
        tokens = np.concatenate([numpy_states(toy, prompt, {})[1] for prompt in prompts], axis=1)
        active.append(tokens.mean(axis=1) > 0)
    header = steerings["am"].provenance
    assert header["fit"]["categories"] == categorise(np.stack(active)).counts()
    assert header["token_rule"] == "mean over all tokens of every prompt but special ones"
    assert header["counts"] == {code: {"texts": 2} for code in LANGUAGES}
    assert {item.strength for item in steerings["am"].interventions} == {-5.0}
    assert {item.strength for item in steerings["he"].interventions} == {0.5}


def test_the_published_variant_leaves_the_identity_of_clas_as_it_is():
    assert Clas().identity.config == {
        "alpha": -1.0,
        "beta": 0.4,
        "gamma": 0.2,
        "layers": "bridge",
        "min_texts": 100,
        "positions": "all",
    }
    assert (Clas().identity.version, ClasPublished().identity.name) == ("1", "clas-published")


# Families


@pytest.mark.parametrize(("family", "sandwich"), [("llama", False), ("gemma2", True), ("phi3", False)])
def test_a_larger_alpha_moves_the_stream_more(new_fitter, tiny_models, corpus, family, sandwich):
    fitter, changes = new_fitter(tiny_models[family], corpus), []
    for alpha in (-0.5, -1.0, -5.0):
        header = fit(fitter, Clas(Clas.Config(alpha=alpha, min_texts=3))).provenance["fit"]
        assert header["sandwich_norm"] is sandwich
        assert header["bridge"] == [0]
        assert sum(header["categories"][0].values()) == NEURONS
        changes.append(header["residual_change"][0])
    assert 0 < changes[0] < changes[1] < changes[2]
    if not sandwich:
        np.testing.assert_allclose(np.array(changes) / changes[0], [1, 2, 10], rtol=1e-3)


def test_a_family_without_gated_neurons_is_refused(new_fitter, tiny_models, corpus):
    with pytest.raises(UserError, match=r"layer 0 of this model has no gated MLP .*GPT2MLP"):
        fit(new_fitter(tiny_models["gpt2"], corpus), Clas(Clas.Config(min_texts=3)))


# Categories and bridge by hand


def test_the_categories_of_four_languages():
    active = np.array([[0, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=bool)
    found = categorise(active[:, None, :])
    assert found.dead.tolist() == [[True, False, False, False, False]]
    assert found.specific.tolist() == [[False, True, False, False, False]]
    assert found.partial.tolist() == [[False, False, True, True, False]]
    assert found.shared.tolist() == [[False, False, False, False, True]]


@pytest.mark.parametrize("n_languages", [1, 2, 3, 12])
def test_every_neuron_is_in_one_category(n_languages):
    active = np.random.default_rng(n_languages).random((n_languages, 4, 50)) < 0.5
    found = categorise(active)
    assert (sum(mask.astype(int) for mask in vars(found).values()) == 1).all()
    assert all(sum(line.values()) == 50 for line in found.counts())


def layered(*layers: tuple[int, int, int]) -> Categories:
    """Return categories from (partial, dead, specific) counts of ten neurons a layer."""
    rows: dict[str, list[list[bool]]] = {"dead": [], "specific": [], "partial": [], "shared": []}
    for partial, dead, specific in layers:
        kinds = ["partial"] * partial + ["dead"] * dead + ["specific"] * specific
        kinds += ["shared"] * (10 - len(kinds))
        for name, lines in rows.items():
            lines.append([kind == name for kind in kinds])
    return Categories(**{name: np.array(lines) for name, lines in rows.items()})


def deep(n_layers: int, scores: dict[int, tuple[int, int, int]]) -> list[int]:
    """Return the bridge of a model whose other layers are shared alone."""
    return bridge_layers(layered(*(scores.get(layer, (0, 0, 0)) for layer in range(n_layers))))


GOOD, NEAR, WORSE = (10, 0, 0), (9, 0, 0), (8, 0, 0)


@pytest.mark.parametrize(
    ("n_layers", "scores", "bridge"),
    [
        (28, {24: GOOD, 25: GOOD}, [24, 25]),  # reported for Qwen2.5-7B
        (28, {19: GOOD, 20: NEAR, 21: WORSE}, [20]),  # 19 of 28 is at depth 0.68
        (28, {26: GOOD, 27: GOOD, 22: NEAR}, [22]),  # never the final two
        (28, {20: GOOD, 21: GOOD, 22: WORSE, 23: NEAR}, [23]),  # the last run, not the longest
        (28, {20: GOOD, 21: NEAR, 22: WORSE}, [20, 21]),  # a tenth below the best is near
        (28, {}, [20, 21, 22, 23, 24, 25]),  # all alike
        (10, {7: WORSE}, [7]),  # 7 of 10 is late
        (6, {0: GOOD, 3: WORSE}, [3]),  # none is late: the one before the final two
        (4, {}, [1]),
        (3, {}, [0]),
    ],
    ids=str,
)
def test_the_bridge_is_the_last_run_of_the_best_late_layers(n_layers, scores, bridge):
    assert deep(n_layers, scores) == bridge


def test_dead_and_specific_neurons_count_against_a_layer():
    scores = {20: (6, 0, 0), 21: (9, 1, 0), 22: (9, 0, 1), 23: (10, 0, 0), 24: (9, 1, 0), 25: (5, 5, 0)}
    assert deep(28, scores) == [23]


def test_a_tenth_of_a_negative_best_is_below_it():
    bad = dict.fromkeys(range(20, 26), (0, 10, 0))
    assert deep(28, {**bad, 21: (0, 9, 0), 22: (0, 5, 5)}) == [21]
    assert deep(28, {**bad, 21: (0, 9, 0)}) == [21]
    assert deep(28, {**bad, 21: (0, 10, 0)}) == [20, 21, 22, 23, 24, 25]


def test_equal_scores_that_add_up_differently_are_equal():
    bad = dict.fromkeys(range(20, 26), (0, 10, 0))
    assert deep(28, {**bad, 22: (5, 5, 0), 23: (3, 1, 2)}) == [22, 23]  # 0.3 - 0.1 - 0.2 is not 0


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_model_of_fewer_than_three_layers_is_refused(n_layers):
    with pytest.raises(UserError, match=f"a model of {n_layers} layers has none before the final two"):
        deep(n_layers, {})


# Through the command


def run_clas(folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Run clas on a toy model by the command; return the outcome and how the cells ended, by language."""
    suite = small_suite(folder, toy_llm(folder / "toy"))
    body = yaml.safe_load(suite.read_text(encoding="utf-8"))
    body["methods"] = [{"clas": options}]
    suite.write_text(yaml.safe_dump(body, allow_unicode=True), encoding="utf-8")
    words = ["--methods", "clas", "--tasks", "sentiment", "--settings", "zero-shot"]
    words += ["--seeds", "1", "--limit", "2", "--run", folder / "run"]
    outcome = steerboard("run", "--suite", suite, *words)
    run = Run(folder / "run")
    found = [run.status(cell) for cell in run.cell_ids()]
    assert all(cell_id(status.cell) in run.cell_ids() for status in found)
    return outcome, {status.cell.language: status for status in found}


def test_too_few_sentences_skip_the_cell_with_the_reason(tmp_path):
    outcome, cells = run_clas(tmp_path, min_texts=5000)
    assert outcome.code == 0
    assert set(cells) == {"am", "he"}
    for status in cells.values():
        assert status.state == "skipped"
        assert status.reason.startswith("clas needs 5000 parallel sentences of 'am', there are ")
        assert status.steering is None


def test_a_model_that_is_too_shallow_skips_the_cell(tmp_path):
    outcome, cells = run_clas(tmp_path, min_texts=2)
    assert outcome.code == 0
    assert {status.reason for status in cells.values()} == {
        "a model of 2 layers has none before the final two to bridge with."
    }


def test_chosen_layers_of_a_shallow_model_are_steered(tmp_path):
    outcome, cells = run_clas(tmp_path, min_texts=2, layers=[1], alpha=-5.0)
    assert outcome.code == 0
    for status in cells.values():
        assert status.state == "ok"
        stored = Run(tmp_path / "run").steering(status.steering)
        assert [item.layer for item in stored.interventions] == [1]
        assert stored.provenance["fit"]["residual_change"][1] > 0
