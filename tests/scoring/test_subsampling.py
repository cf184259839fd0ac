"""Subsamples at a fixed budget, and the intervals from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.scoring.subsampling import draw_subsamples, interval, mean_interval

# Subsamples and intervals


def test_subsamples_of_one_order_share_no_text():
    dealt = draw_subsamples([1] * 10, 3, 5, "test")
    assert dealt.n_permutations == 2
    assert len(dealt.subsamples) == 6
    for deck in (dealt.subsamples[:3], dealt.subsamples[3:]):
        assert len({i for hand in deck for i, _ in hand}) == 9
    assert dealt.texts == 3


def test_a_subsample_holds_exactly_the_budget():
    dealt = draw_subsamples([2, 3, 0, 4], 4, 3, "test")
    assert all(sum(size for _, size in hand) == 4 for hand in dealt.subsamples)


def test_a_part_of_a_text_is_one_draw_still():
    assert draw_subsamples([8, 8, 8], 4, 3, "test").texts == 1


def test_a_budget_that_the_texts_do_not_fill_is_an_error():
    with pytest.raises(ValueError, match="budget of 4"):
        draw_subsamples([1, 2], 4, 3, "test")


def test_the_interval_of_disjoint_subsamples_is_students():
    values = [1.0, 2.0, 4.0, 5.0]
    assert interval(values, 5, 20, n_permutations=1) == pytest.approx(mean_interval(values))


def test_the_interval_of_one_subsample_an_order_is_the_delete_d_jackknife_with_the_error_of_so_few():
    values = [1.0, 2.0, 4.0, 5.0]
    error = math.sqrt(np.var(values, ddof=1) * (5 / 15 + 1 / 4))
    low, high = interval(values, 5, 20)
    assert (low + high) / 2 == pytest.approx(3)
    assert (high - low) / 2 == pytest.approx(3.18245 * error, rel=1e-5)


def test_there_is_no_interval_where_nothing_is_left_out_or_nothing_differs():
    assert interval([1.0, 2.0], 10, 10) is None
    assert interval([0.1, 0.1, 0.1], 2, 10) is None
    assert mean_interval([3.0]) is None
    assert mean_interval([0.1, 0.1, 0.1]) is None


def test_an_interval_stays_within_the_range_of_its_metric():
    assert mean_interval([0.9, 1.0, 1.0], within=(0.0, 1.0))[1] == 1.0
