"""Pull from a storage that anybody may have written to: bounded, refused in one line, nothing written."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import fsspec
import pytest
from support.helpers import contents, key, names_below
from support.syncing import cell_of, pull, push, stored, write_run, write_scores

from harness.core import storage
from harness.core.storage import Push, Storage, StoredFile
from harness.core.store import Run

pytest_plugins = ["support.storages"]


def write_push(url: str, files: dict[str, Any], objects: dict[str, bytes] | None = None) -> None:
    """Write a push as somebody else might."""
    body = json.dumps({"schema": 1, "created": "2026", "files": files}).encode()
    write_object(url, f"index/{hashlib.sha256(body).hexdigest()}.json", body)
    for name, data in (objects or {}).items():
        write_object(url, f"objects/{name}", data)


def write_object(url: str, name: str, data: bytes) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
    fs.pipe_file(f"{root}/{name}", data)


def file_of(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def test_an_object_that_is_not_what_was_pushed_is_refused(a, url, tmp_path):
    push(a, url)
    run = write_run(tmp_path / "b", "he")
    before = contents(run.path)
    digest = hashlib.sha256((a.cell(cell_of("am")) / "scores.json").read_bytes()).hexdigest()
    right = stored(url)[f"objects/{digest}"]
    for wrong in (right[:-1] + b"x", right[:-9], right + b"x"):
        write_object(url, f"objects/{digest}", wrong)
        line = pull(url, run.path).one_line()
        assert f"objects/{digest}" in line
        assert "not what was pushed (wrong checksum)" in line or "too large" in line
        assert {name: data for name, data in contents(run.path).items() if name != ".lock"} == before
    write_object(url, f"objects/{digest}", right)
    assert pull(url, run.path).code == 0


HOSTILE = [
    "../x",
    "/etc/passwd",
    "cells/../../x",
    f"cells/{'0' * 16}/../../../x",
    f"cells/{'0' * 16}/status.json/../../x",
    f"cells/{'0' * 16}/x.py",
    f"cells/{'0' * 16}/status.json\n",
    f"cells/{'A' * 16}/status.json",
    "cells//status.json",
    "steering/\u202ex.safetensors",
    f"tuning/tuning/cells/{'0' * 16}/status.json",
    f"steering\\{'0' * 16}.safetensors",
    "\x00",
    "",
    ".lock",
    "~/x",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_that_are_not_those_of_a_run_are_refused(name, a, url, tmp_path):
    push(a, url)
    write_push(url, {name: file_of(b"x")}, {file_of(b"x")["sha256"]: b"x"})
    for outcome in (pull(url, tmp_path / "b"), push(a, url)):
        assert "which is not a file of a run" in outcome.one_line()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tuned.json": {"sha256": "0" * 64, "size": 2**27 + 1}}, "with 134,217,729 bytes, too many"),
        ({"tuned.json": {"sha256": "0" * 64, "size": 2**40}}, "is not a valid"),
        ({"tuned.json": {"sha256": "0" * 64, "size": 0}}, "is not a valid"),
        ({"tuned.json": {"sha256": "0" * 64, "size": True}}, "is not a valid"),
        ({"tuned.json": {"sha256": "../" * 21 + "x", "size": 1}}, "is not a valid"),
        ({"tuned.json": {"sha256": "0" * 64 + "\n", "size": 1}}, "is not a valid"),
        ({"tuned.json": []}, "is not a valid"),
    ],
)
def test_an_index_is_bounded(files, words, memory, tmp_path):
    write_push(memory, files)
    assert words in pull(memory, tmp_path / "b").one_line()


def test_a_storage_is_bounded(a, memory, tmp_path, monkeypatch):
    push(a, memory)
    for name, value in (("MAX_FILES", 12), ("MAX_INDEXES", 0), ("MAX_INDEX_BYTES", 99), ("MAX_ALL_INDEX_BYTES", 99)):
        with monkeypatch.context() as patched:
            patched.setattr(storage, name, value)
            line = pull(memory, tmp_path / "b").one_line()
            assert "too many or too large indexes" in line or "names more than 12 files" in line


def test_a_truncated_index_is_refused(a, url, tmp_path):
    push(a, url)
    [name] = [name for name in stored(url) if name.startswith("index/")]
    data = stored(url)[name]
    write_object(url, name, data[:-9])
    assert f"{name} is truncated or was edited. Delete it" in pull(url, tmp_path / "b").one_line()
    half = data[: len(data) // 2]
    write_object(url, name, data)
    write_object(url, f"index/{hashlib.sha256(half).hexdigest()}.json", half)
    assert "is not valid JSON" in pull(url, tmp_path / "b").one_line()


def test_other_files_in_the_storage_are_not_looked_at(a, url, tmp_path):
    write_object(url, "index/notes.json", b"{")
    write_object(url, f"index/{'0' * 63}.json.tmp", b"{")
    write_object(url, "README", b"x")
    push(a, url)
    assert pull(url, tmp_path / "b").code == 0
    assert "README" not in names_below(tmp_path / "b")


def test_what_a_killed_push_left_goes_with_the_next(a, tmp_path):
    push(a, f"file://{tmp_path}/storage")
    half = tmp_path / "storage" / "objects" / f".{'0' * 60}.abcdefgh.tmp"
    half.write_text("half")
    write_scores(a, "am", "validity", "classifier/tfidf", "lexical")
    assert push(a, f"file://{tmp_path}/storage").code == 0
    assert not half.exists()


def test_a_pipe_in_the_storage_is_not_waited_for(a, tmp_path):
    url = f"file://{tmp_path}/storage"
    push(a, url)
    digest = hashlib.sha256((a.cell(cell_of("am")) / "scores.json").read_bytes()).hexdigest()
    (tmp_path / "storage" / "objects" / digest).unlink()
    os.mkfifo(tmp_path / "storage" / "objects" / digest)
    os.mkfifo(tmp_path / "storage" / "index" / f"{'0' * 64}.json")
    assert "is not a regular file" in pull(url, tmp_path / "b").one_line()


def forged(run: Run, url: str, name: str, data: bytes) -> None:
    """Push a run with one file of a cell forged, its checksums right."""
    push(run, url)
    cell = f"cells/{cell_of('am')}"
    pushed = Storage(url).pushes()[0]
    files = {**pushed.files, f"{cell}/{name}": StoredFile.model_validate(file_of(data))}
    for index in [index for index in stored(url) if index.startswith("index/")]:
        fs, root = fsspec.core.url_to_fs(url)
        fs.rm_file(f"{root}/{index}")
    body = Push(created="2026", files=files).model_dump(mode="json")["files"]
    write_push(url, body, {file_of(data)["sha256"]: data})


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("status.json", {"cell": key(language="he").model_dump(mode="json")}, "holds the status of another cell"),
        ("status.json", {"state": "method_error"}, "holds the status of another cell, or of one that failed"),
        ("status.json", {"generations_sha256": "0" * 64}, "does not hold the texts that its status is of"),
        ("status.json", {"state": "skipped"}, "does not hold the texts that its status is of"),
        ("status.json", {"odd": 1}, "is not a valid status file"),
        ("scores.json", {"generations_sha256": "0" * 64}, "holds scores of other texts"),
        ("scores.json", {"cell_id": "0" * 16}, "holds scores of other texts"),
        ("scores.json", {"scores": 1}, "is not a valid scores file"),
    ],
)
def test_a_cell_that_does_not_fit_together_is_refused(name, change, words, memory, tmp_path):
    run = write_run(tmp_path / "a", "am")
    body = json.loads((run.cell(cell_of("am")) / name).read_bytes())
    forged(run, memory, name, json.dumps({**body, **change}).encode())
    assert words in pull(memory, tmp_path / "b").one_line()
    assert Run(tmp_path / "b").cell_dirs() == []


@pytest.mark.parametrize("data", [b"{", b'{"schema": 1}', b'{"schema": NaN}', b"[" * 100_000, b"\xff", b"null"])
def test_a_manifest_that_is_none_is_refused(data, a, memory, tmp_path):
    write_push(memory, {"manifest.json": file_of(data)}, {file_of(data)["sha256"]: data})
    for outcome in (pull(memory, tmp_path / "b"), push(a, memory)):
        assert f"{memory}: manifest.json" in outcome.one_line()
    assert not (tmp_path / "b").exists()


def test_a_manifest_with_a_number_that_has_no_json_is_refused(memory, tmp_path):
    run = write_run(tmp_path / "a", "am")
    body = json.loads(run.manifest_path.read_bytes())
    data = json.dumps({**body, "suite": {"x": float("nan")}}).encode()
    write_push(memory, {"manifest.json": file_of(data)}, {file_of(data)["sha256"]: data})
    assert "holds NaN, which is not a number" in pull(memory, tmp_path / "b").one_line()
