"""Coordinates of charts, by numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest

from harness.ranking.stats.estimates import Estimate
from leaderboard.charts import WIDTH, Scale, interval_axis, interval_bar, scale, without_outliers
from leaderboard.views.plots import HEIGHT, ScatterItem, pareto, scatter
from leaderboard.views.plots import WIDTH as WIDE


def estimate(mean: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(mean, low=low, high=high)


# Scales


def test_a_value_lies_in_proportion_and_beyond_the_ends_at_the_end():
    on = Scale(0.0, 10.0, 5.0, 100.0, 200.0)
    assert [on.at(value) for value in (0, 2.5, 10, -3, 99)] == [100.0, 125.0, 200.0, 100.0, 200.0]
    assert [on.beyond(value) for value in (-0.1, 0, 5, 10, 10.1)] == [-1, 0, 0, 0, 1]


def test_an_axis_that_points_up_counts_from_below():
    on = Scale(0.0, 1.0, 0.5, 300.0, 20.0)
    assert [on.at(value) for value in (0, 0.5, 1)] == [300.0, 160.0, 20.0]
    assert on.ticks == [(300.0, "0.0"), (160.0, "0.5"), (20.0, "1.0")]


@pytest.mark.parametrize(
    ("values", "ticks", "words"),
    [
        ([0.0, 1.0], 4, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([-0.09, 0.27], 4, ["−0.10", "−0.05", "0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30"]),
        ([0.0, 0.23], 2, ["0.0", "0.1", "0.2", "0.3"]),
        ([3.0, 97.0], 4, ["0", "20", "40", "60", "80", "100"]),
        ([1200.0, 1900.0], 4, ["1200", "1300", "1400", "1500", "1600", "1700", "1800", "1900"]),
    ],
)
def test_ticks_are_round_and_the_axis_holds_all_values(values, ticks, words):
    on = scale(values, 0.0, 100.0, ticks)
    assert [text for _, text in on.ticks] == words
    assert on.start <= min(values)
    assert max(values) <= on.stop
    assert [x for x, _ in on.ticks] == sorted(x for x, _ in on.ticks)
    assert (on.ticks[0][0], on.ticks[-1][0]) == (0.0, 100.0)


def test_values_on_a_tick_need_no_further_one():
    assert [text for _, text in scale([0.1, 0.3], 0.0, 1.0, 2).ticks] == ["0.1", "0.2", "0.3"]


def test_zero_has_no_sign_however_it_was_reached():
    assert "−0.0" not in [text for _, text in scale([-0.3, 0.3], 0.0, 1.0).ticks]


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_without_values_the_axis_goes_from_0_to_1(values):
    assert scale(values, 8.0, 160.0) == Scale(0.0, 1.0, 0.5, 8.0, 160.0)


@pytest.mark.parametrize("value", [0.0, 5.0, -0.3, 1e6, 1e-9])
def test_one_value_still_makes_an_axis_with_two_ends(value):
    on = scale([value], 0.0, 100.0)
    assert on.start < on.stop
    assert on.start <= value <= on.stop + 1e-9
    assert len(on.ticks) >= 2


# Strips


def test_strips_lie_on_one_axis_that_holds_zero_and_all_intervals():
    found = [estimate(0.1, 0.05, 0.15), estimate(0.3, 0.2, 0.4), None]
    on = interval_axis(found)
    assert (on.start, on.stop, on.step) == pytest.approx((0.0, 0.4, 0.1))
    assert (on.left, on.right) == (8, WIDTH - 8)
    first, second = interval_bar(found[0], on), interval_bar(found[1], on)
    assert (first.x, first.low, first.high) == (46.0, 27.0, 65.0)  # 8 + 152 x 0.25, x 0.125, x 0.375
    assert (second.x, second.low, second.high) == (122.0, 84.0, 160.0)
    assert interval_bar(None, on) is None


def test_without_interval_a_strip_is_a_point():
    found = interval_bar(estimate(0.2), interval_axis([estimate(0.2), estimate(0.4)]))
    assert found.low == found.x == found.high == 84.0


def test_what_lies_off_the_axis_is_clipped_and_said():
    on = interval_axis([estimate(0.1, 0.0, 0.2)])
    far = interval_bar(estimate(0.9, 0.1, 1.7), on)
    assert (far.x, far.high, far.beyond) == (160.0, 160.0, 1)
    assert 8.0 < far.low < 160.0
    below = interval_bar(estimate(-0.9, -1.0, 0.0), on)
    assert (below.x, below.low, below.beyond) == (8.0, 8.0, -1)
    assert interval_bar(estimate(0.1, -5.0, 0.2), on).beyond == 0, "the estimate itself lies on the axis"


# The front


def item(name: str, x: float, y: float, kind: str = "steering", **more: float) -> ScatterItem:
    return ScatterItem(name, x, y, kind, name, f"{name}.html", **more)


def names(found: list[ScatterItem]) -> str:
    return "".join(it.name for it in found)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ({"a": (1, 1)}, "a"),
        ({"a": (1, 3), "b": (2, 2), "c": (3, 1)}, "abc"),
        ({"a": (1, 3), "b": (2, 2), "c": (3, 1), "d": (1, 1), "e": (2, 1)}, "abc"),
        ({"a": (1, 1), "b": (2, 2)}, "b"),
        ({"a": (1, 2), "b": (2, 2)}, "b"),  # equal in one, beaten in the other
        ({"a": (2, 1), "b": (2, 2)}, "b"),
        ({"a": (2, 2), "b": (2, 2), "c": (1, 1)}, "ab"),  # of equals, none beats the other
        ({"a": (2, 2), "b": (3, 1), "c": (2, 2), "d": (3, 1)}, "acbd"),
        ({}, ""),
    ],
)
def test_the_front_are_those_that_none_beats_in_both(points, front):
    found = pareto([item(name, *at) for name, at in points.items()])
    assert names(found) == front


def test_on_the_front_less_can_be_better():
    cheap = [item("a", 1, 0.1), item("b", 2, 0.3), item("c", 3, 0.2), item("d", 2, 0.2)]
    assert names(pareto(cheap, "down", "up")) == "ab"
    assert names(pareto(cheap, "down", "down")) == "a"
    assert names(pareto(cheap, "up", "down")) == "ac"


@pytest.mark.parametrize("seed", range(20))
def test_the_front_agrees_with_its_definition(seed):
    import random

    rng = random.Random(seed)
    items = [item(f"{i:02}", rng.randint(0, 5), rng.randint(0, 5)) for i in range(25)]
    for x_way, y_way in (("up", "up"), ("down", "up"), ("up", "down"), ("down", "down")):
        right, up = (1 if way == "up" else -1 for way in (x_way, y_way))

        def beaten(it: ScatterItem, right: int = right, up: int = up) -> bool:
            return any(
                right * o.x >= right * it.x and up * o.y >= up * it.y and (o.x, o.y) != (it.x, it.y) for o in items
            )

        wanted = {it.name for it in items if not beaten(it)}
        assert {it.name for it in pareto(items, x_way, y_way)} == wanted


# Scatter plots


def test_a_scatter_needs_two_points_that_models_wrote():
    assert scatter([item("a", 1, 1), item("human", 2, 2, "reference")], "x", "y") is None
    assert scatter([item("a", 1, 1), item("b", math.nan, 2)], "x", "y") is None
    assert scatter([item("a", 1, 1), item("b", 2, 2)], "x", "y") is not None


def test_points_lie_where_the_axes_say():
    found = scatter([item("a", 0, 0.0), item("b", 10, 1.0, low=0.5, high=0.75)], "x", "y")
    assert (found["x"].start, found["x"].stop, found["y"].start, found["y"].stop) == (0, 10, 0, 1)
    at = {point["item"].name: point for point in found["points"]}
    assert (at["a"]["x"], at["a"]["y"]) == (62.0, HEIGHT - 48.0)
    assert (at["b"]["x"], at["b"]["y"]) == (WIDE - 18.0, 18.0)
    assert (at["b"]["low"], at["b"]["high"]) == (175.0, 96.5)  # 332 - 0.5 x 314, 332 - 0.75 x 314
    assert at["b"]["front"]
    assert not at["a"]["front"]
    assert found["front"] == f"{at['b']['x']},{at['b']['y']}"


def test_a_reference_beyond_stands_at_the_border_and_stretches_nothing():
    found = scatter([item("a", 1, 0.2), item("b", 2, 0.4), item("human", 50, 0.9, "reference")], "x", "y")
    human = next(point for point in found["points"] if point["item"].name == "human")
    assert human["beyond"]
    assert (human["x"], human["y"]) == (WIDE - 18.0, 18.0)
    assert not human["front"]
    assert found["x"].stop == 2


def test_a_flagged_point_is_drawn_but_on_no_front():
    found = scatter([item("a", 1, 1), item("b", 2, 2), item("cheat", 3, 3, "flagged")], "x", "y")
    assert [point["item"].name for point in found["points"] if point["front"]] == ["b"]
    assert len(found["points"]) == 3


@pytest.mark.parametrize("name", ["method-{}", "ዘዴ ቋንቋ {}", "שיטה {}"])
def test_no_label_lies_on_another_on_a_point_or_outside(name):
    items = [item(name.format(i), i % 4, (i * 7) % 5) for i in range(14)]
    found = scatter([*items, item("x" * 200, 2, 2)], "x", "y")
    boxes = [(point["x"] - 5, point["y"] - 5, point["x"] + 5, point["y"] + 5) for point in found["points"]]
    dots = len(boxes)
    for point in found["points"]:
        if point["label"]:
            label, wide = point["label"], sum(6.6 if sign < "ɐ" else 12.5 for sign in point["label"].text)
            assert len(label.text) <= 34
            start = label.x - {"start": 0.0, "middle": wide / 2, "end": wide}[label.anchor]
            boxes.append((start, label.y - 11, start + wide, label.y + 3))
    assert len(boxes) >= dots + 10
    for i, one in enumerate(boxes[dots:], dots):
        assert one[0] >= 0
        assert one[2] <= WIDE + 0.1
        assert one[1] >= 0
        assert one[3] <= HEIGHT - 48 + 0.1
        for other in boxes[:i]:
            apart = one[0] >= other[2] - 0.2 or other[0] >= one[2] - 0.2 or one[1] >= other[3] or other[1] >= one[3]
            assert apart


def test_a_label_that_stands_away_is_joined_to_its_point():
    crowd = [item(f"a long name {i}", 1 + i / 500, 1 + i / 500) for i in range(8)]
    found = scatter([*crowd, *(item(f"{i}", i, i) for i in range(4))], "x", "y")
    joined = [point for point in found["points"] if point["label"] and point["label"].line]
    assert joined
    for point in joined:
        assert point["label"].line.startswith(f"M{point['x']:.1f} {point['y']:.1f}L")


def test_one_row_that_went_wrong_squashes_neither_strips_nor_points():
    field = [estimate(0.01 * i, 0.01 * i - 0.02, 0.01 * i + 0.02) for i in range(6)]
    wrong = estimate(-0.6, -0.7, -0.5)
    on = interval_axis([*field, wrong])
    assert (on.start, on.stop) == pytest.approx((-0.02, 0.07))
    drawn = interval_bar(wrong, on)
    assert (drawn.beyond, drawn.open_low, drawn.open_high) == (-1, True, False)
    items = [item(f"m{i}", i, it.mean, low=it.low, high=it.high) for i, it in enumerate(field)]
    found = scatter([*items, item("wrong", 300, -0.6, low=-0.7, high=-0.5)], "x", "y")
    assert (found["x"].stop, found["y"].start) == pytest.approx((5, -0.02))
    [lost] = [point for point in found["points"] if point["item"].name == "wrong"]
    assert lost["beyond"] == "↘"
    assert lost["label"].text == "wrong ↘"


def test_an_interval_that_goes_on_beyond_the_axis_says_so():
    on = interval_axis([estimate(0.1, 0.0, 0.2)])
    drawn = interval_bar(estimate(0.1, -0.3, 0.15), on)
    assert (drawn.beyond, drawn.open_low, drawn.open_high) == (0, True, False)
    inside = interval_bar(estimate(0.1, 0.0, 0.2), on)
    assert not inside.open_low
    assert not inside.open_high


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 100], [1, 2, 3, 4, 5, 6, 7]),  # quartiles 2.75 and 6.25: fences -7.75, 16.75
        ([1, 2, 3, 4, 5, 6, 7, 16.7], [1, 2, 3, 4, 5, 6, 7, 16.7]),
        (
            [10, 20, 21, 22, 23, 30],
            [10, 20, 21, 22, 23, 30],
        ),  # quartiles 20.25 and 22.75: fences 12.75, 30.25
        ([11, 20, 21, 22, 23, 30], [11, 20, 21, 22, 23, 30]),  # 19 is not twice 10
        ([-5, 20, 21, 22, 23, 30], [20, 21, 22, 23, 30]),  # 35 is more than twice 10
        ([1, 2, 3, 4, 100], [1, 2, 3, 4, 100]),  # few
        ([1, 1, 1, 1, 1, 1, 1, 9], [1, 1, 1, 1, 1, 1, 1, 9]),  # the middle half is one value
        ([], []),
    ],
)
def test_outliers_lie_beyond_the_outer_fences(values, kept):
    assert without_outliers([float(value) for value in values]) == kept


def test_of_many_points_the_front_is_named_first():
    items = [item(f"m{i}", i, -i) for i in range(10)] + [item(f"low{i}", 0, -20 - i) for i in range(20)]
    found = scatter(items, "x", "y")
    named = {point["item"].name for point in found["points"] if point["label"]}
    assert {f"m{i}" for i in range(10)} <= named
    assert len(named) <= 14
