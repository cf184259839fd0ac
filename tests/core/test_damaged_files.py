"""Files of a run that were deleted, cut off, edited or damaged: noticed when read, and made again."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from support.helpers import (
    Outcome,
    contents,
    generations,
    key,
    small_suite,
    snapshot,
    steerboard,
    toy_llm,
    toy_manifest,
    untimed_files,
)
from support.submitting import WHO

from harness.core import store
from harness.core.cells import cell_id
from harness.core.errors import BrokenFileError, DamagedFileError, UserError
from harness.core.files import file_digest
from harness.core.interventions import load_steering, save_steering
from harness.core.records import CellScores, CellStatus
from harness.core.store import Run
from harness.core.tensors import load_tensors, save_tensors
from harness.tracks.understanding.running import EvalStage

PLUGIN = """
from harness import Steering, SteeringMethod, register
from harness.core.interventions import Intervention

@register("mean")
class Mean(SteeringMethod):
    '''Adds the mean state of the language.'''
    settings = ("zero-shot",)
    def fit(self, ctx):
        vector = ctx.mean_states(ctx.parallel(ctx.language)[:3]).mean[0].astype("float32")
        return Steering((Intervention("layer_output", 0, "add", vector, 1.0, "raw", 1.0),))
"""
KEPT = ("predictions.json.gz", "audit.json.gz")


def go(folder: Path, seeds: str = "1") -> Outcome:
    home = folder.parent if (folder.parent / "small.yaml").is_file() else Path(os.environ["STEERBOARD_HOME"])
    narrow = ("--languages", "he", "--tasks", "sentiment", "--seeds", seeds, "--limit", 2)
    methods = ("--methods", "mean,human", "--plugin", home / "mean.py")
    return steerboard("run", "--suite", home / "small.yaml", "--run", folder, *methods, *narrow)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run of a method that steers and of a reference. Leave it as it is."""
    folder = tmp_path_factory.mktemp("whole")
    small_suite(folder, toy_llm(folder / "toy"))
    (folder / "mean.py").write_text(PLUGIN)
    done = go(folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture
def mine(whole, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run that a test may damage."""
    monkeypatch.setenv("STEERBOARD_HOME", str(whole.parent))
    return Path(shutil.copytree(whole, tmp_path / "run"))


def of_method(folder: Path, name: str = "mean") -> Path:
    """Return the only cell of a method."""
    run = Run(folder)
    return next(run.cell(cell) for cell in run.cell_ids() if run.status(cell).cell.method.name == name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def edit_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert '"text": "' in text
    path.write_text(text.replace('"text": "', '"text": "ጥ', 1), encoding="utf-8")


# What the scoring kept


@pytest.mark.parametrize("harm", [Path.unlink, cut, empty])
def test_what_the_scoring_kept_comes_back(whole, mine, harm):
    cells = [of_method(mine), of_method(mine, "human")]
    for cell, name in zip(cells, KEPT, strict=True):
        harm(cell / name)
    done = steerboard("score", mine)
    assert done.code == 0, done.err
    assert "2 cells scored" in done.out
    assert untimed_files(mine) == untimed_files(whole)


def test_scores_by_further_parts_outlive_the_rebuilding(mine):
    cell = of_method(mine)
    path = cell / "scores.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    extra = {"metric": "vendi/other", "value": 2.0, "direction": "up", "unit": "texts", "signature": "s"}
    body["scores"].append(extra)
    body["parts"]["embedding/other"] = {"signature": "s", "metrics": ["vendi/other"]}
    path.write_text(json.dumps(body), encoding="utf-8")
    (cell / KEPT[1]).unlink()
    assert steerboard("score", mine).code == 0
    assert any(score.metric == "vendi/other" for score in Run(mine).scores(cell.name).scores)


def test_a_flipped_bit_in_what_was_kept_is_one_line_where_it_is_read(mine):
    path = of_method(mine) / KEPT[0]
    flip(path, 40)
    with pytest.raises(
        UserError,
        match=r"predictions\.json\.gz .*is damaged .*delete it and run the same command again",
    ):
        Run(mine).predictions(path.parent.name)


def test_answers_are_given_again_where_what_was_kept_of_them_is_lost(tmp_path):
    run, cell = Run(tmp_path), cell_id(key())
    run.write_cell(cell, CellStatus(cell=key(), state="ok"), generations({"a": ["ሀ"]}))
    scores = CellScores(cell_id=cell, generations_sha256="00", protocol="p", scores=[])
    run.write_scores(scores, {"answers": {"gold": [0]}})
    answerer = EvalStage(SimpleNamespace(run=run), console=None)
    assert not answerer.is_open(SimpleNamespace(id=cell))
    (run.cell(cell) / KEPT[0]).unlink()
    assert answerer.is_open(SimpleNamespace(id=cell))


# Texts


def test_an_edited_text_is_never_scored_and_is_written_again(whole, mine):
    path = of_method(mine) / "generations.jsonl"
    edit_text(path)
    before = contents(mine)
    scored = steerboard("score", mine)
    assert scored.code == 2
    assert scored.err.splitlines()[-1].startswith(f"steerboard: {path} was edited or damaged. Repeat the ")
    assert contents(mine) == before
    with pytest.raises(DamagedFileError, match=r"generations\.jsonl was edited or damaged"):
        Run(mine).generations(path.parent.name)
    done = go(mine)
    assert done.code == 0, done.err
    assert f"warning: {path} was edited or damaged; written again" in done.err
    assert untimed_files(mine) == untimed_files(whole)


def test_missing_texts_are_written_again_and_named(whole, mine):
    paths = [of_method(mine, name) / "generations.jsonl" for name in ("mean", "human")]
    for path in paths:
        path.unlink()
    done = go(mine)
    assert done.code == 0, done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("warning: ") and "written again" in line]
    assert all(f"{path} is missing" in line for path in paths)
    assert untimed_files(mine) == untimed_files(whole)


def test_a_submission_is_not_packed_of_edited_texts(mine, tmp_path):
    edit_text(of_method(mine, "human") / "generations.jsonl")
    words = ("submission", "pack", mine, "--out", tmp_path / "out", "--method", "human", "--partial", *WHO)
    assert "was edited or damaged" in steerboard(*words).one_line()


# Steering and what fits read


def test_a_flipped_bit_in_a_steering_tensor_is_noticed_and_fitted_again(whole, mine):
    [path] = (mine / "steering").glob("*.safetensors")
    flip(path)
    with pytest.raises(DamagedFileError, match="does not fit its hash"):
        load_steering(path)
    done = go(mine, "1,2")
    assert done.code == 0, done.err
    assert f"warning: {path} was edited or damaged; it is fitted again" in done.err
    assert path.read_bytes() == (whole / "steering" / path.name).read_bytes()
    run = Run(mine)
    hashes = {run.status(cell).steering_sha256 for cell in run.cell_ids()} - {None}
    assert hashes == {file_digest(path)}


def test_another_steering_in_its_stead_is_noticed(whole, mine, tmp_path):
    [path] = (mine / "steering").glob("*.safetensors")
    good = load_steering(path)
    item = good.interventions[0]
    other = type(good)((type(item)(**{**vars(item), "vector": -item.vector}),), good.provenance)
    save_steering(path, other)
    words = ("submission", "pack", mine, "--out", tmp_path / "out", "--method", "mean", "--type", "vectors")
    packed = steerboard(*words, "--partial", *WHO)
    assert "is not the file that the texts were written with" in packed.one_line()
    done = go(mine, "1,2")
    assert f"warning: {path} is not the file that finished cells were written with" in done.err
    assert path.read_bytes() == (whole / "steering" / path.name).read_bytes()


def test_damaged_activations_are_measured_again(whole, mine, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERBOARD_CACHE", str(tmp_path / "cache"))
    for damaged in (False, True):
        paths = list((tmp_path / "cache" / "activations").glob("*.safetensors"))
        assert bool(paths) is damaged
        for path in paths:
            flip(path)
        shutil.rmtree(mine / "steering")
        (of_method(mine) / "generations.jsonl").unlink()
        done = go(mine)
        assert done.code == 0, done.err
        assert untimed_files(mine) == untimed_files(whole)
    assert f"{paths[0]} was edited or damaged; its activations are computed again" in done.err


# Whole and old folders


def test_a_resumed_run_reads_every_text_once_and_nothing_that_was_kept(mine):
    before = snapshot(mine)
    forbidden = mock.Mock(side_effect=AssertionError("read"))
    with (
        mock.patch.object(store, "read_bytes", wraps=store.read_bytes) as reads,
        mock.patch.object(Run, "_kept", forbidden),
    ):
        assert go(mine).code == 0
    texts = [call.args[0] for call in reads.call_args_list if call.args[0].endswith(store.TEXTS)]
    assert len(texts) == len(set(texts)) == 2  # cells
    assert {name for name, state in snapshot(mine).items() if state != before.get(name)} <= {"manifest.json"}


def test_a_folder_of_before_hashes_is_read_and_left_alone(mine):
    for cell in (of_method(mine), of_method(mine, "human")):
        for name in ("status.json", "scores.json"):
            body = json.loads((cell / name).read_text(encoding="utf-8"))
            new = {"generations_sha256", "steering_sha256", "kept"}
            if name == "scores.json":  # here it has always been
                new -= {"generations_sha256"}
            body = {field: value for field, value in body.items() if field not in new}
            (cell / name).write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    before = snapshot(mine)
    assert go(mine).code == 0
    assert {name for name, state in snapshot(mine).items() if state != before.get(name)} <= {"manifest.json"}
    run = Run(mine)
    assert all(run.generations(cell) for cell in run.cell_ids())
    (of_method(mine) / KEPT[0]).unlink()
    assert "1 cells scored" in steerboard("score", mine).out


# The files themselves


def test_every_byte_of_a_tensor_file_is_under_its_hash(tmp_path):
    path = tmp_path / "t.safetensors"
    header = {"a": "አ", "n": 0.1, "schema": 1}
    save_tensors(path, {"v": np.arange(3, dtype=np.float32), "w": np.ones((2, 2))}, "ours", header)
    tensors, read = load_tensors(path, "ours")
    assert read == header
    assert tensors["v"].tolist() == [0, 1, 2]
    assert tensors["w"].shape == (2, 2)
    data = path.read_bytes()
    save_tensors(path, {"w": np.ones((2, 2)), "v": np.arange(3, dtype=np.float32)}, "ours", header)
    assert path.read_bytes() == data
    name = data.index(b"sha256")
    unnoticed = []
    for at in {*range(8, len(data))} - {*range(name, name + 6)}:  # without its name a file is of before
        flip(path, at)
        try:
            load_tensors(path, "ours")
        except Exception:
            path.write_bytes(data)
        else:
            unnoticed.append(at)
    assert unnoticed == []


def test_a_tensor_file_without_a_hash_is_of_an_earlier_version(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "t.safetensors"
    save_file({"v": np.ones(2, dtype=np.float32)}, path, metadata={"ours": '{"a": 1}'})
    assert load_tensors(path, "ours")[1] == {"a": 1}


def test_a_steering_of_a_newer_version_is_not_fitted_over(tmp_path):
    path = tmp_path / "s.safetensors"
    save_tensors(path, {}, "steerboard", {"schema": 2, "interventions": [], "provenance": {}})
    with pytest.raises(BrokenFileError, match="a newer schema") as found:
        load_steering(path)
    assert not isinstance(found.value, DamagedFileError)


def test_kept_files_hold_the_parts_that_are_named(tmp_path):
    run, cell = Run(tmp_path), cell_id(key())
    run.write_manifest(toy_manifest())
    scores = CellScores(cell_id=cell, generations_sha256="00", protocol="p", scores=[])
    run.write_scores(scores, {"classifier/x": {"gold": [0]}, "validity": {"valid": [True]}})
    held = [json.loads(gzip.decompress((run.cell(cell) / name).read_bytes())) for name in KEPT]
    assert [list(found) for found in held] == [["classifier/x"], ["validity"]]
    assert run.scores(cell).kept == {name: (run.cell(cell) / name).stat().st_size for name in KEPT}
