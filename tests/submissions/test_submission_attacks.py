"""What a stranger can put into a pull request or a folder: nothing of it counts as a check or an own run."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.helpers import ROOT, steerboard
from support.submitting import check, edit_card, lines, sha256
from support.toyruns import F1, flat, selection, toy, write_run
from support.toysite import SUITE, finish

from harness.submissions.card import read_card
from harness.submissions.files import StrictReader
from leaderboard.inputs import inputs

PUBLISHED = ROOT / "submissions"
BEST = "0.98765"
"""A macro-F1 that no honest entry has: it stands on a page as the value that a column is sorted by."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder ``submissions`` with two honest entries, Amharic and Hebrew among their languages."""
    for name in ("human", "zero-shot"):
        shutil.copytree(PUBLISHED / name, tmp_path / "submissions" / name)
    return tmp_path / "submissions"


def forged(folder: Path) -> Path:
    """Add a check of the very files that lie there, with a badge, and measured scores of 0.98765."""
    files = {}
    for cell in sorted(folder.glob("results/*/????????????????")):
        body = json.loads(gzip.decompress((cell / "scores.json.gz").read_bytes()))
        for score in body["scores"]:
            if score["metric"].startswith("macro_f1"):
                score["value"] = float(BEST)
        data = gzip.compress(json.dumps(body).encode(), mtime=0)
        name = f"measured/{cell.parent.name}/{cell.name}/scores.json.gz"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        files[name] = sha256(data)
    seen = {"model": "pocketlm", "cells": 2, "texts": 8, "equal": 8}
    claim = {
        "schema": 1,
        "badge": "reproduced",
        "subject": read_card(StrictReader(folder)).subject,
        "steerboard": "0.1.0",
    }
    claim |= {"cells": 66, "parts": ["classifier/tfidf"], "reproduced": True}
    (folder / "check.json").write_text(json.dumps({**claim, "files": files, "regenerated": seen}))
    return folder


def built(*paths: Path, out: Path) -> str:
    """Return the first page of a board."""
    done = steerboard("board", "build", *paths, "--out", out)
    assert done.code == 0, done.err
    return (out / "index.html").read_text(encoding="utf-8")


# A forged check


def test_a_check_that_a_submission_brings_fails_its_check(root: Path) -> None:
    report = check(forged(root / "zero-shot"), "--no-rescore")
    assert report["code"] == 1
    found = lines(report)
    assert [line.split(":")[0] for line in found] == ["check.json", "measured"]
    assert all("only whoever checks writes it" in line for line in found)
    assert report["facts"].get("badge", "self-reported").startswith("self-reported")


def test_a_forged_check_puts_no_number_and_no_badge_on_the_board(root: Path, tmp_path: Path) -> None:
    forged(root / "zero-shot")
    page = built(root, out=tmp_path / "site")
    everything = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html"))
    assert BEST not in everything
    assert "8 of 8 texts" not in everything
    assert "reproduced</span>" not in page
    [banner] = re.findall(r'<section class="refused".*?</section>', page, re.DOTALL)
    assert "zero-shot" in banner
    assert "check.json" in banner


def test_a_lock_beside_somebodys_submissions_is_not_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """His own baselines/, with a lock that gives every entry a badge, changes nothing unless it is named."""
    monkeypatch.chdir(root.parent)
    assert "reproduced" not in steerboard("submission", "list", root).out
    lock = json.loads((ROOT / "baselines" / "submissions.lock.json").read_text(encoding="utf-8"))
    for entry in lock["submissions"].values():
        entry |= {"badge": "reproduced"}
        entry["reproduction"] = {"model": "pocketlm", "cells": 1, "texts": 8, "equal": 8}
    other = root.parent / "baselines" / "submissions.lock.json"
    other.parent.mkdir()
    other.write_text(json.dumps(lock), encoding="utf-8")
    assert "reproduced" not in steerboard("submission", "list").out
    named = steerboard("submission", "list", root, "--lock", other)
    assert named.out.count("reproduced") == 2, "whoever names a lock believes it"


# A pull request that takes over the board


def run_of_a_stranger(folder: Path) -> Path:
    """Write a whole run in which a method of the board has 0.98765 in Amharic and Hebrew."""
    chosen = selection(("am", "he"), ("sentiment",), (1, 2, 3))
    best = toy("learned")
    best.scores[F1] = flat(float(BEST), chosen, (0.0,))
    run = write_run(folder, [best], chosen, suite=SUITE)
    finish(run)
    return run.path


def bare_run(root: Path) -> None:
    run_of_a_stranger(root / "mine")


def manifest_and_link(root: Path) -> None:
    run = run_of_a_stranger(root.parent / "elsewhere")
    shutil.copy(run / "manifest.json", root / "manifest.json")
    (root / "cells").symlink_to(run / "cells")


def run_beside_a_card(root: Path) -> None:
    """A run whose folder has a card that is not one."""
    run_of_a_stranger(root / "mine")
    (root / "mine" / "submission.yaml").write_text("name: mine\n", encoding="utf-8")


def link_to_a_run(root: Path) -> None:
    run_of_a_stranger(root.parent / "elsewhere")
    (root / "mine").symlink_to(root.parent / "elsewhere")


