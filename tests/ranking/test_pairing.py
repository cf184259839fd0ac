"""Which runs may be compared: one rule for compare and for the gate's commands."""

from __future__ import annotations

import pytest
from support.gating import CHOSEN, LANGUAGES, OTHER, run_at
from support.helpers import steerboard
from support.toyruns import selection

SUITE = {"name": "toy", "classifiers": ["tfidf"]}
HASHES = {f"sentiment/{code}": "1" for code in LANGUAGES}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suite_hash": "0ther"}, "the runs are of different suites: toy (5u17e) and toy (0ther). "),
        (
            {"suite_hash": "0ther", "suite": {"name": "toy", "classifiers": ["hf:x"]}},
            "the runs are of different suites: toy (5u17e) and toy (0ther), which differ in classifiers. ",
        ),
        ({"data_hashes": {**HASHES, "sentiment/he": "2"}}, "the runs are of different data in sentiment/he. "),
        (
            {"chosen": selection(LANGUAGES, seeds=(4, 5, 6), texts=9)},
            "the runs differ in texts per label: sentiment (2 and 9). ",
        ),
    ],
)
def test_runs_that_measure_different_things_are_refused_by_every_command_in_one_line(tmp_path, change, words):
    a = run_at(tmp_path / "a", data_hashes=HASHES, suite=SUITE)
    b = run_at(tmp_path / "b", **{"chosen": OTHER, "data_hashes": HASHES, "suite": SUITE, **change})
    against = tmp_path / "a.json"
    assert steerboard("gate", "calibrate", a, "--out", against).code == 0
    line = steerboard("gate", "calibrate", a, b, "--out", tmp_path / "both.json").one_line()
    assert line.startswith(f"steerboard: {words}")
    for base in (a, against):
        done = steerboard("gate", b, "--against", base)
        assert (done.code, done.err) == (2, "")
        assert " ".join(done.out.split()).endswith(f"gate: inconclusive: {line.removeprefix('steerboard: ')}"[:-1])
    assert steerboard("compare", a, b).one_line() == line


def test_suites_may_differ_in_what_is_run_and_where_it_is_stored(tmp_path):
    a = run_at(tmp_path / "a", suite={**SUITE, "seeds": [1, 2, 3], "methods": ["m"], "data": "here"}, suite_hash="1")
    listed = {**SUITE, "seeds": [2, 3, 4], "methods": ["m", "n"], "data": "there"}
    b = run_at(tmp_path / "b", 0.6, CHOSEN, (0.01, 0, -0.01), suite=listed, suite_hash="2")
    assert steerboard("compare", a, b).code == steerboard("gate", b, "--against", a).code == 0
