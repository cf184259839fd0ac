"""Steering files shown to people and as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.helpers import steerboard
from support.steering_files import SCALED, added, vector

from harness.core.interventions import Steering, save_steering
from harness.engine.inspect_vectors import clean, inline, sparkline

KINDS = ("dead", "specific", "partial", "shared")
METHOD = {"name": "language", "version": "1", "config": {"layer": 0.21, "positions": "all"}}
PROVENANCE: dict[str, Any] = {
    "method": METHOD,
    "model": {"name": "owner/model", "revision": "c0ffee", "fingerprint": "c0ffee", "dtype": "bfloat16"},
    "language": "he",
    "residual_norm": [1.0, 2.0, 4.0],
    "counts": {"he": {"texts": 997, "tokens": 12345}},
    "versions": {"torch": "2.13.0"},
    "colour": "אדום – ቀይ",
    "fit": {"norm_before_unit": 12.5},
}


def shown(*files: object) -> str:
    outcome = steerboard("vectors", "show", *files)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_show_says_what_each_intervention_does(stored):
    items = (
        added(vector=np.array([3, 4], np.float32), strength=0.5, residual_norm=8.0),
        added(**{**SCALED, "vector": np.array([0, -1], np.float32)}, layer=40, positions="generated"),
    )
    table = rows(shown(stored(*items)))
    assert ["1", "layer_output", "add", "0.5", "residual", "4", "5", "all"] in table
    assert ["40", "mlp_neurons", "scale", "0.3", "raw", "0.3", "1", "generated"] in table


def test_show_fits_into_80_columns_and_cuts_no_number(stored, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    tiny = {"strength": -1.234e-7, "vector": vector(1) * np.float32(1e-8), "positions": "generated"}
    items = (added(layer=41, residual_norm=123456.0, **tiny), added(**{**SCALED, **tiny}))
    path = stored(*items, **PROVENANCE, residual_norms_of_other=list(range(200)), long="ሰ" * 300)
    title, _, text = shown(path).partition("\n")
    assert title == str(path)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "-1.234e-07" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "\x1b" not in text  # no colours in a pipe


def test_show_prints_provenance_in_groups(stored):
    text = shown(stored(**PROVENANCE))
    for row in (
        ["method", "language"],
        ["version", "1"],
        ["config", "layer=0.21,", "positions=all"],
        ["model", "owner/model"],
        ["revision", "c0ffee"],
        ["residual", "norm", "1,", "2,", "4"],
        ["counts", "he=(texts=997,", "tokens=12345)"],
        ["versions", "torch=2.13.0"],
        ["colour", "אדום", "–", "ቀይ"],
        ["norm", "before", "unit", "12.5"],
    ):
        assert row in rows(text)


def test_show_takes_files_without_provenance_and_without_interventions(stored, tmp_path):
    save_steering(tmp_path / "none", Steering())
    text = shown(stored(), tmp_path / "none")
    assert text.count("\n\n") >= 2
    assert text.endswith("none\nno intervention: the model runs unsteered\n")
    assert "method" not in text


def point(step: int, held_out: float) -> dict[str, float]:
    return {"step": step, "train": 2.0, "held_out": held_out, "norm": 1.5}


def test_the_curve_of_a_learned_vector_is_a_table_and_a_line(stored):
    losses = [9.0 - i for i in range(8)] + [3.0 + i for i in range(30)]
    text = shown(stored(fit={"curve": [point(10 * i, loss) for i, loss in enumerate(losses)], "rate": 0.01}))
    table = rows(text)
    assert ["step", "train", "held", "out", "norm"] in table
    assert ["0", "2", "9", "1.5"] in table
    assert ["70", "2", "2", "1.5", "lowest"] in table
    assert ["370", "2", "32", "1.5"] in table
    assert sum(row[1:2] == ["2"] for row in table) <= 13
    assert "held out ▃" in text
    assert "█ 9 to 32" in text
    assert ["rate", "0.01"] in table


def test_the_neurons_of_clas_are_counted_by_layer(stored):
    counts = [{"dead": i, "specific": 10, "partial": 1200, "shared": 3} for i in range(3)]
    table = rows(shown(stored(fit={"categories": counts, "bridge": [1]})))
    assert ["layer", "dead", "specific", "partial", "shared", "bridge"] in table
    assert ["0", "0", "10", "1,200", "3"] in table
    assert ["1", "1", "10", "1,200", "3", "bridge"] in table


def test_excluded_tokens_are_shown_for_each_mean(stored):
    report = {"rule": "special tokens", "by_id": 7, "by_norm_per_layer": [0] * 20 + [8], "tokens": {"<s>": 7}}
    text = shown(stored(fit={"excluded": {"am": report, "others": {**report, "by_id": 9}}}))
    assert "excluded tokens: am" in text
    assert "excluded tokens: others" in text
    assert ["by", "id", "7"] in rows(text)
    assert ["by", "norm", "per", "layer", "▁" * 20 + "█", "0", "to", "8"] in rows(text)
    assert ["by", "id", "9"] in rows(shown(stored(fit={"excluded": {**report, "by_id": 9}})))


@pytest.mark.parametrize("none", [{}, None, []], ids=str)
def test_no_excluded_tokens_are_no_block(stored, none):
    assert "excluded tokens" not in shown(stored(fit={"excluded": none}))


@pytest.mark.parametrize(
    "fit",
    [
        7,
        [],
        {"curve": "up", "categories": 3, "bridge": {}, "excluded": "all"},
        {"curve": [], "categories": []},
        {"curve": [point(0, 1.0), {"step": 1}], "categories": [{"dead": 1}]},
        {"curve": [{**point(0, 1.0), "held_out": "1"}], "categories": [[]]},
        {"curve": [point(0, 10**400)], "excluded": {"a": 1, "b": {"rule": "x"}}},
        {
            "curve": [point(0, 1.0)],
            "categories": [dict.fromkeys(KINDS, 1)],
        },
    ],
    ids=lambda fit: str(fit)[:40],
)
def test_a_fit_of_another_shape_is_still_shown(stored, fit):
    shown(stored(fit=fit, method="a", model=[1], residual_norm="b", counts=None, versions=3))


def test_text_from_outside_moves_no_cursor(stored):
    trap = "\x1b[2J[bold]x[/bold]\u202e\x9b\r\n"
    method = {"name": trap, "config": {trap: trap}}
    text = shown(stored(**{trap: trap}, method=method, fit={"excluded": {trap: {trap: 1}}, trap: [trap]}))
    assert not {"\x1b", "\u202e", "\x9b", "\r"} & set(text)
    assert "\\x1b[2J[bold]x[/bold]\\u202e\\x9b\\r\\n" in "".join(text.split())


def test_json_is_a_line_for_every_file_with_the_header_and_the_norms(stored, tmp_path):
    one = stored(added(vector=np.array([3, 4], np.float32), residual_norm=2.0), **PROVENANCE)
    two = stored(added(positions="prompt"), name="two")
    lines = [json.loads(line) for line in shown("--json", one, two).splitlines()]
    assert [line["file"] for line in lines] == [str(one), str(two)]
    assert lines[0]["provenance"] == PROVENANCE
    assert lines[0]["interventions"] == [
        {
            "site": "layer_output",
            "layer": 1,
            "operation": "add",
            "strength": 0.3,
            "unit": "residual",
            "residual_norm": 2.0,
            "positions": "all",
            "size": 2,
            "norm": 5.0,
            "raw_strength": 0.6,
        }
    ]
    assert lines[1]["interventions"][0]["positions"] == "prompt"


def test_the_help_says_the_convention_of_layers():
    text = " ".join(steerboard("vectors", "export", "--help").out.split())
    assert "direction.N is added to the output of decoder layer N" in text
    assert "Coefficient 1 there is the strength here" in text
    assert "load only your own" in text


def test_a_sparkline_goes_from_lowest_to_highest():
    assert sparkline([0, 7, 3, 7, 1]) == "▁█▄█▂"
    assert sparkline([5, 5]) == "▄▄"
    assert sparkline([2]) == "▄"
    assert len(sparkline([float(i) for i in range(1000)])) == 42


def test_values_are_written_on_one_line():
    assert inline({"a": [1, 2.5, None], "b": {"c": True}}) == "a=[1, 2.5, –], b=(c=True)"
    assert inline([[[[[[[1]]]]]]]) == "[[[[…]]]]"
    assert inline("x" * 500).endswith("… (all of it: --json)")
    assert clean("שלום ሰላም\t\x07") == "שלום ሰላም\\t\\x07"
