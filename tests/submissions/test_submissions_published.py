"""What is published stays: every submission in the repository is sound, and none loses anything silently."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.helpers import ROOT, steerboard
from support.submitting import cells, edit_card, edit_gz, edit_json, rehash

from harness.methods.registry import BUILT_IN, load_registry
from harness.ranking.results import collect
from harness.submissions.changes import check_against, regressions
from harness.submissions.check import check_files
from harness.submissions.lockfile import FILE, LockFile
from harness.submissions.protocol import CheckInputs
from harness.submissions.rescore import alike
from harness.submissions.submission import ChangedError, find, find_all

SUBMISSIONS = ROOT / "submissions"
NAMES = sorted(path.parent.name for path in SUBMISSIONS.glob("*/submission.yaml"))
REFERENCES = {"zero-shot", "few-shot", "language", "quality", "clas", "learned", "human", "constant"}


LOCK = LockFile(ROOT / "baselines" / FILE)


@pytest.mark.parametrize("name", NAMES)
def test_a_published_submission_passes_the_check_of_its_files(name):
    checked = check_files(SUBMISSIONS / name, CheckInputs(), lock=LOCK)
    assert [finding.line for finding in checked.report.problems] == []
    assert checked.submission is not None
    assert checked.submission.note == "", "the lock is of other files: steerboard submission check DIR --write"


def unsound(root: Path) -> list[str]:
    """Return what is wrong with a directory of submissions beside our lock: what keeps a pull request out."""
    found, problems = find_all(root, LOCK)
    lost = regressions(LOCK.body, {submission.card.name: submission for submission in found})
    return [*map(str, problems), *(f"{name}: {words}" for name, words in lost)]


def test_nothing_that_was_published_is_lost_or_changed():
    assert unsound(SUBMISSIONS) == []


def test_an_honest_pull_request_brings_no_check_and_passes(tmp_path):
    """A new submission is self-reported until the maintainers have looked at it; that breaks nothing."""
    root = tmp_path / "submissions"
    shutil.copytree(SUBMISSIONS, root)
    shutil.copytree(SUBMISSIONS / "human", root / "mine")

    def rename(card):
        card.update(name="mine", method={**card["method"], "version": "2"})

    edit_card(root / "mine", rename)
    assert unsound(root) == []
    assert find(root / "mine", LOCK).badge == "self-reported"
    assert [problem.line for problem in check_files(root / "human", CheckInputs(), lock=LOCK).report.problems] == []


def test_rounding_is_not_a_difference_and_anything_else_is():
    """Sums in two threads differ in the last digit, as between 0.1 + 0.2 and 0.3."""
    claimed = {"scores": [{"metric": "a", "value": 0.1 + 0.2}], "labels": ["x"]}
    assert alike(claimed, {"scores": [{"metric": "a", "value": 0.3}], "labels": ["x"]})
    for other in ({"metric": "a", "value": 0.3000001}, {"metric": "b", "value": 0.3}, {"metric": "a"}):
        assert not alike(claimed, {"scores": [other], "labels": ["x"]})
    assert not alike(claimed, {**claimed, "labels": []})


def test_two_checks_at_a_time_lose_nothing_of_each_other(tmp_path):
    """A check reads the lock, works for minutes and writes: another may have written in between."""
    entries = LOCK.body.submissions
    one, other = LockFile(tmp_path / FILE), LockFile(tmp_path / FILE)
    assert one.body.submissions == other.body.submissions == {}
    one.put("human", entries["human"])
    other.put("clas", entries["clas"])
    assert LockFile(tmp_path / FILE).body.submissions == {name: entries[name] for name in ("clas", "human")}


def test_the_built_in_methods_of_the_mini_suite_are_there_and_complete():
    assert set(NAMES) >= REFERENCES
    for name in REFERENCES:
        submission = find(SUBMISSIONS / name)
        assert submission.cells[0] == submission.cells[1] > 0
        assert submission.card.suite.name == "mini"
        assert submission.card.entry_point in {BUILT_IN[name], f"harness.methods.{name}"}


def test_they_share_one_table():
    found, problems = find_all(SUBMISSIONS)
    assert problems == []
    runs = [run for submission in found if submission.card.name in {"human", "zero-shot"} for run in submission.runs]
    (result_set,) = collect(runs)
    assert {row.name for row in result_set.entries.values()} == {"human", "zero-shot"}
    assert all(row.complete for row in result_set.entries.values())


def test_a_folder_without_code_is_no_problem_for_the_registry():
    assert [problem for problem in load_registry().problems if "submissions" in problem] == []


def test_the_repository_stays_small():
    sizes = [path.stat().st_size for path in SUBMISSIONS.rglob("*") if path.is_file()]
    assert sum(sizes) < 6 * 2**20


# The guard against loss


@pytest.fixture
def human(tmp_path) -> Path:
    """A published submission that a test may change."""
    return Path(shutil.copytree(SUBMISSIONS / "human", tmp_path / "submissions" / "human"))


def lost(folder: Path) -> str:
    """Return what the lock has against a submission, whose badge then is gone as well, with a note."""
    submission = find(folder, LOCK)
    try:
        check_against(LOCK.body.submissions["human"], submission)
        found = ""
    except ChangedError as error:
        found = str(error)
    assert (submission.badge == "self-reported") == bool(found) == bool(submission.note)
    return found


def test_what_nobody_touched_is_not_lost(human):
    assert lost(human) == ""
    assert find(human, LOCK).badge == "rescored"
    assert find(human).badge == "self-reported", "without a lock nothing has a badge"


def test_a_language_that_is_lost_is_named(human):
    for cell in cells(human, language="he"):
        shutil.rmtree(cell)
    rehash(human)
    assert "has lost languages he" in lost(human)


def test_a_task_that_is_lost_is_named(human):
    for cell in cells(human, task="topic"):
        shutil.rmtree(cell)
    rehash(human)
    assert "has lost tasks topic" in lost(human)


def test_a_score_changes_only_with_a_higher_version(human):
    def lower(body):
        for score in body["scores"]:
            if score["metric"] == "macro_f1/tfidf":
                score["value"] = 0.1

    edit_json(cells(human, language="am")[0] / "scores.json.gz", lower)
    rehash(human)
    assert "has other scores" in lost(human)
    edit_card(human, lambda card: card.update(version=card["version"] + 1))
    check_against(LOCK.body.submissions["human"], find(human, LOCK))
    assert find(human, LOCK).badge == "self-reported", "until it is checked again"


def test_a_text_that_is_changed_is_named(human):
    edit_gz(cells(human, language="am")[0] / "generations.jsonl.gz", lambda data: data.replace(b" ", b"  ", 1))
    rehash(human)
    assert "has other texts" in lost(human)


def test_a_file_that_is_gone_or_changed_is_noticed(human):
    cell = cells(human)[0]
    (cell / "predictions.json.gz").unlink()
    assert "predictions.json.gz: is missing" in lost(human)
    (cell / "predictions.json.gz").write_bytes(b"")
    edit_json(cell / "status.json", lambda body: body.update(seconds=1.0))
    assert "was changed" in lost(human)


def test_a_lower_version_is_noticed(human, tmp_path):
    published = LOCK.body.submissions["human"]
    higher = published.model_copy(update={"version": published.version + 1})
    lock = LockFile(tmp_path / FILE)
    lock.put("human", higher)
    [(_, words)] = regressions(lock.body, {"human": find(human)})
    assert f"is below the published {higher.version}" in words


def test_a_submission_goes_only_when_that_is_said(human, tmp_path):
    lock = tmp_path / "baselines" / FILE
    lock.parent.mkdir()
    shutil.copy(ROOT / "baselines" / FILE, lock)
    for name in {*LOCK.body.submissions} - {"human", "constant"}:
        LockFile(lock).remove(name)
    done = steerboard("submission", "list", human.parent, "--lock", lock)
    assert done.code == 1
    assert "--allow-removed constant" in done.out
    done = steerboard("submission", "list", human.parent, "--lock", lock, "--allow-removed", "constant")
    assert done.code == 0, done.out
    assert list(LockFile(lock).body.submissions) == ["human"]
    line = steerboard("submission", "list", human.parent, "--lock", lock, "--allow-removed", "humn").one_line()
    assert "Did you mean 'human'?" in line
    shutil.rmtree(human)
    assert steerboard("submission", "list", human.parent, "--lock", lock).code == 0, "another directory"


def test_a_lock_that_is_broken_or_elsewhere_is_one_line(human, tmp_path):
    broken = tmp_path / FILE
    broken.write_text('{"schema": 1, "submissions": {"../up": {}}}')
    assert "is not a lock of submissions" in steerboard("submission", "list", human.parent, "--lock", broken).one_line()
    missing = steerboard("submission", "list", human.parent, "--lock", tmp_path / "no" / FILE)
    assert "does not exist. Pass the maintainers' file" in missing.one_line()
