"""A light install lists, compares and builds the board, without the packages that generate and score."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from support.helpers import ROOT, Outcome, environment, jsonl, names_below, python
from support.toyruns import F1, flat, selection, toy, write_run

from harness.core.errors import EXTRAS, UserError, not_installed, require
from harness.core.store import Run
from harness.data.suite import load_suite

HEAVY = {*EXTRAS["run"], *EXTRAS["lm-eval"], "tokenizers", "accelerate"}
CHILD = """
import contextlib, io, json, sys

refused, commands = map(json.loads, sys.argv[1:])


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())
from harness.cli.main import main

outcomes = []
for words in commands:
    sys.argv, out, err, code = ["steerboard", *words], io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    outcomes.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(outcomes))
"""


def without(refused: Iterable[str], *commands: Sequence[object]) -> list[Outcome]:
    """Run commands, one after the other, in a child where no module of ``refused`` can be imported."""
    words = [list(map(str, command)) for command in commands]
    printed = python(CHILD, json.dumps(sorted(refused)), json.dumps(words))
    return [Outcome(*found) for found in json.loads(printed)]


def toy_run(folder: Path, gain: float = 0.0) -> Run:
    """Write a scored run with the texts that the page shows."""
    chosen = selection()
    entries = [toy(name) for name in ("zero-shot", "language", "human", "constant")]
    for i, entry in enumerate(entries):
        entry.scores[F1] = flat(0.5 + 0.05 * i + gain, chosen)
    run = write_run(folder, entries, chosen, suite=load_suite("mini").dump())
    for cell in run.cell_ids():
        rows = ({"index": i, "label": "l", "text": f"t{i}", "finish_reason": "stop"} for i in range(2))
        jsonl(run.cell(cell) / "generations.jsonl", rows)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with two runs of one suite, ``a`` and ``b``."""
    folder = tmp_path_factory.mktemp("runs")
    toy_run(folder / "a")
    toy_run(folder / "b", 0.02)
    return folder


def test_the_extras_that_errors_name_are_those_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {
        extra: {re.split(r"[<>=\[]", line)[0] for line in lines if not line.startswith("steerboard")}
        for extra, lines in declared["optional-dependencies"].items()
    }
    assert {extra: set(modules.values()) for extra, modules in EXTRAS.items()} == {
        extra: names[extra] for extra in EXTRAS
    }
    base = {re.split(r"[<>=\[]", line)[0] for line in declared["dependencies"]}
    assert base.isdisjoint(names["run"] | names["board"])


def test_every_dependency_is_pinned_for_tests():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *declared["dependencies"],
        *(x for extra in declared["optional-dependencies"].values() for x in extra),
    ]
    wanted = {re.split(r"[<>=\[]", line)[0] for line in lines} - {
        "steerboard",
        "vllm",
    }  # vLLM pins other versions of torch and transformers
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert wanted <= pinned


def test_the_light_commands_import_nothing_that_generates_or_scores(runs, tmp_path):
    handed_in = tmp_path / "submissions"
    shutil.copytree(ROOT / "submissions" / "human", handed_in / "human")
    listed, methods, compared, built, new, checked, board, status, doctor = without(
        HEAVY,
        ["list", "suites"],
        ["list", "methods"],
        ["compare", runs / "a", runs / "b", "--format", "md"],
        ["board", "build", runs / "a", "--out", tmp_path / "site"],
        ["method", "new", "mine", "--out", tmp_path / "mine.py"],
        ["submission", "check", handed_in / "human", "--no-rescore"],
        ["board", "build", handed_in, "--out", tmp_path / "handed"],
        ["status", runs / "a"],
        ["doctor"],
    )
    for outcome in (listed, methods, compared, built, new, checked, board, status):
        assert (outcome.code, outcome.err) == (0, "")
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert names == ["mini", "published", "steer11", "steer11-curve", "tiny-real"]
    assert "language" in methods.out
    assert "24 of 24 cells" in status.out
    assert doctor.code == 1  # it can say what is missing all the same
    assert "not installed: " in doctor.out
    assert "+0.020" in compared.out
    assert "<html" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "mine.py").is_file()


def test_what_the_board_adds_is_needed_by_the_board_alone(runs, tmp_path):
    listed, compared, built = without(
        HEAVY | set(EXTRAS["board"]),
        ["list", "suites"],
        ["compare", runs / "a", runs / "b"],
        ["board", "build", runs / "a", "--out", tmp_path / "site"],
    )
    assert (listed.code, compared.code) == (0, 0)
    assert re.search(r"needs \w+, which is not installed: pip install 'steerboard\[board\]'", built.one_line())
    assert names_below(tmp_path) == []


