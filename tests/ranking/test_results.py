"""Result sets of invented scores: which runs share one, and numbers that can be checked with pencil and paper."""

from __future__ import annotations

import numpy as np
import pytest
from support.helpers import MODEL, generations, key, method, toy_manifest

from harness.core.cells import cell_id, entry_id, entry_of
from harness.core.records import CellScores, CellStatus, Entry, MethodIdentity, ModelIdentity, Selection
from harness.core.store import Run
from harness.ranking.gains import entry_means
from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.results import collect, to_array
from harness.ranking.values import collect_metric
from harness.scoring.metrics import DISTINCT_2, LANGUAGE_FIDELITY, SELF_CHRF, macro_f1

F1 = macro_f1("tfidf")
ZERO, STEERED, HUMAN = method("zero-shot"), method("language", strength=0.2), method("human")
SELECTION = Selection(
    languages=["am", "he"], tasks=["sentiment"], settings=["zero-shot"], seeds=[1, 2], texts_per_label={"sentiment": 2}
)
# macro-F1 by method, language and seed           am: 1, 2    he: 1, 2     mean    of seed 1, 2
TABLE = {
    "zero-shot": {"am": (0.30, 0.40), "he": (0.50, 0.60)},  # 0.450   0.40, 0.50
    "language": {"am": (0.40, 0.50), "he": (0.50, 0.60)},  #  0.500   0.45, 0.55
    "human": {"am": (0.80, 0.80), "he": (0.80, 0.90)},  #     0.825   0.80, 0.85
}
CHRF = {"zero-shot": 50.0, "language": 40.0, "human": 30.0}
METHODS = {m.name: m for m in (ZERO, STEERED, HUMAN)}


def cell(name: str, language: str, seed: int, model: ModelIdentity | None = MODEL, **changes):
    reference = name == "human"
    fields = {
        "method": METHODS[name],
        "model": None if reference else model,
        "setting": "none" if reference else "zero-shot",
        "language": language,
        "seed": seed,
    }
    return key(**{**fields, **changes})


def entry(identity: MethodIdentity, model: ModelIdentity | None = MODEL) -> Entry:
    reference = identity.name == "human"
    return Entry(method=identity, model=None if reference else model, setting="none" if reference else "zero-shot")


def write(run: Run, cell_key, *scores) -> None:
    """Write one finished cell with scores."""
    name = cell_id(cell_key)
    run.write_cell(name, CellStatus(cell=cell_key, state="ok"), generations({"a": ["x"]}))
    record = CellScores(cell_id=name, generations_sha256="0", protocol="p", scores=list(scores))
    run.write_scores(record, {})


def drop(run: Run, cell_key) -> None:
    """Take a cell out of a run."""
    folder = run.cell(cell_id(cell_key))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def make(path, model: ModelIdentity = MODEL, **manifest) -> Run:
    """Write a run with three entries, two languages and two seeds."""
    run = Run(path)
    entries = [entry(identity, model) for identity in METHODS.values()]
    fields = {"model": model, "entries": entries, "selection": SELECTION, **manifest}
    run.write_manifest(toy_manifest(**fields))
    for name, by_language in TABLE.items():
        for language, values in by_language.items():
            for seed, value in zip((1, 2), values, strict=True):
                scores = [F1.score(value, "tfidf"), SELF_CHRF.score(CHRF[name], "chrf")]
                write(run, cell(name, language, seed, model), *scores)
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return make(tmp_path / "run")


def rows(*runs: Run, metric=F1, tasks=None):
    """Return the rows of the only table by name, the best first."""
    [result_set] = collect(runs)
    return {row.row.name: row for row in rank_entries(result_set, metric, tasks).rows}


def means(*runs: Run, language: str | None = None, tasks=None):
    """Return the means of complete entries, over all languages or one."""
    [result_set] = collect(runs)
    found = entry_means(collect_metric(result_set, F1, tasks).select(languages=language and [language]))
    return {result_set.entries[name].name: mean.mean for name, mean in found.items()}


def gains_of(row):
    return {code: cell.gain.mean for code, cell in row.languages.items()}


# Numbers


def test_the_mean_of_an_entry_is_over_all_its_cells(run):
    assert means(run) == pytest.approx({"human": 0.825, "language": 0.5, "zero-shot": 0.45})


def test_a_language_has_the_mean_of_its_own_cells(run):
    assert [means(run, language=code)["zero-shot"] for code in ("am", "he")] == pytest.approx([0.35, 0.55])


