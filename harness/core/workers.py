"""The same work on many items, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def map_forked(work: Callable[[Item], Result], items: Sequence[Item], worth: bool = True) -> list[Result]:
    """Return ``work`` of every item, in their order: a share in this process, the others in forked ones.

    A fork has all that this process has read, so that it starts at once, and only results are sent. It is safe on Linux
    while there are no other threads; elsewhere all is done here. Errors are those of the plain loop: work that failed
    is repeated here, in the order of the items. ``worth``: whether it takes longer than to start a process (0.02 s).
    """
    count = min(cores(), len(items))
    if not worth or count < 2 or sys.platform != "linux" or threading.active_count() > 1:
        return [work(item) for item in items]
    shares = [range(first, len(items), count) for first in range(count)]
    children: list[tuple[Any, Connection]] = []
    found: list[tuple[Result, ...]] = [()] * len(items)
    try:
        children += [_fork(work, [items[i] for i in share]) for share in shares[1:]]
        found[::count] = _try_all(work, [items[i] for i in shares[0]])
        for share, (_, reader) in zip(shares[1:], children, strict=True):
            with suppress(EOFError):  # it was killed, perhaps for want of memory
                found[share.start :: count] = reader.recv()
    finally:
        for process, reader in children:
            reader.close()
            process.kill()
            process.join()
    return [own[0] if own else work(item) for own, item in zip(found, items, strict=True)]


def _fork(work: Callable[[Item], Result], items: Sequence[Item]) -> tuple[Any, Connection]:
    """Return a process that sends the results of items, and where they can be read."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(reader, writer, work, items), daemon=True)
    with warnings.catch_warnings():
        # Python counts the threads of linear algebra, which ends them before a fork and starts them again.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    writer.close()
    return process, reader


def _send(reader: Connection, writer: Connection, work: Callable[[Item], Result], items: Sequence[Item]) -> None:
    reader.close()  # so that a process whose parent was killed ends, too, when it writes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with suppress(BrokenPipeError):
        writer.send(_try_all(work, items))


def _try_all(work: Callable[[Item], Result], items: Sequence[Item]) -> list[tuple[Result, ...]]:
    """Return the result of every item; an empty tuple for work that failed."""
    return [_try(work, item) for item in items]


def _try(work: Callable[[Item], Result], item: Item) -> tuple[Result, ...]:
    try:
        return (work(item),)
    except Exception:
        return ()
