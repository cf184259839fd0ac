"""Work in forked processes gives what a plain loop gives."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

from harness.core import workers
from harness.core.errors import InvalidFileError, UserError
from harness.core.workers import map_forked

TEXTS = ["ሰላም ለዓለም", "שלום עולם", "hei maailma", "", "a", "b", "c"]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # pytest itself may have threads


def test_results_are_those_of_a_loop_in_the_order_of_the_items():
    parent = os.getpid()
    numbers = np.arange(7.0)

    def work(i: int) -> tuple[str, float, bool]:  # what it uses need not be sent: a fork has it
        time.sleep(0.05)
        return TEXTS[i][::-1], float(numbers[i] / 3), os.getpid() == parent

    found = map_forked(work, range(7))
    assert [row[:2] for row in found] == [(TEXTS[i][::-1], i / 3) for i in range(7)]
    assert len({row[2] for row in found}) == 2, "both processes worked"
    assert map_forked(work, range(0)) == []


def test_whoever_is_free_takes_the_next_item():
    def work(i: int) -> int:
        time.sleep(0.4 if i == 0 else 0.02)
        return os.getpid()

    first, *others = map_forked(work, range(6))
    assert set(others) == {*others} - {first}


def test_one_core_and_other_threads_need_no_process(monkeypatch):
    parent = os.getpid()
    for attribute, value in ((workers, "cores"), lambda: 1), ((threading, "active_count"), lambda: 2):
        with monkeypatch.context() as patch:
            patch.setattr(*attribute, value)
            assert map_forked(lambda _: os.getpid(), range(3)) == [parent] * 3


def test_the_first_error_is_raised_as_in_a_loop():
    def work(i: int) -> int:
        if i in (1, 2):
            raise InvalidFileError(f"שלום {i}", "is broken", "Remove it.")  # it cannot be sent: three arguments
        return i

    with pytest.raises(UserError, match="שלום 1 is broken"):
        map_forked(work, range(4))


def test_the_work_of_a_process_that_is_killed_is_done_here():
    parent = os.getpid()

    def work(i: int) -> int:
        time.sleep(0.02)
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return i * i

    assert map_forked(work, range(5)) == [0, 1, 4, 9, 16]