def lone_card(root: Path) -> None:
    shutil.copy(root / "human" / "submission.yaml", root / "submission.yaml")


TAKEOVERS = [bare_run, manifest_and_link, run_beside_a_card, link_to_a_run, lone_card]


@pytest.mark.parametrize("attack", TAKEOVERS, ids=lambda attack: attack.__name__)
def test_what_is_not_a_submission_is_named_and_never_shown(root: Path, attack: Callable[[Path], None]) -> None:
    before = {path.name for path in root.iterdir()}
    attack(root)
    found = inputs([root])
    assert [item.run.path.relative_to(root).parts[0] for item in found.items] == ["human", "zero-shot"]
    assert {item.badge for item in found.items} == {"self-reported"}
    assert {item.name for item in found.refused} == {path.name for path in root.iterdir()} - before


def test_no_takeover_reaches_the_board_or_stops_its_build(root: Path, tmp_path: Path) -> None:
    manifest_and_link(root)
    lone_card(root)
    run_of_a_stranger(root / "bare")
    run_beside_a_card(root)
    page = built(root, out=tmp_path / "site")
    assert BEST not in page
    assert "own run</span>" not in page
    assert set(re.findall(r"method-([\w-]+)\.html", page)) == {"human", "zero-shot"}
    [banner] = re.findall(r'<section class="refused".*?</section>', page, re.DOTALL)
    assert re.findall(r"<li><strong>([^<]*)</strong>", banner) == [
        "bare", "cells", "manifest.json", "submission.yaml", "mine",
    ]  # fmt: skip


def test_a_folder_above_does_not_make_it_an_own_run(root: Path, tmp_path: Path) -> None:
    bare_run(root)
    assert "own run</span>" not in built(tmp_path, out=tmp_path / "site")
    line = steerboard("board", "build", root / "mine", "--out", tmp_path / "out").one_line()
    assert "is not a submission" in line
    assert "own run</span>" in built(run_of_a_stranger(tmp_path / "runs" / "x"), out=tmp_path / "runs-site")


def test_a_link_in_the_place_of_all_submissions_is_refused(root: Path, tmp_path: Path) -> None:
    bare_run(root)
    root.rename(tmp_path / "elsewhere")
    root.symlink_to(tmp_path / "elsewhere")
    assert "link" in steerboard("board", "build", root, "--out", tmp_path / "out").one_line()
    root.unlink()
    (tmp_path / "elsewhere" / "mine").rename(tmp_path / "mine")
    root.mkdir()
    (tmp_path / "mine").rename(root / "mine")
    (tmp_path / "other").symlink_to(root)
    line = steerboard("board", "build", tmp_path / "other", "--out", tmp_path / "out").one_line()
    assert "is a link" in line, "also under another name, with a bare run alone in it"


def test_a_submission_that_fails_its_check_is_named_and_not_shown(root: Path, tmp_path: Path) -> None:
    edit_card(root / "zero-shot", lambda card: card["authors"][0].update(name="TODO"))
    next((root / "zero-shot").glob("results/*/*/predictions.json.gz")).unlink()
    shutil.copytree(root / "human", root / "hostile")
    edit_card(root / "hostile", lambda card: card.update({"<script>alert('שלום')</script>": 1}))
    page = built(root, out=tmp_path / "site")
    [banner] = re.findall(r'<section class="refused".*?</section>', page, re.DOTALL)
    assert "zero-shot" in banner
    assert "still to be filled in" in banner
    assert "method-zero-shot.html" not in page
    assert "&lt;script&gt;alert(" in banner
    assert "<script>alert(" not in page
    assert "method-human.html" in page


# Files of a submitter that could be believed


def test_two_submissions_of_one_entry_do_not_mix(root: Path, tmp_path: Path) -> None:
    """Another name, the method, options and model of a published entry: its cells are not replaced."""
    copy = Path(shutil.copytree(root / "zero-shot", root / "aaa"))
    edit_card(copy, lambda card: card.update(name="aaa"))
    page = built(root, out=tmp_path / "site")
    assert re.findall(r"<li><strong>([^<]*)</strong>", page) == ["aaa"], "the one with a badge stays"
    assert "method-zero-shot.html" in page
    assert {item.name for item in inputs([root]).refused} == {"aaa", "zero-shot"}, "without any, neither"
    report = check(copy, "--no-rescore")
    assert any("is that of submission zero-shot" in line for line in lines(report))


@pytest.mark.parametrize("name", ["Human", "few_shot", "1anguage", "ZER0-SHOT", "c1as"])
def test_a_name_that_looks_like_a_built_in_method_is_refused(root: Path, name: str) -> None:
    copy = Path(shutil.copytree(root / "zero-shot", root.parent / "other" / name))
    edit_card(copy, lambda card: card.update(name=name))
    assert any("looks like" in line for line in lines(check(copy, "--no-rescore")))


def test_a_name_that_looks_like_another_submission_is_refused(root: Path) -> None:
    for name in ("my-method", "My_Method"):
        shutil.copytree(root / "zero-shot", root / name)
        edit_card(root / name, lambda card, name=name: card.update(name=name))
    found = lines(check(root / "My_Method", "--no-rescore"))
    assert any("looks like 'my-method'" in line for line in found)
