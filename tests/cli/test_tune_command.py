"""The commands tune and run --tuned: what they choose, leave and refuse, and that test text plays no part."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.helpers import (
    MINI,
    Outcome,
    deep_llm,
    finished_cells,
    small_suite,
    snapshot,
    start_and_stop,
    steerboard,
    toy_llm,
)
from support.tuning import NAMES, human, tune, tuned_file, untimed, writer

from harness.core.records import CellStatus, Generation
from harness.core.store import Run
from harness.ranking.results import collect
from harness.runner.generate import run_stages
from harness.runner.prepare import RunOptions, plan_run
from harness.runner.score import ScoringStage

slow = pytest.mark.slow


# The command, with texts that a rule writes instead of the toy model


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    return small_suite(folder, toy_llm(folder / "toy"))


@pytest.fixture(scope="module")
def swept(suite, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "run"
    outcome = tune(suite, folder)
    assert outcome.code == 0, outcome.err
    (folder.parent / "out.txt").write_text(outcome.out, encoding="utf-8")
    return folder


@pytest.fixture
def copy(swept, tmp_path) -> Path:
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(swept, tmp_path / "run"))


def test_the_command_chooses_the_best_configuration_that_passes_the_gate(swept):
    tuned = tuned_file(swept)
    points = {tuple(p["options"].values()): p for p in tuned["surface"]}
    assert list(points) == [(layer, s) for layer in (0, 1) for s in (0.1, 0.2, 0.4)]
    assert points[0, 0.4]["macro_f1"] >= points[0, 0.2]["macro_f1"] > points[0, 0.1]["macro_f1"]
    assert not points[0, 0.4]["eligible"]
    assert tuned["methods"]["language"]["options"] == {"layer": 0, "strength": 0.2}
    assert (points[0, 0.1]["gain"], points[0, 0.1]["cells"]) == (0.0, 4)
    assert points[0, 0.4]["valid"] == pytest.approx(points[0, 0.2]["valid"] * 10 / 18)
    assert tuned["methods"]["language"]["configurations"] == 6
    assert tuned["methods"]["language"]["texts"] == 6 * 4 * 18
    assert tuned["methods"]["language"]["tokens"] == 6 * 4 * 18 * 15


def test_a_sweep_knows_the_fidelity_and_diversity_of_every_configuration(swept):
    points = {tuple(p["options"].values()): p for p in tuned_file(swept)["surface"]}
    best, weak = points[0, 0.2], points[0, 0.1]
    assert best["language_fidelity"] > 0.9  # human-written text of the language
    assert best["label_fidelity"] > weak["label_fidelity"]  # there one label in three is wrong
    assert all(0.5 < p["distinct_2"] <= 1.0 for p in points.values())
    assert best["languages"] == {}


def test_by_language_a_run_uses_a_value_for_each_and_its_title_says_so(suite, copy):
    outcome = tune(suite, copy, "--by-language")
    assert outcome.code == 0, outcome.err
    assert "language: layer=am:0 he:0, strength=am:0.2 he:0.2 (6 configurations" in outcome.out
    assert "the choice is the best of several in each" in outcome.out
    points = tuned_file(copy)["surface"]
    for p in points:
        assert list(p["languages"]) == ["am", "he"]
        for field in ("macro_f1", "language_fidelity", "label_fidelity", "distinct_2"):
            both = [p["languages"][code][field] for code in ("am", "he")]
            assert p[field] == pytest.approx(sum(both) / 2), field
    assert [p["options"]["strength"] for p in points if p["languages"]["am"]["chosen"]] == [0.2]
    words = [
        "run",
        "--suite",
        suite,
        "--run",
        copy,
        "--tuned",
        "--methods",
        "zero-shot,language",
        "--tasks",
        "sentiment",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engine.generate.GenerationQueue.write", writer(0.2))
        done = steerboard(*words, "--limit", "9")
    assert done.code == 0, done.err
    (results,) = collect([Run(copy)])
    (row,) = [row for row in results.entries.values() if row.name.startswith("language") and "few" not in row.name]
    assert row.name == "language [layer by language, strength by language]"
    assert row.entry.method.config["strength"] == {"am": 0.2, "he": 0.2}


def test_the_command_says_what_it_chose_and_how_to_go_on(swept, suite):
    out = (swept.parent / "out.txt").read_text(encoding="utf-8")
    assert "language: layer=0, strength=0.2 (6 configurations, 432 texts, 0 s)" in out
    assert out.endswith(f"next: steerboard run --suite {suite} --run {swept} --tuned\n")
    assert f"choice: {swept / 'tuned.json'}\n" in out
    assert f"pictures and surface.csv: {swept / 'tuning'}\n" in out
    assert out.count("not eligible") == 2


def test_the_surface_is_a_table_and_a_picture(swept):
    with (swept / "tuning" / "surface.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    points = tuned_file(swept)["surface"]
    assert list(rows[0])[:4] == ["method", "layer", "strength", "macro_f1"]
    assert [float(row["macro_f1"]) for row in rows] == [p["macro_f1"] for p in points]
    assert [(row["layer"], row["strength"], row["chosen"]) for row in rows[:2]] == [
        ("0", "0.1", "False"),
        ("0", "0.2", "True"),
    ]
    assert (swept / "tuning" / "surface-language.svg").read_text(encoding="utf-8").count("<g>") == 6
    assert [path.name for path in (swept / "tuning").glob("*.svg")] == ["surface-language.svg"]


def test_a_method_of_other_fields_leaves_its_columns_empty(suite, tmp_path):
    outcome = tune(suite, tmp_path / "run", "--methods", "language,clas", "--limit", "3", "--languages", "he")
    assert outcome.code == 0
    with (tmp_path / "run" / "tuning" / "surface.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert (rows["language"]["alpha"], rows["clas"]["alpha"]) == ("", "1.0")
    assert (rows["clas"]["layer"], rows["clas"]["macro_f1"], rows["clas"]["eligible"]) == ("", "", "False")
    # the toy model has no layer that clas takes: every cell is skipped and its default stays
    assert tuned_file(tmp_path / "run")["methods"]["clas"]["options"] is None
    assert "clas: nothing passes the gate; its default stays (6 configurations, 0 texts, 0 s)" in outcome.out
    assert (tmp_path / "run" / "tuning" / "surface-clas.svg").is_file()


def statuses(folder: Path) -> Iterator[tuple[str, CellStatus]]:
    run = Run(folder)
    for name in run.cell_ids():
        status = run.status(name)
        assert status is not None
        yield name, status


def by_hand(language: str, rows: list[Generation], split: str) -> float:
    """Return macro-F1 as scikit-learn gives it: character n-grams of the training texts, no hashing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(2, 5), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    pairs = dict.fromkeys((row.text, row.label) for row in rows)  # each once
    model.fit([text for text, _ in pairs], [label for _, label in pairs])
    gold = human(language, split)
    found = model.predict([row["text"] for row in gold])
    return float(f1_score([row["label"] for row in gold], found, average="macro"))


