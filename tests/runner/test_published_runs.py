"""Runs of the published suite with a Llama and a Gemma 2 of random weights."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.helpers import MINI, Outcome, snapshot, steerboard, toy_llm
from support.published import ONLY, edited_suite

from harness.core.checkpoints import resolve_checkpoint
from harness.core.records import CellStatus
from harness.core.store import Run
from harness.data.suite import SamplingParams, restore_suite
from harness.engine.generate import answer, render
from harness.ranking.results import collect


@pytest.fixture
def edited(tmp_path: Path) -> Any:
    return partial(edited_suite, tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A Llama and a Gemma 2 of random weights that write any byte, quotes and line breaks among them."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder = tmp_path_factory.mktemp("models")
    gemma, llama = toy_llm(folder / "gemma"), toy_llm(folder / "llama")
    sizes = json.loads((gemma / "config.json").read_text(encoding="utf-8"))
    taken = {
        name: sizes[name]
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "pad_token_id",
            "bos_token_id",
            "eos_token_id",
        )
    }
    torch.manual_seed(0)
    Gemma2ForCausalLM(Gemma2Config(head_dim=8, **taken)).save_pretrained(gemma)
    return {"gemma": gemma, "llama": llama}


@pytest.fixture
def go(edited, models, tmp_path):
    """Run the suite with texts of 80 tokens, in this process; the run folder is named as the model."""
    suite = edited("max_new_tokens: 512", "max_new_tokens: 80")

    def start(model: str, methods: str, *options: object) -> Outcome:
        words = ["run", "--suite", suite, "--model", models[model], "--data", MINI / "data"]
        narrow = ["--languages", "am,he", "--tasks", "sentiment", "--limit", "2", "--classifier", "tfidf"]
        return steerboard(*words, *narrow, "--methods", methods, "--run", tmp_path / model, *options)

    return start


@pytest.fixture
def heard(monkeypatch) -> SimpleNamespace:
    """Write down what the model is given and what it answers, before anything is cut."""
    spy = SimpleNamespace(prompts=set(), answers=[])

    def render_(*arguments: Any) -> str:
        prompt = render(*arguments)
        spy.prompts.add(prompt)
        return prompt

    def answer_(text: str, sampling: SamplingParams) -> tuple[str, bool]:
        spy.answers.append(text)
        return answer(text, sampling)

    monkeypatch.setattr("harness.engine.generate.render", render_)
    monkeypatch.setattr("harness.engine.generate.answer", answer_)
    return spy


def cells(folder: Path) -> list[tuple[CellStatus, list[Any]]]:
    run = Run(folder)
    found = [(run.status(cell), run.generations(cell)) for cell in run.cell_ids()]
    assert {status.state for status, _ in found if status} == {"ok"}
    return [(status, texts) for status, texts in found if status]


def lines(prefix: str, suffix: str, language: str) -> set[str]:
    return {
        f"{prefix}Generate a review with {label} sentiment in {language} language. {ONLY}{suffix}"
        for label in ("negative", "positive")
    }


def test_gemma_writes_first_lines_without_quotes_to_prompts_in_the_instruction_form(go, tmp_path, heard):
    assert go("gemma", "zero-shot").code == 0
    found = cells(tmp_path / "gemma")
    assert {status.cell.language: len(texts) for status, texts in found} == {"am": 4, "he": 4}
    assert heard.prompts == {
        prompt
        for language in ("Amharic", "Hebrew")
        for prompt in lines("<s>### Instruction:\n", ".\n\n### Response:\n", language)
    }
    assert any(raw.lstrip().endswith("\n") for raw in heard.answers), "no line ended: nothing was tested"
    assert any(set("'\"") & set(raw.strip().split("\n")[0]) for raw in heard.answers)
    kept = [raw.strip().split("\n")[0].replace('"', "").replace("'", "") for raw in heard.answers]
    texts = [text for _, group in found for text in group]
    assert {text.text for text in texts} <= {" ".join(line.split()) for line in kept}
    assert all(text.text and not set("'\"") & set(text.text) for text in texts)


def test_llama_writes_whole_answers_without_quotes_to_prompts_in_its_chat_form(go, tmp_path, heard):
    assert go("llama", "zero-shot").code == 0
    found = cells(tmp_path / "llama")
    assert {status.cell.language: len(texts) for status, texts in found} == {"am": 4, "he": 4}
    assert heard.prompts == {prompt for language in ("Amharic", "Hebrew") for prompt in lines("<s>", "\n", language)}
    assert any("\n" in raw.strip() and set("'\"") & set(raw) for raw in heard.answers)
    whole = {" ".join(raw.replace('"', "").replace("'", "").split()) for raw in heard.answers}
    assert {text.text for _, group in found for text in group} <= whole


def test_a_sweep_of_the_suite_is_run_by_the_name_of_its_method(go, tmp_path):
    assert go("gemma", "zero-shot,language", "--languages", "am", "--settings", "zero-shot").code == 0
    configs = [status.cell.method for status, _ in cells(tmp_path / "gemma")]
    grid = sorted((m.config["layer"], m.config["strength"], m.config["unit"]) for m in configs if m.config)
    assert grid == [(d, s, "raw") for d in (0.21, 0.48, 0.74) for s in (25, 50, 75, 100)]
    assert [m.name for m in configs if not m.config] == ["zero-shot"]


def test_the_manifest_holds_the_family_that_was_used_and_a_second_start_changes_nothing(go, tmp_path, models):
    go("gemma", "zero-shot,constant")
    manifest = Run(tmp_path / "gemma").manifest()
    assert list(manifest.suite["families"]) == ["gemma"]
    assert manifest.suite["sampling"]["template"] == "instruction"
    assert manifest.suite_hash == restore_suite(manifest.suite).hash
    before = {name: data for name, data in snapshot(tmp_path / "gemma").items() if name.startswith("cells")}
    assert before
    assert go("gemma", "zero-shot,constant").code == 0
    after = snapshot(tmp_path / "gemma")
    assert {name: after[name] for name in before} == before
    assert steerboard("score", tmp_path / "gemma", "--classifier", "tfidf").code == 0


def test_a_few_shot_prompt_ends_with_the_demonstrations_that_the_status_records(go, tmp_path, heard):
    assert go("gemma", "few-shot", "--languages", "he").code == 0
    [(status, _)] = cells(tmp_path / "gemma")
    assert {label: len(texts) for label, texts in status.demonstrations.items()} == {"negative": 5, "positive": 5}
    rows = [json.loads(row) for row in (MINI / "data/sentiment/he/train.jsonl").read_text("utf-8").splitlines()]
    for label, texts in status.demonstrations.items():
        lengths = sorted(len(row["text"]) for row in rows if row["label"] == label)
        assert max(map(len, texts)) <= lengths[:50][-1]
        [prompt] = [prompt for prompt in heard.prompts if f" {label} sentiment in Hebrew" in prompt]
        assert prompt.endswith("Examples: " + "\n".join(texts) + "\n\n### Response:\n")


def test_a_page_of_both_families_keeps_them_apart(go, tmp_path):
    for model in ("gemma", "llama"):
        assert go(model, "zero-shot,constant", "--languages", "he").code == 0
    runs = [Run(tmp_path / model) for model in ("gemma", "llama")]
    assert len(collect(runs)) == 2
    assert steerboard("board", "build", *(run.path for run in runs), "--out", tmp_path / "site").code == 0


def test_a_run_of_one_family_cannot_be_gone_on_with_by_the_other(go, tmp_path):
    go("gemma", "constant")
    refused = go("llama", "constant", "--run", tmp_path / "gemma").one_line()
    assert "holds a run of another suite" in refused


def test_references_need_the_model_to_say_which_family_but_do_not_load_it(go, tmp_path, models):
    assert go("llama", "constant").code == 0
    manifest = Run(tmp_path / "llama").manifest()
    assert manifest.model is None
    assert list(manifest.suite["families"]) == ["llama"]
    line = steerboard("run", "--suite", "published", "--methods", "constant", "--data", MINI / "data").one_line()
    assert "depend on the model. Give --model" in line


def test_a_model_of_another_type_is_refused_in_one_line(go, models, tmp_path):
    other = shutil.copytree(models["llama"], tmp_path / "other")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}), encoding="utf-8")
    assert resolve_checkpoint(str(other)).model_type == "qwen2"
    line = go("llama", "zero-shot", "--model", other).one_line()
    assert "models of type 'qwen2'" in line
    assert "--suite steer11" in line


@pytest.mark.parametrize(
    ("methods", "options", "words"),
    [
        ("langauge", [], r"unknown method 'langauge'.*Did you mean 'language'"),
        ("zero-shot", ["--languages", "xx"], r"unknown language 'xx'"),
    ],
)
def test_what_needs_no_model_is_checked_before_a_model_is_looked_for(go, methods, options, words):
    line = go("llama", methods, "--model", "nobody/no-such-model", *options).one_line()
    assert re.search(words, line)


def test_a_bad_option_of_the_other_familys_method_is_noticed(edited, models):
    suite = edited("strength: [1, 2, 3, 4]", "strenght: [1, 2, 3, 4]")
    line = steerboard("run", "--suite", suite, "--model", models["gemma"], "--data", MINI / "data").one_line()
    assert "'language'" in line
    assert "strenght" in line


def test_the_shipped_suite_runs_by_its_name(models, tmp_path):
    words = "--languages he --tasks topic --settings zero-shot --methods zero-shot --limit 1 --classifier tfidf"
    folders = ["--model", models["llama"], "--data", MINI / "data", "--run", tmp_path / "run"]
    assert steerboard("run", "--suite", "published", *folders, *words.split()).code == 0
    [(status, texts)] = cells(tmp_path / "run")
    assert len(texts) == 7
    assert status.cell.suite == "published"
    assert max(text.n_new_tokens for text in texts) > 100
