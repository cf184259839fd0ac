"""The suites say what is measured: the published protocol, in files that lm-eval reads, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.helpers import TASKS, jsonl

from harness.core.errors import UserError
from harness.data.suite import load_suite, restore_suite, suite_files
from harness.methods.contract import PromptContext

ELEVEN = ["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"]
SENTIMENT_SOURCES = {
    "am": "DGurgurov/amharic_sa",
    "cs": "fewshot-goes-multilingual/cs_facebook-comments",
    "da": "DGurgurov/danish_sa",
    "de": "sepidmnorozy/German_sentiment",
    "he": "DGurgurov/hebrew_sa",
    "id": "DGurgurov/indonesian_sa",
    "jv": "DGurgurov/javanese_sa",
    "mt": "DGurgurov/maltese_sa",
    "sk": "DGurgurov/slovak_sa",
    "sl": "DGurgurov/slovenian_sa",
    "su": "DGurgurov/sundanese_sa",
}
TOPIC_CONFIGS = {
    "am": "amh_Ethi",
    "cs": "ces_Latn",
    "da": "dan_Latn",
    "de": "deu_Latn",
    "en": "eng_Latn",
    "he": "heb_Hebr",
    "id": "ind_Latn",
    "jv": "jav_Latn",
    "mt": "mlt_Latn",
    "sk": "slk_Latn",
    "sl": "slv_Latn",
    "su": "sun_Latn",
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A copy of the task folder without the mini suite's data, free to be edited."""
    return Path(shutil.copytree(TASKS, tmp_path / "tasks", ignore=shutil.ignore_patterns("mini")))


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def prompt(task: str, setting: str, language: str, label: str, shots: tuple[str, ...] = ()) -> str:
    suite = load_suite("steer11")
    definition = suite.task(task, language)
    return PromptContext(suite, definition, setting, 1, 50, label, shots).suite_prompt().user


@pytest.mark.parametrize("name", ["mini", "steer11"])
def test_a_shipped_suite_covers_both_tasks_in_eleven_languages(name):
    suite = load_suite(name)
    assert suite.languages == ELEVEN
    assert suite.reference_language == "en"
    assert list(suite.tasks) == ["sentiment", "topic"]
    assert suite.settings == ["zero-shot", "few-shot"]
    for task in suite.tasks:
        assert set(ELEVEN) <= set(suite.definitions[task])


def test_the_shipped_suites_are_found_by_name():
    assert list(suite_files()) == ["mini", "published", "steer11", "steer11-curve", "tiny-real"]


def test_steer11_writes_fifty_texts_per_sentiment_label_and_twenty_per_topic_label():
    sizes = load_suite("steer11").tasks
    assert {task: size.texts_per_label for task, size in sizes.items()} == {"sentiment": 50, "topic": 20}


def test_steer11_curve_is_steer11_with_a_hundred_texts_and_a_curve():
    curve, plain = load_suite("steer11-curve").dump(), load_suite("steer11").dump()
    assert {size["texts_per_label"] for size in curve["tasks"].values()} == {100}
    assert curve["metrics"].pop("curve") == {"sizes": [10, 20, 50, 100], "human": 10, "classifiers": ["tfidf"]}
    assert curve == {**plain, **{name: curve[name] for name in ("name", "description", "tasks")}}


def test_a_suite_without_a_curve_has_the_hash_from_before_there_were_any():
    assert load_suite("steer11").hash == "182f7c638f889a4b"
    assert load_suite("mini").hash == "d26deab9e15d598f"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[10, 20, 50, 100]", "[10, 50, 20]", r"sizes have to increase: \[10, 50, 20\]"),
        ("[10, 20, 50, 100]", "[0, 10]", r"greater than 0"),
        (
            "classifiers: [tfidf]}",
            "classifiers: [tfdif]}",
            r"unknown classifier 'tfdif'; valid: hf:FacebookAI/xlm-roberta-base, tfidf",
        ),
    ],
)
def test_a_mistake_in_the_settings_of_a_curve_is_one_line(tasks, old, new, words):
    path = edit(tasks / "steer11-curve.yaml", old, new)
    with pytest.raises(UserError, match=words) as caught:
        load_suite(str(path))
    assert "\n" not in str(caught.value)


