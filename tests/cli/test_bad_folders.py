"""Folders of models, data and runs that are not right: one line, and nothing is changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.helpers import MINI, Outcome, forget_hash, snapshot, steerboard, toy_llm
from support.references import BASE, assert_line, finished_references
from support.references import run_references as run

ROLES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of two cells."""
    return finished_references(tmp_path_factory)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def llm(tmp_path_factory) -> Path:
    return toy_llm(tmp_path_factory.mktemp("models") / "toy")


# Folders that hold no model


def spoil_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)


MODELS = {
    "empty": (lambda f: [p.unlink() for p in f.iterdir()], r"holds no model: config\.json is missing"),
    "broken config": (lambda f: spoil_config(f, "{"), r"holds no model: config\.json is not valid JSON"),
    "a list": (lambda f: spoil_config(f, "[]"), r"config\.json holds a JSON list, not an object"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"no \*\.safetensors file\. Other weight formats are not loaded, since they may run code",
    ),
    "half a download": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        r"model\.safetensors is truncated or not safetensors",
    ),
    "no weights in it": (
        lambda f: (f / "model.safetensors").write_bytes(b"hello"),
        r"model\.safetensors is truncated or not safetensors",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_that_holds_no_model_is_one_line(finished, llm, tmp_path, name):
    spoil, words = MODELS[name]
    folder = Path(shutil.copytree(llm, tmp_path / "model"))
    spoil(folder)
    before = snapshot(finished)
    assert_line(run(finished, methods="zero-shot", model=folder), words)
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [('"model_type": "llama"', '"model_type": "abacus"'), ('"hidden_size": 16', '"hidden_size": 24')],
    ids=["unknown type", "other shape"],
)
def test_a_model_that_does_not_load_ends_the_run_before_it_is_written_down(llm, tmp_path, old, new):
    folder = Path(shutil.copytree(llm, tmp_path / "model"))
    config = (folder / "config.json").read_text()
    assert old in config
    spoil_config(folder, config.replace(old, new))
    outcome = run(tmp_path / "run", methods="zero-shot", model=folder)
    assert outcome.code == 2
    assert "cannot be loaded as a causal LM" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_model_that_lacks_weights_is_not_run_with_random_ones(llm, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(llm, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    outcome = run(tmp_path / "run", methods="zero-shot", model=folder)
    assert outcome.code == 2
    words = r"model is missing 1 weights, such as model\.layers\.1\.mlp\.up_proj\.weight"
    assert re.search(words, outcome.err.splitlines()[-1])
    assert not (tmp_path / "run" / "manifest.json").exists()


# Data


@pytest.fixture
def data(tmp_path) -> Path:
    """A copy of the mini suite's text in Amharic sentiment, and the parallel text of all languages."""
    folder = tmp_path / "data"
    for part in ("sentiment/am", "topic/am", "parallel"):
        shutil.copytree(MINI / "data" / part, folder / part)
    for code in ("cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"):
        for task in ("sentiment", "topic"):
            shutil.copytree(MINI / "data" / task / code, folder / task / code)
    return folder


@pytest.mark.parametrize(
    "name", [f"sentiment/am/{split}.jsonl" for split in ROLES] + ["parallel/am.jsonl", "parallel/en.jsonl"]
)
def test_missing_data_is_one_line_and_nothing_is_written_down(data, tmp_path, name):
    (data / name).unlink()
    assert_line(run(tmp_path / "run", data=data), rf"missing data: {data}/{name} does not exist")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_same_command_works_once_the_data_is_there(data, tmp_path):
    hidden = (data / "sentiment" / "am" / "train.jsonl").rename(tmp_path / "hidden")
    options = {**BASE, "--data": data, "--run": tmp_path / "run"}
    words = ["run", *(word for pair in options.items() for word in pair)]
    assert_line(steerboard(*words), "missing data")
    hidden.rename(data / "sentiment" / "am" / "train.jsonl")
    assert steerboard(*words).code == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "x", "text": "a", "label": "neutral"}', r"train\.jsonl, row 101: the label 'neutral' is not one of"),
        ('{"id": "x", "text": " ", "label": "positive"}', r"train\.jsonl, row 101: needs a non-empty 'text'"),
        ('{"id": "x", "te', r"train\.jsonl, line 101 is not valid JSON"),
        ("[]", r"train\.jsonl, line 101 holds a JSON list"),
    ],
)
def test_a_broken_row_is_named(data, tmp_path, line, words):
    with (data / "sentiment" / "am" / "train.jsonl").open("a") as file:
        file.write(line + "\n")
    assert_line(run(tmp_path / "run", data=data), words)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_other_data_does_not_go_into_the_folder(finished, data):
    before = snapshot(finished)
    path = data / "sentiment" / "am" / "train.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert_line(run(finished, data=data), r"holds a run on other data\. Choose another --run folder")
    assert snapshot(finished) == before


