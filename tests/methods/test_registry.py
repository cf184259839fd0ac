"""Finding methods: built in, in a file, in a package; what is broken is named with its place."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.plugin_files import METHOD

from harness.core.errors import UserError
from harness.methods.contract import Reference, SteeringMethod
from harness.methods.registry import BUILT_IN, ENTRY_POINTS, load_registry


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install packages by hand into a folder on the path: the module's text and what names it."""
    site = tmp_path / "site"

    def install(package: str, body: str, **points: str) -> None:
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(textwrap.dedent(body), encoding="utf-8")
        lines = [f"{name} = {value}" for name, value in (points or {"mine": package}).items()]
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines]))
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)
    yield install
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a method into ``submissions/NAME`` of the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, body: str = METHOD) -> Path:
        path = Path("submissions") / name / "method.py"
        path.parent.mkdir(parents=True)
        path.write_text(textwrap.dedent(body), encoding="utf-8")
        return path

    return write


def test_the_built_in_methods_are_found_and_sound():
    registry = load_registry()
    assert set(BUILT_IN) == set(registry.sources)
    assert registry.problems == []
    for name in BUILT_IN:
        cls = registry.get(name)
        assert cls.name == name
        assert str(registry.sources[name]) == "built in"
        assert cls.__module__ == BUILT_IN[name]
        assert re.match(r".*Source: |Control: ", cls.__doc__) or issubclass(cls, Reference)


def test_a_plug_in_file_adds_its_method(plugin):
    path = plugin()
    registry = load_registry([path])
    cls = registry.get("mine")
    assert cls.__doc__ == "Mine alone."
    assert str(registry.sources["mine"]) == str(path)
    assert issubclass(cls, SteeringMethod)


def test_a_plug_in_may_hold_several_methods_and_other_classes(plugin):
    body = (
        METHOD
        + """
    class Helper:
        name = "helper"

    @register("second")
    class Second(Mine):
        pass
    """
    )
    registry = load_registry([plugin(body)])
    assert {"mine", "second"} <= set(registry.sources)
    assert registry.get("second").Config is registry.get("mine").Config


def test_imported_methods_and_unregistered_subclasses_add_nothing(plugin):
    body = (
        METHOD
        + """
    from harness.methods.difference import LanguageSteering

    class Shared(LanguageSteering):
        '''A helper for subclasses; it inherits the name but was not registered.'''

    Alias = Mine
    """
    )
    registry = load_registry([plugin(body)])
    assert registry.problems == []
    assert set(registry.sources) == {*BUILT_IN, "mine"}
    assert str(registry.sources["language"]) == "built in"


def test_two_plug_in_files_of_one_name_are_both_loaded(plugin, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "method.py").write_text(plugin().read_text().replace('"mine"', '"theirs"'), encoding="utf-8")
    registry = load_registry([tmp_path / "method.py", other / "method.py"])
    assert {"mine", "theirs"} <= set(registry.sources)


def test_a_file_given_twice_is_one(plugin, tmp_path, monkeypatch):
    path = plugin()
    monkeypatch.chdir(tmp_path)
    assert "mine" in load_registry([path, Path("method.py")]).sources


