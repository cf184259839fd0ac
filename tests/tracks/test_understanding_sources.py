"""Methods fitted on the model that lm-eval loaded, and our tasks under lm-eval."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.helpers import MINI, TASKS, jsonl, second_process

pytest.importorskip("lm_eval", reason="NOT CHECKED: lm-eval is not installed")

from lm_eval.tasks import TaskManager
from support.lm_requests import (
    PAIRS,
    POCKET,
    answers,
    asked,
    assert_refused,
    pocket,
    same,
)

from harness.core.interventions import Steering, load_steering
from harness.tracks.understanding.__main__ import main
from harness.tracks.understanding.sources import Arguments, open_source

# A method, fitted on the model that lm-eval loaded


@pytest.fixture(scope="module")
def fits(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fits")


def files_of(run: Path, method: str) -> dict[str, Path]:
    """Return the steering files of a method in a run by language."""
    files = {path: load_steering(path).provenance for path in run.glob("steering/*.safetensors")}
    return {head["language"]: path for path, head in files.items() if head["method"]["name"] == method}


def test_a_method_is_fitted_for_every_language_that_comes_and_kept(fits):
    options = {"suite": "mini", "layer": 2, "strength": 0.5, "run": str(fits)}
    codes = ["am", "he", "am", "he"]
    found = answers(pocket("language", **options), "loglikelihood", codes)
    by_language = files_of(fits, "language")
    assert sorted(by_language) == ["am", "he"]
    (item,) = load_steering(by_language["he"]).interventions
    assert (item.layer, item.strength) == (2, 0.5)
    alone = {code: pocket(str(path)) for code, path in by_language.items()}  # the model that it was fitted on
    for i, code in enumerate(codes):
        requests = asked("loglikelihood", [PAIRS[i]], [code])
        assert same(alone[code].loglikelihood(requests, disable_tqdm=True), [found[i]])
    times = {path: path.stat().st_mtime_ns for path in by_language.values()}
    assert answers(pocket("language", **options), "loglikelihood", codes) == found
    assert {path: path.stat().st_mtime_ns for path in by_language.values()} == times


def test_strength_is_what_the_method_calls_it(fits):
    lm = pocket("clas", suite="mini", strength=-3, beta=0.9, language="am", run=str(fits))
    assert not same(answers(lm, "loglikelihood", [None] * 4), answers(pocket(), "loglikelihood"))
    made = load_steering(files_of(fits, "clas")["am"])
    config = made.provenance["method"]["config"]
    assert (config["alpha"], config["beta"], config["gamma"]) == (-3.0, 0.9, 0.2)
    assert all(item.strength == -3 for item in made.interventions)


def test_a_control_takes_the_options_of_what_it_controls(fits):
    lm = pocket("negated", of="language", layer=2, strength=0.5, suite="mini", run=str(fits))
    lm.loglikelihood(asked("loglikelihood", PAIRS[:1], ["am"]), disable_tqdm=True)
    (minus,), (plus,) = (
        load_steering(files_of(fits, method)["am"]).interventions for method in ("negated", "language")
    )
    assert np.array_equal(minus.vector, -plus.vector)
    assert (minus.layer, minus.strength) == (2, 0.5)


def test_the_fit_is_for_the_task_that_the_requests_are_of(monkeypatch):
    source, fitted = open_source(Arguments("language", suite="mini")), []
    monkeypatch.setattr(source, "_fit", lambda task, code: fitted.append((task, code)) or Steering())
    for name in (
        "steerboard_topic_am",
        "steerboard_sentiment_am",
        "xnli_de",
        "steerboard_other_he",
        "xnli_de",
    ):
        source.steering_for(name)
    assert fitted == [("topic", "am"), ("sentiment", "am"), ("sentiment", "de"), ("sentiment", "he")]


# Our tasks in lm-eval, on local data


@pytest.fixture(scope="module")
def load() -> Callable[..., Any]:
    from lm_eval.tasks import TaskManager

    def build(name: str, **metadata: Any) -> Any:
        manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
        return manager.load(name)["tasks"][name]

    return build


def rows_of(data: Path, task: str, code: str, split: str) -> list[tuple[str, str]]:
    import json

    lines = (data / task / code / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    return [(row["text"], row["label"]) for row in map(json.loads, filter(None, lines))]


@pytest.mark.parametrize(("task", "code"), [("topic", "am"), ("topic", "en"), ("sentiment", "he"), ("sentiment", "cs")])
def test_with_data_in_the_metadata_a_task_has_the_rows_of_the_folder(load, task, code):
    built = load(f"steerboard_{task}_{code}", data=str(MINI / "data"), language="de")
    word = {"topic": "Topic", "sentiment": "Sentiment"}[task]
    for docs, split in (
        (built.test_docs(), "test"),
        (built.validation_docs(), "validation"),
        (built.training_docs(), "train"),
    ):
        expected = rows_of(MINI / "data", task, code, split)
        assert [(built.doc_to_text(d), built.doc_to_target(d)) for d in docs] == [
            (f"{text}\n{word}:", label) for text, label in expected
        ]
    assert built.doc_to_choice(built.test_docs()[0]) == built.config.doc_to_choice


def test_accuracy_and_macro_f1_are_those_of_the_fixed_labels(load):
    from sklearn.metrics import f1_score

    task = load("steerboard_topic_am", data=str(MINI / "data"))
    labels = task.config.doc_to_choice
    drawn = np.random.default_rng(0).integers(len(labels), size=len(task.test_docs()))
    docs = [doc for doc in task.test_docs() if doc["label"] != "travel"]  # never seen: counts as 0
    items = [
        task.process_results(doc, [(float(i == guess), False) for i in range(len(labels))])
        for doc, guess in zip(docs, drawn, strict=False)
    ]
    gold, found = [labels.index(doc["label"]) for doc in docs], [int(g) for g in drawn[: len(docs)]]
    assert [item["acc"] for item in items] == [float(g == f) for g, f in zip(gold, found, strict=True)]
    expected = f1_score(gold, found, labels=range(7), average="macro", zero_division=0)
    assert task.aggregation()["f1"]([item["f1"] for item in items]) == pytest.approx(expected)
    assert task.higher_is_better() == {"acc": True, "f1": True}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, r"missing data: .*topic/am/train\.jsonl does not exist"),
        ([], r"missing data: .*train\.jsonl is empty"),
        ([{"text": "a", "label": "odd"}], r"train\.jsonl, line 1: label 'odd' is none of science/technology"),
        ([{"label": "travel"}], r"train\.jsonl, line 1: no JSON with text and label"),
    ],
    ids=["missing", "empty", "label", "text"],
)
def test_local_data_that_is_no_data_is_refused_in_one_line(load, tmp_path, rows, words):
    if rows is not None:
        jsonl(tmp_path / "topic" / "am" / "train.jsonl", rows)
    assert_refused(lambda: load("steerboard_topic_am", data=str(tmp_path)), words)


def test_simple_evaluate_runs_our_tasks_by_name(fits):
    import lm_eval
    from lm_eval.tasks import TaskManager

    names, data = ["steerboard_topic_am", "steerboard_sentiment_he"], str(MINI / "data")
    results = {}
    for steering in ("zero-shot", "language"):
        results[steering] = lm_eval.simple_evaluate(
            model="steerboard",
            model_args={"pretrained": str(POCKET), "dtype": "float32", "suite": "mini", "run": str(fits)}
            | {"steering": steering},
            tasks=names,
            task_manager=TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"data": data}),
            batch_size=8,
            limit=4,
            bootstrap_iters=10,
        )
    for found in results.values():
        assert set(found["results"]) == set(names)
        assert all(0 <= found["results"][n][f"{m},none"] <= 1 for n in names for m in ("acc", "f1"))
    plain, moved = ([sample["resps"] for n in names for sample in found["samples"][n]] for found in results.values())
    assert len(plain) == 8
    assert plain != moved


COMMAND = ("--include_path", str(TASKS), "--tasks", "steerboard_topic_am,steerboard_sentiment_he")
COMMAND += ("--model", "steerboard", "--limit", "4", "--batch_size", "8", "--model_args")
ARGUMENTS = f"pretrained={POCKET},suite=mini,dtype=float32,data={MINI / 'data'}"

MODULE = """
import runpy
from functools import partialmethod
from lm_eval.tasks import TaskManager
TaskManager.__init__ = partialmethod(TaskManager.__init__, include_defaults=False)
runpy.run_module("harness.tracks.understanding", run_name="__main__")
"""  # with our tasks alone: to read all of lm-eval's takes longer than the rest


@pytest.mark.slow
def test_the_command_of_lm_eval_knows_the_model_type():
    """In a process of its own: our tasks on local data."""
    good = second_process(*COMMAND, f"{ARGUMENTS},steering=language,strength=0.5", code=MODULE)
    assert good.code == 0, good.err
    for text in ("steerboard_topic_am", "steerboard_sentiment_he", "|acc ", "|f1 "):
        assert text in good.out


def test_the_command_of_lm_eval_says_errors_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(TaskManager, "__init__", partialmethod(TaskManager.__init__, include_defaults=False))
    monkeypatch.setattr(sys, "argv", ["lm_eval", *COMMAND, f"{ARGUMENTS},steering=langage"])
    with pytest.raises(SystemExit) as end:
        main()
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("steerboard: unknown method 'langage'; valid:")
