"""Runs from end to end: they finish, resume with the same texts, and outlive a method that fails."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import signal
from pathlib import Path

import pytest
from support.helpers import (
    Outcome,
    contents,
    deep_llm,
    finished_cells,
    second_process,
    small_suite,
    snapshot,
    start_and_stop,
    steerboard,
    toy_encoder,
    toy_llm,
    untimed_files,
)

from harness.core.cells import cell_id
from harness.core.records import CellStatus
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.runner.prepare import open_run

slow = pytest.mark.slow
PLUGIN = """
from harness import Reference, Skip, Steering, SteeringMethod, register

@register("mine")
class Mine(SteeringMethod):
    '''A method made for a test.'''
    settings = ("zero-shot",)
{body}
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """A suite of two languages with a model of random weights that writes four bytes a text."""
    folder = tmp_path_factory.mktemp("suite")
    return small_suite(folder, toy_llm(folder / "toy"))


@pytest.fixture
def go(suite, tmp_path):
    """Run the small suite in this process: call it with options; the folder is always the same."""

    def start(*options: object, methods: str = "human", plugin: str = "") -> Outcome:
        words = ["--languages", "am,he", "--tasks", "sentiment", "--seeds", "1", "--limit", "2"]
        if plugin:
            (tmp_path / "mine.py").write_text(PLUGIN.format(body=plugin))
            words += ["--plugin", tmp_path / "mine.py"]
        run = ["--run", tmp_path / "run"]
        return steerboard("run", "--suite", suite, "--methods", methods, *words, *run, *options)

    return start


def statuses(folder: Path) -> dict[tuple[str, str], CellStatus]:
    """Return how cells ended, by method and language."""
    run = Run(folder)
    found = [run.status(cell) for cell in run.cell_ids()]
    return {(status.cell.method.name, status.cell.language): status for status in found}


# A method that fails


FAILURES = {
    "prompt": ("    def prompt(self, ctx):\n        raise ValueError('no\\nidea')", "ValueError: no idea"),
    "fit": ("    def fit(self, ctx):\n        return 1 / 0", "ZeroDivisionError: division by zero"),
    "supports": ("    def supports(self, ctx):\n        return ctx.nothing", "AttributeError: "),
    "wrong-type": ("    def prompt(self, ctx):\n        return None", "AttributeError: "),
    "exit": ("    def prompt(self, ctx):\n        raise SystemExit(3)", "SystemExit: 3"),
}


def test_a_method_that_raises_fails_alone(go, tmp_path):
    classes = [
        f"@register({name!r})\nclass M{i}(SteeringMethod):\n    settings = ('zero-shot',)\n{body}\n"
        for i, (name, (body, _)) in enumerate(FAILURES.items())
    ]
    outcome = go(methods=",".join([*FAILURES, "zero-shot", "human"]), plugin="    pass\n\n" + "\n".join(classes))
    found = statuses(tmp_path / "run")
    assert outcome.code == 1
    assert {key: status.state for key, status in found.items()} == {
        **{(name, code): "method_error" for name in FAILURES for code in ("am", "he")},
        **{(name, code): "ok" for name in ("zero-shot", "human") for code in ("am", "he")},
    }
    for name, (_, reason) in FAILURES.items():
        assert found[name, "am"].reason.startswith(reason)
    assert "14 cells, 10 method_error, 4 ok" in outcome.err
    assert "first failure: prompt/zero-shot/sentiment/am/seed 1: ValueError: no idea" in outcome.err


def test_a_failure_is_no_result_and_is_tried_again(go, tmp_path):
    broken = "    def prompt(self, ctx):\n        raise ValueError('no')"
    assert go(methods="mine", plugin=broken).code == 1
    assert go(methods="mine", plugin="    pass").code == 0
    status = statuses(tmp_path / "run")["mine", "am"]
    assert (status.state, status.reason, status.attempts) == ("ok", "", 2)


def test_a_failure_for_one_language_leaves_the_other(go, tmp_path):
    body = "    def fit(self, ctx):\n        assert ctx.language != 'he'\n        return Steering()"
    assert go(methods="mine", plugin=body).code == 1
    found = statuses(tmp_path / "run")
    assert (found["mine", "am"].state, found["mine", "he"].state) == ("ok", "method_error")


