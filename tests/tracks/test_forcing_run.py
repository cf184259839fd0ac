"""Language forcing as a run: cells, steering, scores, tables, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from support.helpers import (
    Outcome,
    contents,
    finished_cells,
    forget_hash,
    killed_after,
    small_suite,
    snapshot,
    steerboard,
    toy_llm,
    untimed_files,
)

from harness.core.cells import cell_id
from harness.core.records import CellStatus
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.methods.registry import load_registry, parse_methods
from harness.ranking.results import collect
from harness.scoring.metrics import harmonic
from harness.tracks.forcing.planning import base_suite, forcing_suite
from harness.tracks.forcing.questions import Questions, load_questions
from harness.tracks.forcing.tables import aggregate

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def questions() -> Questions:
    return load_questions()


# The run


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """A suite of two languages with a model of random weights that writes four bytes a text."""
    folder = tmp_path_factory.mktemp("suite")
    path = small_suite(folder, toy_llm(folder / "toy"))
    text = path.read_text(encoding="utf-8")
    quick = text.replace("learned: {steps: 4, lr: 0.01, max_texts: 32}", "learned: {steps: 1, max_texts: 16}")
    assert quick != text
    path.write_text(quick, encoding="utf-8")
    return path


@pytest.fixture
def go(suite, tmp_path):
    """Run the track in this process: call it with options; the folder is always the same."""

    def start(*options: object, methods: str = "zero-shot,language") -> Outcome:
        words = ["--suite", suite, "--methods", methods, "--seeds", "1", "--run", tmp_path / "run"]
        return steerboard("forcing", *words, *options)

    return start


@pytest.fixture(scope="module")
def whole(suite, tmp_path_factory) -> tuple[Outcome, Path]:
    """A run of two sources, for tests that read it: what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    words = ["--suite", suite, "--methods", "zero-shot,language", "--seeds", "1", "--sources", "en,am"]
    outcome = steerboard("forcing", *words, "--run", folder)
    assert outcome.code == 0, outcome.err
    return outcome, folder


def statuses(folder: Path) -> dict[tuple[str, str, str, int], CellStatus]:
    """Return how cells ended, by method, source, target and seed."""
    run = Run(folder)
    found = [run.status(cell) for cell in run.cell_ids()]
    keys = [(s.cell.method.name, s.cell.task, s.cell.language, s.cell.seed) for s in found]
    return dict(zip(keys, found, strict=True))


def test_a_cell_holds_one_answer_to_every_test_question_of_its_source(whole, questions):
    run = Run(whole[1])
    assert run.manifest().track == "forcing"
    found = statuses(run.path)
    assert {key[1:3] for key in found} == {(f"from-{s}", t) for s in ("am", "en") for t in ("am", "he")}
    for (_, task, _, _), status in found.items():
        texts = run.generations(cell_id(status.cell))
        assert [text.label for text in texts] == questions.asked(task.removeprefix("from-"), "test")
        assert {text.attempts for text in texts} == {1}
        assert status.redraws == 0


