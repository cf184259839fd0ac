"""Starting a method, and methods from folders and packages, through the command."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.helpers import ROOT, Outcome, environment, names_below, second_process, small_suite, steerboard, toy_llm

from harness.core.store import Run
from harness.methods.contract import FitContext, Skip
from harness.methods.registry import BUILT_IN, load_registry, search_space
from harness.methods.template import render_template

NAMES = ["my-method", "2d", "none", "steering", "prompt", "a.b_c", "x-", "exception", "MyMethod"]
METHOD = """
from harness import SteeringMethod, register

@register("{name}")
class Mine(SteeringMethod):
    '''{doc}'''
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def drop(name: str, body: str = METHOD, doc: str = "Does it.") -> Path:
    """Put a method into the folder ``submissions/NAME``."""
    path = Path("submissions") / name / "method.py"
    path.parent.mkdir(parents=True)
    path.write_text(body.format(name=name, doc=doc), encoding="utf-8")
    return path


def listed(outcome: Outcome) -> dict[str, str]:
    """Return the printed methods by name, and under "not" the lines about those not usable."""
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    bad = [line for line in lines if line.startswith("not usable:")]
    good = [line.split(maxsplit=1) for line in lines if line not in bad]
    return {**dict(good), "not": "\n".join(line.removeprefix("not usable:").strip() for line in bad)}


# steerboard method new


def test_a_new_method_is_a_file_and_the_next_commands(elsewhere):
    outcome = steerboard("method", "new", "my-method")
    assert (outcome.code, outcome.err) == (0, "")
    assert names_below(elsewhere) == ["my-method.py"]
    first, *commands = outcome.out.splitlines()
    assert first == "wrote my-method.py: a method that works. Change it, then:"
    assert [line.strip() for line in commands] == [
        "steerboard method test my-method --plugin my-method.py",
        "steerboard run --suite mini --plugin my-method.py --methods zero-shot,my-method --run runs/my-method",
        "steerboard tune --suite mini --plugin my-method.py --methods my-method --run runs/my-method"
        "  # then run again, with --tuned",
        "steerboard board build runs/my-method --out site",
    ]


def test_a_new_method_goes_into_the_folder_submissions_and_is_found_there_by_its_name(elsewhere):
    Path("submissions").mkdir()
    outcome = steerboard("method", "new", "my-method")
    assert names_below(elsewhere) == ["submissions/my-method/method.py"]
    assert "steerboard run --suite mini --methods zero-shot,my-method --run" in outcome.out
    methods = listed(steerboard("list", "methods"))
    assert methods["not"] == ""
    assert methods["my-method"] == (
        "Adds the direction from the reference language to this one. Source: own work. "
        "[submissions/my-method/method.py]"
    )


def test_a_new_method_goes_where_out_says_and_the_commands_can_be_pasted(elsewhere):
    Path("submissions").mkdir()
    outcome = steerboard("method", "new", "mine", "--out", "new folder/ዘዴ.py")
    assert names_below(elsewhere) == ["new folder/ዘዴ.py"]
    assert "--plugin 'new folder/ዘዴ.py' --methods zero-shot,mine" in outcome.out


@pytest.mark.parametrize("name", NAMES)
def test_the_starter_is_found_under_every_name_and_works_with_its_defaults(name):
    Path("method.py").write_text(render_template(name), encoding="utf-8")
    (method,) = load_registry([Path("method.py")]).configure(name, {})
    assert method.name == name
    assert method.config.model_dump() == {"layer": 0.5, "strength": 0.2}


def test_the_starter_swept_is_one_method_for_each_strength():
    Path("method.py").write_text(render_template("mine"), encoding="utf-8")
    methods = load_registry([Path("method.py")]).configure("mine", {"strength": [0, 0.5], "layer": [1]})
    assert [(m.config.layer, m.config.strength) for m in methods] == [(1, 0.0), (1, 0.5)]


def test_the_starter_uses_what_is_documented_of_a_context_and_nothing_else():
    used = set(re.findall(r"ctx\.(\w+)", render_template("mine")))
    assert used <= {"parallel", "contrast", "train", "mean_states", "layer", "language", "suite", "rng"} | {
        "suite_prompt"
    }
    public = {name for name in vars(FitContext) if not name.startswith("_")}
    assert used - {"suite_prompt"} <= public | set(FitContext.__dataclass_fields__)


def test_the_docstring_of_the_starter_says_what_to_change():
    docstring = ast.get_docstring(ast.parse(render_template("mine"))) or ""
    assert {"`fit`", "`Config`", "`search_space`", "`supports`", "`prompt`"} <= set(re.findall("`[^`]*`", docstring))
    assert "docs/methods.md" in docstring


