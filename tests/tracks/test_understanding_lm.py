"""lm-eval's model type steerboard: unsteered it is ``hf`` to the last digit, else every row has its steering.

What steering does is judged by others: lm-eval's own steered model, and forward passes with hooks written
here.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS
from support.helpers import TASKS

pytest.importorskip("lm_eval", reason="NOT CHECKED: lm-eval is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.models.huggingface import HFLM
from support.lm_requests import (
    AUTO,
    CODES,
    ENGINE,
    PAIRS,
    PLAIN,
    SHORT,
    TEXTS,
    answers,
    asked,
    assert_refused,
    pocket,
    same,
)

from harness.core.interventions import Intervention, Steering, save_steering
from harness.engine.export import hookpoints, layer_vectors, model_config, write_lm_eval
from harness.tracks.understanding.lm import SteeredLM, incompatible
from harness.tracks.understanding.tasks import language_of


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """Leave what is loaded by now out of the collections of garbage that ``batch_size=auto`` asks for."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, new_network, new_tokenizer) -> Path:
    """The tiny llama of conftest in a folder, with its tokenizer."""
    path = tmp_path_factory.mktemp("models") / "llama"
    network = new_network("llama")
    network.generation_config.repetition_penalty = 1.3  # hf follows what a checkpoint says of this
    network.save_pretrained(path)
    new_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def hf(folder) -> Callable[..., Any]:
    """Build lm-eval's own model."""
    return lambda **more: HFLM(str(folder), **{**PLAIN, **more})


@pytest.fixture(scope="module")
def steered(folder) -> Callable[..., SteeredLM]:
    """Build ours."""
    return lambda *steering, **more: SteeredLM(str(folder), *steering, **{**PLAIN, **more})


@pytest.fixture
def stored(tmp_path) -> Callable[..., str]:
    """Write a steering file."""

    def write(steering: Steering, name: str = "steering") -> str:
        save_steering(tmp_path / f"{name}.safetensors", steering)
        return str(tmp_path / f"{name}.safetensors")

    return write


def direction(seed: int, layer: int = 1, **changes: Any) -> Steering:
    """Return a vector of norm about 4, drawn by a seed, that is added at a layer."""
    vector = np.random.default_rng(seed).normal(size=HIDDEN).astype(np.float32)
    fields: dict[str, Any] = {
        "site": "layer_output",
        "layer": layer,
        "operation": "add",
        "vector": vector,
        "strength": 1.5,
        "unit": "raw",
        "residual_norm": 1.0,
    }
    return Steering((Intervention(**{**fields, **changes}),), {})


BY_LANGUAGE = {"am": direction(1), "he": direction(2, layer=2, strength=-2.0), "de": None}


def of_language(request: Instance) -> Steering | None:
    return BY_LANGUAGE[language_of(request.task_name)]


# Without steering


@pytest.mark.parametrize("kind", ENGINE)
@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_without_steering_it_is_hf_to_the_last_digit(hf, steered, kind, batch_size):
    options = {"batch_size": batch_size, **AUTO}
    expected = answers(hf(**options), kind)
    for lm in (steered(**options), steered("zero-shot", **options), steered(lambda _: None, **options)):
        assert answers(lm, kind) == expected


@pytest.mark.parametrize("kind", ENGINE)
def test_strength_0_is_no_steering_to_the_last_digit(hf, steered, stored, kind):
    expected = answers(hf(batch_size=3), kind)
    assert answers(steered(stored(direction(1)), strength=0, batch_size=3), kind) == expected
    assert answers(steered(stored(direction(1, vector=np.zeros(HIDDEN, np.float32))), batch_size=3), kind) == expected


def test_without_steering_the_model_has_no_hooks(steered):
    layers = steered().model.get_decoder().layers
    assert not any(layer._forward_hooks for layer in layers)