def test_a_command_that_needs_more_says_so_before_it_writes_anything(runs, tmp_path):
    (tmp_path / "mine.py").write_text("no Python\n", encoding="utf-8")
    one = ["--suite", "mini", "--languages", "am", "--limit", 1, "--run", tmp_path / "run"]
    outcomes = without(
        HEAVY,
        ["run", *one],
        ["run", *one, "--methods", "human"],  # writes texts without any model, but cannot score them
        ["tune", *one],
        ["demo", "--run", tmp_path / "run", "--out", tmp_path / "site"],
        ["score", runs / "a"],
        ["method", "test", tmp_path / "mine.py"],  # the method is not to blame
    )
    for outcome in outcomes:
        said = "this command needs torch, which is not installed: pip install 'steerboard[run]'."
        assert outcome.one_line() == f"steerboard: {said}"
        assert outcome.out == ""
    assert names_below(tmp_path) == ["mine.py"]


def test_a_storage_is_reached_without_what_generates_and_scores(runs, tmp_path):
    url = f"file://{tmp_path}/storage"
    pushed, pulled = without(HEAVY, ["push", runs / "a", url], ["pull", url, tmp_path / "run"])
    assert (pushed.code, pulled.code) == (0, 0)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == (runs / "a" / "manifest.json").read_bytes()
    [missing] = without({"fsspec"}, ["push", runs / "a", url])
    said = "this command needs fsspec, which is not installed: pip install 'steerboard[s3]'."
    assert missing.one_line() == f"steerboard: {said}"


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_module_of_an_extra_is_named_by_its_package(extra, monkeypatch):
    for module, package in EXTRAS[extra].items():
        error = not_installed(ModuleNotFoundError(f"No module named {module!r}", name=module))
        assert f"needs {package}, " in str(error)
        assert f"'steerboard[{extra}]'" in str(error)


@pytest.mark.parametrize("name", ["torch.nowhere", "numpy", "harness.nowhere", "", None])
def test_other_missing_modules_are_no_question_of_extras(name):
    assert not_installed(ModuleNotFoundError("No module", name=name)) is None


def test_what_is_installed_is_not_complained_of():
    require("run")
    require("board")


def test_a_missing_module_is_found_without_importing_any(monkeypatch):
    monkeypatch.setitem(EXTRAS, "odd", {"json": "json", "steerboard_nowhere": "nowhere"})
    with pytest.raises(ModuleNotFoundError) as caught:
        require("odd")
    assert "nowhere" in str(not_installed(caught.value))
    assert isinstance(not_installed(caught.value), UserError)


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Path:
    """A real environment, with what ``pip install '.[board]'`` brings and nothing else."""
    home = tmp_path_factory.mktemp("light")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    probe = [*pip, "download", "--retries", "0", "--no-deps", "--dest", str(home), "typing_extensions"]
    if subprocess.run(probe, capture_output=True, cwd=home, timeout=120).returncode:
        pytest.skip("NOT CHECKED: no package index to install from, so no real light install")
    venv.create(home / "env", with_pip=False)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    [wheel] = home.glob("steerboard-*.whl")
    # Not compiled: most of it is never imported here.
    options = ["--no-compile", "-c", str(ROOT / "constraints.txt"), f"{wheel}[board]"]
    install = ["--python", str(home / "env"), "install", *options]
    done = subprocess.run([*pip, *install], capture_output=True, text=True, cwd=home, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "env" / "bin"


def in_light(light: Path, *words: object, cwd: Path) -> Outcome:
    """Run a program of the light environment, far from the checkout."""
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(light / str(words[0])), *map(str, words[1:])], cwd=cwd, env=env, capture_output=True, text=True
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.nightly  # by day the tests above hide the packages that such an install lacks
def test_a_real_light_install_lists_compares_and_builds(light, runs, tmp_path):
    code = f"import importlib.util as u; print([m for m in {sorted(HEAVY)} if u.find_spec(m)])"
    assert in_light(light, "python", "-c", code, cwd=tmp_path).out == "[]\n"
    for words in (
        ["list", "suites"],
        ["compare", runs / "a", runs / "b"],
        ["board", "build", runs / "a", "--out", "site"],
    ):
        outcome = in_light(light, "steerboard", *words, cwd=tmp_path)
        assert (outcome.code, outcome.err) == (0, ""), outcome
    assert (tmp_path / "site" / "index.html").is_file()
    assert "needs torch" in in_light(light, "steerboard", "demo", cwd=tmp_path).one_line()
