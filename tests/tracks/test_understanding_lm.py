"""lm-eval's model type steerboard: unsteered it is ``hf`` to the last digit, else every row has its steering.

What steering does is judged by others: lm-eval's own steered model, and forward passes with hooks written
here.
"""

from __future__ import annotations

import gc
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS
from support.helpers import MINI, TASKS, environment, jsonl

pytest.importorskip("lm_eval", reason="NOT CHECKED: lm-eval is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering, load_steering, save_steering
from harness.engine.export import hookpoints, layer_vectors, model_config, write_lm_eval
from harness.tracks.understanding.__main__ import main
from harness.tracks.understanding.lm import SteeredLM, incompatible
from harness.tracks.understanding.sources import Arguments, open_source
from harness.tracks.understanding.tasks import language_of

POCKET = MINI / "pocketlm"
TEXTS = ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "Write a review in Amharic language.", "a b"]
PAIRS = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in TEXTS]
CODES = ["am", "he", "de", "am"]
TASK = {code: f"steerboard_topic_{code}" for code in CODES}
AUTO = {"max_batch_size": 4, "max_length": 96}  # what batch_size=auto tries is soon done
SHORT = {"max_gen_toks": 6, "until": ["\n\n"]}
PLAIN = {"device": "cpu", "dtype": "float32"}
ENGINE = {"loglikelihood": PAIRS, "loglikelihood_rolling": [(t,) for t in TEXTS], "generate_until": TEXTS}


def asked(kind: str, arguments: Iterable[Any], codes: Iterable[str | None] = CODES) -> list[Instance]:
    """Return requests as lm-eval makes them, for tasks in some languages."""
    tasks = [f"steerboard_topic_{code}" if code else "hellaswag" for code in codes]
    wrapped = [(text, dict(SHORT)) for text in arguments] if kind == "generate_until" else list(arguments)
    return [
        Instance(kind, {}, argument, i, (task, i, 1))
        for i, (argument, task) in enumerate(zip(wrapped, tasks, strict=True))
    ]


def answers(lm: Any, kind: str, codes: Iterable[str | None] = CODES) -> list[Any]:
    return getattr(lm, kind)(asked(kind, ENGINE[kind], codes), disable_tqdm=True)


def same(one: list[Any], other: list[Any], tolerance: float = 1e-4) -> bool:
    """Say whether two lists of answers agree: numbers within a tolerance, texts exactly."""
    if isinstance(one[0], str):
        return one == other
    numbers = [[float(v[0] if isinstance(v, tuple) else v) for v in values] for values in (one, other)]
    return bool(np.allclose(*numbers, atol=tolerance, rtol=0))


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


# A method, fitted on the model that lm-eval loaded


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fits")


def pocket(steering: Any = None, pretrained: str = str(POCKET), **more: Any) -> SteeredLM:
    return SteeredLM(pretrained, steering, **{**PLAIN, "batch_size": 4, **more})


def files_of(run: Path, method: str) -> dict[str, Path]:
    """Return the steering files of a method in a run by language."""
    files = {path: load_steering(path).provenance for path in run.glob("steering/*.safetensors")}
    return {head["language"]: path for path, head in files.items() if head["method"]["name"] == method}


def test_a_method_is_fitted_for_every_language_that_comes_and_kept(fits):
    options = {"suite": "mini", "layer": 2, "strength": 0.5, "run": str(fits)}
    codes = ["am", "he", "am", "he"]
    found = answers(pocket("language", **options), "loglikelihood", codes)
    by_language = files_of(fits, "language")
    assert sorted(by_language) == ["am", "he"]
    (item,) = load_steering(by_language["he"]).interventions
    assert (item.layer, item.strength) == (2, 0.5)
    alone = {code: pocket(str(path)) for code, path in by_language.items()}  # the model that it was fitted on
    for i, code in enumerate(codes):
        requests = asked("loglikelihood", [PAIRS[i]], [code])
        assert same(alone[code].loglikelihood(requests, disable_tqdm=True), [found[i]])
    times = {path: path.stat().st_mtime_ns for path in by_language.values()}
    assert answers(pocket("language", **options), "loglikelihood", codes) == found
    assert {path: path.stat().st_mtime_ns for path in by_language.values()} == times