def test_what_lm_eval_decides_stays_as_it_was(hf, steered, stored):
    plain, lm = hf(), steered(stored(direction(1)))
    assert lm.model.generation_config.to_dict() == plain.model.generation_config.to_dict()
    assert lm.model.generation_config.repetition_penalty == 1.3
    assert (lm.tokenizer.pad_token_id, lm.tokenizer.padding_side) == (
        plain.tokenizer.pad_token_id,
        plain.tokenizer.padding_side,
    )


# A steering file


@pytest.mark.parametrize("kind", ENGINE)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_vector_at_all_positions_is_lm_evals_own_steered_model(
    folder, hf, steered, stored, tmp_path, kind, batch_size
):
    items = (*direction(1).interventions, *direction(2, layer=2, strength=-0.7).interventions)
    steering = Steering(items, {})
    names = hookpoints(model_config(str(folder)))
    write_lm_eval(tmp_path / "v.pt", layer_vectors(steering, "lm-eval"), names)
    theirs = SteeredModel(str(folder), steer_path=str(tmp_path / "v.pt"), batch_size=batch_size, **PLAIN)
    found = answers(steered(stored(steering), batch_size=batch_size), kind)
    assert same(found, answers(theirs, kind))
    assert not same(found, answers(hf(batch_size=batch_size), kind))


def test_layer_and_strength_choose_among_a_files_interventions(steered, stored):
    one, two = direction(1), direction(2, layer=2)
    both = stored(Steering((*one.interventions, *two.interventions), {}), "both")
    alone = stored(Steering((replace(two.interventions[0], strength=0.5),), {}), "alone")
    kind = "loglikelihood"
    assert answers(steered(both, layer=2, strength=0.5), kind) == answers(steered(alone), kind)


def test_a_file_steers_requests_of_every_language_and_of_none(steered, stored):
    lm = steered(stored(Steering(direction(1).interventions, {"language": "am"})), language="am")
    kind = "loglikelihood"
    assert answers(lm, kind, [None] * 4) == answers(lm, kind, CODES)


def test_neurons_are_scaled_as_by_a_hook_of_our_own(folder, steered, stored, scale):
    steering = scale()
    lm, plain = steered(stored(steering), batch_size=3), HFLM(str(folder), **PLAIN)
    (item,) = steering.interventions
    gain = 1 + torch.from_numpy(item.vector) * item.strength
    down = plain.model.get_decoder().layers[item.layer].mlp.down_proj
    down.register_forward_pre_hook(lambda module, args: (args[0] * gain,))
    for kind in ENGINE:
        assert same(answers(lm, kind), answers(plain, kind))


# Every row has its own steering


@pytest.mark.parametrize("kind", ENGINE)
@pytest.mark.parametrize("batch_size", [1, 4, "auto"])
def test_languages_mixed_in_a_batch_answer_as_each_alone(steered, kind, batch_size):
    mixed = answers(steered(of_language, batch_size=batch_size, **AUTO), kind)
    lm, requests = steered(of_language, batch_size=1), asked(kind, ENGINE[kind])
    alone = [getattr(lm, kind)([request], disable_tqdm=True)[0] for request in requests]
    assert same(mixed, alone)


@pytest.mark.parametrize("kind", ENGINE)
def test_one_text_in_several_languages_is_steered_once_in_each(hf, steered, kind):
    text = ENGINE[kind][0]
    codes = ["am", "he", "de", "am"]
    lm = steered(of_language, batch_size=4)
    found = getattr(lm, kind)(asked(kind, [text] * 4, codes), disable_tqdm=True)
    alone = [getattr(lm, kind)(asked(kind, [text], [code]), disable_tqdm=True)[0] for code in codes]
    assert same(found, alone)
    assert found[0] == found[3]
    assert len({str(answer) for answer in found}) == 3
    assert same([found[2]], getattr(hf(), kind)(asked(kind, [text], ["de"]), disable_tqdm=True))


