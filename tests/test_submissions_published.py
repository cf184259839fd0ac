"""What is published stays: every submission in the repository is sound, and none loses anything silently."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import ROOT, steerboard
from submitting import cells, edit_card, edit_json, rehash

from harness.errors import UserError
from harness.ranking.tables import collect
from harness.registry import BUILT_IN, load_registry
from harness.submissions.checking import check_files
from harness.submissions.ground import Places
from harness.submissions.published import Lock, current, losses, read_lock, renew
from harness.submissions.reader import find, find_all

SUBMISSIONS = ROOT / "submissions"
NAMES = sorted(path.parent.name for path in SUBMISSIONS.glob("*/submission.yaml"))
REFERENCES = {"zero-shot", "few-shot", "language", "quality", "clas", "learned", "human", "constant"}


@pytest.mark.parametrize("name", NAMES)
def test_a_published_submission_passes_the_check_of_its_files(name):
    checked = check_files(SUBMISSIONS / name, Places())
    assert [finding.line for finding in checked.report.problems] == []
    assert checked.submission is not None
    assert checked.submission.badge != "claimed", "check.json is not of what lies there"


def test_nothing_that_was_published_is_lost_or_changed():
    lock = read_lock(SUBMISSIONS)
    now = current(SUBMISSIONS)
    assert [line for _, line in losses(lock, now)] == []
    assert lock == now, "renew it: steerboard submission list --lock"


def test_the_built_in_methods_of_the_mini_suite_are_there_and_complete():
    assert set(NAMES) >= REFERENCES
    for name in REFERENCES:
        submission = find(SUBMISSIONS / name)
        assert submission.cells[0] == submission.cells[1] > 0
        assert submission.card.suite.name == "mini"
        assert submission.card.entry_point == BUILT_IN[name]


def test_they_share_one_table():
    found, problems = find_all(SUBMISSIONS)
    assert problems == []
    runs = [
        run
        for submission in found
        if submission.card.name in {"human", "zero-shot"}
        for run in submission.runs
    ]
    (cellset,) = collect(runs)
    assert {row.name for row in cellset.entries.values()} == {"human", "zero-shot"}
    assert all(row.complete for row in cellset.entries.values())


def test_a_folder_without_code_is_no_problem_for_the_registry():
    assert [problem for problem in load_registry().problems if "submissions" in problem] == []


def test_the_repository_stays_small():
    sizes = [path.stat().st_size for path in SUBMISSIONS.rglob("*") if path.is_file()]
    assert sum(sizes) < 6 * 2**20


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder with one published submission."""
    root = tmp_path / "submissions"
    shutil.copytree(SUBMISSIONS / "human", root / "human")
    renew(root)
    return root


def lost(root: Path) -> str:
    """Return the one line that stands against renewing the lock."""
    with pytest.raises(UserError) as error:
        renew(root)
    return str(error.value)


def test_a_language_that_is_lost_is_named(published):
    for cell in cells(published / "human", language="he"):
        shutil.rmtree(cell)
    rehash(published / "human")
    assert "has lost languages he" in lost(published)


def test_a_task_that_is_lost_is_named(published):
    for cell in cells(published / "human", task="topic"):
        shutil.rmtree(cell)
    rehash(published / "human")
    assert "has lost tasks topic" in lost(published)


def test_a_score_changes_only_with_a_higher_version(published):
    def lower(body):
        for score in body["scores"]:
            if score["metric"] == "macro_f1/tfidf":
                score["value"] = 0.1

    edit_json(cells(published / "human", language="am")[0] / "scores.json.gz", lower)
    rehash(published / "human")
    assert "macro_f1/tfidf was" in lost(published)
    edit_card(published / "human", lambda card: card.update(version=2))
    assert renew(published).submissions["human"].version == 2
    edit_card(published / "human", lambda card: card.update(version=1))
    assert "is below the published 2" in lost(published)


def test_a_file_that_is_gone_or_changed_is_noticed(published):
    cell = cells(published / "human")[0]
    (cell / "predictions.json.gz").unlink()
    assert "files" in lost(published)
    edit_json(cell / "status.json", lambda body: body.update(seconds=1.0))
    (cell / "predictions.json.gz").write_bytes(b"")
    rehash(published / "human")
    assert "its files were changed" in lost(published)


def test_a_submission_goes_only_when_that_is_said(published):
    shutil.rmtree(published / "human")
    assert "is gone" in lost(published)
    done = steerboard("submission", "list", published, "--lock")
    assert "--withdraw human" in done.one_line()
    assert steerboard("submission", "list", published, "--lock", "--withdraw", "human").code == 0
    assert read_lock(published) == Lock(submissions={})