def test_strength_is_what_the_method_calls_it(fits):
    lm = pocket("clas", suite="mini", strength=-3, beta=0.9, language="am", run=str(fits))
    assert not same(answers(lm, "loglikelihood", [None] * 4), answers(pocket(), "loglikelihood"))
    made = load_steering(files_of(fits, "clas")["am"])
    config = made.provenance["method"]["config"]
    assert (config["alpha"], config["beta"], config["gamma"]) == (-3.0, 0.9, 0.2)
    assert all(item.strength == -3 for item in made.interventions)


def test_a_control_takes_the_options_of_what_it_controls(fits):
    lm = pocket("negated", of="language", layer=2, strength=0.5, suite="mini", run=str(fits))
    lm.loglikelihood(asked("loglikelihood", PAIRS[:1], ["am"]), disable_tqdm=True)
    (minus,), (plus,) = (
        load_steering(files_of(fits, method)["am"]).interventions for method in ("negated", "language")
    )
    assert np.array_equal(minus.vector, -plus.vector)
    assert (minus.layer, minus.strength) == (2, 0.5)


def test_the_fit_is_for_the_task_that_the_requests_are_of(monkeypatch):
    source, fitted = open_source(Arguments("language", suite="mini")), []
    monkeypatch.setattr(source, "_fit", lambda task, code: fitted.append((task, code)) or Steering())
    for name in (
        "steerboard_topic_am",
        "steerboard_sentiment_am",
        "xnli_de",
        "steerboard_other_he",
        "xnli_de",
    ):
        source.steering_for(name)
    assert fitted == [("topic", "am"), ("sentiment", "am"), ("sentiment", "de"), ("sentiment", "he")]


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


