"""The gate's verdicts and refusals, through the command. Numbers can be checked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.gating import CHOSEN, LANGUAGES, OTHER, baseline, gate, only, run_at, scored
from support.helpers import environment, second_process, steerboard
from support.toyruns import F1, flat, predicting, selection, toy, write_run

from harness.ranking.gate.verdicts import Filter
from harness.scoring.metrics import COPIED, LENGTH, SELF_CHRF, VALID_SHARE, VENDI

# Verdicts through the command


@pytest.mark.parametrize(("value", "verdict", "code"), [(0.3, "worse", 1), (0.9, "better", 0), (0.601, "same", 0)])
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


def test_narrowing_words():
    assert Filter(languages=["am"], tasks=["topic"]).words == ["only languages: am", "only tasks: topic"]


# The real command


def test_exit_codes_of_the_real_command(tmp_path):
    new = run_at(tmp_path / "new", 0.3, wobble=(0.01, 0, -0.01))
    done = second_process("gate", new, "--against", baseline(tmp_path), env=environment())
    assert (done.code, done.out.splitlines()[-1][:11]) == (1, "gate: worse")
    two = run_at(tmp_path / "two", chosen=selection(LANGUAGES, seeds=(1, 2)))
    done = second_process("gate", "check", two, "--against", tmp_path / "base.json.gz")
    assert (done.code, done.err) == (2, "")


def test_the_exit_code_of_an_equal_run(tmp_path):
    new = run_at(tmp_path / "new", 0.601, wobble=(0.01, 0, -0.01))
    done = steerboard("gate", new, "--against", baseline(tmp_path))
    assert (done.code, done.out.splitlines()[-1][:10]) == (0, "gate: same")


def test_help_of_the_group_and_of_check():
    assert "calibrate" in steerboard("gate", "--help").out
    assert "Exit code 0" in steerboard("gate", "check", "--help").out