def test_the_starter_is_in_order_for_the_linter_and_the_formatter():
    for name in NAMES:
        Path(f"{name}.py").write_text(render_template(name), encoding="utf-8")
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", ROOT / "pyproject.toml", "."]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_starter_is_in_order_for_the_type_checker(elsewhere):
    Path("method.py").write_text(render_template("mine"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", elsewhere / "method.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "1 source file" in done.stdout, done.stdout + done.stderr
    assert "method.py" not in done.stdout, done.stdout  # elsewhere there may be work in progress


def test_the_starter_is_in_the_wheel():
    from hatchling.builders.wheel import WheelBuilder

    carried = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {"harness/methods/template.py", "harness/methods/template.py.txt"} <= carried


@pytest.mark.slow
def test_the_starter_runs_as_it_stands(tmp_path):
    suite = small_suite(tmp_path, toy_llm(tmp_path / "toy"))
    steerboard("method", "new", "mine")
    words = "--languages am,he --tasks sentiment --seeds 1 --limit 1 --plugin mine.py --run run --methods"
    outcome = steerboard("run", "--suite", suite, *words.split(), "mine")
    assert outcome.code == 0, outcome.err
    run = Run(Path("run"))
    states = {run.status(cell).cell.language: run.status(cell).state for cell in run.cell_ids()}
    assert states == {"am": "ok", "he": "ok"}


def test_the_starter_adds_the_unit_vector_between_two_means_and_skips_the_reference_language():
    Path("method.py").write_text(render_template("mine"), encoding="utf-8")
    method = load_registry([Path("method.py")]).configure("mine", {"layer": 0})[0]

    class Means:
        def __init__(self, x: float, y: float) -> None:
            self.mean, self.norm = np.array([[x, y]]), np.array([7.0])

    class Context:
        language = "am"
        suite = type("Suite", (), {"reference_language": "en"})

        def layer(self, depth: int) -> int:
            return depth

        def parallel(self, code: str) -> str:
            return code

        def mean_states(self, texts: str) -> Means:
            return {"am": Means(4, 6), "en": Means(1, 2)}[texts]

    (item,) = method.fit(Context()).interventions
    np.testing.assert_allclose(item.vector, [0.6, 0.8])
    assert item.raw_strength == pytest.approx(0.2 * 7)
    assert method.supports(Context()) is None
    Context.language = "en"
    assert isinstance(method.supports(Context()), Skip)


@pytest.mark.parametrize("place", ["file", "link", "folder"])
def test_a_file_that_exists_is_left_as_it_is(place):
    path = Path("mine.py")
    {"file": lambda: path.write_text("x"), "link": lambda: path.symlink_to("gone"), "folder": path.mkdir}[place]()
    line = steerboard("method", "new", "mine").one_line()
    assert "mine.py exists and is left as it is. Choose another file with --out." in line
    assert place != "file" or path.read_text() == "x"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["my method"], r"method name 'my method': use ASCII letters, digits, '-', '_' and '\.' only"),
        (["ዘዴ"], r"method name 'ዘዴ': use ASCII letters"),
        (["../mine"], r"method name '\.\./mine': use ASCII letters"),
        ([".."], r"method name '\.\.': start with a letter or a digit"),
        ([".mine"], r"method name '\.mine': start with a letter or a digit"),
        (["--", "-mine"], r"method name '-mine': start with a letter or a digit"),
        ([""], r"method name '': use ASCII letters"),
        (["x" * 300], r"use at most 60 letters"),
        (["language"], r"method name 'language' is taken by built in\. Choose another name"),
        (["mine", "--out", "mine.txt"], r"--out mine\.txt: give the path of a file whose name ends in \.py"),
        (["mine", "--out", "."], r"--out \.: give the path of a file whose name ends in \.py"),
        (["mine", "--out", "x" * 300 + ".py"], r"cannot write x+\.py: File name too long"),
        (["mine", "--out", "/proc/mine.py"], r"cannot write /proc/mine\.py"),
        ([], r"Missing (argument|parameter)"),
    ],
    ids=str,
)
def test_what_cannot_be_a_new_method_is_one_line_and_writes_nothing(elsewhere, words, error):
    assert re.search(error, steerboard("method", "new", *words).one_line())
    assert list(elsewhere.iterdir()) == []


def test_the_name_of_a_folder_is_taken():
    drop("mine")
    line = steerboard("method", "new", "mine", "--out", "other.py").one_line()
    assert "method name 'mine' is taken by submissions/mine/method.py" in line


# Folders


