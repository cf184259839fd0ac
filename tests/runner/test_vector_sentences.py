"""``--vector-sentences``: fewer sentences for vectors, in the identity of what they give, and shown."""

from __future__ import annotations

import json

import pytest
from conftest import MemoryData
from support.contexts import context
from support.helpers import small_suite as written_suite
from support.helpers import steerboard, toy_llm
from support.references import assert_line

from harness.core.cells import steering_id
from harness.core.store import Run
from harness.data.corpus import Corpus
from harness.data.sources import Sentence
from harness.data.suite import data_note, load_suite, restore_suite
from harness.runner.plan import plan_cells, select_cells
from leaderboard.views.origins import _selection

WORDS = {"am": "ምግቡ", "he": "האוכל", "en": "food"}
TEXT = {code: [Sentence(f"s{i}", f"{word} {i}") for i in range(20)] for code, word in WORDS.items()}


def narrowed(suite, count: int | None, **changes: list[Sentence]) -> Corpus:
    suite = suite.with_vector_sentences(count)
    worse = {("noise", "he"): [Sentence(row.id, row.text[::-1]) for row in TEXT["he"]]}
    return Corpus(suite, MemoryData({**TEXT, **changes}, {}, worse))


def test_so_many_sentences_and_the_same_ones_in_every_language(small_suite):
    corpus = narrowed(small_suite, 5, he=TEXT["he"][::-1], en=TEXT["en"] + [Sentence("other", "more")])
    ctx = context(corpus, None)
    ids = {code: {text.split()[1] for text in ctx.parallel(code)} for code in ("am", "he")}
    assert len(ids["am"]) == 5
    assert ids["am"] == ids["he"]
    assert len(ctx.pairs("am", "he")) == 5
    am = [row.text for row in TEXT["am"]]
    assert [am.index(text) for text in ctx.parallel("am")] == sorted(am.index(text) for text in ctx.parallel("am"))
    assert len(corpus.parallel("am")) == 20, "scores keep all text"


def test_so_many_contrast_pairs_from_translations_and_from_noise(small_suite):
    corpus = narrowed(small_suite, 5)
    for code in ("am", "he"):  # noise of words; translations
        contrast = corpus.contrast(code)
        assert contrast.good == context(corpus, None, code).parallel(code)
        assert len(contrast.bad) == 5
    assert contrast.bad == [text[::-1] for text in contrast.good]


def test_more_than_there_are_gives_all(small_suite):
    assert context(narrowed(small_suite, 999), None).parallel("am") == [row.text for row in TEXT["am"]]


class Named:
    """What a plan knows of a method."""

    settings, needs_model = ("zero-shot",), False

    def __init__(self, identity):
        self.identity = identity


def test_another_number_is_another_cell_and_fit_and_no_number_changes_no_identity(small_suite):
    from harness.methods.prompting import ZeroShot

    def identities(count: int | None) -> tuple[str, str]:
        corpus = narrowed(small_suite, count)
        selection = select_cells(corpus.suite, ["am"], ["topic"], seeds=[1])
        (cell,) = plan_cells(corpus.suite, selection, [Named(ZeroShot().identity)], None, corpus)
        return cell.id, steering_id(cell.key)

    found = [identities(count) for count in (None, 5, 6)]
    assert len({cell for cell, _ in found}) == 3
    assert len({fit for _, fit in found}) == 3
    assert small_suite.with_vector_sentences(None) is small_suite
    assert "sentences" not in small_suite.dump()["vectors"]


def test_the_mini_suites_identity_is_what_it_was():
    suite = load_suite("mini")
    known = {"systems": ["noise"], "word_noise": 0.3}
    assert suite.dump()["vectors"] == known
    assert suite.vectors.model_dump() == known  # as in the protocol of texts, which is in the id of cells


def test_it_survives_the_manifest_and_the_note_on_the_data_stays():
    suite = load_suite("mini").with_vector_sentences(50)
    assert restore_suite(suite.dump()).hash == suite.hash
    assert data_note(suite.dump(), suite.hash, "/x/mini/data") == suite.data_note
    assert suite.data_note
    assert data_note({**suite.dump(), "vectors": {"sentences": True}}, suite.hash, "/x/mini/data") == ""
    assert data_note({**suite.dump(), "vectors": 5}, suite.hash, "/x/mini/data") == ""


# The command


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Return a run of two cells as a command: ``command(folder, *options)``."""
    home = tmp_path_factory.mktemp("narrow")
    suite = written_suite(home, toy_llm(home / "toy"))
    words = ("--suite", suite, "--languages", "he", "--tasks", "topic", "--seeds", "1", "--limit", 2)
    return lambda folder, *more: steerboard("run", *words, "--methods", "language,quality", "--run", folder, *more)


def test_a_run_says_so_in_manifest_summary_and_page(command, tmp_path):
    done = command(tmp_path / "run", "--vector-sentences", 7)
    assert done.code == 0, done.err
    manifest = Run(tmp_path / "run").manifest()
    words = "vectors from at most 7 sentences per language"
    assert manifest.suite["vectors"]["sentences"] == 7
    assert words in manifest.selection.narrowed
    assert words in " ".join(done.out.split())
    assert _selection(manifest)[-2:] == ["--vector-sentences", "7"]
    headers = []
    for path in (tmp_path / "run" / "steering").glob("*.safetensors"):
        data = path.read_bytes()
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["steerboard"]
        headers += [counts["texts"] for counts in json.loads(head)["provenance"]["counts"].values()]
    assert headers == [7] * len(headers)
    assert len(headers) == 3 + 2
    again = command(tmp_path / "run", "--vector-sentences", 8)
    assert_line(again, "holds a run with another --vector-sentences")
    assert_line(command(tmp_path / "run"), "holds a run with another --vector-sentences")
    scored = steerboard("score", tmp_path / "run")
    assert scored.code == 0, scored.err


@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_number_below_one_is_one_line(command, tmp_path, value):
    assert_line(command(tmp_path / "run", "--vector-sentences", value), f"--vector-sentences {value} is too small")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["x", "1.5", ""])
def test_what_is_no_number_ends_the_command_with_code_2(command, tmp_path, value):
    done = command(tmp_path / "run", "--vector-sentences", value)
    assert done.code == 2
    assert "--vector-sentences" in done.err
