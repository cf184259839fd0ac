"""Standings from invented scores: numbers to check by hand, and in words why something has no rank."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from support.helpers import MODEL, environment, python
from support.toyruns import (
    F1,
    ToyEntry,
    cellset_of,
    flat,
    macro,
    places,
    predicting,
    selection,
    toy,
    write_run,
)

from harness.ranking.flags import RULES
from harness.ranking.leaderboard_rows import RankedEntry, Ranking, rank_entries
from harness.ranking.stats.resampling import Predictions, bootstrap_scores, draw_weights
from harness.ranking.values import collect_metric, coverage
from harness.scoring.metrics import (
    ACCURACY,
    COPIED,
    DEGENERATE,
    DISTINCT_1,
    HIDDEN,
    LABEL_FIDELITY,
    LANGUAGE_FIDELITY,
    LENGTH,
    MEMBERSHIP,
    NEAR_DUPLICATES,
    OVERLAP,
    SELF_CHRF,
    VALID_SHARE,
    VENDI,
    WORD_ORDER,
    macro_f1,
)

AM = selection(["am"])
BOTH = selection(["am", "he"])
VENDI_TFIDF = VENDI.for_provider("tfidf")


def by_seed(chosen, **languages):
    """Return values per seed and language for the only task."""
    task = chosen.tasks[0]
    return {
        (task, code, seed): value
        for code, values in languages.items()
        for seed, value in zip(chosen.seeds, values, strict=True)
    }


def scored(name: str, values, metric=F1, **config) -> ToyEntry:
    entry = toy(name, **config)
    entry.scores[metric] = values
    return entry


def field_of(tmp_path, chosen, *entries, **options) -> Ranking:
    return rank_entries(cellset_of(write_run(tmp_path / "run", entries, chosen, **options)), F1)


def rows(found: Ranking) -> dict[str, RankedEntry]:
    return {row.row.name: row for row in found.rows}


ZERO = by_seed(AM, am=(0.4, 0.5, 0.6))
STEERED = by_seed(AM, am=(0.5, 0.65, 0.65))  # gains 0.10, 0.15, 0.05
T_2 = 4.302653  # 97.5 % quantile of Student's t with 2 degrees of freedom


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
    found = rank_entries(cellset_of(write_run(tmp_path / "run", entries, AM)), seeded)
    assert found.reason == ("" if ranked else "4 classifier seeds, 5 are needed")


def test_values_made_in_different_ways_are_not_ranked(tmp_path):
    one = write_run(tmp_path / "one", [scored("zero-shot", ZERO)], AM)
    other = write_run(tmp_path / "other", [scored("a", STEERED)], AM, signature="recipe 2")
    found = rank_entries(cellset_of(one, other), F1)
    assert found.reason == ("scored in different ways, sentiment/am: recipe 1 | recipe 2; score the runs again")


def test_a_metric_that_only_describes_ranks_nobody(tmp_path):
    run = write_run(tmp_path / "run", [scored("zero-shot", ZERO, LENGTH), scored("a", STEERED, LENGTH)], AM)
    found = rank_entries(cellset_of(run), LENGTH)
    assert found.reason == "length has no better and no worse"
    assert rows(found)["a"].over_zero_shot.mean == pytest.approx(0.1)
    assert rows(found)["a"].win_rate is None


def test_less_is_better_where_the_metric_says_so(tmp_path):
    entries = [scored("low", flat(20, BOTH), SELF_CHRF), scored("high", flat(60, BOTH), SELF_CHRF)]
    found = rank_entries(cellset_of(write_run(tmp_path / "run", entries, BOTH)), SELF_CHRF)
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
    found = rank_entries(cellset_of(*runs), F1)
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
    found = rows(rank_entries(cellset_of(*runs), F1))["a, other"]
    assert (found.tier, found.reason) == (None, "its model has no complete zero-shot row")
    assert found.mean.mean == pytest.approx(0.9)


# Completeness


def test_an_incomplete_entry_has_no_aggregate_but_counts_and_reasons(tmp_path):
    gone = [("a", "sentiment", "am", 1), ("a", "sentiment", "am", 2)]
    found = field_of(tmp_path, BOTH, scored("zero-shot", flat(0.5, BOTH)), scored("a", flat(0.6, BOTH)), drop=gone)
    row = rows(found)["a"]
    assert (row.mean, row.over_zero_shot, row.gap_closed, row.win_rate) == (None,) * 4
    assert (row.tier, row.reason) == (None, "2 of 6 values are missing")
    assert (row.present, row.expected, row.lacking) == (4, 6, ["2 × method_error: ValueError: no"])
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
    assert (row.present, row.expected, row.lacking) == (2, 3, ["too few texts"])


def test_an_entry_without_this_metric_says_so(tmp_path):
    row = rows(field_of(tmp_path, AM, scored("zero-shot", ZERO), scored("a", ZERO, SELF_CHRF)))["a"]
    assert (row.present, row.lacking) == (0, ["3 × not scored by macro-F1 (tfidf)"])


def test_a_run_without_any_value_still_gives_rows(tmp_path):
    found = field_of(tmp_path, AM, toy("zero-shot"), toy("a"))
    assert [row.mean for row in found.rows] == [None, None]
    assert found.reason == "no entry is complete and without flags"


def test_one_task_can_stand_alone(tmp_path):
    both = selection(["am"], ["sentiment", "topic"])
    values = {place: 0.5 if place[0] == "topic" else 0.9 for place in places(both)}
    gone = [("a", "sentiment", "am", 1)]
    run = write_run(tmp_path / "run", [scored("zero-shot", values), scored("a", values)], both, drop=gone)
    found = rows(rank_entries(cellset_of(run), F1, ["topic"]))
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


# Test examples


def test_draws_that_hold_every_example_once_give_the_stored_score(tmp_path):
    chosen = selection(["am", "he"], ["sentiment", "topic"])
    for labels in (2, 7):
        entry = predicting(toy("zero-shot"), 0.6, chosen, labels=labels)
        cell = entry.kept["topic", "am", 1]
        gold, found = np.array(cell["gold"]), np.array([cell["predictions"][F1.name]["0"]])
        kept = Predictions("d", cell["labels"], gold, found)
        once = np.ones((1, len(gold)), dtype=np.float32)
        assert bootstrap_scores("macro_f1", [kept], once)[0, 0] == pytest.approx(entry.scores[F1]["topic", "am", 1])


def test_a_draw_is_the_score_of_the_drawn_examples():
    rng = np.random.default_rng(0)
    gold, found = rng.integers(0, 3, 40), rng.integers(0, 3, (4, 40))
    cells = [Predictions("d", list("abc"), gold, found[:1]), Predictions("d", list("abc"), gold, found[1:])]
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=5)
    drawn = bootstrap_scores("macro_f1", cells, counts.astype(np.float32))
    right = bootstrap_scores("accuracy", cells, counts.astype(np.float32))
    for draw, weights in enumerate(counts):
        chosen = np.repeat(np.arange(40), weights)
        by_hand = [macro(gold[chosen], row[chosen], 3) for row in found]
        assert drawn[:, draw] == pytest.approx([by_hand[0], np.mean(by_hand[1:])], abs=1e-6)
        hits = [np.mean(gold[chosen] == row[chosen]) for row in found]
        assert right[:, draw] == pytest.approx([hits[0], np.mean(hits[1:])], abs=1e-6)


def test_a_label_that_is_never_there_counts_as_zero():
    kept = Predictions("d", ["a", "b", "c"], np.array([0, 0, 1, 1]), np.array([[0, 0, 1, 1]]))
    once = np.ones((1, 4), dtype=np.float32)
    assert bootstrap_scores("macro_f1", [kept], once)[0, 0] == pytest.approx(2 / 3)


def test_many_classifier_seeds_in_batches_give_what_they_give_alone(monkeypatch):
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 30)
    cells = [Predictions("d", ["a", "b"], gold, rng.integers(0, 2, (n, 30))) for n in (1, 7, 3)]
    weights = rng.multinomial(30, np.full(30, 1 / 30), size=9).astype(np.float32)
    whole = bootstrap_scores("macro_f1", cells, weights)
    monkeypatch.setattr("harness.ranking.stats.resampling._BATCH", 4 * 60)
    assert np.array_equal(bootstrap_scores("macro_f1", cells, weights), whole)


def test_where_seeds_agree_the_test_examples_alone_make_the_interval(tmp_path):
    entry = predicting(toy("zero-shot"), 0.6, AM, n=60)
    for seed in (2, 3):
        entry.kept["sentiment", "am", seed] = entry.kept["sentiment", "am", 1]
        entry.scores[F1]["sentiment", "am", seed] = entry.scores[F1]["sentiment", "am", 1]
    drawn = field_of(tmp_path / "with", AM, entry)
    entry.kept = {}
    bare = field_of(tmp_path / "without", AM, entry)
    assert drawn.notes == []
    assert drawn.rows[0].mean.se == pytest.approx((0.6 * 0.4 / 60) ** 0.5, rel=0.15)  # about that of a share
    assert bare.notes == [
        "test examples are not resampled: no predictions are kept of zero-shot in sentiment/am, seed 1"
    ]
    assert bare.rows[0].mean.se == 0


def test_draws_make_up_for_what_a_bootstrap_of_few_examples_misses(tmp_path):
    entry = predicting(toy("zero-shot"), 0.6, AM, n=30, labels=7)
    drawn = collect_metric(cellset_of(write_run(tmp_path / "run", [entry], AM)), F1).draws[0, 0, 0]
    cell = entry.kept["sentiment", "am", 1]
    found = np.array([cell["predictions"][F1.name]["0"]])
    kept = Predictions(cell["examples"], cell["labels"], np.array(cell["gold"]), found)
    plain = bootstrap_scores("macro_f1", [kept], draw_weights(kept.examples, 30, 1000))[0]
    assert drawn.mean() == pytest.approx(plain.mean(), abs=1e-6)
    assert drawn.var() / plain.var() == pytest.approx(30 / 23, rel=1e-3)


def test_test_sets_are_never_mixed(tmp_path):
    entries = [predicting(toy("zero-shot"), 0.5, AM), predicting(toy("a"), 0.6, AM, examples="d2")]
    [note] = field_of(tmp_path, AM, *entries).notes
    assert note == "test examples are not resampled: entries were tested on different examples in sentiment/am"


def test_predictions_that_do_not_give_the_score_are_not_used(tmp_path):
    entry = predicting(toy("zero-shot"), 0.5, AM)
    entry.scores[F1] = flat(0.9, AM)
    [note] = field_of(tmp_path, AM, entry).notes
    assert "kept predictions do not give the stored score in sentiment/am" in note


@pytest.mark.parametrize(
    "broken",
    [
        {"predictions": {}},
        {"labels": ["only one"]},
        {"gold": []},
        {"gold": [0] * 99},
        {"gold": "hostile"},
        {"predictions": {F1.name: {"0": [-1] * 100}}},
        {"predictions": {F1.name: {"0": [[0] * 100]}}},
        {"predictions": {F1.name: {"0": [10**30] * 100}}},
        {"predictions": [1, 2]},
    ],
)
def test_broken_predictions_are_reported_and_never_used(tmp_path, broken):
    entry = predicting(toy("zero-shot"), 0.5, AM)
    place = ("sentiment", "am", 2)
    entry.kept[place] = {**entry.kept[place], **broken}
    run = write_run(tmp_path / "run", [entry], AM)
    evidence = collect_metric(cellset_of(run), F1)
    assert evidence.draws is None
    assert evidence.note.endswith("no predictions are kept of zero-shot in sentiment/am, seed 2")


def test_an_unreadable_file_of_predictions_takes_the_draws_and_not_the_scores(tmp_path):
    run = write_run(tmp_path / "run", [predicting(toy("zero-shot"), 0.5, AM)], AM)
    path = next(run.path.glob("cells/*/predictions.json.gz"))
    path.write_bytes(b"not gzip")
    found = rank_entries(cellset_of(run), F1)
    assert found.rows[0].mean is not None
    assert "is not a gzip file or is damaged" in found.notes[0]


def test_valid_text_has_predictions_of_its_own_only_where_they_differ(tmp_path):
    entry = predicting(toy("zero-shot"), 0.6, AM)
    entry.scores[F1.on_valid_texts] = dict(entry.scores[F1])
    cell = entry.kept["sentiment", "am", 1]
    cell["predictions"][F1.on_valid_texts.name] = {"0": cell["gold"]}  # after training on valid text all were right
    entry.scores[F1.on_valid_texts]["sentiment", "am", 1] = 1.0
    cellset = cellset_of(write_run(tmp_path / "run", [entry], AM))
    evidence = collect_metric(cellset, F1.on_valid_texts)
    assert evidence.note == ""
    assert np.all(evidence.draws[0, 0, 0] == 1.0)
    assert np.array_equal(evidence.draws[0, 0, 1], collect_metric(cellset, F1).draws[0, 0, 1])


def test_accuracy_is_drawn_from_the_same_predictions(tmp_path):
    entry = predicting(toy("zero-shot"), 0.6, AM)
    measured = ACCURACY.of("tfidf")
    right = {
        place: float(np.mean(np.array(cell["gold"]) == np.array(cell["predictions"][F1.name]["0"])))
        for place, cell in entry.kept.items()
    }
    entry.scores[measured] = right
    evidence = collect_metric(cellset_of(write_run(tmp_path / "run", [entry], AM)), measured)
    assert evidence.draws.shape == (1, 1, 3, 1000)
    assert evidence.draws[0, 0, 0].mean() == pytest.approx(right["sentiment", "am", 1], abs=0.01)


# Flags


def flagged(tmp_path, metric, value, human=None, name="a", **suite):
    entry = scored(name, flat(value, BOTH, (0,)), metric)
    entry.scores[F1] = flat(0.9, BOTH)
    entry.human = {} if human is None else {metric: human}
    zero = scored("zero-shot", flat(0.5, BOTH))
    body = {"suite": {"name": "toy", "classifiers": ["tfidf"], **suite}}
    return rows(field_of(tmp_path, BOTH, entry, zero, **body))[name]


BAD = [
    (NEAR_DUPLICATES, 0.35, 0.1, "texts repeat one another: near-duplicates 0.35 in sentiment, above 0.3"),
    (VENDI_TFIDF, 3.9, 8.0, "collapsed: less than half as varied as human text: Vendi (tfidf) 3.9 in sent"),
    (DISTINCT_1, 0.3, 0.7, "collapsed: less than half as many words as human text: distinct-1 0.3"),
    (DEGENERATE, 0.25, None, "degenerate texts: degenerate 0.25 in sentiment, above 0.2"),
    (VALID_SHARE, 0.4, None, "most texts are not valid: valid 0.4 in sentiment, below 0.5"),
    (LANGUAGE_FIDELITY, 0.4, 0.9, "written in another language: language 0.4 in sentiment, below 0.45"),
    (WORD_ORDER, 0.55, None, "words in random order: word order 0.55 in sentiment, below 0.65"),
    (COPIED.for_provider("test"), 0.11, None, "copies of test text: copied (test) 0.11 in sentiment, above 0.1"),
    (COPIED.for_provider("validation"), 0.11, None, "copies of validation text"),
    (OVERLAP.for_provider("test"), 0.51, 0.3, "pieces of test text: overlap (test) 0.51 in sentiment, above 0.5"),
    (OVERLAP.for_provider("validation"), 0.51, 0.3, "pieces of validation text"),
    (HIDDEN, 0.13, 0.02, "hidden characters: hidden characters 0.13 in sentiment, above 0.12"),
    (LENGTH, 301.0, 100.0, "much longer than human text: length 301 in sentiment, above 300"),
    (MEMBERSHIP.for_provider("test"), 0.035, 0.0, "made of test text: too near to it: membership (test) 0.035 in sen"),
    (MEMBERSHIP.for_provider("validation"), 0.035, 0.0, "made of validation text: too near to it"),
    (COPIED.for_provider("train"), 0.11, None, "copies of train text"),
    (COPIED.for_provider("vectors"), 0.11, None, "copies of vector text"),
    (COPIED.for_provider("demonstrations"), 0.11, None, "copies of few-shot demonstrations"),
]


@pytest.mark.parametrize(("metric", "value", "human", "words"), BAD, ids=lambda p: getattr(p, "name", None))
def test_what_breaks_a_bound_is_flagged_keeps_its_numbers_and_has_no_tier(tmp_path, metric, value, human, words):
    row = flagged(tmp_path, metric, value, human)
    [flag] = row.flags
    assert flag.words.startswith(words)
    assert flag.metric == metric
    assert (row.tier, row.reason) == (None, flag.words)
    assert row.mean.mean == pytest.approx(0.9)


GOOD = [
    (NEAR_DUPLICATES, 0.29, 0.1),
    (NEAR_DUPLICATES, 0.9, None),  # no human text beside it: not known whether the task itself repeats
    (VENDI_TFIDF, 4.1, 8.0),
    (VENDI_TFIDF.on_valid_texts, 1.0, 8.0),
    (DISTINCT_1, 0.4, 0.7),
    (DEGENERATE, 0.2, None),
    (VALID_SHARE, 0.5, None),
    (LANGUAGE_FIDELITY, 0.5, 0.9),
    (WORD_ORDER, 0.66, 0.95),
    (LABEL_FIDELITY, 0.5, 0.9),  # a weak method is ranked low, not left out
    (LENGTH, 1.0, 100.0),
    (LENGTH, 300.0, 100.0),
    (LENGTH, 900.0, None),
    (OVERLAP.for_provider("test"), 0.5, 0.3),
    (OVERLAP.for_provider("train"), 1.0, 0.3),  # the model's own texts are not known to hold less
    (HIDDEN, 0.12, 0.02),
    (MEMBERSHIP.for_provider("test"), 0.03, 0.0),  # 600 texts: 0.02 + 0.25 / 24.5 = 0.0302
]


@pytest.mark.parametrize(("metric", "value", "human"), GOOD)
def test_what_keeps_the_bounds_is_not_flagged(tmp_path, metric, value, human):
    row = flagged(tmp_path, metric, value, human)
    assert row.flags == []
    assert row.tier == 1


def test_the_field_is_ranked_without_flagged_entries(tmp_path):
    row = flagged(tmp_path / "one", VALID_SHARE, 0.1)
    assert row.tier is None
    bad = scored("bad", flat(0.9, BOTH))
    bad.scores[VALID_SHARE] = flat(0.1, BOTH)
    found = rows(field_of(tmp_path / "two", BOTH, bad, scored("zero-shot", flat(0.5, BOTH))))
    assert (found["zero-shot"].tier, found["zero-shot"].mean_rank) == (1, 1)


def test_a_flagged_baseline_is_compared_with_nothing(tmp_path):
    zero = scored("zero-shot", flat(0.1, BOTH))
    zero.scores[VALID_SHARE] = flat(0.1, BOTH)
    found = rows(field_of(tmp_path, BOTH, scored("a", flat(0.5, BOTH)), zero))
    assert found["zero-shot"].flags
    assert (found["a"].tier, found["a"].over_zero_shot, found["a"].win_rate) == (1, None, None)


def test_a_flagged_entry_wins_nothing(tmp_path):
    entry = scored("a", flat(0.9, BOTH))
    entry.scores[VALID_SHARE] = flat(0.1, BOTH)
    found = rows(field_of(tmp_path, BOTH, entry, scored("zero-shot", flat(0.5, BOTH))))["a"]
    assert (found.win_rate, found.borda, found.mean_rank) == (None, None, None)
    assert found.over_zero_shot.mean == pytest.approx(0.4)  # its numbers are shown


def test_one_task_that_breaks_a_bound_is_enough(tmp_path):
    chosen = selection(["am"], ["sentiment", "topic"])
    entry = scored("a", flat(0.9, chosen))
    entry.scores[VALID_SHARE] = {place: 0.3 if place[0] == "topic" else 1.0 for place in places(chosen)}
    [flag] = rows(field_of(tmp_path, chosen, entry))["a"].flags
    assert flag.task == "topic"


ELEVEN = selection(["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"])


def copying(name: str, corpus: str, **shares: float) -> ToyEntry:
    """Return an entry that copies a share of its texts in some of eleven languages."""
    entry = scored(name, flat(0.5, ELEVEN))
    copied = {place: shares.get(place[1], 0.0) for place in places(ELEVEN)}
    entry.scores[COPIED.for_provider(corpus)] = copied
    return entry


def test_copies_in_a_single_language_do_not_hide_in_the_mean(tmp_path):
    entries = [copying("a", "test", am=1.0), copying("zero-shot", "test")]
    row = rows(field_of(tmp_path, ELEVEN, *entries))["a"]
    [flag] = row.flags
    assert flag.words == "copies of test text: 300 of 300 texts in sentiment/am, above 0.1 of them"
    assert row.tier is None


def test_copies_of_a_single_language_are_held_against_what_the_model_copies_there(tmp_path):
    entries = [copying("a", "train", am=0.9, he=0.9), copying("zero-shot", "train", am=0.9)]
    found = rows(field_of(tmp_path, ELEVEN, *entries))
    assert [flag.words for flag in found["a"].flags] == [
        "copies of train text: 270 of 300 texts in sentiment/he, above 0.1 of them"
    ]
    assert found["zero-shot"].flags == []


def test_as_many_copies_as_human_text_has_by_chance_are_no_flag(tmp_path):
    entries = [copying("a", "test", de=0.12), copying("zero-shot", "test")]  # 36 of 300: 0.088 to 0.161
    assert rows(field_of(tmp_path, ELEVEN, *entries))["a"].flags == []


def test_collapsed_references_are_flagged_too(tmp_path):
    row = flagged(tmp_path, VENDI_TFIDF, 1.0, 8.0, name="constant")
    assert [flag.metric for flag in row.flags] == [VENDI_TFIDF]


def test_a_reference_that_is_test_text_is_called_flagged_and_the_floor_is_not(tmp_path):
    """Texts of no model have no tier: a table without their flags would show a cheat at its top."""
    floor = flagged(tmp_path / "floor", VENDI_TFIDF, 1.0, 8.0, name="constant")
    cheat = flagged(tmp_path / "cheat", COPIED.for_provider("test"), 0.9, name="human")
    assert floor.reference and cheat.reference
    assert floor.flags and not floor.flagged
    assert cheat.flagged


def test_what_a_model_copies_without_the_method_is_not_held_against_the_method(tmp_path):
    entries = {name: scored(name, flat(0.5, BOTH)) for name in ("zero-shot", "few-shot", "same", "more", "human")}
    for name, train, test in (
        ("zero-shot", 0.1, 0.0),
        ("few-shot", 0.3, 0.3),
        ("same", 0.4, 0.0),
        ("more", 0.41, 0.0),
        ("human", 1.0, 0.0),
    ):
        entries[name].scores[COPIED.for_provider("train")] = flat(train, BOTH, (0,))
        entries[name].scores[COPIED.for_provider("test")] = flat(test, BOTH, (0,))
    found = rows(field_of(tmp_path, BOTH, *entries.values()))
    assert {name: [flag.metric.name for flag in row.flags] for name, row in found.items()} == {
        "zero-shot": [],
        "few-shot": ["copied/test"],  # nothing excuses copies of what is tested on
        "same": [],
        "more": ["copied/train"],
        "human": [],  # it is train text
    }


def test_another_model_excuses_no_copies(tmp_path):
    other = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
    sides = []
    for model, copied in ((MODEL, 0.9), (other, 0.0)):
        entries = [toy("zero-shot", model), toy("a", model)]
        for entry, value in zip(entries, (copied, 0.5), strict=True):
            entry.scores = {F1: flat(0.5, AM), COPIED.for_provider("train"): flat(value, AM, (0,))}
        sides.append(write_run(tmp_path / model.name, entries, AM, model=model))
    found = rows(rank_entries(cellset_of(*sides), F1))
    assert (found["a, toy"].flags, len(found["a, other"].flags)) == ([], 1)


def beside_zero_shot(tmp_path, metric, value, usual, human):
    """Return the flags of an entry and of zero-shot of its model, which has ``usual``."""
    entries = [scored(name, flat(0.5, BOTH)) for name in ("a", "zero-shot")]
    for entry, level in zip(entries, (value, usual), strict=True):
        entry.scores[metric] = flat(level, BOTH, (0,))
        entry.human = {metric: human}
    found = rows(field_of(tmp_path, BOTH, *entries))
    return [[flag.metric for flag in found[name].flags] for name in ("a", "zero-shot")]


def test_a_model_that_writes_long_texts_anyway_is_not_flagged_for_it(tmp_path):
    assert beside_zero_shot(tmp_path / "a", LENGTH, 590.0, 400.0, 100.0) == [[], []]
    assert beside_zero_shot(tmp_path / "b", LENGTH, 610.0, 400.0, 100.0) == [[LENGTH], []]


def test_pieces_of_train_text_are_flagged_beyond_what_the_model_recites(tmp_path):
    pieces = OVERLAP.for_provider("train")
    assert beside_zero_shot(tmp_path / "a", pieces, 0.69, 0.4, 1.0) == [[], []]
    assert beside_zero_shot(tmp_path / "b", pieces, 0.71, 0.4, 1.0) == [[pieces], []]


def test_signs_of_test_text_in_a_single_language_do_not_hide_in_the_mean(tmp_path):
    entry = scored("a", flat(0.5, ELEVEN))
    near = {place: 0.06 if place[1] == "he" else 0.0 for place in places(ELEVEN)}
    entry.scores[MEMBERSHIP.for_provider("test")] = near
    [flag] = rows(field_of(tmp_path, ELEVEN, entry, scored("zero-shot", flat(0.5, ELEVEN))))["a"].flags
    # 300 texts: 0.02 + 0.25 / 17.3
    assert flag.words.endswith("membership (test) 0.06 in sentiment/he, above 0.0344")


def above(tmp_path, entry, human, zero=0.5, noise=(0.01, -0.01, 0.0)):
    """Return the flags of entry ``a``; ``noise``: its difference to human text by seed."""
    chosen = selection(["am", "he", "sk"])
    one = {place: entry + noise[place[2] - 1] for place in places(chosen)}
    found = [scored("a", one), scored("human", flat(human, chosen)), scored("zero-shot", flat(zero, chosen))]
    return rows(field_of(tmp_path, chosen, *found))["a"].flags


def test_better_training_data_than_human_text_is_flagged_where_that_is_clear(tmp_path):
    [flag] = above(tmp_path / "a", 0.8, 0.7)
    assert flag.words == (
        "better training data than human text: macro-F1 (tfidf) 0.8 in sentiment, clearly more than 0.05 above 0.7"
    )
    assert above(tmp_path / "b", 0.76, 0.7, noise=(0.1, -0.1, 0.0)) == []  # the interval reaches below
    assert above(tmp_path / "c", 0.74, 0.7) == []
    assert above(tmp_path / "d", 0.8, 0.7, zero=0.78) == []  # the model is that good without the method


def test_every_rule_says_why_in_words():
    assert all(rule.why and rule.why[0].islower() for rule in RULES)


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
    first, second = (rank_entries(cellset_of(*order), F1) for order in (runs, runs[::-1]))
    assert first.rows == second.rows


def test_fourteen_entries_of_the_whole_suite_are_ranked_in_three_seconds(tmp_path):
    codes = ["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"]
    chosen = selection(codes, ["sentiment", "topic"])
    names = ["zero-shot", "few-shot", "constant", *(f"m{i}" for i in range(10)), "human"]
    entries = [predicting(toy(name), 0.5 + i / 40, chosen, n=200) for i, name in enumerate(names)]
    cellset = cellset_of(write_run(tmp_path / "run", entries, chosen))
    start = time.process_time()
    found = rank_entries(cellset, F1)
    assert time.process_time() - start < 3
    assert found.notes == []
    assert rows(found)["m9"].tier == 1


def test_what_an_entry_lacks_is_counted_once(tmp_path):
    gone = [("a", "sentiment", "am", 1)]
    values = {**flat(0.6, BOTH), ("sentiment", "he", 1): None}
    cellset = cellset_of(write_run(tmp_path / "run", [scored("a", values)], BOTH, drop=gone))
    evidence = collect_metric(cellset, F1)
    found = coverage(cellset, evidence, evidence.entries[0])
    assert (found.n, found.expected) == (4, 6)
    assert found.reasons == ["method_error: ValueError: no", "too few texts"]
