"""A submission from the run to the board's reader: packed, checked, and what an attacker would try."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.helpers import MINI, ROOT, snapshot, steerboard
from support.submitting import cells, check, edit_card, edit_gz, edit_json, lines, pack, rehash, sha256

from harness.core.store import Run
from harness.methods.template import render_template
from harness.ranking.results import collect
from harness.submissions.lockfile import FILE, LockFile
from harness.submissions.submission import find, find_all

pytestmark = pytest.mark.slow

SPY = '\nfrom pathlib import Path\n(Path(__file__).parents[1] / "I-RAN").touch()\n'
"""Appended to a method: leaves a trace when it is executed."""


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """Two languages, both tasks, one seed, two texts a label: a method and a cheat."""
    folder = tmp_path_factory.mktemp("submission")
    plugin = folder / "plugin.py"
    plugin.write_text(render_template("my-method"), encoding="utf-8")
    done = steerboard(
        *("run", "--suite", "mini", "--languages", "am,he", "--limit", 2, "--seeds", 1, "--run", folder / "run"),
        *("--plugin", plugin, "--plugin", ROOT / "tests" / "support" / "cheats.py"),
        *("--methods", "my-method,copied-test"),
    )
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="session")
def packed(small_run, tmp_path_factory) -> Path:
    """The submission of my-method of type code; it is never to be changed."""
    code = small_run.parent / "plugin.py"
    out = tmp_path_factory.mktemp("submissions") / "my-method"
    return pack(small_run, out, "my-method", "--code", code)


@pytest.fixture
def mine(packed, tmp_path) -> Path:
    """A copy of the submission that a test may change."""
    return Path(shutil.copytree(packed, tmp_path / "submissions" / "my-method"))


def remove(folder: Path, **wanted: object) -> None:
    """Remove cells from a submission, which then says so."""
    for cell in cells(folder, **wanted):
        shutil.rmtree(cell)
    rehash(folder)
    edit_card(folder, lambda card: card["results"][0].update(n_cells=len(cells(folder))))


@pytest.fixture
def half(mine) -> Path:
    """The submission without few-shot: its four other cells are scored in half the time."""
    remove(mine, setting="few-shot")
    return mine


def test_a_packed_run_passes_and_is_reproduced_to_the_digit(mine):
    before = snapshot(mine)
    report = check(mine)
    assert report["code"] == 0, lines(report)
    assert all(one["outside"] == 0 and one["gap"] < 1e-6 for one in report["compared"])
    assert {one["metric"] for one in report["compared"]} == {"macro_f1/tfidf"}
    assert any("partial: 8 of 132 cells" in line for line in lines(report, "note"))
    assert snapshot(mine) == before, "a check without --write writes nothing"


def test_a_submission_is_a_run_that_tables_read(packed, small_run):
    (one,) = collect(find(packed).runs)
    (other,) = collect([Run(small_run)])
    names = {row.name for row in one.entries.values()}
    assert names == {"my-method", "my-method + few-shot"}
    theirs = other.scores[other.scores["entry"].isin(set(one.entries))]
    columns = ["entry", "task", "language", "seed", "metric", "value"]
    left = one.scores[columns].astype(str).sort_values(columns).reset_index(drop=True)
    assert left.equals(theirs[columns].astype(str).sort_values(columns).reset_index(drop=True))
    run = find(packed).runs[0]
    for cell in run.cell_ids():
        assert run.generations(cell) == Run(small_run).generations(cell)
        assert run.text_checks(cell) == Run(small_run).text_checks(cell)
        assert run.predictions(cell) == Run(small_run).predictions(cell)
        assert run.n_texts(cell) == len(run.generations(cell))
        assert run.generations_digest(cell) == Run(small_run).generations_digest(cell)
    assert {run.status(cell).cell.language for cell in run.cell_ids()} == {"am", "he"}


def test_no_folder_of_the_machine_is_packed(packed, small_run):
    whole = b"".join(path.read_bytes() for path in packed.rglob("*") if path.suffix in {".json", ".yaml"})
    for folder in (str(small_run.parent), str(ROOT), str(Path.home())):
        assert folder.encode() not in whole


def test_a_changed_text_is_refused(mine):
    path = cells(mine, language="he", task="topic")[0] / "generations.jsonl.gz"
    edit_gz(path, lambda data: data.replace("ה".encode(), "ו".encode(), 1))
    report = check(mine, "--no-rescore")
    assert report["code"] == 1
    assert any("generations.jsonl.gz: was changed" in line for line in lines(report))


def test_texts_that_their_status_was_not_written_with_are_refused(mine):
    path = cells(mine)[0] / "status.json"
    edit_json(path, lambda body: body.update(generations_sha256="0" * 64))
    rehash(mine, statuses=False)
    assert any("is not what status.json was written with" in line for line in lines(check(mine)))


def test_a_raised_score_is_not_reproduced(half):
    def raise_it(body):
        for score in body["scores"]:
            if score["metric"] == "length":
                score["value"] += 1e-3

    edit_json(cells(half, language="am")[0] / "scores.json.gz", raise_it)
    rehash(half)
    report = check(half, "--classifier", "tfidf")
    assert report["code"] == 1
    (line,) = lines(report)
    assert "length is not reproduced in 1 cells" in line
    assert "am" in line
    (row,) = [one for one in report["compared"] if one["metric"] == "length"]
    assert row["gap"] == pytest.approx(1e-3)


def test_a_raised_score_of_the_classifier_contradicts_its_predictions(mine):
    def raise_it(body):
        for score in body["scores"]:
            if score["metric"] == "macro_f1/tfidf":
                score["value"] = score["by_seed"]["0"] = 0.99

    edit_json(cells(mine)[0] / "scores.json.gz", raise_it)
    rehash(mine)
    assert any("do not give the claimed macro_f1/tfidf" in line for line in lines(check(mine, "--no-rescore")))


def test_swapped_cells_are_noticed_though_hashes_fit(mine):
    one, other = cells(mine, task="topic", setting="zero-shot")
    one.rename(one.with_name("x"))
    other.rename(one)
    one.with_name("x").rename(other)
    rehash(mine)
    assert sum("cells were swapped or edited" in line for line in lines(check(mine, "--no-rescore"))) == 2


def test_a_missing_cell_is_counted(mine):
    shutil.rmtree(cells(mine)[0])
    rehash(mine)
    report = check(mine, "--no-rescore")
    assert any("says 8 of 132 cells, there are 7" in line for line in lines(report))


def test_a_copied_cell_is_noticed(mine):
    one, other = cells(mine, task="topic", language="he")
    for name in ("generations.jsonl.gz", "scores.json.gz", "predictions.json.gz"):
        shutil.copy(one / name, other / name)
    edit_json(other / "scores.json.gz", lambda body: body.update(cell_id=other.name))
    source = json.loads((one / "status.json").read_text())
    counts = {name: source[name] for name in ("redraws", "duplicates", "prompt_tokens", "new_tokens")}
    edit_json(other / "status.json", lambda body: body.update(counts))
    rehash(mine)
    assert any("holds the very texts of cell" in line for line in lines(check(mine, "--no-rescore")))


def test_code_of_a_submission_does_not_run(mine):
    code = mine / "method.py"
    code.write_text(code.read_text(encoding="utf-8") + SPY, encoding="utf-8")
    edit_card(mine, lambda card: card["files"].update({"method.py": sha256(code.read_bytes())}))
    assert check(mine, "--no-rescore")["code"] == 0
    assert steerboard("submission", "list", mine.parent).code == 0
    assert not list(mine.parent.rglob("I-RAN"))


def test_copies_of_test_text_are_a_problem(small_run, tmp_path):
    out = pack(small_run, tmp_path / "copied-test", "copied-test", "--type", "outputs")
    report = check(out)
    assert report["code"] == 1
    assert any("copies of test text" in line for line in lines(report))


def test_what_was_measured_lies_beside_the_lock_and_the_badge_cannot_be_copied(half, tmp_path):
    lock = tmp_path / "baselines" / FILE
    lock.parent.mkdir()
    assert find(half, LockFile(lock)).badge == "self-reported"
    cell = cells(half, language="he")[0]

    def raise_it(body):
        for score in body["scores"]:
            if score["metric"] == "length":
                score["value"] += 7

    edit_json(cell / "scores.json.gz", raise_it)
    rehash(half)
    before = snapshot(half)
    assert check(half, "--write", "--lock", lock)["code"] == 1
    assert snapshot(half) == before, "nothing is written into the submission"
    found = find(half, LockFile(lock))
    assert found.badge == "rescored"
    assert found.entry is not None
    assert not found.entry.agrees
    assert {path.name for path in (lock.parent / "measured" / "my-method" / "pocketlm").iterdir()} == {cell.name}
    assert len(found.entry.measured) == 2, "only the cell that differs has files of its own"
    claimed = {s["metric"]: s["value"] for s in found.runs[0].read_scores_fast(cell.name)["scores"]}
    measured = {s["metric"]: s["value"] for s in found.rescored_runs[0].read_scores_fast(cell.name)["scores"]}
    assert claimed["length"] == pytest.approx(measured["length"] + 7)
    assert found.best_runs[0].read_scores_fast(cell.name) == found.rescored_runs[0].read_scores_fast(cell.name)
    means = [s["value"] for c in cells(half) for s in found.rescored_runs[0].read_scores_fast(c.name)["scores"]
             if s["metric"] == "macro_f1/tfidf"]  # fmt: skip
    locked = found.entry.results["pocketlm"]
    assert sum(locked.means.values()) / len(locked.means) == pytest.approx(sum(means) / len(means), abs=1e-6)
    assert (locked.languages, locked.cells) == (["am", "he"], 4)

    other = Path(shutil.copytree(half, tmp_path / "elsewhere" / "my-method"))
    edit_json(cells(other, language="am")[0] / "scores.json.gz", raise_it)
    rehash(other)
    assert find(other, LockFile(lock)).badge == "self-reported", "a check of other results is no badge of these"
    assert "has other scores" in find(other, LockFile(lock)).note
    assert find(other, LockFile(lock)).rescored_runs == []
    next((lock.parent / "measured").rglob("scores.json.gz")).write_bytes(b"")
    assert find(half, LockFile(lock)).badge == "self-reported"
    assert "is not what was measured" in find(half, LockFile(lock)).note


def test_other_texts_are_locked_only_with_a_higher_version(half, tmp_path):
    lock = tmp_path / FILE
    write = ("submission", "check", half, "--write", "--lock", lock, "--classifier", "tfidf")
    assert steerboard(*write).code == 0
    assert find(half, LockFile(lock)).badge == "rescored"
    remove(half, language="he", task="topic")
    before = lock.read_bytes()
    assert "has other texts" in steerboard(*write).one_line()
    assert lock.read_bytes() == before
    edit_card(half, lambda card: card.update(version=2))
    assert steerboard(*write).code == 0
    assert find(half, LockFile(lock)).badge == "rescored"


def test_type_vectors_carries_files_and_each_must_fit(small_run, tmp_path):
    out = pack(small_run, tmp_path / "vectors", "my-method", "--type", "vectors")
    assert check(out, "--no-rescore")["code"] == 0
    files = sorted((out / "steering").iterdir())
    assert len(files) == 4
    shutil.copy(files[0], files[1])
    edit_card(out, lambda card: card["files"].update({f"steering/{files[1].name}": sha256(files[0].read_bytes())}))
    assert any("its header is of another" in line for line in lines(check(out, "--no-rescore")))


def test_texts_come_out_again_from_steering_files(small_run, tmp_path):
    out = pack(small_run, tmp_path / "vectors", "my-method", "--type", "vectors")
    remove(out, setting="few-shot")
    lock = tmp_path / FILE
    verify = ("submission", "verify", out, "--sample", 2, "--seed", 1, "--model", MINI / "pocketlm")
    assert "does not exist" in steerboard(*verify, "--write", "--lock", lock).one_line()
    lock.write_text('{"schema": 1, "submissions": {}}', encoding="utf-8")
    done = steerboard(*verify, "--write", "--lock", lock)
    assert (done.code, "has no entry of these files" in done.out) == (1, True)
    assert check(out, "--write", "--lock", lock)["code"] == 0
    done = steerboard(*verify, "--write", "--lock", lock, "--format", "json")
    assert done.code == 0, done.out
    assert "(100.0%)" in json.loads(done.out)["facts"]["reproduced"]
    assert json.loads(done.out)["facts"]["badge"] == "reproduced"
    assert find(out, LockFile(lock)).badge == "reproduced"
    assert find(out).badge == "self-reported", "by no lock"

    for cell in cells(out):
        edit_gz(cell / "generations.jsonl.gz", lambda data: data.replace(b'"text": "', b'"text": "x'))
    rehash(out)
    assert find(out, LockFile(lock)).badge == "self-reported"
    done = steerboard(*verify)
    assert done.code == 1
    assert "0.0% of the texts are reproduced" in done.out


def test_code_runs_for_verify_only_when_that_is_said(mine, small_run, tmp_path):
    code = mine / "method.py"
    code.write_text(code.read_text(encoding="utf-8") + SPY, encoding="utf-8")
    edit_card(mine, lambda card: card["files"].update({"method.py": sha256(code.read_bytes())}))
    verify = ("submission", "verify", mine, "--sample", 1, "--model", MINI / "pocketlm")
    assert "--run-code" in steerboard(*verify).one_line()
    assert not (mine.parent / "I-RAN").exists()
    done = steerboard(*verify, "--run-code")
    assert done.code == 0, done.out
    assert (mine.parent / "I-RAN").exists()
    assert "warning: code of" in done.err
    out = pack(small_run, tmp_path / "outputs", "my-method", "--type", "outputs")
    assert "nothing to verify" in steerboard("submission", "verify", out).one_line()


def test_links_and_foreign_files_are_refused_before_anything_is_read(mine):
    (mine / "results" / "pocketlm" / "extra.bin").write_bytes(b"x")
    (mine / ".hidden").write_bytes(b"x")
    (mine / "steering").symlink_to("/etc/passwd")
    os.mkfifo(mine / "pipe")
    found = lines(check(mine, "--no-rescore"))
    assert len(found) == 4
    assert any("is a link" in line for line in found)
    good, bad = find_all(mine.parent)
    assert (len(good), len(bad)) == (0, 1)


def test_an_incomplete_run_is_refused_and_says_how_much_there_is(small_run, tmp_path):
    done = steerboard("submission", "pack", small_run, "--out", tmp_path / "x", "--method", "my-method")
    assert "2 of 11 languages" in done.one_line()
    assert "--partial" in done.one_line()
    assert not (tmp_path / "x").exists()


def test_who_and_licence_must_be_said_and_methods_are_listed(small_run, tmp_path):
    out = tmp_path / "x"
    done = steerboard("submission", "pack", small_run, "--out", out, "--method", "my-method", "--partial")
    assert all(option in done.one_line() for option in ("--author", "--contact", "--licence"))
    done = steerboard("submission", "pack", small_run, "--out", out, "--method", "mymethod", "--partial")
    assert "my-method" in done.one_line()


def test_other_formats_say_the_same(mine):
    shutil.rmtree(cells(mine)[0])
    for form, sign in (("md", "| problem |"), ("junit", "<failure"), ("table", "problem ")):
        done = steerboard("submission", "check", mine, "--no-rescore", "--format", form)
        assert (done.code, sign in done.out) == (1, True)
