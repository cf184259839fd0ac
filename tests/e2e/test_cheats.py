"""Texts written for the score alone are flagged, and stand in no tier."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.cheats import CHEATS
from support.helpers import ROOT, steerboard

from harness.core.cells import Cell, entry_id
from harness.core.records import Entry
from harness.core.store import Run
from harness.ranking.leaderboard_rows import RankedEntry, rank_entries
from harness.ranking.results import collect
from harness.scoring.leakage import CORPORA

HONEST = ["zero-shot", "few-shot", "human"]
GIVEN_AWAY_BY = {
    "one-text": "near_duplicates",
    "copied-train": "copied/train",
    "copied-test": "copied/test",
    "label-word": "degenerate",
    "wrong-language": "language_fidelity",
    "random-characters": "degenerate",
    "thinned-test": "copied/test",
    "spliced-test": "copied/test",
    "test-in-part": "copied/test",
}
"""The metric that shows each cheat for what it is. A shuffled text shows in several, by its length."""

pytestmark = pytest.mark.slow


def run_with_cheats(folder: Path, *options: object) -> dict[str, RankedEntry]:
    """Run baselines, references and cheats; hand cheats in as texts of the model; return the rows."""
    methods = ",".join([*HONEST, "constant", *CHEATS])
    plugin = ROOT / "tests" / "support" / "cheats.py"
    done = steerboard("run", "--run", folder, "--methods", methods, "--plugin", plugin, *options)
    assert done.code == 0, done.err
    hand_in(Run(folder), CHEATS)
    result_set = collect([Run(folder)])[0]
    assert result_set.headline
    rows = rank_entries(result_set, result_set.headline).rows
    return {standing.row.entry.method.name: standing for standing in rows}


def hand_in(run: Run, names: Iterable[str]) -> None:
    """Pass the texts of references off as what the model wrote in zero-shot, as a submission could."""
    manifest, names = run.manifest(), set(names)
    for cell_id in run.cell_ids():
        status, scores = run.status(cell_id), run.scores(cell_id)
        assert status and scores
        if status.cell.method.name in names:
            forged = Cell(status.cell.model_copy(update={"model": manifest.model, "setting": "zero-shot"}))
            shutil.copytree(run.cell(cell_id), run.cell(forged.id))
            run.write_cell(forged.id, status.model_copy(update={"cell": forged.key}), run.generations(cell_id))
            kept = {**run.text_checks(cell_id), **run.predictions(cell_id)}
            run.write_scores(scores.model_copy(update={"cell_id": forged.id}), kept)
            shutil.rmtree(run.cell(cell_id))
    entries = {}
    for entry in manifest.entries:
        if entry.method.name in names:
            entry = Entry(method=entry.method, model=manifest.model, setting="zero-shot")
        entries[entry_id(entry)] = entry
    run.write_manifest(manifest.model_copy(update={"entries": list(entries.values())}))


def flagged(standing: RankedEntry) -> set[str]:
    return {flag.metric.name for flag in standing.flags}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RankedEntry]:
    """All rows on the mini suite, by name."""
    folder = tmp_path_factory.mktemp("mini") / "run"
    return run_with_cheats(folder, "--suite", "mini", "--languages", "am,da", "--tasks", "sentiment")


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RankedEntry]:
    """All rows on real text and a larger model, by name."""
    folder = tmp_path_factory.mktemp("real") / "run"
    data = ("--data", shared / "data", "--model", shared / "models" / "devlm", "--classifier", "tfidf")
    return run_with_cheats(folder, "--suite", "steer11", *data, "--languages", "am,da", "--seeds", "1", "--limit", "10")


@pytest.mark.parametrize("cheat", [cheat for cheat in CHEATS if cheat != "noisy-train"])
def test_every_cheat_has_a_flag_and_no_tier_however_high_its_score(mini, cheat):
    # Train text with noise is what the mini suite's model itself writes, so there is no telling them apart.
    assert mini["few-shot"].mean and mini[cheat].mean
    assert mini[cheat].flags
    assert mini[cheat].tier is None


@pytest.mark.parametrize(("cheat", "metric"), GIVEN_AWAY_BY.items())
def test_a_cheat_is_flagged_for_what_it_does(mini, cheat, metric):
    assert metric in flagged(mini[cheat])


@pytest.mark.nightly  # ``test_disguises`` holds real text by day
@pytest.mark.parametrize("cheat", CHEATS)
def test_every_cheat_on_real_text_has_a_flag_however_high_its_score(real, cheat):
    assert real["few-shot"].mean and real[cheat].mean
    assert real[cheat].flags


@pytest.mark.nightly
@pytest.mark.parametrize(("cheat", "metric"), {**GIVEN_AWAY_BY, "noisy-train": "copied/train"}.items())
def test_a_cheat_on_real_text_is_flagged_for_what_it_does(real, cheat, metric):
    assert metric in flagged(real[cheat])


def test_what_is_honest_has_no_flag(mini):
    assert {name: flagged(mini[name]) for name in HONEST} == {name: set() for name in HONEST}
    assert all(mini[name].tier for name in ("zero-shot", "few-shot"))


@pytest.mark.nightly
def test_what_is_honest_copies_nothing_of_real_text(real):
    copies = {name: {metric for metric in flagged(real[name]) if metric.startswith("copied")} for name in HONEST}
    assert copies == {name: set() for name in HONEST}


def test_the_copies_that_are_counted_can_be_looked_at(tmp_path):
    folder = tmp_path / "run"
    plugin = ROOT / "tests" / "support" / "cheats.py"
    done = steerboard(
        *("run", "--suite", "mini", "--run", folder, "--methods", "test-in-part", "--plugin", plugin),
        *("--languages", "am", "--tasks", "sentiment", "--seeds", "1"),
    )
    assert done.code == 0, done.err
    (cell_id,) = Run(folder).cell_ids()
    kept = Run(folder).text_checks(cell_id)["leakage"]
    scores = {score.metric: score for score in Run(folder).scores(cell_id).scores}
    for corpus in CORPORA:
        assert sum(kept[f"copied/{corpus}"]) == scores[f"copied/{corpus}"].detail["copies"]
    assert all(i % 4 == 0 for i, copied in enumerate(kept["copied/test"]) if copied)