def test_steer11_samples_and_shows_examples_as_published():
    suite = load_suite("steer11")
    sampling = suite.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.8, 0.9, 512)
    assert (suite.few_shot.shots, suite.few_shot.pool) == (5, 50)
    assert len(suite.seeds) == 3


def test_steer11_trains_its_classifier_as_published():
    rule = load_suite("steer11").classifier_protocol
    assert rule.seeds == list(range(1, 21))
    assert (rule.dropout, rule.learning_rate, rule.batch_size, rule.max_epochs) == (0.2, 2e-5, 16, 50)


def test_every_reference_row_is_in_both_suites():
    rows = {"zero-shot", "few-shot", "human", "constant"}
    for name, wanted in (("mini", rows), ("steer11", rows | {"random", "negated"})):
        specs = load_suite(name).methods
        assert wanted <= {spec if isinstance(spec, str) else next(iter(spec)) for spec in specs}


def test_the_prompts_are_those_of_the_protocol():
    assert prompt("sentiment", "zero-shot", "am", "positive") == (
        "Generate a review with positive sentiment in Amharic language. Output only the text and nothing else."
    )
    assert prompt("sentiment", "few-shot", "he", "negative", ("a {label}", "b")) == (
        "Generate a review with negative sentiment in Hebrew language based on examples. "
        "Output only the text and nothing else. Examples:\na {label}\nb"
    )
    assert prompt("topic", "zero-shot", "su", "science/technology") == (
        "Generate a long wiki style sentence on the topic of science/technology in Sundanese language. "
        "Output only the text and nothing else."
    )
    assert prompt("topic", "few-shot", "de", "travel", ("x",)) == (
        "Generate a long wiki style sentence on the topic of travel in German language based on examples. "
        "Output only the text and nothing else. Examples:\nx"
    )


@pytest.mark.parametrize("task", ["sentiment", "topic"])
def test_all_languages_share_one_wording_and_one_list_of_labels(task):
    suite = load_suite("steer11")
    first = suite.task(task, "am")
    for code in ELEVEN:
        assert suite.task(task, code).prompts == first.prompts
        assert suite.task(task, code).labels == first.labels


def test_every_task_names_its_data_set_on_the_hub():
    suite = load_suite("steer11")
    assert {c: suite.task("sentiment", c).dataset_path for c in ELEVEN} == SENTIMENT_SOURCES
    assert {suite.task("topic", code).dataset_path for code in TOPIC_CONFIGS} == {"Davlan/sib200"}
    assert {code: suite.task("topic", code).dataset_name for code in TOPIC_CONFIGS} == TOPIC_CONFIGS
    assert suite.task("sentiment", "cs").revision == "6ced1d87a030915822b087bf539e6d5c658f1988"


def test_neutral_czech_comments_belong_to_no_label():
    assert load_suite("steer11").task("sentiment", "cs").label_map == {"-1": "negative", "1": "positive"}


def test_a_task_file_says_which_language_it_is():
    for name in ("mini", "steer11"):
        for by_language in load_suite(name).definitions.values():
            assert {code: task.language for code, task in by_language.items()} == {c: c for c in by_language}


