"""Plug-in files that are not right; configuring methods: options, sweeps, methods that build on others."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.plugin_files import METHOD

from harness.core.errors import UserError
from harness.methods.contract import SteeringMethod
from harness.methods.registry import Registry, load_registry, parse_methods


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


# Options


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
