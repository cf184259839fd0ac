"""Rankings of tasks, languages and both: numbers by hand, and those of the standings where there are both."""

from __future__ import annotations

import numpy as np
import pytest
from support.helpers import MODEL
from support.toyruns import F1, ToyEntry, collect_results, flat, places, predicting, selection, toy, write_run

from harness.ranking.gains import baselines
from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.results import ResultSet
from harness.ranking.slices import Slice, SliceRanking, rank_slices
from harness.ranking.values import collect_metric
from harness.scoring.metrics import COPIED, LENGTH

WHOLE = selection(["am", "he", "sk"], ["sentiment", "topic"])
OTHER = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
T_2, T_5 = 4.302653, 2.570582  # 97.5 % quantiles of Student's t


def scored(name: str, values, model=MODEL, **config) -> ToyEntry:
    entry = toy(name, model, **config)
    entry.scores[F1] = values
    return entry


def written(folder, *entries: ToyEntry, chosen=WHOLE, **options) -> ResultSet:
    return collect_results(write_run(folder / "run", entries, chosen, **options))


def by_scope(result_set: ResultSet, metric=F1) -> dict[Slice, SliceRanking]:
    return {field.scope: field for field in rank_slices(result_set, metric)}


def ids(result_set: ResultSet) -> dict[str, str]:
    return {row.name: row.id for row in result_set.entries.values()}


def rows(result_set: ResultSet, field: SliceRanking, *names: str) -> list[int]:
    return [field.entries.index(ids(result_set)[name]) for name in names]


# Which scopes


@pytest.mark.parametrize(
    ("codes", "tasks", "expected"),
    [
        (["am"], ["topic"], [(None, None)]),
        (["am"], ["a", "b"], [(None, None), ("a", None), ("b", None)]),
        (["am", "he"], ["topic"], [(None, None), (None, "am"), (None, "he")]),
        (
            ["am", "he"],
            ["a", "b"],
            [
                *[(None, None), ("a", None), ("b", None), (None, "am"), (None, "he")],
                *[("a", "am"), ("a", "he"), ("b", "am"), ("b", "he")],
            ],
        ),
    ],
)
def test_every_part_of_a_suite_comes_once_the_widest_first(tmp_path, codes, tasks, expected):
    chosen = selection(codes, tasks)
    result_set = written(tmp_path, scored("zero-shot", flat(0.5, chosen)), chosen=chosen)
    assert [(field.scope.task, field.scope.language) for field in rank_slices(result_set, F1)] == expected


# Numbers by hand


def stepped(step: dict[str, float], wobble=(0.0, 0.0, 0.0)):
    """Return 0.5 and a step per language, with a wobble over the seeds, of which languages share none."""
    codes = list(step)
    return {
        (task, code, seed): 0.5 + step[code] + wobble[(seed + codes.index(code)) % 3]
        for task, code, seed in places(WHOLE)
    }


def test_means_differences_and_intervals_of_a_language_are_its_own(tmp_path):
    steps = {"am": 0.1, "he": -0.2, "sk": 0.0}
    zero = scored("zero-shot", stepped(dict.fromkeys(steps, 0.0)))
    other = scored("language", stepped(steps, (0.01, -0.01, 0.0)))
    result_set = written(tmp_path, zero, other)
    found = by_scope(result_set)
    error = 0.01 / 3**0.5  # of the mean of three seeds: their standard deviation is 0.01
    for code, step in steps.items():
        for task, halves in ((None, T_5 * error / 2**0.5), ("topic", T_2 * error)):
            field = found[Slice(task, code)]
            i, j = rows(result_set, field, "language", "zero-shot")
            assert field.mean[i] == pytest.approx(0.5 + step)
            assert field.difference[i, j] == pytest.approx(step)
            assert field.ci_half_width[i, j] == pytest.approx(halves)
    field = found[Slice(None, None)]
    i, j = rows(result_set, field, "language", "zero-shot")
    assert field.difference[i, j] == pytest.approx(-0.1 / 3)
    assert field.mean[j] == pytest.approx(0.5)


def test_differences_turn_their_sign_and_intervals_do_not(tmp_path):
    entries = [predicting(toy(f"m{i}"), 0.5 + i / 20, WHOLE, n=60) for i in range(4)]
    for field in rank_slices(written(tmp_path, *entries), F1):
        assert np.array_equal(field.difference, -field.difference.T)
        assert np.array_equal(field.ci_half_width, field.ci_half_width.T)
        assert (np.diag(field.ci_half_width) == 0).all()
        assert np.array_equal(field.p, field.p.T)
        assert field.difference.shape == field.ci_half_width.shape == field.p.shape == (4, 4)


