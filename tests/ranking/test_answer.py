"""Whether any steering is better than zero-shot: the verdict, corrected by hand, and how it is said."""

from __future__ import annotations

import pytest

from harness.ranking.answer import answer, in_words
from harness.ranking.stats.estimates import Estimate


def gain(mean: float, p: float | None) -> Estimate:
    return Estimate(mean) if p is None else Estimate(mean, 0.01, 5.0, mean - 0.05, mean + 0.05, p, 0.06)


def test_the_best_is_the_largest_gain_of_those_that_are_better():
    found = answer({"a": gain(0.1, 0.01), "b": gain(0.2, 0.03), "c": gain(-0.1, 0.5)}, "up")
    assert (found.verdict, found.best, found.compared, found.better) == ("yes", "a", 3, 1)
    assert found.p == pytest.approx(0.03)  # Holm: 3 x 0.01; that of b is 2 x 0.03
    assert found.gain.mean == 0.1


def test_a_gain_that_is_significant_alone_is_none_among_many():
    found = answer({"a": gain(0.1, 0.04), "b": gain(0.2, 0.03)}, "up")
    assert (found.verdict, found.best, found.better) == ("unknown", "b", 0)
    assert found.p == pytest.approx(0.06)
    assert answer({"b": gain(0.2, 0.03)}, "up").verdict == "yes"


def test_no_means_that_all_are_worse():
    worse = {"a": gain(-0.1, 0.01), "b": gain(-0.2, 0.02)}
    found = answer(worse, "up")
    assert (found.verdict, found.best, found.p) == ("no", "a", pytest.approx(0.02))
    assert answer({**worse, "c": gain(-0.01, 0.8)}, "up").verdict == "unknown"


def test_where_less_is_better_a_fall_is_a_gain():
    found = answer({"a": gain(-0.1, 0.01), "b": gain(0.2, 0.01)}, "down")
    assert (found.verdict, found.best, found.better) == ("yes", "a", 1)
    assert answer({"a": gain(0.1, 0.01)}, "down").verdict == "no"


def test_nothing_to_compare_and_no_direction_say_nothing():
    for found in (answer({}, "up"), answer({"a": gain(0.1, 0.001)}, "none")):
        assert (found.verdict, found.gain, found.compared) == ("unknown", None, 0)
        assert in_words(found, {}, "F1") == (
            *("Cannot be said", "no steering with all its cells is there to compare."),
        )


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            {"a": gain(0.1, 0.0001), "b": gain(-0.2, 0.03)},
            "Yes: ጥሩ gains +0.100 [+0.050, +0.150] in F1 (p < 0.001, corrected for 2 compared entries). "
            "1 of 2 compared are better.",
        ),
        ({"a": gain(0.1, 0.01)}, "Yes: ጥሩ gains +0.100 [+0.050, +0.150] in F1 (p = 0.010)."),
        (
            {"a": gain(-0.1, 0.01), "b": gain(-0.2, 0.001)},
            "No: all 2 are worse, the least ጥሩ: −0.100 [−0.150, −0.050] in F1 (p = 0.010, corrected for 2 "
            "compared entries).",
        ),
        ({"a": gain(-0.1, 0.01)}, "No: ጥሩ is worse: −0.100 [−0.150, −0.050] in F1 (p = 0.010)."),
        (
            {"a": gain(0.04, 0.2), "b": gain(0.01, 0.9)},
            "Cannot be said: The largest gain is that of ጥሩ: +0.040 [−0.010, +0.090] in F1 (p = 0.400, "
            "corrected for 2 compared entries).",
        ),
        (
            {"a": gain(0.04, None), "b": gain(0.01, None)},
            "Cannot be said: there is no interval. The largest gain is that of ጥሩ: +0.040 in F1.",
        ),
    ],
)  # fmt: skip
def test_the_answer_in_words(gains, said):
    assert ": ".join(in_words(answer(gains, "up"), {"a": "ጥሩ", "b": "טוב"}, "F1")) == said