def tfidf_predictions(run: Run, cell: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = run.predictions(cell)["classifier/tfidf"]["predictions"]["macro_f1/tfidf"]
    return found


def test_scores_are_what_scikit_learn_gives_on_the_validation_rows_and_not_on_test(swept):
    run, different = Run(swept / "tuning"), 0
    seen = 0
    for name, status in statuses(run.path):
        if status.cell.setting == "few-shot" or status.cell.method.config.get("layer") == 1:
            continue
        scores = run.scores(name)
        found = next(s.value for s in scores.scores if s.metric == "macro_f1/tfidf")
        rows = run.generations(name)
        assert found == pytest.approx(by_hand(status.cell.language, rows, "validation"))
        different += abs(found - by_hand(status.cell.language, rows, "test")) > 1e-6
        assert {len(p) for p in tfidf_predictions(run, name).values()} == {20}
        seen += 1
    assert (seen, different > 0) == (8, True)


@pytest.fixture
def data(tmp_path) -> Path:
    """The small suite's text with nonsense as test split."""
    folder = tmp_path / "data"
    shutil.copytree(MINI / "data", folder)
    flip = {"negative": "positive", "positive": "negative"}
    for code in NAMES:
        rows = [{**row, "label": flip[row["label"]], "text": "x " * i} for i, row in enumerate(human(code, "test"), 1)]
        path = folder / "sentiment" / code / "test.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_another_test_split_or_none_alters_nothing_in_the_choice(suite, swept, data, tmp_path):
    from harness.data.sources import _digest_if_there

    assert tune(suite, tmp_path / "run", "--data", data).code == 0
    assert untimed(tmp_path / "run") == untimed(swept)
    before = (tmp_path / "run" / "tuned.json").read_bytes()
    for code in NAMES:
        (data / "sentiment" / code / "test.jsonl").write_bytes(b"\xff not a row")
    _digest_if_there.cache_clear()
    outcome = tune(suite, tmp_path / "run", "--data", data)
    assert "score: 28 cells" in outcome.err  # the held-out text is another; the scores are the same
    assert (tmp_path / "run" / "tuned.json").read_bytes() == before


def test_a_sweep_is_marked_and_never_shares_a_table_with_a_run(suite, swept, tmp_path):
    words = ["--tasks", "sentiment", "--languages", "am,he", "--methods", "human", "--seeds", "1"]
    assert steerboard("run", "--suite", suite, "--run", tmp_path / "run", *words).code == 0
    run, sweep = Run(tmp_path / "run"), Run(swept / "tuning")
    assert run.manifest().suite_hash != sweep.manifest().suite_hash
    assert sweep.manifest().selection.narrowed[0] == "scored on validation text"
    assert "scored on validation text" not in run.manifest().selection.narrowed
    assert len(collect([run, sweep])) == 2


def test_a_sweep_scored_again_by_itself_keeps_its_scores(copy):
    before = snapshot(copy)
    outcome = steerboard("score", copy / "tuning")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "0 cells scored")
    assert "scored on validation text" in " ".join(outcome.out.split())
    assert snapshot(copy) == before