def test_scores_are_not_computed_on_other_data(finished, data):
    before = snapshot(finished)
    path = data / "sentiment" / "am" / "train.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    words = r"the data of sentiment/am in .* is not what the run was made with"
    assert_line(steerboard("score", finished, "--data", data), words)
    assert snapshot(finished) == before


# Folders that cannot be written


def test_a_run_below_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        assert_line(run(folder), r"cannot write .*Choose another --run folder")
    assert (tmp_path / "file").read_text() == "x"


def test_a_page_below_a_file_is_one_line(finished, tmp_path):
    (tmp_path / "file").write_text("x")
    outcome = steerboard("board", "build", finished, "--out", tmp_path / "file" / "site")
    assert_line(outcome, r"cannot write .*Choose a folder that can be written")


# Run folders with files that are not ours

SPOILS = {
    "truncated": (lambda old: old[: len(old) // 2], r"truncated or was not written by steerboard"),
    "empty": (lambda old: b"", r"truncated or was not written by steerboard"),
    "foreign": (lambda old: b'{"name": "other"}', r"no integer 'schema'. It was not written by steerboard"),
    "newer": (lambda old: old.replace(b'"schema": 1', b'"schema": 9'), r"reads up to 1\. Upgrade"),
    "further keys": (lambda old: old.replace(b"{", b'{"x": 1, ', 1), r"x: Extra inputs are not permitted"),
    "binary": (lambda old: b"\x89PNG\xff", r"is not UTF-8"),
}


def first_cell(folder: Path) -> Path:
    return sorted((folder / "cells").iterdir())[0]


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("name", ["manifest.json", "status.json", "scores.json"])
def test_a_file_that_is_not_ours_is_one_line_for_every_command(copy, tmp_path, name, spoil):
    path = copy / name if name == "manifest.json" else first_cell(copy) / name
    change, words = SPOILS[spoil]
    path.write_bytes(change(path.read_bytes()))
    spoilt = path.read_bytes()
    for outcome in (
        run(copy),
        steerboard("score", copy),
        steerboard("board", "build", copy, "--out", tmp_path / "site"),
    ):
        assert_line(outcome, words)
        assert str(path) in outcome.err
    assert path.read_bytes() == spoilt
    assert not (tmp_path / "site").exists()


GENERATIONS = {
    "half a line": (lambda old: old[:-20], r"generations\.jsonl, line 4 is not valid JSON"),
    "half the lines": (lambda old: b"".join(old.splitlines(True)[:2]), r"holds 2 texts, not 2 for each of 2"),
    "empty": (lambda old: b"", r"holds 0 texts, not 2 for each of 2 labels"),
    "foreign": (
        lambda old: b'{"name": "other"}\n',
        r"generations\.jsonl, line 1 is not a text of steerboard \(index: Field required",
    ),
}


@pytest.mark.parametrize("spoil", GENERATIONS)
def test_texts_that_are_not_whole_are_never_scored(copy, spoil):
    """In a folder of before texts had a hash; with one they are written again (test_damaged_files)."""
    forget_hash(first_cell(copy))
    path = first_cell(copy) / "generations.jsonl"
    scores = (first_cell(copy) / "scores.json").read_bytes()
    change, words = GENERATIONS[spoil]
    path.write_bytes(change(path.read_bytes()))
    for outcome in (run(copy), steerboard("score", copy)):
        assert outcome.code == 2
        progress, *error = outcome.err.splitlines()
        assert progress == "score: 1 cells"
        assert_line(Outcome(2, "", "\n".join(error)), words)
    assert (first_cell(copy) / "scores.json").read_bytes() == scores


def test_a_run_in_use_is_one_line(finished):
    from harness.core.store import Run

    before = snapshot(finished)
    with Run(finished).lock():
        assert_line(run(finished), r"is in use by another steerboard")
        assert_line(steerboard("score", finished), r"is in use by another steerboard")
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    "words",
    [
        "run --suite mini --run {}",
        "run --suite mini --run runs/x --data {}",
        "work {}",
        "score {}",
        "status {}",
        "board build runs {} --out site",
        "board build runs --out {}",
        "push {} memory://x",
        "pull memory://x {}",
        "vectors show {}",
    ],
)
@pytest.mark.parametrize("url", ["s3://KEY:hunter2@bucket/gemma", "memory://x"])
def test_a_url_in_the_place_of_a_folder_is_one_line_and_makes_none(words, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = steerboard(*words.format(url).split()).one_line()
    shown = url.replace("KEY:hunter2", "***")
    assert f"{shown} is a URL; give a folder or file of this machine. Runs are copied from and to a storage" in line
    assert "steerboard pull URL RUN" in line
    assert not list(tmp_path.iterdir())


def test_the_url_of_a_file_names_its_path():
    line = steerboard("status", "file:///runs/gemma").one_line()
    assert line.endswith("file:///runs/gemma is a URL. Give the path: /runs/gemma.")