def test_a_reference_with_another_number_of_texts_has_failed(go, tmp_path):
    body = (
        "@register('short')\nclass Short(Reference):\n    '''Too few.'''\n"
        "    def texts(self, ctx):\n        return {label: ['x'] for label in ctx.task.labels}"
    )
    assert go(methods="short", plugin="    pass\n" + body).code == 1
    reason = statuses(tmp_path / "run")["short", "am"].reason
    assert reason == "reference 'short' gave {'negative': 1, 'positive': 1}, not 2 each."


def test_a_reference_may_give_its_labels_in_any_order(go, tmp_path):
    body = (
        "@register('turned')\nclass Turned(Reference):\n    '''Labels the other way round.'''\n"
        "    def texts(self, ctx):\n"
        "        return {label: [f'{label} ጥሩ', f'{label} טוב'] for label in reversed(ctx.task.labels)}"
    )
    assert go(methods="turned", plugin="    pass\n" + body).code == 0
    run = Run(tmp_path / "run")
    labels = load_suite("mini").task("sentiment", "am").labels
    for cell in run.cell_ids():
        texts = run.generations(cell)
        assert [(text.label, text.index) for text in texts] == [(name, i) for name in labels for i in (0, 1)]
        assert all(text.text.startswith(text.label) for text in texts)


def test_a_reference_that_gives_no_text_has_failed_alone(go, tmp_path):
    odd = {"half": "'\\ud83d'", "nothing": "None", "number": "7"}
    classes = [
        f"@register({name!r})\nclass O{i}(Reference):\n    '''No text.'''\n    def texts(self, ctx):\n"
        f"        return {{label: ['a', {text}] for label in ctx.task.labels}}\n"
        for i, (name, text) in enumerate(odd.items())
    ]
    assert go(methods=",".join([*odd, "human"]), plugin="    pass\n\n" + "\n".join(classes)).code == 1
    found = statuses(tmp_path / "run")
    for name in odd:
        assert found[name, "am"].state == "method_error"
        assert "which is not a text" in found[name, "am"].reason
    assert found["human", "he"].state == "ok"


def test_a_reason_with_half_a_character_is_recorded(go, tmp_path):
    body = "    def prompt(self, ctx):\n        raise ValueError('\\ud83d')"
    assert go(methods="mine,human", plugin=body).code == 1
    assert statuses(tmp_path / "run")["mine", "am"].reason == "ValueError: ?"


def test_running_out_of_memory_is_no_fault_of_the_method(go, tmp_path):
    go(methods="mine", plugin="    def prompt(self, ctx):\n        raise MemoryError('full')")
    assert statuses(tmp_path / "run")["mine", "am"].state == "infra_error"


# A method that does not do a cell

SKIP = "    def supports(self, ctx):\n        return Skip('no Hebrew') if ctx.language == 'he' else None"


def test_what_a_method_cannot_do_is_stored_with_its_reason(go, tmp_path):
    outcome = go(methods="mine", plugin=SKIP)
    found = statuses(tmp_path / "run")
    assert outcome.code == 0
    assert found["mine", "am"].state == "ok"
    assert (found["mine", "he"].state, found["mine", "he"].reason) == ("skipped", "no Hebrew")
    assert "2 cells, 1 ok, 1 skipped" in outcome.err


def test_a_skipped_cell_has_no_texts_and_no_scores(go, tmp_path):
    go(methods="mine", plugin=SKIP)
    run = Run(tmp_path / "run")
    cell = cell_id(statuses(tmp_path / "run")["mine", "he"].cell)
    assert [path.name for path in run.cell(cell).iterdir()] == ["status.json"]


def test_a_second_run_leaves_a_skipped_cell_as_it_is(go, tmp_path):
    go(methods="mine", plugin=SKIP)
    before = snapshot(tmp_path / "run" / "cells")
    outcome = go(methods="mine", plugin=SKIP)
    assert outcome.code == 0
    assert "loading" not in outcome.err
    assert snapshot(tmp_path / "run" / "cells") == before


def test_a_method_that_learns_to_do_a_cell_does_it(go, tmp_path):
    go(methods="mine", plugin=SKIP)
    go(methods="mine", plugin="    pass")
    assert statuses(tmp_path / "run")["mine", "he"].state == "ok"


# What a run leaves


