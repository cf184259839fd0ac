"""The command that a command prints as the next one: quoted, complete, and the right one."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.helpers import steerboard
from support.toyruns import F1, flat, plain, selection, toy, write_run

from harness.core.errors import pasted
from harness.data.suite import load_suite
from harness.submissions.pack import check_command
from harness.submissions.template import next_commands

SHIPPED = str(load_suite("mini").folder("data"))


def packed(tmp_path: Path, *parts: str, classifiers=("tfidf",), **manifest: object):
    """Return a run that was scored by some classifiers, and what stands for its submission."""
    made, chosen = toy("mine"), selection(["am"])
    made.scores[F1] = flat(0.5, chosen)
    suite = {"name": "mini", "classifiers": list(classifiers)}
    run = write_run(tmp_path / "run", [made], chosen, suite=suite, **{"data_source": SHIPPED, **manifest})
    for i, cell in enumerate(run.cell_ids()):
        path = run.cell(cell) / "scores.json"
        body = json.loads(path.read_text())
        mine = parts[:1] if i == 0 else parts  # the first cell has only the first of them
        body["parts"] = {f"classifier/{part}": {"signature": "s", "metrics": []} for part in mine}
        plain(path, body)
    return run, SimpleNamespace(folder=Path("my subs/mine"), card=SimpleNamespace(identity=made.method))


def test_a_command_is_quoted_for_the_shell():
    assert shlex.split(pasted("run", "--run", "a b/it's $HOME")) == ["steerboard", "run", "--run", "a b/it's $HOME"]


def test_the_check_of_a_usual_run_needs_no_option(tmp_path):
    assert check_command(*packed(tmp_path, "tfidf")) == "steerboard submission check 'my subs/mine'"


def test_the_check_names_the_classifier_that_was_claimed_where_it_is_not_the_suites(tmp_path):
    run = packed(tmp_path, "tfidf", classifiers=["tfidf", "hf:FacebookAI/xlm-roberta-base"])
    assert check_command(*run) == "steerboard submission check 'my subs/mine' --classifier tfidf"


def test_only_what_all_cells_were_scored_by_is_claimed(tmp_path):
    run = packed(tmp_path, "tfidf", "frozen:labse", classifiers=["frozen:labse"])
    assert check_command(*run).endswith("--classifier tfidf")


def test_a_local_classifier_is_named_by_its_path(tmp_path):
    commands = [["steerboard", "run", "--classifier", "hf:/models/my encoder,epochs=2"]]
    run = packed(tmp_path, "hf:my encoder,epochs=2", commands=commands)
    assert shlex.split(check_command(*run))[-2:] == ["--classifier", "hf:/models/my encoder,epochs=2"]


@pytest.mark.parametrize(
    ("scored", "given"),
    [
        ("frozen:e5,prefix=query", "frozen:/models/e5,prefix=query: "),
        ("frozen:e5", "frozen:/models/e5"),
        ("frozen:intfloat/e5,prefix=query", "frozen:/models/e5,name=intfloat/e5,prefix=query"),
    ],
)
def test_an_encoder_is_named_with_the_prefix_that_its_scores_have(tmp_path, scored, given):
    others = ["frozen:/models/e5,prefix=passage", "frozen:/models/e5,pooling=cls"]
    words = [word for spec in (*others, given) for word in ("--classifier", spec)]
    run = packed(tmp_path, scored, commands=[["steerboard", "run", *words]])
    assert shlex.split(check_command(*run))[-1] == given


def test_an_option_that_is_no_part_of_the_name_is_given_to_the_check_too(tmp_path):
    commands = [["steerboard", "run", "--classifier", "hf:owner/encoder,batches=padded"]]
    run = packed(tmp_path, "hf:owner/encoder", commands=commands)
    assert shlex.split(check_command(*run))[-1] == "hf:owner/encoder,batches=padded"


def test_the_check_gets_the_text_that_the_run_was_made_with(tmp_path):
    run = packed(tmp_path, "tfidf", data_source="/data/my text", contrast="/data/noise")
    words = shlex.split(check_command(*run))
    assert words[4:] == ["--data", "/data/my text", "--contrast", "/data/noise"]


@pytest.mark.parametrize(("suite", "model"), [("mini", []), ("steer11", ["--model", "MODEL"])])
def test_the_commands_after_new_name_a_model_where_the_suite_ships_none(suite, model):
    _, run, *_ = next_commands("mine", Path("else where/mine"), "code", suite)
    words = shlex.split(run)
    assert words[-2:] == model if model else "--model" not in words
    assert words[words.index("--plugin") + 1] == "else where/mine/method.py"


def test_the_next_command_of_contrast_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.json").write_text('{"good": ["dobrý deň"], "bad": ["dobry"]}', encoding="utf-8")
    done = steerboard("contrast", "import", "pairs.json", "--language", "sk", "--out", "my text")
    assert done.code == 0, done.err
    line = done.out.splitlines()[-1]
    assert line == "next: steerboard run --suite SUITE --model MODEL --contrast 'my text'"


def test_an_existing_baseline_is_replaced_by_the_command_that_is_printed(tmp_path):
    made = toy("zero-shot")
    made.scores[F1] = flat(0.5, selection())
    run = write_run(tmp_path / "my run", [made], selection()).path
    out = tmp_path / "base line.json.gz"
    assert steerboard("gate", "calibrate", run, "--out", out).code == 0
    line = steerboard("gate", "calibrate", run, "--out", out).one_line()
    program, *words = shlex.split(line.partition("with a run: ")[2].removesuffix("."))
    assert program == "steerboard"
    assert steerboard(*words).code == 0