def test_a_folder_is_listed_without_running_it_and_what_is_wrong_with_others_is_said():
    drop("mine", "raise SystemExit\n" + METHOD, doc="ቋንቋ · שפה.\x1b[31m\n\nMore.")
    drop("silent", METHOD.replace("'''{doc}'''", "pass"))
    drop("broken", "def broken(:")
    drop("other", METHOD.replace("{name}", "another"))
    drop("human")
    methods = listed(steerboard("list", "methods"))
    assert methods["mine"] == "ቋንቋ · שפה.[31m [submissions/mine/method.py]"
    assert methods["silent"].startswith("(no docstring: the board shows nothing) [")
    assert set(methods) == {*BUILT_IN, "mine", "silent", "not"}
    assert methods["not"].splitlines() == [
        "submissions/human/method.py: the name 'human' is taken by built in; choose another name.",
        "submissions/broken/method.py, line 1: SyntaxError: invalid syntax",
        "submissions/other/method.py: folder 'other' registers no method 'other'; it has 'another'.",
    ]


@pytest.fixture
def go(tmp_path: Path) -> Callable[[str], Outcome]:
    """Run references on the small suite: no model is loaded."""
    suite = small_suite(tmp_path, tmp_path)
    words = "--languages am,he --tasks sentiment --seeds 1 --limit 1 --run run"
    return lambda methods: steerboard("run", "--suite", suite, "--methods", methods, *words.split())


FLOOR = """
from harness import Reference, register

@register("{name}")
class Floor(Reference):
    '''{doc}'''

    def texts(self, ctx):
        return {{label: ["ሰላም שלום"] * ctx.texts_per_label for label in ctx.task.labels}}
"""


def test_a_folder_takes_part_in_a_run_by_its_name_and_broken_ones_beside_it_do_not_matter(go):
    drop("mine", FLOOR)
    drop("broken", "raise SystemExit(1)")
    outcome = go("mine,human")
    assert (outcome.code, "warning" in outcome.err) == (0, False), outcome.err
    run = Run(Path("run"))
    assert {run.status(cell).cell.method.name for cell in run.cell_ids()} == {"mine", "human"}
    assert run.manifest().method_notes["mine"] == "Does it."


def test_a_broken_folder_that_is_named_is_one_line_after_the_word_that_it_runs_and_makes_no_run(go):
    drop("broken", "import sys\nsys.exit(0)\n")
    outcome = go("human,broken")
    word, _, error = outcome.err.partition("\n")
    assert word == "running the code of submissions/broken/method.py on this machine, with your rights"
    assert re.search(
        r"submissions/broken/method\.py, line 2: it ends the program when it is imported \(SystemExit: 0\)",
        replace(outcome, err=error).one_line(),
    )
    assert not Path("run").exists()


# An installed package, in a second process


def source_of(home: Path, package: str, body: str, **points: str) -> Path:
    """Write the source of a package with a pyproject.toml."""
    source = home / f"{package}_source"
    (source / package).mkdir(parents=True)
    (source / package / "__init__.py").write_text(body, encoding="utf-8")
    lines = "\n".join(f'{name} = "{value}"' for name, value in points.items())
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        f'[project]\nname = "{package.replace("_", "-")}"\nversion = "1.0"\n'
        'dependencies = ["steerboard"]\n\n'
        f'[project.entry-points."steerboard.methods"]\n{lines}\n'
    )
    return source


def install(site: Path, *sources: Path) -> None:
    """Build the wheels of packages and install them into ``site``."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    target = ["--no-deps", "--no-build-isolation", "--target", site, *sources]
    subprocess.run([*pip, *target], check=True, capture_output=True, text=True, env=environment())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two installed packages of other people, one of them broken."""
    home = tmp_path_factory.mktemp("third")
    body = FLOOR.format(name="theirs", doc="ዘዴ. Source: a package.")
    body += METHOD.format(name="second", doc="Second of the package.")
    theirs = source_of(home, "their_methods", body, theirs="their_methods", second="their_methods:Mine")
    broken = source_of(home, "broken_methods", "import nothing_of_the_kind\n", broken="broken_methods")
    install(home / "site", theirs, broken)
    return home / "site"


def in_second_process(site: Path, *words: object) -> Outcome:
    """Run the command with the packages of ``site`` on the path."""
    return second_process(*words, env=environment(PYTHONPATH=str(site)))


def test_the_methods_of_an_installed_package_are_listed_and_a_broken_one_beside_it_is_reported(packages):
    methods = listed(in_second_process(packages, "list", "methods"))
    assert set(methods) == {*BUILT_IN, "theirs", "second", "not"}
    assert methods["theirs"] == "ዘዴ. Source: a package. [package their-methods (their_methods)]"
    assert methods["second"] == "Second of the package. [package their-methods (their_methods:Mine)]"
    assert re.fullmatch(
        r"package broken-methods \(broken_methods\), .*/broken_methods/__init__\.py, line 1: "
        r"ModuleNotFoundError: No module named 'nothing_of_the_kind'",
        methods["not"],
    )