def test_a_cell_holds_the_exact_number_of_texts_for_every_label(go, tmp_path):
    go(methods="zero-shot")
    run = Run(tmp_path / "run")
    for cell in run.cell_ids():
        texts = [(text.label, text.index) for text in run.generations(cell)]
        assert texts == [("negative", 0), ("negative", 1), ("positive", 0), ("positive", 1)]


def test_the_demonstrations_of_a_cell_are_written_to_its_status(go, tmp_path):
    go(methods="few-shot,zero-shot")
    found = statuses(tmp_path / "run")
    shown = found["few-shot", "am"].demonstrations
    assert {label: len(texts) for label, texts in shown.items()} == {"negative": 5, "positive": 5}
    assert found["zero-shot", "am"].demonstrations == {}


def test_a_narrowed_run_is_marked(go, tmp_path):
    outcome = go(methods="human")
    words = ["1 of 2 tasks (sentiment)", "1 of 3 seeds (1)", "2 of 9 texts per sentiment label"]
    assert Run(tmp_path / "run").manifest().selection.narrowed == words
    assert "narrowed run: " + "; ".join(words) in " ".join(outcome.out.split())


def test_a_run_grows_by_what_is_added(go, tmp_path):
    go("--languages", "he", methods="human")
    go("--seeds", "3", methods="human,constant")
    manifest = Run(tmp_path / "run").manifest()
    assert (manifest.selection.languages, manifest.selection.seeds) == (["am", "he"], [1, 3])
    assert [entry.method.name for entry in manifest.entries] == ["human", "constant"]
    assert len(manifest.commands) == 2


def test_a_started_run_is_resumed_by_the_same_command_and_marks_nothing_new(go, tmp_path):
    go(methods="human")
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    go(methods="human")
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


def test_a_lost_cell_is_written_again_with_the_same_texts(go, tmp_path):
    go(methods="zero-shot,human")
    cells = tmp_path / "run" / "cells"
    before = {name: data for name, data in contents(cells).items() if "status" not in name}
    for cell in cells.iterdir():
        (cell / "status.json").unlink()
        (cell / "generations.jsonl").unlink()
    go(methods="zero-shot,human")
    assert {name: data for name, data in contents(cells).items() if "status" not in name} == before


def test_score_takes_the_classifiers_of_the_commands_that_made_the_run(suite, tmp_path):
    text = suite.read_text(encoding="utf-8")
    assert "classifiers: [tfidf]" in text
    other = tmp_path / "hub.yaml"  # its own classifier would have to come from the hub
    other.write_text(text.replace("classifiers: [tfidf]", "classifiers: [hf:owner/none]"), encoding="utf-8")
    run = Run(tmp_path / "run")
    limited = ["--methods", "constant", "--languages", "am", "--seeds", "1", "--limit", "2"]
    assert steerboard("run", "--suite", other, "--run", run.path, *limited, "--classifier", "tfidf").code == 0
    scores = {path: path.read_bytes() for path in run.path.glob("cells/*/scores.json")}
    manifest = run.manifest()
    in_one_word = [["steerboard", "run", "--suite", str(other), "--classifier=tfidf"]]
    for commands in (manifest.commands, in_one_word):
        run.write_manifest(manifest.model_copy(update={"commands": commands}))
        for path in scores:
            path.unlink()
        outcome = steerboard("score", run.path)
        assert outcome.code == 0, outcome.err
        assert scores == {path: path.read_bytes() for path in run.path.glob("cells/*/scores.json")}


def test_embeddings_and_identifiers_are_those_of_the_commands_too(go, tmp_path):
    encoder = toy_encoder(tmp_path / "toyenc")
    go(methods="human")
    run = Run(tmp_path / "run")
    manifest = run.manifest()
    more = [
        *manifest.commands,
        ["steerboard", "run", f"--embedding=hf:{encoder}"],
        ["steerboard", "gate", "--embedding", "x"],
    ]
    run.write_manifest(manifest.model_copy(update={"commands": more}))
    assert [part.name for part in open_run(run.path).parts if part.name.startswith("embedding/")] == [
        "embedding/tfidf",
        "embedding/hf:toyenc",
    ]


