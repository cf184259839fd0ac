"""The run folder: one writer at a time, cells that are whole or absent, and no file believed unread."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from support.helpers import environment, generations, key, names_below, toy_manifest

from harness.core.cells import cell_id
from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering
from harness.core.records import CellScores, CellStatus, Score, Usage
from harness.core.store import Run, parse_digit_lists

CELL = cell_id(key())
TEXTS = generations({"positive": ["ሰላም", "שלום"], "negative": ["a", "b\u2028c"]})
DOWNSTREAM = Score(metric="macro_f1/tfidf", value=0.5, direction="up", unit="F1", signature="s", by_seed={"0": 0.5})
SCORES = CellScores(cell_id=CELL, generations_sha256="00", protocol="p", scores=[DOWNSTREAM])


@pytest.fixture
def run(tmp_path):
    """A run folder with one finished and scored cell."""
    run = Run(tmp_path / "run")
    run.write_manifest(toy_manifest())
    run.write_cell(CELL, CellStatus(cell=key(), state="ok"), TEXTS)
    run.write_scores(SCORES, {"classifier/tfidf": {"gold": [0, 1]}, "validity": {"valid": [True]}})
    return run


# What is written comes back


def test_a_cell_comes_back_as_it_was_written(run):
    assert run.cell_ids() == [CELL]
    assert run.status(CELL).cell == key()
    assert run.generations(CELL) == TEXTS
    assert run.scores(CELL).model_copy(update={"kept": {}}) == SCORES
    assert {*run.scores(CELL).kept} == {"predictions.json.gz", "audit.json.gz"}
    assert run.predictions(CELL) == {"classifier/tfidf": {"gold": [0, 1]}}
    assert run.text_checks(CELL) == {"validity": {"valid": [True]}}


def test_tables_read_of_scores_what_they_need(run):
    found = run.read_scores_fast(CELL)
    assert (found["protocol"], found["generations_sha256"]) == ("p", "00")
    [score] = found["scores"]
    assert (score["metric"], score["value"], score["signature"]) == ("macro_f1/tfidf", 0.5, "s")
    assert score["by_seed"] == {"0": 0.5}
    full = DOWNSTREAM.model_copy(update={"human": 0.75, "detail": {"texts": 40.0, "p05": 1.0}, "value": None})
    run.write_scores(SCORES.model_copy(update={"scores": [full]}), {})
    [score] = run.read_scores_fast(CELL)["scores"]
    assert (score["human"], score["detail"], score["value"]) == (0.75, {"texts": 40.0}, None)
    assert run.read_scores_fast("no such cell") is None


def test_tables_read_of_a_status_what_they_need(run):
    found = run.read_status_fast(CELL)
    whole = key().model_dump(mode="json")
    assert found["cell"] == {name: whole[name] for name in found["cell"]}
    assert set(found["cell"]) == {"method", "model", "setting", "task", "language", "seed"}
    assert found["state"] == "ok"
    fit = {"steering/a": Usage(seconds=1.5, tokens=7), "activations/b": None}
    status = CellStatus(cell=key(), state="skipped", reason="no text", device="cpu", new_tokens=3, fit=fit)
    run.write_cell(CELL, status, [])
    found = run.read_status_fast(CELL)
    assert (found["reason"], found["device"], found["new_tokens"]) == ("no text", "cpu", 3)
    assert found["fit"] == {"steering/a": {"seconds": 1.5, "tokens": 7}, "activations/b": None}
    assert found["prompt_tokens"] is None
    assert run.read_status_fast("no such cell") is None


@pytest.mark.parametrize("spaces", [None, 0, 4], ids=["one line", "lines", "wide"])
def test_a_file_may_be_laid_out_otherwise(run, spaces):
    for name, read in (("status", run.status), ("scores", run.scores), ("scores", run.read_scores_fast)):
        path, before = run.cell(CELL) / f"{name}.json", read(CELL)
        body = json.loads(path.read_text(encoding="utf-8"))
        for shown in (body, dict(sorted(body.items(), reverse=True))):  # the schema first, and not
            path.write_text(json.dumps(shown, indent=spaces), encoding="utf-8")
            found = read(CELL)
            same = ("protocol", "generations_sha256") if read == run.read_scores_fast else ()
            assert all(found[field] == before[field] for field in same) if same else found == before


@pytest.mark.parametrize("name", ["status.json", "scores.json", "predictions.json.gz"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run, name):
    path = run.cell(CELL) / name
    path.unlink()
    os.mkfifo(path)
    assert run.status(CELL) is None or name != "status.json"
    assert run.scores(CELL) is None or name != "scores.json"
    assert run.read_scores_fast(CELL) is None or name != "scores.json"
    if name == "predictions.json.gz":
        with pytest.raises(UserError, match="not a regular file"):
            run.read_predictions_fast(CELL)


def test_the_manifest_comes_back_as_it_was_written(run):
    assert run.manifest() == toy_manifest()


def test_texts_are_counted_by_their_lines(run):
    assert run.n_texts(CELL) == len(run.generations(CELL))
    assert run.n_texts("no such cell") == 0


def test_every_json_file_carries_the_schema(run):
    for name in ("manifest.json", f"cells/{CELL}/status.json", f"cells/{CELL}/scores.json"):
        assert json.loads((run.path / name).read_text(encoding="utf-8"))["schema"] == 1


def test_the_folder_is_laid_out_as_designed(run):
    assert names_below(run.path) == [
        f"cells/{CELL}/audit.json.gz",
        f"cells/{CELL}/generations.jsonl",
        f"cells/{CELL}/predictions.json.gz",
        f"cells/{CELL}/scores.json",
        f"cells/{CELL}/status.json",
        "manifest.json",
    ]


def test_a_text_is_one_line_of_plain_json(run):
    lines = (run.cell(CELL) / "generations.jsonl").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 5 and lines[-1] == ""
    assert json.loads(lines[0]) == {
        "index": 0,
        "label": "positive",
        "text": "ሰላም",
        "n_prompt_tokens": 0,
        "n_new_tokens": 0,
        "finish_reason": "reference",
        "attempts": 1,
        "duplicate": False,
    }


def test_steering_comes_back_as_it_was_written(run):
    vector = np.array([0.6, 0.8], dtype=np.float32)
    item = Intervention("layer_output", 1, "add", vector, 0.5, "residual", 4.0, "generated")
    run.write_steering("abc", Steering((item,), {"rule": "by hand"}))
    back = run.steering("abc")
    assert back.provenance == {"rule": "by hand"}
    assert back.interventions[0].raw_strength == 2.0
    assert back.interventions[0].vector.tolist() == vector.tolist()
    assert run.steering("none") is None


# What counts as finished


def test_a_cell_that_never_ran_has_nothing(run):
    assert run.status("0000") is None
    assert run.scores("0000") is None
    assert not run.finished("0000")


@pytest.mark.parametrize(
    ("state", "finished"), [("ok", True), ("method_error", False), ("infra_error", False), ("skipped", False)]
)
def test_only_an_ok_cell_is_finished(run, state, finished):
    run.write_cell(CELL, CellStatus(cell=key(), state=state), TEXTS)
    assert run.finished(CELL) is finished


def test_a_cell_without_its_texts_is_not_finished(run):
    (run.cell(CELL) / "generations.jsonl").unlink()
    assert not run.finished(CELL)


def test_texts_without_a_status_are_no_cell(run):
    (run.cell(CELL) / "status.json").unlink()
    assert run.cell_ids() == []
    assert not run.finished(CELL)


def test_leftovers_of_a_killed_writer_are_no_cell(run):
    (run.cell(CELL) / "status.json").rename(run.cell(CELL) / ".status.json.x7")
    assert run.cell_ids() == []


def test_the_status_is_written_after_the_texts(run, monkeypatch):
    def broken(*arguments):
        raise UserError("disk full")

    monkeypatch.setattr("harness.core.store.write_jsonl", broken)
    with pytest.raises(UserError):
        run.write_cell("0001", CellStatus(cell=key(), state="ok"), TEXTS)
    assert run.status("0001") is None


# Files that are not ours


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("manifest.json", lambda run: run.manifest()),
        (f"cells/{CELL}/status.json", lambda run: run.status(CELL)),
        (f"cells/{CELL}/scores.json", lambda run: run.scores(CELL)),
        (f"cells/{CELL}/status.json", lambda run: run.read_status_fast(CELL)),
        (f"cells/{CELL}/scores.json", lambda run: run.read_scores_fast(CELL)),
    ],
    ids=["manifest", "status", "scores", "status row", "scores row"],
)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda old: old[: len(old) // 2], "truncated or was not written by steerboard"),
        (lambda old: "", "truncated or was not written by steerboard"),
        (lambda old: '{"name": "another program"}', "no integer 'schema'"),
        (lambda old: '{"schema": 1, "name": "another program"}', "Extra inputs|Field required"),
        (lambda old: old.replace('"schema": 1', '"schema": 2'), "Upgrade steerboard"),
        (lambda old: "[]", "not an object"),
    ],
    ids=["truncated", "empty", "foreign", "foreign with a schema", "newer", "a list"],
)
def test_a_file_that_is_not_ours_is_one_line_that_names_it(run, name, read, spoil, words):
    path = run.path / name
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        read(run)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"index": 0, "label": "po', r"line 3 is not valid JSON"),
        ('{"text": "a"}', r"line 3 is not a text of steerboard \(index: Field required"),
        ('{"index": 0, "label": "a", "text": "b", "finish_reason": "tired"}', r"line 3 .*finish_reason"),
    ],
)
def test_a_text_that_is_not_ours_is_named_by_its_line(run, line, words):
    path = run.cell(CELL) / "generations.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([*lines[:2], line]), encoding="utf-8")
    with pytest.raises(UserError, match=words):
        run.generations(CELL)


def test_predictions_that_are_not_ours_are_one_clear_error(run):
    (run.cell(CELL) / "predictions.json.gz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is not a gzip file or is damaged"):
        run.predictions(CELL)


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"does not contain a run \(no manifest\.json\)"):
        Run(tmp_path).manifest()


# Predictions


def plain(value):
    """Return a value with arrays as lists again."""
    if isinstance(value, np.ndarray):
        assert value.dtype == np.uint8
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


PREDICTIONS = {
    "classifier/tfidf": {
        "examples": "f00d",
        "gold": [0, 1, 6, 0],
        "labels": ["negative", "ድንቅ"],
        "predictions": {"macro_f1/tfidf": {"0": [0, 1, 6, 9], "1": [3]}, "macro_f1.valid/tfidf": {}},
    }
}


@pytest.mark.parametrize(
    "value",
    [
        PREDICTIONS,
        {"a": [], "b": [[1, 2], [3]], "c": [[[0]]], "d": [0]},
        {"a": [1, 22, 3], "b": [-1], "c": [1.5], "d": [True, None], "e": [10**30], "f": [1, "2"]},
        {"a": ["1", "2"], "b": "1,2", "c": "[", "d": "]", "e": "x] y", "f": 7},
        {},
    ],
)
def test_what_is_read_is_what_json_says(value):
    for data in (json.dumps(value, ensure_ascii=False), json.dumps(value, separators=(",", ":"))):
        if "\\u" not in data:
            assert plain(parse_digit_lists(data.encode())) == value


def test_lists_of_digits_are_arrays():
    found = parse_digit_lists(b'{"a":[0,9,5],"b":[10,1],"c":["0"]}')
    assert isinstance(found["a"], np.ndarray)
    assert (found["b"], found["c"]) == ([10, 1], ["0"])


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "x[1]y"}',  # a list of digits within a string
        b'{"a": "x[1"}',
        b'{"a": "\\u00000,1"}',  # what stands for a list
        b'{"a": "\x00"}',
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":[1,2}',
        b"[1,2]",
        b"{",
        b"\xff",
    ],
)
def test_what_takes_a_closer_look_is_refused_or_right(data):
    try:
        found = parse_digit_lists(data)
    except ValueError:
        return
    assert plain(found) == json.loads(data)


def test_a_run_reads_predictions_either_way(tmp_path):
    run = Run(tmp_path)
    folder = run.cell("c")
    folder.mkdir(parents=True)
    file = folder / "predictions.json.gz"
    hostile = {"classifier/x[1]": {"gold": [0, 1], "labels": ["a[0]", "\u0000"]}}
    for value in (PREDICTIONS, hostile):
        file.write_bytes(gzip.compress(json.dumps(value).encode()))
        assert plain(run.read_predictions_fast("c")) == run.predictions("c") == value
    file.write_bytes(b"not gzip")
    with pytest.raises(UserError, match="is not a gzip file or is damaged"):
        run.read_predictions_fast("c")


# The lock


def test_a_second_writer_is_refused(run):
    with run.lock(), pytest.raises(UserError, match="is in use by another steerboard"), Run(run.path).lock():
        pytest.fail("two writers at once")


def test_the_lock_is_free_again_after_its_holder(run):
    with run.lock():
        pass
    with run.lock():
        pass


def test_the_lock_of_a_killed_process_is_free(run):
    code = (
        "import sys, time; from pathlib import Path; from harness.core.store import Run\n"
        "with Run(Path(sys.argv[1])).lock():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    arguments = [sys.executable, "-c", code, str(run.path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment()) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="in use"), run.lock():
            pytest.fail("two writers at once")
        os.kill(holder.pid, signal.SIGKILL)
    with run.lock():
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    lock = Run(tmp_path / "file" / "run").lock()
    with pytest.raises(UserError, match=r"cannot write .*Choose another --run"), lock:
        pytest.fail("locked nothing")


def test_a_status_is_read_once_and_again_when_it_was_written_again(run, monkeypatch):
    read = []
    load = Run.load
    monkeypatch.setattr(Run, "load", lambda self, *given: read.append(given[1]) or load(self, *given))
    first, again = run.status(CELL), run.status(CELL)
    assert again is first
    assert read == ["status.json"]
    run.write_cell(CELL, CellStatus(cell=key(), state="skipped", reason="later"), [])
    assert run.status(CELL).reason == "later"
    (run.cell(CELL) / "status.json").unlink()
    assert run.status(CELL) is None


def test_the_head_of_scores_says_what_counts(run):
    head, whole = run.read_scores_head(CELL), run.scores(CELL)
    assert (head["protocol"], head["generations_sha256"], head["kept"]) == ("p", "00", whole.kept)
    assert head.get("parts", {}) == whole.parts == {}
    assert run.read_scores_head("no such cell") is None
    assert run.lost(CELL, whole.kept) == set()
    (run.cell(CELL) / "audit.json.gz").write_bytes(b"shorter")
    (run.cell(CELL) / "predictions.json.gz").unlink()
    assert run.lost(CELL, whole.kept) == {"audit.json.gz", "predictions.json.gz"}
