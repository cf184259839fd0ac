"""The difference of two runs with common and with different seeds, and the losses that it detects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.panels import CompleteValues, estimate

from harness.ranking.gate.difference import (
    SideValues,
    critical,
    difference,
    independent,
    min_detectable_loss,
    paired,
    power,
)
from harness.ranking.gate.verdicts import pair_seeds


def test_with_common_seeds_the_difference_is_that_of_compare():
    draw = np.random.default_rng(1)
    base, new = (SideValues(draw.random((4, 3))) for _ in range(2))
    found, other = paired(base, new), estimate(CompleteValues(np.stack([base.values, new.values])), {1: 1.0, 0: -1.0})
    assert (found.mean[0], found.se[0], found.df[0], found.p[0]) == (other.mean, other.se, other.df, other.p)


def test_with_other_seeds_the_difference_is_welchs():
    base, new = np.array([[0.1, 0.2, 0.3]]), np.array([[0.5, 0.7, 0.9, 0.7]])
    found = independent(SideValues(base), SideValues(new)).moments
    assert found.mean[0] == pytest.approx(0.5)
    assert found.se[0] == pytest.approx((0.01 / 3 + (0.08 / 3) / 4) ** 0.5)
    oracle = stats.ttest_ind(new[0], base[0], equal_var=False)
    assert found.mean[0] / found.se[0] == pytest.approx(oracle.statistic)
    assert found.seeds_df[0] == pytest.approx(oracle.df)


def test_with_other_seeds_the_strata_are_averaged():
    base, new = np.array([[0.1, 0.3], [0.5, 0.5]]), np.array([[0.2, 0.2], [0.6, 1.0]])
    found = independent(SideValues(base), SideValues(new)).moments
    assert found.mean[0] == pytest.approx((0.0 + 0.3) / 2)
    assert found.se[0] == pytest.approx(((0.02 / 2 + 0.08 / 2) / 4) ** 0.5)


def test_the_same_examples_stay_paired_under_other_seeds():
    draw = np.random.default_rng(2)
    shared = draw.normal(size=200).astype(np.float32) / 10  # what the test set does to everybody
    side = SideValues(np.full((2, 3), 0.5), np.broadcast_to(shared, (2, 3, 200)) + np.float32(0.5), 100)
    alike = independent(side, SideValues(side.values + 0.1, side.draws + np.float32(0.1), 100)).moments
    assert alike.examples[0] == pytest.approx(0.0, abs=1e-9)
    other = SideValues(side.values, (0.5 - np.broadcast_to(shared, (2, 3, 200))).astype(np.float32), 100)
    assert independent(side, other).moments.examples[0] == pytest.approx(4 * shared.var(ddof=1), rel=1e-3)


@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
def test_a_difference_of_the_critical_size_has_that_p(level):
    draw = np.random.default_rng(3)
    values, noise = (draw.random((3, 4)), draw.normal(size=(2, 1, 1, 500)) / 10 + draw.normal(size=(2, 3, 4, 500)) / 30)
    base, new = (SideValues(values, (0.5 + part).astype(np.float32), 50) for part in noise)
    found = independent(base, SideValues(new.values + draw.random((3, 4)) / 9, new.draws, 50)).moments
    assert found.examples[0] > 0
    at = replace(found, mean=critical(found, level) * found.se)
    assert at.p[0] == pytest.approx(level, rel=1e-6)


def test_what_could_have_been_found_needs_significance_and_the_bound():
    found = independent(SideValues(np.array([[0.1, 0.2, 0.3]])), SideValues(np.array([[0.1, 0.2, 0.3]]))).moments
    rest = stats.t.ppf(0.8, found.df[0]) * found.se[0]
    assert min_detectable_loss(found, 0.05, 0.0) == pytest.approx(critical(found, 0.05) * found.se[0] + rest)
    assert min_detectable_loss(found, 0.05, 9.0) == pytest.approx(9 + rest)


def test_nothing_is_found_where_the_cells_are_too_few_for_any_p():
    flat_side = SideValues(np.full((1, 3), 0.5))
    assert min_detectable_loss(independent(flat_side, flat_side).moments, 0.05, 0.0) == float("inf")
    many = SideValues(np.full((4, 3), 0.5))
    assert min_detectable_loss(independent(many, many).moments, 0.05, 0.01) == 0.01


# Common seeds


def test_of_the_seeds_all_of_the_larger_side_count_and_the_common_ones_pair():
    nine = list(range(1, 10))
    assert pair_seeds(nine, [3, 1, 2], 3) == (nine, [1, 2, 3], [1, 2, 3])
    assert pair_seeds([1, 2, 3], nine, 3) == ([1, 2, 3], nine, [1, 2, 3])
    assert pair_seeds([1, 2, 3], [3, 2, 1], 3) == ([1, 2, 3], [1, 2, 3], [1, 2, 3])
    assert pair_seeds([1, 2, 3], [2, 3, 4], 3) == ([1, 2, 3], [2, 3, 4], [])
    assert pair_seeds([1, 2, 3, 4], [2, 3, 4, 5, 6], 3) == ([2, 3, 4], [2, 3, 4, 5, 6], [2, 3, 4])


def pairs(count: int) -> list[tuple[int, int]]:
    return [(i, i) for i in range(count)]


def test_a_shift_of_all_common_seeds_is_found_exactly_whatever_the_other_seeds_are():
    base = np.random.default_rng(1).normal(0.6, 0.1, (4, 9))
    found = difference(SideValues(base), SideValues(base[:, :3] - 0.03), pairs(3)).moments
    assert found.mean[0] == pytest.approx(-0.03)
    assert found.se[0] == pytest.approx(0.0, abs=1e-9)


def test_common_seeds_that_have_nothing_in_common_count_as_other_seeds():
    base = np.array([[0.1, 0.3, 0.2, 0.6]])
    new = np.array([[0.3, 0.1, 0.2]])  # falls where the baseline rises: the slope is 0
    found, welch = (
        difference(SideValues(base), SideValues(new), pairs(3)).moments,
        independent(SideValues(base), SideValues(new)).moments,
    )
    assert found.mean[0] == welch.mean[0] == pytest.approx(-0.1)
    variances = [np.var(base, ddof=1) / 4, np.var(new, ddof=1) / 3]
    slope_costs = (1 + (1 - 3 / 4) / 2) * 2 / 1  # of a slope from two degrees of freedom
    assert found.seeds[0] == pytest.approx(variances[0] + variances[1] * slope_costs)


def test_further_seeds_move_the_baseline_by_what_does_not_pair():
    base = np.array([[0.0, 0.2, 0.4, 0.6], [0.0, 0.2, 0.4, 0.6]])
    new = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]])  # the slope on the common seeds is 1/2
    found = difference(SideValues(base), SideValues(new), pairs(3)).moments
    assert found.mean[0] == pytest.approx(0.25 - (0.5 * 0.2 + 0.5 * 0.3))
    back = difference(SideValues(new), SideValues(base), pairs(3)).moments
    assert (back.mean[0], back.se[0], back.df[0]) == (-found.mean[0], found.se[0], found.df[0])


def test_pairing_finds_smaller_losses_the_more_the_seeds_have_in_common():
    draw = np.random.default_rng(3)
    base, noise = draw.normal(0, 0.1, (22, 9)), draw.normal(0, 0.1, (22, 3))
    sizes = []
    for share in (0.0, 0.4, 0.75):
        new = share * base[:, :3] + (1 - share**2) ** 0.5 * noise
        sizes.append(min_detectable_loss(difference(SideValues(base), SideValues(new), pairs(3)).moments, 0.01, 0.0))
    assert sizes[0] > sizes[1] > sizes[2]


# What more seeds would change


def test_more_seeds_of_both_sides_shrink_the_variance_in_proportion():
    draw = np.random.default_rng(4)
    found = difference(SideValues(draw.normal(size=(5, 3))), SideValues(draw.normal(size=(5, 3))), [])
    assert found.at(6).se[0] == pytest.approx(found.at(3).se[0] / 2**0.5)
    uneven = difference(SideValues(draw.normal(size=(5, 9))), SideValues(draw.normal(size=(5, 3))), [])
    now, more = uneven.at(3), uneven.at(6)
    assert more.seeds[0] / now.seeds[0] == pytest.approx((1 / 9 + 1 / 6) / (1 / 9 + 1 / 3))


def test_a_loss_of_the_visible_size_is_found_in_80_of_100_runs():
    draw = np.random.default_rng(5)
    found = independent(*(SideValues(draw.normal(size=(5, 3))) for _ in range(2))).moments
    for bound in (0.0, 2.0):
        assert power(found, 0.02, bound, min_detectable_loss(found, 0.02, bound)) == pytest.approx(0.8)