def test_a_language_may_have_tiers_where_all_have_none(tmp_path):
    up = {"am": 0.2, "he": -0.2, "sk": 0.0}
    noise = (0.004, -0.004, 0.0)
    zero = scored("zero-shot", stepped(dict.fromkeys(up, 0.0)))
    found = by_scope(result_set := written(tmp_path, zero, scored("language", stepped(up, noise))))
    zero_shot, language = (ids(result_set)[name] for name in ("zero-shot", "language"))
    assert found[Slice(None, "am")].tiers == {language: 1, zero_shot: 2}
    assert found[Slice(None, "he")].tiers == {zero_shot: 1, language: 2}
    assert found[Slice(None, "sk")].tiers == {zero_shot: 1, language: 1}
    assert found[Slice(None, None)].tiers == {zero_shot: 1, language: 1}


def test_gains_of_a_scope_are_its_differences_to_zero_shot_with_a_p_value(tmp_path):
    up = {"am": 0.2, "he": -0.2, "sk": 0.0}
    zero = scored("zero-shot", stepped(dict.fromkeys(up, 0.0)))
    found = by_scope(result_set := written(tmp_path, zero, scored("language", stepped(up, (0.004, -0.004, 0.0)))))
    zero_shot, language = (ids(result_set)[name] for name in ("zero-shot", "language"))
    for scope, field in found.items():
        assert list(field.gains) == [language]
        gain, same = field.gains[language], field.estimate(language, zero_shot)
        assert (gain.mean, gain.low, gain.high) == pytest.approx((same.mean, same.low, same.high))
        assert (gain.p <= 0.05) == (gain.low > 0 or gain.high < 0), scope
        assert field.comparisons == 1
    assert found[Slice(None, "am")].gains[language].mean == pytest.approx(0.2)


def test_tiers_are_corrected_for_one_test_for_every_pair_of_the_ranked(tmp_path):
    entries = [scored(f"m{i}", flat(0.5 + i / 100, WHOLE)) for i in range(4)]
    result_set = written(tmp_path, *entries, scored("human", flat(0.8, WHOLE)))
    assert {field.comparisons for field in rank_slices(result_set, F1)} == {6}


def test_holm_counts_the_pairs_of_the_ranked_alone(tmp_path):
    entries = [scored(f"m{i}", flat(0.5 + i / 100, WHOLE, (0.0, 0.02, -0.02 * i))) for i in range(3)]
    pair = [scored("human", flat(0.8, WHOLE)), scored("constant", flat(0.1, WHOLE))]
    without = by_scope(written(tmp_path / "without", *entries))
    result_set = written(tmp_path / "with", *entries, *pair)
    for scope, field in by_scope(result_set).items():
        ranked = rows(result_set, field, "m0", "m1", "m2")
        outside = rows(result_set, field, "human", "constant")
        order = rows(result_set, without[scope], "m0", "m1", "m2")
        assert np.array_equal(field.p[np.ix_(ranked, ranked)], without[scope].p[np.ix_(order, order)])
        assert np.isnan(field.p[outside]).all()
        assert np.isnan(field.p[:, outside]).all()
        assert np.isfinite(field.ci_half_width[outside]).all()
        assert set(field.tiers) == {ids(result_set)[f"m{i}"] for i in range(3)}


# The same as the standings


def suite(folder) -> list[ResultSet]:
    """Return boards of one model and of two, with references, a flag and gaps."""
    names = ["zero-shot", "few-shot", "constant", *(f"m{i}" for i in range(5)), "human"]
    entries = [predicting(toy(name), 0.45 + i / 30, WHOLE, n=80) for i, name in enumerate(names)]
    entries[-1].scores[COPIED.for_provider("test")] = flat(0.3, WHOLE)
    more = [
        predicting(toy(name, OTHER), 0.5 + i / 15, WHOLE, n=80) for i, name in enumerate(["zero-shot", "m0", "m1", "x"])
    ]
    gone = [("m1", "topic", "he", 2), ("m2", "sentiment", "am", 1)]
    return [written(folder / "one", *entries, drop=gone), written(folder / "two", *entries, *more, drop=gone)]