@pytest.mark.slow
def test_the_method_of_an_installed_package_runs_and_the_broken_one_beside_it_is_not_touched(packages, tmp_path):
    suite = small_suite(tmp_path, tmp_path)
    words = "--languages am,he --tasks sentiment --seeds 1 --limit 1 --run run --methods"
    outcome = in_second_process(packages, "run", "--suite", suite, *words.split(), "theirs")
    assert (outcome.code, "broken" in outcome.err) == (0, False), outcome.err
    run = Run(Path("run"))
    assert [run.status(cell).state for cell in run.cell_ids()] == ["ok", "ok"]


@pytest.mark.slow
def test_a_broken_package_that_is_named_is_one_line(packages, tmp_path):
    suite = small_suite(tmp_path, tmp_path)
    line = in_second_process(packages, "run", "--suite", suite, "--methods", "broken").one_line()
    assert "broken_methods/__init__.py, line 1: ModuleNotFoundError" in line


# The copy that 'submission pack' makes of a plug-in file


def test_a_copy_of_a_plug_in_among_the_submissions_is_no_problem():
    path = drop("mine")
    Path("mine.py").write_bytes(path.read_bytes())
    assert load_registry([Path("mine.py")]).problems == []
    methods = listed(steerboard("list", "methods", "--plugin", "mine.py"))
    assert (methods["not"], methods["mine"]) == ("", "Does it. [mine.py]")


def test_another_file_of_the_name_among_the_submissions_is_named_with_what_to_do():
    drop("mine", doc="Does it in Hebrew: עברית.")
    Path("mine.py").write_text(METHOD.format(name="mine", doc="Does it in Amharic: አማርኛ."), encoding="utf-8")
    [problem] = load_registry([Path("mine.py")]).problems
    assert problem == (
        "submissions/mine/method.py differs from mine.py, which is used. Pack it again, or choose another name."
    )


# A grid that is wrong


@pytest.mark.parametrize(
    "line",
    [
        "search_space: dict = {}",
        "search_space: ClassVar = {}",
        "search_space = {'strength': [1]}",
        "grid: ClassVar = {}",
    ],
)
def test_a_grid_in_the_config_is_told_where_it_belongs(line):
    body = METHOD + f"    class Config(MethodConfig):\n        strength: float = 1\n        {line}\n"
    body = "from typing import ClassVar\nfrom harness import MethodConfig\n" + body.replace("{}", "{{}}")
    text = body.replace("{'strength': [1]}", "{{'strength': [1]}}").format(name="mine", doc="Source: own work.")
    Path("mine.py").write_text(text, encoding="utf-8")
    for words in (["tune", "--suite", "mini", "--methods", "mine", "--plugin", "mine.py", "--run", "x"],):
        said = steerboard(*words).one_line()
        assert "search_space is set in Config and belongs in the class of the method" in said
    done = steerboard("method", "test", "mine.py")
    assert done.code in {1, 2}
    assert "search_space is set in Config" in done.out + done.err


def test_a_method_without_a_grid_is_told_how_to_name_one():
    drop("mine")
    done = steerboard("tune", "--suite", "mini", "--methods", "mine", "--run", "x")
    warning, said = done.err.splitlines()
    assert (done.code, warning.partition(" on this machine")[0]) == (
        2,
        "running the code of submissions/mine/method.py",
    )
    assert 'search_space = {"strength": [0.1, 0.2]}' in said


def test_the_grid_of_the_starter_is_one():
    Path("mine.py").write_text(render_template("mine"), encoding="utf-8")
    registry = load_registry([Path("mine.py")])
    assert search_space(registry.get("mine")) == {"layer": [0.25, 0.5, 0.75], "strength": [0.1, 0.2, 0.4]}
    assert len(registry.configure("mine", search_space(registry.get("mine")))) == 9


# The documentation of an installed package


def test_every_page_that_a_message_names_can_be_read_by_a_command():
    found = steerboard("docs")
    assert found.code == 0
    names = {line.split()[0] for line in found.out.splitlines()}
    assert names == {path.stem for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".json"}}
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "harness").rglob("*.py")]
    named = set(re.findall(r"'steerboard docs ([\w-]+)'", "".join([*texts, render_template("mine")])))
    assert {"methods", "submitting", "submission-schema"} <= named <= names
    for name in named:
        assert steerboard("docs", name).out.strip()
    assert steerboard("docs", "methods.md").out == (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert "Did you mean 'methods'?" in steerboard("docs", "method").one_line()
