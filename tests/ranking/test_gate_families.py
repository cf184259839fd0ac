"""What decides the gate: families of one-sided tests, and metrics that have no values."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.gating import gate
from support.helpers import steerboard
from support.toyruns import F1, ToyEntry, flat, places, selection, toy, write_run

from harness.core.records import Selection
from harness.ranking.gate.difference import SideValues, independent
from harness.scoring.metrics import SELF_CHRF, VALID_SHARE, VENDI, Metric

LANGUAGES = ["am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su"]
NINE = selection(LANGUAGES, ["sentiment", "topic"], range(1, 10))
THREE = selection(LANGUAGES, ["sentiment", "topic"])
SMALL = selection(["am", "he"])
F1_NOISE = {"sentiment": 0.097, "topic": 0.083}
"""Standard deviation of a cell between generation seeds: nine of the mini suite, mean over five methods."""

METHODS = ("zero-shot", "language", "quality", "clas", "learned")
FURTHER = {SELF_CHRF: (37.0, 3.3), VENDI.for_provider("tfidf"): (5.9, 0.3), VALID_SHARE: (0.97, 0.012)}
"""Metric -> mean of a cell, and its standard deviation."""


def calibrated(tmp_path: Path, run: Path, *options) -> Path:
    out = tmp_path / f"{run.name}.json.gz"
    done = steerboard("gate", "calibrate", run, "--out", out, *options)
    assert done.code == 0, done.err
    return out


def lines(found: dict, metric: Metric, entry: str = "m") -> dict:
    [line] = [r for r in found["results"] if (r["metric"], r["entry"]) == (metric.name, entry)]
    return line


def noisy(draw: np.random.Generator, chosen: Selection, like: list[ToyEntry] = (), loss: float = 0.0):
    """Return entries with the noise of the mini suite; with ``like`` it correlates by 0.4 in common seeds."""
    entries = []
    for i, name in enumerate(METHODS):
        entry = toy(name)
        for metric, (mean, spread) in {F1: (0.7, 0.0), **FURTHER}.items():
            values = {}
            for place in places(chosen):
                scale = F1_NOISE[place[0]] if metric == F1 else spread
                own = draw.normal()
                if like:
                    own = 0.4 * (like[i].scores[metric][place] - mean) / scale + 0.84**0.5 * own
                lost = loss if metric == F1 and i == 0 else 0.0
                values[place] = mean + scale * own - lost
            entry.scores[metric] = values
        entries.append(entry)
    return entries


# Families


@pytest.fixture(scope="module")
def real_noise(tmp_path_factory) -> tuple[list[ToyEntry], Path]:
    """Nine seeds of five entries with the noise of the mini suite, and their baseline file."""
    folder = tmp_path_factory.mktemp("noise")
    old = noisy(np.random.default_rng(2), NINE)
    return old, calibrated(folder, write_run(folder / "old", old, NINE).path)


@pytest.mark.parametrize(("loss", "verdict", "code"), [(0.0, "same", 0), (0.06, "worse", 1)])
def test_three_seeds_of_a_real_noise_can_be_told_against_nine(tmp_path, real_noise, loss, verdict, code):
    old, against = real_noise
    new = noisy(np.random.default_rng(3), THREE, old, loss)
    found = gate(write_run(tmp_path / "new", new, THREE).path, against)
    assert (found[0], found[1]["verdict"]) == (code, verdict)
    line = lines(found[1], F1, "zero-shot")
    assert (line["verdict"], line["tolerance"]) == (verdict, 0.05)
    assert line["seeds"] == "paired, 3 seeds; the baseline has 9"


def shares(tmp_path: Path, name: str, chrf: float, wobble=(0, 8, -8), valid=0.9) -> Path:
    """Write a run of one entry: a steady F1, a self-chrF that varies much, and valid texts."""
    entry = toy("m")
    entry.scores = {
        F1: flat(0.6, SMALL, (0, 0.001, -0.001)),
        SELF_CHRF: flat(chrf, SMALL, wobble),
        VALID_SHARE: flat(valid, SMALL, wobble=tuple(w / 1000 for w in wobble)),
    }
    entry.texts = name
    return write_run(tmp_path / name, [entry], SMALL).path


def test_a_further_metric_without_power_cannot_tell_and_does_not_decide(tmp_path):
    old, new = shares(tmp_path, "old", 30.0), shares(tmp_path, "new", 30.1, (8, -8, 0))
    code, found = gate(new, old)
    line = lines(found, SELF_CHRF)
    assert (line["verdict"], line["decides"]) == ("inconclusive", False)
    assert line["reason"].startswith("too few seeds to detect a loss of 4.5")
    assert (code, found["verdict"]) == (0, "same")
    table = steerboard("gate", new, "--against", old).out
    assert table.splitlines()[-1] == "gate: same: 1 inconclusive (does not decide), 2 same"
    for kind, word in (("junit", "<error"), ("github", "::warning")):
        assert word not in steerboard("gate", new, "--against", old, "--format", kind).out


def test_a_further_metric_can_be_worse(tmp_path):
    old, new = shares(tmp_path, "old", 30.0), shares(tmp_path, "new", 30.1, (8, -8, 0), valid=0.5)
    code, found = gate(new, old)
    assert (code, found["verdict"], lines(found, VALID_SHARE)["verdict"]) == (1, "worse", "worse")


def test_metrics_that_are_named_without_the_headline_decide(tmp_path):
    old, new = shares(tmp_path, "old", 30.0), shares(tmp_path, "new", 30.1, (8, -8, 0))
    code, found = gate(new, old, "--metric", "self_chrf")
    assert (code, found["verdict"], lines(found, SELF_CHRF)["decides"]) == (2, "inconclusive", True)


def test_the_headline_is_corrected_by_itself_and_all_is_one_sided(tmp_path):
    """Two entries, one headline line that is not identical: p is Student's one-sided p over 3/5."""
    other = selection(["am"], seeds=(4, 5, 6))
    base, new = {1: 0.50, 2: 0.52, 3: 0.48}, {4: 0.47, 5: 0.51, 6: 0.48}
    for name, chosen, values in (("old", selection(["am"]), base), ("new", other, new)):
        entry = toy("m")
        entry.scores = {F1: {place: values[place[2]] for place in places(chosen)}}
        entry.scores[VALID_SHARE] = flat(0.9, chosen, (0, 0.01, -0.01))
        write_run(tmp_path / name, [entry], chosen)
    found = gate(tmp_path / "new", tmp_path / "old")[1]
    line, sides = lines(found, F1), [list(values.values()) for values in (new, base)]
    assert line["difference"] == pytest.approx(np.mean(sides[0]) - 0.5)
    moments = independent(*(SideValues(np.array([own])) for own in reversed(sides))).moments
    t = moments.mean[0] / moments.se[0]
    assert line["p_holm"] == pytest.approx(stats.t.sf(abs(t), moments.df[0]) / 0.6)
    alone = lines(gate(tmp_path / "new", tmp_path / "old", "--metric", F1.name)[1], F1)
    assert alone["p_holm"] == pytest.approx(0.6 / 0.8 * line["p_holm"])


