"""Work on several cores: processes for what Python does, one thread for small matrices."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 8  # processes; what they are fed from is one disk

_work: list[Callable[[Any], Any]] = []  # what forked processes do: inherited, as closures cannot be sent


def in_processes(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield ``work`` of every item, in their order, and raise what it raises.

    In forked processes where that is safe, else here and now: then no item is begun before it is asked for.
    Items and results are sent between processes; what else ``work`` uses they have from the fork.
    """
    workers = min(_cores(), _MOST, len(items))
    if workers < 2 or not _may_fork():
        yield from map(work, items)
        return
    done = 0
    _work.append(work)
    try:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for result in pool.map(_do, items):
                yield result
                done += 1
    except BrokenProcessPool:  # one was killed, as for memory
        yield from map(work, items[done:])
    finally:
        _work.pop()


def _do(item: Any) -> Any:
    with one_blas_thread():
        return _work[-1](item)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _may_fork() -> bool:
    """Say whether a fork leaves nothing half done: there is no other thread, no device, and it is allowed."""
    return (
        sys.platform == "linux"
        and threading.active_count() == 1
        and "torch" not in sys.modules
        and not multiprocessing.current_process().daemon
    )


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep linear algebra to one thread: of small matrices, others would only wait for one another."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # a light install: slower, and as right
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits
