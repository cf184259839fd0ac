"""Downstream scores against numbers worked out by hand, and the floor where texts are worthless."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score
from support.helpers import scoring_context

from harness.scoring.classification import brier_score, calibration_error, macro_f1_of
from harness.scoring.classifiers import ClassifierScorer, TfidfClassifier, training_rows
from harness.scoring.metrics import metric
from harness.scoring.scorer import TextSample

ABC = scoring_context(["a", "b", "c"], [("1", "a"), ("2", "b"), ("3", "c")])


def sample(rows, invalid=()):
    """Return texts with labels, all valid but those at ``invalid``."""
    valid = np.array([i not in invalid for i in range(len(rows))], dtype=bool)
    return TextSample([text for text, _ in rows], [label for _, label in rows], valid)


TWO = sample([("x", "a"), ("y", "b")])


class Fixed:
    """A classifier that is sure of the predictions it was made with, one list per seed."""

    name, signature = "fixed", "fixed|version:1"

    def __init__(self, *predictions):
        self.predictions = predictions
        self.seeds = list(range(len(predictions)))
        self.trained_on = []

    def probabilities(self, train, scoring_context, seeds):
        self.trained_on.append(list(train))
        return np.eye(len(scoring_context.labels))[[self.predictions[seed] for seed in seeds]]


def score(texts, human, classifier):
    """Return the scores by name, and what is kept."""
    found = ClassifierScorer(classifier).score(texts, human)
    return {score.metric.removesuffix(f"/{classifier.name}"): score for score in found.scores}, found.artifacts


# Macro-F1


def macro_f1(human, *predictions):
    return score(TWO, human, Fixed(*predictions))[0]["macro_f1"]


def test_a_perfect_classifier_scores_1():
    assert macro_f1(ABC, [0, 1, 2]).value == 1.0


def test_a_label_that_is_never_predicted_counts_as_0():
    assert macro_f1(ABC, [0, 0, 0]).value == pytest.approx(
        (2 / 4 + 0 + 0) / 3  # F1 of a: 2 hits / (3 predicted + 1 true)
    )


def test_a_label_that_the_test_split_lacks_counts_as_0():
    human = scoring_context(["a", "b", "c"], [("1", "a"), ("2", "b")])
    assert macro_f1(human, [0, 1]).value == pytest.approx((1 + 1 + 0) / 3)


def test_macro_f1_is_that_of_scikit_learn():
    draw = np.random.default_rng(1)
    for labels in (2, 3, 7):
        for size in (1, 4, 60):
            gold, found = draw.integers(0, labels, (2, size))
            known = f1_score(gold, found, labels=range(labels), average="macro", zero_division=0)
            assert macro_f1_of(gold, found, labels) == pytest.approx(known, abs=1e-12)
            assert macro_f1_of(gold.tolist(), found.tolist(), labels) == pytest.approx(known, abs=1e-12)


def test_the_score_is_the_mean_over_the_seeds_of_the_classifier():
    found = macro_f1(ABC, [0, 1, 2], [0, 0, 0])
    assert found.by_seed == {"0": 1.0, "1": pytest.approx(1 / 6)}
    assert found.value == pytest.approx((1 + 1 / 6) / 2)


# Calibration


def sure(*pairs):
    """Return probabilities of two labels, the first with each confidence, and whether it is the gold one."""
    confidences = np.array([confidence for confidence, _ in pairs])
    return np.stack([confidences, 1 - confidences], axis=1), [0 if right else 1 for _, right in pairs]


def test_confidence_that_is_as_often_right_has_no_calibration_error():
    assert calibration_error(*sure(*[(0.75, True)] * 3, (0.75, False))) == pytest.approx(0)


def test_certainty_that_is_always_wrong_has_a_calibration_error_of_1():
    assert calibration_error(*sure(*[(1.0, False)] * 30)) == pytest.approx(1)


def test_calibration_error_is_the_mean_gap_of_ten_bins_of_equal_size():
    low = [(0.6, True), (0.62, False)]  # confidence 0.61 and half of them right: a gap of 0.11
    high = [(0.91 + i / 1000, True) for i in range(18)]  # nine bins of two, all right: gaps from 1
    by_hand = (0.11 + sum(1 - (0.9105 + i / 500) for i in range(9))) / 10
    assert calibration_error(*sure(*high, *low)) == pytest.approx(by_hand)


def test_bins_are_cut_by_number_and_not_by_confidence():
    close = [(0.9 + i / 1000, i < 10) for i in range(20)]  # ten right, then ten wrong
    gaps = [0.1 - 0.0005 - i / 500 for i in range(5)] + [0.9105 + i / 500 for i in range(5)]
    assert calibration_error(*sure(*close)) == pytest.approx(sum(gaps) / 10)


def test_fewer_examples_than_bins_have_a_bin_each():
    assert calibration_error(*sure((0.6, True), (0.9, False))) == pytest.approx((0.4 + 0.9) / 2)


def test_the_order_of_equally_sure_examples_does_not_matter():
    probabilities, gold = sure(*[(0.5, True)] * 10, *[(0.5, False)] * 10)
    assert calibration_error(probabilities, gold) == pytest.approx(0)
    shuffled = np.random.default_rng(0).permutation(20)
    assert calibration_error(probabilities[shuffled], np.array(gold)[shuffled]) == pytest.approx(0)


def test_brier_score_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    of_first = 0.3**2 + 0.2**2 + 0.1**2
    assert brier_score(probabilities, [0, 2, 0]) == pytest.approx((of_first + 0 + 2) / 3)


def test_brier_score_of_two_labels_is_twice_that_of_scikit_learn():
    draw = np.random.default_rng(2)
    second, gold = draw.random(50), draw.integers(0, 2, 50)
    found = brier_score(np.stack([1 - second, second], axis=1), gold)
    assert found == pytest.approx(2 * brier_score_loss(gold, second))


# What a part returns


def test_a_part_measures_macro_f1_accuracy_and_calibration():
    scores, _ = score(TWO, ABC, Fixed([0, 0, 2]))
    assert {name: round(found.value, 4) for name, found in scores.items()} == {
        "macro_f1": round((2 / 3 + 0 + 1) / 3, 4),
        "accuracy": round(2 / 3, 4),
        "calibration_error": round(1 / 3, 4),
        "brier": round(2 / 3, 4),
        "macro_f1.valid": round((2 / 3 + 0 + 1) / 3, 4),
        "accuracy.valid": round(2 / 3, 4),
    }


def test_a_score_says_what_it_is():
    found = macro_f1(ABC, [0, 1, 2])
    known = metric("macro_f1/fixed")
    assert (found.metric, found.direction, found.unit) == ("macro_f1/fixed", "up", known.unit)
    assert found.signature == "fixed|version:1"


def test_a_part_is_named_by_its_classifier():
    part = ClassifierScorer(Fixed([0]))
    assert (part.name, part.signature, part.human) == ("classifier/fixed", "fixed|version:1", False)


def test_twenty_seeds_are_kept_for_every_example():
    predictions = [[seed % 3, 1, 2] for seed in range(20)]
    scores, kept = score(TWO, ABC, Fixed(*predictions))
    found = kept["predictions"]["macro_f1/fixed"]
    assert [found[str(seed)] for seed in range(20)] == predictions
    assert {name: len(one.by_seed) for name, one in scores.items()} == dict.fromkeys(scores, 20)


def test_what_is_kept_is_plain_json_that_tells_how_to_read_it():
    kept = json.loads(json.dumps(score(TWO, ABC, Fixed([0, 0, 2]))[1]))
    assert kept == {
        "examples": "e",
        "labels": ["a", "b", "c"],
        "gold": [0, 1, 2],
        "predictions": {"macro_f1/fixed": {"0": [0, 0, 2]}},
    }


def test_of_equally_probable_labels_the_first_is_predicted():
    class Unsure(Fixed):
        def probabilities(self, train, scoring_context, seeds):
            return np.full((1, 3, 3), 1 / 3)

    assert score(TWO, ABC, Unsure([]))[1]["predictions"] == {"macro_f1/fixed": {"0": [0, 0, 0]}}


# What is trained on


def test_a_classifier_trains_on_each_text_of_a_label_once_and_on_no_empty_text():
    texts = sample([("ሰላም", "a"), ("ሰላም", "a"), (" ", "a"), ("שלום", "a"), ("ሰላም", "b"), ("", "b"), ("\u2003", "b")])
    assert training_rows(texts) == [("ሰላም", "a"), ("שלום", "a"), ("ሰላም", "b")]


def test_where_all_texts_are_valid_nothing_is_trained_twice():
    classifier = Fixed([0, 1, 2])
    scores, _ = score(TWO, ABC, classifier)
    assert len(classifier.trained_on) == 1
    assert scores["macro_f1.valid"].value == scores["macro_f1"].value
    assert scores["macro_f1.valid"].metric == "macro_f1.valid/fixed"


def test_where_only_empty_and_repeated_texts_are_invalid_nothing_is_trained_twice():
    classifier = Fixed([0, 1, 2])
    score(sample([("x", "a"), ("", "a"), ("y", "b"), ("y", "b")], invalid=[1, 3]), ABC, classifier)
    assert len(classifier.trained_on) == 1


def test_valid_text_is_trained_on_alone_and_counted():
    texts = sample([("x", "a"), ("y", "a"), ("u", "b"), ("v", "b"), ("w", "b"), ("z", "c")], invalid=[1, 3])
    classifier = Fixed([0, 1, 2])
    scores, kept = score(texts, ABC, classifier)
    assert classifier.trained_on[1] == [("x", "a"), ("u", "b"), ("w", "b"), ("z", "c")]
    assert scores["macro_f1"].detail == {"texts": 6, "per_label_min": 1}
    assert scores["macro_f1.valid"].detail == scores["accuracy.valid"].detail == {"texts": 4, "per_label_min": 1}
    assert set(kept["predictions"]) == {"macro_f1/fixed", "macro_f1.valid/fixed"}


def test_a_label_without_valid_text_is_never_predicted_and_the_others_are_scored():
    human = scoring_context(["bad", "good"], [("bad fish", "bad"), ("good fish", "good"), ("good", "good")])
    texts = sample([("a bad soup", "bad"), ("good bread", "good"), ("a good soup", "good")], invalid=[0])
    scores, kept = score(texts, human, TfidfClassifier())
    assert kept["predictions"]["macro_f1/tfidf"] == {"0": [0, 1, 1]}
    assert kept["predictions"]["macro_f1.valid/tfidf"] == {"0": [1, 1, 1]}
    assert scores["macro_f1.valid"].value == pytest.approx((0 + 4 / 5) / 2)
    assert scores["accuracy.valid"].value == pytest.approx(2 / 3)
    assert scores["accuracy.valid"].detail == {"texts": 2, "per_label_min": 0}


def test_without_valid_text_only_the_scores_of_valid_text_are_missing_and_say_why():
    scores, kept = score(sample([("x", "a"), ("y", "b")], invalid=[0, 1]), ABC, Fixed([0, 1, 2]))
    assert scores["macro_f1"].value == 1.0
    for name in ("macro_f1.valid", "accuracy.valid"):
        assert (scores[name].value, scores[name].note) == (None, "no valid text to train on")
    assert set(kept["predictions"]) == {"macro_f1/fixed"}


def test_texts_that_are_all_empty_give_no_score_and_say_why():
    scores, kept = score(sample([("", "a"), (" ", "b")]), ABC, Fixed([0, 0, 0]))
    assert {one.value for one in scores.values()} == {None}
    assert scores["brier"].note == "no text to train on"
    assert kept["predictions"] == {}


def test_one_text_for_all_labels_scores_at_the_floor():
    human = scoring_context(["bad", "good"], [("the food was good", "good"), ("the food was bad", "bad")])
    scores, _ = score(sample([("we ate here", "bad"), ("we ate here", "good")] * 5), human, TfidfClassifier())
    assert scores["macro_f1"].value == pytest.approx(1 / 3)  # one label for everything: (2/3 + 0) / 2
    assert scores["calibration_error"].value == pytest.approx(0)  # sure of nothing, and half right
