"""The learned vector: losses equal plain loops, the minimum is the closed form, the model is frozen."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS
from pydantic import ValidationError

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UnsupportedError, UserError
from harness.core.interventions import Intervention, Steering, load_steering, save_steering
from harness.data.corpus import Corpus
from harness.data.prompts import Prompt
from harness.data.sources import Example, LocalData, Sentence
from harness.data.suite import load_suite
from harness.engine import train_vector as learning
from harness.engine.activations import mean_states
from harness.engine.chat import end_token, render
from harness.engine.model import SteerableModel, load_model
from harness.engine.train_vector import Alignment, Likelihood, TrainConfig, mean_loss, train_vector
from harness.methods.contract import CellContext, FitContext
from harness.methods.controls import ShuffledFitContext
from harness.methods.learned import LearnedVector
from harness.methods.registry import load_registry

WORDS = {
    "am": ["ምግቡ", "በጣም", "ጥሩ", "ነበር", "ወደዚህ", "ቦታ"],
    "he": ["האוכל", "היה", "טעים", "מאוד", "באנו", "לכאן"],
    "en": ["the", "food", "was", "very", "good", "here"],
}
FIRST = "<s><|user|>a b<|assistant|>"
SECOND = "<s><|user|>Output only the text and nothing else.<|assistant|>"
EXAMPLES = [(FIRST, "ምግቡ በጣም ጥሩ ነበር።"), (SECOND, "האוכל היה טעים מאוד."), (FIRST, "c"), (SECOND, "a b")]
PLAN = TrainConfig(steps=20, batch_size=8, lr=0.02, max_norm=0.5)


def texts(code: str, n: int = 40) -> list[str]:
    rng = np.random.default_rng(3)
    return [" ".join(rng.choice(WORDS[code], size=2 + i % 5)) for i in range(n)]


@dataclass
class Engine:
    """The engine of a fit, without a run folder."""

    model: SteerableModel
    words: list[str] = field(default_factory=list)

    @property
    def n_layers(self) -> int:
        return len(self.model.layers)

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> Any:
        return mean_states(self.model, texts, exclude_sinks=exclude_sinks)

    def progress(self, words: str) -> None:
        self.words.append(words)


@pytest.fixture
def corpus(corpus_of) -> Corpus:
    parallel = {code: [Sentence(f"s{i}", text) for i, text in enumerate(texts(code))] for code in WORDS}
    rows = {
        ("sentiment", code, "train"): [
            Example(f"t{i}", text, ["positive", "negative"][i % 2]) for i, text in enumerate(texts(code))
        ]
        for code in ("am", "he")
    }
    return corpus_of(parallel, rows)


@pytest.fixture
def fit_context(corpus, tiny_models):
    def build(model: Any = None, language: str = "am", seed: int = 0, **more: Any) -> FitContext:
        return FitContext(
            suite=corpus.suite,
            task=corpus.suite.task("sentiment", language),
            engine=Engine(model or tiny_models["llama"]),
            rng=np.random.default_rng(seed),
            _corpus=more.pop("corpus", corpus),
            **more,
        )

    return build


def method(**options: Any) -> LearnedVector:
    return LearnedVector(LearnedVector.Config(**{"layer": 1, "steps": 20, "batch_size": 8, **options}))


def zero() -> torch.Tensor:
    return torch.zeros(HIDDEN)


def steering(vector: Any, layer: int = 1, positions: Any = "all") -> Steering:
    item = Intervention("layer_output", layer, "add", np.asarray(vector), 1.0, "raw", 1.0, positions)
    return Steering((item,))


def ids_of(model: SteerableModel, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def nll_of_loops(model: SteerableModel, examples: Any, vector: Any, positions: str = "all") -> float:
    """Sum the negative log-likelihood one text at a time, steered by the hooks that generation uses."""
    total = 0.0
    for prompt, text in examples:
        start, target = ids_of(model, prompt), [*ids_of(model, text), model.tokenizer.eos_token_id]
        ids = torch.tensor([start + target])
        mask = torch.ones(1, len(start), dtype=torch.long)
        rows = [steering(vector, positions=positions)]
        with torch.inference_mode(), model.hooks.steer(rows, mask):
            logits = model.model(ids, use_cache=False).logits[0].double().log_softmax(-1)
        total -= sum(float(logits[len(start) - 1 + i, token]) for i, token in enumerate(target))
    return total


def hooks_of(model: SteerableModel) -> int:
    modules = list(model.model.modules())
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_the_likelihood_loss_is_that_of_plain_loops_under_the_hooks_of_generation(each_model, direction, positions):
    objective = Likelihood(each_model, 1, EXAMPLES, 256, positions)
    loss, count = objective.loss([0, 1, 2, 3], torch.from_numpy(direction))
    assert count == sum(len(ids_of(each_model, text)) + 1 for _, text in EXAMPLES)
    assert float(loss) == pytest.approx(nll_of_loops(each_model, EXAMPLES, direction, positions), rel=1e-4)


def test_the_alignment_loss_is_that_of_plain_loops(each_model, direction):
    pairs = [("ምግቡ በጣም ጥሩ ነበር።", "a b"), ("האוכל היה", "Output only the text and nothing else."), ("c", "a")]
    expected = 0.0
    for sentence, other in pairs:
        pooled = []
        for text, vector in ((sentence, direction), (other, 0 * direction)):
            found: list[Any] = []
            handle = each_model.layers[2].register_forward_hook(lambda m, a, o, found=found: found.append(o))
            ids = torch.tensor([ids_of(each_model, text)])
            with torch.inference_mode(), each_model.hooks.steer([steering(vector)], torch.ones_like(ids)):
                each_model.decoder(ids, use_cache=False)
            handle.remove()
            state = found[0] if isinstance(found[0], torch.Tensor) else found[0][0]
            pooled.append(state[0].double().mean(0))
        expected += float((pooled[0] - pooled[1]).square().sum()) / 5.0**2
    objective = Alignment(each_model, 1, 2, pairs, 5.0, 256, 2)
    loss, count = objective.loss([0, 1, 2], torch.from_numpy(direction))
    assert count == 3
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_every_family_learns_after_its_states_were_read(each_model, fit_context):
    ctx = fit_context(each_model, "he")
    fitted = method(objective="likelihood").fit(ctx).provenance
    assert fitted["held_out_after"] < fitted["held_out_before"]


def test_aligned_where_it_is_added_the_vector_is_the_mean_difference(fit_context, tiny_models, corpus):
    ctx = fit_context()
    options = {"readout": 1, "steps": 400, "batch_size": 64, "lr": 0.05, "max_norm": 50.0}
    (item,) = method(objective="align", **options).fit(ctx).interventions
    n = len(texts("am"))
    order = np.random.default_rng(0).permutation(n)[8:]  # the held-out tenth, at least 8, comes first
    means = {
        code: [mean_states(tiny_models["llama"], [texts(code)[i]]).mean[1] for i in order] for code in ("am", "en")
    }
    exact = np.mean(means["en"], axis=0) - np.mean(means["am"], axis=0)
    cosine = item.vector @ exact / np.linalg.norm(item.vector) / np.linalg.norm(exact)
    assert cosine > 0.99
    assert np.linalg.norm(item.vector) == pytest.approx(np.linalg.norm(exact), rel=0.1)


@pytest.mark.parametrize("language", ["am", "he"])
def test_likelihood_makes_held_out_text_likelier_as_generation_would_see_it(fit_context, language, tiny_models):
    ctx = fit_context(language=language)
    fitted = method().fit(ctx)
    (item,), told = fitted.interventions, fitted.provenance
    assert told["held_out_after"] < 0.99 * told["held_out_before"]
    rows = [(label, text) for label, group in ctx.train().items() for text in group]
    name = {"am": "Amharic", "he": "Hebrew"}[language]
    template = ctx.task.prompts["zero-shot"].replace("{language}", name)
    held_out = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:8]]
    prompts = {label: Prompt(template.replace("{label}", label)) for label in ctx.task.labels}
    examples = [(render(ctx.model.tokenizer, prompts[label]), text) for label, text in held_out]
    tokens = sum(len(ids_of(ctx.model, text)) + 1 for _, text in held_out)
    assert tokens == told["counts"]["held_out"]["tokens"]
    for vector, key in ((0 * item.vector, "held_out_before"), (item.vector, "held_out_after")):
        assert nll_of_loops(ctx.model, examples, vector) / tokens == pytest.approx(told[key], rel=1e-4)


def test_one_intervention_keeps_the_true_norm_of_the_vector(fit_context, tmp_path):
    ctx = fit_context()
    fitted = method().fit(ctx)
    (item,), told = fitted.interventions, fitted.provenance
    assert (item.site, item.operation, item.unit, item.strength, item.layer) == (
        "layer_output",
        "add",
        "raw",
        1.0,
        1,
    )
    norms = mean_states(ctx.model, texts("am")).norm
    assert item.residual_norm == pytest.approx(norms[1])
    assert told["residual_norm"] == pytest.approx(list(norms))
    assert np.linalg.norm(item.vector) == pytest.approx(told["norm"] * norms[1], rel=1e-4)
    save_steering(tmp_path / "x.safetensors", fitted)
    stored = load_steering(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(stored.interventions[0].vector, item.vector)
    assert stored.provenance == json.loads(json.dumps(told))


def test_the_curve_tells_every_tenth_step_and_progress_says_it(fit_context):
    ctx = fit_context()
    told = method(steps=25, lr=0.001).fit(ctx).provenance
    assert [point["step"] for point in told["curve"]] == [0, 10, 20, 25]
    assert all(set(point) == {"step", "train", "held_out", "norm"} for point in told["curve"])
    assert told["curve"][0]["norm"] == 0.0
    assert told["stopped"] == "all 25 steps done"
    assert told["source"] == {"texts": 40, "used": 40, "cut": 0}
    assert {name: n["texts"] for name, n in told["counts"].items()} == {"train": 32, "held_out": 8}
    losses = [f"held-out {point['held_out']:.4g}" for point in told["curve"]]
    assert ctx.engine.words[0] == f"step 0/25, {losses[0]}"
    assert re.fullmatch(rf"step 10/25, \d:\d\d:\d\d left, {re.escape(losses[1])}", ctx.engine.words[1])
    assert ctx.engine.words[3] == f"step 25/25, 0:00:00 left, {losses[3]}"


def test_a_fit_is_the_same_again_and_another_with_another_seed(fit_context):
    first, again, other = (method().fit(fit_context(seed=seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.interventions[0].vector, again.interventions[0].vector)
    assert first.provenance == again.provenance
    assert not np.array_equal(first.interventions[0].vector, other.interventions[0].vector)


def test_the_norm_never_exceeds_its_cap(fit_context):
    told = method(max_norm=0.05, lr=0.04).fit(fit_context()).provenance
    assert max(point["norm"] for point in told["curve"]) <= 0.05 * (1 + 1e-6)
    assert told["norm"] == pytest.approx(0.05, rel=1e-3)  # it would be longer


def test_one_step_moves_the_vector_by_the_learning_rate(tiny_models):
    objective = Likelihood(tiny_models["llama"], 1, EXAMPLES, 256)
    plan = TrainConfig(steps=1, batch_size=4, lr=0.03, max_norm=1.0)
    found = train_vector(objective, [0, 1, 2, 3], [0, 1, 2, 3], 2.0, plan, np.random.default_rng(0))
    assert found.curve[1]["norm"] == pytest.approx(0.03, rel=1e-2)
    assert np.linalg.norm(found.vector) == pytest.approx(2.0 * 0.03, rel=1e-2)


def test_only_the_vector_gets_a_gradient_and_the_layers_below_build_no_graph(each_model, monkeypatch):
    seen = []
    handles = [
        layer.register_forward_hook(
            lambda m, a, o, i=i: seen.append((i, (o if isinstance(o, torch.Tensor) else o[0]).requires_grad))
        )
        for i, layer in enumerate(each_model.layers)
    ]
    vector = torch.zeros(HIDDEN, requires_grad=True)
    for objective in (
        Likelihood(each_model, 1, EXAMPLES, 256),
        Alignment(each_model, 1, 1, EXAMPLES, 1.0, 256, 4),
    ):
        seen.clear()
        vector.grad = None
        loss, _ = objective.loss([0, 1, 2, 3], vector)
        loss.backward()
        assert vector.grad.abs().sum() > 0
        assert (0, False) in seen  # below the vector
        assert (LAYERS - 1, isinstance(objective, Likelihood)) in seen  # above what is read
    for handle in handles:
        handle.remove()
    assert [p for p in each_model.model.parameters() if p.requires_grad or p.grad is not None] == []


@pytest.mark.parametrize("objective", ["likelihood", "align"])
def test_no_hook_is_left_after_a_fit_or_a_failure(fit_context, monkeypatch, objective):
    ctx = fit_context()
    before = hooks_of(ctx.model)
    method(objective=objective).fit(ctx)
    assert hooks_of(ctx.model) == before

    last = ctx.model.layers[LAYERS - 1]
    forward = last.forward

    def broken(*args: Any, **more: Any) -> Any:
        if torch.is_grad_enabled():  # reading the model goes well, learning does not
            raise MemoryError("out of memory")
        return forward(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", broken)
        with pytest.raises(MemoryError):
            method(objective=objective).fit(ctx)
    assert ctx.engine.words[-1].startswith("step 0/")
    assert hooks_of(ctx.model) == before


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_left_over_batches_change_no_loss(tiny_models, direction, batch_size):
    vector = torch.from_numpy(direction)
    for objective in (
        Likelihood(tiny_models["llama"], 1, EXAMPLES, 256),
        Alignment(tiny_models["llama"], 1, 2, EXAMPLES, 1.0, 256, batch_size),
    ):
        loss, count = objective.loss([0, 1, 2, 3], vector)
        assert mean_loss(objective, [0, 1, 2, 3], vector, batch_size) == pytest.approx(float(loss) / count, rel=1e-5)


@pytest.mark.parametrize(("objective", "dtype"), [("likelihood", torch.bfloat16), ("align", torch.float16)])
def test_half_precision_models_learn_a_float32_vector(new_model, fit_context, dtype, objective):
    model = new_model("llama")
    model.model.to(dtype)
    fitted = method(objective=objective).fit(fit_context(model))
    (item,) = fitted.interventions
    assert item.vector.dtype == np.float32
    assert not np.array_equal(item.vector, torch.from_numpy(item.vector).to(dtype).float().numpy())
    assert fitted.provenance["held_out_after"] < fitted.provenance["held_out_before"]


def saved_bytes(model: SteerableModel, work: Any) -> int:
    """Return the bytes of the distinct tensors, weights apart, that a forward pass keeps for backward."""
    weights = {p.untyped_storage().data_ptr() for p in model.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = work()
    loss.backward()
    return sum(kept.values())


def plain(model: SteerableModel, examples: Any) -> torch.Tensor:
    """Return the loss of a plain pass: the frozen model, its embeddings requiring a gradient."""
    items = [[*ids_of(model, prompt + text), model.tokenizer.eos_token_id] for prompt, text in examples]
    ids, mask = learning._padded(model, items)
    states = model.model.get_input_embeddings()(ids).requires_grad_()
    labels = ids.masked_fill(~mask, -100)
    return model.model(inputs_embeds=states, attention_mask=mask.long(), labels=labels, use_cache=False).loss


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "mistral", "phi3", "gpt2"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_step_keeps_no_more_for_backward_than_a_plain_pass(tiny_models, family, layer):
    model = tiny_models[family]
    examples = [(FIRST, text) for text in texts("am", 8)]
    vector = torch.zeros(HIDDEN, requires_grad=True)
    baseline = saved_bytes(model, lambda: plain(model, examples))
    for objective in (
        Likelihood(model, layer, examples, 256),
        Alignment(model, layer, LAYERS - 1, [(a + b, b) for a, b in examples], 1.0, 256, 8),
    ):
        ours = saved_bytes(model, lambda o=objective: o.loss(range(8), vector)[0])
        assert 0 < ours <= 1.3 * baseline


def test_an_item_of_a_base_prompts_list_ends_with_its_quote_and_a_line_break(tiny_models):
    model = tiny_models["llama"]
    (_, target), *_ = Likelihood(model, 1, [(FIRST, "ሰላም ነው")], 256, template="base").items
    assert model.tokenizer.decode(target) == 'ሰላም ነው"\n'


def test_a_long_text_is_cut_and_then_has_no_end_token(new_model):
    model = new_model("llama", max_position_embeddings=32)
    n_prompt, end = len(ids_of(model, FIRST)), model.tokenizer.eos_token_id
    objective = Likelihood(model, 1, [(FIRST, "a b " * 40), (FIRST, "a b")], 256)
    assert objective.cut == 1
    assert objective.length(0) == 32 - n_prompt + 1
    assert end not in objective.items[0][1]
    assert objective.items[1][1][-1] == end
    assert np.isfinite(float(objective.loss([0, 1], zero())[0]))
    assert Likelihood(model, 1, [(FIRST, "a b")], 1).length(0) == 1
    with pytest.raises(UserError, match=r"the prompt has .* tokens, the model takes 32"):
        Likelihood(model, 1, [(FIRST * 10, "a")], 256)


def test_the_end_token_is_the_one_that_the_chat_template_writes_after_an_answer(new_model):
    model = new_model("llama")
    ids = model.tokenizer.convert_tokens_to_ids(["</s>", "<|user|>"])
    assert end_token(model) == ids[0]
    model.model.generation_config.eos_token_id = ids
    turn = "{% for m in messages %}{{ m['content'] }}<|user|>{% endfor %}</s>"
    model.tokenizer.chat_template = turn
    assert end_token(model) == ids[1]
    assert end_token(model, "instruction") == ids[0]
    model.tokenizer.chat_template = None
    assert end_token(model) == ids[0]


def test_all_strengths_share_the_fit_of_strength_one(fit_context):
    asked = []

    def stored(other: Any, code: str) -> Steering:
        asked.append((other.config.strength, code))
        return Steering(steering(np.ones(HIDDEN, np.float32)).interventions, {"curve": []})

    fitted = method(strength=2.0).fit(fit_context(_stored_fit=stored))
    assert asked == [(1.0, "am")]
    assert fitted.interventions[0].strength == 2.0
    assert fitted.provenance == {"curve": [], "fitted_at_strength": 1.0}
    one, half = (method(strength=s).fit(fit_context()).interventions[0] for s in (1.0, 0.5))
    np.testing.assert_array_equal(one.vector, half.vector)
    assert half.strength == 0.5


def test_the_steered_positions_are_those_of_the_config(fit_context):
    (item,) = method(positions="generated").fit(fit_context()).interventions
    assert item.positions == "generated"


def test_no_more_texts_than_asked_for_are_used(fit_context):
    told = method(max_texts=20).fit(fit_context()).provenance
    assert told["source"] == {"texts": 40, "used": 20, "cut": 0}
    assert {name: n["texts"] for name, n in told["counts"].items()} == {"train": 12, "held_out": 8}


@pytest.mark.parametrize("objective", ["likelihood", "align"])
def test_too_few_texts_are_refused(corpus_of, fit_context, objective):
    parallel = {code: [Sentence(f"s{i}", t) for i, t in enumerate(texts(code, 15))] for code in WORDS}
    rows = {("sentiment", "am", "train"): [Example(f"t{i}", "a b", "positive") for i in range(15)]}
    with pytest.raises(UnsupportedError, match=r"learned needs 16 .* of 'am', there are 15"):
        method(objective=objective).fit(fit_context(corpus=corpus_of(parallel, rows)))


def test_a_read_out_before_the_steered_layer_is_refused(fit_context):
    with pytest.raises(UserError, match=r"read-out layer 0 comes before layer 1.*valid: readout 1 to 2"):
        method(objective="align", readout=0).fit(fit_context())
    assert method(readout=0, steps=1).fit(fit_context()).interventions  # likelihood reads no layer


def test_a_layer_outside_is_refused(fit_context):
    with pytest.raises(UserError, match="layer 3 is outside of this model's 0 to 2"):
        method(layer=3).fit(fit_context())


@pytest.mark.parametrize(
    "options",
    [{"steps": 0}, {"lr": 0}, {"max_norm": float("inf")}, {"max_texts": 15}, {"objective": "x"}],
    ids=str,
)
def test_a_config_with_a_bad_value_is_refused(options):
    with pytest.raises(ValidationError):
        LearnedVector.Config(**options)


def test_the_reference_language_is_not_aligned_with_itself(small_suite):
    suite = small_suite.model_copy(update={"languages": ["am", "he", "en"]})
    english = small_suite.task("sentiment", "am").model_copy(update={"language": "en"})
    assert "reference" in method(objective="align").supports(CellContext(suite, english, "zero-shot", 1, 2)).reason
    assert method().supports(CellContext(suite, english, "zero-shot", 1, 2)) is None


def test_shuffled_labels_learn_too(fit_context):
    ctx = ShuffledFitContext(**vars(fit_context()))
    for objective in ("likelihood", "align"):
        assert method(objective=objective).fit(ctx).interventions


def test_it_is_built_in_and_says_where_it_comes_from():
    registry = load_registry()
    assert "2505.12584" in registry.docstring("learned").splitlines()[0]
    assert len(registry.configure("learned", {"layer": [0.21, 0.48], "strength": [0.5, 1.0]})) == 4


@pytest.mark.slow
def test_real_danish_text_gets_likelier_under_a_prompt_form_that_the_model_was_not_trained_on(shared, capsys):
    """In the chat form there is nothing to gain: the stand-in was trained on these very texts in it."""
    model = load_model(resolve_checkpoint(str(shared / "models" / "devlm")), "float32", "cpu")
    suite = load_suite("steer11")
    sampling = suite.sampling.model_copy(update={"template": "instruction"})
    suite = suite.model_copy(update={"sampling": sampling})
    corpus = Corpus(suite, LocalData(shared / "data"))
    corpus.parallel("da")
    corpus._parallel["da"] = corpus._parallel["da"][:100]  # read for the residual norm alone
    ctx = FitContext(suite, suite.task("topic", "da"), Engine(model), np.random.default_rng(0), corpus)
    told = LearnedVector(LearnedVector.Config(steps=20, batch_size=8, max_texts=96)).fit(ctx).provenance
    before, after = told["held_out_before"], told["held_out_after"]
    with capsys.disabled():
        print(f"\nDanish topic: {before:.4f} to {after:.4f} nats per token, {after / before - 1:+.2%}")
    assert after < 0.995 * before
