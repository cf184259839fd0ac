"""The format of submissions: the published schema, and strict readers of foreign files."""

from __future__ import annotations

import gzip
import json
import shutil
import time
import tracemalloc
import zlib

import jsonschema
import pytest
import yaml
from support.helpers import ROOT, steerboard
from support.submitting import WHO

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.submissions.card import Card, card_text, json_schema, read_card
from harness.submissions.files import MAX_BYTES, MAX_UNPACKED_BYTES, MIB, InvalidSubmissionError, StrictReader, scan
from harness.submissions.pack import name_alone, without_folders
from harness.submissions.submission import find

BODY = {
    "schema": 2,
    "name": "my-method",
    "version": 1,
    "authors": [{"name": "አበበ በቀለ", "orcid": "0000-0002-1825-0097"}, {"name": "דנה לוי", "affiliation": "Univ."}],
    "contact": "https://example.org/me",
    "licence": "CC-BY-4.0",
    "paper": "2606.18389",
    "method": {"name": "my-method", "version": "1", "does": "Adds a direction. Source: own work."},
    "type": "vectors",
    "config": {"layer": 0.5, "strength": 2e-05, "positions": "all", "deep": {"list": [1, 2.5, None]}},
    "models": [{"name": "google/gemma-2-9b-it", "revision": "abc", "fingerprint": "abc", "dtype": "bfloat16"}],
    "suite": {"name": "mini", "hash": "0123456789abcdef"},
    "compute": {"device": "cuda:0", "hours": 1.5},
    "tuned_on": {"split": "validation", "words": "12 strengths"},
    "files": {"steering/0123456789abcdef.safetensors": "0" * 64},
    "results": [
        {
            "model": "google/gemma-2-9b-it",
            "folder": "google--gemma-2-9b-it",
            "n_cells": 3,
            "n_expected": 132,
            "hashes": "1" * 64,
        }
    ],
}


