"""Texts of vLLM against those of the own engine, token by token, in float32.

Two engines add the same numbers in another order, so a state differs in its last bits. A text may therefore differ
from the first token on at which the two best candidates, or the end of the nucleus, are nearer than ``NEAR``; every
text that differs is shown to do so for that reason.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.checkpoints import byte_model
from support.helpers import byte_tokenizer

pytest.importorskip("vllm", reason="vLLM is not installed here; it has an environment of its own: make test-vllm")

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import MachineError, UnsupportedError, UserError
from harness.core.interventions import Intervention, Steering
from harness.data.prompts import Prompt
from harness.data.suite import SamplingParams
from harness.engine.chat import render
from harness.engine.decoding import Row, UncachedBatch, write_rows
from harness.engine.generate import CellRequest, GenerationQueue
from harness.engine.model import load_model
from harness.engine.sampling import signed, uniform
from harness.engine.vllm.loading import open_model
from harness.engine.vllm.probe import check_steering
from harness.engine.vllm.worker import RowSteering

NEAR = 1e-4
PROMPTS = ["Write a review with positive sentiment in Amharic.", "ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "ab a"]
SAMPLING = {"keyed": (0.8, 0.9), "greedy": (1.0, 1e-9), "whole vocabulary": (1.0, 1.0)}


def gemma(folder):
    """Write a Gemma 3 with random weights: norms after attention and MLP, two kinds of attention."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer([*names.values()]), **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 32, "vocab_size": 260}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "sliding_window": 8}
    kinds = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "initializer_range": 0.2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads, **kinds, **ids)).save_pretrained(folder)


