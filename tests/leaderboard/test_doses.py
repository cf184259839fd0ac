"""Doses on the board: which one a method has, what was measured along it, and text from outside in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.toyruns import flat, selection, toy, write_run
from support.toysite import ALPHA, SUITE, entry, finish

from harness.core.files import write_json
from harness.core.records import DoseScores, GridPoint, Tuned, TunedMethod
from harness.core.store import Run
from harness.scoring.metrics import DISTINCT_2
from leaderboard.boards import boards
from leaderboard.build import _surfaces, build_site
from leaderboard.views.doses import doses, of_method

CHOSEN = selection(("am", "he"), ("sentiment",), (1, 2, 3))
HOSTILE = '<b>"x"&'


def point(strength: float, f1: float, chosen: bool = False, **changes: Any) -> GridPoint:
    fields: dict[str, Any] = {
        "method": "language", "options": {"layer": 4, "strength": strength}, "macro_f1": f1, "gain": f1 - 0.5,
        "valid": 0.9, "eligible": True, "chosen": chosen, "cells": 2, "cells_expected": 2, "texts": 8,
        "tokens": None, "seconds": 1.0,
    }  # fmt: skip
    return GridPoint(**{**fields, **changes})


def in_language(f1: float, fidelity: float, chosen: bool = False) -> DoseScores:
    return DoseScores(
        macro_f1=f1, gain=0.1, valid=0.8, eligible=True, chosen=chosen, language_fidelity=fidelity,
        label_fidelity=0.75, distinct_2=0.5,
    )  # fmt: skip


def tuned_method(**options: Any) -> TunedMethod:
    return TunedMethod(version="1", options=options, configurations=2, texts=16, tokens=None, seconds=2.0)


def run_of(folder: Path, entries: list[Any], surface: list[GridPoint], **tuning: TunedMethod) -> Run:
    run = write_run(folder, entries, CHOSEN, suite=SUITE, model=ALPHA, tuning=tuning)
    if surface:
        tuned = Tuned(
            suite="toy", suite_hash="5u17e", model=ALPHA, data_hashes={}, selection=CHOSEN, rule="best",
            methods=tuning, surface=surface,
        )  # fmt: skip
        write_json(run.path / "tuned.json", tuned.to_json())
    return run


def shown(run: Run) -> dict[str, Any] | None:
    [board] = boards([run])
    return doses(board, _surfaces(board))


def unsteered() -> Any:
    return entry("zero-shot", 0.6, ALPHA, CHOSEN)


@pytest.fixture(scope="module")
def by_language(tmp_path_factory) -> Run:
    """A method whose strength was chosen in both languages by itself, and one that was not tuned."""
    strengths = {"am": 0.2, "he": 0.4}
    entries = [
        unsteered(),
        entry("language", 0.8, ALPHA, CHOSEN, layer=4, strength=strengths, unit="residual"),
        entry("quality", 0.7, ALPHA, CHOSEN, layer=0.21, strength=0.1, unit="raw"),
        entry("prompted", 0.7, ALPHA, CHOSEN, words="few"),
    ]
    surface = [
        point(0.2, 0.7, True, languages={"am": in_language(0.8, 0.95, True), "he": in_language(0.6, 0.9)}),
        point(0.4, 0.65, languages={"am": in_language(0.5, 0.7), "he": in_language(0.8, 0.65, True)}),
    ]
    folder = tmp_path_factory.mktemp("doses")
    return run_of(folder / "run", entries, surface, language=tuned_method(layer=4, strength=strengths))


def test_a_dose_by_language_has_a_row_for_each_and_an_untuned_one_is_a_default(by_language):
    found = shown(by_language)
    assert found is not None
    assert found["columns"] == ["layer", "strength", "unit"]
    assert [(r.method, r.language, *(r.values[c] for c in found["columns"]), r.source) for r in found["rows"]] == [
        ("language", "Amharic", "4", "0.2", "residual", "validation sweep"),
        ("language", "Hebrew", "4", "0.4", "residual", "validation sweep"),
        ("quality", "all", "0.21", "0.1", "raw", "default"),
    ]


def test_along_the_dose_stand_all_languages_then_each_with_its_own_choice(by_language):
    found = shown(by_language)
    assert found is not None
    [along] = found["along"]
    assert (along["source"], along["fields"]) == ("validation sweep", ["layer", "strength"])
    assert [(row["language"], row["options"][1], row["mark"]) for row in along["rows"]] == [
        ("all", "0.2", "chosen"),
        ("all", "0.4", ""),
        ("Amharic", "0.2", "chosen"),
        ("Amharic", "0.4", ""),
        ("Hebrew", "0.2", ""),
        ("Hebrew", "0.4", "chosen"),
    ]
    assert along["rows"][0]["values"] == ["0.700", "0.900", "–", "–", "–"]
    assert along["rows"][5]["values"] == ["0.800", "0.800", "0.650", "0.750", "0.500"]
    assert [title for title, _ in along["figures"]] == [
        f"language along the dose{w}" for w in ("", ", Amharic", ", Hebrew")
    ]


def test_the_chosen_dose_has_a_ring_at_its_strength_and_score(by_language):
    found = shown(by_language)
    assert found is not None
    chart = found["along"][0]["figures"][2][1]
    first = chart["panels"][0]
    assert first["title"] == "macro-F1 (tfidf)"
    [line] = first["lines"]
    assert line["name"] == "layer 4"
    rings = [(x, y) for x, y, ringed in line["dots"] if ringed]
    assert rings == [(chart["x"].at(0.4), chart["y"].at(0.8))]
    assert len(line["dots"]) == 2


def test_a_method_has_its_own_doses_only(by_language):
    found = shown(by_language)
    own = of_method(found, "quality")
    assert own is not None
    assert ([row.method for row in own["rows"]], own["along"]) == (["quality"], [])
    assert of_method(found, "prompted") is None


def test_a_file_of_an_older_version_has_a_table_of_what_it_knows(tmp_path):
    old = [point(0.1, 0.6), point(0.2, 0.7, True)]
    run = run_of(tmp_path / "run", [unsteered(), entry("language", 0.8, ALPHA, CHOSEN, layer=4, strength=0.2)], old)
    body = Tuned.model_validate_json((run.path / "tuned.json").read_text()).to_json()
    for item in body["surface"]:
        for field in ("language_fidelity", "label_fidelity", "distinct_2", "languages"):
            del item[field]
    write_json(run.path / "tuned.json", body)
    found = shown(run)
    assert found is not None
    assert found["along"][0]["measures"] == ["macro-F1 (tfidf)", "valid share"]
    assert found["rows"][0].source == "default"  # its run did not use the choice


def test_without_a_sweep_entries_that_differ_in_strength_alone_make_a_curve(tmp_path):
    entries = [unsteered()]
    for strength, right in ((0.4, 0.7), (0.1, 0.8)):
        made = entry("language", right, ALPHA, CHOSEN, layer=4, strength=strength)
        made.scores[DISTINCT_2] = flat(strength, CHOSEN)
        entries.append(made)
    entries.append(entry("language", 0.9, ALPHA, CHOSEN, layer=9, strength=0.1))  # alone at its layer
    found = shown(run_of(tmp_path / "run", entries, []))
    assert found is not None
    [along] = found["along"]
    assert (along["source"], along["of"]) == ("entries of this board", "alpha, zero-shot")
    assert [row["options"] for row in along["rows"]] == [["4", "0.1"], ["4", "0.4"]]
    assert [row["values"][-1] for row in along["rows"]] == ["0.100", "0.400"]
    assert {row["mark"] for row in along["rows"]} == {""}


def test_a_board_without_doses_has_neither_page_nor_link(tmp_path):
    run = run_of(tmp_path / "run", [unsteered(), toy("constant")], [])
    assert shown(run) is None
    finish(run)
    build_site([run.path], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("doses.html"))
    assert "doses.html" not in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_names_and_values_from_outside_are_text(tmp_path):
    languages = {HOSTILE: in_language(0.5, 2.0)}
    surface = [
        point(s, 0.6, s == 0.2, method=HOSTILE, options={HOSTILE: HOSTILE, "strength": s}, languages=languages)
        for s in (0.1, 0.2, 1e300)
    ]
    steered = entry(HOSTILE, 0.8, ALPHA, CHOSEN, layer=HOSTILE, strength={"am": HOSTILE, HOSTILE: 1}, unit=HOSTILE)
    run = run_of(tmp_path / "run", [unsteered(), steered], surface, **{HOSTILE: tuned_method(layer=HOSTILE)})
    finish(run)
    build_site([run.path], tmp_path / "out")
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*.html")]
    assert sum("along the dose" in page for page in pages) >= 2
    assert not any("<b>" in page for page in pages)
