"""What is counted while texts are written and while a method is fitted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import fit
from support.contexts import PARALLEL, sentences
from support.helpers import key
from support.prompts import PROMPTS, key_of

from harness.core.cells import Cell
from harness.core.errors import BrokenFileError
from harness.core.interventions import Intervention, Steering
from harness.core.records import Usage
from harness.data.sources import Example
from harness.data.suite import SamplingParams
from harness.engine.generate import TokenUsage, generate_cell
from harness.methods.contract import MethodConfig, SteeringMethod
from harness.methods.difference import LanguageSteering
from harness.methods.learned import LearnedVector
from harness.methods.registry import load_registry
from harness.runner.fit import Fitter, UsageMeter, read_cost

# What is counted while texts are written


def test_draws_that_were_not_kept_are_counted(tiny_models):
    sampling = SamplingParams(temperature=1e-6, top_p=0.9, max_new_tokens=6, max_attempts=3)
    usage = TokenUsage()
    texts = generate_cell(tiny_models["llama"], PROMPTS, 3, Steering(), sampling, key_of, usage=usage)
    assert sum(text.attempts for text in texts) > len(texts)  # at no temperature the texts of a label repeat
    assert usage.prompt_tokens == sum(text.n_prompt_tokens * text.attempts for text in texts)
    assert usage.new_tokens == sum(text.n_new_tokens * text.attempts for text in texts)


# What is counted while a method is fitted


@pytest.fixture
def corpus(corpus_of):
    rows = {
        ("sentiment", code, "train"): [
            Example(f"{label}{i}", f"{label} {word} {i}", label)
            for label in ("positive", "negative")
            for i in range(10)
        ]
        for code, word in (("am", "ጥሩ"), ("he", "טוב"))
    }
    return corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()}, rows)


@pytest.fixture
def fitter(new_fitter, tiny_models, corpus) -> Fitter:
    return new_fitter(tiny_models["llama"], corpus)


def parts_of(fitter: Fitter, method: SteeringMethod, language: str = "am") -> dict[str, Usage | None]:
    """Fit a method; return what that took, the method's own part named ``own``."""
    fit(fitter, method, language)
    data = fitter.plan.corpus.fingerprint("sentiment", language)
    changes = {"method": method.identity, "language": language, "data": data, "model": fitter.plan.model}
    cell = Cell(key(**changes))
    name = fitter.steering(cell, method)[0]
    return {"own" if k == f"steering/{name}" else k: v for k, v in fitter.cost(cell, method).items()}


