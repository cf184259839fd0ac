"""Which configurations of a method ``steerboard tune`` tries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tuning import suite_of

from harness.core.errors import UserError
from harness.data.suite import load_suite
from harness.methods.registry import Registry, load_registry, parse_methods
from harness.runner.tune import tuning_suite


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def derived(registry: Registry, *methods: Any, names: list[str] | None = None, **overrides: Any) -> list[Any]:
    """Return what is swept, without the unsteered methods in front."""
    found = tuning_suite(suite_of(*methods), registry, names, overrides).methods
    assert found[:2] == ["zero-shot", "few-shot"]
    return found[2:]


def test_the_methods_of_the_suite_that_name_a_grid_are_tuned(registry):
    found = derived(registry, "zero-shot", "few-shot", "language", "clas", "human", "constant")
    assert found == [
        {"language": {"layer": [0.21, 0.48, 0.74], "strength": [0.05, 0.1, 0.2, 0.4]}},
        {"clas": {"alpha": [-5.0, -3.0, -1.0, -0.5, 0.5, 1.0]}},
    ]


def test_controls_and_references_are_not_tuned(registry, tmp_path):
    registry = with_plugin(
        tmp_path,
        "from harness.methods.controls import NegatedVector\n"
        "@register('flipped')\nclass Flipped(NegatedVector):\n    search_space = {'of': ['language', 'quality']}\n"
        "@register('drawn')\nclass Drawn(Reference):\n    search_space = {'n': [1, 2]}\n"
        "    class Config(MethodConfig):\n        n: int = 1\n",
    )
    found = derived(registry, "language", "negated", "random", "flipped", "human", "drawn")
    assert [name for sweep in found for name in sweep] == ["language"]
    for name in ("negated", "flipped", "drawn", "human", "zero-shot"):
        with pytest.raises(UserError, match=rf"method '{name}': it names no grid of values"):
            derived(registry, "language", names=[name])


def test_the_sweep_is_on_validation_text_with_tfidf_and_a_seed_that_no_score_uses(registry):
    for seeds, seed in (([1, 2, 3], 0), ([0], 1), ([3, 0, 1], 2)):
        suite = suite_of("language", seeds=seeds, classifiers=["tfidf", "hf:owner/encoder"])
        found = tuning_suite(suite, registry, None, {})
        assert (found.seeds, found.classifiers, found.scored_split) == ([seed], ["tfidf"], "validation")
        assert found.name == "mini-tuning"
        assert found.hash != suite.hash
        assert found.text_protocol("sentiment", "am") == suite.text_protocol("sentiment", "am")


def test_named_methods_are_tuned_also_where_the_suite_lacks_them(registry):
    found = derived(registry, "language", "quality", names=["clas", "quality", "clas"])
    assert [name for sweep in found for name in sweep] == ["clas", "quality"]


def test_overrides_replace_the_values_of_a_grids_field_and_of_no_other(registry):
    found = derived(registry, "language", "clas", layer=[0, 0.5], strength=[0.3])
    assert found[0] == {"language": {"layer": [0, 0.5], "strength": [0.3]}}
    assert list(found[1]["clas"]) == ["alpha"]


def test_an_override_that_would_change_nothing_is_refused(registry):
    with pytest.raises(UserError, match=r"none of the methods to tune has 'strength' in its grid.*--strengths"):
        derived(registry, "language", names=["clas"], strength=[0.3])


def test_a_value_given_twice_is_tried_once(registry):
    found = derived(registry, "language", layer=[0, 0.0, 0], strength=[0.2, 0.2])
    assert json.dumps(found) == '[{"language": {"layer": [0, 0.0], "strength": [0.2]}}]'


def test_options_that_the_suite_gives_are_kept(registry):
    found = derived(registry, {"language": {"strength": 7, "unit": "raw", "positions": "prompt"}})
    assert found == [{"language": {"unit": "raw", "positions": "prompt", "layer": [0.21, 0.48, 0.74], "strength": 7}}]


def test_the_sweep_that_the_suite_gives_is_the_one_that_is_tried(registry):
    given = {"layer": [0.21, 0.48, 0.74], "unit": "raw", "strength": [25, 50, 75, 100]}
    (found,) = derived(registry, {"language": given})
    assert found == {"language": given}
    assert list(found["language"]) == ["unit", "layer", "strength"]


def test_an_override_wins_over_what_the_suite_gives(registry):
    (found,) = derived(registry, {"language": {"layer": 1, "strength": [1, 2]}}, strength=[0.3])
    assert found == {"language": {"layer": 1, "strength": [0.3]}}


def test_the_published_grid_is_tried_in_the_papers_unit(registry):
    suite = load_suite("published").for_model("gemma2")
    configs = parse_methods(registry, tuning_suite(suite, registry, ["language"], {}).methods[2:])
    assert len(configs) == 12
    assert {(m.config.unit, m.config.strength) for m in configs} == {("raw", s) for s in (25, 50, 75, 100)}


def test_a_method_whose_grid_the_suite_fixes_has_nothing_to_tune(registry):
    fixed = {"language": {"layer": 1, "strength": 0.1}}
    assert [*derived(registry, fixed, "quality")[0]] == ["quality"]
    with pytest.raises(UserError, match=r"method 'language': the suite fixes every field of its grid"):
        derived(registry, fixed, names=["language"])


@pytest.mark.parametrize(("methods", "names"), [(["human", "zero-shot"], None), (["language"], [])])
def test_nothing_to_tune_is_one_clear_error(registry, methods, names):
    with pytest.raises(UserError, match=r"nothing to tune\. Give --methods"):
        derived(registry, *methods, names=names)


def with_plugin(folder: Path, body: str) -> Registry:
    path = folder / "mine.py"
    start = "from harness import MethodConfig, Reference, SteeringMethod, register\n"
    path.write_text(start + body, encoding="utf-8")
    return load_registry([path])


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("3", "search_space = 3 does not give a list of values"),
        ("['strength']", r"does not give a list of values for each field"),
        ("{'strength': 0.1}", r"search_space = {'strength': 0.1} does not give a list"),
        ("{'strength': []}", r"does not give a list"),
        ("{'strength': 'abc'}", r"does not give a list"),
        ("{'strenght': [1]}", r"unknown field in the search_space of method 'mine': 'strenght'; valid: strength"),
        ("{5: [1]}", r"unknown field in the search_space of method 'mine': '5'"),
    ],
)
def test_a_grid_that_is_none_is_one_clear_error(tmp_path, grid, words):
    body = f"@register('mine')\nclass M(SteeringMethod):\n    search_space = {grid}\n"
    body += "    class Config(MethodConfig):\n        strength: float = 1\n"
    with pytest.raises(UserError, match=words):
        derived(with_plugin(tmp_path, body), names=["mine"])


def test_a_tuple_in_a_grid_is_as_good_as_a_list(tmp_path):
    body = "@register('mine')\nclass M(SteeringMethod):\n    search_space = {'strength': (1, 2)}\n"
    body += "    class Config(MethodConfig):\n        strength: float = 1\n"
    assert derived(with_plugin(tmp_path, body), "mine") == [{"mine": {"strength": [1, 2]}}]
