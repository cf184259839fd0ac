"""Files from strangers: fields that are anything, broken files, pipes and links, and what lies in the site's folder."""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from support.helpers import snapshot, steerboard
from support.hostile import (
    AUDIT,
    built,
    cells_of,
    check_site,
    edit,
    read,
    refused,
    shown,
    spread,
)

from harness.core.errors import UserError
from harness.core.files import write_json_gz
from leaderboard.checks import check_folder

pytest_plugins = ["support.hostile_runs"]

REMOVED = object()
FILES = (
    *("generations.jsonl", "scores.json", "manifest.json", "tuned.json"),
    *("predictions.json.gz", "status.json"),
)
WRONG = [None, "\u202e<b>", -1, 1.5, True, [], {}, [[]], {"a": {}}, REMOVED]

# Fields


def places_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in a JSON value, of lists the first alone."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places_of(item, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Return a JSON value with something else at a place; without it where ``new`` is REMOVED."""
    key, *rest = at
    made = value.copy()
    if rest:
        made[key] = changed(value[key], tuple(rest), new)
    elif new is REMOVED:
        del made[key]
    else:
        made[key] = new
    return made


def rotated(body: Any, turn: int, every: int = 1) -> list[tuple[tuple[Any, ...], Any]]:
    """Return every so many-th place of a JSON value with something else to stand there, one kind after the other."""
    return [(at, WRONG[(i + turn) % len(WRONG)]) for i, at in enumerate(places_of(body)) if i % every == 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("turn", "every"), [(0, 3), *(pytest.param(turn, 1, marks=pytest.mark.nightly) for turn in range(len(WRONG)))]
)
@pytest.mark.parametrize("file", FILES)
def test_every_field_may_be_anything_or_missing(small, file, turn, every):
    [path, *_] = [*small.path.glob(file), *(cell / file for cell in cells_of(small))]
    before = path.read_bytes()
    packed = file.endswith(".gz")
    body = json.loads((gzip.decompress(before) if packed else before).splitlines()[0])
    seen: set[str] = set()
    for at, new in rotated(body, turn, every):
        data = json.dumps(changed(body, at, new)).encode()
        path.write_bytes(gzip.compress(data) if packed else data)
        outcome = built(small, look=False)
        if outcome.code == 0:
            index = read(small.path.parent / "out" / "index.html")
            assert "\u202e" not in index
            if index not in seen:
                check_site(small.path.parent / "out")
            seen.add(index)


@pytest.mark.parametrize("turn", spread(range(len(WRONG)), 5))
def test_every_field_of_an_audit_may_be_anything(run, turn):
    paths = [cell / "audit.json.gz" for cell in run.path.glob("cells/*") if (cell / "audit.json.gz").is_file()]
    cases = rotated(AUDIT, turn)
    for path, (at, new) in zip(paths, cases, strict=False):
        write_json_gz(path, changed(AUDIT, at, new))
    assert len(paths) >= len(cases)
    for page in shown(run).glob("*/samples-*.html"):
        assert "\u202e" not in read(page)


@pytest.mark.parametrize("field", ["name", "classifiers"])
def test_a_suite_that_says_too_little_is_refused(run, field):
    edit(run.manifest_path, lambda body: body["suite"].pop(field))
    assert field in refused(run)


@pytest.mark.parametrize("field", ["version", "description", "definitions", "tasks"])
def test_a_suite_that_says_less_is_shown(run, field):
    edit(run.manifest_path, lambda body: body["suite"].pop(field))
    shown(run)


def test_a_cell_of_an_entry_that_the_manifest_lacks_counts_nowhere(run):
    edit(run.manifest_path, lambda body: body["entries"].pop(1))
    shown(run)


def test_a_language_of_which_nothing_is_there_yet_is_shown(run):
    for path in run.path.glob("cells/*/status.json"):
        if json.loads(path.read_text())["cell"]["language"] == "he":
            shutil.rmtree(path.parent)
    shown(run)


def test_a_run_without_entries_is_refused(run):
    edit(run.manifest_path, lambda body: body.update(entries=[]))
    assert "nothing is scored" in refused(run)


@pytest.mark.parametrize("axis", ["languages", "tasks", "seeds"])
def test_a_selection_of_nothing_or_of_one_thing_twice_is_refused(run, axis):
    edit(run.manifest_path, lambda body: body["selection"].update({axis: body["selection"][axis] * 2}))
    assert f"{axis} of the selection are named twice" in refused(run)
    edit(run.manifest_path, lambda body: body["selection"].update({axis: []}))
    assert f"{axis} of the selection are missing" in refused(run)


# Files

BROKEN = {
    "empty": b"",
    "half": b'{"schema": 1, "a',
    "no UTF-8": b"\xff\xfe{}",
    "list": b"[1]",
    "nested": b"[" * 200_000,
    "nested object": b'{"schema":' * 100_000,
    "schema": b'{"schema": 99}',
    "zeros": bytes(1000),
    "bomb": b"",  # see ``broken``
    "binary": bytes(range(256)) * 4,
}


