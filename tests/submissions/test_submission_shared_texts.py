"""Texts of another submission, or of another cell, are found; what keyed noise explains is not."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from support.helpers import ROOT
from support.submitting import cells, edit_card, edit_gz, edit_json, sha256

from harness.submissions.duplicates import compare_texts
from harness.submissions.report import SubmissionReport
from harness.submissions.submission import find, siblings

PUBLISHED = ROOT / "submissions"
SENTIMENT = {"task": "sentiment", "language": "am", "setting": "zero-shot"}


@pytest.fixture
def beside(tmp_path) -> Path:
    """Two honest submissions of one model in one folder: what is steered and what is not."""
    for name in ("language", "zero-shot"):
        shutil.copytree(PUBLISHED / name, tmp_path / name)
    return tmp_path


def problems(folder: Path) -> list[str]:
    report = SubmissionReport(folder.name)
    compare_texts(find(folder), siblings(folder), report)
    return [finding.line for finding in report.problems]


def rows(cell: Path) -> list[dict]:
    packed = (cell / "generations.jsonl.gz").read_bytes()
    return [json.loads(line) for line in gzip.decompress(packed).splitlines()]


def write(cell: Path, texts: list[str]) -> None:
    lines = [{**row, "text": text} for row, text in zip(rows(cell), texts, strict=True)]
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    edit_gz(cell / "generations.jsonl.gz", lambda _: body)
    edit_json(cell / "status.json", lambda status: status.update(generations_sha256=sha256(body)))


def texts(cell: Path) -> list[str]:
    return [row["text"] for row in rows(cell)]


def one(folder: Path, **more: object) -> Path:
    [cell] = cells(folder, **{**SENTIMENT, **more})
    return cell


def test_published_submissions_that_share_model_and_noise_have_no_problem():
    assert problems(PUBLISHED / "clas") == []  # whose texts are zero-shot's for the most part
    assert problems(PUBLISHED / "zero-shot") == []


def test_texts_of_another_submission_under_another_seed_are_found(beside):
    write(one(beside / "language", seed=2), texts(one(beside / "zero-shot", seed=1)))
    [line] = problems(beside / "language")
    assert "most of its texts are those of sentiment, am, zero-shot, seed 1 of zero-shot" in line


def test_they_are_found_under_other_case_points_and_unseen_characters(beside):
    taken = [f"«{text.upper()}\u034f!»" for text in texts(one(beside / "zero-shot", seed=1))]
    write(one(beside / "language", seed=2), taken)
    assert len(problems(beside / "language")) == 1


def test_texts_of_another_seed_of_the_same_submission_are_found(beside):
    write(one(beside / "zero-shot", seed=3), texts(one(beside / "zero-shot", seed=1)))
    found = problems(beside / "zero-shot")
    assert len(found) == 2  # each is the other's: who wrote first is not known
    assert all("of zero-shot" in line for line in found)


def test_the_same_texts_under_other_labels_are_found(beside):
    taken = texts(one(beside / "zero-shot", seed=1))
    write(one(beside / "language", seed=1), taken[len(taken) // 2 :] + taken[: len(taken) // 2])
    assert len(problems(beside / "language")) == 1


def test_the_same_texts_under_another_model_are_found(beside):
    cell = one(beside / "language", seed=1)
    write(cell, texts(one(beside / "zero-shot", seed=1)))
    assert problems(beside / "language") == []

    def other(status: dict) -> None:
        status["cell"]["model"] |= {"name": "other", "fingerprint": "beef"}

    edit_json(cell / "status.json", other)
    assert len(problems(beside / "language")) == 1


def test_outputs_that_are_another_submissions_from_beginning_to_end_are_found(beside):
    shutil.copytree(beside / "zero-shot", beside / "mine")
    assert problems(beside / "mine") == []  # with code, that is a method that does nothing

    def outputs(card: dict) -> None:
        card |= {"name": "mine", "type": "outputs", "entry_point": None}

    edit_card(beside / "mine", outputs)
    [line] = problems(beside / "mine")
    assert "texts are those of zero-shot, cell by cell" in line


def test_what_cannot_be_read_does_not_end_the_comparison(beside):
    (one(beside / "zero-shot", seed=1) / "generations.jsonl.gz").write_bytes(b"no gzip")
    write(one(beside / "language", seed=3), texts(one(beside / "zero-shot", seed=2)))
    assert len(problems(beside / "language")) == 1
