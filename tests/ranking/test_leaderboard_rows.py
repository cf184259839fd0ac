"""Rankings of invented scores: numbers to check by hand, and in words why something has no rank."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from support.helpers import MODEL, environment, python
from support.rankings import AM, BOTH, STEERED, T_2, ZERO, by_seed, field_of, rows, scored
from support.toyruns import F1, collect_results, flat, places, predicting, selection, toy, write_run

from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.values import collect_metric, coverage
from harness.scoring.metrics import LENGTH, SELF_CHRF, macro_f1

# Numbers


def test_a_gain_is_the_mean_of_paired_differences_with_students_interval(tmp_path):
    found = rows(field_of(tmp_path, AM, scored("zero-shot", ZERO), scored("language", STEERED)))
    gain = found["language"].over_zero_shot
    half = T_2 * 0.05 / 3**0.5  # standard deviation of the gains, over the root of their number
    assert (gain.mean, gain.df) == (pytest.approx(0.1), pytest.approx(2))
    assert (gain.low, gain.high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))


def test_a_mean_has_an_interval_of_its_own_seeds(tmp_path):
    found = rows(field_of(tmp_path, AM, scored("zero-shot", ZERO)))["zero-shot"]
    assert found.mean.mean == pytest.approx(0.5)
    assert found.mean.high - found.mean.mean == pytest.approx(T_2 * 0.1 / 3**0.5)
    assert found.over_zero_shot is None


def test_languages_count_the_same_and_only_seeds_within_them_are_drawn(tmp_path):
    # variance of the mean of two languages: (0.05^2 / 3 + 0.05^2 / 3) / 4
    steered = by_seed(BOTH, am=(0.5, 0.65, 0.65), he=(0.8, 0.95, 0.95))
    zero = by_seed(BOTH, am=(0.4, 0.5, 0.6), he=(0.4, 0.5, 0.6))
    gain = rows(field_of(tmp_path, BOTH, scored("zero-shot", zero), scored("language", steered)))
    found = gain["language"].over_zero_shot
    assert found.mean == pytest.approx((0.1 + 0.4) / 2)
    assert found.se == pytest.approx((0.05**2 / 6) ** 0.5)


def test_the_gain_over_few_shot_stands_beside(tmp_path):
    few = scored("few-shot", by_seed(AM, am=(0.6, 0.6, 0.6)))
    found = rows(field_of(tmp_path, AM, scored("zero-shot", ZERO), few, scored("language", STEERED)))
    assert found["language"].over_few_shot.mean == pytest.approx(0)
    assert found["zero-shot"].over_few_shot.mean == pytest.approx(-0.1)
    assert found["few-shot"].over_few_shot is None


def test_the_gap_to_human_text_is_closed_from_zero_shot(tmp_path):
    entries = [
        scored("zero-shot", flat(0.2, AM)),
        scored("human", flat(0.7, AM)),
        scored("language", flat(0.6, AM, (0.01, -0.01, 0))),
    ]
    found = rows(field_of(tmp_path, AM, *entries))
    gap = found["language"].gap_closed
    assert gap.mean == pytest.approx(80)  # 0.4 of 0.5
    assert gap.low < 80 < gap.high
    assert found["human"].gap_closed is None
    assert found["zero-shot"].gap_closed is None


def test_without_a_ceiling_or_a_baseline_there_is_no_gap(tmp_path):
    found = rows(field_of(tmp_path, AM, scored("human", flat(0.7, AM)), scored("language", flat(0.6, AM))))
    assert found["language"].gap_closed is None


def test_the_win_rate_counts_tasks_and_languages(tmp_path):
    four = selection(["am", "he", "su", "da"])
    zero = by_seed(four, am=(0.5,) * 3, he=(0.5,) * 3, su=(0.5,) * 3, da=(0.5,) * 3)
    steered = by_seed(four, am=(0.6,) * 3, he=(0.6,) * 3, su=(0.6,) * 3, da=(0.5,) * 3)
    found = rows(field_of(tmp_path, four, scored("zero-shot", zero), scored("language", steered)))
    assert found["language"].win_rate == 0.75  # a tie is no win
    assert found["zero-shot"].win_rate is None


def test_borda_and_mean_rank_are_over_the_entries_in_tiers(tmp_path):
    entries = [scored(name, flat(value, BOTH)) for name, value in (("a", 0.7), ("b", 0.6), ("human", 0.9))]
    found = rows(field_of(tmp_path, BOTH, *entries))
    assert (found["a"].mean_rank, found["b"].mean_rank) == (1, 2)
    assert (found["a"].borda, found["b"].borda) == (2, 0)  # a beats b in two cases; human does not count
    assert found["human"].borda is None


# Tiers


def test_a_clearly_better_entry_has_the_first_tier_alone(tmp_path):
    noise = np.random.default_rng(1)
    entries = [scored("best", {p: 0.8 + noise.normal(0, 0.01) for p in places(BOTH)})]
    entries += [scored(name, {p: 0.5 + noise.normal(0, 0.01) for p in places(BOTH)}) for name in ("x", "y", "z")]
    found = rows(field_of(tmp_path, BOTH, *entries))
    assert {name: row.tier for name, row in found.items()} == {"best": 1, "x": 2, "y": 2, "z": 2}


def test_tiers_pay_for_every_pair_of_the_table(tmp_path):
    # differences 0.1 ± 0.0307 of three seeds: t = 5.64 with 2 degrees of freedom, p = 0.030
    best, other = by_seed(AM, am=(0.8, 0.8, 0.8)), by_seed(AM, am=(0.7 - 0.0307, 0.7, 0.7 + 0.0307))
    two = field_of(tmp_path / "two", AM, scored("best", best), scored("x", other))
    assert [row.tier for row in two.rows] == [1, 2]
    three = field_of(tmp_path / "three", AM, scored("best", best), scored("x", other), scored("y", other))
    assert [row.tier for row in three.rows] == [1, 1, 1]  # 3 pairs: 0.090


def test_identical_entries_have_identical_numbers_and_the_same_tier(tmp_path):
    chosen = selection(["am", "he"], ["sentiment", "topic"])
    same = [predicting(toy("m", option=i), 0.7, chosen) for i in (1, 2, 3)]
    zero = predicting(toy("zero-shot"), 0.5, chosen)
    found = field_of(tmp_path, chosen, zero, *same)
    numbers = {
        repr((r.mean, r.over_zero_shot, r.tier, r.borda, r.mean_rank, r.win_rate, r.languages))
        for r in found.rows
        if r.row.entry.method.name == "m"
    }
    assert len(numbers) == 1
    assert found.notes == []


def test_an_entry_has_the_same_interval_whoever_else_is_in_the_field(tmp_path):
    zero, one = predicting(toy("zero-shot"), 0.5, BOTH), predicting(toy("one"), 0.7, BOTH)
    others = [predicting(toy(f"m{i}"), 0.5 + i / 50, BOTH) for i in range(9)]
    small = field_of(tmp_path / "small", BOTH, zero, one)
    large = field_of(tmp_path / "large", BOTH, *others, one, zero)
    assert rows(small)["one"].over_zero_shot == rows(large)["one"].over_zero_shot
    assert rows(small)["one"].mean == rows(large)["one"].mean


def test_references_are_shown_and_not_ranked(tmp_path):
    found = rows(field_of(tmp_path, AM, scored("human", flat(0.9, AM)), scored("zero-shot", ZERO)))
    assert (found["human"].tier, found["human"].reason) == (None, "references are not ranked")
    assert found["human"].over_zero_shot.mean == pytest.approx(0.4)
    assert found["zero-shot"].tier == 1


@pytest.mark.parametrize(("seeds", "words"), [([1], "1 generation seed"), ([1, 2], "2 generation seeds")])
def test_too_few_generation_seeds_give_no_tier_and_say_so(tmp_path, seeds, words):
    chosen = selection(["am"], seeds=seeds)
    found = field_of(tmp_path, chosen, scored("zero-shot", flat(0.5, chosen)), scored("a", flat(0.6, chosen)))
    assert found.reason == f"{words}, 3 are needed"
    assert [(row.tier, row.reason) for row in found.rows] == [(None, found.reason)] * 2


@pytest.mark.parametrize(("trainings", "ranked"), [(4, False), (5, True)])
def test_a_seeded_classifier_needs_five_of_its_seeds(tmp_path, trainings, ranked):
    seeded = macro_f1("hf:devenc")
    entries = [scored(name, flat(0.5, AM), seeded) for name in ("zero-shot", "a")]
    for entry in entries:
        runs = {str(i): [0] for i in range(trainings)}
        entry.kept = {place: {"predictions": {seeded.name: runs}} for place in places(AM)}
    found = rank_entries(collect_results(write_run(tmp_path / "run", entries, AM)), seeded)
    assert found.reason == ("" if ranked else "4 classifier seeds, 5 are needed")


def test_values_made_in_different_ways_are_not_ranked(tmp_path):
    one = write_run(tmp_path / "one", [scored("zero-shot", ZERO)], AM)
    other = write_run(tmp_path / "other", [scored("a", STEERED)], AM, signature="recipe 2")
    found = rank_entries(collect_results(one, other), F1)
    assert found.reason == ("scored in different ways, sentiment/am: recipe 1 | recipe 2; score the runs again")


def test_a_metric_that_only_describes_ranks_nobody(tmp_path):
    run = write_run(tmp_path / "run", [scored("zero-shot", ZERO, LENGTH), scored("a", STEERED, LENGTH)], AM)
    found = rank_entries(collect_results(run), LENGTH)
    assert found.reason == "length has no better and no worse"
    assert rows(found)["a"].over_zero_shot.mean == pytest.approx(0.1)
    assert rows(found)["a"].win_rate is None


def test_less_is_better_where_the_metric_says_so(tmp_path):
    entries = [scored("low", flat(20, BOTH), SELF_CHRF), scored("high", flat(60, BOTH), SELF_CHRF)]
    found = rank_entries(collect_results(write_run(tmp_path / "run", entries, BOTH)), SELF_CHRF)
    assert [(row.row.name, row.tier, row.mean_rank) for row in found.rows] == [("low", 1, 1), ("high", 2, 2)]


def test_several_models_are_ranked_by_the_gain_over_their_own_baseline(tmp_path):
    other = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
    weak = [scored("zero-shot", flat(0.2, BOTH)), scored("a", flat(0.5, BOTH, (0, 0.02, -0.02)))]
    strong = [
        dataclasses.replace(entry, model=other)
        for entry in (scored("zero-shot", flat(0.6, BOTH)), scored("a", flat(0.7, BOTH, (0.02, 0, -0.02))))
    ]
    runs = [
        write_run(tmp_path / "weak", [*weak, scored("human", flat(0.9, BOTH))], BOTH),
        write_run(tmp_path / "strong", strong, BOTH, model=other),
    ]
    found = rank_entries(collect_results(*runs), F1)
    assert found.relative
    assert [(row.row.name, row.tier) for row in found.rows] == [
        ("a, toy", 1),
        ("a, other", 2),
        ("zero-shot, other", 3),
        ("zero-shot, toy", 3),
        ("human", None),
    ]


def test_a_model_without_a_baseline_is_not_ranked_among_several(tmp_path):
    other = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
    alone = dataclasses.replace(scored("a", flat(0.9, AM)), model=other)
    runs = [
        write_run(tmp_path / "one", [scored("zero-shot", ZERO), scored("a", STEERED)], AM),
        write_run(tmp_path / "two", [alone], AM, model=other),
    ]
    found = rows(rank_entries(collect_results(*runs), F1))["a, other"]
    assert (found.tier, found.reason) == (None, "its model has no complete zero-shot row")
    assert found.mean.mean == pytest.approx(0.9)


# Completeness


def test_an_incomplete_entry_has_no_aggregate_but_counts_and_reasons(tmp_path):
    gone = [("a", "sentiment", "am", 1), ("a", "sentiment", "am", 2)]
    found = field_of(tmp_path, BOTH, scored("zero-shot", flat(0.5, BOTH)), scored("a", flat(0.6, BOTH)), drop=gone)
    row = rows(found)["a"]
    assert (row.mean, row.over_zero_shot, row.gap_closed, row.win_rate) == (None,) * 4
    assert (row.tier, row.reason) == (None, "2 of 6 values are missing")
    assert (row.present, row.expected, row.missing_reasons) == (4, 6, ["2 × method_error: ValueError: no"])
    assert found.rows[-1] is row
    assert rows(found)["zero-shot"].tier == 1


def test_the_languages_that_an_incomplete_entry_has_are_kept(tmp_path):
    gone = [("a", "sentiment", "am", 1)]
    entries = [scored("zero-shot", flat(0.5, BOTH)), scored("a", flat(0.6, BOTH))]
    row = rows(field_of(tmp_path, BOTH, *entries, drop=gone))["a"]
    assert list(row.languages) == ["he"]
    assert row.languages["he"].gain.mean == pytest.approx(0.1)


def test_a_value_that_could_not_be_computed_is_missing_with_its_note(tmp_path):
    values = {**flat(0.6, AM), ("sentiment", "am", 3): None}
    row = rows(field_of(tmp_path, AM, scored("zero-shot", ZERO), scored("a", values)))["a"]
    assert (row.present, row.expected, row.missing_reasons) == (2, 3, ["too few texts"])


def test_an_entry_without_this_metric_says_so(tmp_path):
    row = rows(field_of(tmp_path, AM, scored("zero-shot", ZERO), scored("a", ZERO, SELF_CHRF)))["a"]
    assert (row.present, row.missing_reasons) == (0, ["3 × not scored by macro-F1 (tfidf)"])


def test_a_run_without_any_value_still_gives_rows(tmp_path):
    found = field_of(tmp_path, AM, toy("zero-shot"), toy("a"))
    assert [row.mean for row in found.rows] == [None, None]
    assert found.reason == "no entry is complete and without flags"


def test_one_task_can_stand_alone(tmp_path):
    both = selection(["am"], ["sentiment", "topic"])
    values = {place: 0.5 if place[0] == "topic" else 0.9 for place in places(both)}
    gone = [("a", "sentiment", "am", 1)]
    run = write_run(tmp_path / "run", [scored("zero-shot", values), scored("a", values)], both, drop=gone)
    found = rows(rank_entries(collect_results(run), F1, ["topic"]))
    assert found["a"].mean.mean == pytest.approx(0.5)
    assert (found["a"].present, found["a"].expected) == (3, 3)


# The grid of languages


def test_the_grid_finds_what_differs_in_single_languages(tmp_path):
    codes = ["am", "he", "su", "da"]
    chosen = selection(codes)
    noise = np.random.default_rng(3)
    shift = {"am": 0.3, "he": -0.3, "su": 0.0, "da": 0.0}
    zero = {place: 0.5 + noise.normal(0, 0.01) for place in places(chosen)}
    steered = {place: 0.5 + shift[place[1]] + noise.normal(0, 0.01) for place in places(chosen)}
    found = field_of(tmp_path, chosen, scored("zero-shot", zero), scored("a", steered))
    grid = rows(found)["a"].languages
    assert {code: cell.gain.mean > 0 for code, cell in grid.items() if cell.found} == {"am": True, "he": False}
    raw = sorted(grid[code].gain.p for code in codes)
    adjusted = sorted(grid[code].p for code in codes)
    assert adjusted[0] == pytest.approx(min(raw[0] * 4, raw[1] * 2, raw[2] * 4 / 3, raw[3]))


def test_references_are_in_the_grid_without_a_test(tmp_path):
    found = field_of(tmp_path, AM, scored("zero-shot", ZERO), scored("human", flat(0.9, AM)))
    cell = rows(found)["human"].languages["am"]
    assert cell.gain.mean == pytest.approx(0.4)
    assert (cell.p, cell.found) == (None, False)


# Correlation with diversity


def test_the_correlation_counts_more_diverse_as_more(tmp_path):
    entries = [scored(f"m{i}", flat(0.5 + i / 20, AM)) for i in range(6)]
    entries.append(scored("zero-shot", flat(0.5, AM)))
    for i, entry in enumerate(entries):
        entry.scores[SELF_CHRF] = flat(60 - i, AM)  # less likeness is more diversity
        entry.scores[LENGTH] = flat(i, AM)  # no metric of diversity that ranks
    found = field_of(tmp_path, AM, *entries)
    [correlation] = found.correlations
    assert correlation.diversity == SELF_CHRF
    assert (correlation.found.rho, correlation.found.n) == (pytest.approx(1.0), 6)


# Same numbers everywhere, in time


HOSTILE = "[bold]\u202e| 'המרק' ሾርባው <b>\n"


def test_two_processes_give_the_same_standings_to_the_byte(tmp_path):
    chosen = selection(["am", "he"], ["sentiment", "topic"])
    entries = [predicting(toy(name), right, chosen) for name, right in (("zero-shot", 0.5), ("human", 0.9))]
    entries += [predicting(toy("m", option=f"{HOSTILE}{i}"), 0.5 + i / 10, chosen) for i in range(4)]
    for i, entry in enumerate(entries):
        entry.scores[SELF_CHRF] = flat(60 - i, chosen)
    run = write_run(tmp_path / "run", entries, chosen)
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.core.store import Run\n"
        "from harness.ranking.results import collect\n"
        "from harness.ranking.leaderboard_rows import rank_entries\n"
        "[found] = collect([Run(Path(sys.argv[1]))])\nprint(rank_entries(found, found.headline))"
    )
    one, other = (python(code, run.path, env=environment(PYTHONHASHSEED=seed)) for seed in ("1", "2"))
    assert one == other
    assert "RankCorrelation" in one


def test_the_order_of_the_runs_changes_no_number(tmp_path):
    other = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
    one = [predicting(toy("zero-shot"), 0.5, AM), predicting(toy("a"), 0.7, AM)]
    two = [predicting(toy("zero-shot", other), 0.6, AM), predicting(toy("a", other), 0.7, AM)]
    runs = [write_run(tmp_path / "one", one, AM), write_run(tmp_path / "two", two, AM, model=other)]
    first, second = (rank_entries(collect_results(*order), F1) for order in (runs, runs[::-1]))
    assert first.rows == second.rows


def test_fourteen_entries_of_the_whole_suite_are_ranked_in_three_seconds(tmp_path):
    codes = ["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"]
    chosen = selection(codes, ["sentiment", "topic"])
    names = ["zero-shot", "few-shot", "constant", *(f"m{i}" for i in range(10)), "human"]
    entries = [predicting(toy(name), 0.5 + i / 40, chosen, n=200) for i, name in enumerate(names)]
    result_set = collect_results(write_run(tmp_path / "run", entries, chosen))
    start = time.process_time()
    found = rank_entries(result_set, F1)
    assert time.process_time() - start < 3
    assert found.notes == []
    assert rows(found)["m9"].tier == 1


def test_what_an_entry_lacks_is_counted_once(tmp_path):
    gone = [("a", "sentiment", "am", 1)]
    values = {**flat(0.6, BOTH), ("sentiment", "he", 1): None}
    result_set = collect_results(write_run(tmp_path / "run", [scored("a", values)], BOTH, drop=gone))
    evidence = collect_metric(result_set, F1)
    found = coverage(result_set, evidence, evidence.entries[0])
    assert (found.n, found.expected) == (4, 6)
    assert found.reasons == ["method_error: ValueError: no", "too few texts"]
