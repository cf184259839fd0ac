"""Do intervals hold the truth as often as they say, and do identical methods share a tier?

Made-up benchmarks with known truth, see ``simulated``;
``python tests/support/simulated.py`` prints the whole table.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.panels import CompleteValues, differences, estimate, sums
from support.simulated import Group, World, clustered, coverage, experiment, world

from harness.ranking.stats.estimates import estimates
from harness.ranking.stats.multiplicity import benjamini_hochberg, of_pairs
from harness.ranking.stats.ranks import tiers
from harness.ranking.stats.resampling import draw_weights, inflate_variance

pytestmark = pytest.mark.slow
nightly = pytest.mark.nightly

DIFFERENT = (1.3, 1.0, 0.8, 0.5)
"""Skills of entries that do differ."""


@pytest.mark.parametrize(
    ("layout", "kind", "changes", "repeats"),
    [
        ("1 stratum, 7 labels, 30 examples", "examples", {}, 350),
        ("1 stratum, 2 labels, 30 examples", "interaction", {"seeds": 5}, 300),
        ("1 stratum, 2 labels, 150 examples", "seeds", {}, 300),
        ("2 strata, 30 examples", "mixed", {"skill": DIFFERENT}, 300),
        ("2 strata, 30 examples", "interaction", {}, 300),
        pytest.param("1 stratum, 7 labels, 200 examples", "mixed", {}, 300, marks=nightly),
        pytest.param("2 strata, 30 examples", "mixed", {"trainings": 5}, 300, marks=nightly),
        pytest.param("2 strata, 200 and 150 examples", "mixed", {}, 300, marks=nightly),
        pytest.param("2 strata, 200 and 150 examples", "examples", {"seeds": 5}, 350, marks=nightly),
        pytest.param("22 strata, 30 examples", "mixed", {"skill": DIFFERENT, "trainings": 5}, 300, marks=nightly),
        pytest.param("22 strata, 30 examples", "examples", {}, 300, marks=nightly),
        pytest.param("22 strata, 200 and 150 examples", "mixed", {}, 300, marks=nightly),
        pytest.param("22 strata, 200 and 150 examples", "interaction", {}, 300, marks=nightly),
    ],
)
def test_intervals_of_95_percent_hold_the_truth_93_to_97_times(layout, kind, changes, repeats):
    found = coverage(world(layout, kind, **changes), repeats)
    assert found.error < 0.7  # of the percentage: as many repeats as that takes
    assert 93 <= found.ours <= 97, found


def test_a_nested_percentile_bootstrap_would_not():
    few_seeds = coverage(world("1 stratum, 7 labels, 200 examples", "seeds"), 300, naive=True)
    assert few_seeds.naive < 80  # three seeds, drawn with replacement, have two thirds of their variance
    counted_twice = coverage(world("2 strata, 30 examples", "interaction"), 300, naive=True)
    assert counted_twice.naive > 98


# Seeds that move all languages together


@pytest.mark.parametrize(("seeds", "common"), [(3, 0.0), (3, 0.5), (3, 1.0), (5, 1.0)])
def test_intervals_hold_the_truth_whether_or_not_languages_share_their_seeds(seeds, common):
    # conservative where seeds and examples interact
    made = world("22 strata, 30 examples", skill=(1.0,) * 8, seeds=seeds, common=common)
    found = coverage(made, 40, by_seed=True)
    assert 93 <= found.ours <= 98.5, found


def test_intervals_by_stratum_would_not():
    made = world("22 strata, 30 examples", "seeds", skill=(1.0,) * 8, common=0.5)
    assert coverage(made, 30).ours < 75


# Tiers


def share_of_false_tiers(made: World, repeats: int, by_seed: bool = False) -> float:
    """Return in how many percent of tables of identical methods there is more than one tier."""
    draw, false = np.random.default_rng(1), 0
    for _ in range(repeats):
        panel = experiment(made, draw).panel
        panel = clustered(panel, made, draw) if by_seed else panel
        found = tiers(panel.values.mean(axis=(1, 2)), of_pairs(differences(panel).p))
        false += max(found) > 1
    return 100 * false / repeats


LANGUAGES = (Group(3, 40, 11, True), Group(2, 30, 11))


@pytest.mark.parametrize(
    ("groups", "entries", "repeats"),
    [
        pytest.param(LANGUAGES, 8, 300, marks=nightly),
        pytest.param(LANGUAGES, 22, 300, marks=nightly),
        ((Group(3, 40), Group(2, 30)), 22, 300),
        ((Group(2, 100),), 22, 300),
    ],
    ids=["8 entries", "22 entries", "22 entries in one language", "22 entries in one task of one language"],
)
def test_identical_methods_fall_into_tiers_in_at_most_5_percent_of_tables(groups, entries, repeats):
    # of 300 tables: were it 8 percent, 19 of 20 tries would tell
    same = World(groups, skill=(1.0,) * entries, draws=60)
    assert share_of_false_tiers(same, repeats) <= 5


def test_identical_methods_that_share_seeds_fall_into_tiers_in_at_most_5_percent_of_tables():
    shared = World(LANGUAGES, skill=(1.0,) * 12, draws=60, common=1.0)
    assert share_of_false_tiers(shared, 40) > 40
    assert share_of_false_tiers(shared, 60, by_seed=True) <= 5


@pytest.mark.parametrize("strata", [1, 2, 22])
def test_shares_of_few_texts_make_no_false_tiers(strata):
    # of 12 texts each, so that seeds often agree to the last digit
    draw, false = np.random.default_rng(2), 0
    for _ in range(500):
        values = draw.binomial(12, 0.9, size=(22, strata, 3)) / 12
        found = tiers(values.mean(axis=(1, 2)), of_pairs(differences(CompleteValues(values)).p))
        false += max(found) > 1
    assert false <= 25


# The grid of languages, and power


def linear(draw: np.random.Generator, name: str, strata: int, gains: np.ndarray) -> CompleteValues:
    """Return a baseline and methods with known gains; a metric that is a mean over 60 examples."""
    entries, n = 1 + len(gains), 60
    true = np.concatenate([[0.5], 0.5 + gains])[:, None, None]
    seeds = 0.03 * draw.standard_normal((entries, strata, 3))
    examples = 0.3 * draw.standard_normal((entries, 1, 3, n)) + 0.3 * draw.standard_normal((entries, 1, 1, n))
    drawn = examples @ draw_weights(name, n, 200).T.astype(np.float64) / n
    values = true + seeds + examples.mean(axis=3)
    draws = np.broadcast_to(drawn, (*values.shape, 200)).astype(np.float32)
    return CompleteValues(values, inflate_variance(draws, n), n)


@pytest.mark.parametrize("repeats", [30, pytest.param(100, marks=nightly)])
def test_false_discoveries_over_the_grid_of_languages_stay_below_5_percent(repeats):
    draw, shares, power = np.random.default_rng(3), [], []
    gains = np.array([0.0] * 5 + [0.25] * 3)
    for repeat in range(repeats):
        p = []
        for language in range(11):
            panel = linear(draw, f"{repeat} {language}", 2, gains)
            gaps = panel.moments(sums([{method: 1, 0: -1} for method in range(1, 9)]))
            p.append([found.p for found in estimates(gaps)])
        found = benjamini_hochberg(np.array(p)) <= 0.05
        shares.append(found[:, :5].sum() / max(found.sum(), 1))
        power.append(found[:, 5:].mean())
    assert np.mean(shares) <= 0.05
    assert np.mean(power) > 0.3  # the test is not empty


@pytest.mark.parametrize("strata", [2, pytest.param(22, marks=nightly)])
def test_a_difference_as_large_as_the_minimum_detectable_effect_is_found_four_times_in_five(strata):
    # of 800: the rate is known to 1.4 points, and an effect that is off by a tenth has one beyond the bounds
    draw = np.random.default_rng(4)
    found = [estimate(linear(draw, str(i), strata, np.array([0.0])), {1: 1, 0: -1}) for i in range(800)]
    effect = np.mean([one.mde for one in found])
    detected = [abs(one.mean + effect) > one.high - one.mean for one in found]
    assert 75 <= 100 * np.mean(detected) <= 85


@pytest.mark.parametrize("repeats", [60, pytest.param(300, marks=nightly)])
def test_the_spread_of_estimates_is_the_standard_error(repeats):
    made = replace(world("22 strata, 30 examples"), seeds=5)
    assert 0.85 < coverage(made, repeats).ratio < 1.15