def test_a_further_classifier_adds_its_score_and_leaves_the_rest(go, tmp_path):
    encoder = toy_encoder(tmp_path / "toyenc")
    go(methods="human")
    run = Run(tmp_path / "run")
    before = {cell: run.scores(cell).scores for cell in run.cell_ids()}
    outcome = steerboard("score", run.path, "--classifier", f"hf:{encoder},epochs=1,seeds=2")
    assert outcome.out.startswith("2 cells scored\n")
    for cell in run.cell_ids():
        scores = run.scores(cell)
        old, new = scores.scores[: len(before[cell])], scores.scores[len(before[cell]) :]
        assert old == before[cell]
        assert {score.metric.partition("/")[2] for score in new} == {"hf:toyenc,epochs=1,seeds=2"}
        f1 = next(score for score in new if score.metric.startswith("macro_f1/"))
        assert list(f1.by_seed) == ["1", "2"]
        assert set(run.predictions(cell)) == {"classifier/tfidf", "classifier/hf:toyenc,epochs=1,seeds=2"}


def test_the_scores_of_every_part_stand_in_the_file_with_its_recipe(go, tmp_path):
    go(methods="human")
    run = Run(tmp_path / "run")
    for cell in run.cell_ids():
        scores = run.scores(cell)
        assert list(scores.parts) == [
            *("validity", "lexical", "embedding/tfidf", "leakage", "membership", "hidden", "classifier/tfidf")
        ]
        listed = [name for part in scores.parts.values() for name in part.metrics]
        assert sorted(listed) == sorted(score.metric for score in scores.scores)
        assert len(set(listed)) == len(listed)
        n_texts = len(run.generations(cell))
        audit = run.text_checks(cell)
        kept = ("valid", "reasons", "language", "label")
        assert {len(audit["validity"][name]) for name in kept} == {n_texts}
        assert len(audit["leakage"]["copied/test"]) == n_texts


def test_human_text_beside_the_reference_human_is_the_same_text(go, tmp_path):
    go(methods="human,constant")
    run = Run(tmp_path / "run")
    beside: dict[str, list[float | None]] = {}
    for cell in run.cell_ids():
        scores = {score.metric: score for score in run.scores(cell).scores}
        status = run.status(cell)
        for name in ("self_chrf", "distinct_2.valid", "vendi/tfidf", "valid_share", "length"):
            if status.cell.method.name == "human":
                assert scores[name].human == scores[name].value
            place = f"{name}/{status.cell.task}/{status.cell.language}/{status.cell.seed}"
            beside.setdefault(place, []).append(scores[name].human)
    assert all(len(values) == 2 and values[0] == values[1] for values in beside.values())


def test_a_part_with_another_recipe_is_scored_again_and_the_rest_is_kept(go, tmp_path, monkeypatch):
    from harness.scoring.lexical import LexicalScorer

    go(methods="human")
    run = Run(tmp_path / "run")
    before = {cell: run.scores(cell) for cell in run.cell_ids()}
    original = LexicalScorer.score
    asked = []

    def watched(self, sample, place):
        asked.append(len(sample.texts))
        return original(self, sample, place)

    def renamed(self, budgets):
        made(self, budgets)
        self.signature += "|another"

    made = LexicalScorer.__init__
    monkeypatch.setattr(LexicalScorer, "score", watched)
    monkeypatch.setattr(LexicalScorer, "__init__", renamed)
    assert steerboard("score", run.path).out.startswith("2 cells scored\n")
    assert len(asked) == 4  # of two cells and of the human text beside each
    for cell, old in before.items():
        new = run.scores(cell)
        assert new.parts["lexical"].signature.endswith("|another")
        assert sorted(s.metric for s in new.scores) == sorted(s.metric for s in old.scores)
        assert {s.metric: s.value for s in new.scores} == {s.metric: s.value for s in old.scores}
        assert run.text_checks(cell)["validity"]
    assert steerboard("score", run.path).out.startswith("0 cells scored\n")


def test_scores_belong_to_the_texts_they_were_computed_on(go, tmp_path):
    go(methods="human")
    run = Run(tmp_path / "run")
    cell = run.cell_ids()[0]
    path = run.cell(cell) / "generations.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"text": "', '"text": "x '), encoding="utf-8")
    go(methods="human")
    assert run.scores(cell).generations_sha256 == run.generations_digest(cell)


# The whole mini suite