@functools.cache
def broken(body: str) -> bytes:
    return gzip.compress(bytes(150_000_000), 1) if body == "bomb" else BROKEN[body]


@pytest.mark.parametrize("case", spread([(file, body) for file in [*FILES, "audit.json.gz"] for body in BROKEN], 6))
def test_a_broken_file_is_named_or_said(small, case):
    file, body = case
    for path in [*small.path.glob(file), *small.path.glob(f"cells/*/{file}")]:
        path.write_bytes(broken(body))
    outcome = built(small)
    if file in {"manifest.json", "status.json", "scores.json"}:
        assert file in outcome.one_line()


@pytest.mark.parametrize("body", spread(BROKEN, 5))
def test_a_broken_sweep_or_steering_is_left_out_or_said(small, body):
    for path in (small.path / "tuned.json", small.steering_path("v1")):
        path.write_bytes(broken(body))
    shown(small)


PLACES = (
    *("cells/X/scores.json", "manifest.json", "tuned.json", "steering/v1.safetensors"),
    *("cells/X/generations.jsonl", "cells/X/predictions.json.gz", "cells/X/status.json"),
)


@pytest.mark.parametrize("file", spread(PLACES, 4))
def test_pipes_and_folders_in_the_place_of_files_are_not_waited_for(small, file):
    path = small.path / file.replace("X", cells_of(small)[0].name)
    path.unlink()
    path.mkdir()
    built(small)
    path.rmdir()
    os.mkfifo(path)
    assert path.name in refused(small) or "no manifest.json" in refused(small)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert path.name in refused(small) or "no manifest.json" in refused(small)
    path.unlink()
    path.symlink_to(path.name)
    built(small)


def test_a_link_out_of_a_folder_that_was_handed_in_is_refused(small, tmp_path):
    [cell, *_] = cells_of(small)
    secret = tmp_path / "secret"
    (cell / "scores.json").rename(secret)
    (cell / "scores.json").symlink_to(secret)
    check_folder(small, claimed=False)
    with pytest.raises(UserError, match="is a link out of the directory"):
        check_folder(small, claimed=True)
    secret.rename(small.path / "secret")
    (cell / "scores.json").unlink()
    (cell / "scores.json").symlink_to(small.path / "secret")
    check_folder(small, claimed=True)
    (tmp_path / "handed" / "results").mkdir(parents=True)
    small.path.rename(tmp_path / "handed" / "results" / "x")
    (tmp_path / "handed" / "submission.yaml").write_text("name: x\n")
    steerboard("board", "build", tmp_path / "handed", "--out", tmp_path / "out").one_line()


# What lies in the folder of the site


STRANGE = ["../kept", "/x", "a/../../kept", "..", ".", "", "x" * 5000, "link", "deep/kept", "a\x00b", 1, None]
LISTINGS = [
    json.dumps({"files": STRANGE}).encode(),
    *(b"", b"[]", b"{}", b'{"files": 1}', b"[" * 100_000, b"\xff"),
    json.dumps({"files": ["site.json", "index.html", "results.json"]}).encode(),
]


@pytest.mark.parametrize("listing", spread(LISTINGS, 7))
def test_a_listing_of_an_earlier_build_removes_nothing_outside(small, tmp_path, listing):
    out, outside = tmp_path / "out", tmp_path / "run" / "outside"
    outside.mkdir()
    for path in (outside / "kept", tmp_path / "run" / "kept"):
        path.write_text("kept")
    out.mkdir()
    (out / "deep").symlink_to(outside)
    (out / "link").symlink_to(outside / "kept")
    (out / "site.json").write_bytes(listing)
    before = snapshot(tmp_path / "run")
    shown(small)
    assert snapshot(tmp_path / "run") == before
    assert (out / "site.json").is_file()


def test_a_pipe_in_the_place_of_the_listing_is_not_waited_for(small, tmp_path):
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "site.json")
    shown(small)


# Results


@pytest.mark.slow
@pytest.mark.parametrize("turn", spread(range(len(WRONG)), len(WRONG)))
def test_results_whose_fields_are_anything_are_compared_or_refused(tiny, tmp_path, turn):
    steerboard("board", "build", tiny, "--out", tmp_path / "out")
    old, path = tmp_path / "out" / "results.json", tmp_path / "new.json"
    body = json.loads(read(old))
    for at, new in rotated(body, turn):
        path.write_text(json.dumps(changed(body, at, new)))
        outcome = steerboard("board", "diff", old, path)
        assert outcome.code == 0 or outcome.one_line().isprintable()


@pytest.mark.parametrize("body", BROKEN)
def test_broken_results_are_refused(tmp_path, body):
    (tmp_path / "results.json").write_bytes(broken(body))
    assert "results.json" in steerboard("board", "diff", tmp_path, tmp_path).one_line()


def test_a_pipe_in_the_place_of_results_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    assert "results.json" in steerboard("board", "diff", tmp_path, tmp_path).one_line()
    assert "not a regular file" in steerboard("board", "diff", *[tmp_path / "results.json"] * 2).one_line()
