"""A check opens each file of a submission once, and no file of another one more than once."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from support.helpers import ROOT
from support.submitting import small_submission

from harness.submissions.check import check_files
from harness.submissions.files import InvalidSubmissionError, StrictReader
from harness.submissions.lockfile import NO_LOCK, LockFile
from harness.submissions.protocol import CheckInputs
from harness.submissions.submission import find

_WATCHED: list[tuple[Path, Counter[str]]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _WATCHED and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0]))
        for root, opened in _WATCHED:
            if path.is_relative_to(root) and not path.is_dir():
                opened[path.relative_to(root).as_posix()] += 1


sys.addaudithook(_audit)  # for good: it looks at nothing unless a test watches


@contextmanager
def watched(root: Path) -> Iterator[Counter[str]]:
    """Yield path below a directory -> how often it was opened, by Python or by ``os.open``."""
    _WATCHED.append((root, Counter()))
    try:
        yield _WATCHED[-1][1]
    finally:
        _WATCHED.pop()


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_check_of_the_files_opens_each_once(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "submissions" / "zero-shot", tmp_path / "zero-shot")
    lock = LockFile(ROOT / "baselines" / "submissions.lock.json")
    with watched(tmp_path / "zero-shot") as opened:
        checked = check_files(tmp_path / "zero-shot", CheckInputs(), lock=lock)
        assert checked.submission is not None
        assert (checked.report.problems, checked.submission.badge) == ([], "rescored")
    assert set(opened) == files(tmp_path / "zero-shot")
    assert set(opened.values()) == {1}


def test_a_check_that_scores_again_opens_each_once_too_and_so_it_does_with_files_of_others(tmp_path: Path) -> None:
    from harness.submissions.rescore import rescored

    small_submission(tmp_path / "submissions" / "human", tmp_path / "baselines")
    shutil.copytree(ROOT / "submissions" / "constant", tmp_path / "submissions" / "constant")
    with watched(tmp_path / "submissions") as opened:
        checked = check_files(tmp_path / "submissions" / "human", CheckInputs(), lock=NO_LOCK)
        with rescored(checked, ["tfidf"], Console(file=StringIO())):
            assert not checked.report.problems
    assert {path for path in opened if path.startswith("human/")} == {
        f"human/{path}" for path in files(tmp_path / "submissions" / "human")
    }
    assert set(opened.values()) == {1}


def test_a_board_keeps_nothing_in_memory_and_refuses_a_file_that_changed_since(tmp_path: Path) -> None:
    small_submission(tmp_path / "human", tmp_path / "baselines")
    submission = find(tmp_path / "human")
    assert submission.broken == []
    submission.reader.forget()
    [run] = submission.runs
    [cell, _] = run.cell_ids()
    path = run.path / cell / "status.json"
    assert run.status(cell) is not None
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InvalidSubmissionError, match=r"status\.json: was changed while it was read"):
        run.status(cell)


def test_a_file_is_opened_once_and_its_content_is_that_of_the_first_time(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_bytes(b'{"schema": 1}')
    reader = StrictReader(tmp_path)
    assert reader.json("status.json") == {"schema": 1}
    (tmp_path / "status.json").write_bytes(b"other")
    assert reader.read("status.json") == b'{"schema": 1}'