def test_tokens_that_only_padding_tells_apart_are_not_mixed_up(steered):
    """The tokenizer's <pad> is token 0, which hf pads with: the rows are equal but for their lengths."""
    later = direction(1, positions="generated")
    lm = steered(lambda request: later, batch_size=4)
    pairs = [("a b", f" c{pads} d") for pads in ("", "<pad>", "<pad><pad>")]
    pairs += [("a b c<pad>", "<pad>d"), ("a b", " c<pad><pad>d")]
    requests = asked("loglikelihood", pairs, ["am"] * len(pairs))
    found = lm.loglikelihood(requests, disable_tqdm=True)
    assert same(found, [lm.loglikelihood([request], disable_tqdm=True)[0] for request in requests])


def test_requests_are_set_apart_only_where_equal_keys_differ_in_kind():
    assert incompatible([("x", 1), ("y", 2), ("x", 2), ("x", 1), ("z", 3)]) == [[0, 1, 3, 4], [2]]
    assert incompatible([]) == []


def test_choices_of_one_context_are_still_computed_together(steered, monkeypatch):
    """hf reads a context once for all answers of one token; steering leaves it that."""
    lm, sizes = steered(of_language, batch_size=8), []
    call = HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda self, inps, *a: (sizes.append(len(inps)), call(self, inps, *a))[1])
    lm.loglikelihood(asked("loglikelihood", [("a b", c) for c in "xyzw"], ["am"] * 4), disable_tqdm=True)
    assert sizes == [1]


def test_a_loaded_model_is_steered_by_what_a_function_says(new_model, steered):
    model = new_model("llama")
    lm = SteeredLM.around(model, 4, of_language)
    assert lm.model is model.model
    again = SteeredLM.around(model.model, 2, of_language, tokenizer=model.tokenizer)
    expected = answers(steered(of_language, batch_size=4), "loglikelihood")
    for found in (answers(lm, "loglikelihood"), answers(again, "loglikelihood")):
        assert same(found, expected)


# Positions