def test_the_report_says_what_more_seeds_would_find(tmp_path):
    wild = selection(["am", "he"])
    for name, wobble in (("old", (0, 0.1, -0.1)), ("new", (0.1, -0.1, 0))):
        entry = toy("m")
        entry.scores[F1] = flat(0.5, wild, wobble)
        write_run(tmp_path / name, [entry], wild)
    code, found = gate(tmp_path / "new", tmp_path / "old")
    told = lines(found, F1)["chances"]
    assert code == 2
    assert [each["seeds"] for each in told] == [3, 6, 9]
    assert 0 < told[0]["found"] < told[1]["found"] < told[2]["found"] < 1
    first, second, third = (int(100 * each["found"]) for each in told)
    words = (
        f"macro-F1 (tfidf): with 3 seeds a loss of 0.050 would be found in {first} of 100 runs, "
        f"with 6 in {second}, with 9 in {third}"
    )
    assert words in " ".join(steerboard("gate", tmp_path / "new", "--against", tmp_path / "old").out.split())


# Metrics without values


def few(tmp_path: Path, name: str, chrf: float | None, tasks=("sentiment",), **values) -> Path:
    """Write a run whose self-chrF is ``chrf`` in every cell, or of a task as named."""
    chosen = selection(["am", "he"], tasks)
    entry = toy("m")
    entry.scores = {F1: flat(0.6, chosen), SELF_CHRF: dict.fromkeys(places(chosen), chrf)}
    for place in places(chosen):
        entry.scores[SELF_CHRF][place] = values.get(place[0], chrf)
    return write_run(tmp_path / name, [entry], chosen).path


def test_what_neither_side_has_is_left_out_and_named(tmp_path):
    old = few(tmp_path, "old", None)
    note = "self-chrF: left out, no side has values (too few texts)"
    for against in (old, calibrated(tmp_path, old)):
        code, found = gate(old, against)
        assert (code, [line["metric"] for line in found["results"]]) == (0, [F1.name])
        assert note in found["notes"]
        assert note in steerboard("gate", old, "--against", against, "--format", "md").out
    assert (
        "left out, no entry has all values: self_chrf"
        in steerboard("gate", "calibrate", old, "--out", tmp_path / "again.json").out.splitlines()
    )
    done = steerboard("gate", "accept", old, "--baseline", tmp_path / "old.json.gz", "--reason", "again")
    assert done.code == 0, done.err


def test_a_gate_that_has_nothing_to_look_at_cannot_tell(tmp_path):
    old = few(tmp_path, "old", None)
    code, found = gate(old, old, "--metric", "self_chrf")
    assert (code, found["reason"]) == (2, "neither side has values of these metrics")