def refused(call, *words):
    """Return the message of what a reader refuses; it names the file and what to do, in one line."""
    with pytest.raises(InvalidSubmissionError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line
    assert error.value.name
    assert error.value.hint
    assert all(word in line for word in words), line
    return line


def reader(folder, path, data):
    """Return the reader of a directory that holds one file."""
    (folder / path).write_bytes(data)
    return StrictReader(folder)


def test_the_published_schema_is_the_one_of_the_code():
    published = json.loads((ROOT / "docs" / "submission-schema.json").read_text(encoding="utf-8"))
    assert published == json_schema()


def test_schema_and_code_agree_on_a_card():
    validator = jsonschema.Draft202012Validator(json_schema())
    assert list(validator.iter_errors(BODY)) == []
    assert Card.model_validate(BODY).name == "my-method"
    for field in ("name", "authors", "contact", "licence", "method", "type", "suite", "compute", "tuned_on"):
        lacking = {key: value for key, value in BODY.items() if key != field}
        assert list(validator.iter_errors(lacking)), field
        with pytest.raises(ValueError, match=field):
            Card.model_validate(lacking)
    for field in ("extra", "Schema"):
        assert list(validator.iter_errors({**BODY, field: 1}))
        with pytest.raises(ValueError, match=field):
            Card.model_validate({**BODY, field: 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../up"),
        ("name", "ስም"),
        ("name", ".hidden"),
        ("name", "a/b"),
        ("name", "a\n"),
        ("version", 0),
        ("version", True),
        ("version", 1.5),
        ("contact", "me"),
        ("contact", "javascript:alert(1)"),
        ("contact", "http://example.org"),
        ("licence", "CC BY"),
        ("paper", "somewhere"),
        ("authors", []),
        ("authors", [{"name": "a\u202eb"}]),
        ("authors", [{"name": " "}]),
        ("compute", {"device": "cpu", "hours": float("inf")}),
        ("compute", {"device": "cpu", "hours": -1}),
        ("tuned_on", {"split": "test", "words": "it"}),
        ("type", "other"),
        ("type", "steering"),
        ("type", "outputs"),  # with steering files
        ("entry_point", "os.system('x')"),
        ("files", {"../method.py": "0" * 64}),
        ("files", {"steering/0123456789abcdef.safetensors": "xyz"}),
        ("results", [{**BODY["results"][0], "folder": "other"}]),
        ("results", [{**BODY["results"][0], "n_cells": 133}]),
        ("results", [*BODY["results"], *BODY["results"]]),
        ("models", []),
    ],
)
def test_a_card_with_a_bad_value_is_refused(field, value):
    with pytest.raises(ValueError, match=r"."):
        Card.model_validate({**BODY, field: value})


def test_a_card_of_schema_1_is_read_and_its_words_are_not_mixed_with_new_ones():
    [result] = BODY["results"]
    renamed = {"n_cells": "cells", "n_expected": "of"}
    old = {name: value for name, value in BODY.items() if name != "type"} | {"schema": 1, "road": "steering"}
    old["results"] = [{renamed.get(name, name): value for name, value in result.items()}]
    assert Card.model_validate(old) == Card.model_validate(BODY)
    assert Card.model_validate(old).subject == "8fe0bd5d07357e5248b9b4be2d0bfaf4d08c762bdfe1da1f13975179c3ec405e"
    for mixed in ({**BODY, "schema": 1}, {**old, "schema": 2}, {**old, "type": "vectors"}, {**old, "schema": True}):
        with pytest.raises(ValueError, match=r"schema|road"):
            Card.model_validate(mixed)


def test_a_card_is_the_same_after_it_was_written(tmp_path):
    card = Card.model_validate(BODY)
    (tmp_path / "submission.yaml").write_text(card_text(card), encoding="utf-8")
    assert read_card(StrictReader(tmp_path)) == card
    assert yaml.safe_load(card_text(card))["config"] == BODY["config"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1\na: 2\n", "twice"),
        ("a: {b: 1, b: 1}\n", "twice"),
        ("a: &x [1]\nb: *x\n", "references"),
        ("a: !!python/object/apply:os.system [x]\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("<<: {a: 1}\n", "not a plain word"),
        ("1: a\n", "not text"),
        ("[1, 2]\n", "not hold a YAML mapping"),
        ("a: [\n", "not valid YAML"),
        ("a: " + "[" * 100 + "]" * 100 + "\n", "nested"),
        ("a: " + "[" * 20_000 + "\n", "nested"),
        ("- 1\n" * 30_000, "more than"),
        ("a: " + "9" * 10_000 + "\n", "digits"),
        ("? [a]\n: 1\n", "not a plain word"),
        ("a: 1\n---\nb: 1\n", "not valid YAML"),
        ("a: \x00\n", "not valid YAML"),
        ("", "not hold a YAML mapping"),
    ],
)
def test_yaml_that_could_mislead_is_refused(tmp_path, text, word):
    started = time.monotonic()
    refused(lambda: reader(tmp_path, "submission.yaml", text.encode()).yaml("submission.yaml"), word)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[1]", "not an object"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested"),
        (b'{"a": ' + b"[" * 1_000_000, "nested"),
        (b'{"a": 1', "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": "ሰላም"}'.encode("utf-16"), "UTF-8"),
        (b'{"a": "\xe9"}', "UTF-8"),
    ],
)
def test_json_that_could_mislead_is_refused(tmp_path, data, word):
    refused(lambda: reader(tmp_path, "status.json", data).json("status.json", None), word)


def test_json_with_surrogate_pairs_is_fine(tmp_path):
    assert reader(tmp_path, "status.json", b'{"a": "\\ud83d\\ude00"}').json("status.json", None) == {"a": "😀"}


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    found = reader(tmp_path, "scores.json.gz", gzip.compress(bytes(200 * MIB)))
    tracemalloc.start()
    refused(lambda: found.content("scores.json.gz"), "unpacks to more than")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_UNPACKED_BYTES["scores.json.gz"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "truncated"),
        (b"plain text", "not a gzip file"),
        (gzip.compress(b"text", mtime=0)[:-9], "truncated"),
        (gzip.compress(b"text", mtime=0) + b"x", "after the end"),
        (gzip.compress(b"text", mtime=0) * 2, "after the end"),
        (gzip.compress(b"text", mtime=0)[:-5] + b"\0" * 5, "damaged"),
        (zlib.compress(b"text"), "not a gzip file"),
    ],
)
def test_a_broken_gzip_file_is_refused(tmp_path, data, word):
    refused(lambda: reader(tmp_path, "scores.json.gz", data).content("scores.json.gz"), word)
    found = reader(tmp_path, "scores.json.gz", gzip.compress(b"text", mtime=0))
    assert found.content("scores.json.gz") == b"text"


