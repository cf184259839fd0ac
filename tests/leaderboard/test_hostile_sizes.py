"""Sizes and numbers from strangers: cut, shown or refused in words, never slowly."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.hostile import (
    LARGEST,
    METHOD,
    built,
    cells_of,
    edit,
    edit_scores,
    read,
    refused,
    shortly,
    shown,
    spread,
    write_texts,
)
from support.toyruns import F1

from leaderboard.checks import MOST

pytest_plugins = ["support.hostile_runs"]

# Sizes

LONG = "long words " * (LARGEST // 10)


def test_long_texts_are_cut(run):
    def change(body: dict[str, Any]) -> None:
        body["suite"]["description"] = body["device"] = body["created"] = body["suite_source"] = LONG
        body["selection"]["narrowed"] = body["plugins"] = [LONG]
        body["method_notes"] = {METHOD: "https://example.org/a " * (LARGEST // 20)}
        body["method_limits"] = {METHOD: LONG}
        body["data_revisions"] = body["versions"] = {f"v{i}": "1" * 100 for i in range(10_000)}

    edit(run.manifest_path, change)
    [failed] = cells_of(run, "m-broken", "method_error")
    edit(failed / "status.json", lambda body: body.update(reason=LONG))
    first, second, *_ = cells_of(run)
    edit(first / "status.json", lambda body: body.update(device=LONG, reason=LONG, finished=LONG))
    write_texts(run, second.name, [LONG, "negative"], LONG)
    edit(first / "scores.json", lambda body: body["scores"][-1].update(note=LONG, signature=LONG))
    edit(first / "scores.json", lambda body: body["scores"][1].update(value=None, note=LONG))
    out = shown(run)
    assert all(path.stat().st_size < LARGEST for path in out.glob("*.[bt][ie][bx]"))


def test_a_config_beyond_all_size_is_refused(run):
    edit(run.manifest_path, lambda body: body["entries"][1]["method"]["config"].update(words=LONG))
    assert "config of method" in refused(run)


def test_a_config_of_many_fields_is_cut(run):
    edit(
        run.manifest_path,
        lambda body: body["entries"][1]["method"].update(config={f"f{i}": i for i in range(3000)}),
    )
    shown(run)


@pytest.mark.parametrize("axis", ["languages", "tasks", "seeds"])
def test_more_than_a_board_can_hold_is_refused(run, axis):
    values = list(range(10_000)) if axis == "seeds" else [f"x{i}" for i in range(10_000)]
    edit(run.manifest_path, lambda body: body["selection"].update({axis: values}))
    assert f"10,000 {axis}; a board holds up to {MOST[axis]:,}" in refused(run)


def test_more_cells_and_entries_than_a_board_can_hold_are_refused(run):
    edit(run.manifest_path, lambda body: body["selection"].update(languages=[f"x{i}" for i in range(300)]))
    edit(run.manifest_path, lambda body: body["selection"].update(seeds=list(range(1000))))
    assert "1,500,000 cells" in refused(run)
    edit(run.manifest_path, lambda body: body.update(entries=body["entries"] * 200))
    assert "1,000 entries" in refused(run)


def test_more_metrics_than_a_board_can_hold_are_refused(small):
    [first, *_] = cells_of(small)
    scores = [{"metric": f"m{i}"} for i in range(10_000)]
    edit(first / "scores.json", lambda body: body.update(scores=[{**body["scores"][0], **own} for own in scores]))
    assert "metrics; a board holds up to 400" in refused(small)


def test_ten_thousand_labels_leave_the_pages_small(run):
    labels = [f"label {i}" for i in range(10_000)]
    edit(
        run.manifest_path,
        lambda body: body["suite"].update(definitions={"sentiment": {"am": {"labels": labels}, "he": labels}}),
    )
    [cell, *_] = cells_of(run)
    write_texts(run, cell.name, labels, "a text " * 60)
    shown(run)


def test_ten_thousand_points_of_a_sweep_leave_the_pages_small(run):
    def change(body: dict[str, Any]) -> None:
        body["surface"] = [
            {**body["surface"][0], "options": {"layer": i // 100, "strength": i % 100}} for i in range(10_000)
        ]

    edit(run.path / "tuned.json", change)
    shown(run)


# Numbers

HUGE = 10**4000
NUMBERS = [
    *(HUGE, float("nan"), float("-inf"), 1e308, -1e308, 5e-324, -0.0),
    *(float("inf"), -HUGE, 2**63, 2**53, -1, True, "1"),
    *(None, "x", [], {}),
]


def of_score(body: dict[str, Any]) -> dict[str, Any]:
    return next(score for score in body["scores"] if score["metric"] == F1.name)


SCORES, STATUS, MANIFEST, SWEEP = "cells/*/scores.json", "cells/*/status.json", "manifest.json", "tuned.json"
PLACES: dict[str, tuple[str, Callable[[dict[str, Any], Any], object]]] = {
    "value": (SCORES, lambda body, n: of_score(body).update(value=n)),
    "human": (SCORES, lambda body, n: of_score(body).update(human=n)),
    "interval": (SCORES, lambda body, n: of_score(body).update(interval=[n, n])),
    "by_seed": (SCORES, lambda body, n: of_score(body).update(by_seed={"0": n})),
    "detail": (SCORES, lambda body, n: of_score(body).update(detail={"texts": n})),
    "all metrics": (SCORES, lambda body, n: [score.update(value=n, human=n) for score in body["scores"]]),
    "seconds": (STATUS, lambda body, n: body.update(seconds=n)),
    "tokens": (STATUS, lambda body, n: body.update(prompt_tokens=n, new_tokens=n)),
    "fit": (STATUS, lambda body, n: body.update(fit={"steering/v1": {"seconds": n, "tokens": n}})),
    "seed": (STATUS, lambda body, n: body["cell"].update(seed=n)),
    "texts": (STATUS, lambda body, n: body["cell"].update(texts_per_label=n)),
    "seeds": (MANIFEST, lambda body, n: body["selection"].update(seeds=[n, 1])),
    "texts per label": (MANIFEST, lambda body, n: body["selection"].update(texts_per_label={"sentiment": n})),
    "version": (MANIFEST, lambda body, n: body["suite"].update(version=n)),
    "option": (MANIFEST, lambda body, n: body["entries"][1]["method"]["config"].update(layer=n)),
    "nested option": (MANIFEST, lambda body, n: body["entries"][2]["method"]["config"].update(layer=[[n]])),
    "gain": (SWEEP, lambda body, n: body["surface"][0].update(gain=n, macro_f1=n, valid=n)),
    "tuned option": (SWEEP, lambda body, n: body["surface"][1]["options"].update(layer=n)),
}
"""Where a number stands: its file, and what puts another one there."""

NUMBERED = [
    pytest.param(place, number, marks=[] if k % 9 == i % 9 else pytest.mark.nightly, id=f"{place}-{shortly(number)}")
    for i, place in enumerate(PLACES)
    for k, number in enumerate(NUMBERS)
]
"""By day every place gets two of the numbers, and every number stands in two places."""


@pytest.mark.parametrize(("place", "number"), NUMBERED)
def test_any_number_is_shown_or_refused(small, place, number):
    pattern, change = PLACES[place]
    for path in small.path.glob(pattern):
        if pattern != SCORES or place == "all metrics" or path.parent in cells_of(small):
            edit(path, lambda body: change(body, number))
    assert built(small).code == 0 or pattern != SWEEP, "a broken sweep is left out"


@pytest.mark.parametrize("number", spread([float("inf"), 1e308, float("-inf"), -1e200], 2))
def test_an_infinite_score_leaves_no_mean(run, number):
    edit_scores(run, lambda score: score.update(value=number))
    out = shown(run)
    body = json.loads(read(out / "results.json"))
    means = {entry["method"]["name"]: entry["standing"]["mean"] is not None for entry in body["boards"][0]["entries"]}
    assert means == {"zero-shot": True, METHOD: False, "m-broken": False, "human": True}


@pytest.mark.parametrize(
    ("examples", "labels"), [(0, 2), (1, 2), (2, 1), (2, 2), (30, 30), (30, 100_000), (100_000, 2)]
)
def test_predictions_of_any_size_are_used_or_not(small, examples, labels):
    numbers = [i % labels for i in range(examples)]
    part = {
        "examples": "e",
        "labels": [str(i) for i in range(labels)],
        "gold": numbers,
        "predictions": {F1.name: {"0": numbers}},
    }
    packed = gzip.compress(json.dumps({"classifier/tfidf": part}).encode(), 1)
    for path in small.path.glob("cells/*/predictions.json.gz"):
        path.write_bytes(packed)
    for path in small.path.glob("cells/*/scores.json"):
        edit(path, lambda body: body["scores"][0].update(value=1.0))
    built(small)


def test_the_last_of_two_equal_keys_counts(run):
    body = run.manifest_path.read_text()
    run.manifest_path.write_text(body.replace('"git_commit"', '"device": "abacus", "git_commit"'))
    assert "abacus" not in read(shown(run) / "index.html")
