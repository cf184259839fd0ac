"""Human text by all measures: the ranges that docs/metrics.md documents, in all languages and both tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.helpers import steerboard

from harness.core.store import Run

RANGES = {
    "distinct_1": (0.5, 0.85),
    "distinct_2": (0.8, 1.0),
    "distinct_3": (0.9, 1.0),
    "self_chrf": (5, 25),
    "self_bleu": (1, 12),
    "compression_ratio": (1.2, 2.3),
    "vendi/tfidf": (28, 30),
    "pairwise_distance/tfidf": (0.95, 1.0),
    "self_repetition": (0, 0.1),
    "near_duplicates": (0, 0.05),
    "length": (50, 300),
    "valid_share": (0.9, 1.0),
    "language_fidelity": (0.9, 1.0),
    "language_sentences": (0.9, 1.0),
    "label_fidelity": (0.5, 0.95),
    "script_share": (0.95, 1.0),
    "word_order": (0.8, 1.0),
    "degenerate": (0, 0.03),
    "refusals": (0, 0.01),
    "copied/validation": (0, 0.1),
    "copied/test": (0, 0.15),
    "overlap/demonstrations": (0, 0.15),
    "membership/test": (-0.04, 0.02),
    "membership/validation": (-0.06, 0.03),
    "hidden_characters": (0, 0.08),
    "macro_f1/tfidf": (0.35, 0.9),
    "calibration_error/tfidf": (0.03, 0.4),
}


@pytest.mark.nightly
def test_human_text_lies_in_the_documented_ranges(shared: Path, tmp_path: Path) -> None:
    words = ["--suite", "steer11", "--methods", "human", "--seeds", "1", "--classifier", "tfidf"]
    outcome = steerboard("run", *words, "--data", shared / "data", "--run", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    run, outside = Run(tmp_path / "run"), []
    for cell in run.cell_ids():
        status, scores = run.status(cell), run.scores(cell)
        assert status is not None and scores is not None
        values = {score.metric: score.value for score in scores.scores}
        for name, (low, high) in RANGES.items():
            value = values[name]
            if value is None or not low <= value <= high:
                outside.append((status.cell.task, status.cell.language, name, value))
    assert len(run.cell_ids()) == 22
    assert outside == []