@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        "run.sh",
        "results/x/y.json",
        "results/pocketlm/0123456789abcdef/other.gz",
        "ስም.yaml",
        "steering/x.safetensors",
        "results/../submission.yaml.bak",
        "results/a b/manifest.json",
        "notes/x.md",
    ],
)
def test_files_that_do_not_belong_are_named(tmp_path, name):
    (tmp_path / "submission.yaml").touch()
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    files, problems = scan(tmp_path)
    assert len(problems) >= 1
    assert all(str(problem).isascii() for problem in problems)
    assert list(files) == ["submission.yaml"]


def test_a_link_is_never_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("{}")
    folder = tmp_path / "submission"
    (folder / "results").mkdir(parents=True)
    (folder / "results" / "pocketlm").symlink_to(outside)
    (folder / "submission.yaml").symlink_to("/etc/hostname")
    files, problems = scan(folder)
    assert files == {}
    assert [problem.problem for problem in problems] == ["is a link", "is a link"]
    done = steerboard("submission", "check", folder, "--no-rescore")
    assert (done.code, "is a link" in done.out) == (1, True)


def test_a_file_above_its_bound_is_refused(tmp_path):
    with (tmp_path / "submission.yaml").open("wb") as file:
        file.truncate(MAX_BYTES["submission.yaml"] + 1)
    (problem,) = scan(tmp_path)[1]
    assert "above the bound" in str(problem)


def test_words_without_the_folders_of_a_machine():
    assert name_alone("--data=/home/me/data") == "--data=data"
    assert name_alone("hf:/home/me/xlmr") == "hf:xlmr"
    assert name_alone("frozen:/home/me/e5,prefix=query: ") == "frozen:e5,prefix=query: "
    assert name_alone("frozen:/home/me/e5,name=intfloat/e5") == "frozen:e5,name=intfloat/e5"
    assert name_alone("--classifier=hf:/home/me/xlmr,lr=2e-4") == "--classifier=hf:xlmr,lr=2e-4"
    assert name_alone("--classifier=frozen:/home/me/e5,prefix=query") == "--classifier=frozen:e5,prefix=query"
    assert name_alone("--classifier=hf:/home/me/xlmr") == "--classifier=hf:xlmr"
    assert name_alone("google/gemma-2-9b-it") == "google/gemma-2-9b-it"
    assert name_alone("../shared/models/x") == "x"
    assert without_folders("OSError: /home/me/x y/z.bin is gone") == "OSError: x y/z.bin is gone"
    assert without_folders("see https://example.org/a/b, 3/4") == "see https://example.org/a/b, 3/4"


def test_new_gives_a_folder_that_says_what_is_to_be_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = steerboard("submission", "new", "my-way", "--suite", "mini")
    assert done.code == 0, done.err
    assert "steerboard submission pack runs/my-way" in done.out
    folder = tmp_path / "submissions" / "my-way"
    assert sorted(path.name for path in folder.iterdir()) == ["method.py", "submission.yaml"]
    done = steerboard("submission", "check", "submissions/my-way")
    assert done.code == 1
    assert "TODO" in done.out
    assert "has no results yet" in done.out
    assert "exists" in steerboard("submission", "new", "my-way", "--suite", "mini").one_line()
    assert "built-in" in steerboard("submission", "new", "language", "--suite", "mini").one_line()
    assert "type" in steerboard("submission", "new", "x", "--type", "air").one_line()
    for kind in ("vectors", "outputs"):
        assert steerboard("submission", "new", kind, "--type", kind, "--suite", "mini").code == 0
        assert [path.name for path in (tmp_path / "submissions" / kind).iterdir()] == ["submission.yaml"]
    done = steerboard("submission", "list", "submissions")
    assert (done.code, done.out.count("self-reported")) == (0, 3)


def test_packing_what_is_no_run_is_one_line(tmp_path):
    line = steerboard("submission", "pack", tmp_path, "--out", tmp_path / "x", *WHO).one_line()
    assert "does not contain a run" in line
    line = steerboard("submission", "check", tmp_path / "nothing").one_line()
    assert "is not a directory" in line
    assert "format" in steerboard("submission", "check", tmp_path, "--format", "xml").one_line()


def test_nothing_of_a_submission_is_written(tmp_path):
    shutil.copytree(ROOT / "submissions" / "human", tmp_path / "human")
    [run] = find(tmp_path / "human").runs
    cell = run.cell_ids()[0]
    for write in (
        lambda: run.write_manifest(run.manifest()),
        lambda: run.write_cell(cell, run.status(cell), run.generations(cell)),
        lambda: run.write_scores(run.scores(cell), {}),
        lambda: run.write_steering("0" * 16, Steering()),
    ):
        with pytest.raises(UserError, match="is part of a submission, which is never written"):
            write()