def test_scores_of_another_split_are_computed_again(suite, tmp_path):
    from rich.console import Console

    options = RunOptions(
        suite=str(suite), run=tmp_path / "run", tasks=["sentiment"], languages=["he"], methods=["constant", "human"]
    )
    console = Console(quiet=True)
    prepared = plan_run(options)
    run_stages(prepared, options, console)
    other = replace(prepared, suite=prepared.suite.model_copy(update={"scored_split": "validation"}))
    n_predicted = []
    for which in (prepared, other, other, prepared):
        scored = ScoringStage(which, console).run()
        predictions = tfidf_predictions(which.run, prepared.cells[0].id)
        n_predicted.append((scored, len(predictions["0"])))
    assert n_predicted == [(0, 30), (6, 20), (0, 20), (6, 30)]


# Again, and after a kill


def test_a_second_call_writes_no_text_loads_no_model_and_gives_the_same_bytes(suite, copy):
    before = snapshot(copy / "tuning" / "cells")
    choice = (copy / "tuned.json").read_bytes()
    surface = (copy / "tuning" / "surface.csv").read_bytes()
    picture = (copy / "tuning" / "surface-language.svg").read_bytes()
    outcome = tune(suite, copy, best=None)
    assert outcome.code == 0
    assert "loading" not in outcome.err
    assert "generate" not in outcome.err
    assert snapshot(copy / "tuning" / "cells") == before
    assert (copy / "tuned.json").read_bytes() == choice
    assert (copy / "tuning" / "surface.csv").read_bytes() == surface
    assert (copy / "tuning" / "surface-language.svg").read_bytes() == picture


def test_a_later_command_for_one_language_chooses_on_that_language_alone(suite, copy):
    assert tune(suite, copy, "--languages", "he", best=None).code == 0
    tuned = tuned_file(copy)
    assert tuned["selection"]["languages"] == ["he"]
    assert list(tuned["data_hashes"]) == ["sentiment/he"]
    assert {point["cells_expected"] for point in tuned["surface"]} == {2}
    assert tuned["methods"]["language"]["texts"] == 6 * 2 * 18


def test_another_sweep_does_not_go_into_the_folder(suite, copy):
    before = snapshot(copy)
    line = tune(suite, copy, "--strengths", "0.1,0.3").one_line()
    assert f"{copy / 'tuning'} holds a sweep of another suite, other methods or other values" in line
    assert "other methods" in tune(suite, copy, "--methods", "quality").one_line()
    assert snapshot(copy) == before


REAL = ["--tasks", "sentiment", "--languages", "he", "--limit", "2", "--methods", "language"]
GRID = ["--layers", "0,1", "--strengths", "1,9"]