# Errors


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds: [1, 2, 3]\nmethods", "seedz: [1, 2, 3]\nmethods", r"seeds: Field required"),
        ("description:", "colour: red\ndescription:", r"colour: Extra inputs are not permitted"),
        ("top_p: 0.9", "top_p: 0.9, top_k: 5", r"sampling\.top_k: Extra inputs"),
        ("temperature: 0.8", "temperature: 0", r"sampling\.temperature: .*greater than 0"),
        ("languages: [am, cs,", "languages: [am, am,", r"languages holds a value twice"),
        ("seeds: [1, 2, 3]\nmethods", "seeds: [1, 1]\nmethods", r"seeds holds a value twice"),
        ("schema: 1", "schema: 2", r"schema: Input should be 1"),
        ("settings: [zero-shot,", "settings: [one-shot,", r"settings\.0: Input should be 'zero-shot'"),
        ("version: 1", "version: [1", r"is not valid YAML"),
        ("name: steer11", "name steer11", r"is not valid YAML"),
    ],
)
def test_a_mistake_in_a_suite_file_is_one_line_that_names_file_and_place(tasks, old, new, words):
    path = edit(tasks / "steer11.yaml", old, new)
    with pytest.raises(UserError, match=words) as caught:
        load_suite(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("topic/am.yaml", "language: am", "tongue: am", r"the key 'language' is missing"),
        ("topic/am.yaml", "_topic.yaml", "_toppic.yaml", r"_toppic\.yaml does not exist"),
        ("topic/_topic.yaml", "labels: [", "labels: {[", r"_topic\.yaml is not valid YAML"),
        (
            "topic/am.yaml",
            "language: am",
            f"language: {'[' * 60_000}",
            r"am\.yaml is not valid YAML \(more than",
        ),
        (
            "topic/am.yaml",
            "language: am",
            f"language: {'[' * 9_000}",
            r"am\.yaml is not valid YAML \(line 4: did not",
        ),
        (
            "topic/am.yaml",
            "metadata:",
            f"{'- ' * 60_000}a\nmetadata:",
            r"am\.yaml is not valid YAML \(more than",
        ),
        ("sentiment/he.yaml", "dataset_path", "dataset", r"the key 'dataset_path' is missing"),
        ("topic/am.yaml", "metadata: {version: 1.0, language: am}", "metadata: 5", r"'language' is missing"),
        ("topic/am.yaml", "language: am", "language: he", r"am\.yaml: the metadata name the language 'he'"),
    ],
)
def test_a_mistake_in_a_task_file_is_one_line_that_names_the_file(tasks, file, old, new, words):
    edit(tasks / file, old, new)
    with pytest.raises(UserError, match=words) as caught:
        load_suite(str(tasks / "steer11.yaml"))
    assert str(tasks / Path(file).parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_language_without_a_task_file_is_one_clear_error(tasks):
    edit(tasks / "steer11.yaml", "languages: [am,", "languages: [xx, am,")
    with pytest.raises(UserError, match=r"sentiment/xx\.yaml does not exist"):
        load_suite(str(tasks / "steer11.yaml"))


def test_an_unknown_suite_is_told_the_names_there_are():
    with pytest.raises(UserError, match=r"unknown suite 'steer1'; valid: mini, .*, tiny-real\. Did you mean"):
        load_suite("steer1")


def test_a_suite_file_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_suite(str(tmp_path / "none.yaml"))


def test_yaml_that_would_run_code_is_refused(tasks):
    path = edit(tasks / "steer11.yaml", "version: 1", "version: !!python/object/apply:os.getpid []")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_suite(str(path))


def test_a_suite_file_without_task_folders_uses_the_shipped_tasks(tmp_path):
    path = tmp_path / "mine.yaml"
    shutil.copy(TASKS / "steer11.yaml", path)
    assert load_suite(str(path)).hash == load_suite("steer11").hash


# Identity


def test_the_hash_changes_with_a_prompt_and_not_with_the_place(tasks):
    path = str(tasks / "steer11.yaml")
    before = load_suite(path)
    assert before.hash == load_suite("steer11").hash
    edit(tasks / "topic" / "_topic.yaml", "Generate a long wiki style", "Write a long wiki style")
    after = load_suite(path)
    assert after.hash != before.hash
    assert after.text_protocol("topic", "am") != before.text_protocol("topic", "am")
    assert after.text_protocol("sentiment", "am") == before.text_protocol("sentiment", "am")


def test_a_change_of_the_scores_alone_leaves_the_texts_their_identity(tasks):
    path = edit(tasks / "steer11.yaml", "ngrams: 500", "ngrams: 501")
    changed, shipped = load_suite(str(path)), load_suite("steer11")
    assert changed.hash != shipped.hash
    assert changed.text_protocol("topic", "am") == shipped.text_protocol("topic", "am")


@pytest.mark.parametrize("old", ["temperature: 0.8", "shots: 5", "word_noise: 0.3"])
def test_a_change_of_what_decides_texts_changes_their_identity(tasks, old):
    path = edit(tasks / "steer11.yaml", old, old[:-1] + "2")
    assert load_suite(str(path)).text_protocol("topic", "am") != load_suite("steer11").text_protocol("topic", "am")


def test_a_suite_comes_back_whole_from_the_json_of_a_manifest():
    suite = load_suite("steer11")
    restored = restore_suite(json.loads(json.dumps(suite.dump())))
    assert restored.hash == suite.hash
    # The format of prompts is chosen before a manifest is written, and those of other formats are left out.
    assert restored.task("topic", "he") == suite.task("topic", "he").model_copy(update={"base_prompt": ""})


@pytest.mark.parametrize("body", [{}, {"definitions": {}}, {"schema": 1}])
def test_a_manifest_without_a_suite_is_one_clear_error(body):
    with pytest.raises(UserError, match="the manifest's suite is not readable"):
        restore_suite(body)


# lm-eval


@pytest.fixture(scope="module")
def manager():
    tasks = pytest.importorskip("lm_eval.tasks")
    return lambda path: tasks.TaskManager(include_path=str(path), include_defaults=False)


def test_lm_eval_lists_every_task_file(manager):
    wanted = {f"steerboard_{task}_{code}" for task in ("sentiment", "topic") for code in ELEVEN}
    listed = manager(TASKS)
    assert set(listed.all_subtasks) == wanted | {"steerboard_topic_en"}
    assert set(listed.all_tags) == {"steerboard", "steerboard_sentiment", "steerboard_topic"}


def built_on_local_rows(manager, tmp_path, file, rows):
    """Build a task of lm-eval from rows on disk: a task file that includes ours and names the rows."""
    data = {split: str(jsonl(tmp_path / f"{split}.jsonl", rows)) for split in ("train", "validation", "test")}
    body = {
        "include": str(TASKS / file),
        "task": "local",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": data, "cache_dir": str(tmp_path / "cache")},
    }
    folder = tmp_path / "lm_eval"
    folder.mkdir()
    (folder / "local.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    task = manager(folder).load("local")["tasks"]["local"]
    return [(task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)) for doc in task.test_docs()]


def test_lm_eval_asks_a_sentiment_task_as_multiple_choice(manager, tmp_path):
    rows = [{"text": "እወዳለሁ", "label": 1}, {"text": "አልወድም", "label": 0}]
    choices = ["negative", "positive"]
    assert built_on_local_rows(manager, tmp_path, "sentiment/am.yaml", rows) == [
        ("እወዳለሁ\nSentiment:", choices, 1),
        ("አልወድም\nSentiment:", choices, 0),
    ]


def test_lm_eval_drops_neutral_czech_comments_as_we_do(manager, tmp_path):
    rows = [
        {"comment": "a", "sentiment_int": -1},
        {"comment": "b", "sentiment_int": 0},
        {"comment": "c", "sentiment_int": 1},
    ]
    built = built_on_local_rows(manager, tmp_path, "sentiment/cs.yaml", rows)
    assert [(text, target) for text, _, target in built] == [("a\nSentiment:", 0), ("c\nSentiment:", 1)]


def test_lm_eval_asks_a_topic_task_for_one_of_our_labels(manager, tmp_path):
    rows = [{"index_id": 7, "text": "a", "category": "politics"}]
    [(text, choices, target)] = built_on_local_rows(manager, tmp_path, "topic/he.yaml", rows)
    assert text == "a\nTopic:"
    assert choices == load_suite("steer11").task("topic", "he").labels
    assert target in ("politics", choices.index("politics"))
