"""Baselines: spread, tolerances, files, and their replacement. Numbers can be checked by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.gating import CHOSEN, LANGUAGES, OTHER, baseline, gate, only, run_at, scored
from support.helpers import steerboard
from support.toyruns import F1, selection, write_run

from harness.core.errors import UserError
from harness.core.files import canonical_json, digest
from harness.ranking.gate.baseline import Spread, Tolerance, read_baseline
from harness.ranking.gate.calibrate import bound, default_tolerance, measure_spread, parse_tolerances
from harness.scoring.metrics import SELF_CHRF, VALID_SHARE, VENDI

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


# Tolerances


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