@pytest.mark.parametrize("shared", [False, True], ids=["gathered", "shared"])
def test_all_and_every_task_are_as_in_the_standings(tmp_path, shared):
    for result_set in suite(tmp_path):
        evidence = collect_metric(result_set, F1) if shared else None
        found = {field.scope: field for field in rank_slices(result_set, F1, evidence)}
        zero_shot = baselines(result_set, "zero-shot")
        for task in (None, *WHOLE.tasks):
            field, tasks = found[Slice(task, None)], None if task is None else [task]
            table = rank_entries(result_set, F1, tasks, array=evidence)
            assert field.tiers == {row.row.id: row.tier for row in table.rows if row.tier is not None}
            assert len(field.tiers) >= 4
            assert field.reason == table.reason == ""
            means = {row.row.id: row.mean.mean for row in table.rows if row.mean}
            assert dict(zip(field.entries, field.mean.tolist(), strict=True)) == means
            for gain in (row for row in table.rows if row.over_zero_shot):
                i, j = (field.entries.index(name) for name in (gain.row.id, zero_shot[gain.row.id]))
                estimate = gain.over_zero_shot
                assert field.difference[i, j] == estimate.mean
                assert estimate.mean - field.ci_half_width[i, j] == estimate.low


def test_the_grid_of_languages_has_the_numbers_of_every_language(tmp_path):
    """Also where tests differ in size: the degrees of freedom are those of the language's own examples."""
    chosen = selection(["am", "he"], ["topic"])
    entries = [toy(name) for name in ("zero-shot", "m0", "m1")]
    for i, entry in enumerate(entries):
        few = predicting(toy("x"), 0.5 + i / 10, chosen, n=30, examples="few")
        predicting(entry, 0.5 + i / 10, chosen, n=400, examples="many")
        for place in places(chosen)[:3]:
            entry.kept[place], entry.scores[F1][place] = few.kept[place], few.scores[F1][place]
    result_set = written(tmp_path, *entries, chosen=chosen)
    found, zero_shot = by_scope(result_set), baselines(result_set, "zero-shot")
    for row in rank_entries(result_set, F1).rows:
        for code, cell in row.languages.items():
            field = found[Slice(None, code)]
            i, j = (field.entries.index(name) for name in (row.row.id, zero_shot[row.row.id]))
            assert cell.gain.mean == field.difference[i, j]
            assert cell.gain.high == cell.gain.mean + field.ci_half_width[i, j]
        assert len(row.languages) == (0 if row.row.name == "zero-shot" else 2)


def test_standings_of_shared_evidence_have_the_same_bits(tmp_path):
    for result_set in suite(tmp_path):
        evidence = collect_metric(result_set, F1)
        for tasks in (None, ["topic"], ["sentiment"]):
            assert rank_entries(result_set, F1, tasks, array=evidence) == rank_entries(result_set, F1, tasks)


def test_a_scope_is_as_if_nothing_else_had_been_run(tmp_path):
    """The entries, their numbers, tiers and p of one language are those of a run of that language."""
    chosen = selection(["he"], WHOLE.tasks)
    names = ["zero-shot", "m0", "m1", "m2", "human"]
    alone = [predicting(toy(name), 0.45 + i / 15, chosen, n=80) for i, name in enumerate(names)]
    whole = [predicting(toy(name), 0.45 + i / 15, WHOLE, n=80) for i, name in enumerate(names)]
    [one] = [f for f in rank_slices(written(tmp_path / "a", *alone, chosen=chosen), F1) if f.scope.task is None]
    other = by_scope(written(tmp_path / "b", *whole))[Slice(None, "he")]
    assert (one.entries, one.tiers, one.reason) == (other.entries, other.tiers, other.reason)
    for name in ("mean", "difference", "ci_half_width", "p"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)


def test_an_entry_is_ranked_where_it_is_complete(tmp_path):
    [result_set, _] = suite(tmp_path)
    found, m1 = by_scope(result_set), ids(result_set)["m1"]
    inside = {scope for scope, field in found.items() if m1 in field.entries}
    assert {scope for scope, field in found.items() if m1 in field.tiers} == inside
    lacks = {Slice(None, None), Slice("topic", None), Slice(None, "he"), Slice("topic", "he")}
    assert set(found) - inside == lacks


