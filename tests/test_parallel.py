"""Work in processes: the same results in the same order as here, whatever happens to a process."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from helpers import python

from harness import parallel
from harness.errors import UserError
from harness.parallel import in_processes, one_blas_thread

forking = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """Let there be several cores, and no torch of another test in this process."""
    monkeypatch.setattr(parallel, "_cores", lambda: 3)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@forking
def test_results_come_in_the_order_of_the_items_from_other_processes():
    offset = 100  # a closure: processes have it from the fork
    found = list(in_processes(lambda n: (n + offset, os.getpid()), list(range(20))))
    assert [n for n, _ in found] == list(range(100, 120))
    assert os.getpid() not in {pid for _, pid in found}


def test_one_item_is_no_reason_for_processes():
    assert list(in_processes(lambda n: os.getpid(), [1])) == [os.getpid()]
    assert list(in_processes(str, [])) == []


def test_beside_another_thread_nothing_is_forked():
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert set(in_processes(lambda n: os.getpid(), [1, 2, 3])) == {os.getpid()}
    finally:
        done.set()
        other.join()


def test_the_first_error_is_raised():
    def work(n):
        if n % 5 == 3:
            raise UserError(f"{n} is broken")
        return n

    results = in_processes(work, list(range(20)))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="3 is broken"):
        next(results)


@forking
def test_the_work_of_a_killed_process_is_done_here():
    here = os.getpid()

    def work(n):
        if n == 4 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    assert list(in_processes(work, list(range(12)))) == list(range(12))
    assert parallel._work == []


def test_linear_algebra_keeps_to_one_thread_and_back():
    code = (
        "import numpy\nfrom threadpoolctl import threadpool_info\n"
        "from harness.parallel import one_blas_thread\n"
        "def most():\n"
        "    return max(pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas')\n"
        "before = most()\n"
        "with one_blas_thread():\n    assert most() == 1\n"
        "assert most() == before\n"
    )
    python(code)


def test_without_threadpoolctl_nothing_is_limited(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with one_blas_thread():
        pass