def test_the_gain_is_the_mean_of_paired_differences_to_zero_shot(run):
    found = rows(run)
    assert found["language"].over_zero_shot.mean == pytest.approx(0.05)
    assert gains_of(found["language"]) == pytest.approx({"am": 0.1, "he": 0})
    assert found["human"].over_zero_shot.mean == pytest.approx(0.375)


def test_the_baseline_has_no_gain_over_itself(run):
    baseline = rows(run)["zero-shot"]
    assert (baseline.over_zero_shot, baseline.languages) == (None, {})


def test_without_the_baseline_there_is_no_gain(run):
    for language in ("am", "he"):
        for seed in (1, 2):
            drop(run, cell("zero-shot", language, seed))
    row = rows(run)["language"]
    assert (row.mean.mean, row.over_zero_shot, row.languages) == (pytest.approx(0.5), None, {})


def test_a_gap_in_the_baseline_takes_only_the_gains_that_need_it(run):
    drop(run, cell("zero-shot", "he", 2))
    row = rows(run)["language"]
    assert row.over_zero_shot is None
    assert gains_of(row) == pytest.approx({"am": 0.1})


def test_scores_become_an_array_over_any_of_their_columns(run):
    [result_set] = collect([run])
    scores = result_set.scores[result_set.scores["metric"] == F1.name]
    ids = {row.name: name for name, row in result_set.entries.items()}
    axes = {"entry": [ids["human"], "unknown", ids["zero-shot"]], "language": ["he", "am"], "seed": [2]}
    found = to_array(scores, axes)
    assert found[[0, 2]].ravel().tolist() == [0.9, 0.8, 0.6, 0.4]
    assert np.isnan(found[1]).all()
    assert np.isnan(to_array(scores, axes, "human")).all()


# Order


def test_higher_scores_stand_first_where_up_is_better(run):
    assert list(rows(run)) == ["human", "language", "zero-shot"]


def test_lower_scores_stand_first_where_down_is_better(run):
    found = rows(run, metric=SELF_CHRF)
    assert [(name, row.mean.mean) for name, row in found.items()] == [
        ("human", 30.0),
        ("language", 40.0),
        ("zero-shot", 50.0),
    ]


def test_entries_without_an_aggregate_stand_last(run):
    drop(run, cell("human", "am", 1))
    assert list(rows(run)) == ["language", "zero-shot", "human"]


# Incomplete entries


def incomplete(run: Run, name: str):
    [result_set] = collect([run])
    return next(row for row in result_set.entries.values() if row.name == name)


def test_a_complete_entry_has_all_its_cells(run):
    row = incomplete(run, "language")
    assert (row.present, row.expected, row.complete, row.missing) == (4, 4, True, [])


def test_an_entry_that_lacks_a_cell_has_no_aggregate(run):
    drop(run, cell("language", "am", 2))
    row = rows(run)["language"]
    assert (row.mean, row.over_zero_shot) == (None, None)
    assert "language" not in means(run, language="am")
    assert means(run, language="he")["language"] == pytest.approx(0.55)


def test_a_missing_cell_is_listed_with_its_reason(run):
    drop(run, cell("language", "am", 1))
    for language, state, reason in (("am", "method_error", "ValueError: no"), ("he", "skipped", "too hot")):
        status = CellStatus(cell=cell("language", language, 2), state=state, reason=reason)
        name = cell_id(status.cell)
        drop(run, status.cell)
        run.write_cell(name, status, [])
    row = incomplete(run, "language")
    assert (row.present, row.expected, row.complete) == (1, 4, False)
    assert [(item.language, item.seed, item.reason) for item in row.missing] == [
        ("am", 1, "not run"),
        ("am", 2, "method_error: ValueError: no"),
        ("he", 2, "skipped: too hot"),
    ]


def test_texts_without_scores_are_a_missing_cell(run):
    (run.cell(cell_id(cell("language", "he", 1))) / "scores.json").unlink()
    [missing] = incomplete(run, "language").missing
    assert missing.reason == "ok: generated, not yet scored"


def test_a_score_without_a_value_leaves_no_aggregate_but_a_complete_entry(run):
    write(run, cell("language", "am", 1), F1.score(None, "tfidf", "no text"), SELF_CHRF.score(40.0, "chrf"))
    row = rows(run)["language"]
    assert (row.mean, row.present) == (None, 3)
    assert means(run, language="he")["language"] == pytest.approx(0.55)
    assert incomplete(run, "language").complete


def test_an_entry_that_never_ran_is_still_a_row(run):
    later = method("quality")
    entries = [*run.manifest().entries, entry(later)]
    run.write_manifest(run.manifest().model_copy(update={"entries": entries}))
    row = incomplete(run, "quality")
    assert (row.present, row.expected) == (0, 4)


# What may share a table


