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

from harness.core.errors import UserError
from harness.methods.contract import Reference, SteeringMethod
from harness.methods.registry import BUILT_IN, ENTRY_POINTS, Registry, load_registry, parse_methods

METHOD = """
    from harness import MethodConfig, SteeringMethod, register

    @register("mine")
    class Mine(SteeringMethod):
        '''Mine alone.'''
        class Config(MethodConfig):
            layer: int = 3
            strength: float = 0.5
            tag: str = "x"
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """Write a plug-in file."""

    def write(body: str = METHOD, name: str = "method.py") -> Path:
        (tmp_path / name).write_text(textwrap.dedent(body), encoding="utf-8")
        return tmp_path / name

    return write


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
        ("broken package", r"'broken package' is neither module nor module:Class"),
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


# Plug-in files that are not right


def test_a_plug_in_file_that_takes_a_name_is_an_error(plugin):
    with pytest.raises(UserError, match="the name 'human' is taken by built in; choose another name"):
        load_registry([plugin(METHOD.replace('"mine"', '"human"'))])


def test_two_plug_in_files_that_take_one_name_are_an_error(plugin):
    one, two = plugin(name="one.py"), plugin(name="two.py")
    with pytest.raises(UserError, match=r"two.py: the name 'mine' is taken by .*one.py"):
        load_registry([one, two])


def test_a_class_that_is_no_method_is_an_error_with_its_line(plugin):
    body = """
    from harness import register

    @register("mine")
    class Mine:
        pass
    """
    with pytest.raises(UserError, match=r"method.py, line 4: method 'mine': .* derive from SteeringMethod"):
        load_registry([plugin(body)])


def test_a_syntax_error_is_an_error_with_its_line(plugin):
    with pytest.raises(UserError, match=r"method.py, line 3: SyntaxError: "):
        load_registry([plugin("\nimport harness\ndef broken(:\n    pass\n")])


def test_an_exception_in_the_file_is_an_error_with_its_line(plugin):
    with pytest.raises(UserError, match=r"method.py, line 3: ZeroDivisionError: division by zero"):
        load_registry([plugin("\nx = 0\ny = 1 / x\n")])


def test_a_broken_plug_in_leaves_no_module_behind(plugin):
    before = set(sys.modules)
    with pytest.raises(UserError):
        load_registry([plugin("1 / 0")])
    assert not {name for name in set(sys.modules) - before if name.startswith("steerboard_plugin")}


def test_a_file_without_a_method_is_an_error(plugin):
    with pytest.raises(UserError, match=r"method.py: no class with @register"):
        load_registry([plugin("from harness.methods.difference import LanguageSteering\n")])


def test_a_file_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"gone.py does not exist"):
        load_registry([tmp_path / "gone.py"])


def test_a_file_that_is_not_python_is_an_error(plugin):
    with pytest.raises(UserError, match=r"method.txt is not a Python file: its name must end in .py"):
        load_registry([plugin(name="method.txt")])


@pytest.mark.parametrize(("typed", "near"), [("langauge", "language"), ("few_shot", "few-shot")])
def test_an_unknown_name_is_refused_with_the_nearest_one(typed, near):
    with pytest.raises(UserError, match=f"unknown method '{typed}'; valid: .*constant, .*Did you mean '{near}'"):
        load_registry().get(typed)


def test_a_name_like_no_other_gets_the_list_and_no_suggestion():
    with pytest.raises(UserError) as caught:
        load_registry().get("xyzzy")
    assert "Did you mean" not in str(caught.value)
    assert "zero-shot" in str(caught.value)


@pytest.fixture
def mine(plugin) -> Registry:
    return load_registry([plugin()])


def configs(methods: list[SteeringMethod]) -> list[tuple[int, float, str]]:
    return [(m.config.layer, m.config.strength, m.config.tag) for m in methods]


def test_a_method_without_options_has_its_defaults(mine):
    assert configs(mine.configure("mine", {})) == [(3, 0.5, "x")]


def test_a_single_value_is_one_method(mine):
    assert configs(mine.configure("mine", {"layer": 5})) == [(5, 0.5, "x")]


def test_lists_of_values_span_a_sweep(mine):
    swept = mine.configure("mine", {"layer": [1, 2], "strength": [0.1, 0.2, 0.3]})
    assert configs(swept) == [(layer, s, "x") for layer in (1, 2) for s in (0.1, 0.2, 0.3)]
    assert len({m.identity.model_dump_json() for m in swept}) == 6


def test_a_string_is_one_value_and_no_sweep(mine):
    assert configs(mine.configure("mine", {"tag": "abc"})) == [(3, 0.5, "abc")]


@pytest.mark.parametrize("options", [{"layer": [1, "two"]}, {"layer": "two"}], ids=str)
def test_a_bad_value_is_refused_with_its_name_and_the_options(mine, options):
    with pytest.raises(UserError, match=r"method 'mine': layer: .*'two'.* Its options: layer, strength, tag\."):
        mine.configure("mine", options)


def test_an_unknown_option_is_refused_with_the_valid_ones(mine):
    words = r"unknown option of method 'mine': 'lyer'; valid: layer, strength, tag\. Did you mean 'layer'\?"
    with pytest.raises(UserError, match=words):
        mine.configure("mine", {"lyer": 1})


def test_an_option_of_a_method_that_has_none_is_refused():
    with pytest.raises(UserError, match=r"unknown option of method 'zero-shot': 'layer'; valid: \(none\)"):
        load_registry().configure("zero-shot", {"layer": 1})


def test_an_option_without_a_value_is_refused(mine):
    with pytest.raises(UserError, match=r"option 'layer' of method 'mine' is an empty list\. Give it a value"):
        mine.configure("mine", {"layer": []})


LISTS = """
    from collections.abc import Sequence
    from typing import Annotated, Any, Literal
    from pydantic import Field
    from harness import MethodConfig, SteeringMethod, register

    @register("mine")
    class Mine(SteeringMethod):
        class Config(MethodConfig):
            layers: list[int] = [1]
            pair: tuple[int, int] = (1, 2)
            one_or_more: int | list[int] = 1
            table: Annotated[list[list[float]] | None, Field()] = None
            words: Sequence[Literal["a", "b"]] = ()
            more: dict[str, list[int]] = {}
            anything: Any = None
