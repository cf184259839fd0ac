"""Seeds that move all languages together: found by a test, and then intervals are by seed, in every table."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from support.panels import CompleteValues, differences, estimate, gap_closed
from support.toyruns import F1, ToyEntry, collect_results, places, selection, toy, write_run

from harness.ranking.compare import compare
from harness.ranking.leaderboard_rows import RankedEntry, Ranking, rank_entries
from harness.ranking.slices import Slice, rank_slices
from harness.ranking.stats.sharing import BASE_BY_SEED, BY_SEED, LEVEL, sharing_p
from harness.ranking.summary import print_summary
from harness.scoring.metrics import SELF_CHRF
from leaderboard.build import build_board

T_975_2 = 4.302652729911275  # quantile of Student's t, 2 degrees of freedom
SHARED = [0.00, 0.03, 0.09]


def values(draw: np.random.Generator, common: float, metrics: int = 1, strata: int = 22, seeds: int = 3):
    """Return values (metrics, strata, seeds): a share of the variance is the same in all strata."""
    own, alike = (draw.standard_normal((metrics, n, seeds)) for n in (strata, 1))
    return (1 - common) ** 0.5 * own + common**0.5 * alike


def found(common: float, repeats: int, metrics: int = 1, strata: int = 22, seeds: int = 3) -> float:
    """Return the share of entries that are found to share seeds."""
    draw, tasks = np.random.default_rng(1), ["a"] * (strata // 2) + ["b"] * (strata - strata // 2)
    p = [sharing_p(values(draw, common, metrics, strata, seeds), tasks) for _ in range(repeats)]
    return float(np.mean(np.array(p) <= LEVEL))


# The test


def test_three_strata_that_agree_are_one_arrangement_in_36():
    aligned = np.array([[SHARED, [0.5, 0.53, 0.59], [0.2, 0.26, 0.38]]])
    assert sharing_p(aligned, ["a"] * 3) == pytest.approx(1 / 36, abs=0.02)
    assert sharing_p(aligned[:, :, ::-1], ["a"] * 3) == sharing_p(aligned, ["a"] * 3)
    assert sharing_p(aligned[:, :2], ["a"] * 2) == pytest.approx(1 / 6, abs=0.05)  # nothing can be found


def test_strata_that_go_against_one_another_are_not_found():
    assert sharing_p(np.array([[SHARED, SHARED[::-1]] * 4]), ["a"] * 8) > 0.2


def test_independent_strata_are_found_at_the_stated_rate():
    # of 400: three standard errors are 1.5 points
    assert found(0.0, 400) <= LEVEL + 0.015
    assert found(0.0, 400, metrics=4) <= LEVEL + 0.015


def test_neither_unequal_variances_nor_metrics_that_go_together_raise_the_rate():
    draw, p = np.random.default_rng(2), []
    for _ in range(300):
        one = values(draw, 0.0) * np.geomspace(0.01, 1, 22)[:, None]
        p.append(sharing_p(np.concatenate([one, one**3, one + 0.1 * values(draw, 0.0)]), ["a", "b"] * 11))
    assert np.mean(np.array(p) <= LEVEL) <= LEVEL + 0.018


def test_what_is_shared_by_half_is_found_at_three_seeds_and_more_metrics_find_more():
    assert found(0.5, 100) > 0.7
    assert found(0.1, 100, metrics=8) > found(0.1, 100) + 0.2


def test_one_metric_that_moves_is_found_among_eight_that_do_not():
    draw, tasks = np.random.default_rng(7), ["a"] * 11 + ["b"] * 11
    made = [np.concatenate([values(draw, 0.7), values(draw, 0.0, metrics=8)]) for _ in range(60)]
    assert np.mean([sharing_p(each, tasks) <= LEVEL for each in made]) > 0.7


def test_a_suite_of_two_tasks_in_three_languages_is_enough_for_several_metrics():
    assert found(0.5, 50, metrics=8, strata=6) > 0.8


def test_texts_that_are_shared_within_one_task_alone_are_found():
    draw, p = np.random.default_rng(3), []
    for _ in range(50):
        parts = [values(draw, 0.9, 4, strata=11), 3 * values(draw, 0.0, 4, strata=11)]
        both = np.concatenate(parts, axis=1)
        p.append(sharing_p(both, ["topic"] * 11 + ["sentiment"] * 11))
    assert np.mean(np.array(p) <= LEVEL) > 0.9


def test_what_is_missing_or_never_varies_proves_nothing():
    assert sharing_p(np.ones((2, 5, 3)), ["a"] * 5) == 1
    assert sharing_p(np.full((1, 5, 3), np.nan), ["a"] * 5) == 1
    assert sharing_p(np.array([[[0.1 + 0.2, 0.3, 0.3]] * 5]), ["a"] * 5) == 1  # not 0.3 in binary
    known = np.array([[SHARED] * 6])
    holes = np.concatenate([known, np.full((1, 6, 3), np.nan)])
    assert sharing_p(holes, ["a"] * 6) == sharing_p(known, ["a"] * 6) < LEVEL


# Intervals by seed


def marked(*strata: list[float], by_seed: bool = True) -> CompleteValues:
    """Return an entry beside one that is 0 everywhere."""
    both = np.array([strata, np.zeros_like(np.array(strata))], dtype=np.float64)
    return CompleteValues(both, by_seed=np.array([by_seed, False]))


def test_the_interval_is_students_over_the_means_of_the_seeds():
    by_seed = estimate(marked([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), {0: 1, 1: -1})
    # means of the seeds 1.5, 3, 4.5
    assert (by_seed.mean, by_seed.df) == (3, pytest.approx(2))
    assert by_seed.se == pytest.approx(1.5 / 3**0.5)
    assert by_seed.high - 3 == pytest.approx(T_975_2 * 1.5 / 3**0.5)
    by_stratum = estimate(marked([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], by_seed=False), {0: 1, 1: -1})
    assert by_stratum.se == pytest.approx((5 / 12) ** 0.5)


def test_an_interval_by_seed_is_never_the_narrower():
    draw = np.random.default_rng(4)
    for strata in (1, 2, 22):
        for _ in range(50):
            panel = CompleteValues(draw.standard_normal((2, strata, 3)))
            plain = estimate(panel, {0: 1, 1: -1})
            by_seed = estimate(replace(panel, by_seed=np.array([False, True])), {0: 1, 1: -1})
            assert by_seed.high >= plain.high
            assert by_seed.p >= plain.p


def test_pairs_without_such_an_entry_keep_every_bit():
    panel = CompleteValues(np.random.default_rng(5).standard_normal((5, 6, 3)))
    plain, by_seed = differences(panel), differences(replace(panel, by_seed=np.arange(5) == 2))
    others = np.ix_([0, 1, 3, 4], [0, 1, 3, 4])
    for name in ("se", "df", "p"):
        assert np.array_equal(getattr(plain, name)[others], getattr(by_seed, name)[others])
    assert (by_seed.df[2, [0, 1, 3, 4]] == pytest.approx(2)) and (plain.df[2, [0, 1, 3, 4]] > 3).all()


def test_the_sign_test_counts_seeds_where_strata_are_not_independent():
    flat = [0.25] * 3
    assert estimate(marked(flat, flat, by_seed=False), {0: 1, 1: -1}).p == pytest.approx(2 * 0.5**6)
    assert estimate(marked(flat, flat), {0: 1, 1: -1}).p == pytest.approx(2 * 0.5**3)


def test_the_gap_closed_has_an_interval_by_seed_too():
    noise = 0.01 * np.random.default_rng(6).standard_normal((3, 8, 3))
    panel = CompleteValues(np.array([0.4, 0.8, 0.6])[:, None, None] + noise)
    plain = gap_closed(panel, 2, 0, 1)
    by_seed = gap_closed(replace(panel, by_seed=np.arange(3) == 2), 2, 0, 1)
    assert by_seed.mean == plain.mean
    assert by_seed.low < plain.low < plain.high < by_seed.high


# Tables

CODES = selection(["am", "he", "da", "de"], ["sentiment", "topic"])


def scored(name: str, level: float, shared: bool = False, start: int = 0, **config: object) -> ToyEntry:
    """Return an entry whose seeds move all strata together, or every stratum by itself."""
    entry, draw = toy(name, **config), np.random.default_rng([start, *name.encode()])
    entry.scores[F1] = {
        place: level + 0.002 * draw.standard_normal() + (SHARED[place[2] - 1] if shared else 0.0)
        for place in places(CODES)
    }
    return entry


def table(tmp_path, *entries: ToyEntry) -> Ranking:
    return rank_entries(collect_results(write_run(tmp_path, entries, CODES)), F1)


def rows(ranked: Ranking) -> dict[str, RankedEntry]:
    return {row.row.name: row for row in ranked.rows}


HONEST = (scored("zero-shot", 0.5), scored("language", 0.55))


def test_the_entry_says_that_its_interval_is_by_seed_and_the_others_keep_theirs(tmp_path):
    before = rows(table(tmp_path / "before", *HONEST))
    ranked = table(tmp_path / "after", *HONEST, scored("translated", 0.55, shared=True))
    after = rows(ranked)
    assert {name: row.note for name, row in after.items()} == {"zero-shot": "", "language": "", "translated": BY_SEED}
    assert ranked.notes[-1] == f"{BY_SEED}: translated"
    gain = after["translated"].over_zero_shot
    assert gain.df == pytest.approx(2)
    assert gain.se == pytest.approx(np.std(SHARED, ddof=1) / 3**0.5, rel=0.1)  # of eight strata: 0.35 of it
    assert (after["language"].over_zero_shot, after["language"].mean) == (
        before["language"].over_zero_shot,
        before["language"].mean,
    )


def test_every_gain_over_such_a_baseline_is_by_seed(tmp_path):
    ranked = rows(table(tmp_path, scored("zero-shot", 0.5, shared=True), scored("language", 0.55)))
    assert ranked["language"].note == BASE_BY_SEED
    assert ranked["language"].over_zero_shot.df == pytest.approx(2)
    assert ranked["language"].mean.df > 3


def test_the_summary_names_the_entry(tmp_path):
    result_set = collect_results(write_run(tmp_path, [*HONEST, scored("translated", 0.55, shared=True)], CODES))
    out = io.StringIO()
    print_summary(Console(file=out, width=200), result_set)
    assert "seeds move all languages together: interval by seed: translated" in out.getvalue()


def test_a_part_of_the_suite_is_by_seed_as_well_and_so_are_tiers(tmp_path):
    result_set = collect_results(write_run(tmp_path, [*HONEST, scored("translated", 0.55, shared=True)], CODES))
    by_scope = {field.scope: field for field in rank_slices(result_set, F1)}
    ids = {row.name: name for name, row in result_set.entries.items()}
    whole, topic = by_scope[Slice(None, None)], by_scope[Slice("topic", None)]
    # by stratum the difference of 0.09 had 20 standard errors; by seed p is 0.07
    assert [whole.tiers[ids[name]] for name in ("translated", "language", "zero-shot")] == [1, 1, 1]
    half = topic.ci_half_width[topic.position[ids["translated"]], topic.position[ids["zero-shot"]]]
    assert half == pytest.approx(T_975_2 * np.std(SHARED, ddof=1) / 3**0.5, rel=0.1)


def test_other_metrics_decide_with_the_one_that_is_shown(tmp_path):
    entry = scored("translated", 0.55)
    entry.scores[SELF_CHRF] = {place: 30 + 100 * SHARED[place[2] - 1] for place in places(CODES)}
    assert rows(table(tmp_path, *HONEST, entry))["translated"].note == BY_SEED


def test_compare_uses_and_names_intervals_by_seed(tmp_path):
    old = write_run(tmp_path / "a", [*HONEST, scored("translated", 0.5)], CODES)
    new = write_run(tmp_path / "b", [*HONEST, scored("translated", 0.52, shared=True)], CODES)
    found = compare(old, new)
    [line] = [line for line in found.lines if line.pair.name == "translated"]
    assert (line.difference.df, line.verdict) == (pytest.approx(2), "no clear difference")
    assert found.notes[F1.name].endswith(f"{BY_SEED}: translated (B)")


def test_the_board_says_so_in_the_row_below_the_table_and_on_the_page_of_the_method(tmp_path):
    run = write_run(tmp_path / "run", [*HONEST, scored("translated", 0.55, shared=True)], CODES)
    for cell in run.cell_ids():
        (run.cell(cell) / "generations.jsonl").write_text("", encoding="utf-8")
    first = build_board([run], tmp_path / "site")
    words = first.read_text(encoding="utf-8")
    assert words.count(f'title="{BY_SEED}"') == 1
    assert f"{BY_SEED}: translated" in words
    pages = {path.name: path.read_text(encoding="utf-8") for path in first.parent.glob("*/method-*.html")}
    assert [name for name, text in pages.items() if f"({BY_SEED})" in text] == ["method-translated.html"]