def test_a_file_that_was_changed_at_once_is_loaded_anew_and_leaves_nothing_beside_it(plugin, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = load_registry([plugin()]).get("mine")
    second = load_registry([plugin(METHOD.replace("int = 3", "int = 4"))]).get("mine")
    assert (first().config.layer, second().config.layer) == (3, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["method.py"]


# Installed packages


def test_an_installed_package_adds_its_method_and_is_imported_only_when_asked_for(installed):
    installed("their_package", METHOD)
    registry = load_registry()
    assert str(registry.sources["mine"]) == "package their_package (their_package)"
    assert registry.problems == []
    assert "their_package" not in sys.modules
    registry.configure("zero-shot", {})
    with pytest.raises(UserError, match="unknown method 'mien'"):
        registry.get("mien")
    assert "their_package" not in sys.modules
    assert registry.get("mine").__module__ == "their_package"
    assert registry.docstring("mine") == "Mine alone."


def test_an_entry_point_may_name_the_class(installed):
    installed("their_package", METHOD, mine="their_package:Mine")
    assert load_registry().get("mine").__name__ == "Mine"


def test_several_entry_points_name_the_methods_of_one_module(installed):
    body = (
        METHOD
        + """
    @register("second")
    class Second(Mine):
        pass
    """
    )
    installed("their_package", body, mine="their_package", second="their_package:Second")
    registry = load_registry()
    assert [registry.get(name).__name__ for name in ("mine", "second")] == ["Mine", "Second"]
    assert registry.docstring("second") == ""


def test_a_package_may_gather_the_methods_of_its_modules(installed, tmp_path):
    installed("their_package", "from their_package.inner import Mine\n")
    (tmp_path / "site" / "their_package" / "inner.py").write_text(textwrap.dedent(METHOD))
    assert load_registry().get("mine").__module__ == "their_package.inner"


BROKEN = {
    "import": ("x = 1\nimport nothing_of_the_kind", r"__init__.py, line 2: ModuleNotFoundError: No module"),
    "syntax": ("x = 1\n\ndef broken(:", r"__init__.py, line 3: SyntaxError"),
    "exception": ("x = 1 / 0", r"__init__.py, line 1: ZeroDivisionError: division by zero"),
    "exit": ("\nimport sys\nsys.exit(3)", r"line 3: it ends the program .*SystemExit: 3"),
    "other": ("class Odd(BaseException): pass\nraise Odd('o\\nh')", r"line 2: Odd: o h"),
    "no method": ("", r"no class with @register\(\.\.\.\) in it\.$"),
    "not registered": (
        METHOD.replace('@register("mine")', ""),
        r"no class with @register\(\.\.\.\) in it; put it above class Mine",
    ),
    "another name": (
        METHOD.replace('"mine"', '"yours"'),
        r"entry point 'mine' registers no method 'mine'; it has 'yours'",
    ),
    "two of a name": (
        METHOD + "\n    @register('mine')\n    class Second(Mine): pass",
        r"two classes are registered as 'mine'",
    ),
    "config": (
        METHOD.replace("class Config(MethodConfig)", "class Config"),
        r"the Config of method 'mine' must derive from MethodConfig",
    ),
    "no config": (
        METHOD.replace("class Config", "Config = 1\n        class Other"),
        r"the Config of method 'mine' must derive from MethodConfig",
    ),
    "unknown setting": (
        METHOD.replace("class Config", "settings = ('zeroshot',)\n        class Config"),
        r"method 'mine': unknown setting 'zeroshot'; valid: .*Did you mean 'zero-shot'",
    ),
    "no setting": (
        METHOD.replace("class Config", "settings = ()\n        class Config"),
        r"the settings of method 'mine' must be a tuple such as .*not \(\)",
    ),
    "a word for settings": (
        METHOD.replace("class Config", "settings = 'zero-shot'\n        class Config"),
        r"the settings of method 'mine' must be a tuple such as .*not 'zero-shot'",
    ),
    "a name by hand": (
        METHOD.replace('@register("mine")', "").replace("class Config", "name = 'my method'\n        class Config"),
        r"method name 'my method': use ASCII letters",
    ),
}


@pytest.mark.parametrize(("body", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_package_ends_nothing_until_it_is_named_and_then_says_why(installed, body, words):
    installed("broken_package", body)
    registry = load_registry()
    assert len(registry.configure("zero-shot", {})) == 1
    with pytest.raises(UserError, match=f"^package broken_package .*{words}") as caught:
        registry.get("mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("broken_package:Missing", r"AttributeError: .*no attribute 'Missing'"),
        ("broken_package:Helper", r"broken_package:Helper must be a class that derives from SteeringMethod"),
        ("broken_package:Bare", r"broken_package:Bare has no @register\('mine'\) above it"),
        ("broken_package:Mine", r"entry point 'mine' registers no method 'mine'; it has 'yours'"),
        ("broken package", r"'broken package' is neither a module nor module:Class"),
        ("missing_package", r"ModuleNotFoundError: No module named 'missing_package'"),
    ],
)
def test_an_entry_point_to_something_else_says_so(installed, value, words):
    body = (
        METHOD.replace('"mine"', '"yours"')
        + """
    class Bare(Mine): pass
    class Helper: pass
    """
    )
    installed("broken_package", body, mine=value)
    with pytest.raises(UserError, match=f"^package broken_package .*: {words}"):
        load_registry().get("mine")


def test_ctrl_c_while_a_method_is_loaded_stops_the_program(installed):
    installed("slow_package", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_registry().get("mine")


def test_a_package_whose_entry_points_cannot_be_read_hides_no_other(installed, tmp_path):
    installed("their_package", METHOD)
    installed("odd_package", METHOD)
    (tmp_path / "site" / "odd_package-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\nno equals sign\n"
    )
    registry = load_registry()
    (problem,) = registry.problems
    assert problem.startswith("package odd_package: its entry points are broken: ")
    assert registry.get("mine").__module__ == "their_package"


def test_a_package_that_takes_a_built_in_name_is_reported_unread_and_the_built_in_stays(installed):
    installed("their_package", "raise SystemExit", quality="their_package")
    registry = load_registry()
    assert registry.problems == [
        "package their_package (their_package): the name 'quality' is taken by built in; choose another name."
    ]
    assert registry.get("quality").__module__ == "harness.methods.difference"
    assert "their_package" not in sys.modules


@pytest.mark.parametrize("backwards", [False, True])
def test_two_packages_of_one_name_are_reported_and_the_first_by_name_stays(installed, monkeypatch, backwards):
    installed("b_package", METHOD)
    installed("a_package", METHOD)
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    found = sorted(points, key=lambda point: point.value, reverse=backwards)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)
    registry = load_registry()
    assert registry.problems == [
        "package b_package (b_package): the name 'mine' is taken by package a_package (a_package); choose another name."
    ]
    assert registry.get("mine").__module__ == "a_package"


def test_a_plug_in_file_goes_before_a_package_of_its_name_which_is_reported(installed, plugin):
    installed("their_package", METHOD)
    path = plugin()
    registry = load_registry([path])
    assert str(registry.sources["mine"]) == str(path)
    assert len(registry.problems) == 1


@pytest.mark.parametrize("name", ["my method", "..", "-x", "ዘዴ"])
def test_an_entry_point_whose_name_is_no_name_is_reported(installed, name):
    installed("their_package", METHOD, **{name: "their_package"})
    registry = load_registry()
    assert set(registry.sources) == set(BUILT_IN)
    (problem,) = registry.problems
    assert f"method name {name!r}: " in problem


# Folders


def test_a_folder_of_the_working_directory_adds_its_method_by_its_name(drop):
    path = drop("mine")
    registry = load_registry()
    assert str(registry.sources["mine"]) == str(path) == "submissions/mine/method.py"
    assert registry.problems == []
    assert [m.config.layer for m in registry.configure("mine", {"layer": 7})] == [7]


def test_the_code_of_a_folder_runs_only_when_it_is_named(drop, tmp_path):
    drop("mine", f"open({str(tmp_path / 'trace')!r}, 'a').write('ran ')" + METHOD.replace("\n    ", "\n"))
    registry = load_registry()
    assert registry.docstring("mine") == "Mine alone."
    registry.configure("zero-shot", {})
    with pytest.raises(UserError, match=r"valid: .*mine"):
        registry.get("min")
    assert not (tmp_path / "trace").exists()
    registry.get("mine")
    registry.get("mine")
    assert (tmp_path / "trace").read_text() == "ran "


def test_the_docstring_of_a_folder_may_be_amharic_and_its_decorator_an_attribute(drop):
    body = """
    import harness

    @harness.register("mine")
    class Mine(harness.SteeringMethod):
        '''ቋንቋ · שפה.

        More.
        '''
    """
    drop("mine", body)
    assert load_registry().docstring("mine") == "ቋንቋ · שפה.\n\nMore."
    assert load_registry().get("mine").name == "mine"


def test_a_folder_that_registers_another_name_says_so_read_or_run(drop):
    drop("mine", METHOD.replace('"mine"', '"yours"'))
    registry = load_registry()
    for ask in (registry.docstring, registry.get):
        with pytest.raises(
            UserError,
            match=r"^submissions/mine/method.py: folder 'mine' registers no method 'mine'; it has 'yours'\.$",
        ):
            ask("mine")


def test_a_broken_folder_ends_nothing_until_it_is_named_and_then_says_why(drop):
    drop("mine", "x = 1\nx.y\n")
    registry = load_registry()
    assert len(registry.configure("zero-shot", {})) == 1
    with pytest.raises(UserError, match=r"^submissions/mine/method.py, line 2: AttributeError: "):
        registry.get("mine")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"x = 1\ndef broken(:", r"method.py, line 2: SyntaxError"),
        (b"x = '\xff'", r"method.py.*: (SyntaxError|ValueError)"),
        (b"x = 1\0", r"method.py.*: (SyntaxError|ValueError)"),
        (b"x = " + b"(" * 5000, r"method.py.*: (SyntaxError|MemoryError|RecursionError)"),
        (b"x = " + b"-" * 100_000 + b"1", r"method.py.*: (SyntaxError|MemoryError|RecursionError)"),
        (b"#" * 1_000_001, r"method.py is larger than 1,000,000 bytes"),
    ],
    ids=["syntax", "encoding", "null", "brackets", "signs", "large"],
)
def test_a_file_that_cannot_be_read_is_named(drop, body, words):
    drop("mine").write_bytes(body)
    with pytest.raises(UserError, match=words):
        load_registry().docstring("mine")


