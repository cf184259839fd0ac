"""The suite `published`: prompts, sampling and strengths of arXiv 2606.18389, for two families of models."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.helpers import ROOT, TASKS, steerboard
from support.published import ONLY, edited_suite

from harness.core.errors import UserError
from harness.data.corpus import Corpus
from harness.data.prompts import Prompt
from harness.data.sources import Example
from harness.data.suite import SamplingParams, Suite, load_suite, restore_suite
from harness.engine.generate import answer, render
from harness.methods.contract import PromptContext
from harness.methods.registry import load_registry, parse_methods, pick_methods

REVIEW = "Generate a review with positive sentiment in Amharic language"
LONG = "Generate a long wiki style sentence on the topic of travel in Hebrew language"
SHORT = "Generate a wiki-style sentence on the topic of travel in Hebrew language"
PROMPTS = {
    ("gemma", "sentiment", "zero-shot"): f"{REVIEW}. {ONLY}.",
    ("gemma", "sentiment", "few-shot"): f"{REVIEW} based on examples. {ONLY}. Examples: ሀ\nለ",
    ("gemma", "topic", "zero-shot"): f"{LONG}. Output only the text in Hebrew.",
    ("gemma", "topic", "few-shot"): f"{LONG} based on examples. Output only the text in Hebrew. Examples: א\nב",
    ("llama", "sentiment", "zero-shot"): f"{REVIEW}. {ONLY}",
    ("llama", "sentiment", "few-shot"): f"{REVIEW} based on examples. {ONLY}. Examples: ሀ\nለ",
    ("llama", "topic", "zero-shot"): f"{SHORT}. {ONLY}.",
    ("llama", "topic", "few-shot"): f"{SHORT} based on examples. {ONLY}. Examples: א\nב",
}
FAMILIES = {"gemma": "gemma2", "llama": "llama"}
FULL = {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 512, "max_attempts": 5}


@pytest.fixture(scope="module")
def published() -> Suite:
    return load_suite("published")


@pytest.fixture
def edited(tmp_path: Path) -> Any:
    return partial(edited_suite, tmp_path)


# What the paper did


def test_the_counts_are_one_more_than_asked_for_as_the_published_loop_kept_them(published):
    assert {task: size.texts_per_label for task, size in published.tasks.items()} == {"sentiment": 51, "topic": 21}
    assert (51 * 2, 21 * 7) == (102, 147)  # the texts of a published file


def test_one_draw_of_texts_and_twenty_classifiers(published):
    assert published.seeds == [1]
    assert published.classifier_protocol == load_suite("steer11").classifier_protocol
    assert published.classifier_protocol.seeds == list(range(1, 21))
    assert published.classifiers == ["tfidf", "hf:FacebookAI/xlm-roberta-base"]


def test_demonstrations_and_vector_text_are_those_of_the_paper(published):
    rule = published.few_shot
    assert (rule.shots, rule.pool, rule.seed, rule.selection) == (5, 50, 42, "shortest")
    assert published.vectors.word_noise == 0.01
    assert published.vectors.systems == load_suite("steer11").vectors.systems


def test_both_tasks_in_eleven_languages_and_both_settings(published):
    other = load_suite("steer11")
    assert published.languages == other.languages
    assert published.settings == ["zero-shot", "few-shot"]
    assert list(published.tasks) == list(other.tasks)


@pytest.mark.parametrize(("family", "task", "setting"), PROMPTS)
def test_the_prompts_of_a_family_are_the_published_ones(published, family, task, setting):
    suite = published.for_model(FAMILIES[family])
    language, label, shots = ("am", "positive", ("ሀ", "ለ")) if task == "sentiment" else ("he", "travel", ("א", "ב"))
    ctx = PromptContext(suite, suite.task(task, language), setting, 1, 51, label, shots)
    assert ctx.suite_prompt() == Prompt(PROMPTS[family, task, setting])


def test_gemma_is_asked_in_the_instruction_form_and_keeps_a_line_llama_in_its_chat_form(published):
    gemma, llama = (published.for_model(FAMILIES[name]).sampling for name in ("gemma", "llama"))
    assert (gemma.template, gemma.keep) == ("instruction", "first-line")
    assert (llama.template, llama.keep) == ("chat", "all")
    for sampling in (gemma, llama):
        assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.8, 0.9, 512)
        assert sampling.strip_quotes


@pytest.mark.parametrize(
    ("family", "strengths"), [("gemma", [25, 50, 75, 100]), ("llama", [1, 2, 3, 4])], ids=["gemma", "llama"]
)
def test_both_vectors_are_swept_over_three_depths_and_four_raw_strengths(published, family, strengths):
    methods = parse_methods(load_registry(), published.for_model(FAMILIES[family]).methods)
    grid = [(depth, strength) for depth in (0.21, 0.48, 0.74) for strength in strengths]
    for name in ("language", "quality"):
        configs = [method.config for method in methods if method.name == name]
        assert sorted((c.layer, c.strength) for c in configs) == grid
        assert {c.unit for c in configs} == {"raw"}
    assert [m.name for m in methods if m.name not in {"language", "quality"}] == [
        "zero-shot",
        "few-shot",
        "human",
        "constant",
    ]


# Families


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3", "gemma3_text"])
def test_models_of_a_family_share_one_suite(published, model_type):
    assert published.for_model(model_type).hash == published.for_model("gemma2").hash


def test_two_families_never_share_a_table_or_a_text(published):
    gemma, llama = published.for_model("gemma2"), published.for_model("llama")
    assert len({gemma.hash, llama.hash, published.hash}) == 3
    assert gemma.text_protocol("topic", "am") != llama.text_protocol("topic", "am")


def test_a_chosen_family_is_named_and_all_it_changed_is_in_place(published):
    chosen = published.for_model("gemma2")
    [(name, family)] = chosen.families.items()
    assert name == "gemma"
    assert (family.prompts, family.sampling, family.methods) == ({}, {}, [])
    assert chosen.for_model("gemma3") == chosen
    with pytest.raises(UserError, match="'llama'; its families: gemma"):
        chosen.for_model("llama")


def test_choosing_a_family_leaves_the_suite_as_it_was(published):
    before = published.hash
    published.for_model("gemma2")
    assert published.hash == before


@pytest.mark.parametrize("name", ["mini", "steer11"])
def test_a_suite_without_families_serves_every_model_as_it_is(name):
    suite = load_suite(name)
    assert suite.for_model("qwen2") is suite


def test_a_chosen_family_comes_back_whole_from_the_json_of_a_manifest(published):
    chosen = published.for_model("llama")
    restored = restore_suite(json.loads(json.dumps(chosen.dump())))
    assert restored.hash == chosen.hash
    assert restored.task("topic", "he") == chosen.task("topic", "he").model_copy(update={"base_prompt": ""})
    assert restored.methods == chosen.methods


def test_a_model_of_no_family_is_told_the_families_and_another_suite(published):
    with pytest.raises(UserError) as caught:
        published.for_model("qwen2")
    words = str(caught.value)
    assert "\n" not in words
    assert "'qwen2'" in words
    assert "gemma (gemma, gemma2, gemma3, gemma3_text, gemma3n, gemma3n_text); llama (llama)" in words
    assert "--suite steer11" in words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("template: chat", "template: chatty", r"families\.llama\.sampling\.template: Input should be"),
        ("keep: first-line", "top_p: 7", r"families\.gemma\.sampling\.top_p: .*less than or equal to 1"),
        ("keep: first-line", "top_k: 7", r"families\.gemma\.sampling\.top_k: Extra inputs"),
        ("      topic:\n", "      topics:\n", r"families\.gemma\.prompts: unknown task 'topics'"),
        ("        few-shot: |-", "        one-shot: |-", r"families\.gemma\.prompts\.sentiment\.one-shot"),
        ("model_types: [llama]", "model_types: [gemma2]", r"model type 'gemma2' is in two families"),
        ("model_types: [llama]", "model_types: []", r"families\.llama\.model_types: .*at least 1"),
        ("model_types: [llama]", "model_typos: [llama]", r"families\.llama\.model_types: Field required"),
        ("selection: shortest", "selection: longest", r"few_shot\.selection: Input should be 'shortest'"),
    ],
)
def test_a_mistake_in_a_family_is_one_line_that_names_file_and_place(edited, old, new, words):
    path = edited(old, new)
    with pytest.raises(UserError, match=words) as caught:
        load_suite(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_the_suite_is_listed_before_a_model_has_chosen():
    described = {line.split()[0]: line for line in steerboard("list", "suites").out.splitlines()}
    assert "2606.18389" in described["published"]
    tasks = steerboard("list", "tasks", "--suite", "published").out
    assert "51 texts per label: negative, positive" in tasks
    assert "he" in steerboard("list", "languages", "--suite", "published").out.split()


def test_the_example_in_the_docs_is_a_suite(tmp_path):
    section = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split("## The published protocol")[1]
    example = yaml.safe_load(section.split("```yaml\n")[1].split("```")[0])
    body = yaml.safe_load((TASKS / "steer11.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**body, **example}), encoding="utf-8")
    chosen = load_suite(str(path)).for_model("gemma3")
    assert chosen.sampling.keep == "first-line"
    assert chosen.task("topic", "am").prompts["zero-shot"] == "Write about {label} in {language}."
    assert chosen.task("topic", "am").prompts["few-shot"].startswith("Generate a long")


# Prompt forms and what is kept of an answer


def test_the_instruction_form_is_used_in_spite_of_a_chat_template(new_tokenizer):
    tokenizer = new_tokenizer()
    assert render(tokenizer, Prompt("ሀ"), "instruction") == "<s>### Instruction:\nሀ\n\n### Response:\n"
    assert render(tokenizer, Prompt("ሀ"), "chat") == "<s><|user|>ሀ<|assistant|>"
    assert render(new_tokenizer(None), Prompt("ሀ"), "chat").startswith("<s>### Instruction:")


@pytest.mark.parametrize(
    ("text", "kept", "ended"),
    [
        ("ጥሩ  ነው\n\nNote: this is Amharic.", "ጥሩ ነው", True),
        ("\n \n  טוב מאוד \nעוד", "טוב מאוד", True),
        ("one line", "one line", False),
        ("one line\n", "one line", True),
        ("one\r\ntwo", "one", True),
        ("a\u2028b\x0bc", "a b c", False),  # blanks of other kinds end no line
        ("\n\n", "", False),
        ("", "", False),
    ],
)
def test_the_first_line_that_is_not_blank_is_kept(text, kept, ended):
    assert answer(text, SamplingParams(**FULL, keep="first-line")) == (kept, ended)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\"ጥሩ ነው\" 'አዎ'", "ጥሩ ነው አዎ"),
        ('ארה"ב היא מדינה', "ארהב היא מדינה"),
        ("it's  \n fine", "its fine"),
        ("״טוב״ ‘a’ “b”", "״טוב״ ‘a’ “b”"),  # others stay, as in the paper's scripts
        ('"\'"', ""),
    ],
)
def test_all_straight_quotes_are_deleted(text, kept):
    assert answer(text, SamplingParams(**FULL, strip_quotes=True)) == (kept, False)


def test_a_suite_that_says_nothing_keeps_all_lines_and_quotes():
    assert answer("\"ሀ\"\n'א' ", SamplingParams(**FULL)) == ("\"ሀ\" 'א'", False)
    assert SamplingParams(**FULL).template == "chat"


# Demonstrations


def demonstrations(corpus_of: Any, suite: Suite, **rule: Any) -> dict[str, dict[str, list[str]]]:
    """Return the demonstrations of ten texts of 1 to 10 letters per label, by language."""
    rows = {
        ("sentiment", code, "train"): [
            Example(f"{label}{n}", letter * n, label) for label in ("negative", "positive") for n in range(1, 11)
        ]
        for code, letter in (("am", "ሀ"), ("he", "א"))
    }
    few_shot = suite.few_shot.model_copy(update=rule)
    corpus: Corpus = corpus_of({}, rows, suite=suite.model_copy(update={"few_shot": few_shot}))
    return {code: corpus.demonstrations("sentiment", code) for code in ("am", "he")}


def test_shortest_takes_of_the_pool_alone(corpus_of, small_suite):
    drawn = demonstrations(corpus_of, small_suite, shots=3, pool=3, selection="shortest")
    for code, letter in (("am", "ሀ"), ("he", "א")):
        for texts in drawn[code].values():
            assert sorted(texts) == [letter, letter * 2, letter * 3]


def test_random_takes_of_all_texts_of_the_label(corpus_of, small_suite):
    drawn = demonstrations(corpus_of, small_suite, shots=10, pool=3, selection="random")
    for code, letter in (("am", "ሀ"), ("he", "א")):
        for texts in drawn[code].values():
            assert sorted(texts) == [letter * n for n in range(1, 11)]


def test_a_random_draw_is_the_same_each_time_and_another_with_another_seed(corpus_of, small_suite):
    rule = {"shots": 4, "pool": 3, "selection": "random"}
    first, again = (demonstrations(corpus_of, small_suite, seed=42, **rule) for _ in range(2))
    assert first == again
    assert demonstrations(corpus_of, small_suite, seed=43, **rule) != first
    assert max(len(text) for group in first["he"].values() for text in group) > 3


def test_too_few_texts_are_one_clear_error_however_they_are_drawn(corpus_of, small_suite):
    for selection in ("shortest", "random"):
        with pytest.raises(UserError, match=r"needs 11 train texts of 'negative' \(sentiment, am\).* 10"):
            demonstrations(corpus_of, small_suite, shots=11, pool=50, selection=selection)


def test_how_demonstrations_are_drawn_is_part_of_a_texts_identity(small_suite):
    rule = small_suite.few_shot.model_copy(update={"selection": "random"})
    other = small_suite.model_copy(update={"few_shot": rule})
    assert other.text_protocol("topic", "he") != small_suite.text_protocol("topic", "he")


# --methods


def test_a_named_method_has_the_options_that_the_suite_gives_it():
    specs = ["zero-shot", {"language": {"layer": [1, 2]}}, {"quality": {"layer": 1}, "language": {"layer": 3}}]
    assert pick_methods(specs, ["language", "zero-shot"]) == [
        {"language": {"layer": [1, 2]}},
        {"language": {"layer": 3}},
        {"zero-shot": {}},
    ]
    assert pick_methods(specs, ["few-shot", "few-shot"]) == ["few-shot"]
