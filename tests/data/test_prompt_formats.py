"""How prompts are put to a model: by its chat template, or as the beginning of a document that it goes on with."""

from __future__ import annotations

import json
import shutil

import pytest
from support.helpers import MINI, TASKS, small_suite, steerboard, toy_llm

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.data.prompts import suite_prompt
from harness.data.suite import data_note, load_suite, prompt_format_of
from harness.engine.generate import answer

WORDS = ["--languages", "am,he", "--tasks", "sentiment", "--seeds", "1", "--limit", "2", "--methods"]


@pytest.fixture(scope="module")
def base_suite(tmp_path_factory):
    """A small suite with a model that has no chat template."""
    folder = tmp_path_factory.mktemp("base")
    model = toy_llm(folder / "toy")
    (model / "chat_template.jinja").unlink()
    return small_suite(folder, model)


def test_a_base_prompt_ends_inside_the_quotes_of_the_next_item_of_a_list():
    task = load_suite("mini").for_format("base").task("sentiment", "he")
    header = "The following are positive reviews, written in Hebrew by customers:\n\n"
    assert suite_prompt(task, "zero-shot", "positive").user == f'{header}1. "'
    shown = suite_prompt(task, "few-shot", "positive", ("מצוין", 'דו"ח טוב')).user
    assert shown == f'{header}1. "מצוין"\n2. "דו"ח טוב"\n3. "'


@pytest.mark.parametrize("name", ["mini", "steer11"])
def test_every_task_has_a_base_prompt_that_names_language_and_label(name):
    suite = load_suite(name).for_format("base")
    for task in suite.tasks:
        for code in suite.languages:
            user = suite_prompt(suite.task(task, code), "zero-shot", "LABEL").user
            assert "LABEL" in user
            assert "{" not in user


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (' ጥሩ ነው።"\n2. "ሌላ', "ጥሩ ነው።"),
        ('דו"ח מצוין."\n', 'דו"ח מצוין.'),  # the quote inside is a letter's, and stays
        ("It's good", "It's good"),
        ('"\n2. "', ""),
    ],
)
def test_the_answer_ends_with_its_item(written, kept):
    assert answer(written, load_suite("mini").for_format("base").sampling)[0] == kept


def test_the_format_follows_the_chat_template_and_is_part_of_the_identity(base_suite):
    suite = load_suite("mini")
    assert (suite.default_format(True), suite.default_format(False)) == ("chat", "base")
    assert suite.for_format("chat") is suite
    base = suite.for_format("base")
    assert base.hash != suite.hash
    assert base.text_protocol("topic", "am") != suite.text_protocol("topic", "am")
    assert prompt_format_of(base.dump()) == "base"
    assert data_note(base.dump(), base.hash, str(MINI / "data")) == suite.data_note != ""
    assert resolve_checkpoint(str(MINI / "pocketlm")).has_chat_template
    assert not resolve_checkpoint(str(base_suite.parent / "toy")).has_chat_template


def test_a_suite_without_base_prompts_takes_the_instruction_form(tmp_path):
    shutil.copytree(TASKS / "sentiment", tmp_path / "sentiment")
    shutil.copytree(TASKS / "topic", tmp_path / "topic")
    shared = tmp_path / "topic" / "_topic.yaml"
    shared.write_text(shared.read_text().replace("base_prompt:", "another_prompt:"))
    (tmp_path / "mini.yaml").write_text((TASKS / "mini.yaml").read_text())
    suite = load_suite(str(tmp_path / "mini.yaml"))
    assert suite.default_format(False) == "instruction"
    with pytest.raises(UserError, match="task 'topic' has no base_prompt"):
        suite.for_format("base")


def test_a_run_of_a_base_model_says_so_and_its_references_join_it(base_suite, tmp_path):
    run = ["run", "--suite", base_suite, "--run", tmp_path / "run", *WORDS]
    assert steerboard(*run, "zero-shot,few-shot").code == 0
    assert steerboard(*run, "human").code == 0, "without a model, the format is that of the run"
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["suite"]["sampling"]["template"] == "base"
    assert {entry["method"]["name"] for entry in manifest["entries"]} == {"zero-shot", "few-shot", "human"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("chat", "toy has no chat template. Valid for --prompt-format: base, instruction."),
        ("chatty", "unknown prompt format 'chatty'; valid: auto, base, chat, instruction. Did you mean 'chat'?"),
    ],
)
def test_a_format_that_cannot_be_used_is_one_line(base_suite, tmp_path, value, words):
    done = steerboard(
        "run", "--suite", base_suite, "--run", tmp_path / "run", *WORDS, "zero-shot", "--prompt-format", value
    )
    assert done.code == 2
    assert words in done.one_line()


def test_a_chat_model_can_be_asked_as_a_base_model(tmp_path):
    suite = small_suite(tmp_path, toy_llm(tmp_path / "toy"))
    done = steerboard(
        "run", "--suite", suite, "--run", tmp_path / "run", *WORDS, "zero-shot", "--prompt-format", "base"
    )
    assert done.code == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert prompt_format_of(manifest["suite"]) == "base"
