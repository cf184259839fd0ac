"""The mini suite's own text and model: enough text, splits kept apart, made by the scripts beside them."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.helpers import MINI, contents, python, steerboard

from harness.core.store import Run
from harness.data.corpus import normalise
from harness.data.suite import load_suite
from harness.ranking.results import collect
from harness.ranking.values import collect_metric
from harness.runner import prepare as options
from harness.scoring.classifiers import ClassifierScorer
from harness.scoring.metrics import macro_f1
from harness.scoring.scorer import ScorerOutput
from harness.scoring.validity import CheckedTexts, ValidityScorer

slow = pytest.mark.slow
LANGUAGES = ["am", "cs", "da", "de", "en", "he", "id", "jv", "mt", "sk", "sl", "su"]
TASKS = ["sentiment", "topic"]
ENOUGH = {"train": 40, "validation": 10, "test": 15}  # texts per label and language
MEGABYTES = 10**6
SCRIPT = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def rows(part: str) -> list[dict[str, str]]:
    lines = (MINI / "data" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def phrases(language: str) -> dict:
    return yaml.safe_load((MINI / "phrases" / f"{language}.yaml").read_text(encoding="utf-8"))


def split_phrases(language: str, task: str, split: str) -> list[str]:
    """Return every phrase of a split, the frames among them."""
    return [text for group in phrases(language)[task].values() for text in group[split]]


each_language = pytest.mark.parametrize("language", LANGUAGES)
each_task = pytest.mark.parametrize("task", TASKS)


# Text


@each_task
@each_language
def test_there_is_enough_text_for_every_label(language, task):
    labels = load_suite("mini").task(task, "am").labels
    for split, least in ENOUGH.items():
        counts = Counter(row["label"] for row in rows(f"{task}/{language}/{split}"))
        assert set(counts) == set(labels)
        assert min(counts.values()) >= least


@each_task
@each_language
def test_no_text_is_empty_or_comes_twice(language, task):
    texts = [normalise(row["text"]) for split in ENOUGH for row in rows(f"{task}/{language}/{split}")]
    assert all(texts)
    assert len(set(texts)) == len(texts)


@each_task
@each_language
def test_no_phrase_of_a_split_is_met_in_another(language, task):
    found = [normalise(text) for split in ENOUGH for text in split_phrases(language, task, split)]
    assert [text for text, count in Counter(found).items() if count > 1] == []


@each_language
def test_the_text_for_vectors_holds_no_phrase_of_validation_or_test(language):
    held_out = {
        normalise(text)
        for task in TASKS
        for split in ("validation", "test")
        for text in split_phrases(language, task, split)
    }
    vector_text = [normalise(row["text"]) for row in rows(f"parallel/{language}")]
    assert not [text for text in vector_text if any(phrase in text for phrase in held_out)]


@each_language
def test_equal_ids_name_the_same_sentence_in_every_language(language):
    assert [row["id"] for row in rows(f"parallel/{language}")] == [row["id"] for row in rows("parallel/en")]
    for task in TASKS:
        for split in ENOUGH:
            ours, english = rows(f"{task}/{language}/{split}"), rows(f"{task}/en/{split}")
            assert {row["id"] for row in ours} == {row["id"] for row in english}


@each_language
def test_degraded_text_is_the_parallel_text_with_words_lost_moved_or_repeated(language):
    good, bad = rows(f"parallel/{language}"), rows(f"parallel_mt/noise/{language}")
    assert [row["id"] for row in good] == [row["id"] for row in bad]
    changed = [a["text"] != b["text"] for a, b in zip(good, bad, strict=True)]
    assert sum(changed) / len(changed) > 0.7
    assert all(set(b["text"].split()) <= set(a["text"].split()) for a, b in zip(good, bad, strict=True))


@pytest.mark.parametrize(("language", "first", "last"), [("am", "\u1200", "\u137f"), ("he", "\u05d0", "\u05ea")])
def test_each_script_is_its_own(language, first, last):
    for task in TASKS:
        for row in rows(f"{task}/{language}/train"):
            alphabetic = [sign for sign in row["text"] if sign.isalpha()]
            assert all(first <= sign <= last for sign in alphabetic), row["text"]


def module(path: Path):
    spec = importlib.util.spec_from_file_location(f"mini_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_data_folder_is_what_the_script_composes_from_the_phrases(tmp_path):
    module(MINI / "build.py").build(MINI / "phrases", tmp_path)
    assert contents(tmp_path) == contents(MINI / "data")


# How much the text tells


class AllValid(ValidityScorer):
    """Checks nothing."""

    def check(self, texts, labels, context):
        return CheckedTexts(np.ones(len(texts), dtype=bool), [[] for _ in texts], [context.language] * len(texts))

    def score(self, sample, context):
        return ScorerOutput([], {"valid": sample.valid.tolist()})


@pytest.fixture(scope="module")
def ceiling(tmp_path_factory):
    """Macro-F1 of human text, mean over the seeds, by task and language.

    It takes 8 and 5 texts a label, twice as many as the suite asks for: with those, chance decides in a language.
    """
    folder, every = tmp_path_factory.mktemp("ceiling"), options.build_scorers
    text = MINI.with_suffix(".yaml").read_text(encoding="utf-8")
    for old, new in ((" mini/", f" {MINI}/"), ("texts_per_label: 4", "texts_per_label: 8"), ("label: 2", "label: 5")):
        assert old in text
        text = text.replace(old, new)
    (folder / "mini.yaml").write_text(text, encoding="utf-8")

    def scorers(*given):  # what else is scored takes most of the time
        return [AllValid(lambda: None), *(part for part in every(*given) if isinstance(part, ClassifierScorer))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "build_scorers", scorers)
        outcome = steerboard("run", "--suite", folder / "mini.yaml", "--methods", "human", "--run", folder / "run")
    assert outcome.code == 0, outcome.err
    [results] = collect([Run(folder / "run")])
    array = collect_metric(results, macro_f1("tfidf"), resample=False)
    return dict(zip(array.task_languages, array.values.mean(axis=(0, 2)), strict=True))


@slow
@each_task
@pytest.mark.parametrize("language", load_suite("mini").languages)
def test_human_text_leaves_room_above_and_below(ceiling, language, task):
    assert 0.6 <= ceiling[task, language] <= 0.95


# Model


def test_the_model_is_small_and_holds_nothing_that_would_be_unpickled():
    files = {path.name: path.stat().st_size for path in (MINI / "pocketlm").iterdir()}
    assert files["model.safetensors"] < 6 * MEGABYTES
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".jinja"}


def test_the_model_writes_chat_turns_in_all_languages():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MINI / "pocketlm")
    turn = [{"role": "user", "content": "x"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text.count(tokenizer.bos_token) == 1
    for language in LANGUAGES:
        sentence = rows(f"parallel/{language}")[0]["text"]
        ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == sentence


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What two steps of training write."""
    folder = tmp_path_factory.mktemp("trained")
    python(SCRIPT, MINI / "train.py", "--steps", "2", "--out", folder)
    return contents(folder)


@slow
def test_training_twice_gives_the_same_files(trained, tmp_path):
    module(MINI / "train.py").train(steps=2, seed=1, out=tmp_path)  # here, and there in a second process
    assert "model.safetensors" in trained
    assert contents(tmp_path) == trained


@slow
def test_the_tokenizer_is_the_one_that_training_makes(trained):
    made, kept = trained, contents(MINI / "pocketlm")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        assert made[name] == kept[name]
