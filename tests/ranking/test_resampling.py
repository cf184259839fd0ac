"""Resampled test examples: the stored score again, and why predictions are not used."""

from __future__ import annotations

import numpy as np
import pytest
from support.rankings import AM, field_of
from support.toyruns import F1, collect_results, flat, macro, predicting, selection, toy, write_run

from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.stats.resampling import Predictions, bootstrap_scores, draw_weights
from harness.ranking.values import collect_metric
from harness.scoring.metrics import ACCURACY


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
    drawn = collect_metric(collect_results(write_run(tmp_path / "run", [entry], AM)), F1).draws[0, 0, 0]
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
    evidence = collect_metric(collect_results(run), F1)
    assert evidence.draws is None
    assert evidence.note.endswith("no predictions are kept of zero-shot in sentiment/am, seed 2")


def test_an_unreadable_file_of_predictions_takes_the_draws_and_not_the_scores(tmp_path):
    run = write_run(tmp_path / "run", [predicting(toy("zero-shot"), 0.5, AM)], AM)
    path = next(run.path.glob("cells/*/predictions.json.gz"))
    path.write_bytes(b"not gzip")
    found = rank_entries(collect_results(run), F1)
    assert found.rows[0].mean is not None
    assert "is not a gzip file or is damaged" in found.notes[0]


def test_valid_text_has_predictions_of_its_own_only_where_they_differ(tmp_path):
    entry = predicting(toy("zero-shot"), 0.6, AM)
    entry.scores[F1.on_valid_texts] = dict(entry.scores[F1])
    cell = entry.kept["sentiment", "am", 1]
    cell["predictions"][F1.on_valid_texts.name] = {"0": cell["gold"]}  # after training on valid text all were right
    entry.scores[F1.on_valid_texts]["sentiment", "am", 1] = 1.0
    result_set = collect_results(write_run(tmp_path / "run", [entry], AM))
    evidence = collect_metric(result_set, F1.on_valid_texts)
    assert evidence.note == ""
    assert np.all(evidence.draws[0, 0, 0] == 1.0)
    assert np.array_equal(evidence.draws[0, 0, 1], collect_metric(result_set, F1).draws[0, 0, 1])


def test_accuracy_is_drawn_from_the_same_predictions(tmp_path):
    entry = predicting(toy("zero-shot"), 0.6, AM)
    measured = ACCURACY.for_provider("tfidf")
    right = {
        place: float(np.mean(np.array(cell["gold"]) == np.array(cell["predictions"][F1.name]["0"])))
        for place, cell in entry.kept.items()
    }
    entry.scores[measured] = right
    evidence = collect_metric(collect_results(write_run(tmp_path / "run", [entry], AM)), measured)
    assert evidence.draws.shape == (1, 1, 3, 1000)
    assert evidence.draws[0, 0, 0].mean() == pytest.approx(right["sentiment", "am", 1], abs=0.01)