@pytest.fixture(scope="module", params=["llama", "gemma3", "devlm"])
def engines(request, tmp_path_factory):
    """One checkpoint in both engines."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "devlm":
        folder = request.getfixturevalue("shared") / "models" / "devlm"
    elif request.param == "gemma3":
        gemma(folder)
    else:
        byte_model(folder, head_dim=32)  # vLLM has attention for sizes of 32 and more
    checkpoint = resolve_checkpoint(str(folder), None)
    served = open_model(checkpoint, "float32")
    yield load_model(checkpoint, "float32", "cpu"), served
    served.close()


def added(model, layer, strength=1.0, positions="all", seed=0):
    vector = np.random.default_rng(seed).normal(size=model.hidden_size).astype(np.float32)
    return Intervention("layer_output", layer, "add", vector, strength, "raw", 1.0, positions)


def kinds_of_steering(model):
    last = model.n_layers - 1
    return {
        "none": Steering(),
        "zero": Steering((added(model, 1, 0.0),)),
        "all": Steering((added(model, 1),)),
        "other vector": Steering((added(model, 1, seed=1),)),
        "prompt": Steering((added(model, 0, 2.0, "prompt"),)),
        "generated": Steering((added(model, last, 0.5, "generated"),)),
        "two layers": Steering((added(model, 0, 0.3), added(model, last, 0.3, "generated", 2))),
        "two vectors": Steering((added(model, 1, 0.3), added(model, 1, 0.3, seed=3))),
    }


def prompts_of(model):
    return model.token_ids([render(model.tokenizer, Prompt(text, "")) for text in PROMPTS])


def rows_of(model, prompts, steering, sampling, length=24, copies=2):
    """Return rows in an order that mixes prompts and steering."""
    temperature, top_p = SAMPLING[sampling]
    rows = []
    for copy in range(copies):
        for i, prompt in enumerate(prompts):
            for item in steering:
                key = 2**63 + 1000 * copy + 31 * i
                rows.append(Row(tuple(prompt), item, key, length, temperature, top_p))
    return rows


def nearness(model, row, candidates):
    """Return how near two candidates are after the tokens of ``row``, by the own engine's logits.

    Both in the nucleus: by their perturbed logits. One in it: by their logits, whose order decides which. Less where
    one of them is nearer to the end of the nucleus; the likeliest token is always in it.
    """
    batch = UncachedBatch(model)
    with torch.inference_mode():
        scaled = batch._forward([row]).float() / row.temperature
    values, order = torch.sort(scaled, dim=-1, descending=True, stable=True)
    mass = torch.softmax(scaled.double(), -1).gather(1, order)
    before = (mass.cumsum(-1) - mass)[0]
    key, step = torch.tensor([signed(row.key)]), torch.tensor([len(row.tokens)])
    noise = -torch.log(-torch.log(uniform(key, step, order)))[0]
    one, other = (int((order[0] == token).nonzero()) for token in candidates)
    together = bool(before[one] < row.top_p) == bool(before[other] < row.top_p)
    scores = values[0] + noise if together else values[0]
    edges = [abs(float(before[i]) - row.top_p) for i in (one, other) if i > 0 and row.top_p < 1]
    return min(abs(float(scores[one] - scores[other])), *edges, math.inf)


def check_equal(model, own, other):
    """Check that two lists of rows hold the same texts, up to near ties; return how many are equal."""
    equal = 0
    for a, b in zip(own, other, strict=True):
        if (a.tokens, a.ended) == (b.tokens, b.ended):
            equal += 1
            continue
        ends = [*a.tokens, min(model.end_tokens)], [*b.tokens, min(model.end_tokens)]
        first = next(i for i, (x, y) in enumerate(zip(*ends, strict=False)) if x != y)
        prefix = Row(a.prompt, a.steering, a.key, a.max_new_tokens, a.temperature, a.top_p, tokens=a.tokens[:first])
        assert nearness(model, prefix, [part[first] for part in ends]) < NEAR, (a.steering, first, a.tokens, b.tokens)
    return equal


@pytest.mark.parametrize("sampling", SAMPLING)
def test_texts_are_those_of_the_own_engine_in_batches_of_mixed_steering(engines, sampling):
    own, served = engines
    prompts, steering = prompts_of(own), kinds_of_steering(served)
    first, second = (rows_of(served, prompts, steering.values(), sampling) for _ in range(2))
    write_rows(own, first)
    write_rows(served, second)
    assert check_equal(own, first, second) >= 0.9 * len(first)  # near ties are rare
    assert sum(len(row.tokens) for row in second) > 5 * len(second), "hardly any text: nothing is tested"
    texts = {name: [tuple(r.tokens) for r in second[i :: len(steering)]] for i, name in enumerate(steering)}
    assert texts["zero"] == texts["none"]
    assert sampling != "whole vocabulary" or all(
        texts[name] != texts["none"] for name in ("all", "other vector", "two layers", "two vectors")
    )
    assert sampling != "whole vocabulary" or texts["all"] != texts["other vector"]


def test_prompts_that_are_read_in_parts_or_again_from_the_cache(engines):
    """More tokens at once than vLLM reads in a step: prompts are cut where positions of steering begin and end."""
    own, served = engines
    long = [(ids * 200)[: 170 + i] for i, ids in enumerate(prompts_of(own))]
    steering = [kinds_of_steering(served)[name] for name in ("none", "prompt", "generated", "all")]
    first, second, third = (rows_of(served, long, steering, "keyed", 8, copies=3) for _ in range(3))
    budget = served.engine.vllm_config.scheduler_config.max_num_batched_tokens
    while sum(len(row.prompt) for row in second) < 2 * budget:
        for rows in (first, second, third):
            rows += [Row(r.prompt, r.steering, r.key + 10**6, 8, 0.8, 0.9) for r in rows[:48]]
    write_rows(own, first)
    write_rows(served, second)
    write_rows(served, third)  # their prompts are in the cache now
    for found in (second, third):
        assert check_equal(own, first, found) >= 0.9 * len(first)


def test_a_wrong_text_is_not_taken_for_a_near_tie(engines):
    own, _ = engines
    (row,), (other,) = (rows_of(own, prompts_of(own)[:1], [Steering()], "whole vocabulary", 6, 1) for _ in "ab")
    write_rows(own, [row])
    other.tokens, other.ended = [next(t for t in range(5, 200) if [t] != row.tokens[:1]), *row.tokens[1:]], row.ended
    with pytest.raises(AssertionError):
        check_equal(own, [row], [other])


def request(model, name, steering, keep, labels=("positive", "ጥሩ"), texts=3):
    prompts = {label: Prompt(f"כתוב: {label}", "") for label in labels}
    sampling = SamplingParams(
        temperature=0.7, top_p=0.8, max_new_tokens=3, max_attempts=4, template="instruction", keep=keep
    )
    return CellRequest(name, prompts, texts, steering, sampling, lambda label, i, a: 100 * i + 10 * a + len(label))


@pytest.mark.parametrize("keep", ["all", "first-line"])
def test_cells_are_drawn_again_and_cut_as_by_the_own_engine(engines, keep):
    own, served = engines
    steering = kinds_of_steering(served)
    found = {}
    for model in (own, served):
        cells = [request(model, name, item, keep) for name, item in steering.items()]
        found[model] = {cell.name: texts for cell, texts in GenerationQueue(model, 5).write(cells)}
    assert found[own] == found[served]
    assert all(len(texts) == 6 for texts in found[served].values())


def test_a_cell_that_cannot_be_written_fails_alone(engines):
    _, served = engines
    scaling = Intervention("mlp_neurons", 0, "scale", np.ones(8, np.float32), 1.0, "raw", 1.0)
    short = Intervention("layer_output", 0, "add", np.ones(3, np.float32), 1.0, "raw", 1.0)
    broken = {
        "scaled neurons": (Steering((scaling,)), UnsupportedError, "scales mlp_neurons"),
        "no such layer": (Steering((added(served, 99),)), UserError, "layer 99"),
        "wrong size": (Steering((short,)), UserError, "the vector has 3 numbers"),
    }
    cells = [request(served, name, item, "all") for name, (item, _, _) in broken.items()]
    found = {
        cell.name: texts
        for cell, texts in GenerationQueue(served).write([*cells, request(served, "good", Steering(), "all")])
    }
    for name, (_, kind, words) in broken.items():
        assert isinstance(found[name], kind)
        assert words in str(found[name])
    assert len(found["good"]) == 6
    with pytest.raises(MachineError, match="does not fit into the cache"):
        served.open_batch().add([Row((5, 6), Steering(), 1, 10**6, 1.0, 1.0)])


def test_the_probe_refuses_where_steering_is_not_what_it_should_be(engines, monkeypatch):
    _, served = engines
    check_steering(served)
    right = RowSteering._steered
    with monkeypatch.context() as patch:
        patch.setattr(RowSteering, "_steered", lambda self, layer, state: state)
        with pytest.raises(UserError, match=r"does not move its output by that vector \(layer 0\)"):
            check_steering(served)
    with monkeypatch.context() as patch:  # every row of the batch, as long as any request is steered

        def everywhere(self, layer, state):
            steered = right(self, layer, state)
            moved = (steered - state).abs().sum(-1).argmax()
            return state + (steered - state)[moved]

        patch.setattr(RowSteering, "_steered", everywhere)
        with pytest.raises(UserError, match=r"moves another request \(layer 0\)"):
            check_steering(served)
    kept = RowSteering._keep
    with monkeypatch.context() as patch:  # what is read back is steered, what goes on is not
        patch.setattr(RowSteering, "_steered", lambda self, layer, state: state)
        patch.setattr(RowSteering, "_keep", lambda self, i, state, out: kept(self, i, right(self, i, state), out))
        with pytest.raises(UserError, match=r"does not reach the layer above it \(layer 0\)"):
            check_steering(served)
    with monkeypatch.context() as patch:
        patch.setattr(RowSteering, "_tokens", lambda self, layer, state: 0 / 0)
        with pytest.raises(UserError, match=r"a pass over a few tokens fails \(ZeroDivisionError"):
            check_steering(served)
    check_steering(served)
