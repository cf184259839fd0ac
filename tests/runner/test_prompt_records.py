"""What a run records of prompts per text, their options, parsers, checks and edits; other cells stay as they were."""

from __future__ import annotations

import json

import pytest
from support.helpers import key, small_suite, steerboard, toy_llm

from harness.core.records import CellStatus, Generation, PromptRecord
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.submissions.check_cells import _check_texts
from harness.submissions.files import InvalidSubmissionError

PLUGIN = """
from harness import Prompt, SteeringMethod, register

class Base(SteeringMethod):
    '''A method made for a test. Source: own work.'''
    settings = ("zero-shot",)

@register("letters")
class Letters(Base):
    def prompt(self, ctx):
        words = f"ጻፍ {ctx.index}"
        return Prompt(words, top_p=0.5, max_new_tokens=9, parse=lambda text: [c for c in text], texts_per_answer=4)

@register("judged")
class Judged(Base):
    def check(self, ctx, text):
        return Prompt(f"{text} {ctx.label} {ctx.index}?")

@register("edited")
class Edited(Base):
    def edit(self, ctx, texts):
        return [texts[0], *("  ሰላም  ወዳጄ " for _ in texts[1:])]

@register("short")
class Short(Base):
    def edit(self, ctx, texts):
        return texts[1:]

@register("broken")
class Broken(Base):
    def check(self, ctx, text):
        raise ValueError("שלום")
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, tuple[CellStatus, dict[str, object], list[Generation]]]:
    """Return status, its file and the texts of an Amharic cell by method, from one run of a model of random weights."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "mine.py").write_text(PLUGIN, encoding="utf-8")
    suite = small_suite(folder, toy_llm(folder / "toy"))
    methods = "zero-shot,temperature,letters,judged,edited,short,broken"
    words = ["--languages", "am", "--tasks", "sentiment", "--seeds", "1", "--limit", "3", "--settings", "zero-shot"]
    steerboard(
        "run", "--suite", suite, "--methods", methods, *words, "--plugin", folder / "mine.py", "--run", folder / "r"
    )
    run, cells = Run(folder / "r"), {}
    for cell in run.cell_ids():
        status = run.status(cell)
        assert status is not None
        body = json.loads((run.path / "cells" / cell / "status.json").read_text(encoding="utf-8"))
        cells[status.cell.method.name] = status, body, run.generations(cell) if status.state == "ok" else []
    return cells


def test_a_cell_that_keeps_to_the_suites_protocol_has_no_record_of_prompts(found):
    assert "prompts" not in found["zero-shot"][1]
    assert found["zero-shot"][0].prompts is None


def test_sampling_options_and_parsers_are_recorded_without_defaults(found):
    assert found["temperature"][1]["prompts"] == {"sampling": [{"temperature": 1.0}]}
    status, body, texts = found["letters"]
    assert body["prompts"] == {"sampling": [{"top_p": 0.5, "max_new_tokens": 9}], "texts_per_answer": 4}
    assert [(text.label, text.index) for text in texts] == [
        (label, i) for label in ("negative", "positive") for i in range(3)
    ]
    assert all(len(text.text) <= 1 for text in texts)
    assert (status.new_tokens or 0) >= sum(text.n_new_tokens for text in texts) > 0


def test_draws_that_the_model_turned_down_are_counted(found):
    status, body, _ = found["judged"]
    assert status.prompts is not None
    assert status.prompts.rejected is not None
    assert body["prompts"]["rejected"] == status.prompts.rejected
    assert status.prompts.rejected >= (status.prompts.kept or 0)
    assert (status.prompt_tokens or 0) > (found["zero-shot"][0].prompt_tokens or 0)


def test_edited_texts_are_cleaned_and_marked_where_they_repeat(found):
    status, body, texts = found["edited"]
    assert body["prompts"] == {"edited": 5}
    assert [text.text for text in texts[1:]] == ["ሰላም ወዳጄ"] * 5
    assert [text.duplicate for text in texts[1:]] == [False, True, True, True, True]
    assert status.duplicates == 4 + texts[0].duplicate
    assert texts[0].text == found["zero-shot"][2][0].text


def test_an_edit_or_a_check_that_breaks_is_a_failure_of_its_own_cell(found):
    assert {name: status.state for name, (status, *_) in found.items() if status.state != "ok"} == {
        "short": "method_error",
        "broken": "method_error",
    }
    assert "edit gave 5 texts for 6" in found["short"][0].reason
    assert "ValueError: שלום" in found["broken"][0].reason


def test_a_submission_may_have_more_tokens_than_its_texts_where_the_prompts_say_why():
    suite = load_suite("mini")
    name = key(suite="mini", task="sentiment", texts_per_label=1)
    long = suite.sampling.max_new_tokens + 1
    texts = [
        Generation(index=0, label=label, text="ጥሩ", n_new_tokens=long, n_prompt_tokens=4, finish_reason="stop")
        for label in suite.task("sentiment", "am").labels
    ]
    record = PromptRecord(sampling=[{"max_new_tokens": long}], texts_per_answer=5)
    status = CellStatus(cell=name, state="ok", prompt_tokens=9, new_tokens=3 * long, prompts=record)
    _check_texts(texts, status, suite, "texts")
    for changes in ({"prompts": None}, {"prompts": PromptRecord(texts_per_answer=5)}, {"new_tokens": long}):
        with pytest.raises(InvalidSubmissionError):
            _check_texts(texts, status.model_copy(update=changes), suite, "texts")
