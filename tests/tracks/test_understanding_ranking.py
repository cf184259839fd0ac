"""Statistics of a track in which nothing is drawn: intervals from examples, places without data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.helpers import MODEL, method, toy_manifest
from support.panels import CompleteValues, estimate

from harness.core.cells import cell_id, entry_of
from harness.core.records import CellKey, CellScores, CellStatus, Generation, Selection
from harness.core.store import ANSWERS, Run
from harness.ranking.eligibility import Eligibility
from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.results import ResultSet, collect
from harness.ranking.stats.resampling import draw_weights, inflate_variance, load_predictions, measure_of
from harness.ranking.summary import format_number
from harness.ranking.values import collect_metric
from harness.scoring.metrics import TASK_MACRO_F1, TASK_SCORE, metric
from leaderboard.boards import board
from leaderboard.checks import drop_invalid

N = 40


def outcomes(seed: int, p: float) -> list[int]:
    return [int(x) for x in np.random.default_rng(seed).random(N) < p]


def write(
    folder: Path,
    answered: dict[tuple[str, str, str], list[int]],
    languages: tuple[str, ...] = ("am", "he"),
    tasks: tuple[str, ...] = ("topic",),
    absent: tuple[str, ...] = (),
    checked: tuple[str, ...] = (),
) -> ResultSet:
    """Write a run of the track: (method, task, language) -> right or wrong, per example."""
    run = Run(folder)
    keys = []
    for (name, task, code), found in answered.items():
        key = CellKey(
            suite="toy understanding",
            text_protocol="p",
            data="d",
            model=MODEL,
            method=method(name),
            task=task,
            language=code,
            setting="zero-shot",
            seed=1,
            texts_per_label=0,
        )
        keys.append(key)
        texts = [Generation(index=i, label="1", text=str(x), finish_reason="stop") for i, x in enumerate(found)]
        run.write_cell(cell_id(key), CellStatus(cell=key, state="ok"), texts)
        scores = [TASK_SCORE.score(float(np.mean(found)), "r", detail={"texts": len(found)})]
        record = CellScores(cell_id=cell_id(key), generations_sha256=name, protocol="p", scores=scores)
        run.write_scores(record, {ANSWERS: {"examples": "e", "outcomes": found}})
    chosen = Selection(
        languages=list(languages),
        tasks=list(tasks),
        settings=["zero-shot"],
        seeds=[1],
        texts_per_label=dict.fromkeys(tasks, 0),
        absent=list(absent),
        checked=list(checked),
    )
    entries = list({entry_of(key).model_dump_json(): entry_of(key) for key in keys}.values())
    run.write_manifest(toy_manifest(track="understanding", entries=entries, selection=chosen))
    (found,) = collect([run])
    return drop_invalid(found)


def by_name(results: ResultSet) -> dict[str, str]:
    return {row.name: name for name, row in results.entries.items()}


def test_one_run_of_a_track_that_draws_nothing_has_intervals_from_its_examples(tmp_path):
    """The standard error is that of a mean of paired differences, up to the bootstrap's own noise."""
    ours, base = outcomes(1, 0.8), outcomes(2, 0.5)
    results = write(tmp_path, {("a", "topic", "am"): ours, ("zero-shot", "topic", "am"): base}, ("am",))
    found = next(row for row in rank_entries(results, TASK_SCORE).rows if row.row.name == "a").over_zero_shot
    differences = np.array(ours) - np.array(base)
    assert found is not None and found.mean == pytest.approx(differences.mean())
    assert found.se == pytest.approx(differences.std(ddof=1) / N**0.5, rel=0.1)
    assert found.df == N - 1
    assert found.low == pytest.approx(found.mean - 2.0227 * found.se, rel=1e-3)  # t of 39 degrees, 97.5 %


def test_a_generation_run_of_one_seed_has_none(tmp_path):
    results = write(
        tmp_path,
        {("a", "topic", "am"): outcomes(1, 0.8), ("zero-shot", "topic", "am"): outcomes(2, 0.5)},
        ("am",),
    )
    drawn = replace(results, manifest=results.manifest.model_copy(update={"track": "generation"}))
    (row,) = (row for row in rank_entries(drawn, TASK_SCORE).rows if row.row.name == "a")
    assert row.over_zero_shot is not None and row.over_zero_shot.low is None
    assert row.reason == "1 generation seed, 3 are needed"


def test_entries_of_the_track_are_ranked_with_one_seed(tmp_path):
    right, wrong = [1] * N, [0] * N
    right[0], wrong[0] = 0, 1
    results = write(
        tmp_path,
        {
            ("good", "topic", "am"): right,
            ("good", "topic", "he"): right,
            ("zero-shot", "topic", "am"): wrong,
            ("zero-shot", "topic", "he"): wrong,
        },
    )
    ranked = rank_entries(results, TASK_SCORE)
    assert [(row.row.name, row.tier) for row in ranked.rows] == [("good", 1), ("zero-shot", 2)]
    assert not ranked.reason


