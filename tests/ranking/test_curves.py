"""Curves of entries beside that of human text: means over cells, areas, and how many human texts are as good."""

from __future__ import annotations

import pytest
from support.helpers import toy_manifest
from support.toyruns import ToyEntry, collect_results, flat, selection, toy, write_run

from harness.ranking.curves import CurveSet, curves_of
from harness.scoring.metrics import CURVE_F1, CURVE_MIXED_F1, curve_point

CHOSEN = selection(["am", "he"])
HUMAN = {10: 0.4, 100: 0.6}
CURVE = {"sizes": [10, 100], "human": 10, "classifiers": ["tfidf"]}


def entry(name: str, first: float, last: float) -> ToyEntry:
    found = toy(name)
    for n, value in ((10, first), (100, last)):
        found.scores[curve_point(CURVE_F1, "tfidf", n)] = flat(value, CHOSEN)
        found.scores[curve_point(CURVE_MIXED_F1, "tfidf", n)] = flat(value + 0.1, CHOSEN)
        found.human[curve_point(CURVE_F1, "tfidf", n)] = HUMAN[n]
    return found


def curves(tmp_path, *entries: ToyEntry, curve: dict | None = CURVE, **scope: str) -> CurveSet | None:
    suite = dict(toy_manifest().suite)
    suite["metrics"] = {**suite.get("metrics", {}), **({"curve": curve} if curve else {})}
    run = write_run(tmp_path / "run", entries, CHOSEN, suite=suite)
    return curves_of(collect_results(run), "tfidf", **scope)


def test_points_are_means_and_the_human_equivalent_n_lies_between_in_log_n(tmp_path):
    """0.5 is half-way between 0.4 at 10 and 0.6 at 100: at the root of 1,000 texts."""
    found = curves(tmp_path, entry("language", 0.3, 0.5))
    [curve] = found.entries.values()
    assert [(point.n, round(point.value.mean, 9)) for point in curve.points] == [(10, 0.3), (100, 0.5)]
    assert [round(point.mixed.mean, 9) for point in curve.points] == [0.4, 0.6]
    assert curve.area.mean == pytest.approx(0.4)
    assert [round(point.value.mean, 9) for point in found.human.points] == [0.4, 0.6]
    assert found.human.human_equivalent is None
    assert (curve.human_equivalent.mean, curve.censored) == (pytest.approx(1000**0.5), "")
    assert 10 < curve.human_equivalent.low < 1000**0.5 < curve.human_equivalent.high < 100


@pytest.mark.parametrize(
    ("last", "n", "side"), [(0.7, 100, "above"), (0.2, 10, "below"), (0.6, 100, ""), (0.4, 10, "")]
)
def test_beyond_the_human_curve_n_ends_with_it(tmp_path, last, n, side):
    [curve] = curves(tmp_path, entry("language", 0.1, last)).entries.values()
    assert (curve.human_equivalent.mean, curve.censored) == (pytest.approx(n), side)


def test_a_curve_of_one_language_is_that_of_its_cells(tmp_path):
    one = entry("language", 0.3, 0.5)
    values = one.scores[curve_point(CURVE_F1, "tfidf", 100)]
    values.update({place: value + 0.06 for place, value in values.items() if place[1] == "he"})
    [curve] = curves(tmp_path / "a", one, language="he").entries.values()
    assert curve.points[-1].value.mean == pytest.approx(0.56)
    [whole] = curves(tmp_path / "b", one).entries.values()
    assert whole.points[-1].value.mean == pytest.approx(0.53)


def test_a_suite_without_a_curve_has_none(tmp_path):
    assert curves(tmp_path, entry("language", 0.3, 0.5), curve=None) is None
