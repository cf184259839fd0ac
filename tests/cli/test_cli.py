"""What a user sees: help, lists, and one clear line with exit code 2 for whatever is not right."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support.helpers import MINI, TASKS, command, environment, snapshot, steerboard
from support.references import assert_line, finished_references
from support.references import run_references as run

import harness
from harness.data.suite import load_suite
from harness.methods.registry import BUILT_IN

COMMANDS = [[], ["run"], ["score"], ["demo"], ["list"], ["board"], ["board", "build"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of two cells."""
    return finished_references(tmp_path_factory)


# Help and lists


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words):
    outcome = steerboard(*words, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Usage: steerboard")
    assert "--help" in outcome.out


@pytest.mark.parametrize("words", [[], ["board"]], ids=["steerboard", "board"])
def test_without_a_command_the_help_is_shown(words):
    outcome = steerboard(*words)
    assert (outcome.code, outcome.err) == (2, "")
    assert outcome.out == steerboard(*words, "--help").out


def test_the_version_is_that_of_the_package():
    assert steerboard("--version").out == f"steerboard {harness.__version__}\n"


def listed(*words: object) -> dict[str, str]:
    """Return a list that the command prints, by first word."""
    outcome = steerboard("list", *words)
    assert (outcome.code, outcome.err) == (0, "")
    return {name: text for name, _, text in (line.partition(" ") for line in outcome.out.splitlines())}


def test_the_methods_are_listed_with_what_they_do():
    methods = listed("methods")
    assert list(methods) == sorted(BUILT_IN)
    assert all(len(text.strip()) > 30 and "[built in]" in text for text in methods.values())


def test_a_plug_in_is_listed_with_its_file(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from harness import SteeringMethod, register\n\n"
        "@register('mine')\nclass Mine(SteeringMethod):\n    '''Says what it does.'''\n"
    )
    assert listed("methods", "--plugin", plugin)["mine"].strip() == f"Says what it does. [{plugin}]"


def test_the_suites_are_listed():
    suites = listed("suites")
    assert list(suites) == ["mini", "published", "steer11", "steer11-curve", "tiny-real"]
    assert suites["mini"].endswith("Classifiers, the preferred first: tfidf (0.1 s a cell).")
    assert "tfidf (0.1 s a cell); hf:FacebookAI/xlm-roberta-base (20 trainings a cell, " in suites["steer11"]
    assert steerboard("suites").out == steerboard("list", "suites").out


def test_a_suite_says_what_its_own_encoders_cost(monkeypatch):
    suite = load_suite("mini")
    specs = ["frozen:intfloat/multilingual-e5-small,prefix=query", "hf:owner/name,lr=2e-4,seeds=2"]
    changed = suite.model_copy(update={"classifiers": specs})
    monkeypatch.setattr("harness.cli.list.load_suite", lambda _: changed)
    text = listed("suites")["mini"]
    assert "frozen:intfloat/multilingual-e5-small,prefix=query (45 new texts a second on one core" in text
    assert "hf:owner/name,lr=2e-4,seeds=2 (2 trainings a cell, " in text


def test_the_tasks_of_a_suite_are_listed_with_size_and_labels():
    tasks = listed("tasks", "--suite", "steer11")
    assert tasks["sentiment"].strip() == "11 languages, 50 texts per label: negative, positive"
    assert "20 texts per label: science/technology, travel" in tasks["topic"]


def test_the_languages_are_listed_by_name_and_own_name():
    languages = listed("languages")
    assert len(languages) == 12
    assert languages["he"].strip() == "Hebrew, עברית (Hebr)"
    assert languages["en"].strip().endswith("reference language of vectors")


def test_a_reader_who_hangs_up_sees_no_traceback():
    with subprocess.Popen(
        command("list", "languages"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_interrupt_is_one_line_that_says_how_to_go_on(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.list.suites", interrupted)
    outcome = steerboard("list", "suites")
    assert outcome.code == 130
    assert outcome.err == ("steerboard: stopped; finished cells are kept, run the same command again to resume\n")


# Options that are not right: the finished run stays as it is, to the byte

OPTIONS = [
    (
        {"suite": "minii"},
        r"unknown suite 'minii'; valid: mini, published, steer11, steer11-curve, tiny-real\. Did you mean 'mini'\?",
    ),
    ({"suite": "none/mine.yaml"}, r"none/mine\.yaml does not exist"),
    ({"languages": "am,xx"}, r"unknown language 'xx'; valid: am, cs,"),
    ({"languages": "en"}, r"unknown language 'en'"),
    ({"languages": ""}, r"nothing to run"),
    ({"tasks": "nli"}, r"unknown task 'nli'; valid: sentiment, topic"),
    ({"methods": "humann"}, r"unknown method 'humann'; valid: .*constant,.*Did you mean 'human'\?"),
    ({"methods": ""}, r"nothing to run"),
    ({"settings": "one-shot"}, r"unknown setting 'one-shot'; valid: few-shot, zero-shot"),
    ({"methods": "few-shot", "settings": "zero-shot"}, r"nothing to run: .*few-shot; settings: zero-shot"),
    ({"seeds": "9"}, r"unknown seed '9'; valid: 1, 2, 3"),
    ({"seeds": "one"}, r"--seeds 'one': give whole numbers"),
    ({"limit": 0}, r"--limit 0 is too small"),
    ({"limit": -1}, r"--limit -1 is too small"),
    ({"limit": "two"}, r"Invalid value for '--limit'"),
    ({"limit": 3}, r"another number of texts per label \({'sentiment': 2}\)\. Give the same --limit"),
    ({"batch_size": 0}, r"Invalid value for '--batch-size'"),
    ({"classifier": "svm"}, r"unknown classifier 'svm'; valid: frozen:PATH_OR_ID, hf:PATH_OR_ID, tfidf"),
    ({"classifier": "hf:none/of/these"}, r"the model folder none/of/these does not exist"),
    ({"classifier": "hf:owner/none"}, r"'owner/none' is not a folder and cannot be downloaded from the hub"),
    ({"data": "none"}, r"the data folder none does not exist\. Give --data a folder with"),
    ({"plugin": "none.py"}, r"plug-in none\.py does not exist"),
    ({"methods": "zero-shot", "model": "none/of/these"}, r"the model folder none/of/these does not exist"),
    ({"methods": "zero-shot", "model": "owner/none"}, r"'owner/none' is not a folder and cannot be downloaded"),
    ({"methods": "zero-shot", "device": "abacus"}, r"unknown device 'abacus'; valid: cpu"),
    ({"methods": "zero-shot", "dtype": "float8"}, r"unknown dtype 'float8'; valid: auto, bfloat16, float16, float32"),
    ({"colour": "red"}, r"No such option: '?--colour"),
]


@pytest.mark.parametrize(("changes", "words"), OPTIONS, ids=[str(changes) for changes, _ in OPTIONS])
def test_a_bad_option_is_one_line_and_changes_nothing(finished, changes, words):
    before = snapshot(finished)
    outcome = run(finished, **changes)
    assert_line(outcome, words)
    assert snapshot(finished) == before


def test_a_bad_option_makes_no_folder(tmp_path):
    run(tmp_path / "new", methods="none").one_line()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["bogus"], r"No such command 'bogus'"),
        (["run"], r"Missing (option|parameter).*suite"),
        (["score"], r"Missing (argument|parameter)"),
        (["list", "colours"], r"unknown list 'colours'; valid: languages, methods, suites, tasks"),
        (["list", "tasks", "--suite", "none"], r"unknown suite 'none'"),
        (["score", "none"], r"none does not contain a run \(no manifest\.json\)"),
        (
            ["board", "build", "none", "--out", "site"],
            r"none does not contain a run \(a directory with manifest\.json\)",
        ),
    ],
    ids=" ".join,
)
def test_a_bad_command_is_one_line(words, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_line(steerboard(*words), error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def broken(:\n", r"mine\.py, line 1: SyntaxError"),
        ("import nothing_of_the_kind\n", r"mine\.py, line 1: ModuleNotFoundError"),
        ("x = 1\n", r"mine\.py: no class with @register\(\.\.\.\) in it"),
        (
            "from harness import SteeringMethod, register\n"
            "@register('human')\nclass Mine(SteeringMethod):\n    '''Mine.'''\n",
            r"the name 'human' is taken by built in",
        ),
        (
            "from harness import SteeringMethod, register\n"
            "@register('my method')\nclass Mine(SteeringMethod):\n    '''Mine.'''\n",
            r"method name 'my method': use ASCII letters",
        ),
    ],
    ids=["syntax", "import", "no method", "name taken", "name"],
)
def test_a_plug_in_that_is_not_right_is_one_line(finished, tmp_path, body, words):
    before = snapshot(finished)
    (tmp_path / "mine.py").write_text(body)
    assert_line(run(finished, plugin=tmp_path / "mine.py"), words)
    assert snapshot(finished) == before


def test_broken_yaml_is_one_line(finished, tmp_path):
    before = snapshot(finished)
    path = tmp_path / "mine.yaml"
    path.write_text((TASKS / "mini.yaml").read_text().replace("seeds: [1, 2, 3]", "seeds: [1, 2"))
    assert_line(run(finished, suite=path), rf"{path} is not valid YAML")
    assert snapshot(finished) == before


def test_another_suite_does_not_go_into_the_folder(finished, tmp_path):
    before = snapshot(finished)
    path = tmp_path / "mine.yaml"
    text = (TASKS / "mini.yaml").read_text().replace("temperature: 0.8", "temperature: 0.7")
    path.write_text(text.replace("mini/", f"{MINI}/"))
    assert_line(run(finished, suite=path), r"holds a run of another suite\. Choose another --run folder")
    assert snapshot(finished) == before


# What a run prints


def test_a_finished_run_is_summed_up_and_says_what_comes_next(finished):
    outcome = run(finished)
    assert outcome.code == 0
    assert "2 cells, 2 ok" in outcome.err
    assert "narrowed run: 1 of 11 languages (am)" in " ".join(outcome.out.split())
    assert outcome.out.endswith(f"next: steerboard board build {finished} --out site\n")


def test_scoring_again_has_nothing_to_do(finished):
    before = snapshot(finished)
    outcome = steerboard("score", finished)
    assert outcome.code == 0
    assert outcome.out.startswith("0 cells scored\n")
    assert snapshot(finished) == before


def test_the_default_folder_is_named_after_suite_and_model(tmp_path):
    from harness.data.suite import load_suite
    from harness.runner.prepare import default_run

    suite = load_suite("mini")
    assert default_run(suite, "google/gemma-2-9b-it") == Path("runs/mini-google--gemma-2-9b-it")
    (tmp_path / "toy").mkdir()
    assert default_run(suite, str(tmp_path / "toy")) == Path("runs/mini-toy")
    assert default_run(suite, None) == Path("runs/mini")


def test_the_command_is_kept_in_the_manifest(finished):
    manifest = json.loads((finished / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["commands"][0][:2] == ["steerboard", "run"]
    assert os.fspath(finished) in manifest["commands"][0]


# What comes next, and what was meant


def test_a_missing_suite_lists_those_there_are():
    for words in (["run"], ["tune"]):
        line = steerboard(*words).one_line()
        names = "mini, published, steer11, steer11-curve, tiny-real"
        assert f"Missing option '--suite'. Valid: {names}, or the path of a suite's .yaml" in line
    assert "Valid" not in steerboard("score").one_line()


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("amharic", "am"),
        ("Amharik", "am"),
        ("አማርኛ", "am"),
        ("amh", "am"),
        ("amh_Ethi", "am"),
        ("עברית", "he"),
        ("iw", "he"),
        ("Hebrew", "he"),
        ("slovensky", None),
        ("klingon", None),
    ],
)
def test_a_language_by_any_of_its_names_suggests_its_code(finished, word, meant):
    line = run(finished, languages=word).one_line()
    assert line.endswith(f"Did you mean {meant!r}?" if meant else "sl, su.")


def test_every_command_that_takes_languages_suggests_codes(tmp_path):
    from support.toyruns import F1, flat, selection, toy, write_run

    made, out = toy("zero-shot"), tmp_path / "out"
    made.scores[F1] = flat(0.5, selection())
    old = write_run(tmp_path / "old", [made], selection()).path
    commands = [
        ["tune", "--suite", "mini", "--languages", "amharic"],
        ["forcing", "--suite", "mini", "--languages", "amharic"],
        ["forcing", "--suite", "mini", "--sources", "amharic"],
        ["lm-eval", "--suite", "mini", "--tasks", "topic", "--languages", "amharic"],
        ["contrast", "build", "--suite", "mini", "--translator", "noise", "--languages", "amharic", "--out", out],
        ["gate", old, "--against", old, "--languages", "amharic"],
    ]
    for words in commands:
        assert "Did you mean 'am'?" in steerboard(*words).one_line(), words
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [("1-3", [1, 2, 3]), ("1,3,5-7", [1, 3, 5, 6, 7]), (" 2 - 3 , 9", [2, 3, 9]), ("4-4", [4]), ("", [])],
)
def test_seeds_may_be_ranges(text, found):
    from harness.cli.options import numbers

    assert numbers(text, "--seeds") == found


@pytest.mark.parametrize("text", ["3-1", "1-", "-3", "1-2-3", "1-999999999", "9" * 30, "a-b", "1.5", "²"])
def test_a_range_that_is_none_is_one_line(finished, text):
    assert_line(run(finished, seeds=text), r"--seeds '.*': (give whole numbers|the range .* is empty or too long)")


def test_a_range_of_seeds_is_run(tmp_path):
    assert run(tmp_path / "run", seeds="1-2", methods="constant").code == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["selection"]["seeds"] == [1, 2]


def test_the_next_command_can_be_pasted_where_the_path_has_blanks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run(Path("my runs") / "it's", methods="constant")
    command = outcome.out.splitlines()[-1].removeprefix("next: ")
    program, *words = shlex.split(command)
    assert (program, words) == ("steerboard", ["board", "build", "my runs/it's", "--out", "site"])
    assert steerboard(*words).code == 0
    assert Path("site/index.html").is_file()


FAILING = """
from harness import Reference, UnsupportedError, register

@register("failing")
class Failing(Reference):
    '''Fails.'''
    def texts(self, ctx):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no')", "Fix the method .*, then run the same command again"),
        ("raise MemoryError('no')", "Fix what failed on this machine .*--batch-size"),
    ],
)
def test_a_run_without_any_text_says_what_to_do_and_not_to_build_a_board(tmp_path, body, words):
    (tmp_path / "mine.py").write_text(FAILING.format(body=body).replace("UnsupportedError, ", ""))
    outcome = run(tmp_path / "run", methods="failing", plugin=tmp_path / "mine.py")
    assert outcome.code == 1
    last = outcome.out.splitlines()[-1]
    assert re.match(f"next: no cell has texts. {words}", last)
    assert "board build" not in outcome.out