OTHER = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})


def test_two_models_share_a_table_and_each_has_its_own_baseline(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", OTHER)
    [result_set] = collect([one, two])
    found = [(row.entry.model, row.name) for row in result_set.entries.values()]
    assert len(found) == len(set(map(str, found))) == 5  # two rows per model, and one for human text
    ranked = rank_entries(result_set, F1).rows
    gains = [row.over_zero_shot.mean for row in ranked if row.row.entry.method.name == "language"]
    assert gains == [pytest.approx(0.05), pytest.approx(0.05)]


def test_a_reference_that_two_runs_hold_counts_once(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", OTHER)
    assert rows(one, two)["human"].present == 4


def test_half_a_reference_in_each_of_two_runs_is_not_a_whole_one(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", OTHER)
    for run in (one, two):
        for seed in (1, 2):
            drop(run, cell("human", "am", seed))
    row = rows(one, two)["human"]
    assert (row.mean, row.present) == (None, 2)


def test_a_cell_missing_in_one_run_is_taken_from_the_other(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", OTHER)
    drop(one, cell("human", "am", 1))
    assert rows(one, two)["human"].mean.mean == pytest.approx(0.825)


def test_the_same_run_given_twice_changes_nothing(run):
    assert rows(run, run) == rows(run)


def test_reference_rows_have_no_gain_where_two_baselines_compete(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", OTHER)
    assert rows(one, two)["human"].over_zero_shot is None


@pytest.mark.parametrize(
    "change",
    [
        {"suite_hash": "other"},
        {"selection": SELECTION.model_copy(update={"texts_per_label": {"sentiment": 9}})},
        {"selection": SELECTION.model_copy(update={"seeds": [1, 2, 3]})},
        {"selection": SELECTION.model_copy(update={"languages": ["am", "he", "su"]})},
        {"data_hashes": {"sentiment/am": "other"}},
    ],
    ids=["suite", "limit", "seeds", "languages", "data"],
)
def test_what_cannot_be_compared_never_shares_a_table(tmp_path, change):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", OTHER, **change)
    sets = collect([one, two])
    assert [len(result_set.entries) for result_set in sets] == [3, 3]


# Names and metrics


def test_entries_that_differ_in_config_are_told_apart_by_it(run):
    stronger = method("language", strength=0.6)
    entries = [*run.manifest().entries, entry(stronger)]
    run.write_manifest(run.manifest().model_copy(update={"entries": entries}))
    [result_set] = collect([run])
    names = {row.name for row in result_set.entries.values()}
    assert names == {"zero-shot", "language [strength=0.2]", "language [strength=0.6]", "human"}


def test_an_entry_is_found_by_the_id_of_its_cells(run):
    [result_set] = collect([run])
    assert result_set.entries[entry_id(entry_of(cell("language", "am", 1)))].name == "language"


def test_the_first_classifier_of_the_suite_that_ran_is_the_headline(tmp_path):
    classifiers = {"name": "toy", "classifiers": ["hf:big", "tfidf"]}
    run = make(tmp_path / "run", suite=classifiers)
    [result_set] = collect([run])
    assert result_set.headline == F1
    write(run, cell("human", "am", 1), macro_f1("hf:big").score(0.5, "hf"), F1.score(0.8, "tfidf"))
    [result_set] = collect([run])
    assert result_set.headline == macro_f1("hf:big")


def test_metrics_are_listed_downstream_first(run):
    [result_set] = collect([run])
    assert result_set.metrics == [F1, SELF_CHRF]
    assert (DISTINCT_2.direction, LANGUAGE_FIDELITY.direction, SELF_CHRF.direction) == ("up", "up", "down")


def test_signatures_are_collected_so_that_a_mixture_shows(run):
    write(run, cell("human", "am", 1), F1.score(0.8, "tfidf|version:2"))
    [result_set] = collect([run])
    assert result_set.signatures["macro_f1/tfidf"] == ["tfidf", "tfidf|version:2"]


def test_one_task_can_be_shown_alone(tmp_path):
    both = SELECTION.model_copy(
        update={"tasks": ["sentiment", "topic"], "texts_per_label": {"sentiment": 2, "topic": 2}}
    )
    run = make(tmp_path / "run", selection=both)
    for language in ("am", "he"):
        for seed in (1, 2):
            write(run, cell("zero-shot", language, seed, task="topic"), F1.score(0.1, "tfidf"))
    for tasks, mean in ((["topic"], 0.1), (["sentiment"], 0.45), (None, (0.45 + 0.1) / 2)):
        assert rows(run, tasks=tasks)["zero-shot"].mean.mean == pytest.approx(mean)
