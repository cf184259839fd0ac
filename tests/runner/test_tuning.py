"""Tuning: which configuration wins and why, and the methods of a run that follows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.helpers import MODEL, key
from support.tuning import suite_of

from harness.core.cells import Cell
from harness.core.errors import MachineError, UserError
from harness.core.records import CellScores, CellStatus, Generation, Tuned, TunedMethod, Usage
from harness.core.store import Run
from harness.methods.contract import MethodConfig, SteeringMethod
from harness.methods.prompting import FewShot, ZeroShot
from harness.methods.registry import Registry, load_registry, parse_methods
from harness.runner.prepare import RunPlan
from harness.runner.tune import evaluate_grid, select_best
from harness.runner.tuned import apply_tuning
from harness.scoring.metrics import VALID_SHARE, macro_f1


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


# The rule, on a run folder made by hand


class Mine(SteeringMethod):
    """A made-up method."""

    name = "mine"
    version = "7"
    search_space: ClassVar = {"strength": [1, 2, 3]}

    class Config(MethodConfig):
        by_language: ClassVar = ("strength",)
        strength: int | dict[str, int] = 0
        positions: str = "all"


Values = tuple[float | None, float, int]
"""Macro-F1, valid share and duplicates of a cell of four texts."""


def a_cell(method: SteeringMethod, setting: str = "zero-shot", language: str = "am") -> Cell:
    changes = {"method": method.identity, "setting": setting, "language": language, "seed": 0}
    return Cell(key(**changes, texts_per_label=2))


def finish(run: Run, cell: Cell, values: Values | str) -> None:
    """Write a cell of four texts of 10 + 5 tokens and half a second, or one that ended in a state."""
    if isinstance(values, str):
        run.write_cell(cell.id, CellStatus(cell=cell.key, state=values, reason="no", seconds=9.0), [])
        return
    f1, fidelity, duplicates = values
    rows = [
        Generation(index=i, label=label, text="ሰላም", n_prompt_tokens=10, n_new_tokens=5, finish_reason="stop")
        for label in ("negative", "positive")
        for i in range(2)
    ]
    # of the tokens that the rows had, and of as many in draws that were not kept
    tokens: dict[str, Any] = {"prompt_tokens": 80, "new_tokens": 40}
    fit = {"steering/s": Usage(seconds=2.0, tokens=30), f"steering/{cell.id}": Usage(seconds=1.0, tokens=3)}
    status = CellStatus(cell=cell.key, state="ok", seconds=0.5, duplicates=duplicates, fit=fit, **tokens)
    run.write_cell(cell.id, status, rows)
    scores = [macro_f1("tfidf").score(f1, "recipe"), VALID_SHARE.score(fidelity, "recipe")]
    run.write_scores(CellScores(cell_id=cell.id, generations_sha256="0", protocol="p", scores=scores), {})


def surveyed(
    folder: Path,
    unsteered: dict[tuple[str, str], Values],
    steered: dict[int, dict[tuple[str, str], Any]],
    by_language: bool = False,
) -> Tuned:
    """Survey a folder of (setting, language) -> values, for the unsteered methods and for each strength.

    A value of None leaves the cell out, a word is the state in which it ended.
    """
    run, cells = Run(folder), []
    methods: list[SteeringMethod] = [ZeroShot(), FewShot()]
    for place, values in unsteered.items():
        cells.append(a_cell(methods[place[0] == "few-shot"], *place))
        finish(run, cells[-1], values)
    for strength, by_place in steered.items():
        methods.append(Mine(Mine.Config(strength=strength)))
        for place, values in by_place.items():
            cells.append(a_cell(methods[-1], *place))
            if values is not None:
                finish(run, cells[-1], values)
    sweep = {"mine": {"strength": list(steered)}}
    suite = suite_of("zero-shot", "few-shot", sweep, seeds=[0], scored_split="validation")
    by_identity = {m.identity.model_dump_json(): m for m in methods}
    prepared = RunPlan(run, suite, None, None, by_identity, cells, [], MODEL)  # type: ignore[arg-type]
    return evaluate_grid(prepared, suite_of("mine"), by_language)


class FakeRegistry:
    """A registry that knows one method."""

    def get(self, name: str) -> type[SteeringMethod]:
        return {"mine": Mine}[name]


AM, HE, FEW = ("zero-shot", "am"), ("zero-shot", "he"), ("few-shot", "am")
PLAIN = {AM: (0.5, 1.0, 0)}


def test_the_highest_macro_f1_among_the_eligible_is_chosen(tmp_path):
    tuned = surveyed(
        tmp_path,
        {AM: (0.5, 1.0, 0), HE: (0.3, 0.5, 0)},
        {
            1: {AM: (0.6, 1.0, 0), HE: (0.4, 0.5, 0)},
            2: {AM: (0.9, 0.2, 0), HE: (0.9, 0.2, 0)},
            3: {AM: (0.5, 1.0, 0), HE: (0.6, 1.0, 0)},
        },
    )
    assert tuned.methods["mine"].options == {"strength": 3}
    assert [p.macro_f1 for p in tuned.surface] == pytest.approx([0.5, 0.9, 0.55])
    assert [p.gain for p in tuned.surface] == pytest.approx([0.1, 0.5, 0.15])
    assert [p.valid for p in tuned.surface] == pytest.approx([0.75, 0.2, 1.0])
    assert [p.eligible for p in tuned.surface] == [True, False, True]
    assert [p.chosen for p in tuned.surface] == [False, False, True]


def test_by_language_each_has_the_best_of_its_own_eligible_values(tmp_path):
    base: dict[tuple[str, str], Values] = {AM: (0.5, 1.0, 0), HE: (0.3, 1.0, 0)}
    steered = {
        1: {AM: (0.6, 1.0, 0), HE: (0.4, 0.5, 0)},
        2: {AM: (0.5, 1.0, 0), HE: (0.9, 0.2, 0)},  # best in Hebrew, but its texts are not valid
        3: {AM: (0.4, 1.0, 0), HE: (0.8, 1.0, 0)},
    }
    tuned = surveyed(tmp_path, base, steered, by_language=True)
    assert tuned.methods["mine"].options == {"strength": {"am": 1, "he": 3}}
    assert "one value per language" in tuned.rule
    assert [p.chosen for p in tuned.surface] == [False, False, True]  # over all languages
    assert apply_tuning(["mine"], tuned.methods, FakeRegistry()) == [{"mine": {"strength": {"am": 1, "he": 3}}}]
    whole = surveyed(tmp_path / "whole", base, steered)
    assert (whole.methods["mine"].options, "language" in whole.rule) == ({"strength": 3}, False)


def test_a_language_in_which_nothing_is_eligible_has_the_best_of_all(tmp_path):
    base: dict[tuple[str, str], Values] = {AM: (0.5, 1.0, 0), HE: (0.3, 0.1, 0)}
    steered = {1: {AM: (0.6, 1.0, 0), HE: (0.4, 0.05, 0)}, 2: {AM: (0.5, 1.0, 0), HE: (0.45, 0.05, 0)}}
    tuned = surveyed(tmp_path, base, steered, by_language=True)
    assert tuned.methods["mine"].options == {"strength": {"am": 1, "he": 1}}


@pytest.mark.parametrize(
    ("base", "fidelity", "duplicates", "valid", "eligible"),
    [
        (1.0, 0.9, 0, 0.9, True),
        (1.0, 0.899, 0, 0.899, False),
        (0.1, 0.09, 0, 0.09, True),  # 0.9 * 0.1 is 0.09000000000000001
        (0.5, 0.45, 0, 0.45, True),
        (1.0, 1.0, 1, 0.75, False),  # one text of four is a duplicate
        (0.8, 1.0, 1, 0.75, True),
        (0.0, 0.0, 4, 0.0, True),  # nothing is valid without steering either
        (0.5, 1.0, 4, 0.0, False),
    ],
)
def test_the_gate_is_nine_tenths_of_the_unsteered_valid_share(tmp_path, base, fidelity, duplicates, valid, eligible):
    (found,) = surveyed(tmp_path, {AM: (0.5, base, 0)}, {1: {AM: (0.9, fidelity, duplicates)}}).surface
    assert found.valid == pytest.approx(valid)
    assert found.eligible is eligible


def test_duplicates_of_the_unsteered_texts_lower_the_gate(tmp_path):
    unsteered = {AM: (0.5, 1.0, 2)}  # half are duplicates
    (found,) = surveyed(tmp_path, unsteered, {1: {AM: (0.9, 0.46, 0)}}).surface
    assert found.eligible


@pytest.mark.parametrize("gap", [None, "skipped", "method_error", (None, 1.0, 0)])
def test_a_configuration_that_lacks_a_cell_or_a_score_is_not_eligible(tmp_path, gap):
    unsteered = {AM: (0.5, 1.0, 0), HE: (0.5, 1.0, 0)}
    steered = {1: {AM: (0.9, 1.0, 0), HE: gap}, 2: {AM: (0.4, 1.0, 0), HE: (0.4, 1.0, 0)}}
    tuned = surveyed(tmp_path, unsteered, steered)
    first, second = tuned.surface
    there = 2 if isinstance(gap, tuple) else 1
    assert (first.cells, first.cells_expected, first.eligible) == (there, 2, False)
    assert (first.macro_f1, first.gain) == (None, None)
    assert second.chosen
    assert tuned.methods["mine"].options == {"strength": 2}


def test_where_the_machine_failed_nothing_is_chosen(tmp_path):
    """A choice among the configurations for which the machine was good enough would be an accident."""
    unsteered = {AM: (0.5, 1.0, 0), HE: (0.5, 1.0, 0)}
    steered = {1: {AM: (0.9, 1.0, 0), HE: "infra_error"}, 2: {AM: (0.4, 1.0, 0), HE: (0.4, 1.0, 0)}}
    with pytest.raises(MachineError, match=r"failed in 1 cells .*nothing is chosen\. Run the same command again"):
        surveyed(tmp_path, unsteered, steered)


def test_where_nothing_passes_nothing_is_chosen(tmp_path):
    tuned = surveyed(tmp_path, PLAIN, {1: {AM: (0.9, 0.1, 0)}, 2: {AM: "skipped"}})
    assert tuned.methods["mine"].options is None
    assert not any(point.chosen for point in tuned.surface)
    assert (tuned.surface[1].valid, tuned.surface[1].cells) == (None, 0)


def test_of_equals_the_first_is_chosen(tmp_path):
    tuned = surveyed(tmp_path, PLAIN, {n: {AM: (0.6 if n > 1 else 0.5, 1.0, 0)} for n in (3, 1, 2)})
    assert tuned.methods["mine"].options == {"strength": 3}
    assert [point.chosen for point in tuned.surface] == [True, False, False]


def test_a_choice_of_macro_f1_zero_is_a_choice(tmp_path):
    assert surveyed(tmp_path, PLAIN, {1: {AM: (0.0, 1.0, 0)}}).methods["mine"].options == {"strength": 1}


def test_nothing_is_chosen_of_nothing():
    assert select_best([]) is None


def test_the_gain_is_against_the_unsteered_cell_of_the_same_setting(tmp_path):
    unsteered = {AM: (0.3, 1.0, 0), FEW: (0.7, 1.0, 0)}
    zero = surveyed(tmp_path / "a", unsteered, {1: {AM: (0.5, 1.0, 0)}}).surface[0]
    few = surveyed(tmp_path / "b", unsteered, {1: {FEW: (0.5, 1.0, 0)}}).surface[0]
    both = surveyed(tmp_path / "c", unsteered, {1: {AM: (0.5, 1.0, 0), FEW: (0.5, 1.0, 0)}}).surface[0]
    assert [p.gain for p in (zero, few, both)] == pytest.approx([0.2, -0.2, 0.0])


def test_without_an_unsteered_macro_f1_there_is_no_gain(tmp_path):
    (found,) = surveyed(tmp_path, {AM: (None, 0.0, 0)}, {1: {AM: (0.5, 1.0, 0)}}).surface
    assert (found.macro_f1, found.gain, found.eligible) == (0.5, None, True)


def test_the_cost_counts_texts_tokens_and_seconds_of_what_was_tried(tmp_path):
    unsteered = {AM: (0.5, 1.0, 0), HE: (0.5, 1.0, 0)}
    steered = {1: {AM: (0.5, 1.0, 0), HE: (0.5, 1.0, 0)}, 2: {AM: (0.5, 1.0, 0), HE: "skipped"}}
    tuned = surveyed(tmp_path, unsteered, steered)
    assert [(p.texts, p.tokens, p.seconds) for p in tuned.surface] == [(8, 240, 1.0), (4, 120, 0.5)]
    mine = tuned.methods["mine"]
    assert (mine.configurations, mine.texts, mine.tokens, mine.seconds) == (2, 12, 360, 1.5)
    assert mine.fit == Usage(seconds=5.0, tokens=39)  # what the three cells share counts once
    assert mine.version == "7"


def test_a_cost_that_an_old_sweep_did_not_record_is_not_known(tmp_path):
    surveyed(tmp_path, PLAIN, {1: {AM: (0.5, 1.0, 0)}})
    steered = a_cell(Mine(Mine.Config(strength=1))).id
    path = Run(tmp_path).cell(steered) / "status.json"
    status = json.loads(path.read_text(encoding="utf-8"))
    for field in ("prompt_tokens", "new_tokens", "fit"):
        del status[field]
    path.write_text(json.dumps(status), encoding="utf-8")
    mine = surveyed(tmp_path, PLAIN, {1: {AM: None}}).methods["mine"]
    assert (mine.texts, mine.seconds, mine.tokens, mine.fit) == (4, 0.5, None, None)


def test_a_missing_unsteered_cell_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"the unsteered cell of zero-shot/sentiment/he is missing"):
        surveyed(tmp_path, PLAIN, {1: {HE: (0.5, 1.0, 0)}})
    with pytest.raises(UserError, match=r"unsteered cell of zero-shot/sentiment/am is missing\. Run the same"):
        surveyed(tmp_path, {AM: "method_error"}, {1: {AM: (0.5, 1.0, 0)}})


def test_a_method_without_a_cell_in_the_settings_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="nothing was tried"):
        surveyed(tmp_path, PLAIN, {1: {}})


def test_a_cell_that_is_planned_twice_counts_once(tmp_path):
    run, methods = Run(tmp_path), [ZeroShot(), Mine(Mine.Config(strength=1))]
    cells = [a_cell(methods[0]), a_cell(methods[1]), a_cell(methods[1])]
    for cell in cells:
        finish(run, cell, (0.5, 1.0, 0))
    by_identity = {m.identity.model_dump_json(): m for m in methods}
    suite = suite_of("zero-shot", {"mine": {"strength": [1]}})
    prepared = RunPlan(run, suite, None, None, by_identity, cells, [], MODEL)  # type: ignore[arg-type]
    (found,) = evaluate_grid(prepared, suite).surface
    assert (found.cells, found.cells_expected, found.eligible, found.texts) == (1, 1, True, 4)


def test_a_sweep_of_the_suites_own_is_told_apart_and_chosen_from(tmp_path):
    run, cells = Run(tmp_path), [a_cell(ZeroShot())]
    configs = [Mine.Config(strength=1, positions=where) for where in ("all", "prompt")]
    methods = [ZeroShot(), *(Mine(config) for config in configs)]
    cells = [a_cell(method) for method in methods]
    for cell, f1 in zip(cells, (0.5, 0.6, 0.7), strict=True):
        finish(run, cell, (f1, 1.0, 0))
    by_identity = {m.identity.model_dump_json(): m for m in methods}
    suite = suite_of("zero-shot", {"mine": {"positions": ["all", "prompt"], "strength": [1]}})
    prepared = RunPlan(run, suite, None, None, by_identity, cells, [], MODEL)  # type: ignore[arg-type]
    tuned = evaluate_grid(prepared, suite)
    assert tuned.methods["mine"].options == {"positions": "prompt", "strength": 1}
    assert [list(point.options) for point in tuned.surface] == [["positions", "strength"]] * 2


def test_the_choice_says_what_it_was_made_on(tmp_path):
    tuned = surveyed(tmp_path, {AM: (0.5, 1.0, 0), HE: (0.5, 1.0, 0)}, {1: {HE: (0.6, 1.0, 0)}})
    assert (tuned.suite, tuned.suite_hash, tuned.model) == ("mini", suite_of("mine").hash, MODEL)
    assert (tuned.selection.languages, tuned.selection.settings) == (["am", "he"], ["zero-shot"])
    assert tuned.selection.texts_per_label == {"sentiment": 2}
    assert "scored on validation text" in tuned.selection.narrowed
    assert tuned.data_hashes == {"sentiment/am": "d", "sentiment/he": "d"}
    assert Tuned.model_validate(tuned.to_json()) == tuned


# The methods of a run that follows a choice


def chosen(version: str = "1", **options: Any) -> TunedMethod:
    counts = {"configurations": 2, "texts": 8, "tokens": 80, "seconds": 1.0}
    return TunedMethod(version=version, options=options or None, **counts)


CHOICE = {"language": chosen(layer=1, strength=0.4), "quality": chosen()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("language", [{"language": {"layer": 1, "strength": 0.4}}]),
        ("quality", [{"quality": {}}]),  # nothing passed: its default stays
        ({"quality": {"layer": 0.5}}, [{"quality": {"layer": 0.5}}]),
        ("zero-shot", [{"zero-shot": {}}]),
        ({"language": None}, [{"language": {"layer": 1, "strength": 0.4}}]),
        (
            {"language": {"strength": [1, 2], "unit": "raw"}},
            [{"language": {"strength": 0.4, "unit": "raw", "layer": 1}}],
        ),
        ("negated", [{"negated": {"of": "language", "options": {"layer": 1, "strength": 0.4}}}]),
        ({"negated": {"of": "quality"}}, [{"negated": {"of": "quality"}}]),
        (
            {"random": {"of": ["language", "quality"], "options": {"positions": "prompt", "layer": 0}}},
            [
                {"random": {"of": "language", "options": {"positions": "prompt", "layer": 1, "strength": 0.4}}},
                {"random": {"of": "quality", "options": {"positions": "prompt", "layer": 0}}},
            ],
        ),
        (
            {"other-language": {"language": "he"}},
            [{"other-language": {"language": "he", "of": "language", "options": {"layer": 1, "strength": 0.4}}}],
        ),
        ({"negated": {"options": None}}, [{"negated": {"of": "language", "options": {"layer": 1, "strength": 0.4}}}]),
    ],
)
def test_methods_get_the_chosen_options_and_controls_follow_them(registry, given, expected):
    found = apply_tuning([given], CHOICE, registry)
    assert found == expected
    parse_methods(registry, found)


def test_a_control_has_the_config_of_its_tuned_method(registry):
    steered, control = parse_methods(registry, apply_tuning(["language", "negated"], CHOICE, registry))
    assert control.identity.config["options"] == steered.identity.config


def test_a_sweep_written_as_two_items_becomes_one_row(registry):
    specs = [{"language": {"strength": 1}}, {"language": {"strength": 2}}]
    assert len(apply_tuning(specs, CHOICE, registry)) == 1
    assert len(apply_tuning(specs, {}, registry)) == 2


def test_a_choice_for_another_version_of_a_method_is_refused(registry):
    old = {"language": chosen("0", strength=1)}
    for name in ("language", "negated"):
        with pytest.raises(UserError, match=r"'language' was tuned as version 0 and is now version 1\. Tune"):
            apply_tuning([name], old, registry)
    assert apply_tuning(["human"], old, registry) == [{"human": {}}]


@pytest.mark.parametrize("options", [{"of": 5}, {"of": {"a": 1}}, {"options": "x"}, {"options": [1]}])
def test_a_control_with_nonsense_in_the_suite_is_one_clear_error(registry, options):
    with pytest.raises(UserError):
        parse_methods(registry, apply_tuning([{"negated": options}], CHOICE, registry))
