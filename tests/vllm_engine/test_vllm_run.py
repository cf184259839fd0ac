"""Runs of the mini suite by both engines: the same fits, and texts by the same noise."""

from __future__ import annotations

import pytest
from support.helpers import steerboard

pytest.importorskip("vllm", reason="vLLM is not installed here; it has an environment of its own: make test-vllm")

from harness.core.store import Run

WORDS = ["--suite", "mini", "--languages", "am,he", "--tasks", "sentiment", "--limit", "3", "--seeds", "1", "--yes"]
METHODS = ["--methods", "zero-shot,few-shot,language,learned,clas,human"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for engine in ("transformers", "vllm"):
        done = steerboard("run", *WORDS, *METHODS, "--run", folder / engine, "--engine", engine)
        assert done.code == 0, done.err
    return Run(folder / "transformers"), Run(folder / "vllm")


def by_key(run):
    statuses = [run.status(name) for name in run.cell_ids()]
    return {
        (s.cell.method.name, s.cell.setting, s.cell.language): (s, [g.text for g in run.generations(name)])
        for name, s in zip(run.cell_ids(), statuses, strict=True)
        if s.state == "ok"
    }


def times(run):
    return {str(path): path.stat().st_mtime_ns for path in run.path.glob("cells/*/generations.jsonl")}


def test_both_engines_write_the_same_texts_with_the_same_fits(runs):
    own, served = map(by_key, runs)
    assert own.keys() - served.keys() == {k for k in own if k[0] == "clas"}
    equal = total = 0
    for name, (status, texts) in served.items():
        other, others = own[name]
        assert status.steering == other.steering
        assert len(texts) == len(others)
        equal, total = equal + sum(x == y for x, y in zip(texts, others, strict=True)), total + len(texts)
    assert equal >= 0.97 * total > 60  # near ties are rare: see test_vllm_texts
    files = [sorted((run.path / "steering").iterdir()) for run in runs]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    fits = [[path.read_bytes() for path in part if path.suffix == ".safetensors"] for part in files]
    assert fits[0] == fits[1]


def test_the_engine_is_part_of_the_run_and_refusals_are_named(runs):
    own, served = runs
    manifest = served.manifest()
    assert (manifest.model.engine, manifest.engine) == ("vllm", "vllm")
    assert manifest.versions["vllm"]
    assert "vllm" not in own.manifest().versions
    skipped = [served.status(n) for n in served.cell_ids() if served.status(n).cell.method.name == "clas"]
    assert {(s.state, "scales mlp_neurons" in s.reason) for s in skipped} == {("skipped", True)}
    mixed = steerboard("run", *WORDS, *METHODS, "--run", own.path, "--engine", "vllm")
    assert (mixed.code, "by another engine" in mixed.err) == (2, True)
    compared = steerboard("compare", own.path, served.path)
    assert "engine: transformers → vllm" in " ".join(compared.out.split())


def test_a_run_goes_on_by_its_own_engine_and_loads_nothing_for_what_is_skipped(runs):
    _, served = runs
    before = times(served)
    again = steerboard("run", *WORDS, *METHODS, "--run", served.path)
    assert again.code == 0, again.err
    assert "loading" not in again.err
    assert times(served) == before
    assert served.manifest().model.engine == "vllm"


def test_devices_and_formats_that_vllm_does_not_take_are_one_line(tmp_path, runs):
    done = steerboard("run", *WORDS, *METHODS, "--run", tmp_path / "r", "--engine", "vllm", "--device", "cuda:1")
    assert done.code == 2
    assert "cuda:1" in done.err
    assert "Traceback" not in done.err