def test_a_stratum_that_neither_side_has_is_left_out_and_named(tmp_path):
    old = few(tmp_path, "old", 30.0, ("sentiment", "topic"), sentiment=None)
    new = few(tmp_path, "new", 40.0, ("sentiment", "topic"), sentiment=None)
    for against in (old, calibrated(tmp_path, old)):
        found = gate(new, against)[1]
        assert lines(found, SELF_CHRF)["difference"] == pytest.approx(10.0)
        words = "self-chrF: left out, no side has values in sentiment/am, sentiment/he (too few texts)"
        assert words in found["notes"]


def test_what_only_the_baseline_has_cannot_be_told_and_decides(tmp_path):
    code, found = gate(few(tmp_path, "new", None), few(tmp_path, "old", 30.0))
    line = lines(found, SELF_CHRF)
    assert (line["verdict"], line["decides"], code) == ("inconclusive", True, 2)
    assert line["reason"] == "6 of 6 cells missing from the run (sentiment/am, sentiment/he: 6 × too few texts)"


def test_what_only_the_run_has_cannot_be_told_and_is_no_loss(tmp_path):
    old, new = few(tmp_path, "old", None), few(tmp_path, "new", 30.0)
    entry = toy("m")
    entry.scores[F1] = flat(0.6, SMALL)
    unmeasured = write_run(tmp_path / "unmeasured", [entry], SMALL).path
    for against in (old, calibrated(tmp_path, old), unmeasured):
        code, found = gate(new, against)
        line = lines(found, SELF_CHRF)
        assert (line["verdict"], line["decides"], code) == ("inconclusive", False, 0)
        assert line["reason"] == "the baseline has no values of it"


def test_a_cell_without_a_value_is_no_difference_of_the_same_texts(tmp_path):
    old = few(tmp_path, "old", 30.0)
    entry = toy("m")
    entry.scores = {F1: flat(0.6, SMALL), SELF_CHRF: flat(30.0, SMALL)}
    entry.scores[SELF_CHRF]["sentiment", "am", 2] = None
    gap = write_run(tmp_path / "gap", [entry], SMALL).path
    assert gate(gap, gap)[0] == 0
    assert lines(gate(gap, gap)[1], SELF_CHRF)["reason"] == "identical"
    assert gate(gap, old)[0] == 2


def test_a_cell_that_did_not_run_on_either_side_is_never_the_same(tmp_path):
    entry = toy("m")
    entry.scores = {F1: flat(0.6, SMALL)}
    gone = write_run(tmp_path / "gone", [entry], SMALL, drop=[("m", "sentiment", "am", s) for s in (1, 2, 3)])
    code, found = gate(gone.path, gone.path)
    assert (code, lines(found, F1)["verdict"]) == (2, "inconclusive")


def test_the_headline_and_what_is_named_need_values(tmp_path):
    entry = toy("m")
    entry.scores = {F1: dict.fromkeys(places(SMALL), None), SELF_CHRF: flat(30.0, SMALL)}
    old = write_run(tmp_path / "old", [entry], SMALL).path
    refused = steerboard("gate", "calibrate", old, "--out", tmp_path / "x.json")
    assert "no entry has all values of macro_f1/tfidf" in refused.one_line()
    low = few(tmp_path, "low", None)
    for options in (("--metric", "self_chrf"), ("--tolerance", "self_chrf=3")):
        refused = steerboard("gate", "calibrate", low, "--out", tmp_path / "x.json", *options)
        assert "no entry has all values of self_chrf" in refused.one_line()


def test_accept_loses_no_metric(tmp_path):
    against = calibrated(tmp_path, few(tmp_path, "old", 30.0))
    refused = steerboard("gate", "accept", few(tmp_path, "new", None), "--baseline", against, "--reason", "r")
    assert "no entry has all values of self_chrf" in refused.one_line()


def test_accept_loses_no_seeds(tmp_path):
    runs = {}
    for count in (3, 4):
        chosen, entry = selection(["am"], seeds=range(1, count + 1)), toy("m")
        entry.scores[F1] = flat(0.6, chosen)
        runs[count] = write_run(tmp_path / str(count), [entry], chosen).path
    against = calibrated(tmp_path, runs[4])
    before = against.read_bytes()
    refused = steerboard("gate", "accept", runs[3], "--baseline", against, "--reason", "r")
    assert "the run has 3 generation seeds, the baseline 4" in refused.one_line()
    assert against.read_bytes() == before


def test_a_baseline_of_a_suite_elsewhere_names_no_directory(tmp_path):
    entry = toy("m")
    entry.scores[F1] = flat(0.6, SMALL)
    suite = {"name": "toy", "classifiers": ["tfidf"], "data": "/home/secret/data", "model": "/home/secret"}
    old = write_run(tmp_path / "old", [entry], SMALL, suite=suite, suite_hash="1").path
    against = calibrated(tmp_path, old)
    assert "secret" not in gzip.decompress(against.read_bytes()).decode()
    assert gate(old, against)[0] == 0
