"""A full disk, too little memory or a lost device is never a score and never a method's error."""

from __future__ import annotations

import contextlib
import errno
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.helpers import jsonl, key, small_suite, steerboard, toy_llm

from harness.core.errors import BrokenFileError, MachineError, UserError, is_infrastructure, machine_failures, remedy
from harness.core.files import write_bytes
from harness.core.records import CellStatus
from harness.core.store import Run
from harness.data.sources import LocalData
from harness.runner.human_text import ReferenceTexts
from harness.runner.tune import evaluate_grid
from harness.submissions.conformance.kit import KitPlugin
from harness.submissions.reproduce import _compare

PLUGIN = """
from harness import Steering, SteeringMethod, register
import numpy as np
from harness.core.interventions import Intervention

@register("large")
class Large(SteeringMethod):
    '''Its steering file has 400 kB.'''
    settings = ("zero-shot",)
    def fit(self, ctx):
        vector = np.ones(16, dtype=np.float32)
        item = Intervention("layer_output", 0, "add", vector, 1.0, "raw", 1.0)
        return Steering((item,), {"residual_norm": [1.0], "curve": "x" * 400_000})
"""


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let the system refuse whatever makes a file longer than ``size`` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    return small_suite(folder, toy_llm(folder / "toy"))


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    with (
        room_for(1000),
        pytest.raises(MachineError, match=r"cannot write .*a: File too large. Choose a folder that can"),
    ):
        write_bytes(tmp_path / "a", b"x" * 2000)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_disk_that_is_full_while_a_method_is_fitted_is_not_the_methods_error(suite, tmp_path):
    (tmp_path / "large.py").write_text(PLUGIN)
    narrow = ("--languages", "am", "--tasks", "sentiment", "--seeds", 1, "--limit", 2)
    words = ("run", "--suite", suite, "--methods", "large", "--plugin", tmp_path / "large.py", *narrow)
    run = Run(tmp_path / "run")
    with room_for(200_000):
        done = steerboard(*words, "--run", run.path)
    assert done.code == 1, done.err
    [cell] = run.cell_ids()
    status = run.status(cell)
    assert (status.state, run.scores(cell)) == ("infra_error", None)
    assert "cannot write" in status.reason
    assert steerboard(*words, "--run", run.path).code == 0
    assert (run.status(cell).state, run.status(cell).attempts) == ("ok", 2)

    before = (run.cell(cell) / "scores.json").read_bytes()
    (run.cell(cell) / "scores.json").unlink()
    with room_for(3_000):
        scored = steerboard("score", run.path)
    assert scored.code == 2
    assert "scores.json: File too large" in scored.err.splitlines()[-1]
    assert run.scores(cell) is None
    assert steerboard("score", run.path).code == 0
    assert (run.cell(cell) / "scores.json").read_bytes() == before


