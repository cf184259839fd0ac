"""Statistics by hand: differences and their intervals, corrections for many tests, tiers and ranks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from support.helpers import python
from support.panels import CompleteValues, differences, estimate, gap_closed, sums

from harness.ranking.stats.multiplicity import benjamini_hochberg, holm, of_pairs, range_p
from harness.ranking.stats.ranks import average_ranks, borda, mean_rank, rank_correlation, tiers, win_rate
from harness.ranking.stats.resampling import draw_weights, inflate_variance
from harness.ranking.stats.variance import Moments

T_975_2, T_80_2 = 4.302652729911275, 1.0606601717798212  # quantiles of Student's t, 2 degrees of freedom


def against_zero(*strata: list[float], draws: object = None, examples: int | None = None) -> CompleteValues:
    """Return a panel of two entries: the values of its strata, and 0 everywhere."""
    values = np.array([strata, np.zeros_like(np.array(strata))], dtype=np.float64)
    if draws is None:
        return CompleteValues(values)
    drawn = np.array([draws, np.zeros_like(np.array(draws))], dtype=np.float32)
    return CompleteValues(values, drawn, examples)


def made_up(
    entries: int = 5, strata: int = 4, seeds: int = 3, count: int = 50, seed: int = 0, examples: float = 0.1
) -> CompleteValues:
    """Return a panel of random numbers; ``examples``: the noise of test examples."""
    draw = np.random.default_rng(seed)
    values = draw.uniform(0.3, 0.7, size=(entries, strata, seeds))
    noise = examples * draw.standard_normal((entries, strata, 1, count))
    noise = noise + 0.03 * draw.standard_normal((entries, strata, seeds, count))
    return CompleteValues(values, (values[..., None] + noise).astype(np.float32), 40)


# Estimates


def test_one_stratum_without_test_examples_is_the_paired_t_test_of_the_textbook():
    found = estimate(against_zero([1.0, 2.0, 3.0]), {0: 1, 1: -1})
    error = 3**-0.5
    t = 2 / error
    assert found.mean == 2
    assert found.se == pytest.approx(error)
    assert found.df == pytest.approx(2)
    assert (found.low, found.high) == pytest.approx((2 - T_975_2 * error, 2 + T_975_2 * error))
    assert found.p == pytest.approx(1 - t / (t * t + 2) ** 0.5)  # closed form for 2 degrees of freedom
    assert found.mde == pytest.approx((T_975_2 + T_80_2) * error)


def test_variances_of_strata_add_up_and_degrees_of_freedom_follow():
    # variances of the means over seeds: 1/3 and 4/3, each weighted by (1/2)^2
    found = estimate(against_zero([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), {0: 1, 1: -1})
    assert found.mean == 3
    assert found.se == pytest.approx((5 / 12) ** 0.5)
    satterthwaite = (5 / 12) ** 2 / (((1 / 12) ** 2 + (4 / 12) ** 2) / 2)  # 50 / 17
    assert found.df == pytest.approx(satterthwaite * 3 / 2 - 1)


def test_the_interaction_of_seed_and_example_counts_once():
    a, b = 0.25, 0.125
    x, y = np.array([a, a, -a, -a]), np.array([b, -b, b, -b])
    panel = against_zero([0.0, 0.2], draws=[[x + y, x - y]], examples=20)
    # over resamples the mean has 4 a^2 / 3; of that 8 b^2 / 3 / 2 seeds is interaction, as in the seeds' part
    seeds, examples = 0.02 / 2, 4 * (a * a - b * b) / 3
    found = estimate(panel, {0: 1, 1: -1})
    assert found.se == pytest.approx((seeds + examples) ** 0.5, rel=1e-6)
    assert found.df == pytest.approx((seeds + examples) / (seeds / 1 + examples / 19), rel=1e-6)
    alone = against_zero([0.0, 0.2], draws=[[y, -y]], examples=20)
    assert estimate(alone, {0: 1, 1: -1}).se == pytest.approx(seeds**0.5, rel=1e-6)


def test_examples_shared_by_strata_do_not_average_out():
    x = np.array([0.25, -0.25, 0.25, -0.25])
    other = np.array([0.25, 0.25, -0.25, -0.25])
    flat = [0.0, 0.0, 0.0]
    shared = against_zero(flat, flat, draws=[[x] * 3, [x] * 3], examples=20)
    own = against_zero(flat, flat, draws=[[x] * 3, [other] * 3], examples=20)
    variance = [estimate(panel, {0: 1, 1: -1}).se ** 2 for panel in (shared, own)]
    assert variance == pytest.approx([4 / 48, 2 / 48])


def test_a_contrast_may_weigh_entries_at_will():
    panel = made_up()
    found = estimate(panel, {0: 1, 1: -0.5, 2: -0.5})
    assert found.mean == pytest.approx(panel.values.mean(axis=(1, 2)) @ [1, -0.5, -0.5, 0, 0])
    level = estimate(CompleteValues(np.array([[[1.0, 2.0, 3.0]]])), {0: 1})
    assert (level.mean, level.se) == pytest.approx((2, 3**-0.5))


def test_p_is_at_most_5_percent_exactly_where_the_interval_leaves_0_out():
    seen = set()
    for seed in range(300):
        found = estimate(made_up(2, 1 + seed % 3, seed=seed, examples=0.03), {0: 1, 1: -1})
        outside = not found.low <= 0 <= found.high
        assert (found.p <= 0.05) == outside
        seen.add(outside)
    assert seen == {True, False}


def test_a_small_p_solves_banerjees_equation():
    from scipy.special import stdtrit

    panel = against_zero([0.50, 0.51, 0.52], draws=[[[0.52, 0.48, 0.51, 0.49, 0.5, 0.5]] * 3], examples=30)
    found = estimate(panel, {0: 1, 1: -1})
    seeds = 0.0001 / 3
    examples = found.se**2 - seeds
    both = seeds * stdtrit(2, found.p / 2) ** 2 + examples * stdtrit(29, found.p / 2) ** 2
    assert found.p < 0.01
    assert both == pytest.approx(found.mean**2)


def of_sources(t, share, seeds_df, examples_df) -> Moments:
    """Return moments whose standard error is 1: ``share`` of the variance is from seeds."""
    t, share = np.broadcast_arrays(np.array(t, dtype=np.float64), share)
    freedom = np.full(t.shape, float(seeds_df))
    return Moments((9, 3), t, np.array(share), freedom, 1 - share, float(examples_df))


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.3, 0.7, 0.99, 1 - 1e-9])
@pytest.mark.parametrize(("seeds_df", "examples_df"), [(2, 999), (2, 29), (17.3, 203), (44, 29), (29, 29)])
def test_p_solves_banerjees_equation_whatever_the_sources(share, seeds_df, examples_df):
    from scipy.special import stdtrit

    t = np.array([3.5, 5.0, 8.0, 14.0, 30.0])
    p = of_sources(t, share, seeds_df, examples_df).p
    both = share * stdtrit(seeds_df, p / 2) ** 2 + (1 - share) * stdtrit(examples_df, p / 2) ** 2
    exact = np.abs(both / t**2 - 1) < 1e-9
    cautious = both < t**2  # the p of one Student's t is larger
    assert (exact | cautious | (p >= 0.05)).all()  # from 5 percent on it is that of one Student's t
    assert exact.any()
    assert (np.diff(p) < 0).all()


def test_p_is_banerjees_far_out_where_one_source_alone_could_not_be():
    """t^2 = w t_1^2 + (1 - w) t_2^2 at t_1 = 722.623, t_2 = 4.84192, both of p = 1.48928e-6."""
    [p] = of_sources([455.3733112122014], 0.39708366137710593, 2.042453287343052, 999).p
    assert p == pytest.approx(1.4892841375883868e-06, rel=1e-9)


def test_a_p_hangs_on_its_own_numbers_alone():
    draw = np.random.default_rng(8)
    t, share = draw.uniform(2, 40, 500), draw.uniform(0, 1, 500)
    whole = of_sources(t, share, 5, 151).p
    for i in range(0, 500, 7):
        assert of_sources(t[i : i + 1], share[i : i + 1], 5, 151).p[0] == whole[i]
    assert np.array_equal(of_sources(t[::-1], share[::-1], 5, 151).p, whole[::-1])


def test_with_one_seed_nothing_but_the_mean_is_known():
    panel = against_zero([1.0], [2.0])
    found = estimate(panel, {0: 1, 1: -1})
    assert found.mean == 1.5
    assert [found.se, found.df, found.low, found.high, found.p, found.mde] == [None] * 6
    all_pairs = differences(panel)
    assert all_pairs.mean.tolist() == [[0, 1.5], [-1.5, 0]]
    assert all_pairs.p.tolist()[0][0] == 1
    assert np.isnan([all_pairs.p[0, 1], all_pairs.se[0, 1], all_pairs.df[0, 1]]).all()


def test_where_nothing_varies_there_is_no_interval_and_p_is_that_of_the_sign_test():
    found = estimate(against_zero([0.25] * 3, [0.25] * 3), {0: 1, 1: -1})
    assert (found.mean, found.se, found.low, found.mde) == (0.25, 0, None, None)
    assert found.p == pytest.approx(2 * 0.5**6)


def test_what_only_rounding_makes_differ_does_not_differ():
    # 0.1 + 0.2 is not 0.3 in binary
    values = np.array([[[0.1 + 0.2] * 3, [0.3] * 3], [[0.3, 0.3, 0.1 + 0.2]] * 2, [[0.3] * 3] * 2])
    found = differences(CompleteValues(values))
    assert (found.p == 1).all()
    assert (found.se == 0).all()
    assert (found.mean == 0).all()


def test_numbers_that_are_no_numbers_and_wrong_shapes_are_refused():
    fine = made_up()
    for wrong in (np.nan, np.inf):
        values = fine.values.copy()
        values[1, 2, 0] = wrong
        with pytest.raises(ValueError, match="missing cells"):
            CompleteValues(values)
        draws = fine.draws.copy()
        draws[1, 2, 0, 5] = wrong
        with pytest.raises(ValueError, match="not finite"):
            CompleteValues(fine.values, draws, 40)
    with pytest.raises(ValueError, match="beyond 4"):
        CompleteValues(fine.values, fine.draws * 100, 40)
    with pytest.raises(ValueError, match="two test examples"):
        CompleteValues(fine.values, fine.draws)
    with pytest.raises(ValueError, match="shape"):
        CompleteValues(fine.values, fine.draws[:, :2], 40)
    with pytest.raises(ValueError, match="shape"):
        CompleteValues(fine.values[0])


# All pairs


def test_the_order_of_entries_and_the_field_change_no_bit_of_a_pair():
    panel = made_up(23, 6, seed=3)
    whole = differences(panel)
    for chosen in (np.random.default_rng(1).permutation(23), np.array([7, 2]), np.array([20, 3, 11, 5, 0])):
        part = differences(CompleteValues(panel.values[chosen], panel.draws[chosen], 40))
        for name in ("mean", "se", "df", "p"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[np.ix_(chosen, chosen)])


def test_an_estimate_has_the_bits_of_the_table_of_all_pairs():
    panel = made_up(6, 5, seed=4)
    whole = differences(panel)
    for i, j in permutations(range(6), 2):
        found = estimate(panel, {i: 1, j: -1})
        assert [found.mean, found.se, found.df, found.p] == [
            part[i, j] for part in (whole.mean, whole.se, whole.df, whole.p)
        ]


def test_pairs_are_antisymmetric_and_two_calls_agree():
    panel = made_up(8, seed=5)
    once, again = differences(panel), differences(panel)
    assert np.array_equal(once.mean, -once.mean.T)
    for name in ("mean", "se", "df", "p"):
        assert getattr(once, name).tobytes() == getattr(again, name).tobytes()
        assert name == "mean" or np.array_equal(getattr(once, name), getattr(once, name).T)


def test_identical_entries_get_identical_numbers_and_the_same_tier():
    panel = made_up(9, seed=6)
    rows = [0, 1, 2, 0, 3, 4, 1, 5, 0, 6, 7, 8]
    twice = CompleteValues(panel.values[rows], panel.draws[rows], 40)
    found = differences(twice)
    for i, j in ((0, 3), (0, 8), (1, 6)):
        assert found.mean[i, j] == found.se[i, j] == 0
        assert found.p[i, j] == 1
        others = [k for k in range(len(rows)) if rows[k] not in (rows[i],)]
        for name in ("mean", "se", "df", "p"):
            assert np.array_equal(getattr(found, name)[i, others], getattr(found, name)[j, others])
    placed = tiers(twice.values.mean(axis=(1, 2)), of_pairs(found.p))
    assert placed[0] == placed[3] == placed[8]
    assert placed[1] == placed[6]


# Resamples of test examples


def test_every_resample_holds_as_many_examples_and_each_as_often_on_average():
    weights = draw_weights("am", 200, 1000)
    assert weights.dtype == np.float32
    assert (weights.sum(axis=1) == 200).all()
    assert np.abs(weights.mean(axis=0) - 1).max() < 0.2  # standard error 0.03


def test_resamples_hang_on_the_examples_alone_and_are_the_same_in_another_process():
    code = (
        "from harness.ranking.stats.resampling import draw_weights; from harness.core.files import digest\n"
        "print(digest(draw_weights('am', 30, 20).tolist()))"
    )
    from harness.core.files import digest

    here = draw_weights("am", 30, 20)
    assert python(code).strip() == digest(here.tolist())
    assert not np.array_equal(here, draw_weights("he", 30, 20))


def test_widened_draws_have_the_unbiased_variance_of_a_mean():
    values = np.random.default_rng(2).standard_normal(30)
    weights = draw_weights("widened", 30, 20_000)
    draws = (weights @ values / 30).astype(np.float32)
    assert inflate_variance(draws, 30).var() == pytest.approx(values.var(ddof=1) / 30, rel=0.03)
    seven = inflate_variance(draws, 30, labels=7)
    assert seven.mean() == pytest.approx(draws.mean(), abs=1e-6)
    assert seven.var() == pytest.approx(draws.var() * 30 / 23, rel=1e-4)


# Gap closed


def clear_gap() -> CompleteValues:
    """Return baseline 0.4, ceiling 0.8, entry 0.6, each with a little noise."""
    noise = 0.01 * np.random.default_rng(8).standard_normal((3, 4, 3))
    return CompleteValues(np.array([0.4, 0.8, 0.6])[:, None, None] + noise)


def test_at_the_ends_of_fiellers_interval_the_ratio_just_differs():
    panel = clear_gap()
    found = gap_closed(panel, 2, 0, 1)
    assert found.mean == pytest.approx(50, abs=5)
    assert found.low < found.mean < found.high
    [t] = panel.moments(sums([{2: 1, 0: found.mean / 100 - 1, 1: -found.mean / 100}])).quantile(0.975)
    for end in (found.low / 100, found.high / 100):
        off = estimate(panel, {2: 1, 0: end - 1, 1: -end})
        assert abs(off.mean) == pytest.approx(t * off.se)


def test_the_ceiling_closes_the_gap_whole_and_the_baseline_not_at_all():
    panel = clear_gap()
    assert gap_closed(panel, 1, 0, 1).mean == 100
    assert gap_closed(panel, 0, 0, 1).mean == 0


def test_where_down_is_better_the_gap_is_the_same():
    panel = clear_gap()
    mirrored = CompleteValues(1 - panel.values)
    up, down = gap_closed(panel, 2, 0, 1), gap_closed(mirrored, 2, 0, 1, "down")
    assert [down.mean, down.low, down.high] == pytest.approx([up.mean, up.low, up.high])
    assert gap_closed(mirrored, 2, 0, 1) is None


def test_there_is_no_gap_to_close_where_the_ceiling_is_not_clearly_better():
    panel = made_up(3, 1, seed=9)
    assert gap_closed(panel, 2, 0, 1) is None
    assert gap_closed(panel, 2, 1, 0) is None
    assert gap_closed(CompleteValues(clear_gap().values[:, :, :1]), 2, 0, 1) is None


# Many tests at once

# Benjamini and Hochberg 1995: fifteen hypotheses on thrombolysis
FOUND = [0.0001, 0.0004, 0.0019, 0.0095]
PUBLISHED = np.array([*FOUND, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000])


def test_the_published_example_rejects_four_by_false_discoveries_and_three_by_holm():
    assert (benjamini_hochberg(PUBLISHED) <= 0.05).tolist() == [True] * 4 + [False] * 11
    assert benjamini_hochberg(PUBLISHED)[5] == pytest.approx(0.0298 * 15 / 7)  # less than 0.0278 * 15 / 6
    assert (holm(PUBLISHED) <= 0.05).tolist() == [True] * 3 + [False] * 12


def test_false_discoveries_are_those_of_scipy_bit_for_bit():
    from scipy.stats import false_discovery_control

    for p in np.random.default_rng(11).uniform(0, 0.2, size=(50, 37)):
        assert np.array_equal(benjamini_hochberg(p), false_discovery_control(p))


def test_adjusted_p_values_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 3 * 0.01; 2 * 0.03, which 0.04 inherits
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])  # 4/2 * 0.01 ...
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])


def test_the_order_of_p_values_changes_nothing_and_unknown_ones_do_not_count():
    order = np.random.default_rng(3).permutation(15)
    for adjust in (holm, benjamini_hochberg):
        assert adjust(PUBLISHED[order]) == pytest.approx(adjust(PUBLISHED)[order])
        with_gap = np.insert(PUBLISHED, 4, np.nan)
        assert np.isnan(adjust(with_gap)[4])
        assert np.delete(adjust(with_gap), 4) == pytest.approx(adjust(PUBLISHED))
        assert adjust(PUBLISHED.reshape(3, 5)).shape == (3, 5)
        assert adjust(np.array([np.nan])).tolist() == pytest.approx([np.nan], nan_ok=True)
        with pytest.raises(ValueError, match="outside 0 to 1"):
            adjust(np.array([1.2]))


def test_the_range_of_equal_means_is_that_of_published_tables():
    # 5 % points of the studentized range, endless degrees of freedom (Harter 1960); p is that of q / sqrt 2
    from scipy.special import ndtr

    for count, point in ((2, 2.772), (3, 3.314), (5, 3.858), (10, 4.474), (20, 5.012)):
        p = np.array([2 * ndtr(-point / 2**0.5)])
        assert range_p(p, count) == pytest.approx(0.05, rel=0.01)


def test_between_two_entries_the_range_changes_nothing_and_far_out_it_counts_every_pair():
    p = np.array([1.0, 0.5, 0.05, 1e-4, 1e-12, 1e-200])
    assert range_p(p, 2).tolist() == p.tolist()
    assert range_p(p[3:], 12) == pytest.approx(66 * p[3:], rel=0.15)
    assert range_p(p[4:], 12) == pytest.approx(66 * p[4:], rel=1e-3)
    assert (range_p(p, 12) <= np.minimum(66 * p, 1)).all()


def test_a_table_pays_for_its_range_or_for_the_pairs_that_are_left_whichever_is_less():
    from scipy.stats import norm, studentized_range

    p = np.array([[1, 0.01, 0.04], [0.01, 1, 0.03], [0.04, 0.03, 1]])
    first = studentized_range.sf(norm.isf(0.01 / 2) * 2**0.5, 3, np.inf)  # 0.0270; Holm: 3 * 0.01
    # then Holm's: 2 * 0.03, which 0.04 inherits; the range: 0.0767 and 0.0997
    by_hand = np.array([[1, first, 0.06], [first, 1, 0.06], [0.06, 0.06, 1]])
    assert of_pairs(p) == pytest.approx(by_hand, rel=1e-4)


def test_an_unknown_pair_stays_unknown_and_a_table_of_one_has_no_pair():
    p = np.array([[1, np.nan, 0.01], [np.nan, 1, np.nan], [0.01, np.nan, 1]])
    assert np.isnan(of_pairs(p)).tolist() == np.isnan(p).tolist()
    assert of_pairs(np.ones((1, 1))).tolist() == [[1.0]]


# Tiers and ranks


def table_of_p(entries: int, different: list[tuple[int, int]]) -> np.ndarray:
    p = np.ones((entries, entries))
    for i, j in different:
        p[i, j] = p[j, i] = 0.01
    return p


def test_an_entry_that_differs_from_the_head_of_the_tier_opens_the_next():
    means = np.array([0.9, 0.8, 0.7, 0.6])
    assert tiers(means, table_of_p(4, [])) == [1, 1, 1, 1]
    assert tiers(means, table_of_p(4, [(0, 2), (0, 3)])) == [1, 1, 2, 2]
    assert tiers(means, table_of_p(4, [(0, 1), (0, 2), (0, 3), (1, 3)])) == [1, 2, 2, 3]
    assert tiers(means, table_of_p(4, [(1, 2)])) == [1, 1, 1, 1]  # the head alone is compared with


def test_where_down_is_better_the_lowest_mean_heads():
    means = np.array([0.9, 0.8, 0.7])
    assert tiers(means, table_of_p(3, [(0, 2)]), better="down") == [2, 1, 1]
    with pytest.raises(ValueError, match="direction"):
        tiers(means, table_of_p(3, []), better="none")


def test_identical_entries_share_a_tier_even_where_another_ties_with_them():
    # 1 and 3 are identical; 2 ties with them, and it alone differs from the head
    means, p = np.array([0.9, 0.5, 0.5, 0.5]), table_of_p(4, [(0, 2)])
    for order in permutations(range(4)):
        rows = list(order)
        placed = tiers(means[rows], p[np.ix_(rows, rows)])
        assert [placed[rows.index(entry)] for entry in range(4)] == [1, 1, 2, 1]


def test_tied_heads_are_heads_together():
    # 0 and 1 tie at the top; 2 differs from one of them alone
    means, p = np.array([0.9, 0.9, 0.5]), table_of_p(3, [(0, 2)])
    assert tiers(means, p) == tiers(means[[1, 0, 2]], p[np.ix_([1, 0, 2], [1, 0, 2])]) == [1, 1, 1]


def test_an_unknown_p_is_no_difference():
    p = np.full((2, 2), np.nan)
    assert tiers(np.array([1.0, 0.0]), p) == [1, 1]


def test_seventy_of_88_cases_are_79_and_a_half_percent():
    gains = np.array([0.1] * 70 + [0.0] * 3 + [-0.1] * 15)
    assert 100 * win_rate(gains) == pytest.approx(79.545, abs=0.001)
    assert win_rate(-gains, "down") == win_rate(gains)
    for wrong in (np.array([]), np.array([0.1, np.nan])):
        with pytest.raises(ValueError, match=r"no case|not finite"):
            win_rate(wrong)


def test_ties_share_their_mean_rank():
    assert average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
    values = np.array([[0.9, 0.5], [0.9, 0.7], [0.1, 0.6]])
    assert mean_rank(values).tolist() == [2.25, 1.25, 2.5]
    assert borda(values).tolist() == [1.5, 3.5, 1]
    assert mean_rank(-values, "down").tolist() == mean_rank(values).tolist()


def test_ranks_are_those_of_the_field_shown():
    values = np.array([[0.9, 0.1], [0.5, 0.6], [0.4, 0.5]])
    assert mean_rank(values).tolist() == [2, 1.5, 2.5]
    assert mean_rank(values[:2]).tolist() == [1.5, 1.5]


def test_spearmans_published_example():
    # intelligence quotient against hours of television: rho = -29 / 165
    iq = np.array([106, 86, 100, 101, 99, 103, 97, 113, 112, 110])
    hours = np.array([7, 0, 27, 50, 28, 29, 20, 12, 6, 17])
    found = rank_correlation(iq, hours)
    assert found.rho == pytest.approx(-29 / 165)
    assert found.p == pytest.approx(0.632, abs=0.015)  # of all 3,628,800 orders: 0.6321
    assert found.n == 10
    assert rank_correlation(iq[::-1], hours[::-1]) == found


def test_few_pairs_try_every_order():
    up = np.arange(4.0)
    assert rank_correlation(up, up).p == pytest.approx(2 / 24)
    assert rank_correlation(up, -up).rho == -1
    tied = rank_correlation(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4]))
    assert tied.rho == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert tied.p == pytest.approx(4 / 24)  # the two tied may change places, upwards and downwards


def test_three_pairs_or_a_constant_have_no_correlation():
    assert rank_correlation(np.arange(3.0), np.arange(3.0)) is None
    assert rank_correlation(np.ones(5), np.arange(5.0)) is None
    with pytest.raises(ValueError, match="not finite"):
        rank_correlation(np.array([1, 2, 3, np.nan]), np.arange(4.0))
    with pytest.raises(ValueError, match="against"):
        rank_correlation(np.arange(5.0), np.arange(4.0))
