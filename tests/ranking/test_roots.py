"""Roots of many functions at once are those of one at a time, and scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize.elementwise import find_root
from scipy.special import stdtr

from harness.ranking.stats.roots import find_roots
from harness.ranking.stats.variance import _two_component_p


def square(x, target):
    return x * x - target


def test_square_roots():
    targets = np.array([0.25, 4.0, 0.0, 9.0, 2.0])
    found = find_roots(square, np.zeros(5), np.full(5, 3.0), [targets])
    assert found.tolist()[2:4] == [0.0, 3.0], "roots at the ends of the bracket"
    assert found == pytest.approx([0.5, 2.0, 0.0, 3.0, 2**0.5], rel=1e-12)


def test_a_root_depends_on_its_own_numbers_alone():
    targets = np.random.default_rng(0).uniform(0, 9, 1000)
    whole = find_roots(square, np.zeros(1000), np.full(1000, 3.0), [targets])
    single = [find_roots(square, np.zeros(1), np.full(1, 3.0), [targets[i : i + 1]])[0] for i in range(0, 1000, 37)]
    assert whole[::37].tolist() == single


@pytest.mark.parametrize("examples_df", [3.0, 50.0, 900.0])
def test_p_of_two_variances_is_that_of_scipy(examples_df):
    draw = np.random.default_rng(1)
    t, share, df = draw.uniform(0.5, 60, 2000), draw.uniform(1e-4, 1 - 1e-4, 2000), draw.uniform(1, 200, 2000)

    def apart(w, t, share, df):
        sides = stdtr(df, -t * np.sqrt(w / share)), stdtr(examples_df, -t * np.sqrt((1 - w) / (1 - share)))
        return np.subtract(*(np.log(np.maximum(2 * side, 1e-290)) for side in sides))

    bracket = np.where(df < examples_df, share, 0.0), np.where(df < examples_df, 1.0, share)
    tight = {"xatol": 0.0, "xrtol": 1e-15, "fatol": 1e-12, "frtol": 0.0}
    root = find_root(apart, bracket, args=(t, share, df), tolerances=tight).x
    expected = np.maximum(2 * stdtr(df, -t * np.sqrt(root / share)), 1e-290)
    assert _two_component_p(t, share, df, examples_df) == pytest.approx(expected, rel=1e-9)