def tokens_in(fitter: Fitter, texts: list[str]) -> int:
    return sum(len(fitter.model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)


def control(name: str, of: str = "language", **options: Any) -> SteeringMethod:
    (made,) = load_registry().configure(name, {"of": of, "options": options})
    return made


def test_a_fit_has_the_readings_that_it_used_token_by_token(fitter):
    parts = parts_of(fitter, LanguageSteering())
    own = parts.pop("own")
    assert (own.tokens, own.seconds >= 0) == (0, True)  # it only takes differences of what was read
    read = sorted(part.tokens for part in parts.values())
    assert read == sorted(tokens_in(fitter, PARALLEL[code]) for code in ("am", "he", "en"))


def test_a_reading_made_for_one_fit_counts_in_full_in_the_next_one(fitter, new_fitter, corpus):
    first, second = (parts_of(fitter, LanguageSteering(), code) for code in ("am", "he"))
    third = parts_of(new_fitter(fitter.model, corpus), LanguageSteering(LanguageSteering.Config(layer=1)))
    for parts in (first, second, third):
        parts.pop("own")
    assert len(first) == 3
    assert first == second == third


def test_a_stored_fit_keeps_its_cost(fitter, new_fitter, corpus):
    first = parts_of(fitter, LanguageSteering())
    assert parts_of(new_fitter(fitter.model, corpus), LanguageSteering()) == first


def test_what_a_fit_learns_by_passes_of_its_own_is_counted_without_padding(fitter):
    passes: list[int] = []

    def count(module: Any, args: Any, inputs: Any) -> None:
        read = inputs["input_ids"].shape[1]  # the mask of a pass with a cache also covers what that holds
        passes.append(int(inputs["attention_mask"][:, -read:].sum()))

    plain = LearnedVector(LearnedVector.Config(layer=1, steps=3, batch_size=4))
    handle = fitter.model.decoder.register_forward_pre_hook(count, with_kwargs=True)
    parts = parts_of(fitter, plain)
    handle.remove()
    assert sum(part.tokens for part in parts.values()) == sum(passes)
    assert parts["own"].tokens > 3 * 4  # 3 steps of 4 texts, and looks at what is held out
    assert not fitter.model.decoder._forward_pre_hooks.get(handle.id)


def test_a_fit_that_takes_anothers_carries_its_cost(fitter):
    plain = parts_of(fitter, LearnedVector(LearnedVector.Config(layer=1, steps=3)))
    twice = parts_of(fitter, LearnedVector(LearnedVector.Config(layer=1, steps=3, strength=2.0)))
    assert twice.pop("own").tokens == 0
    (of_one,) = (name for name in twice if name.startswith("steering/"))
    assert twice.pop(of_one) == plain.pop("own")
    assert twice == plain


@pytest.mark.parametrize("first", [True, False], ids=["fitted before", "fitted within"])
def test_a_control_carries_the_cost_of_its_methods_fit(fitter, first):
    if first:
        parts_of(fitter, LanguageSteering())
    found = parts_of(fitter, control("negated"))
    own, method = found.pop("own"), parts_of(fitter, LanguageSteering())
    assert own.tokens == 0
    assert sorted(part.tokens for part in found.values()) == sorted(part.tokens for part in method.values())
    assert len(found) == 4  # three readings and the method's own part


def test_a_method_that_fits_nothing_costs_nothing(fitter):
    (zero,) = load_registry().configure("zero-shot", {})
    assert fitter.cost(Cell(key(method=zero.identity)), zero) == {}


class Writes(SteeringMethod):
    """Lets the model write in its fit."""

    name, version = "writes", "1"

    class Config(MethodConfig):
        """Nothing to set."""

    def fit(self, ctx: Any) -> Steering:
        ids = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 5, 6, 7]])
        ctx.model.model.generate(
            ids, attention_mask=(ids > 0).long(), max_new_tokens=4, min_new_tokens=4, pad_token_id=0
        )
        return Steering((Intervention("layer_output", 1, "add", np.ones(16, np.float32), 1.0, "raw", 1.0),))


def test_tokens_that_a_fit_writes_count_once_each(fitter):
    parts = parts_of(fitter, Writes())
    assert parts["own"].tokens == (5 + 3) + 2 * 3  # both prompts; of 4 new ones the last is not read


class Fails(Writes):
    """Reads, and then fails."""

    name = "fails"

    def fit(self, ctx: Any) -> Steering:
        ctx.mean_states(ctx.parallel("am"))
        raise RuntimeError("on purpose")


def test_a_fit_that_failed_leaves_no_hook_and_no_cost_in_the_next_one(fitter):
    before = dict(fitter.model.decoder._forward_pre_hooks)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(fitter, Fails())
    assert dict(fitter.model.decoder._forward_pre_hooks) == before
    assert parts_of(fitter, Writes())["own"].tokens == 14


def test_what_an_inner_part_takes_is_not_the_outer_ones_own(monkeypatch, tiny_models):
    now = iter([0.0, 1.0, 5.0, 7.0])  # the outer part begins, the inner one begins and ends, the outer ends
    clock = SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr("harness.runner.fit.time", clock)
    model, meter, ids = tiny_models["llama"], UsageMeter(), torch.ones((1, 3), dtype=torch.int64)
    with meter.part("outer", model) as outer:
        with meter.part("inner", model) as inner:
            model.decoder(input_ids=ids)
        meter.use(inner.parts)
        model.decoder(inputs_embeds=model.decoder.get_input_embeddings()(ids[:, :2]))
    assert inner.parts == {"inner": Usage(seconds=4.0, tokens=3)}
    assert outer.parts == {**inner.parts, "outer": Usage(seconds=3.0, tokens=2)}


def test_a_fit_of_before_costs_were_recorded_has_none_that_is_known(fitter, new_fitter, corpus):
    parts_of(fitter, LanguageSteering())
    for path in fitter.plan.run.path.glob("steering/*.cost.json"):
        path.unlink()
    assert parts_of(new_fitter(fitter.model, corpus), LanguageSteering()) == {"own": None}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1, "parts": 5}', '{"schema": 9, "parts": {}}'])
def test_a_broken_file_of_costs_is_named_and_no_method_is_at_fault(tmp_path, content):
    (tmp_path / "x.cost.json").write_text(content, encoding="utf-8")
    with pytest.raises(BrokenFileError, match=r"x\.cost\.json"):
        read_cost(tmp_path / "x.safetensors")