def assert_refused(run: Callable[[], Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        run()
    assert re.search(words, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


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
        r"unknown suite 'maxi'; valid: mini, published, steer11",
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


# The language of a task

NAMES = {
    "steerboard_topic_am": "am",
    "steerboard_sentiment_mt": "mt",
    "steerboard_topic_xx": None,
    "xnli_de": "de",
    "xnli_mt": "mt",
    "xquad_de": "de",
    "belebele_amh_Ethi": "am",
    "belebele_mlt_Latn": "mt",
    "belebele_fra_Latn": None,
    "global_mmlu_id": "id",
    "global_mmlu_full_id_us_foreign_policy": "id",
    "global_piqa_parallel_cloze_slv_latn_cerk": "sl",
    "include_base_44_hebrew_few_shot_en_stem": "he",
    "include_base_44_hindi_few_shot_en_stem": None,
    "afrixnli_amh_prompt_1": "am",
    "mgsm_en_cot_de": "de",
    "mgsm_en_cot_es": None,
    "lambada_openai_mt_de": "de",  # mt: machine-translated
    "arc_challenge_mt_fi": None,
    "arabic_mt_race": None,
    "flores_eng_Latn-sun_Latn_prompt_2": "su",
    "flores_amh_Ethi-fra_Latn_prompt_1": None,
    "spanish_bench_flores_es-de": "de",
    "copal_id_standard": "id",
    "hellaswag": None,
    "": None,
    None: None,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_language_of_a_task_is_read_from_its_name(name):
    assert language_of(name) == NAMES[name]


# Our tasks in lm-eval, on local data


@pytest.fixture(scope="module")
def load() -> Callable[..., Any]:
    from lm_eval.tasks import TaskManager

    def build(name: str, **metadata: Any) -> Any:
        manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
        return manager.load(name)["tasks"][name]

    return build


def rows_of(data: Path, task: str, code: str, split: str) -> list[tuple[str, str]]:
    import json

    lines = (data / task / code / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    return [(row["text"], row["label"]) for row in map(json.loads, filter(None, lines))]


@pytest.mark.parametrize(("task", "code"), [("topic", "am"), ("topic", "en"), ("sentiment", "he"), ("sentiment", "cs")])
def test_with_data_in_the_metadata_a_task_has_the_rows_of_the_folder(load, task, code):
    built = load(f"steerboard_{task}_{code}", data=str(MINI / "data"), language="de")
    word = {"topic": "Topic", "sentiment": "Sentiment"}[task]
    for docs, split in (
        (built.test_docs(), "test"),
        (built.validation_docs(), "validation"),
        (built.training_docs(), "train"),
    ):
        expected = rows_of(MINI / "data", task, code, split)
        assert [(built.doc_to_text(d), built.doc_to_target(d)) for d in docs] == [
            (f"{text}\n{word}:", label) for text, label in expected
        ]
    assert built.doc_to_choice(built.test_docs()[0]) == built.config.doc_to_choice


def test_accuracy_and_macro_f1_are_those_of_the_fixed_labels(load):
    from sklearn.metrics import f1_score

    task = load("steerboard_topic_am", data=str(MINI / "data"))
    labels = task.config.doc_to_choice
    drawn = np.random.default_rng(0).integers(len(labels), size=len(task.test_docs()))
    docs = [doc for doc in task.test_docs() if doc["label"] != "travel"]  # never seen: counts as 0
    items = [
        task.process_results(doc, [(float(i == guess), False) for i in range(len(labels))])
        for doc, guess in zip(docs, drawn, strict=False)
    ]
    gold, found = [labels.index(doc["label"]) for doc in docs], [int(g) for g in drawn[: len(docs)]]
    assert [item["acc"] for item in items] == [float(g == f) for g, f in zip(gold, found, strict=True)]
    expected = f1_score(gold, found, labels=range(7), average="macro", zero_division=0)
    assert task.aggregation()["f1"]([item["f1"] for item in items]) == pytest.approx(expected)
    assert task.higher_is_better() == {"acc": True, "f1": True}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, r"missing data: .*topic/am/train\.jsonl does not exist"),
        ([], r"missing data: .*train\.jsonl is empty"),
        ([{"text": "a", "label": "odd"}], r"train\.jsonl, line 1: label 'odd' is none of science/technology"),
        ([{"label": "travel"}], r"train\.jsonl, line 1: no JSON with text and label"),
    ],
    ids=["missing", "empty", "label", "text"],
)
def test_local_data_that_is_no_data_is_refused_in_one_line(load, tmp_path, rows, words):
    if rows is not None:
        jsonl(tmp_path / "topic" / "am" / "train.jsonl", rows)
    assert_refused(lambda: load("steerboard_topic_am", data=str(tmp_path)), words)


def test_simple_evaluate_runs_our_tasks_by_name(fits):
    import lm_eval
    from lm_eval.tasks import TaskManager

    names, data = ["steerboard_topic_am", "steerboard_sentiment_he"], str(MINI / "data")
    results = {}
    for steering in ("zero-shot", "language"):
        results[steering] = lm_eval.simple_evaluate(
            model="steerboard",
            model_args={"pretrained": str(POCKET), "dtype": "float32", "suite": "mini", "run": str(fits)}
            | {"steering": steering},
            tasks=names,
            task_manager=TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"data": data}),
            batch_size=8,
            limit=4,
            bootstrap_iters=10,
        )
    for found in results.values():
        assert set(found["results"]) == set(names)
        assert all(0 <= found["results"][n][f"{m},none"] <= 1 for n in names for m in ("acc", "f1"))
    plain, moved = ([sample["resps"] for n in names for sample in found["samples"][n]] for found in results.values())
    assert len(plain) == 8
    assert plain != moved


COMMAND = ("--include_path", str(TASKS), "--tasks", "steerboard_topic_am,steerboard_sentiment_he")
COMMAND += ("--model", "steerboard", "--limit", "4", "--batch_size", "8", "--model_args")
ARGUMENTS = f"pretrained={POCKET},suite=mini,dtype=float32,data={MINI / 'data'}"


@pytest.mark.slow
def test_the_command_of_lm_eval_knows_the_model_type():
    """In a process of its own: our tasks on local data."""
    words = [sys.executable, "-m", "harness.tracks.understanding", *COMMAND]
    words.append(f"{ARGUMENTS},steering=language,strength=0.5")
    good = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=600)
    assert good.returncode == 0, good.stderr
    for text in ("steerboard_topic_am", "steerboard_sentiment_he", "|acc ", "|f1 "):
        assert text in good.stdout


def test_the_command_of_lm_eval_says_errors_in_one_line(monkeypatch, capsys):
    """With our tasks alone: to read all of lm-eval's takes longer than the rest."""
    monkeypatch.setattr(TaskManager, "__init__", partialmethod(TaskManager.__init__, include_defaults=False))
    monkeypatch.setattr(sys, "argv", ["lm_eval", *COMMAND, f"{ARGUMENTS},steering=langage"])
    with pytest.raises(SystemExit) as end:
        main()
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("steerboard: unknown method 'langage'; valid:")