def test_the_prompt_is_the_bare_question(go, tmp_path, questions):
    """The toy's template writes <s>, the question and a line break, a token per byte."""
    go("--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    sizes = [text.n_prompt_tokens for text in run.generations(cell)]
    assert sizes == [len(text.encode()) + 2 for text in questions.asked("en", "test")]


def test_a_cell_is_steered_by_what_the_suite_itself_fits_for_the_target(go, suite, tmp_path):
    go("--sources", "en,de", "--languages", "he", methods="language,learned,negated")
    rest = ["--languages", "he", "--tasks", "sentiment", "--seeds", "1", "--limit", "1"]
    other = tmp_path / "generation"
    rest += ["--settings", "zero-shot"]
    steerboard("run", "--suite", suite, "--methods", "language,learned,negated", *rest, "--run", other)
    forced, base = contents(tmp_path / "run" / "steering"), contents(other / "steering")
    vectors = {name: data for name, data in forced.items() if name.endswith(".safetensors")}
    assert len(vectors) == 3  # of three methods; one fit serves both sources
    assert vectors == {name: data for name, data in base.items() if name.endswith(".safetensors")}
    run = Run(tmp_path / "run")
    for (method, _, target, _), status in statuses(run.path).items():
        header = run.steering(status.steering).provenance
        assert (header["language"], header["method"]["name"]) == (target, method)


def test_answers_depend_on_the_target_only_through_the_steering_and_its_noise(whole):
    run, found = Run(whole[1]), statuses(whole[1])
    texts = {key: [t.text for t in run.generations(cell_id(s.cell))] for key, s in found.items()}
    assert texts["language", "from-en", "am", 1] != texts["zero-shot", "from-en", "am", 1]


def test_scores_and_what_was_found_per_answer_are_kept(whole):
    run = Run(whole[1])
    for cell in run.cell_ids():
        scores = run.scores(cell)
        assert {s.metric for s in scores.scores} == {"target_share", "relevance/tfidf", "forcing/tfidf"}
        assert list(scores.parts) == ["target", "relevance/tfidf"]
        value = {s.metric: s.value for s in scores.scores}
        assert value["forcing/tfidf"] == harmonic(value["target_share"], value["relevance/tfidf"])
        audit = run.text_checks(cell)
        assert {len(audit["target"][name]) for name in ("language", "in_target")} == {8}
        assert {len(audit["relevance/tfidf"][name]) for name in ("rating", "nearest")} == {8}
    [results] = collect([run])
    assert results.headline.name == "forcing/tfidf"
    assert {row.present for row in results.entries.values()} == {3}


def test_the_summary_shows_both_shares_and_their_mean_overall_by_target_and_by_source(whole):
    out = whole[0].out
    assert "questions in am, en; relevance by tfidf" in " ".join(out.split())
    heads = [line.split() for line in out.splitlines() if line.split()[:1] == ["entry"]]
    assert heads == [
        ["entry", "in", "target", "relevance", "forcing", "cells"],
        ["entry", "am", "he"],
        ["entry", "am", "en"],
        ["entry", "in", "target", "relevance", "forcing", "cells"],
    ]
    assert "target = source" in out
    [whole, own] = [line.split() for line in out.splitlines() if re.search(r"zero-shot.*\d/\d", line)]
    assert (whole[-1], own[-1]) == ("3/3", "1/1")


def test_a_second_run_touches_nothing_and_loads_nothing(go, tmp_path):
    first = go()
    before = snapshot(tmp_path / "run" / "cells")
    second = go()
    assert second.out == first.out
    assert "loading" not in second.err
    assert snapshot(tmp_path / "run" / "cells") == before


def test_another_scorer_of_relevance_adds_its_scores_and_leaves_the_answers(go, suite, tmp_path):
    go(methods="zero-shot")
    run = Run(tmp_path / "run")
    before = {cell: (run.generations_digest(cell), run.scores(cell).scores) for cell in run.cell_ids()}
    toy = suite.parent / "toy"
    outcome = go("--relevance", f"judge:{toy}", "--relevance", "tfidf", methods="zero-shot")
    assert outcome.code == 0, outcome.err
    assert "relevance by judge:toy" in outcome.out
    for cell, (texts, scores) in before.items():
        now = run.scores(cell)
        assert run.generations_digest(cell) == texts
        assert {s.metric: s for s in scores}.items() <= {s.metric: s for s in now.scores}.items()
        assert list(now.parts) == ["target", "relevance/tfidf", "relevance/judge:toy"]
        assert set(run.text_checks(cell)) == {"target", "relevance/tfidf", "relevance/judge:toy"}


def test_a_run_grows_by_targets_and_methods(go, tmp_path):
    go("--languages", "he", methods="zero-shot")
    go()
    manifest = Run(tmp_path / "run").manifest()
    assert (manifest.track, manifest.selection.languages) == ("forcing", ["am", "he"])
    assert [entry.method.name for entry in manifest.entries] == ["zero-shot", "language"]


def test_the_validation_questions_are_another_run_that_says_so(go, tmp_path, questions):
    outcome = go("--split", "validation", "--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    assert [text.label for text in run.generations(cell)] == questions.asked("en", "validation")
    assert "scored on validation text" in " ".join(outcome.out.split())
    assert "other --sources, --split" in go("--languages", "am", methods="zero-shot").one_line()


def test_a_method_that_cannot_do_it_has_no_mean_and_the_reason_is_shown(go):
    out = go(methods="zero-shot,clas").out
    assert re.search(r"no mean: clas: 0/2 cells; 2 x skipped: a model of 2 layers", " ".join(out.split()))


def test_by_default_every_method_of_the_suite_that_steers_is_run():
    registry = load_registry()
    kept = base_suite(load_suite("steer11"), registry).methods
    names = [method.name for method in parse_methods(registry, kept)]
    assert names == [
        *("zero-shot", "language", "quality", "clas", "learned"),
        *("random", "negated", "negated", "other-language", "shuffled"),
    ]


def test_the_suite_of_the_track_is_another_one_and_leaves_its_base_as_it_is(questions):
    base = load_suite("mini")
    before = base.hash
    derived = forcing_suite(base, questions, ["he", "en"])
    assert (list(derived.tasks), derived.languages) == (["from-en", "from-he"], base.languages)
    assert (derived.sampling.max_new_tokens, derived.sampling.max_attempts) == (64, 1)
    assert (derived.sampling.temperature, derived.seeds) == (base.sampling.temperature, base.seeds)
    assert forcing_suite(base, questions, ["en"], max_new_tokens=200).sampling.max_new_tokens == 200
    other = dataclasses.replace(questions, validation=frozenset())
    hashes = {
        base.hash,
        derived.hash,
        forcing_suite(base, questions, ["en"]).hash,
        forcing_suite(base, other, ["en"]).hash,
        forcing_suite(base, questions, ["en"], "validation").hash,
    }
    assert len(hashes) == 5
    assert base.hash == before == load_suite("mini").hash


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sources", "xx"], "unknown source language 'xx'; valid: am, cs, da, de, en, he"),
        (["--sources", ","], "no source language is named"),
        (["--languages", "fr"], "unknown language 'fr'; valid: am, he."),
        (["--languages", ","], "no target language is named"),
        (["--seeds", "9"], "unknown seed '9'; valid: 1, 2, 3."),
        (["--split", "train"], "unknown split of the questions 'train'; valid: test, validation."),
        (["--relevance", "bertscore"], "unknown relevance scorer 'bertscore'; valid: hf:PATH_OR_ID, judge:"),
        (["--relevance", "judge:"], "unknown relevance scorer 'judge:'"),
        (["--relevance", "hf:/no/encoder"], "the model folder /no/encoder does not exist"),
        (["--relevance", "judge:/no/judge"], "the model folder /no/judge does not exist"),
        (["--model", "/no/model"], "the model folder /no/model does not exist"),
        (["--max-new-tokens", "0"], "'--max-new-tokens'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(go, tmp_path, options, words):
    assert words in go(*options).one_line()
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["few-shot", "human", "constant"])
def test_a_method_without_sense_here_is_refused_by_name(go, name):
    line = go(methods=f"zero-shot,{name}").one_line()
    assert f"method {name!r} does not apply to language forcing" in line
    assert "Take zero-shot, or a method that steers." in line


def test_an_unknown_method_is_named_with_the_nearest(go):
    assert "unknown method 'langage'" in go(methods="langage").one_line()


def test_a_folder_of_another_track_is_refused_and_left_alone(go, suite, tmp_path):
    rest = ["--tasks", "sentiment", "--seeds", "1", "--limit", "1", "--methods", "human"]
    steerboard("run", "--suite", suite, *rest, "--run", tmp_path / "run")
    before = snapshot(tmp_path / "run")
    line = go().one_line()
    assert "holds a run of the generation track. Choose another --run folder." in line
    assert snapshot(tmp_path / "run") == before


def test_answers_that_were_changed_by_hand_are_written_again(go, tmp_path):
    go("--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    before = untimed_files(run.cell(cell))
    path = run.cell(cell) / "generations.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"text": "', '"text": "x '), encoding="utf-8")
    (run.cell(cell) / "audit.json.gz").unlink()
    done = go("--languages", "am", methods="zero-shot")
    assert done.code == 0, done.err
    assert f"{path} was edited or damaged; written again" in done.err
    assert untimed_files(run.cell(cell)) == before


def test_in_a_folder_of_before_hashes_changed_answers_are_scored_again_or_refused(go, tmp_path):
    go("--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    forget_hash(run.cell(cell))
    path = run.cell(cell) / "generations.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"text": "', '"text": "x '), encoding="utf-8")
    go("--languages", "am", methods="zero-shot")
    assert run.scores(cell).generations_sha256 == run.generations_digest(cell)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    refused = go("--languages", "am", methods="zero-shot")
    assert refused.code == 2
    assert "does not hold an answer to each of 8 questions. Delete this folder" in refused.err


# A whole run


@slow
def test_a_killed_run_goes_on_to_the_same_answers_and_scores(suite, tmp_path):
    words = ["forcing", "--suite", suite, "--sources", "am,en", "--methods", "zero-shot,language"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert steerboard(*words, "--run", whole).code == 0
    with killed_after(4):
        steerboard(*words, "--run", broken)
    assert finished_cells(broken) == 4
    assert steerboard(*words, "--run", broken).code == 0
    assert untimed_files(broken) == untimed_files(whole)


@slow
def test_the_mini_suite_works_as_it_comes_and_its_language_vector_moves_answers(tmp_path):
    words = ["--suite", "mini", "--languages", "he", "--methods", "zero-shot,language", "--seeds", "1"]
    outcome = steerboard("forcing", *words, "--run", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    [results] = collect([Run(tmp_path / "run")])
    names = {row.id: row.entry.method.name for row in results.entries.values()}
    share = {names[row]: found.share for row, found in aggregate(results, "tfidf").items()}
    assert share["language"] > share["zero-shot"]