def test_models_are_ranked_by_gains_over_their_own_zero_shot(tmp_path):
    [_, result_set] = suite(tmp_path)
    for field in rank_slices(result_set, F1):
        bases = [name for name in field.tiers if result_set.entries[name].entry.method.name == "zero-shot"]
        i, j = (field.entries.index(name) for name in bases)
        assert field.p[i, j] == 1  # both gain nothing over themselves
        assert field.tiers[bases[0]] == field.tiers[bases[1]]
        assert field.difference[i, j] != 0


# Where something is not known


def test_unpaired_test_examples_of_one_language_leave_the_others_their_draws(tmp_path):
    entries = [predicting(toy(f"m{i}"), 0.5 + i / 10, WHOLE, n=80) for i in range(3)]
    plain = by_scope(written(tmp_path / "a", *entries))
    entries[0].kept["topic", "he", 2] = {**entries[0].kept["topic", "he", 2], "examples": "others"}
    broken = by_scope(written(tmp_path / "b", *entries))
    for scope, field in broken.items():
        same = np.array_equal(field.ci_half_width, plain[scope].ci_half_width)
        touched = scope.task in (None, "topic") and scope.language in (None, "he")
        assert same != touched
        assert np.array_equal(field.mean, plain[scope].mean)


def test_with_one_seed_there_are_differences_without_intervals_and_no_tiers(tmp_path):
    chosen = selection(["am", "he"], ["topic"], seeds=[1])
    entries = [predicting(toy(f"m{i}"), 0.5 + i / 10, chosen) for i in range(3)]
    for field in rank_slices(written(tmp_path, *entries, chosen=chosen), F1):
        assert field.reason == "1 generation seed, 3 are needed"
        assert field.tiers == {}
        assert np.isfinite(field.difference).all()
        assert np.isnan(field.ci_half_width[np.triu_indices(3, 1)]).all()
        assert np.isnan(field.p).all()


def test_what_has_no_better_side_has_differences_and_no_tiers(tmp_path):
    entries = [toy("zero-shot"), toy("language")]
    for i, entry in enumerate(entries):
        entry.scores[LENGTH] = flat(80.0 + i, WHOLE)
    for field in rank_slices(written(tmp_path, *entries), LENGTH):
        assert field.reason == "length has no better and no worse"
        assert sorted(np.abs(field.difference).ravel()) == pytest.approx([0, 0, 1, 1])


def test_where_nobody_is_complete_a_scope_is_empty(tmp_path):
    gone = [(name, "topic", "sk", 3) for name in ("zero-shot", "language")]
    entries = [scored(name, flat(0.5, WHOLE)) for name in ("zero-shot", "language")]
    found = by_scope(written(tmp_path, *entries, drop=gone))
    empty = found[Slice("topic", "sk")]
    assert (empty.entries, empty.tiers) == ([], {})
    assert empty.reason == "no entry is complete and without flags"
    assert empty.mean.shape == (0,)
    assert empty.difference.shape == (0, 0)
    assert len(found[Slice("topic", "am")].tiers) == 2


def test_a_language_of_which_nothing_is_there_is_empty(tmp_path):
    entries = [predicting(toy(name), 0.6, WHOLE) for name in ("zero-shot", "language")]
    gone = [(name, *place) for name in ("zero-shot", "language") for place in places(WHOLE) if place[1] == "sk"]
    result_set = written(tmp_path, *entries, drop=gone)
    found = by_scope(result_set)
    assert found[Slice(None, "sk")].entries == found[Slice("topic", "sk")].entries == []
    assert len(found[Slice(None, "am")].tiers) == 2
    assert all(set(row.languages) <= {"am", "he"} for row in rank_entries(result_set, F1).rows)


def test_another_recipe_in_one_language_bars_the_scopes_that_hold_it(tmp_path):
    entries = [scored(name, flat(0.5, WHOLE)) for name in ("zero-shot", "language")]
    run = write_run(tmp_path / "run", entries, WHOLE)
    for path in run.path.glob("cells/*/status.json"):
        text = path.read_text(encoding="utf-8")
        if '"he"' in text and '"topic"' in text and '"seed": 1' in text:
            scores = path.with_name("scores.json")
            scores.write_text(scores.read_text(encoding="utf-8").replace("recipe 1", "recipe 2"))
    for field in rank_slices(collect_results(run), F1):
        touched = field.scope.task in (None, "topic") and field.scope.language in (None, "he")
        assert bool(field.reason) == touched
        assert field.reason.startswith("scored in different ways, topic/he") == touched
