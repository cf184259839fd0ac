"""The gate's verdicts, refusals and baseline files. Numbers can be checked by hand."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.helpers import environment, second_process, steerboard
from support.toyruns import F1, ToyEntry, flat, predicting, selection, toy, write_run

from harness.core.errors import UserError
from harness.core.files import canonical_json, digest
from harness.ranking.gate.baseline import Spread, Tolerance, read_baseline
from harness.ranking.gate.calibrate import bound, default_tolerance, measure_spread, parse_tolerances
from harness.ranking.gate.difference import SideValues, critical, independent, min_detectable_loss, paired
from harness.ranking.gate.verdicts import Filter
from harness.ranking.stats.estimates import CompleteValues, estimate
from harness.scoring.metrics import COPIED, LENGTH, SELF_CHRF, VALID_SHARE, VENDI, Metric

LANGUAGES = ["am", "cs", "da", "de", "he", "id", "jv", "mt"]
CHOSEN = selection(LANGUAGES)
OTHER = selection(LANGUAGES, seeds=(4, 5, 6))


def scored(name: str, value: float, metric: Metric = F1, chosen=CHOSEN, wobble=(0, 0.01, -0.01)) -> ToyEntry:
    entry = toy(name)
    entry.scores[metric] = flat(value, chosen, wobble)
    return entry


def run_at(folder: Path, value: float = 0.6, chosen=CHOSEN, wobble=(0, 0.01, -0.01), **more) -> Path:
    """Write a run with one entry; other wobbles are of other texts."""
    return write_run(folder, [scored("m", value, chosen=chosen, wobble=wobble)], chosen, **more).path


def baseline(tmp_path: Path, *runs: Path, **options) -> Path:
    out = tmp_path / "base.json.gz"
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = steerboard("gate", "calibrate", *(runs or [run_at(tmp_path / "old")]), "--out", out, *words)
    assert done.code == 0, done.err
    return out


def gate(run: Path, against: Path, *options) -> tuple[int, dict]:
    done = steerboard("gate", run, "--against", against, "--format", "json", *options)
    assert not done.err, done.err
    return done.code, json.loads(done.out)


def only(found: dict) -> dict:
    [line] = found["results"]
    return line


# Differences


def test_with_common_seeds_the_difference_is_that_of_compare():
    draw = np.random.default_rng(1)
    base, new = (SideValues(draw.random((4, 3))) for _ in range(2))
    found, other = paired(base, new), estimate(CompleteValues(np.stack([base.values, new.values])), {1: 1.0, 0: -1.0})
    assert (found.mean[0], found.se[0], found.df[0], found.p[0]) == (other.mean, other.se, other.df, other.p)


def test_with_other_seeds_the_difference_is_welchs():
    base, new = np.array([[0.1, 0.2, 0.3]]), np.array([[0.5, 0.7, 0.9, 0.7]])
    found = independent(SideValues(base), SideValues(new)).moments
    assert found.mean[0] == pytest.approx(0.5)
    assert found.se[0] == pytest.approx((0.01 / 3 + (0.08 / 3) / 4) ** 0.5)
    oracle = stats.ttest_ind(new[0], base[0], equal_var=False)
    assert found.mean[0] / found.se[0] == pytest.approx(oracle.statistic)
    assert found.seeds_df[0] == pytest.approx(oracle.df)


def test_with_other_seeds_the_strata_are_averaged():
    base, new = np.array([[0.1, 0.3], [0.5, 0.5]]), np.array([[0.2, 0.2], [0.6, 1.0]])
    found = independent(SideValues(base), SideValues(new)).moments
    assert found.mean[0] == pytest.approx((0.0 + 0.3) / 2)
    assert found.se[0] == pytest.approx(((0.02 / 2 + 0.08 / 2) / 4) ** 0.5)


def test_the_same_examples_stay_paired_under_other_seeds():
    draw = np.random.default_rng(2)
    shared = draw.normal(size=200).astype(np.float32) / 10  # what the test set does to everybody
    side = SideValues(np.full((2, 3), 0.5), np.broadcast_to(shared, (2, 3, 200)) + np.float32(0.5), 100)
    alike = independent(side, SideValues(side.values + 0.1, side.draws + np.float32(0.1), 100)).moments
    assert alike.examples[0] == pytest.approx(0.0, abs=1e-9)
    other = SideValues(side.values, (0.5 - np.broadcast_to(shared, (2, 3, 200))).astype(np.float32), 100)
    assert independent(side, other).moments.examples[0] == pytest.approx(4 * shared.var(ddof=1), rel=1e-3)


@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
def test_a_difference_of_the_critical_size_has_that_p(level):
    draw = np.random.default_rng(3)
    values, noise = (
        draw.random((3, 4)),
        draw.normal(size=(2, 1, 1, 500)) / 10 + draw.normal(size=(2, 3, 4, 500)) / 30,
    )
    base, new = (SideValues(values, (0.5 + part).astype(np.float32), 50) for part in noise)
    found = independent(base, SideValues(new.values + draw.random((3, 4)) / 9, new.draws, 50)).moments
    assert found.examples[0] > 0
    at = replace(found, mean=critical(found, level) * found.se)
    assert at.p[0] == pytest.approx(level, rel=1e-6)


def test_what_could_have_been_found_needs_significance_and_the_bound():
    found = independent(SideValues(np.array([[0.1, 0.2, 0.3]])), SideValues(np.array([[0.1, 0.2, 0.3]]))).moments
    rest = stats.t.ppf(0.8, found.df[0]) * found.se[0]
    assert min_detectable_loss(found, 0.05, 0.0) == pytest.approx(critical(found, 0.05) * found.se[0] + rest)
    assert min_detectable_loss(found, 0.05, 9.0) == pytest.approx(9 + rest)


def test_nothing_is_found_where_the_cells_are_too_few_for_any_p():
    flat_side = SideValues(np.full((1, 3), 0.5))
    assert min_detectable_loss(independent(flat_side, flat_side).moments, 0.05, 0.0) == float("inf")
    many = SideValues(np.full((4, 3), 0.5))
    assert min_detectable_loss(independent(many, many).moments, 0.05, 0.01) == 0.01


# The bound


def test_the_bound_of_one_run_is_the_spread_of_its_seeds():
    found = measure_spread([np.array([[[0.1, 0.2, 0.3]]])], ["topic"])
    assert found.variance == {"topic": pytest.approx(0.01)}
    assert (found.df, found.factor) == (2, 1)
    assert found.bound == pytest.approx(stats.t.ppf(0.975, 2) * (0.01 * 2 / 3) ** 0.5)


def test_entries_that_never_vary_do_not_shrink_the_bound():
    varying, constant = [[0.1, 0.2, 0.3]], [[0.5, 0.5, 0.5]]
    found = measure_spread([np.array([varying, constant])], ["topic"])
    assert found.variance["topic"] == pytest.approx(0.01)


def test_runs_that_differ_more_than_their_seeds_raise_the_bound():
    tasks, base = ["topic"] * 2, np.array([[[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]])
    alike = measure_spread([base, base], tasks)
    apart = measure_spread([base, base + 0.3], tasks)
    assert (alike.factor, alike.df) == (1, 8)
    assert apart.factor == pytest.approx((0.3**2 / 2) / (0.01 / 3 / 2))
    assert apart.df == 1


def test_fewer_strata_or_seeds_have_a_larger_bound():
    found = Spread(variance={"topic": 0.01}, df=1000)
    assert bound(found, ["topic"], 3, 3) == pytest.approx(2 * bound(found, ["topic"] * 4, 3, 3))
    assert bound(found, ["topic"], 3, 3) == pytest.approx(2**0.5 * bound(found, ["topic"], 6, 6))


# Verdicts through the command


@pytest.mark.parametrize(
    ("value", "verdict", "code"),
    [(0.3, "worse", 1), (0.9, "better", 0), (0.601, "same", 0)],
)
@pytest.mark.parametrize("chosen", [CHOSEN, OTHER], ids=["same seeds", "other seeds"])
def test_worse_better_and_same(tmp_path, value, verdict, code, chosen):
    new = run_at(tmp_path / "new", value, chosen, wobble=(0.01, 0, -0.01))
    found = gate(new, baseline(tmp_path))
    assert (found[0], found[1]["verdict"], only(found[1])["verdict"]) == (code, verdict, verdict)


def test_less_is_better_where_it_is(tmp_path):
    old = write_run(tmp_path / "old", [scored("m", 0.5), scored("n", 0.5)], CHOSEN)
    for name, entry in (("a", 40.0), ("b", 30.0)):
        both = scored("m", 0.5)
        both.scores[SELF_CHRF] = flat(entry, CHOSEN, (0, 0.1, -0.1))
        write_run(tmp_path / name, [both], CHOSEN)
    assert old.exists()
    done = gate(tmp_path / "b", baseline(tmp_path, tmp_path / "a"))
    assert {line["metric"]: line["verdict"] for line in done[1]["results"]}["self_chrf"] == "better"
    assert gate(tmp_path / "a", tmp_path / "b")[0] == 1


def test_identical_texts_are_the_same_at_once(tmp_path):
    found = gate(run_at(tmp_path / "new"), baseline(tmp_path))
    assert found[0] == 0
    assert (only(found[1])["verdict"], only(found[1])["reason"]) == ("same", "identical")


def test_a_clear_difference_below_the_bound_is_the_same(tmp_path):
    wild = scored("wild", 0.5, wobble=(0, 0.06, -0.06))
    old = write_run(tmp_path / "old", [scored("m", 0.6, wobble=(0, 0, 0.0001)), wild], CHOSEN)
    new = write_run(tmp_path / "new", [scored("m", 0.599, wobble=(0, 0, 0.0001)), wild], CHOSEN)
    done = gate(new.path, baseline(tmp_path, old.path, tolerance="macro_f1/tfidf=0.2"))
    line = next(line for line in done[1]["results"] if line["entry"] == "m")
    assert line["p_holm"] < 1e-3
    assert line["bound"] > 0.001
    assert (done[0], line["verdict"]) == (0, "same")


def test_a_loss_of_one_task_is_not_hidden_by_holm_over_identical_lines(tmp_path):
    """What is identical is no test: only what could differ is corrected for."""
    rest = [scored(f"m{i}", 0.5) for i in range(20)]
    old = write_run(tmp_path / "old", [scored("m", 0.6), *rest], CHOSEN)
    new = write_run(tmp_path / "new", [scored("m", 0.5, wobble=(0.01, 0, -0.01)), *rest], CHOSEN)
    code, found = gate(new.path, baseline(tmp_path, old.path))
    [line] = [line for line in found["results"] if line["verdict"] == "worse"]
    alone = gate(new.path, tmp_path / "base.json.gz", "--methods", "m")[1]
    assert (code, line["p_holm"]) == (1, only(alone)["p_holm"])


def test_a_gate_without_power_never_says_same(tmp_path):
    wild = (0, 0.3, -0.3)
    few = selection(["am", "he"])
    old = run_at(tmp_path / "old", 0.5, few, wild)
    found = gate(run_at(tmp_path / "new", 0.5, few, (0.3, -0.3, 0)), baseline(tmp_path, old))
    assert found[0] == 2
    assert only(found[1])["reason"].startswith("too few seeds to detect a loss of 0.05; the minimum detectable loss is")


def test_two_seeds_cannot_tell(tmp_path):
    two = selection(LANGUAGES, seeds=(1, 2))
    found = gate(run_at(tmp_path / "new", 0.1, two), baseline(tmp_path))
    assert found[0] == 2
    assert only(found[1])["reason"] == "too few seeds: the run has 2 to compare, 3 are needed"


def test_a_missing_language_cannot_be_told_but_where_it_is_left_out_on_purpose(tmp_path):
    new = run_at(tmp_path / "new", 0.6, selection(LANGUAGES[1:]), (0.01, 0, -0.01))
    against = baseline(tmp_path)
    code, found = gate(new, against)
    assert code == 2
    assert only(found)["reason"] == "3 of 24 cells missing from the run (sentiment/am: 3 × not run)"
    code, found = gate(new, against, "--languages", ",".join(LANGUAGES[1:]))
    assert (code, found["notes"][0]) == (0, "only languages: " + ", ".join(LANGUAGES[1:]))


def test_a_failed_cell_cannot_be_told_and_says_why(tmp_path):
    new = run_at(tmp_path / "new", 0.6, drop=[("m", "sentiment", "he", 2)])
    code, found = gate(new, baseline(tmp_path))
    assert code == 2
    words = "1 of 24 cells missing from the run (sentiment/he: method_error: ValueError: no)"
    assert only(found)["reason"] == words


def test_a_missing_entry_cannot_be_told_and_a_new_one_is_not_judged(tmp_path):
    against = baseline(tmp_path, write_run(tmp_path / "old", [scored("m", 0.6), scored("n", 0.6)], CHOSEN).path)
    new = write_run(tmp_path / "new", [scored("m", 0.6), scored("fresh", 0.1)], CHOSEN).path
    code, found = gate(new, against)
    assert (code, found["missing_entries"], found["new_entries"]) == (2, ["n"], ["fresh"])
    assert gate(new, against, "--methods", "m,fresh")[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"suite": {"name": "other", "classifiers": ["tfidf"]}, "suite_hash": "0"},
            "of different suites: toy (5u17e) and ",
        ),
        ({"suite_hash": "0"}, "of different suites: toy (5u17e) and "),
        ({"data_hashes": {"sentiment/am": "2"}}, "of different data in sentiment/am"),
    ],
)
def test_other_suites_and_data_cannot_be_told(tmp_path, change, words):
    old = run_at(tmp_path / "old", data_hashes={"sentiment/am": "1"})
    code, found = gate(run_at(tmp_path / "new", **change), baseline(tmp_path, old))
    assert code == 2
    assert words in found["reason"]


def test_suites_that_list_other_seeds_and_methods_are_one_suite(tmp_path):
    suite = {"name": "toy", "classifiers": ["tfidf"]}
    old = run_at(tmp_path / "old", suite={**suite, "seeds": [1, 2, 3], "methods": ["m"]}, suite_hash="1")
    listed = {**suite, "seeds": [4, 5, 6], "methods": ["m", "n"]}
    new = run_at(tmp_path / "new", 0.6, OTHER, (0.01, 0, -0.01), suite=listed, suite_hash="2")
    assert gate(new, baseline(tmp_path, old))[0] == 0


def test_other_sizes_cannot_be_told(tmp_path):
    new = run_at(tmp_path / "new", chosen=selection(LANGUAGES, texts=9))
    code, found = gate(new, baseline(tmp_path))
    assert (code, found["reason"]) == (
        2,
        "the runs differ in texts per label: sentiment (2 and 9). Only cells of one size can be compared: run both "
        "with the same --limit",
    )


def test_runs_with_nothing_in_common_cannot_be_told(tmp_path):
    new = write_run(tmp_path / "new", [scored("other", 0.6)], CHOSEN).path
    code, found = gate(new, baseline(tmp_path))
    assert (code, found["reason"]) == (2, "the run has no entry in common with the baseline")


def test_other_recipes_and_other_scores_of_the_same_texts_cannot_be_told(tmp_path):
    against = baseline(tmp_path)
    code, found = gate(run_at(tmp_path / "recipe", 0.3, signature="recipe 2"), against)
    assert code == 2
    assert only(found)["reason"].startswith("scored in different ways: sentiment/am: recipe 1 | recipe 2")
    entries = [scored("m", value) for value in (0.6, 0.3)]
    for entry in entries:
        entry.texts = "the same"
    one, other = (write_run(tmp_path / str(i), [entry], CHOSEN).path for i, entry in enumerate(entries))
    assert "same texts have different scores" in only(gate(other, one)[1])["reason"]


def test_another_model_cannot_be_told(tmp_path):
    from support.helpers import MODEL

    other = scored("m", 0.3)
    other.model = MODEL.model_copy(update={"fingerprint": "beef"})
    new = write_run(tmp_path / "new", [other], CHOSEN).path
    assert only(gate(new, baseline(tmp_path))[1])["reason"] == "another model wrote the texts"


def test_one_definite_loss_outweighs_what_cannot_be_told(tmp_path):
    old = write_run(tmp_path / "old", [scored("m", 0.6), scored("n", 0.6)], CHOSEN).path
    broken = [scored("m", 0.2), scored("n", 0.6)]
    new = write_run(tmp_path / "new", broken, CHOSEN, drop=[("n", "sentiment", "am", 1)]).path
    code, found = gate(new, old)
    assert (code, {line["verdict"] for line in found["results"]}) == (1, {"worse", "inconclusive"})


def test_a_run_is_a_baseline_too(tmp_path):
    old, new = run_at(tmp_path / "old"), run_at(tmp_path / "new", 0.3)
    assert gate(new, old) != gate(old, new)
    assert (gate(new, old)[0], gate(old, new)[0]) == (1, 0)


def test_a_new_flag_is_worse_and_an_old_one_is_not(tmp_path):
    copied = COPIED.for_provider("test")

    def folder(name: str, share: float) -> Path:
        entry = scored("m", 0.6)
        entry.scores[copied] = flat(share, CHOSEN, (0.0,))
        entry.texts = name
        return write_run(tmp_path / name, [entry], CHOSEN).path

    clean, dirty, dirtier = folder("clean", 0.0), folder("dirty", 0.5), folder("dirtier", 0.6)
    code, found = gate(dirty, baseline(tmp_path, clean))
    assert code == 1
    assert found["flags"][0]["words"].startswith("copies of test text")
    assert gate(dirtier, dirty)[1]["flags"] == []


def test_predictions_travel_in_the_file(tmp_path):
    old, new = (predicting(toy("m"), share, CHOSEN) for share in (0.9, 0.5))
    base, run = (write_run(tmp_path / n, [e], CHOSEN).path for n, e in (("old", old), ("new", new)))
    by_file, by_run = gate(run, baseline(tmp_path, base)), gate(run, base)
    assert by_file[1]["results"] == by_run[1]["results"]
    assert by_file[0] == 1
    assert by_file[1]["notes"] == []


def test_metrics_are_headline_diversity_and_validity_unless_named(tmp_path):
    entry = toy("m")
    for metric in (F1, SELF_CHRF, VENDI.for_provider("tfidf"), VALID_SHARE, LENGTH):
        entry.scores[metric] = flat(0.5, CHOSEN)
    against = baseline(tmp_path, write_run(tmp_path / "old", [entry], CHOSEN).path)
    found = gate(tmp_path / "old", against)[1]
    names = [line["metric"] for line in found["results"]]
    assert sorted(names) == ["macro_f1/tfidf", "self_chrf", "valid_share", "vendi/tfidf"]
    assert len(gate(tmp_path / "old", against, "--metric", "self_chrf")[1]["results"]) == 1
    refused = steerboard("gate", tmp_path / "old", "--against", against, "--metric", "vendi")
    assert "unknown metric 'vendi'" in refused.one_line()
    refused = steerboard("gate", "calibrate", tmp_path / "old", "--out", tmp_path / "x", "--metric", "length")
    assert "no better side" in refused.one_line()


@pytest.mark.parametrize(
    ("metric", "value", "relative"),
    [(F1, 0.05, False), (VALID_SHARE, 0.10, False), (VENDI.for_provider("tfidf"), 0.15, True), (SELF_CHRF, 0.15, True)],
)
def test_usual_tolerances(metric, value, relative):
    assert default_tolerance(metric) == Tolerance(value=value, relative=relative)


def test_tolerances_are_given_in_units_or_percent():
    found = parse_tolerances(["macro_f1/tfidf=0.1", "vendi/tfidf=20%"])
    assert found["macro_f1/tfidf"].of(0.6) == 0.1
    assert found["vendi/tfidf"].of(5.0) == pytest.approx(1.0)
    for wrong in ("macro_f1", "macro_f1=", "=1", "a=-1", "a=nan", "a=inf", "a=x%"):
        with pytest.raises(UserError, match="give METRIC=VALUE"):
            parse_tolerances([wrong])


def test_narrowing_words():
    assert Filter(languages=["am"], tasks=["topic"]).words == ["only languages: am", "only tasks: topic"]


# Baseline files


def test_a_baseline_names_no_folder_and_is_the_same_for_the_same_run(tmp_path):
    old = run_at(tmp_path / "old", model_path="/home/secret", data_source="/home/secret", commands=[["/home"]])
    first = baseline(tmp_path, old)
    text = gzip.decompress(first.read_bytes()).decode()
    assert "/home" not in text
    assert str(tmp_path) not in text
    again = tmp_path / "again.json"
    assert steerboard("gate", "calibrate", old, "--out", again).code == 0
    assert again.read_text(encoding="utf-8") == text


def test_calibrate_overwrites_nothing(tmp_path):
    against = baseline(tmp_path)
    refused = steerboard("gate", "calibrate", tmp_path / "old", "--out", against)
    assert "gate accept" in refused.one_line()


def test_calibrate_refuses_runs_that_are_not_whole(tmp_path):
    gap = run_at(tmp_path / "gap", drop=[("m", "sentiment", "he", 2)])
    refused = steerboard("gate", "calibrate", gap, "--out", tmp_path / "x.json")
    assert "1 of 24 cells of m are missing (sentiment/he, seed 2: method_error" in refused.one_line()


def test_several_runs_give_one_baseline_with_all_seeds(tmp_path):
    one = run_at(tmp_path / "one")
    other = run_at(tmp_path / "two", 0.65, OTHER)
    against = baseline(tmp_path, one, other)
    found, _ = read_baseline(against)
    assert found.manifest.selection.seeds == [1, 2, 3, 4, 5, 6]
    assert found.source == "2 runs of the same code with the generation seeds 1, 2, 3; 4, 5, 6"
    assert found.spread[F1.name].factor == pytest.approx((0.05**2 / 2) / (0.0001 / 3 / 8))
    assert only(gate(other, against)[1])["reason"] == "identical"
    refused = steerboard("gate", "calibrate", one, one, "--out", tmp_path / "x.json")
    assert "share generation seeds" in refused.one_line()


@pytest.mark.parametrize("name", ["base.json", "base.json.gz"])
def test_any_changed_byte_is_noticed(tmp_path, name):
    path = tmp_path / name
    few = run_at(tmp_path / "old", chosen=selection(["am"]))
    assert steerboard("gate", "calibrate", few, "--out", path).code == 0
    whole = path.read_bytes()
    draw = np.random.default_rng(4)
    spots = {0, 9, 10, 50, 90, len(whole) - 1, *draw.integers(len(whole), size=150).tolist()}
    for spot in spots:
        for flip in (1, 128):
            path.write_bytes(whole[:spot] + bytes([whole[spot] ^ flip]) + whole[spot + 1 :])
            with pytest.raises(UserError) as error:
                read_baseline(path)
            assert "\n" not in str(error.value)
    for changed in (whole[:-1], whole[: len(whole) // 2], whole + b"\n", b"", whole + whole):
        path.write_bytes(changed)
        with pytest.raises(UserError, match="edited by hand"):
            read_baseline(path)
    path.write_bytes(whole)
    read_baseline(path)


def forged(tmp_path: Path, change, schema: object = 1, seal: str = "") -> Path:
    """Write a baseline whose content was changed and whose hash fits, as no hand would."""
    body = json.loads(gzip.decompress(baseline(tmp_path).read_bytes()))
    change(body["content"])
    body |= {"sha256": seal or digest(body["content"]), "schema": schema}
    path = tmp_path / "forged.json"
    path.write_text(canonical_json(body) + "\n", encoding="utf-8")
    return path


def test_an_edited_value_is_refused_in_one_line(tmp_path):
    def edit(content):
        content["tolerance"][F1.name]["value"] = 0.5

    path = forged(tmp_path, edit, seal="0" * 64)
    assert "was edited by hand" in steerboard("gate", tmp_path / "old", "--against", path).one_line()


def test_a_newer_schema_is_refused_in_one_line(tmp_path):
    path = forged(tmp_path, lambda content: None, schema=99)
    words = steerboard("gate", tmp_path / "old", "--against", path).one_line()
    assert "has schema 99, this steerboard reads up to 1" in words


def test_nan_is_refused_in_one_line(tmp_path):
    path = forged(tmp_path, lambda content: None)
    path.write_text(path.read_text(encoding="utf-8").replace('"df":16', '"df":NaN'), encoding="utf-8")
    assert "NaN" in path.read_text(encoding="utf-8")
    assert "edited by hand" in steerboard("gate", tmp_path / "old", "--against", path).one_line()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["packed"]["entry"].append(0),
        lambda c: c["packed"]["entry"].__setitem__(0, 99),
        lambda c: c["packed"]["columns"][F1.name]["value"].pop(),
        lambda c: c["packed"]["columns"][F1.name]["signature"].__setitem__(0, 7),
        lambda c: c["spread"][F1.name].__setitem__("df", -1),
        lambda c: c["spread"].clear(),
        lambda c: c["packed"]["predictions"].append({"cell": 9999, "part": "p", "test": 0, "found": {}}),
        lambda c: c.__setitem__("more", 1),
        lambda c: c.pop("manifest"),
    ],
)
def test_a_file_that_fits_its_hash_but_is_no_baseline_is_refused_in_one_line(tmp_path, change):
    path = forged(tmp_path, change)
    assert "is not a baseline" in steerboard("gate", tmp_path / "old", "--against", path).one_line()


def test_what_is_no_baseline_at_all_is_refused_in_one_line(tmp_path):
    run = run_at(tmp_path / "old")
    for content in (b"{}", b"[]", b"\x1f\x8b", b"\xff\xfe", b"[" * 100_000, gzip.compress(b"{}")):
        path = tmp_path / "x"
        path.write_bytes(content)
        steerboard("gate", run, "--against", path).one_line()
    steerboard("gate", run, "--against", tmp_path / "nowhere").one_line()
    steerboard("gate", tmp_path / "nowhere", "--against", run).one_line()
    steerboard("gate", run).one_line()


# Accepting another baseline


def test_accept_keeps_reasons_and_hashes(tmp_path):
    against = baseline(tmp_path, tolerance="macro_f1/tfidf=0.2")
    new = run_at(tmp_path / "new", 0.3)
    seals = [read_baseline(against)[1]]
    assert gate(new, against)[0] == 1
    for reason in ("shorter texts,\n see #12", "again"):
        done = steerboard("gate", "accept", new, "--baseline", against, "--reason", reason)
        assert done.code == 0, done.err
        seals.append(read_baseline(against)[1])
    found, _ = read_baseline(against)
    assert [past.sha256 for past in found.history] == seals[:2]
    assert [past.reason for past in found.history] == ["first baseline", "shorter texts, see #12"]
    assert found.reason == "again"
    assert found.tolerance[F1.name].value == 0.2
    assert gate(new, against)[0] == 0


def test_accept_refuses_no_reason_and_gaps(tmp_path):
    against = baseline(tmp_path)
    before = against.read_bytes()
    gap = run_at(tmp_path / "gap", drop=[("m", "sentiment", "he", 2)])
    less = run_at(tmp_path / "less", chosen=selection(LANGUAGES[1:]))
    other = write_run(tmp_path / "other", [scored("n", 0.6)], CHOSEN).path
    for run, reason, words in (
        (tmp_path / "old", "", "without a reason"),
        (tmp_path / "old", " \n", "without a reason"),
        (gap, "r", "1 of 24 cells of m are missing"),
        (less, "r", "languages of the baseline are missing from the run: am"),
        (other, "r", "entries of the baseline are missing from the run: m (zero-shot)"),
    ):
        refused = steerboard("gate", "accept", run, "--baseline", against, "--reason", reason)
        assert words in refused.one_line()
    assert against.read_bytes() == before
    done = steerboard("gate", "accept", other, "--baseline", against, "--reason", "m is gone", "--drop-method", "m")
    assert done.code == 0


# The real command


@pytest.mark.parametrize(("value", "code"), [(0.601, 0), (0.3, 1)])
def test_exit_codes_of_the_real_command(tmp_path, value, code):
    new = run_at(tmp_path / "new", value, wobble=(0.01, 0, -0.01))
    done = second_process("gate", new, "--against", baseline(tmp_path), env=environment())
    assert done.code == code
    assert done.out.splitlines()[-1].startswith("gate: same" if code == 0 else "gate: worse")
    two = run_at(tmp_path / "two", chosen=selection(LANGUAGES, seeds=(1, 2)))
    done = second_process("gate", "check", two, "--against", tmp_path / "base.json.gz")
    assert (done.code, done.err) == (2, "")


def test_help_of_the_group_and_of_check():
    assert "calibrate" in steerboard("gate", "--help").out
    assert "Exit code 0" in steerboard("gate", "check", "--help").out
