"""Folders of contrast text: import, what is refused, what a run makes of them, held-out sentences."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from support.helpers import ROOT, contents, jsonl, small_suite, snapshot, steerboard, toy_llm

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.store import Run
from harness.data.contrast import BuildRecipe, ContrastFolder, ContrastPair, open_contrast
from harness.data.corpus import Corpus, word_noise
from harness.data.sources import Example, LocalData, Sentence
from harness.data.suite import load_suite

AMHARIC = [("ምግቡ በጣም ጥሩ ነበር።", "ምግቡ ጥሩ በጣም ነበር።"), ("እንደገና እመጣለሁ።", "እንደገና እንደገና እመጣለሁ።")]
HEBREW = [("האוכל היה טעים מאוד.", "האוכל טעים היה."), ("אני עוד אחזור לכאן.", "אני עוד עוד אחזור.")]


def published(path: Path, pairs: list[tuple[str, str]]) -> Path:
    """Write a file in the published format."""
    good, bad = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    path.write_text(json.dumps({"good": good, "bad": bad}, ensure_ascii=False), encoding="utf-8")
    return path


def folder_of(path: Path, **languages: list[tuple[str, str]]) -> Path:
    """Return a contrast folder with the pairs of the languages given, through the command."""
    path.mkdir(parents=True, exist_ok=True)
    for code, pairs in languages.items():
        file = published(path.parent / f"{code}.json", pairs)
        assert steerboard("contrast", "import", file, "--language", code, "--out", path).code == 0
    return path


def rows(folder: Path, code: str) -> list[dict[str, str]]:
    lines = (folder / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_imported_pairs_are_the_pairs_of_the_file(tmp_path):
    folder = folder_of(tmp_path / "c", am=AMHARIC, he=HEBREW)
    for code, pairs in (("am", AMHARIC), ("he", HEBREW)):
        expected = [{"id": f"pair-000{i}", "good": g, "bad": b} for i, (g, b) in enumerate(pairs)]
        assert rows(folder, code) == expected
        again = ContrastFolder(folder).pairs(code)
        assert [(p.original, p.degraded) for p in again] == pairs
    entries = json.loads((folder / "contrast.json").read_text())["languages"]
    assert {code: (e["pairs"], e["source"]) for code, e in entries.items()} == {
        "am": (2, "am.json"),
        "he": (2, "he.json"),
    }


def test_equal_and_empty_pairs_are_dropped_and_counted(tmp_path):
    file = published(tmp_path / "x.json", [*AMHARIC, ("ሀ", "ሀ"), ("ለ", " "), ("", "መ"), ("ሰ", "ረ")])
    done = steerboard("contrast", "import", file, "--language", "am", "--out", tmp_path / "c", "--source", "me")
    assert "3 pairs (me); dropped: 1 with equal texts, 2 with an empty text" in done.out
    assert [row["id"] for row in rows(tmp_path / "c", "am")] == ["pair-0000", "pair-0001", "pair-0005"]


EXPECTED = 'Expected: {"good": [...], "bad": [...]}, two lists of texts of equal length.'
BAD_FILES = {
    "not JSON": (b"good: bad", "is not valid JSON"),
    "half a file": ('{"good": ["ሀ"], "bad": ['.encode(), "is not valid JSON"),
    "a list": (b'["a"]', "holds a JSON list, not an object. " + EXPECTED),
    "no bad": (b'{"good": ["a"]}', "bad: Field required"),
    "another key": (b'{"good": ["a"], "bad": ["b"], "ugly": []}', "ugly: Extra inputs are not permitted"),
    "a text for a list": (
        b'{"good": "ab", "bad": "cd"}',
        "good: Input should be a valid list, got 'ab' (and 1 more). " + EXPECTED,
    ),
    "other lengths": (b'{"good": ["a", "b"], "bad": ["c"]}', "2 good texts and 1 bad ones."),
    "a number": (b'{"good": ["a", "b"], "bad": ["c", 7]}', "bad.1: Input should be a valid string, got 7"),
    "null": (b'{"good": [null], "bad": ["c"]}', "good.0: Input should be a valid string, got None"),
    "empty lists": (b'{"good": [], "bad": []}', "good: List should have at least 1 item"),
    "only equal pairs": (b'{"good": ["a"], "bad": ["a"]}', "no contrast pair of 'am' is left"),
    "Latin-1": ('{"good": ["é"], "bad": ["e"]}'.encode("latin-1"), "is not UTF-8 text"),
    "UTF-16": ('{"good": ["a"], "bad": ["b"]}'.encode("utf-16"), "is not UTF-8 text"),
    "half a letter": (b'{"good": ["\\ud800"], "bad": ["b"]}', "holds half a character"),
    "very deep": (b"[" * 200_000, "is nested too deeply"),
}


@pytest.mark.parametrize(("data", "words"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_any_other_file_is_refused_in_one_line_and_nothing_is_written(tmp_path, data, words):
    (tmp_path / "x.json").write_bytes(data)
    done = steerboard("contrast", "import", tmp_path / "x.json", "--language", "am", "--out", tmp_path / "c")
    assert words in done.one_line()
    assert not list(tmp_path.glob("c/*.json*"))


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "x.json").open("wb") as stream:
        stream.truncate(200 * 2**20 + 1)  # a hole: it takes no room on the disk
    done = steerboard("contrast", "import", tmp_path / "x.json", "--language", "am", "--out", tmp_path / "c")
    assert "has more than 200 MiB" in done.one_line()


def test_a_missing_file_is_named(tmp_path):
    done = steerboard("contrast", "import", tmp_path / "x.json", "--language", "am", "--out", tmp_path / "c")
    assert f"{tmp_path / 'x.json'} does not exist" in done.one_line()


@pytest.mark.parametrize("code", ["../am", "a/b", "", "am\n", "a", "አማ"])
def test_a_language_that_cannot_name_a_file_is_refused(tmp_path, code):
    file = published(tmp_path / "x.json", AMHARIC)
    done = steerboard("contrast", "import", file, "--language", code, "--out", tmp_path / "c")
    assert "is not a language code" in done.one_line()


def test_the_same_file_again_changes_nothing_and_another_one_is_refused(tmp_path):
    folder = folder_of(tmp_path / "c", am=AMHARIC)
    before = snapshot(folder)
    again = steerboard("contrast", "import", tmp_path / "am.json", "--language", "am", "--out", folder)
    assert "nothing to do" in again.out
    other = published(tmp_path / "other.json", HEBREW)
    refused = steerboard("contrast", "import", other, "--language", "am", "--out", folder).one_line()
    assert "holds contrast text of 'am' by another recipe" in refused
    assert "another --out folder" in refused
    assert snapshot(folder) == before


def test_a_folder_in_use_is_left_alone(tmp_path):
    folder = folder_of(tmp_path / "c", am=AMHARIC)
    with (folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        file = published(tmp_path / "x.json", HEBREW)
        done = steerboard("contrast", "import", file, "--language", "he", "--out", folder)
    assert "is in use by another steerboard" in done.one_line()


def test_word_noise_alone_is_keyed_by_language_sentence_and_hop(tmp_path):
    options = ["--suite", "mini", "--translator", "noise", "--out", tmp_path / "c"]
    assert steerboard("contrast", "build", "--languages", "am,he", *options).code == 0
    for code in ("am", "he"):
        sentences = {row["id"]: row for row in rows(tmp_path / "c", code)}
        parallel = Corpus(load_suite("mini"), LocalData(ROOT / "tasks/mini/data")).parallel(code)
        for sentence in parallel:
            noisy = word_noise(sentence.text, 0.3, f"{code}/{sentence.id}/1")
            row = sentences.get(sentence.id)
            assert (row["bad"] if row else sentence.text) == noisy  # unchanged sentences are left out
        assert 50 < len(sentences) <= len(parallel)


BUILDS = {
    "a language of no suite": (["--languages", "xx"], "unknown language 'xx'"),
    "a probability of 1": (["--noise", "1"], "--noise 1 is not a probability"),
    "not a number": (["--noise", "nan"], "--noise nan is not a probability"),
    "no noise at all": (["--noise", "0"], "--noise 0 is not a probability"),
    "pivots without a model": (["--pivots", "de"], "--pivots need a translation model"),
    "no text": (["--limit", "0"], "--limit"),
    "a missing data folder": (["--data", "/no/such"], "/no/such does not exist"),
    "an unknown suite": (["--suite", "mimi"], "Did you mean 'mini'?"),
}


@pytest.mark.parametrize(("options", "words"), BUILDS.values(), ids=list(BUILDS))
def test_a_build_that_cannot_be_is_refused_in_one_line(tmp_path, options, words):
    start = ["contrast", "build", "--suite", "mini", "--translator", "noise", "--out", tmp_path / "c"]
    assert words in steerboard(*start, *options).one_line()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("words", [["contrast"], ["contrast", "build"], ["contrast", "import"]])
def test_help_teaches_with_an_example(words):
    done = " ".join(steerboard(*words, "--help").out.split())
    assert "--out contrast/" in done


# What a corpus makes of a folder


def corpus_with(corpus_of, folder: Path, held_out: list[tuple[str, str]] = ()) -> Corpus:
    """Return a corpus of two Amharic sentences and translations, with a contrast folder."""
    parallel = {"am": [Sentence("s1", "አንድ"), Sentence("s2", "ሁለት")], "he": [Sentence("s1", "אחת")]}
    test = {("sentiment", "am", "test"): [Example(name, text, "positive") for name, text in held_out]}
    degraded = {("noise", code): [Sentence("s1", "x")] for code in ("am", "he")}
    corpus = corpus_of(parallel, test, degraded)
    corpus.contrast_folder = open_contrast(folder)
    return corpus


def test_the_folder_comes_before_the_translations_of_the_suite(tmp_path, corpus_of):
    corpus = corpus_with(corpus_of, folder_of(tmp_path / "mine", am=AMHARIC))
    contrast = corpus.contrast("am")
    assert list(zip(contrast.good, contrast.bad, strict=True)) == AMHARIC
    recipe = json.loads((tmp_path / "mine/contrast.json").read_text())["languages"]["am"]["recipe_hash"]
    assert contrast.source == f"contrast:mine:{recipe}"
    assert corpus.contrast("he").source == "translations:noise"  # the folder has no Hebrew


@pytest.mark.parametrize(
    "row",
    [("pair-0000", "x"), ("t1", AMHARIC[0][0]), ("t1", f" {AMHARIC[0][0]} "), ("t1", AMHARIC[0][1])],
    ids=["id", "good text", "good text, other blanks", "bad text"],
)
def test_pairs_of_test_sentences_are_held_out_and_counted(tmp_path, corpus_of, row):
    corpus = corpus_with(corpus_of, folder_of(tmp_path / "c", am=AMHARIC), [row])
    contrast = corpus.contrast("am")
    assert (contrast.good, contrast.bad) == ([AMHARIC[1][0]], [AMHARIC[1][1]])
    assert contrast.source.endswith(" (1 held out)")


def test_a_folder_of_nothing_but_test_sentences_is_refused(tmp_path, corpus_of):
    held_out = [("t1", AMHARIC[0][0]), ("t2", AMHARIC[1][0])]
    corpus = corpus_with(corpus_of, folder_of(tmp_path / "c", am=AMHARIC), held_out)
    with pytest.raises(UserError, match=r"no contrast text of 'am' .* is left outside of test data"):
        corpus.contrast("am")


def test_a_cells_data_are_the_same_as_ever_without_a_folder(corpus_of):
    corpus = corpus_of({"am": [Sentence("s1", "አንድ")]})
    assert corpus.fingerprint("sentiment", "am") == digest(["memory", "memory"], 16)


def test_a_cells_data_cover_the_content_of_the_folder_in_every_language(tmp_path, corpus_of):
    folders = {
        "none": None,
        "am": folder_of(tmp_path / "a", am=AMHARIC),
        "am and he": folder_of(tmp_path / "b", am=AMHARIC, he=HEBREW),
        "am, less": folder_of(tmp_path / "c", am=AMHARIC[:1]),
    }
    found = {name: corpus_with(corpus_of, path).fingerprint("sentiment", "am") for name, path in folders.items()}
    assert len(set(found.values())) == 4
    (tmp_path / "a").rename(tmp_path / "moved")
    moved = corpus_with(corpus_of, tmp_path / "moved")
    assert moved.fingerprint("sentiment", "am") == found["am"]


def test_a_language_that_no_suite_has_changes_no_cell(tmp_path, corpus_of):
    folder = folder_of(tmp_path / "a", am=AMHARIC)
    before = corpus_with(corpus_of, folder).fingerprint("sentiment", "am")
    folder_of(folder, sw=[("moja", "mbili")])
    assert corpus_with(corpus_of, folder).fingerprint("sentiment", "am") == before


def spoiled(folder: Path, how: str) -> None:
    index = folder / "contrast.json"
    body = json.loads(index.read_text())
    changes = {
        "a changed text": lambda: jsonl(folder / "am.jsonl", [{"id": "1", "good": "ሀ", "bad": "ለ"}]),
        "a missing text": lambda: (folder / "am.jsonl").unlink(),
        "no index": lambda: index.unlink(),
        "another index": lambda: index.write_text('{"schema": 1, "languages": {"am": 3}}'),
        "a newer index": lambda: index.write_text(json.dumps({**body, "schema": 9})),
        "half an index": lambda: index.write_text(index.read_text()[:100]),
    }
    changes[how]()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a changed text", "am.jsonl has been changed since it was made"),
        ("a missing text", "am.jsonl is missing"),
        ("no index", "holds no contrast text"),
        ("another index", "is not a valid contrast file of steerboard"),
        ("a newer index", "has schema 9, this steerboard reads up to 1"),
        ("half an index", "is not valid JSON"),
    ],
)
def test_a_spoiled_folder_is_refused_in_one_line(tmp_path, how, words):
    folder = folder_of(tmp_path / "c", am=AMHARIC)
    spoiled(folder, how)
    run = ["run", "--suite", "mini", "--methods", "human", "--run", tmp_path / "run"]
    assert words in steerboard(*run, "--languages", "am", "--contrast", folder).one_line()
    assert not (tmp_path / "run").exists()


def test_a_row_without_text_is_named(tmp_path):
    folder = ContrastFolder(tmp_path)
    jsonl(folder.pairs_path("am"), [{"id": "1", "good": "ሀ", "bad": "ለ"}, {"id": "2", "good": "ሐ", "bad": ""}])
    with pytest.raises(UserError, match="row 2: needs a non-empty 'id', 'good' and 'bad'"):
        folder.pairs("am")


def test_a_language_with_an_entry_is_whole(tmp_path):
    """The pairs are written before the entry: an entry without its file would be a broken folder."""
    folder = ContrastFolder(tmp_path)
    recipe = BuildRecipe(kind="import", text="f00d")
    folder.add("am", recipe, [ContrastPair("1", "ሀ", "ለ")], "me", {})
    folder.index_path.unlink()
    assert folder.made("am") is None  # killed between the two: it is made again
    assert not folder.holds("am", recipe)


# Runs


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """Run the quality method on the small suite with a model of random weights."""
    place = tmp_path_factory.mktemp("suite")
    suite = small_suite(place, toy_llm(place / "toy"))

    def start(run: Path, *options: object):
        words = ["--languages", "am,he", "--tasks", "sentiment", "--seeds", "1", "--limit", "2"]
        return steerboard("run", "--suite", suite, "--methods", "quality", *words, "--run", run, *options)

    return start


def provenance(run: Path) -> dict[str, dict[str, object]]:
    """Return language -> what the steering of a finished run says of its fit."""
    store = Run(run)
    cells = [store.status(cell) for cell in store.cell_ids()]
    return {status.cell.language: store.steering(status.steering).provenance for status in cells if status.steering}


@pytest.fixture(scope="module")
def finished(go, tmp_path_factory):
    """A run whose Amharic vector is from imported pairs, one of them a test sentence; its place."""
    place = tmp_path_factory.mktemp("finished")
    test = Corpus(load_suite("mini"), LocalData(ROOT / "tasks/mini/data")).split("sentiment", "am", "test")
    pairs = [*AMHARIC, (test[0].text, "ሀ ለ")]
    folder_of(place / "mine", am=pairs)
    done = go(place / "run", "--contrast", place / "mine")
    assert done.code == 0, done.err
    return place


def test_a_run_fits_the_quality_vector_on_imported_pairs_without_test_sentences(finished):
    fits = provenance(finished / "run")
    made = json.loads((finished / "mine/contrast.json").read_text())["languages"]["am"]
    assert fits["am"]["counts"]["good"]["texts"] == 2
    assert fits["am"]["fit"]["contrast"] == f"contrast:mine:{made['recipe_hash']} (1 held out)"
    assert fits["he"]["fit"]["contrast"] == "translations:noise"
    assert Run(finished / "run").manifest().contrast == str(finished / "mine")


def test_the_same_command_again_touches_no_cell(finished, go):
    before = contents(finished / "run" / "cells")
    assert go(finished / "run", "--contrast", finished / "mine").code == 0
    assert contents(finished / "run" / "cells") == before


def test_a_run_takes_no_other_contrast_text_on_board(finished, go, tmp_path):
    without = go(finished / "run").one_line()
    assert f"holds a run with contrast text from {finished / 'mine'}" in without
    other = folder_of(tmp_path / "other", am=AMHARIC)
    words = go(finished / "run", "--contrast", other, "--languages", "he").one_line()
    assert "holds a run on other data or other contrast text" in words


def test_scoring_finds_a_moved_folder_with_help_only(finished):
    (finished / "mine").rename(finished / "moved")
    try:
        words = steerboard("score", finished / "run").one_line()
        assert f"contrast text is no longer in {finished / 'mine'}" in words
        assert "--contrast" in words
        done = steerboard("score", finished / "run", "--contrast", finished / "moved")
        assert done.code == 0, done.err
    finally:
        (finished / "moved").rename(finished / "mine")


def test_scoring_with_another_folder_is_refused(finished, tmp_path):
    other = folder_of(tmp_path / "other", am=AMHARIC)
    words = steerboard("score", finished / "run", "--contrast", other).one_line()
    assert f"or the contrast text in {other}, is not what the run was made with" in words


def test_a_run_without_contrast_text_is_scored_without(go, tmp_path):
    assert go(tmp_path / "run").code == 0
    assert Run(tmp_path / "run").manifest().contrast is None
    folder = folder_of(tmp_path / "c", am=AMHARIC)
    words = steerboard("score", tmp_path / "run", "--contrast", folder).one_line()
    assert "made without contrast text; leave out --contrast" in words
