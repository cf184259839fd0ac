"""Linear algebra of small matrices keeps to one thread, and a command to as many as it is given."""

from __future__ import annotations

import os

import pytest
from support.helpers import environment, python, steerboard

from harness.core import threads


def test_linear_algebra_keeps_to_one_thread_and_back():
    code = (
        "import numpy\nfrom threadpoolctl import threadpool_info\n"
        "from harness.core.threads import limit_blas_threads\n"
        "def most():\n"
        "    return max(pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas')\n"
        "before = most()\n"
        "with limit_blas_threads():\n    assert most() == 1\n"
        "assert most() == before\n"
    )
    python(code)


def used(threads: str, before: str, count: str) -> str:
    """Return what ``count`` gives in a process of its own on two cores, after ``--threads``."""
    code = (
        "import sys\nfrom harness.core import threads\nthreads.usable_cores = lambda: 2\n"
        f"{before}\nthreads.set_threads({threads})\n{count}"
    )
    return python(code, env=environment(OMP_NUM_THREADS="2")).strip()


TORCH = "import torch\nprint(torch.get_num_threads())"
BLAS = (
    "import numpy\nfrom threadpoolctl import threadpool_info\nprint(max(p['num_threads'] for p in threadpool_info()))"
)


@pytest.mark.parametrize("count", [TORCH, BLAS], ids=["torch", "BLAS"])
@pytest.mark.parametrize("loaded", [False, True], ids=["loaded after", "loaded before"])
def test_threads_hold_for_libraries(count, loaded):
    before = count.splitlines()[0] if loaded else ""
    assert used("1", before, count) == "1"
    if len(os.sched_getaffinity(0)) > 1:
        assert used("2", before, count) == used("64", before, count) == "2"  # there are no more cores


def test_by_default_all_cores_are_used_unless_the_environment_says_less(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 6)
    for value, allowed in (("2", 2), ("64", 6), ("0", 6), ("", 6), ("1,2", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert threads.allowed_threads() == allowed
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.allowed_threads() == 6


def test_usable_cores_are_those_of_the_affinity():
    code = (
        "import os\nfrom harness.core.threads import usable_cores\n"
        "one = sorted(os.sched_getaffinity(0))[:1]\nos.sched_setaffinity(0, one)\nprint(usable_cores())"
    )
    assert python(code).strip() == "1"


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
@pytest.mark.parametrize("words", [("run", "--suite", "mini"), ("score", "runs/none"), ("demo",)], ids=" ".join)
def test_a_bad_number_of_threads_is_one_line(words, value):
    done = steerboard(*words, "--threads", value)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "Invalid value for '--threads'" in done.err


@pytest.mark.parametrize(
    "name",
    [
        *("run", "demo", "score", "tune", "forcing", "lm-eval", "contrast build", "method test"),
        *("board build", "board serve", "compare", "gate check", "gate calibrate", "gate accept"),
        *("submission check", "submission check-changes", "submission verify"),
    ],
)
def test_every_command_that_computes_takes_threads(name):
    assert "--threads NUMBER" in steerboard(*name.split(), "--help").out