@contextmanager
def added(network: Any, item: Intervention, where: slice):
    """Add a vector at some positions, by a plain hook."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        state = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        state[:, where] += torch.from_numpy(item.vector) * item.strength
        return state if isinstance(output, torch.Tensor) else (state, *output[1:])

    handle = network.get_decoder().layers[item.layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def by_hand(lm: Any, pair: tuple[str, str], item: Intervention) -> float:
    """Return the log-probability of a continuation from one forward pass over the tokens alone."""
    context, rest = lm._encode_pair(*pair)
    tokens = (context + rest)[-(lm.max_length + 1) :]
    end = len(tokens) - len(rest)
    where = {"all": slice(None), "prompt": slice(0, end - 1), "generated": slice(end - 1, None)}
    with torch.inference_mode(), added(lm.model, item, where[item.positions]):
        logs = lm.model(torch.tensor([tokens[:-1]])).logits[0, end - 1 :].log_softmax(-1)
    return float(logs.gather(1, torch.tensor(rest)[:, None]).sum())


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("max_length", [None, 12])
def test_the_context_is_the_prompt_and_its_last_token_predicts_the_first_new_one(hf, steered, positions, max_length):
    """With 12 tokens at most the contexts are cut on the left."""
    steering = direction(1, positions=positions)
    lm, plain = steered(lambda _: steering, batch_size=4, max_length=max_length), hf(max_length=max_length)
    pairs = [(a + b, c) for (a, b), c in zip(PAIRS, ["d e", " f", "g", " hi"], strict=True)]
    found = lm.loglikelihood(asked("loglikelihood", pairs), disable_tqdm=True)
    expected = [by_hand(plain, pair, steering.interventions[0]) for pair in pairs]
    np.testing.assert_allclose([value for value, _ in found], expected, atol=1e-4)


@pytest.mark.parametrize("positions", ["prompt", "generated"])
def test_one_text_cut_at_two_places_has_two_prompts(hf, steered, positions):
    """hf merges the two, whose tokens are equal."""
    steering = direction(1, positions=positions)
    lm, pairs = steered(lambda _: steering, batch_size=4), [("ab", "cd"), ("abc", "d"), ("a", "bcd")]
    found = lm.loglikelihood(asked("loglikelihood", pairs, ["am"] * 3), disable_tqdm=True)
    expected = [by_hand(hf(), pair, steering.interventions[0]) for pair in pairs]
    np.testing.assert_allclose([value for value, _ in found], expected, atol=1e-4)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_generation_is_steered_from_the_last_prompt_token_on(new_model, positions):
    model, steering = new_model("llama"), direction(1, positions=positions, strength=3.0)
    lm = SteeredLM.around(model, 3, lambda _: steering)
    (item,) = steering.interventions
    for text, written in zip(TEXTS, answers(lm, "generate_until"), strict=True):
        tokens = lm.tok_encode(text)
        start = len(tokens)
        where = {"all": slice(None), "prompt": slice(0, start - 1), "generated": slice(start - 1, None)}
        with torch.inference_mode(), added(model.model, item, where[positions]):
            for _ in range(SHORT["max_gen_toks"]):
                tokens.append(int(model.model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
                if tokens[-1] == lm.eot_token_id:
                    break
        assert written == lm.tok_decode(tokens[start:])


# What is wrong is said in one line


def good_file(stored: Any) -> str:
    both = (*direction(1).interventions, *direction(2, layer=2).interventions)
    return stored(Steering(both, {"language": "am"}), "good")


FILES = {
    "no such file": (lambda s: "none/here.safetensors", {}, r"none/here\.safetensors does not exist"),
    "another layer": (good_file, {"layer": 0}, r"does not steer layer 0; its layers: 1, 2\."),
    "a depth": (good_file, {"layer": 0.2}, r"does not steer layer 0\.2; its layers: 1, 2\."),
    "another language": (good_file, {"language": "he"}, r"was fitted for language 'am', not 'he'"),
    "NaN": (good_file, {"strength": math.nan}, r"strength=nan is not a finite number"),
    "infinite": (good_file, {"strength": math.inf}, r"strength=inf is not a finite number"),
    "a word": (good_file, {"strength": "strong"}, r"strength=strong is not a finite number"),
    "beyond the model": (
        lambda s: s(direction(1, layer=LAYERS)),
        {},
        r"steers layer 3, this model has layers 0 to 2\. Give pretrained=",
    ),
    "another size": (
        lambda s: s(direction(1, vector=np.ones(8, np.float32))),
        {},
        r"a vector of 8 numbers, the model's hidden size is 16\. Give pretrained=",
    ),
    "neurons of another size": (
        lambda s: s(direction(1, site="mlp_neurons", operation="scale", vector=np.ones(8, np.float32))),
        {},
        r"a vector of 8 numbers, the model's number of MLP neurons is 24",
    ),
    "another model": (
        lambda s: s(Steering(direction(1).interventions, {"model": {"name": "other", "fingerprint": "f00d"}})),
        {},
        r"was fitted on other \(weights f00d\), this model is llama.* Give pretrained= the model that it was",
    ),
    "another tokenizer": (
        lambda s: s(Steering(direction(1).interventions, {"tokenizer": "f00d"})),
        {},
        r"fitted with another tokenizer than llama has here\. Give pretrained=",
    ),
    "an option of no file": (good_file, {"alpha": 1}, r"unknown model argument 'alpha'"),
    "an adapter": (good_file, {"peft": "adapter"}, r"peft= changes the weights"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_does_not_fit_is_refused_in_one_line(steered, stored, name):
    make, options, words = FILES[name]
    assert_refused(lambda: steered(make(stored), **options), words)


def test_a_file_that_holds_no_steering_is_refused_in_one_line(steered, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    path = str(tmp_path / "x.safetensors")
    assert_refused(lambda: steered(path), r"is not a steering file .* Give RUN/steering/\*\.safetensors")


MINI_SUITE = {"suite": "mini"}
METHODS = {
    "unknown method": ("langage", MINI_SUITE, r"unknown method 'langage'; valid: .*Did you mean 'language'"),
    "unknown suite": (
        "language",
        {"suite": "maxi"},
        r"unknown suite 'maxi'; valid: mini, published, steer11, steer11-curve, tiny-real",
    ),
    "unknown option": (
        "language",
        {**MINI_SUITE, "stregnth": 1},
        r"unknown model argument 'stregnth'.*'strength'",
    ),
    "no layer": (
        "clas",
        {**MINI_SUITE, "layer": 1},
        r"unknown option of method 'clas': 'layer'; valid: alpha",
    ),
    "bad value": ("language", {**MINI_SUITE, "layer": -2}, r"method 'language': layer.*Its options: layer"),
    "NaN": ("language", {**MINI_SUITE, "strength": math.nan}, r"strength=nan is not a finite number"),
    "no data": ("language", {**MINI_SUITE, "data": "none"}, r"the data folder none does not exist"),
    "no contrast": ("quality", {**MINI_SUITE, "contrast": "none"}, r"none holds no contrast text"),
    "unknown language": (
        "language",
        {**MINI_SUITE, "language": "xx"},
        r"unknown language 'xx'; valid: am, cs",
    ),
    "unknown task": (
        "language",
        {**MINI_SUITE, "task": "tone"},
        r"unknown task 'tone'; valid: sentiment, topic",
    ),
    "beyond the model": (
        "language",
        {**MINI_SUITE, "layer": 99},
        r"layer 99 is outside of this model's 0 to",
    ),
    "control beyond it": ("negated", {**MINI_SUITE, "of": "quality", "layer": 99}, r"layer 99 is outside"),
    "a sweep": (
        "language",
        {**MINI_SUITE, "layer": [1, 2]},
        r"method 'language' has lists of options .* Give one value of each",
    ),
    "steers nothing": ("few-shot", MINI_SUITE, r"method 'few-shot' steers nothing"),
    "a reference": ("human", MINI_SUITE, r"method 'human' steers nothing"),
    "no steering": (None, {"layer": 2}, r"layer=2 steers nothing by itself\. Give steering="),
    "zero-shot": ("zero-shot", {"strength": 2}, r"strength=2 steers nothing by itself\. Give steering="),
    "no model": (
        "language",
        {**MINI_SUITE, "pretrained": "./none"},
        r"the model folder \./none does not exist",
    ),
    "nobody's": (None, {"stregnth": 2}, r"unknown model argument 'stregnth'"),
    "adapter": ("language", {**MINI_SUITE, "peft": "x"}, r"peft= changes the weights"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_argument_is_refused_in_one_line(name):
    method, options, words = METHODS[name]
    assert_refused(lambda: pocket(method, **options), words)


REQUESTS = {
    "no language": ("hellaswag", {}, r"task 'hellaswag' does not name a language; give language=am"),
    "none of the suite": ("xnli_en", {}, r"unknown language 'en'; valid: am.*It is that of task 'xnli_en'"),
    "missing text": (
        "xnli_de",
        {"data": str(TASKS)},
        r"missing data: .*sentiment/am/validation\.jsonl does not exist",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_cannot_be_steered_is_refused_in_one_line(name):
    task, options, words = REQUESTS[name]
    lm = pocket("language", suite="mini", **options)
    request = Instance("loglikelihood", {}, ("a", "b"), 0, (task, 0, 1))
    assert_refused(lambda: lm.loglikelihood([request], disable_tqdm=True), words)


def test_lm_evals_cache_of_answers_is_refused(hf, steered, tmp_path):
    from lm_eval.api.model import CachingLM

    CachingLM(steered(), str(tmp_path / "plain.db"))
    lm = steered(of_language)
    assert_refused(lambda: CachingLM(lm, str(tmp_path / "answers.db")), r"--use_cache does not know about steering")


def test_beams_are_refused_in_one_line(steered):
    requests = [Instance("generate_until", {}, ("a", {**SHORT, "num_beams": 2}), 0, ("xnli_am", 0, 1))]
    lm = steered(of_language)
    assert_refused(lambda: lm.generate_until(requests, disable_tqdm=True), r"num_beams=2: steered texts")
