"""The gate on real texts: the mini suite in one language, steered as it is and twenty times as strongly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.helpers import ROOT, TASKS, steerboard

from harness.data.suite import load_suite
from harness.methods.registry import load_registry
from harness.ranking.gate.baseline import read_baseline
from harness.ranking.pairing import RUN_FIELDS


def suite(folder: Path, strength: float) -> Path:
    """Write the mini suite with a strength of ``language``, and with shorter texts and fewer redraws."""
    text = (TASKS / "mini.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("  - language\n", f"  - language: {{strength: {strength}}}\n"),
        ("data: mini/data", f"data: {TASKS / 'mini' / 'data'}"),
        ("model: mini/pocketlm", f"model: {TASKS / 'mini' / 'pocketlm'}"),
        ("max_new_tokens: 64, max_attempts: 5", "max_new_tokens: 32, max_attempts: 2"),
        ("subsamples: 20", "subsamples: 4"),
    ):
        assert old in text
        text = text.replace(old, new)
    folder.mkdir()
    path = folder / "mini.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(folder: Path, suite_: object) -> Path:
    chosen = ("--languages", "am", "--methods", "language", "--settings", "zero-shot", "--limit", 4)
    done = steerboard("run", "--suite", suite_, *chosen, "--run", folder)
    assert done.code == 0, done.err
    return folder


@pytest.mark.slow
def test_language_steering_at_20_times_its_strength_is_worse(tmp_path):
    [usual] = load_registry([]).configure("language", {})
    strength = usual.config.strength
    before = run(tmp_path / "before", suite(tmp_path / "usual", strength))
    after = run(tmp_path / "after", suite(tmp_path / "strong", 20 * strength))
    against = tmp_path / "baseline.json.gz"
    assert steerboard("gate", "calibrate", before, "--out", against).code == 0
    done = steerboard("gate", after, "--against", against, "--format", "json")
    found = json.loads(done.out)
    verdicts = {line["metric"]: line["verdict"] for line in found["results"]}
    assert (done.code, found["verdict"]) == (1, "worse")
    assert verdicts["macro_f1/tfidf"] == verdicts["valid_share"] == "worse"
    again = steerboard("gate", before, "--against", against)
    assert (again.code, again.out.splitlines()[-1][:10]) == (0, "gate: same")


def test_the_shipped_baseline_is_whole_of_the_shipped_suite_and_small():
    """It has what the workflow runs, with three times the suite's seeds, the suite's first to pair by."""
    path = ROOT / "baselines" / "mini.json.gz"
    assert path.stat().st_size < 500_000
    baseline, _ = read_baseline(path)
    suite_, manifest = load_suite("mini"), baseline.manifest
    now = {key: value for key, value in suite_.dump().items() if key not in RUN_FIELDS}
    assert {key: value for key, value in manifest.suite.items() if key not in RUN_FIELDS} == now
    seeds = manifest.selection.seeds
    assert (seeds[:3], len(seeds)) == (suite_.seeds, 9)
    assert manifest.selection.languages == suite_.languages
    workflow = (ROOT / ".github" / "workflows" / "gate.yml").read_text(encoding="utf-8")
    [methods] = re.findall(r"methods: (\S+)", workflow)
    assert sorted(entry.method.name for entry in manifest.entries) == sorted(methods.split(","))
    assert len(baseline.packed.entry) == len(manifest.entries) * len(suite_.languages) * len(suite_.tasks) * 9
    assert baseline.tolerance["macro_f1/tfidf"].value == 0.05