def test_equal_answers_are_no_difference(tmp_path):
    same = outcomes(3, 0.6)
    results = write(tmp_path, {("a", "topic", "am"): same, ("zero-shot", "topic", "am"): same}, ("am",))
    ranked = rank_entries(results, TASK_SCORE)
    assert {row.tier for row in ranked.rows} == {1}
    (gain,) = (row.over_zero_shot for row in ranked.rows if row.row.name == "a")
    assert gain is not None and (gain.mean, gain.se, gain.p) == (0.0, 0.0, 1.0)


def test_places_without_data_are_not_expected(tmp_path):
    """One task exists in one language alone: who has its three cells is complete."""
    places = [("topic", "am"), ("topic", "he"), ("xnli", "he")]
    answered = {(m, t, c): outcomes(i, 0.5) for m in ("a", "zero-shot") for i, (t, c) in enumerate(places)}
    results = write(tmp_path, answered, tasks=("topic", "xnli"), absent=("xnli/am",))
    assert all(row.expected == row.present == 3 for row in results.entries.values())
    assert collect_metric(results, TASK_SCORE).task_languages == places
    (mean,) = (row.mean for row in rank_entries(results, TASK_SCORE).rows if row.row.name == "a")
    expected = [np.mean(answered["a", t, c]) for t, c in places]
    assert mean is not None and mean.mean == pytest.approx(np.mean(expected))
    shown = board(results)
    assert shown.slice("xnli", "he") is not None and shown.slice("xnli", "am") is None
    assert shown.standings.rows[0].mean is not None


def test_a_check_is_in_no_mean_and_is_shown(tmp_path):
    """English: much worse under steering, and the mean does not know."""
    same, good, bad = outcomes(1, 0.5), [1] * (N - 1) + [0], [0] * (N - 1) + [1]
    results = write(
        tmp_path,
        {
            ("a", "topic", "am"): same,
            ("a", "topic", "en"): bad,
            ("zero-shot", "topic", "am"): same,
            ("zero-shot", "topic", "en"): good,
        },
        ("am",),
        checked=("en",),
    )
    shown, names = board(results), by_name(results)
    assert {row.row.name: format_number(row.mean.mean) for row in shown.standings.rows if row.mean} == {
        "a": format_number(float(np.mean(same))),
        "zero-shot": format_number(float(np.mean(same))),
    }
    check = shown.checks["en"][names["a"]]
    assert check.mean == pytest.approx(np.mean(bad) - np.mean(good))
    assert check.high is not None and check.high < 0
    (mean,) = (row.mean for row in rank_entries(results, TASK_SCORE).rows if row.row.name == "a")
    assert mean is not None and mean.mean == pytest.approx(np.mean(same))


def test_intervals_of_differences_hold_their_level():
    """Two equal models on correlated examples: 95 % intervals hold 0 about 95 times of 100."""
    draw = np.random.default_rng(7)
    held, repeats, n = 0, 400, 60
    for i in range(repeats):
        common = draw.random(n)
        answers = np.stack([(0.7 * common + 0.3 * draw.random(n)) < 0.5 for _ in range(2)]).astype(np.float64)
        weights = draw_weights(f"set {i}", n, 300)
        drawn = inflate_variance((answers @ weights.T / n).astype(np.float32), n)
        panel = CompleteValues(answers.mean(axis=1)[:, None, None], drawn[:, None, None], n, fixed=True)
        found = estimate(panel, {0: 1.0, 1: -1.0})
        held += found.low is None or bool(found.low <= 0 <= found.high)
    assert 0.92 <= held / repeats <= 0.98


def test_outcomes_are_read_for_the_mean_and_labels_for_macro_f1():
    kept = {
        ANSWERS: {
            "examples": "e",
            "outcomes": [1, 0, 0.5],
            "labels": ["a", "b"],
            "gold": [0, 1, 1],
            "predictions": [0, 0, 1],
        }
    }
    mean, labels = load_predictions(TASK_SCORE, kept), load_predictions(TASK_MACRO_F1, kept)
    assert mean is not None and mean.predictions.tolist() == [[1.0, 0.0, 0.5]]
    assert labels is not None and labels.predictions.tolist() == [[0, 0, 1]]
    assert (measure_of(TASK_SCORE), measure_of(TASK_MACRO_F1)) == ("mean", "macro_f1")
    assert measure_of(metric("lm_eval/acc")) is None


@pytest.mark.parametrize("outcomes", [[], [1], [1, 2], [-1, 0], [float("nan"), 1], ["x", 1], "10", None, [[1], [0]]])
def test_outcomes_that_are_none_are_not_resampled(outcomes):
    assert load_predictions(TASK_SCORE, {ANSWERS: {"examples": "e", "outcomes": outcomes}}) is None


def test_a_board_of_the_track_ranks_by_the_task_score(tmp_path):
    results = write(tmp_path, {("zero-shot", "topic", "am"): outcomes(1, 0.5)}, ("am",))
    assert results.headline == TASK_SCORE
    assert results.fixed and Eligibility(results).reason(collect_metric(results, TASK_SCORE), ["x"]) == ""