def test_folders_without_a_method_and_hidden_ones_are_no_methods(drop):
    drop(".hidden")
    drop("__pycache__")
    drop("empty").unlink()
    Path("submissions/README.md").write_text("")
    registry = load_registry()
    assert set(registry.sources) == set(BUILT_IN)
    assert registry.problems == []


def test_a_folder_that_takes_a_name_or_has_a_bad_one_is_reported_unread(drop):
    drop("human", "raise SystemExit")
    drop("my method", "raise SystemExit")
    assert load_registry().problems == [
        "submissions/human/method.py: the name 'human' is taken by built in; choose another name.",
        "submissions/my method/method.py: method name 'my method': use ASCII letters, digits, '-', '_' and '.' only.",
    ]


def test_a_folder_named_as_a_plug_in_file_is_no_clash_with_itself(drop):
    registry = load_registry([drop("mine").resolve()])
    assert registry.problems == []
    assert registry.sources["mine"].kind == "file"


def test_a_folder_and_a_package_of_one_name_are_reported_and_the_package_stays(drop, installed):
    installed("their_package", METHOD)
    drop("mine")
    registry = load_registry()
    (problem,) = registry.problems
    assert re.search(r"submissions/mine/method.py: the name 'mine' is taken by package their_package", problem)
    assert registry.sources["mine"].kind == "package"


def test_the_folders_of_the_checkout_are_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "harness.methods.registry.__file__",
        str(tmp_path / "checkout" / "harness" / "methods" / "registry.py"),
    )
    path = tmp_path / "checkout" / "submissions" / "mine" / "method.py"
    path.parent.mkdir(parents=True)
    path.write_text(textwrap.dedent(METHOD))
    assert "mine" not in load_registry().sources  # no checkout: that could be anybody's folder
    (tmp_path / "checkout" / "pyproject.toml").write_text("")
    assert str(load_registry().sources["mine"]) == str(path)
    monkeypatch.chdir(tmp_path / "checkout")
    assert str(load_registry().sources["mine"]) == "submissions/mine/method.py"
    assert load_registry().problems == []
