"""``steerboard bench``: what it refuses, and what it keeps of the scripts that it runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.helpers import steerboard

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESULT = {
    "name": "a claim",
    "ratio": 5.25,
    "spread": [5.0, 5.5],
    "bar": ">= 5x",
    "repeats": 3,
    "device": "cpu",
    "machine": "two cores",
    "versions": {"torch": "2"},
}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that runs benchmarks, in a folder with three benchmarks: one good, one bad, one absolute."""
    spec = importlib.util.spec_from_file_location("bench", BENCHMARKS / "bench.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scripts = {
        "good": f"print('a line to read')\nprint({json.dumps(RESULT)!r})",
        "bad": f"print({json.dumps(RESULT)!r})\nraise SystemExit('the two sides do not give the same')",
        "absolute": f"print({json.dumps({**_without(RESULT, 'ratio'), 'figure': '3.1 s, 400 MB'})!r})",
    }
    for name, code in scripts.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    (tmp_path / "results-head.md").write_text("# Measured speed\n", encoding="utf-8")
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(module, "BENCHMARKS", {name: [f"{name}.py"] for name in scripts})
    return module


def _without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["packde"], "unknown benchmark 'packde'; valid: packed, "),
        (["--device", "gpu"], "unknown device 'gpu'; valid: cpu, cuda, cuda:0."),
    ],
    ids=["name", "device"],
)
def test_what_does_not_exist_is_refused_in_one_line(words, line, capfd):
    outcome = steerboard("bench", *words)
    assert outcome.code == 2
    assert line in outcome.err + capfd.readouterr().err


def test_an_installed_package_has_no_benchmarks(monkeypatch, tmp_path):
    monkeypatch.setattr("harness.cli.bench.BENCH", tmp_path / "benchmarks" / "bench.py")
    outcome = steerboard("bench")
    assert outcome.code == 2
    assert "not part of the installed package" in outcome.err


def test_every_benchmark_names_a_script_that_is_there():
    spec = importlib.util.spec_from_file_location("bench", BENCHMARKS / "bench.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [words[0] for words in module.BENCHMARKS.values() if not (BENCHMARKS / words[0]).is_file()] == []


def test_results_are_kept_by_device_and_written_as_a_page(bench, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["bench", "good", "absolute"])
    assert bench.main() == 0
    assert bench.main() == 0  # replaces, does not repeat
    kept = bench.read_results()
    assert [(one["benchmark"], one["device"]) for one in kept] == [("good", "cpu"), ("absolute", "cpu")]
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    date = kept[0]["date"]
    assert f"| `good` | a claim | >= 5x | **5.25x** (5.00 to 5.50, n = 3; {date}) | not measured |" in page
    assert f"| 3.1 s, 400 MB ({date}) | not measured |" in page
    assert "- cpu: two cores; torch 2" in page
    assert "a line to read" in capfd.readouterr().out


def test_a_benchmark_that_fails_leaves_the_results_as_they_were(bench, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["bench", "good"])
    assert bench.main() == 0
    before = (tmp_path / "results.jsonl").read_bytes()
    monkeypatch.setattr("sys.argv", ["bench", "bad", "good"])
    assert bench.main() == 1
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert "failed: bad. Run them again: steerboard bench bad" in capfd.readouterr().err
