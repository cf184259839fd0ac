"""Which languages' text a method reads: those that it states, and no others."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from conftest import fit
from rich.console import Console
from support.contexts import sentences

from harness.core.cells import Cell
from harness.core.records import ModelIdentity
from harness.core.store import Run
from harness.data.sources import Example
from harness.methods.contract import CellContext, SteeringMethod
from harness.methods.registry import load_registry
from harness.runner.generate import GenerationStage
from harness.runner.plan import plan_cells, select_cells
from harness.runner.prepare import RunPlan

ALL = {"am", "he", "en"}
WORDS = {"am": "ምግቡ ጥሩ ነበር", "he": "האוכל היה טעים", "en": "the food was good"}
SHORT = {"layer": 1, "steps": 1}
CLAS = {"layers": [1], "min_texts": 2}
STATED: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "zero-shot": ("zero-shot", {}, set()),
    "few-shot": ("few-shot", {}, set()),
    "language": ("language", {}, ALL),
    "quality": ("quality", {}, {"am"}),
    "clas": ("clas", CLAS, ALL),
    "clas-published": ("clas-published", CLAS, ALL),
    "caa": ("caa", {"layer": 1}, ALL),
    "lda of quality": ("lda", {"layer": 1, "contrast": "quality"}, {"am"}),
    "lape": ("lape", {"share": 0.9, "bar": 0.5}, ALL),
    "instruction": ("instruction", {"layer": 1}, {"am"}),
    "learned": ("learned", SHORT, {"am"}),
    "learned, align": ("learned", {**SHORT, "objective": "align"}, {"am", "en"}),
    "random of quality": ("random", {"of": "quality", "options": {}}, {"am"}),
    "negated of language": ("negated", {"of": "language", "options": {}}, ALL),
    "other-language of quality": ("other-language", {"of": "quality", "options": {}}, {"he"}),
    "shuffled of language": ("shuffled", {"of": "language", "options": {}}, ALL),
}


@pytest.fixture
def corpus(corpus_of):
    rows = {
        ("sentiment", code, "train"): [
            Example(f"{label}{i}", f"{word} {label} {i}", label) for label in ("positive", "negative") for i in range(9)
        ]
        for code, word in WORDS.items()
    }
    return corpus_of({code: sentences([f"{word} {i}" for i in range(18)]) for code, word in WORDS.items()}, rows)


def made(case: str) -> SteeringMethod:
    name, options, _ = STATED[case]
    (method,) = load_registry().configure(name, options)
    return method


@pytest.mark.parametrize("case", STATED)
def test_a_fit_reads_the_text_of_the_languages_that_the_method_states(case, corpus, new_fitter, tiny_models):
    method, stated = made(case), STATED[case][2]
    context = CellContext(corpus.suite, corpus.suite.task("sentiment", "am"), "zero-shot", 1, 2)
    assert set(method.vector_languages(context)) == stated
    fitter = new_fitter(tiny_models["llama"], corpus)
    with mock.patch.object(corpus.source, "parallel", wraps=corpus.source.parallel) as read:
        fit(fitter, method)
    assert {call.args[0] for call in read.call_args_list} == stated


class Careless(SteeringMethod):
    """States nothing that can be used."""

    name = "careless"

    def fit(self, ctx: Any) -> Any:
        raise AssertionError

    def vector_languages(self, ctx: CellContext) -> list[str]:
        raise RuntimeError("on purpose")


def needed(tmp_path: Any, corpus: Any, *methods: SteeringMethod, scored: bool = False) -> list[str]:
    """Return the languages whose parallel text is looked for before a run of methods in Amharic."""
    identity = ModelIdentity(name="tiny", fingerprint="f00d", dtype="float32")
    cells: list[Cell] = plan_cells(corpus.suite, select_cells(corpus.suite, ["am"]), methods, identity, corpus)
    by_name = {method.identity.model_dump_json(): method for method in methods}
    parts: list[Any] = [object()] if scored else []
    plan = RunPlan(Run(tmp_path / "run"), corpus.suite, corpus, None, by_name, cells, parts, identity)
    return GenerationStage(plan, Console())._vector_languages(cells)


def test_before_a_run_the_text_of_stated_languages_is_looked_for_once(tmp_path, corpus):
    assert needed(tmp_path, corpus, made("zero-shot"), made("few-shot")) == []
    assert needed(tmp_path, corpus, made("quality"), made("zero-shot")) == ["am"]
    assert needed(tmp_path, corpus, made("quality"), made("other-language of quality")) == ["am", "he"]
    assert needed(tmp_path, corpus, made("quality"), made("language")) == ["am", "he", "en"]


def test_scores_need_the_text_of_all_languages_for_their_language_identifier(tmp_path, corpus):
    assert needed(tmp_path, corpus, made("zero-shot"), scored=True) == ["am", "he", "en"]


def test_a_method_that_cannot_say_what_it_needs_needs_all_and_ends_no_run(tmp_path, corpus):
    assert needed(tmp_path, corpus, Careless()) == ["am", "he", "en"]