"""


@pytest.mark.parametrize(
    ("option", "value", "points"),
    [
        ("layers", [1, 2], [[1, 2]]),
        ("layers", [], [[]]),
        ("layers", [[1, 2], [3]], [[1, 2], [3]]),
        ("pair", [7, 9], [(7, 9)]),
        ("pair", [[7, 9], [8, 9]], [(7, 9), (8, 9)]),
        ("one_or_more", 5, [5]),
        ("one_or_more", [5, 6], [[5, 6]]),
        ("one_or_more", [5, [6, 7]], [5, [6, 7]]),
        ("table", [[1.0], [2.0]], [[[1.0], [2.0]]]),
        ("table", [[[1.0]], [[2.0]]], [[[1.0]], [[2.0]]]),
        ("words", ["a", "b"], [["a", "b"]]),
        ("more", {"a": [1, 2]}, [{"a": [1, 2]}]),
        ("more", [{"a": [1]}, {}], [{"a": [1]}, {}]),
        ("anything", [1, 2], [1, 2]),
    ],
    ids=str,
)
def test_a_list_is_one_value_where_the_option_is_a_list_and_lists_of_it_a_sweep(plugin, option, value, points):
    methods = load_registry([plugin(LISTS)]).configure("mine", {option: value})
    assert [getattr(m.config, option) for m in methods] == points


def test_a_list_that_holds_itself_is_refused(plugin):
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(UserError, match="method 'mine': layers"):
        load_registry([plugin(LISTS)]).configure("mine", {"layers": endless})


BUILDS_ON = """
    from harness import MethodConfig, SteeringMethod, register

    @register("against")
    class Against(SteeringMethod):
        class Config(MethodConfig):
            of: str = "language"
            options: dict = {}

        def bind(self, configure):
            self.target = configure(self.config.of, self.config.options)[0]
"""


def test_a_method_may_build_on_another_which_it_configures_itself(plugin):
    registry = load_registry([plugin(BUILDS_ON)])
    (method,) = registry.configure("against", {"of": "quality", "options": {"strength": 0.3}})
    assert (method.target.name, method.target.config.strength) == ("quality", 0.3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "langauge"}, r"unknown method 'langauge'.*Did you mean 'language'"),
        ({"options": {"strenght": 1}}, r"unknown option of method 'language': 'strenght'.*'strength'"),
        ({"of": "against", "options": {"of": "against", "options": {"of": 3}}}, r"method 'against': of: "),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_other_method_is_said(plugin, options, words):
    with pytest.raises(UserError, match=words):
        load_registry([plugin(BUILDS_ON)]).configure("against", options)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def __init__(self): pass", r"method 'mine' cannot be set up: TypeError: "),
        ("def bind(self, configure): return 1 / 0", r"method 'mine' cannot be set up: ZeroDivisionError"),
        (
            "def bind(self, configure): return configure('mine', {})",
            r"'mine' cannot be set up: RecursionError",
        ),
        ("version = 2", r"method 'mine' cannot be set up: version: .*string"),
    ],
)
def test_a_class_that_cannot_be_set_up_is_named(plugin, body, words):
    path = plugin(METHOD.replace("class Config", body + "\n        class Config"))
    with pytest.raises(UserError, match=words):
        load_registry([path]).configure("mine", {})


def test_a_list_of_names_and_sweeps_is_parsed_in_order(mine):
    specs = ["zero-shot", {"mine": {"layer": [1, 2]}}, {"mine": {}}, {"human": None}]
    methods = parse_methods(mine, specs)
    assert [m.name for m in methods] == ["zero-shot", "mine", "mine", "mine", "human"]
    assert [m.config.layer for m in methods[1:4]] == [1, 2, 3]


def test_an_unknown_name_in_a_list_is_refused(mine):
    with pytest.raises(UserError, match=r"unknown method 'min'.*Did you mean 'mine'"):
        parse_methods(mine, ["zero-shot", "min"])


def test_before_the_code_of_a_folder_runs_a_line_says_so(drop, plugin, capsys):
    drop("mine")
    registry = load_registry()
    assert capsys.readouterr().err == ""
    registry.get("mine")
    registry.get("mine")
    assert capsys.readouterr().err == (
        "running the code of submissions/mine/method.py on this machine, with your rights\n"
    )
    registry.get("zero-shot")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("grid = {'x': [1]}", "grid", "search_space"),
        ("quick = {}", "quick", "test_config"),
        ("limits = 'None known.'", "limits", "known_limitations"),
        ("steers = property(lambda self: True)", "steers", "has_fit"),
    ],
)
def test_an_attribute_by_its_old_name_is_one_line_with_the_new_name(plugin, line, old, new):
    body = f"from harness import SteeringMethod, register\n@register('mine')\nclass M(SteeringMethod):\n    {line}\n"
    with pytest.raises(UserError, match=rf"method 'mine': attribute '{old}' is now called '{new}'; rename it"):
        load_registry([plugin(body)])