@slow
def test_a_sweep_killed_twice_goes_on_and_chooses_the_same(tmp_path):
    suite = small_suite(tmp_path, deep_llm(tmp_path / "deep"))
    words = ["tune", "--suite", suite, *REAL, *GRID, "--run"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for cells in (1, 5):
        # One text at a time: cells that share a batch end together, and nothing would be left to kill.
        stopped = start_and_stop([*words, killed, "--batch-size", "1"], killed / "tuning", cells)
        assert stopped.code == -signal.SIGKILL, stopped.err
        assert finished_cells(killed / "tuning") < 8, "it was over before it was stopped"
        assert not (killed / "tuned.json").exists()
    for folder in (killed, whole):
        assert steerboard(*words, folder).code == 0
    assert untimed(killed) == untimed(whole)


# run --tuned

NARROW = ["--tasks", "sentiment", "--languages", "he", "--settings", "zero-shot", "--seeds", "1", "--limit", "2"]


def run_tuned(suite: Path, folder: Path, *more: object) -> Outcome:
    words = [*NARROW, "--methods", "language,negated,human"]
    return steerboard("run", "--suite", suite, "--run", folder, "--tuned", *words, *more)


def configs(folder: Path, name: str) -> list[dict[str, Any]]:
    return [e.method.config for e in Run(folder).manifest().entries if e.method.name == name]


def test_a_run_uses_the_choice_and_its_controls_follow(suite, copy):
    assert run_tuned(suite, copy).code == 0
    (language,), (negated,) = configs(copy, "language"), configs(copy, "negated")
    assert (language["layer"], language["strength"], language["unit"]) == (0, 0.2, "residual")
    assert (negated["of"], negated["options"]) == ("language", language)
    assert {status.state for _, status in statuses(copy)} == {"ok"}


def test_the_manifest_of_the_run_says_what_the_search_cost(suite, copy):
    assert run_tuned(suite, copy, "--methods", "human").code == 0
    tuning = Run(copy).manifest().tuning["language"]
    assert tuning.model_dump() == tuned_file(copy)["methods"]["language"]
    assert (tuning.configurations, tuning.texts, tuning.tokens) == (6, 432, 6480)
    assert tuning.seconds == pytest.approx(sum(p["seconds"] for p in tuned_file(copy)["surface"]))


def test_where_nothing_passed_a_run_takes_the_default(suite, copy):
    tuned = tuned_file(copy)
    tuned["methods"]["language"]["options"] = None
    (copy / "tuned.json").write_text(json.dumps(tuned), encoding="utf-8")
    assert run_tuned(suite, copy).code == 0
    (language,), (negated,) = configs(copy, "language"), configs(copy, "negated")
    assert (language["layer"], language["strength"]) == (0.21, 0.2)
    assert negated["options"] == language


def test_a_run_without_the_option_ignores_the_choice(suite, copy):
    words = [*NARROW, "--methods", "language"]
    assert steerboard("run", "--suite", suite, "--run", copy, *words).code == 0
    assert configs(copy, "language")[0]["layer"] == 0.21
    assert Run(copy).manifest().tuning == {}


def test_another_choice_makes_rows_of_their_own(suite, copy, tmp_path):
    assert run_tuned(suite, copy).code == 0
    first = snapshot(copy / "cells")
    shutil.rmtree(copy / "tuning")
    assert tune(suite, copy, best=0.1).code == 0
    assert tuned_file(copy)["methods"]["language"]["options"] == {"layer": 0, "strength": 0.1}
    outcome = run_tuned(suite, copy)
    assert outcome.code == 0
    assert [config["strength"] for config in configs(copy, "language")] == [0.2, 0.1]
    assert [config["options"]["strength"] for config in configs(copy, "negated")] == [0.2, 0.1]
    assert Run(copy).manifest().tuning["language"].options == {"layer": 0, "strength": 0.1}
    assert first.items() <= snapshot(copy / "cells").items()
    assert len({row.name for row in collect([Run(copy)])[0].entries.values()}) == 5
    assert steerboard("board", "build", copy, "--out", tmp_path / "site").code == 0


# What is refused, in one line

SPOILS = {
    "missing": (None, r"holds no tuned\.json\. Make it: steerboard tune, with the same --suite and --run"),
    "half": (lambda old: old[: len(old) // 2], r"tuned\.json is not valid JSON .*truncated or was not"),
    "newer": (lambda old: old.replace(b'"schema": 1', b'"schema": 9'), r"reads up to 1\. Upgrade"),
    "no schema": (lambda old: b"{}", r"no integer 'schema'"),
    "a list": (lambda old: b"[]", r"holds a JSON list"),
    "further keys": (
        lambda old: old.replace(b"{", b'{"x": 1, ', 1),
        r"tuned\.json is not a valid tuned file.*x: Extra.*Remove it",
    ),
    "binary": (lambda old: b"\x89PNG\xff", r"is not UTF-8"),
    "deep": (lambda old: b"[" * 100_000, r"nested too deeply|not valid JSON"),
    "other suite": (lambda old: re.sub(rb'"suite_hash": "\w+"', b'"suite_hash": "0"', old), r"for another suite"),
    "other data": (
        lambda old: re.sub(rb'("sentiment/he": )"\w+"', rb'\1"0"', old),
        r"made on other data or contrast text of sentiment/he",
    ),
    "no option": (lambda old: old.replace(b'"strength": 0.2', b'"strenght": 0.2'), r"unknown option of method"),
    "no number": (lambda old: old.replace(b'"strength": 0.2', b'"strength": "\\u001b"'), r"strength\.float: Input"),
    "other version": (lambda old: old.replace(b'"version": "1"', b'"version": "0"'), r"tuned as version 0"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_choice_that_cannot_be_used_is_one_line_and_nothing_is_written(suite, copy, spoil):
    change, words = SPOILS[spoil]
    path = copy / "tuned.json"
    old = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(old))
        assert path.read_bytes() != old
    before = snapshot(copy)
    assert re.search(words, run_tuned(suite, copy).one_line())
    assert snapshot(copy) == before


def test_a_choice_for_another_suite_or_model_is_one_line(suite, copy, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(suite.read_text(encoding="utf-8").replace("top_p: 0.9", "top_p: 0.8"), encoding="utf-8")
    assert "was made for another suite (small). Tune again." in run_tuned(other, copy).one_line()
    model = toy_llm(tmp_path / "toy", seed=1)
    line = run_tuned(suite, copy, "--model", model).one_line()
    assert re.search(r"was made on toy \(\w+, float32\), this model is toy \(\w+, float32\)\. Tune again", line)
    line = run_tuned(suite, copy, "--dtype", "bfloat16").one_line()
    assert re.search(r"was made on toy \((\w+), float32\), this model is toy \(\1, bfloat16\)", line)


BAD = [
    (["--layers", "x"], r"--layers 'x': give numbers, such as"),
    (["--layers", ""], r"--layers '': give numbers"),
    (["--layers", "0,nan"], r"--layers '0,nan': give numbers"),
    (["--layers", "1.5"], r"method 'language': layer.*, got 1\.5"),
    (["--layers", "-1"], r"method 'language': layer.*, got -1"),
    (["--strengths", "0.1;0.2"], r"--strengths '0\.1;0\.2': give numbers"),
    (["--strengths", "1e999"], r"--strengths '1e999': give numbers"),
    (["--strengths", ","], r"--strengths ',': give numbers"),
    (["--methods", "lang"], r"unknown method 'lang'; valid: .*Did you mean 'language'"),
    (["--methods", "human"], r"method 'human': it names no grid of values, so there is nothing to tune"),
    (["--methods", "negated"], r"method 'negated': it names no grid"),
    (["--methods", ""], r"nothing to tune\. Give --methods"),
    (["--methods", "clas"], r"none of the methods to tune has '(layer|strength)' in its grid"),
    (["--languages", "xx"], r"unknown language 'xx'; valid: am, he"),
    (["--limit", "0"], r"--limit 0 is too small"),
    (["--data", "none"], r"the data folder none does not exist"),
    (["--contrast", "none"], r"none"),
    (["--model", "none/of/these"], r"the model folder none/of/these does not exist"),
    (["--suite", "minii"], r"unknown suite 'minii'"),
]


@pytest.mark.parametrize(("words", "line"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_bad_option_of_tune_is_one_line_and_makes_no_folder(suite, tmp_path, words, line):
    assert re.search(line, tune(suite, tmp_path / "run", *words).one_line())
    assert not (tmp_path / "run").exists()


def test_tune_says_which_options_the_run_needs_too(suite, tmp_path, data):
    outcome = tune(suite, tmp_path / "run", "--languages", "he", "--limit", "3", "--data", data, "--dtype", "float32")
    assert outcome.out.endswith(f"--run {tmp_path / 'run'} --tuned --data {data} --dtype float32\n")


def test_a_method_that_fails_everywhere_is_told_and_chooses_nothing(suite, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from harness import MethodConfig, SteeringMethod, register\n\n"
        "@register('mine')\nclass Mine(SteeringMethod):\n    '''Fails.'''\n    search_space = {'n': [1, 2]}\n"
        "    class Config(MethodConfig):\n        n: int = 0\n"
        "    def fit(self, ctx):\n        raise ValueError('no <idea>')\n"
    )
    words = ["--methods", "mine", "--plugin", tmp_path / "mine.py", "--languages", "am", "--limit", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engine.generate.GenerationQueue.write", writer(0.2))
        outcome = steerboard("tune", "--suite", suite, "--run", tmp_path / "run", "--tasks", "sentiment", *words)
    assert outcome.code == 1
    assert "first failure: mine/zero-shot/sentiment/am/seed 0: ValueError: no <idea>" in outcome.err
    assert "mine: nothing passes the gate; its default stays (2 configurations, 0 texts, 0 s)" in outcome.out
    assert outcome.out.endswith(f"--tuned --plugin {tmp_path / 'mine.py'}\n")
    assert "No configuration passes: the methods keep their defaults." in outcome.out