# A disk that is full


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Mount a small disk, or make it larger: kilobytes -> its folder."""
    folder = tmp_path / "disk"

    def mount(size: int) -> Path:
        how = f"remount,size={size}k" if folder.exists() else f"size={size}k"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT CHECKED: a small disk cannot be mounted ({done.stderr.decode().strip()})")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def fill(writer: str, folder: Path) -> None:
    """Write 4 MB as a method might."""
    import torch
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models

    path, large = str(folder / writer), np.zeros(10**6, dtype=np.float32)
    if writer == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as base:
            base.execute("create table rows (data blob)")
            base.execute("insert into rows values (?)", (large.tobytes(),))
            base.commit()
    elif writer == "tokenizers":
        Tokenizer(models.BPE(vocab={str(i): i for i in range(100_000)}, merges=[])).save(path)
    elif writer == "parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pytest.importorskip("pyarrow").table({"x": np.arange(10**6)}), path)
    else:
        {
            "numpy": lambda: np.save(path, large),
            "torch": lambda: torch.save(torch.from_numpy(large), path),
            "old torch": lambda: torch.save(torch.from_numpy(large), path, _use_new_zipfile_serialization=False),
            "safetensors": lambda: save_file({"a": large}, path),
        }[writer]()


@pytest.mark.parametrize("writer", ["sqlite", "tokenizers", "parquet", "numpy", "torch", "old torch", "safetensors"])
def test_a_full_disk_is_the_machines_fault_whatever_writes(disk, writer):
    with pytest.raises(Exception) as found:
        fill(writer, disk(256))
    assert is_infrastructure(found.value)
    if writer != "numpy":  # which says how much it has written, and not why no more
        assert is_infrastructure(chained(found.value, ValueError("my fit failed")))
        assert remedy(found.value).startswith("Free space and run the same command again")


def test_whatever_does_not_fit_on_the_disk_a_command_ends_in_one_line_and_then_goes_on(suite, disk, monkeypatch):
    """Each time the disk is a little larger: the next file is the one that does not fit."""
    size = 8
    folder = disk(size)
    monkeypatch.setenv("STEERBOARD_CACHE", str(folder / "cache"))
    narrow = ("--languages", "am", "--tasks", "sentiment", "--seeds", 1, "--limit", 2)
    run, ends = Run(folder / "run"), set()
    for words in (
        ("run", "--suite", suite, "--methods", "human,language", *narrow, "--run", run.path),
        ("board", "build", run.path, "--out", folder / "site"),
        ("push", run.path, (folder / "storage").as_uri()),
        ("pull", (folder / "storage").as_uri(), folder / "copy"),
    ):
        while True:
            outcome = steerboard(*words)
            if not outcome.code:
                break
            last = outcome.err.splitlines()[-1] if outcome.code == 2 else outcome.out
            assert "Free space and run the same command again" in last or "infra_error" in last, outcome
            ends.add(last.partition(": No space left")[0].rpartition("/")[2])
            assert {status.state for status in map(run.status, run.cell_ids()) if status} <= {"ok", "infra_error"}
            assert list(folder.rglob(".*.tmp")) == []
            size = size * 3 // 2
            assert size < 10_000
            disk(size)
    assert len(ends) > 5, ends


def chained(first: BaseException, second: BaseException, hidden: bool = False) -> BaseException:
    """Return the second error as it is when it comes of the first."""
    try:
        try:
            raise first
        except BaseException:
            raise second from None if hidden else first
    except BaseException as error:
        return error


def out_of_memory() -> Exception:
    """Return what torch says where the memory of the machine is too small: a plain RuntimeError."""
    import torch

    with pytest.raises(RuntimeError) as found:
        torch.empty(2**55)
    return found.value


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        FULL,
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
        MachineError("cannot write x"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate"),
        type("BrokenProcessPool", (RuntimeError,), {})("a worker was killed"),
        chained(FULL, ValueError("my fit failed")),
        chained(FULL, UserError("cannot be loaded"), hidden=True),
        chained(MemoryError(), ValueError("x")),
    ],
    ids=repr,
)
def test_what_is_the_machines_fault(error):
    assert is_infrastructure(error)


def test_memory_that_torch_does_not_get_is_the_machines_fault():
    assert is_infrastructure(out_of_memory())


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        UserError("layer 9 is outside of this model's 0 to 3."),
        chained(FileNotFoundError(errno.ENOENT, "No such file"), ValueError("my table is missing")),
        chained(KeyError("x"), ValueError("y")),
        SystemExit(3),
        BrokenFileError("x is broken"),
    ],
    ids=repr,
)
def test_what_is_not(error):
    assert not is_infrastructure(error)


def test_a_failing_machine_is_one_line_with_the_work_and_other_errors_pass():
    words = r"scoring human/he failed because .*No space left.*same command again"
    with pytest.raises(MachineError, match=words), machine_failures("scoring human/he"):
        raise FULL
    with pytest.raises(ValueError, match="no"), machine_failures("x"):
        raise ValueError("no")
    with pytest.raises(UserError, match=r"^as it is$"), machine_failures("x"):
        raise UserError("as it is")


def test_human_text_that_cannot_be_read_is_not_taken_for_too_little(corpus_of, monkeypatch):
    corpus = corpus_of({})
    places = ReferenceTexts(corpus.suite, corpus)
    wanted = key(task="sentiment", language="he", setting="none")
    assert places.human(wanted) is None  # there is none
    assert places.demonstrations("sentiment", "he") == {}

    def broken(*arguments: object) -> None:
        raise MachineError("cannot read train.jsonl: Input/output error.")

    monkeypatch.setattr(corpus.source, "rows", broken)
    corpus._splits.clear()
    for look in (lambda: places.human(wanted), lambda: places.demonstrations("sentiment", "he")):
        with pytest.raises(MachineError):
            look()


def test_translations_that_are_broken_are_no_methods_error(tmp_path):
    jsonl(tmp_path / "parallel_mt" / "noise" / "he.jsonl", [{"id": "a"}])
    with pytest.raises(BrokenFileError, match=r"he\.jsonl, row 1"):
        LocalData(tmp_path).degraded("noise", "he")
    (tmp_path / "parallel_mt" / "noise" / "he.jsonl").write_text("{")
    with pytest.raises(BrokenFileError, match=r"he\.jsonl, line 1"):
        LocalData(tmp_path).degraded("noise", "he")


def failed_cell(*arguments: object) -> CellStatus:
    return CellStatus(cell=key(), state="infra_error", reason="OSError: [Errno 28] No space left on device")


def test_a_sweep_in_which_the_machine_failed_chooses_nothing(mini):
    prepared = SimpleNamespace(cells=[SimpleNamespace(id="a")], run=SimpleNamespace(status=failed_cell))
    with pytest.raises(MachineError, match=r"failed in 1 cells of the sweep .*nothing is chosen"):
        evaluate_grid(prepared, mini)


def test_a_submission_is_not_judged_by_a_machine_that_failed():
    claimed = SimpleNamespace(generations=lambda cell: [], path=Path("toy"))
    with pytest.raises(MachineError, match="No space left on device"):
        _compare(None, SimpleNamespace(status=failed_cell), claimed, "c", failed_cell())


def test_the_conformance_kit_does_not_blame_the_method():
    def after(error: BaseException) -> KitPlugin:
        plugin = KitPlugin(None, lambda result: None)
        item = SimpleNamespace(name="reference_check_texts", session=SimpleNamespace())
        plugin.pytest_runtest_makereport(item, SimpleNamespace(when="call", excinfo=SimpleNamespace(value=error)))
        return plugin

    failed = pytest.fail.Exception("texts raised")
    for error in (chained(FULL, failed, hidden=True), FULL):
        plugin = after(error)
        assert isinstance(plugin.error, MachineError)
        assert "'texts' could not be done" in str(plugin.error)
        assert "No space" in str(after(FULL).error)
        assert plugin.results == []
    assert after(chained(ValueError("no"), failed, hidden=True)).results[0].verdict == "FAILED"