NARROW = ["--languages", "he", "--limit", "2", "--seeds", "1"]
CELLS = 2 * 12  # tasks, rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The mini suite in one language with every method."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    outcome = steerboard("run", "--suite", "mini", *NARROW, "--run", folder)
    assert outcome.code == 0, outcome.err
    return folder


@slow
def test_a_run_of_the_mini_suite_finishes(whole):
    run = Run(whole)
    assert [run.status(cell).state for cell in run.cell_ids()] == ["ok"] * CELLS
    assert all(run.scores(cell) for cell in run.cell_ids())


@slow
def test_a_second_run_touches_no_cell_and_loads_no_model(whole):
    code = (
        "import sys\nfrom harness.cli.main import main\nsys.argv[0] = 'steerboard'\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    before = snapshot(whole / "cells")
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    outcome = second_process("run", "--suite", "mini", *NARROW, "--run", whole, code=code)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started < 5
    assert outcome.code == 0
    assert outcome.err.splitlines() == [f"run {whole}: {CELLS} cells, {CELLS} ok", "False"]
    assert snapshot(whole / "cells") == before


@slow
def test_another_number_of_texts_does_not_go_into_the_folder(whole):
    before = snapshot(whole)
    outcome = steerboard("run", "--suite", "mini", *NARROW, "--limit", "3", "--run", whole)
    assert "another number of texts per label" in outcome.one_line()
    assert snapshot(whole) == before


@slow
def test_the_manifest_can_tell_where_a_run_came_from(whole):
    manifest = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["commands"] == [["steerboard", "run", "--suite", "mini", *NARROW, "--run", str(whole)]]
    assert {"python", "torch", "transformers", "scikit-learn", "sacrebleu"} <= set(manifest["versions"])
    assert manifest["model"]["name"] == "pocketlm"
    assert manifest["selection"]["narrowed"][0] == "1 of 11 languages (he)"


# Runs that are stopped: processes of their own


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    """The small suite with a model that every method can steer, and a short search of the learned one."""
    folder = tmp_path_factory.mktemp("deep")
    path = small_suite(folder, deep_llm(folder / "toy"))
    text, steps = path.read_text(encoding="utf-8"), "learned: {steps: 4, lr: 0.01, max_texts: 32}"
    assert steps in text
    path.write_text(text.replace(steps, "learned: {steps: 4, max_texts: 16}"), encoding="utf-8")
    return path


@slow
def test_a_run_killed_twice_goes_on_with_the_same_texts(deep, tmp_path):
    """Killed with all methods ahead, and again among them; finished, it is as if it had never been."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ["run", "--suite", deep, *NARROW, "--tasks", "sentiment", "--run"]
    for cells in (1, 5):
        # Few texts at a time: cells that share a batch end together, and nothing would be left to kill.
        stopped = start_and_stop([*words, killed, "--batch-size", "2"], killed, cells)
        assert stopped.code == -signal.SIGKILL, stopped.err
        assert finished_cells(killed) < CELLS / 2, "it was over before it was stopped"
    for folder in (killed, whole):
        assert steerboard(*words, folder).code == 0
    assert {status.state for status in statuses(whole).values()} == {"ok"}
    assert untimed_files(killed) == untimed_files(whole)


@slow
def test_an_interrupted_run_says_how_to_go_on(deep, tmp_path):
    folder = tmp_path / "run"
    words = ["run", "--suite", deep, *NARROW, "--tasks", "sentiment", "--batch-size", "2", "--run", folder]
    stopped = start_and_stop(words, folder, 2, signal.SIGINT)
    assert stopped.code == 130
    assert finished_cells(folder) < CELLS / 2, "it was over before it was stopped"
    assert stopped.err.splitlines()[-1].startswith("steerboard: stopped; finished cells are kept")
    assert "Traceback" not in stopped.err


def test_ctrl_c_that_foreign_code_drops_ends_the_run_after_the_cell():
    import os

    from rich.console import Console

    from harness.runner.progress import progress_bar

    finished = []
    with pytest.raises(KeyboardInterrupt), progress_bar(Console(file=io.StringIO()), "generate", 3) as tracker:
        for cell in ("first", "second", "third"):
            if cell == "second":
                with contextlib.suppress(KeyboardInterrupt):  # as a finaliser would
                    os.kill(os.getpid(), signal.SIGINT)
            finished.append(cell)
            tracker.finish_cell(cell)
    assert finished == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
