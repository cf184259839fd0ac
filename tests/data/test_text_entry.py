"""Text from outside: broken characters, huge numbers, byte order marks, ids and keys that stand twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.helpers import MINI, jsonl, steerboard

from harness.core.errors import UserError
from harness.core.reading import read_json, read_jsonl
from harness.core.store import Run
from harness.data.contrast import ContrastFolder, read_published
from harness.data.corpus import Corpus
from harness.data.sources import Example, HubData, LocalData, Sentence
from harness.data.suite import load_suite
from harness.ranking.gate.baseline import read_checksummed
from harness.tracks.forcing.questions import load_questions

SURROGATE = '{"id": "2", "text": "ጥሩ ቀን \\ud83d", "label": "positive"}\n'
BIG = '{"id": "2", "text": "יום טוב", "label": "positive", "n": ' + "9" * 5000 + "}\n"
FINE = '{"id": "1", "text": "ጥሩ ቀን", "label": "positive"}\n'
BASE_60 = "n: " + ":".join(["59"] * 4000)  # YAML 1.1: a number of 7,000 digits


def in_data(folder: Path, text: str) -> object:
    path = folder / "sentiment" / "am" / "train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return LocalData(folder).rows(load_suite("mini").task("sentiment", "am"), "train")


def in_parallel_text(folder: Path, text: str) -> object:
    path = folder / "parallel" / "am.jsonl"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return LocalData(folder).parallel("am")


def in_contrast_text(folder: Path, text: str) -> object:
    (folder / "am.jsonl").write_text(text.replace('"text"', '"bad": "b", "good"'), encoding="utf-8")
    return ContrastFolder(folder).pairs("am")


def in_texts_of_a_run(folder: Path, text: str) -> object:
    path = folder / "cells" / "c" / "generations.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace('"id"', '"finish_reason": "stop", "index": 1, "id"'), encoding="utf-8")
    return Run(folder).generations("c")


ENTRIES = [in_data, in_parallel_text, in_contrast_text, in_texts_of_a_run]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("line", "what"), [(SURROGATE, "holds half a character"), (BIG, "holds a number that is too long")]
)
def test_a_broken_line_is_named_with_its_file(tmp_path, entry, line, what):
    with pytest.raises(UserError, match=rf"\.jsonl, line 2 {what}"):
        entry(tmp_path, FINE + line)


def test_both_halves_of_a_character_are_one(tmp_path):
    rows = '{"id": "1", "text": "\\ud83d\\ude00 \\u12a0"}\n'
    assert in_parallel_text(tmp_path, rows) == [Sentence("1", "😀 አ")]


@pytest.mark.parametrize("entry", [in_data, in_parallel_text])
def test_a_byte_order_mark_and_line_breaks_of_windows_change_nothing(tmp_path, entry):
    text = FINE + FINE.replace('"1"', '"2"').replace("ጥሩ ቀን", "יום טוב")
    (tmp_path / "plain").mkdir()
    (tmp_path / "marked").mkdir()
    plain = entry(tmp_path / "plain", text)
    assert entry(tmp_path / "marked", "\ufeff" + text.replace("\n", "\r\n")) == plain
    assert [row.text for row in plain] == ["ጥሩ ቀን", "יום טוב"]


def test_published_files_and_json_are_read_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "am.json"
    path.write_text('\ufeff{"good": ["ሀ"], "bad": ["ለ"]}', encoding="utf-8")
    assert [(pair.original, pair.degraded) for pair in read_published(path)] == [("ሀ", "ለ")]
    assert read_json(path) == {"good": ["ሀ"], "bad": ["ለ"]}


@pytest.mark.parametrize("text", ['{"good": ["\\ud83d"], "bad": ["a"]}', '{"good": [' + "9" * 5000 + "]}"])
def test_a_published_file_that_is_broken_is_one_line(tmp_path, text):
    (tmp_path / "am.json").write_text(text)
    with pytest.raises(UserError, match=r"am\.json"):
        read_published(tmp_path / "am.json")


@pytest.mark.parametrize("content", ['"\\ud83d"', "1e999", "9" * 5000])
def test_a_baseline_that_is_broken_is_one_line(tmp_path, content):
    path = tmp_path / "base.json"
    path.write_text('{"kind": "baseline", "schema": 1, "sha256": "0", "content": ' + content + "}\n")
    with pytest.raises(UserError, match=r"base\.json was edited by hand or damaged"):
        read_checksummed(path)


# YAML: cards, suites, questions


def test_a_card_of_base_60_is_one_line_in_check_list_and_board(tmp_path):
    folder = tmp_path / "submissions" / "mine"
    folder.mkdir(parents=True)
    (folder / "submission.yaml").write_text(BASE_60)
    root = folder.parent
    checked = steerboard("submission", "check", folder)
    assert checked.code == 1
    assert "a number of too many digits" in checked.out
    listed = steerboard("submission", "list", root)
    assert "a number of too many digits" in listed.out + listed.err
    built = steerboard("board", "build", root, "--out", tmp_path / "site")
    assert "a number of too many digits" in built.err
    assert all("Traceback" not in done.out + done.err for done in (checked, listed, built))
    assert len(built.err.splitlines()) == 1


@pytest.mark.parametrize("old", ["seeds: [1, 2, 3]", "description: "])
def test_a_suite_with_such_a_value_is_one_line(tmp_path, old):
    text = (MINI.parent / "mini.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, f"{BASE_60}\n{old}"), encoding="utf-8")
    assert "a number of too many digits" in steerboard("run", "--suite", path).one_line()


def test_questions_with_an_id_twice_are_refused(tmp_path):
    path = tmp_path / "questions.yaml"
    path.write_text("questions:\n  q1: {am: ሀ, he: א}\n  q1: {am: ለ, he: ב}\nvalidation: []\n", encoding="utf-8")
    with pytest.raises(UserError, match="'q1' appears twice"):
        load_questions(path)


# Ids


def test_parallel_sentences_of_one_id_are_refused_with_id_and_file(tmp_path):
    rows = [{"id": "x", "text": f"ዓረፍተ ነገር {i}"} for i in range(3)]
    path = jsonl(tmp_path / "parallel" / "am.jsonl", rows)
    with pytest.raises(UserError, match=r"am\.jsonl, row 2: the id 'x' is that of row 1 already"):
        LocalData(tmp_path).parallel("am")
    path.rename(path.parent / "kept")
    jsonl(tmp_path / "parallel_mt" / "noise" / "am.jsonl", rows)
    with pytest.raises(UserError, match="the id 'x' is that of row 1"):
        LocalData(tmp_path).degraded("noise", "am")


def test_a_number_and_its_digits_are_one_id(tmp_path):
    jsonl(tmp_path / "parallel" / "he.jsonl", [{"id": 7, "text": "א"}, {"id": "7", "text": "ב"}])
    with pytest.raises(UserError, match="the id '7' is that of row 1"):
        LocalData(tmp_path).parallel("he")


def test_labelled_texts_of_one_id_are_refused_too(tmp_path):
    with pytest.raises(UserError, match=r"train\.jsonl, row 2: the id '1' is that of row 1"):
        in_data(tmp_path, FINE + FINE)


def test_contrast_pairs_of_one_id_are_refused(tmp_path):
    jsonl(tmp_path / "am.jsonl", [{"id": "x", "good": "ሀ", "bad": "ለ"}, {"id": "x", "good": "መ", "bad": "ሠ"}])
    with pytest.raises(UserError, match="row 2: the id 'x' is that of row 1"):
        ContrastFolder(tmp_path).pairs("am")


def test_rows_of_the_hub_with_one_id_are_refused(monkeypatch):
    import datasets

    from harness.data import sources as data

    suite = load_suite("steer11")
    task = suite.task("topic", "am")
    labels = list(task.label_map) or task.labels
    names = {"id": [7, 7], "text": ["ሀ", "ለ"], "label": [labels[0]] * 2}
    columns = {called: names[field] for field, called in task.fields.items()}
    table = {split: datasets.Dataset.from_dict(columns) for split in task.splits.values() if split}
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: table)
    monkeypatch.setattr(data, "_snapshot", lambda *a: "/hub/abc")
    with pytest.raises(UserError, match="the id '7' is that of row 1"):
        HubData(suite).parallel("am")


def test_the_data_that_ships_has_each_id_once(mini):
    source = LocalData(MINI / "data")
    for code in ("am", "he"):
        assert len(source.parallel(code)) == 100
        assert source.rows(mini.task("topic", code), "test")
    assert isinstance(Corpus(mini, source).split("sentiment", "he", "test")[0], Example)


# lm-eval's own reader of the same files


@pytest.fixture(scope="module")
def task_rows() -> Callable[..., list[dict[str, str]]]:
    pytest.importorskip("lm_eval")
    import runpy

    return runpy.run_path(str(MINI.parent / "common" / "utils.py"))["_rows"]


def test_lm_eval_reads_the_same_files_in_the_same_way(task_rows, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("\ufeff" + FINE, encoding="utf-8")
    assert list(task_rows(path, ["positive"])) == [{"id": "1", "text": "ጥሩ ቀን", "label": "positive"}]
    for text, what in (
        (FINE + SURROGATE, "line 2"),
        (FINE + BIG, "line 2"),
        (FINE + FINE, "'1' is there twice"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=what):
            task_rows(path, ["positive"])


def test_a_file_of_lines_holds_one_object_a_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"a": "\u2028"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_jsonl(path) == [{"a": "\u2028"}]
