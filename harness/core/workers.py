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

from harness.core.signals import STOPS, hold_back
from harness.core.threads import allowed_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

_BYTES, _MOST = 2, 30_000  # of a position; as many as a pipe holds


def cores() -> int:
    """Return the number of cores that this command may use (``--threads``)."""
    return allowed_threads()


def map_forked(work: Callable[[Item], Result], items: Sequence[Item], worth: bool = True) -> list[Result]:
    """Return ``work`` of every item, in their order, done by this process and forked ones: each takes the next item.

    A fork has all that this process has read, so that it starts at once, and only results are sent. It is safe on Linux
    while there are no other threads; elsewhere all is done here. Errors are those of the plain loop: work that failed
    is repeated here, in the order of the items. ``worth``: whether it takes longer than to start a process (0.02 s).
    """
    count = min(cores(), len(items))
    if not worth or count < 2 or len(items) > _MOST or sys.platform != "linux" or threading.active_count() > 1:
        return [work(item) for item in items]
    queue, end = os.pipe()  # of all positions; whoever reads one has it
    os.write(end, b"".join(i.to_bytes(_BYTES) for i in range(len(items))))
    os.close(end)
    children: list[tuple[Any, Connection]] = []
    try:
        children += [_fork(work, items, queue) for _ in range(count - 1)]
        found = _take(work, items, queue)
        for _, reader in children:
            with suppress(EOFError):  # it was killed, perhaps for want of memory
                found |= reader.recv()
    finally:
        os.close(queue)
        for process, reader in children:
            reader.close()
            process.kill()
            process.join()
    return [found[i] if i in found else work(item) for i, item in enumerate(items)]


def _fork(work: Callable[[Item], Result], items: Sequence[Item], queue: int) -> tuple[Any, Connection]:
    """Return a process that sends the results of items, and where they can be read."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(reader, writer, work, items, queue), daemon=True)
    with warnings.catch_warnings():
        # Python counts the threads of linear algebra, which ends them before a fork and starts them again.
        warnings.simplefilter("ignore", DeprecationWarning)
        with hold_back(*STOPS):
            process.start()
    writer.close()
    return process, reader


def _send(
    reader: Connection, writer: Connection, work: Callable[[Item], Result], items: Sequence[Item], queue: int
) -> None:
    reader.close()  # so that a process whose parent was killed ends, too, when it writes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    with suppress(BrokenPipeError):
        writer.send(_take(work, items, queue))


def _take(work: Callable[[Item], Result], items: Sequence[Item], queue: int) -> dict[int, Result]:
    """Do what is left in the queue; return position -> result, without work that failed."""
    found = {}
    while taken := os.read(queue, _BYTES):
        position = int.from_bytes(taken)
        with suppress(Exception):
            found[position] = work(items[position])
    return found
