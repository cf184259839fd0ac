"""Human text judges labels, and no text is judged by a model that was trained on it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from support.helpers import MINI

from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.scoring.linear_classifiers import FOLDS, MOST, LabelVerifier

FOOD = [(f"good food number {i}", "good") for i in range(20)] + [(f"bad food number {i}", "bad") for i in range(20)]


def noise(count: int, seed: int = 0) -> list[str]:
    """Return texts of random letters, which say nothing of their label."""
    draw = random.Random(seed)
    return ["".join(draw.choice("abcdefghij klmn") for _ in range(80)) for _ in range(count)]


def hits(judge: LabelVerifier, rows: list[tuple[str, str]]) -> float:
    found = judge.labels([text for text, _ in rows])
    return float(np.mean([a == b for a, (_, b) in zip(found, rows, strict=True)]))


def test_the_label_is_what_human_text_of_it_looks_like():
    judge = LabelVerifier(FOOD, ["bad", "good"])
    assert judge.labels(["what good food", "bad, bad food", "GOOD FOOD"]) == ["good", "bad", "good"]


@pytest.mark.parametrize(
    ("good", "bad", "asked"),
    [
        ("ምግቡ በጣም ጥሩ ነበር", "ምግቡ መጥፎ እና ቀዝቃዛ ነበር", {"ጥሩ ምግብ": "good", "መጥፎ ምግብ": "bad"}),
        ("האוכל היה טעים מאוד", "האוכל היה גרוע וקר", {"טעים מאוד": "good", "גרוע וקר": "bad"}),
    ],
)
def test_amharic_and_hebrew_have_labels_too(good, bad, asked):
    rows = [(f"{text} {i}", label) for text, label in ((good, "good"), (bad, "bad")) for i in range(10)]
    assert LabelVerifier(rows, ["bad", "good"]).labels(list(asked)) == list(asked.values())


def test_a_train_text_is_judged_by_the_model_that_has_not_seen_it():
    texts = noise(300)
    rows = [(text, random.Random(text).choice(["a", "b"])) for text in texts]  # labels by chance
    judge = LabelVerifier(rows, ["a", "b"])
    assert 0.35 < hits(judge, rows) < 0.65
    # With one more letter it is no train text any more; four of five models know the rest of it by heart.
    assert hits(judge, [(text + "j", label) for text, label in rows]) > 0.95


def test_a_copied_text_is_known_again_in_another_case_and_with_other_blanks():
    rows = [(text, random.Random(text).choice(["a", "b"])) for text in noise(300)]
    judge = LabelVerifier(rows, ["a", "b"])
    copies = [(f"  {text.upper()}\n", label) for text, label in rows]
    assert hits(judge, copies) == hits(judge, rows)


def test_a_text_that_occurs_twice_stands_in_one_fold():
    rows = [(text, random.Random(text).choice(["a", "b"])) for text in noise(300)]
    assert 0.35 < hits(LabelVerifier(rows * 2, ["a", "b"]), rows) < 0.65


def test_a_rare_label_is_found_although_it_is_rare():
    draw = random.Random(3)

    def text(own: str, other: str) -> str:
        return " ".join(draw.choice([own, own, other, "x", "yy", "zzz"]) for _ in range(12))

    def rows(common: int, rare: int) -> list[tuple[str, str]]:
        return [(text("lip", "tok"), "a") for _ in range(common)] + [(text("tok", "lip"), "b") for _ in range(rare)]

    judge, new = LabelVerifier(rows(270, 30), ["a", "b"]), rows(200, 200)
    common, rare = (hits(judge, [row for row in new if row[1] == label]) for label in "ab")
    assert min(common, rare) > 0.6  # the rare one 0.15 to 0.27 where its rarity is not made up for


def test_a_blank_text_has_no_label():
    assert LabelVerifier(FOOD, ["bad", "good"]).labels(["", " \n"]) == ["", ""]
    assert LabelVerifier(FOOD, ["bad", "good"]).labels([]) == []


def test_a_text_without_anything_known_still_gets_a_label():
    assert set(LabelVerifier(FOOD, ["bad", "good"]).labels(["ጥሩ", "!"])) <= {"bad", "good"}


def test_a_label_with_too_little_train_text_is_named():
    judge = LabelVerifier([*FOOD, ("so so", "neutral")], ["bad", "good", "neutral"])
    assert judge.missing == f"fewer than {FOLDS} train texts of neutral"
    assert LabelVerifier([], ["bad", "good"]).missing == f"fewer than {FOLDS} train texts of bad, good"
    assert LabelVerifier(FOOD, ["bad", "good"]).missing == ""


def test_of_much_train_text_every_label_gives_the_same_number():
    rows = [(text, "a" if i % 10 else "b") for i, text in enumerate(noise(6000))]
    judge = LabelVerifier(rows, ["a", "b"])
    used = [label for text, label in rows if " ".join(text.split()) in judge._seen]
    assert (used.count("a"), used.count("b")) == (MOST // 2, MOST // 2)


def test_equal_train_text_gives_equal_judges():
    new = noise(50, seed=1)
    assert LabelVerifier(FOOD, ["bad", "good"]).labels(new) == LabelVerifier(FOOD, ["bad", "good"]).labels(new)


@pytest.mark.parametrize("code", ["am", "he", "id"])
def test_unseen_human_text_of_the_mini_suite_has_its_label(code):
    task = load_suite("mini").task("topic", code)
    train, test = ([(r.text, r.label) for r in LocalData(MINI / "data").rows(task, s)] for s in ("train", "test"))
    judge = LabelVerifier(train, task.labels)
    assert hits(judge, test) >= 0.97
    assert hits(judge, train) >= 0.97
