"""Finding methods: built in, in a file, in a package; what is broken is named with its place."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from harness.errors import UserError
from harness.methods.base import Reference, SteeringMethod
from harness.registry import BUILT_IN, ENTRY_POINTS, Registry, load_registry, parse_methods

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
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that packages with our entry point are installed: a module's body, or what loading raises."""

    def install(**packages: str | Exception) -> None:
        points = []
        for name, body in packages.items():
            module = ModuleType(name)
            if isinstance(body, str):
                exec(textwrap.dedent(body), vars(module))
            monkeypatch.setitem(sys.modules, name, module)
            point = importlib.metadata.EntryPoint(name, f"{name}:Mine", ENTRY_POINTS)
            if isinstance(body, Exception):
                point = _Failing(point.value, body)
            points.append(point)
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda group: points if group == ENTRY_POINTS else []
        )

    return install


class _Failing:
    """An entry point whose package cannot be imported."""

    def __init__(self, value: str, error: Exception) -> None:
        self.value, self.error, self.module = value, error, value.partition(":")[0]

    def load(self) -> None:
        raise self.error


def test_the_built_in_methods_are_found_and_sound():
    registry = load_registry()
    assert set(BUILT_IN) <= set(registry.methods)
    assert registry.problems == []
    for name in BUILT_IN:
        cls = registry.get(name)
        assert cls.name == name
        assert registry.sources[name] == "built in"
        assert cls.__module__ == BUILT_IN[name]
        assert "Source: " in cls.__doc__ or issubclass(cls, Reference)


def test_a_plug_in_file_adds_its_method(plugin):
    path = plugin()
    registry = load_registry([path])
    cls = registry.get("mine")
    assert cls.__doc__ == "Mine alone."
    assert registry.sources["mine"] == str(path)
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
    assert {"mine", "second"} <= set(registry.methods)
    assert registry.get("second").Config is registry.get("mine").Config


def test_imported_methods_and_unregistered_subclasses_add_nothing(plugin):
    body = (
        METHOD
        + """
    from harness.methods.language import LanguageSteering

    class Shared(LanguageSteering):
        '''A helper for subclasses; it inherits the name but was not registered.'''

    Alias = Mine
    """
    )
    registry = load_registry([plugin(body)])
    assert registry.problems == []
    assert set(registry.methods) == {*BUILT_IN, "mine"}
    assert registry.sources["language"] == "built in"


def test_two_plug_in_files_of_one_name_are_both_loaded(plugin, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "method.py").write_text(plugin().read_text().replace('"mine"', '"theirs"'), encoding="utf-8")
    registry = load_registry([tmp_path / "method.py", other / "method.py"])
    assert {"mine", "theirs"} <= set(registry.methods)


def test_an_installed_package_adds_its_method(installed):
    installed(their_package=METHOD)
    registry = load_registry()
    assert registry.sources["mine"] == "package their_package:Mine"
    assert registry.problems == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("no module named nope"), "ImportError: no module named nope"),
        (SystemError("boom"), "SystemError: boom"),
    ],
    ids=["import", "other"],
)
def test_a_broken_package_is_reported_and_ends_nothing(installed, error, words):
    installed(broken_package=error, their_package=METHOD)
    registry = load_registry()
    assert registry.problems == [f"package broken_package:Mine: {words}"]
    assert "mine" in registry.methods
    assert set(BUILT_IN) <= set(registry.methods)


def test_an_entry_point_to_something_that_is_missing_is_reported(installed):
    installed(empty_package="")
    (problem,) = load_registry().problems
    assert problem.startswith("package empty_package:Mine: AttributeError")


def test_a_package_that_takes_a_built_in_name_is_reported_and_the_built_in_stays(installed):
    installed(their_package=METHOD.replace('"mine"', '"quality"'))
    registry = load_registry()
    assert registry.problems == [
        "package their_package:Mine: the name 'quality' is taken by built in; choose another name."
    ]
    assert registry.get("quality").__module__ == "harness.methods.quality"


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
    with pytest.raises(
        UserError, match=r"method.py, line 4: UserError: method 'mine': .* derive from SteeringMethod"
    ):
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
        load_registry([plugin("from harness.methods.language import LanguageSteering\n")])


def test_a_file_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"gone.py does not exist"):
        load_registry([tmp_path / "gone.py"])


def test_a_file_that_is_not_python_is_an_error(plugin):
    with pytest.raises(UserError, match=r"method.txt is not a Python file"):
        load_registry([plugin(name="method.txt")])


@pytest.mark.parametrize(("typed", "near"), [("langauge", "language"), ("few_shot", "few-shot")])
def test_an_unknown_name_is_refused_with_the_nearest_one(typed, near):
    with pytest.raises(
        UserError, match=f"unknown method '{typed}'; valid: constant, .*Did you mean '{near}'"
    ):
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
    with pytest.raises(
        UserError, match=r"method 'mine': layer: .*'two'.* Its options: layer, strength, tag\."
    ):
        mine.configure("mine", options)


def test_an_unknown_option_is_refused_with_the_valid_ones(mine):
    with pytest.raises(UserError, match=r"lyer.*Its options: layer, strength, tag\."):
        mine.configure("mine", {"lyer": 1})


def test_an_option_of_a_method_that_has_none_is_refused():
    with pytest.raises(UserError, match=r"method 'zero-shot': layer: .*Its options: \(none\)"):
        load_registry().configure("zero-shot", {"layer": 1})


def test_a_list_of_names_and_sweeps_is_parsed_in_order(mine):
    specs = ["zero-shot", {"mine": {"layer": [1, 2]}}, {"mine": {}}, {"human": None}]
    methods = parse_methods(mine, specs)
    assert [m.name for m in methods] == ["zero-shot", "mine", "mine", "mine", "human"]
    assert [m.config.layer for m in methods[1:4]] == [1, 2, 3]


def test_an_unknown_name_in_a_list_is_refused(mine):
    with pytest.raises(UserError, match=r"unknown method 'min'.*Did you mean 'mine'"):
        parse_methods(mine, ["zero-shot", "min"])
