"""Two runs against each other: verdicts, refusals, formats. Numbers can be checked by hand."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
from support.helpers import MODEL, environment, python, steerboard
from support.toyruns import F1, ToyEntry, flat, places, predicting, selection, toy, write_run

from harness.core.errors import UserError
from harness.core.records import Selection
from harness.ranking.compare import Comparison, compare
from harness.ranking.render import as_csv, as_json, as_markdown
from harness.scoring.metrics import LENGTH, NEAR_DUPLICATES, SELF_CHRF, VALID_SHARE, Metric

CHOSEN = selection(["am", "he"])


def scored(name: str, value: float, metric: Metric = F1, chosen: Selection = CHOSEN, wobble=(0, 0.01, -0.01)):
    entry = toy(name)
    entry.scores[metric] = flat(value, chosen, wobble)
    return entry


def both(tmp_path, one: list[ToyEntry], other: list[ToyEntry], metrics=(), **options) -> Comparison:
    a = write_run(tmp_path / "a", one, CHOSEN)
    return compare(a, write_run(tmp_path / "b", other, options.pop("chosen", CHOSEN), **options), metrics)


def only(found: Comparison):
    [line] = found.lines
    return line


# Verdicts


def test_the_difference_is_b_minus_a_paired_by_cell(tmp_path):
    one, other = toy("m"), toy("m")
    gains = {1: 0.10, 2: 0.15, 3: 0.05}
    one.scores[F1] = {place: 0.1 * place[2] for place in places(CHOSEN)}
    other.scores[F1] = {place: 0.1 * place[2] + gains[place[2]] for place in places(CHOSEN)}
    line = only(both(tmp_path, [one], [other]))
    assert (line.a, line.b) == (pytest.approx(0.2), pytest.approx(0.3))
    assert line.difference.mean == pytest.approx(0.1)
    assert line.difference.se == pytest.approx((0.05**2 / 3 / 2) ** 0.5)  # two languages of three seeds
    assert line.verdict == "better"


@pytest.mark.parametrize(
    ("metric", "change", "verdict"),
    [
        (F1, 0.2, "better"),
        (F1, -0.2, "worse"),
        (SELF_CHRF, -0.2, "better"),
        (SELF_CHRF, 0.2, "worse"),
        (LENGTH, 0.2, "higher"),
        (LENGTH, -0.2, "lower"),
    ],
)
def test_the_verdict_honours_the_direction_of_the_metric(tmp_path, metric, change, verdict):
    one, other = scored("m", 0.5, metric), scored("m", 0.5 + change, metric, wobble=(0.01, 0, -0.01))
    assert only(both(tmp_path, [one], [other], [metric.name])).verdict == verdict


def test_without_a_clear_difference_the_mde_is_shown(tmp_path):
    one, other = scored("m", 0.5), scored("m", 0.501, wobble=(-0.01, 0.01, 0))
    found = both(tmp_path, [one], [other])
    line = only(found)
    assert line.verdict == "no clear difference"
    assert line.difference.mde > abs(line.difference.mean)
    assert f"no clear difference (MDE: {line.difference.mde:.3f})" in as_markdown(found)


def test_equal_values_are_identical(tmp_path):
    line = only(both(tmp_path, [scored("m", 0.5)], [scored("m", 0.5)]))
    assert (line.verdict, line.difference.mean, line.p) == ("identical", 0, None)


def test_p_values_are_adjusted_over_the_entries_of_a_metric(tmp_path):
    one = [scored(name, 0.5) for name in "xyz"]
    other = [scored(name, 0.53, wobble=(0.01, 0.02, -0.03)) for name in "xy"] + [scored("z", 0.5)]
    found = both(tmp_path, one, other)
    x, y, z = found.lines
    assert x.p == y.p == pytest.approx(2 * x.difference.p)  # z is identical: nothing to test
    assert z.verdict == "identical"
    alone = only(both(tmp_path / "alone", one[:1], other[:1]))
    assert alone.p == x.difference.p


def test_a_missing_cell_cannot_be_told_and_says_where_and_why(tmp_path):
    line = only(both(tmp_path, [scored("m", 0.5)], [scored("m", 0.9)], drop=[("m", "sentiment", "he", 2)]))
    assert line.verdict == "inconclusive"
    assert line.reason == "1 of 6 cells missing from B (sentiment/he: method_error: ValueError: no)"
    assert (line.a, line.b, line.difference, line.p) == (pytest.approx(0.5), None, None, None)


def test_one_seed_cannot_be_told(tmp_path):
    chosen = selection(["am", "he"], seeds=[2])
    line = only(both(tmp_path, [scored("m", 0.5)], [scored("m", 0.9, chosen=chosen)], chosen=chosen))
    assert (line.verdict, line.reason) == ("inconclusive", "only one generation seed in common")
    assert line.difference.mean == pytest.approx(0.39)  # of seed 2 alone
    assert line.difference.low is None


def test_another_way_of_scoring_cannot_be_told(tmp_path):
    line = only(both(tmp_path, [scored("m", 0.5)], [scored("m", 0.9)], signature="recipe 2"))
    assert (line.verdict, line.p) == ("inconclusive", None)
    assert line.reason == "scored in different ways: sentiment/am: recipe 1 | recipe 2"


def test_the_same_texts_with_other_scores_cannot_be_told(tmp_path):
    one, other, rest = scored("m", 0.5), scored("m", 0.9), scored("x", 0.9)
    one.texts = other.texts = "the same"
    same, changed = both(tmp_path, [one, scored("x", 0.5)], [other, rest]).lines
    assert (same.verdict, same.p) == ("inconclusive", None)
    assert same.reason == "the same texts have different scores: the runs were not scored alike"
    assert changed.verdict == "better"


def test_a_metric_that_only_one_run_has_cannot_be_told(tmp_path):
    line = only(both(tmp_path, [scored("m", 0.5)], [scored("m", 9.0, SELF_CHRF)], [SELF_CHRF.name]))
    assert (line.verdict, line.reason) == (
        "inconclusive",
        "6 of 6 cells missing from A (sentiment/am, sentiment/he: 6 × not scored by self-chrF)",
    )


def test_kept_predictions_pair_the_test_examples(tmp_path):
    def run(name, examples):
        entry = predicting(toy("m"), 0.6 if name == "a" else 0.7, CHOSEN, examples=examples)
        return write_run(tmp_path / name / examples, [entry], CHOSEN)

    same = compare(run("a", "d1"), run("b", "d1"))
    mixed = compare(run("a", "d2"), run("b", "d3"))
    assert same.notes == {}
    note = "test examples are not resampled: entries were tested on different examples in sentiment/am"
    assert mixed.notes == {F1.name: note}
    assert note in as_markdown(mixed)


# Partners


def test_partners_are_the_same_entry_else_the_same_method_and_setting(tmp_path):
    one = [toy("zero-shot"), toy("m", strength=1), toy("m", strength=2), toy("old"), toy("few-shot")]
    other = [toy("few-shot"), toy("m", strength=2), toy("m", strength=3), toy("new"), toy("zero-shot")]
    for entry in (*one, *other):
        entry.scores[F1] = flat(0.5, CHOSEN)
    found = both(tmp_path, one, other)
    assert [pair.name for pair in found.pairs] == [
        "zero-shot",
        "m [strength=1] → m [strength=3]",
        "m [strength=2]",
        "few-shot",
    ]
    assert [pair.changed for pair in found.pairs] == [[], ["strength 1 → 3"], [], []]
    assert (found.alone_a, found.alone_b) == (["old"], ["new"])


def test_another_model_is_held_against_the_same_configuration(tmp_path):
    other = MODEL.model_copy(update={"name": "other", "fingerprint": "beef"})
    sides = []
    for model, strengths in ((MODEL, (1, 2)), (other, (2, 1))):
        entries = [toy("m", model, strength=s) for s in strengths]
        for entry in entries:
            entry.scores[F1] = flat(0.5, CHOSEN)
        sides.append(write_run(tmp_path / model.name, entries, CHOSEN, model=model))
    found = compare(*sides)
    assert [pair.changed for pair in found.pairs] == [[], []]
    assert ("model", "toy", "other") in found.environment


def test_several_of_one_method_and_no_equal_one_have_no_partner(tmp_path):
    one, other = ([toy("m", strength=s) for s in strengths] for strengths in ((1, 2), (3, 4)))
    with pytest.raises(UserError, match=r"no entry of .* has a partner") as error:
        both(tmp_path, one, other)
    assert "m [strength=1], m [strength=2] against m [strength=3], m [strength=4]" in str(error.value)


def test_the_setting_belongs_to_the_partner(tmp_path):
    few = scored("m", 0.5)
    few.setting = "few-shot"
    found = both(tmp_path, [scored("m", 0.5), scored("x", 0.5)], [few, scored("x", 0.5)])
    assert [pair.name for pair in found.pairs] == ["x"]
    assert (found.alone_a, found.alone_b) == (["m"], ["m + few-shot"])


# What may be compared


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"suite_hash": "0ther"}, r"different suites: toy \(5u17e\) and toy \(0ther\)\. "),
        (
            {"suite_hash": "0ther", "suite": {"name": "toy", "classifiers": ["hf:x"]}},
            r"and toy \(0ther\), which differ in classifiers\. ",
        ),
        ({"data_hashes": {"sentiment/am": "1", "sentiment/he": "3"}}, "different data in sentiment/he"),
        ({"chosen": selection(["am", "he"], texts=5)}, r"texts per label: sentiment \(2 and 5\)"),
        ({"chosen": selection(["su"])}, "no languages in common: am, he against su"),
        ({"chosen": selection(["am"], seeds=[7])}, "no seeds in common: 1, 2, 3 against 7"),
        ({"chosen": selection(["am"], ["topic"])}, "no tasks in common: sentiment against topic"),
    ],
)
def test_runs_that_do_not_compare_are_refused_with_what_differs(tmp_path, manifest, words):
    chosen = manifest.pop("chosen", CHOSEN) if "chosen" in manifest else CHOSEN
    a = write_run(tmp_path / "a", [scored("m", 0.5)], CHOSEN, data_hashes={"sentiment/am": "1", "sentiment/he": "2"})
    b = write_run(tmp_path / "b", [scored("m", 0.5, chosen=chosen)], chosen, **manifest)
    with pytest.raises(UserError, match=words):
        compare(a, b)


def test_of_runs_that_overlap_the_common_cells_are_compared(tmp_path):
    chosen = selection(["he", "su"], seeds=[2, 3, 4])
    values = {place: 0.8 if place[1] == "he" else 0.0 for place in places(chosen)}
    other = toy("m")
    other.scores[F1] = values
    found = both(tmp_path, [scored("m", 0.5, wobble=(0, 0, 0.1))], [other], chosen=chosen)
    line = only(found)
    assert found.cells == 2
    assert (line.a, line.b) == (pytest.approx(0.55), pytest.approx(0.8))  # he, seeds 2 and 3
    assert found.scope == ["languages left out: am (only A); su (only B)", "seeds left out: 1 (only A); 4 (only B)"]


def test_a_cell_that_failed_outside_of_the_common_ones_does_not_count(tmp_path):
    chosen = selection(["he", "su"])
    gone = [("m", "sentiment", "su", 1)]
    line = only(both(tmp_path, [scored("m", 0.5)], [scored("m", 0.5, chosen=chosen)], chosen=chosen, drop=gone))
    assert line.verdict == "identical"


def test_what_differs_between_the_environments_is_listed(tmp_path):
    a = write_run(
        tmp_path / "a",
        [scored("m", 0.5)],
        CHOSEN,
        versions={"torch": "2.1", "numpy": "2"},
        git_commit="aaa",
        device="cpu",
    )
    b = write_run(
        tmp_path / "b",
        [scored("m", 0.5)],
        CHOSEN,
        versions={"torch": "2.2", "numpy": "2"},
        git_commit="bbb",
        device="cpu",
    )
    assert compare(a, b).environment == [("git commit", "aaa", "bbb"), ("version of torch", "2.1", "2.2")]
    assert compare(a, a).environment == []


# Metrics


def test_by_default_headline_and_primary_metrics_are_compared_and_all_on_demand(tmp_path):
    entry = scored("m", 0.5)
    for metric in (SELF_CHRF, NEAR_DUPLICATES, VALID_SHARE, VALID_SHARE.on_valid_texts, LENGTH, F1.on_valid_texts):
        entry.scores[metric] = flat(0.5, CHOSEN)
    a, b = (write_run(tmp_path / name, [entry], CHOSEN) for name in "ab")
    assert [m.name for m in compare(a, b).metrics] == ["macro_f1/tfidf", "self_chrf", "valid_share"]
    assert len(compare(a, b, ["all"]).metrics) == 7
    assert [m.name for m in compare(a, b, ["length", "length"]).metrics] == ["length"]


def test_an_unknown_metric_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown metric 'macro_f1'; valid: macro_f1/tfidf"):
        both(tmp_path, [scored("m", 0.5)], [scored("m", 0.5)], ["macro_f1"])


# The command and its formats


@pytest.fixture
def runs(tmp_path):
    """Two runs with hostile names: markup of the terminal, of Markdown and HTML, two scripts, a mention."""
    hostile = "[red]|`x` <img src=x>\n\u202e@all המרק ሾርባው"
    one = [scored("zero-shot", 0.5), toy("m", text=hostile), toy("m", text="plain"), scored("gone", 0.1)]
    other = [scored("zero-shot", 0.5), toy("m", text=hostile), toy("m", text="plain")]
    for entry, value, wobble in (
        (one[1], 0.4, (0.01, 0, -0.01)),
        (other[1], 0.7, (0, 0.01, -0.01)),
        (one[2], 0.4, (0.01, 0, -0.01)),
        (other[2], 0.401, (0, 0.01, -0.01)),
    ):
        entry.scores[F1] = flat(value, CHOSEN, wobble)
    return [
        write_run(tmp_path / "a", one, CHOSEN, git_commit="aaa").path,
        write_run(tmp_path / "b", other, CHOSEN, git_commit="b|`b").path,
    ]


def test_the_terminal_shows_verdicts_and_what_else_differs(runs):
    shown = steerboard("compare", *runs)
    assert (shown.code, shown.err) == (0, "")
    for words in ("macro-F1 (tfidf) (higher is better)", "identical", "better", "no clear difference"):
        assert words in shown.out
    assert "- without a partner, only in A: gone" in shown.out
    assert "- git commit: aaa → b|`b" in shown.out
    assert "[red]|`x`" in shown.out
    assert "\u202e" not in shown.out


def test_markdown_shows_names_and_forms_no_markup(runs):
    shown = steerboard("compare", *runs, "--format", "md").out
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    for row in rows:
        assert len(row.replace("\\|", "").split("|")) == 9, row  # seven columns
    assert "\\[red\\]\\|\\`x\\` &lt;img src=x&gt;" in shown
    assert "@&#8203;all המרק ሾርባው" in shown
    assert "<img" not in shown


def test_json_has_full_precision_and_unknown_values_as_null(runs):
    found = json.loads(steerboard("compare", *runs, "--format", "json").out)
    assert found["schema"] == 2
    by_name = {line["entry"]: line for line in found["results"]}
    line = next(line for name, line in by_name.items() if "המרק" in name)
    direct = next(line for line in compare(*map(_run, runs)).lines if "המרק" in line.pair.name)
    assert line["difference"] == direct.difference.mean
    assert (line["low"], line["p_holm"], line["verdict"]) == (direct.difference.low, direct.p, "better")
    assert by_name["zero-shot"]["p_holm"] is None
    assert found["only_a"] == ["gone"]
    assert found["environment"] == [{"what": "git commit", "a": "aaa", "b": "b|`b"}]


def test_what_is_identical_in_every_entry_takes_one_line(tmp_path):
    entry = scored("m", 0.5)
    entry.scores[SELF_CHRF] = flat(20, CHOSEN)
    a, b = (write_run(tmp_path / name, [entry], CHOSEN).path for name in "ab")
    shown = steerboard("compare", a, b, "--format", "md").out
    assert "- identical in every entry: macro-F1 (tfidf), self-chrF\n" in shown
    assert "|" not in shown
    assert len(json.loads(steerboard("compare", a, b, "--format", "json").out)["results"]) == 2


def test_csv_has_one_line_per_entry_and_metric(runs):
    text = steerboard("compare", *runs, "--format", "csv").out
    lines = list(csv.DictReader(io.StringIO(text)))
    assert text.count("\n") == 1 + 3
    assert [line["verdict"] for line in lines] == ["identical", "better", "no clear difference"]
    assert float(lines[1]["difference"]) == pytest.approx(0.3)
    assert lines[0]["p_holm"] == ""
    assert "ሾርባው" in lines[1]["entry"]


def test_a_comparison_that_cannot_be_told_renders_in_every_format(tmp_path):
    gone = [("m", "sentiment", "am", 1)]
    found = both(tmp_path, [scored("m", 0.5)], [scored("m", 0.9)], drop=gone)
    assert "| m | 0.500 | – | – | – | – | inconclusive: 1 of 6 cells missing from B" in as_markdown(found)
    [line] = json.loads(as_json(found))["results"]
    assert (line["mean_b"], line["difference"], line["mde"]) == (None, None, None)
    assert "inconclusive,1 of 6 cells missing from B" in as_csv(found)


def test_a_comparison_by_metrics_without_values_says_so(tmp_path):
    entry = scored("m", 0.5)
    entry.scores[SELF_CHRF] = dict.fromkeys(places(CHOSEN), None)
    run = write_run(tmp_path / "a", [entry], CHOSEN).path
    shown = steerboard("compare", run, run, "--metric", "self_chrf")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-1] == "Nothing can be said yet: neither run has values of these metrics."
    assert "self_chrf: left out, neither run has values: too few texts" in shown.out


def test_two_processes_print_the_same_bytes(runs):
    code = (
        "import sys\nfrom harness.cli.root import app\nfor form in ('table', 'md', 'json', 'csv'):\n"
        "    app(['compare', *sys.argv[1:], '--format', form], standalone_mode=False)"
    )
    one, other = (python(code, *runs, env=environment(PYTHONHASHSEED=seed)) for seed in ("1", "2"))
    assert one == other
    assert one.count("no clear difference") == 4 + 2  # and in the tallies of the table and of Markdown


def test_a_folder_without_a_run_is_one_line(tmp_path, runs):
    assert "does not contain a run" in steerboard("compare", runs[0], tmp_path / "nothing").one_line()
    assert "does not contain a run" in steerboard("compare", tmp_path / "nothing", runs[0]).one_line()


def test_an_unknown_format_or_metric_is_one_line(runs):
    line = steerboard("compare", *runs, "--format", "html").one_line()
    assert line == "steerboard: unknown format 'html'; valid: csv, json, md, table."
    line = steerboard("compare", *runs, "--metric", "f1").one_line()
    assert line.startswith("steerboard: unknown metric 'f1'; valid: macro_f1/tfidf.")


def test_runs_of_different_suites_are_one_line(tmp_path, runs):
    other = write_run(tmp_path / "other", [scored("m", 0.5)], CHOSEN, suite_hash="0ther")
    assert "different suites" in steerboard("compare", runs[0], other.path).one_line()


def test_runs_that_are_not_scored_are_one_line(tmp_path):
    a, b = (write_run(tmp_path / name, [toy("m")], CHOSEN).path for name in "ab")
    line = steerboard("compare", a, b).one_line()
    assert "neither run is scored yet" in line


def test_the_help_teaches_by_example():
    shown = steerboard("compare", "--help").out
    assert "steerboard compare runs/before runs/after" in shown


def test_two_whole_runs_are_compared_in_seconds(tmp_path):
    codes = ["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"]
    chosen = selection(codes, ["sentiment", "topic"])
    for name, better in (("a", 0.0), ("b", 0.05)):
        entries = [predicting(toy(f"m{i}"), 0.5 + i / 40 + better, chosen, n=200) for i in range(14)]
        write_run(tmp_path / name, entries, chosen)
    start = time.process_time()
    shown = steerboard("compare", tmp_path / "a", tmp_path / "b")
    assert time.process_time() - start < 4
    assert shown.code == 0
    assert "14 better" in shown.out


def _run(path):
    from harness.core.store import Run

    return Run(path)


def test_a_metric_that_neither_run_has_is_left_out_and_named(tmp_path):
    one, other = scored("m", 0.5), scored("m", 0.6)
    for entry in (one, other):
        entry.scores[SELF_CHRF] = dict.fromkeys(places(CHOSEN), None)
    found = both(tmp_path, [one], [other])
    assert [metric.name for metric in found.metrics] == [F1.name]
    assert found.notes["self_chrf"] == "left out, neither run has values: too few texts"
    assert "self_chrf: left out, neither run has values: too few texts" in as_markdown(found).replace("\\", "")


def test_a_metric_that_one_run_has_is_not_left_out(tmp_path):
    one, other = scored("m", 0.5), scored("m", 0.6)
    one.scores[SELF_CHRF] = flat(30.0, CHOSEN)
    other.scores[SELF_CHRF] = dict.fromkeys(places(CHOSEN), None)
    line = next(line for line in both(tmp_path, [one], [other]).lines if line.metric == SELF_CHRF)
    assert (line.verdict, line.reason) == (
        "inconclusive",
        "6 of 6 cells missing from B (sentiment/am, sentiment/he: 6 × too few texts)",
    )
