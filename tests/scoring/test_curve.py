"""The data-size curve: nested texts, human text beside them, the area and how many human texts they are worth."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
from support.helpers import scoring_context

from harness.data.suite import CurveSettings
from harness.ranking.stats.resampling import load_predictions
from harness.scoring.curve import CurveScorer, area_weights, first_texts, human_equivalent, monotone_weights
from harness.scoring.linear_classifiers import TfidfClassifier
from harness.scoring.metrics import CURVE_F1, curve_point, metric
from harness.scoring.scorer import TextSample

LABELS = ["ጤና", "ספורט"]  # health in Amharic, sports in Hebrew
HEALTH = ["ሐኪሙ መድኃኒት ሰጠ", "በሽታው በሆስፒታል ታከመ", "ክትባት ለልጆች", "የጤና ማዕከል"]
SPORTS = ["הקבוצה ניצחה במשחק", "השחקן הבקיע שער", "אליפות הכדורגל", "המאמן והשחקנים"]
TEST = [("ሐኪሙ በሆስፒታል", "ጤና"), ("ክትባት እና መድኃኒት", "ጤና"), ("הקבוצה הבקיעה שער", "ספורט"), ("המאמן ניצח", "ספורט")]


def sample(health, sports, human=None):
    texts, labels = [*health, *sports], ["ጤና"] * len(health) + ["ספורט"] * len(sports)
    return TextSample(texts, labels, np.ones(len(texts), dtype=bool), human=human)


def scores(found, **settings):
    scorer = CurveScorer(TfidfClassifier(), CurveSettings(**{"sizes": [1, 2, 4], "human": 1, **settings}))
    output = scorer.score(found, scoring_context(LABELS, TEST))
    return {score.metric.replace("/tfidf", ""): score for score in output.scores}, output.artifacts


HUMAN = sample(HEALTH, SPORTS)


# Arithmetic


def test_the_human_equivalent_n_is_interpolated_in_the_logarithm():
    n, side = human_equivalent(0.5, [10, 100], np.array([0.4, 0.6]))
    assert (n, side) == (pytest.approx(sqrt(1000)), "")  # half way from .4 to .6, and from log 10 to log 100


def test_at_a_point_of_the_human_curve_it_is_that_number():
    curve = np.array([0.4, 0.5, 0.6, 0.65])
    assert [human_equivalent(v, [10, 20, 50, 100], curve)[0] for v in curve] == [10, 20, 50, 100]


def test_beyond_the_human_curve_it_is_the_end_and_says_so():
    curve = np.array([0.4, 0.6])
    assert human_equivalent(0.39, [10, 100], curve) == (10, "below")
    assert human_equivalent(0.61, [10, 100], curve) == (100, "above")


def test_where_the_human_curve_dips_it_is_averaged_and_the_smallest_n_counts():
    curve = np.array([0.4, 0.6, 0.5, 0.7])  # 20 and 50 become .55 each
    assert monotone_weights(curve) @ curve == pytest.approx([0.4, 0.55, 0.55, 0.7])
    assert human_equivalent(0.55, [10, 20, 50, 100], curve)[0] == pytest.approx(20)
    assert human_equivalent(0.475, [10, 20, 50, 100], curve)[0] == pytest.approx(sqrt(200))  # half way to 20
    values = np.linspace(0.4, 0.7, 50)
    assert np.all(np.diff([human_equivalent(v, [10, 20, 50, 100], curve)[0] for v in values]) >= 0)


def test_a_curve_that_only_falls_is_flat():
    curve = np.array([0.6, 0.5, 0.4])
    assert monotone_weights(curve) @ curve == pytest.approx([0.5] * 3)
    assert human_equivalent(0.5, [10, 20, 50], curve)[0] == 10
    assert human_equivalent(0.51, [10, 20, 50], curve) == (50, "above")


def test_the_area_of_a_constant_curve_is_its_value():
    assert area_weights([10, 20, 50, 100]) @ np.full(4, 0.3) == pytest.approx(0.3)


def test_the_area_is_the_trapezoid_rule_over_log_n():
    by_hand = (0.5 * log(2) + 0.7 * log(5)) / log(10)  # from .4 to .6 over 10 to 20, to .8 over 20 to 100
    assert area_weights([10, 20, 100]) @ [0.4, 0.6, 0.8] == pytest.approx(by_hand)


# Texts


def test_texts_of_a_smaller_number_are_the_first_of_the_larger():
    found = [first_texts(HUMAN, n, LABELS) for n in (1, 2, 4)]
    assert found[0] == [(HEALTH[0], "ጤና"), (SPORTS[0], "ספורט")]
    assert set(found[0]) < set(found[1]) < set(found[2])
    assert first_texts(sample(HEALTH, SPORTS[:3]), 4, LABELS) is None
    assert first_texts(None, 1, LABELS) is None


def test_of_texts_that_repeat_themselves_one_is_trained_on():
    assert first_texts(sample(["ሰላም"] * 2, ["", "שלום"]), 2, LABELS) == [("ሰላም", "ጤና"), ("שלום", "ספורט")]


# The scorer


def test_human_text_scored_as_a_cell_is_the_human_curve():
    found, kept = scores(replace(HUMAN, human=HUMAN))
    values = [found[f"curve_f1,n={n}"] for n in (1, 2, 4)]
    assert all(score.value == score.human for score in values)
    assert [score.detail["texts"] for score in values] == [2, 4, 8]
    assert kept["predictions"]["curve_f1/tfidf,n=4"] == kept["human"]["curve_f1/tfidf,n=4"]
    assert values[-1].value == 1  # the words of the test texts are in the four texts of their label
    assert (
        found["curve_area"].value
        == found["curve_area"].human
        == pytest.approx(area_weights([1, 2, 4]) @ [score.value for score in values])
    )


def test_wrong_labels_are_worth_less_than_one_human_text():
    crossed = sample(SPORTS, HEALTH, HUMAN)  # Hebrew under the Amharic label, and the other way round
    found, _ = scores(crossed)
    assert [found[f"curve_f1,n={n}"].value for n in (1, 2, 4)] == [0, 0, 0]
    assert (found["human_equivalent"].value, found["human_equivalent"].note) == (1, "below the human curve: < 1")


def test_a_few_human_texts_are_added_for_the_mixed_curve():
    found, kept = scores(sample(["x"] * 4, ["y"] * 4, HUMAN))  # teaches nothing
    alone, mixed = found["curve_f1,n=4"], found["curve_mixed_f1,n=4"]
    assert (alone.detail["texts"], mixed.detail["texts"]) == (2, 4)
    assert mixed.value > alone.value
    assert mixed.human is None
    assert set(kept["predictions"]) == {
        f"{base}/tfidf,n={n}" for base in ("curve_f1", "curve_mixed_f1") for n in (1, 2, 4)
    }


def test_without_human_texts_to_add_there_is_no_mixed_curve():
    found, _ = scores(sample(HEALTH, SPORTS, HUMAN), human=0)
    assert not [name for name in found if "mixed" in name]


def test_a_cell_with_fewer_texts_has_fewer_points_and_the_human_curve_stays():
    found, kept = scores(sample(HEALTH[:1], SPORTS[:1], HUMAN))
    assert found["curve_f1,n=4"].value is None
    assert found["curve_f1,n=4"].note == "fewer than 4 texts per label"
    assert found["curve_f1,n=4"].human == 1
    assert found["curve_area"].value is None
    assert found["curve_area"].note == "fewer than two points of the curve"
    assert found["human_equivalent"].detail == {"n": 1}
    assert "curve_f1/tfidf,n=4" not in kept["predictions"]
    assert "curve_f1/tfidf,n=4" in kept["human"]


def test_where_the_train_split_is_smaller_the_human_value_is_missing_and_says_why():
    found, kept = scores(sample(HEALTH, SPORTS, sample(HEALTH, SPORTS[:2])))
    assert found["curve_f1,n=2"].human is not None
    assert (found["curve_f1,n=4"].human, found["curve_f1,n=4"].note) == (
        None,
        "the train split has fewer than 4 texts of a label",
    )
    assert found["curve_f1,n=4"].value == 1
    assert found["curve_area"].human is None
    assert found["human_equivalent"].value <= 2
    assert list(kept["human"]) == ["curve_f1/tfidf,n=1", "curve_f1/tfidf,n=2"]


def test_without_any_human_text_only_the_curve_itself_is_known():
    found, kept = scores(sample(HEALTH, SPORTS))
    assert found["curve_f1,n=4"].value == 1
    assert found["curve_mixed_f1,n=4"].note == "the train split has fewer than 1 texts of a label"
    assert found["human_equivalent"].note == "fewer than two points of the human curve"
    assert kept["human"] == {}


def test_blank_texts_have_no_curve():
    found, kept = scores(sample([""] * 4, [" "] * 4, HUMAN))
    assert {found[f"curve_f1,n={n}"].note for n in (1, 2, 4)} == {"no text to train on"}
    assert found["human_equivalent"].note == "no text to train on"
    assert kept["predictions"].keys() == {f"curve_mixed_f1/tfidf,n={n}" for n in (1, 2, 4)}


def test_kept_predictions_are_found_by_the_name_of_the_point():
    _, kept = scores(sample(["x"] * 4, ["y"] * 4, HUMAN))
    point = curve_point(CURVE_F1, "tfidf", 4)
    assert point == metric("curve_f1/tfidf,n=4")
    of_cell = load_predictions(point, {"curve/tfidf": kept})
    of_human = load_predictions(point, {"curve/tfidf": kept}, "human")
    assert of_cell.same_test(of_human)
    assert of_human.predictions.tolist() == [[0, 0, 1, 1]]
    assert of_cell.predictions.tolist() != of_human.predictions.tolist()
    assert load_predictions(curve_point(CURVE_F1, "hf:x,epochs=1", 4), {"curve/tfidf": kept}) is None


def test_the_recipe_names_the_sizes_and_human_texts():
    one, other = (CurveScorer(TfidfClassifier(), CurveSettings(sizes=[1, 2], human=h)).signature for h in (0, 10))
    assert one.startswith(TfidfClassifier.signature)
    assert one != other
