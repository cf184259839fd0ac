"""Worker processes: each makes its own state once and works through chunks of items, one thread each.

Workers are forked from a server process that was started afresh and has loaded the libraries: a fork of this process,
in which torch has threads, could hang, and a fresh start of every worker would load the libraries again.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from os import _exit

from harness.core.errors import BrokenFileError, DamagedFileError, MachineError, UserError
from harness.core.redaction import hide_secrets
from harness.core.signals import STOPS, hold_back

Setup = Callable[[], Callable[[str], None]]
"""Makes what an item is worked on with; it is sent to the workers, so it must be picklable."""
Outcome = tuple[str, Exception | None]
"""An item, and why it failed."""

_PRELOADED = ["harness.runner.score", "sklearn.linear_model", "scipy.sparse", "sacrebleu.metrics"]
_KINDS = (DamagedFileError, BrokenFileError, MachineError, UserError)


@dataclass(frozen=True)
class _Failure:
    """An exception as it can be sent: the index of its kind in ``_KINDS`` (None for a fault of ours), and its words."""

    kind: int | None
    words: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        kind = next((i for i, known in enumerate(_KINDS) if isinstance(error, known)), None)
        return cls(kind, str(error) if kind is not None else hide_secrets(traceback.format_exc()))

    def error(self) -> Exception:
        return RuntimeError(f"in a worker: {self.words}") if self.kind is None else _KINDS[self.kind](self.words)


@dataclass
class _Worker:
    """A process, the connection to it, and what is left of its chunk. It ends when ``lifeline`` closes."""

    process: ForkServerProcess
    connection: Connection
    lifeline: Connection
    left: deque[str]

    @classmethod
    def start(cls, context: ForkServerContext, setup: Setup) -> _Worker:
        ours, theirs = context.Pipe()
        watched, lifeline = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(setup, theirs, watched), daemon=True, name="scoring")
        process.start()
        theirs.close()  # so that the death of the worker is the end of the connection
        watched.close()
        return cls(process, ours, lifeline, deque())

    def give(self, chunk: Sequence[str]) -> None:
        self.left = deque(chunk)
        with suppress(OSError):  # it died while idle; the next look at the connection says so
            self.connection.send(list(chunk))

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.lifeline.close()


def start_server() -> None:
    """Start the process that workers are forked from, so that it loads libraries while this one does other work."""
    _context()
    resource_tracker.ensure_running()  # here, since it lets Ctrl-C through again
    with hold_back(signal.SIGINT):
        forkserver.ensure_running()


def _context() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def run_in_workers(setup: Setup, chunks: Iterable[Sequence[str]], number: int) -> Iterator[Outcome]:
    """Work on the items of all chunks in so many processes; yield every item when it is done, with its error if any.

    A chunk is taken when a worker is free, which works on its items in order. An item whose worker is killed is tried
    once more, in another one; the second time it has failed with a ``MachineError``. Close the iterator to stop all
    workers at once; they also end when this process does.
    """
    start_server()
    context = _context()
    waiting, again = iter(chunks), set[str]()
    workers: dict[Connection, _Worker] = {}

    def engage(chunk: Sequence[str]) -> None:
        worker = _Worker.start(context, setup)
        workers[worker.connection] = worker
        worker.give(chunk)

    try:
        for chunk in islice(waiting, number):
            engage(chunk)
        while workers:
            for ready in wait(list(workers)):
                worker = workers[ready]  # type: ignore[index]
                try:
                    failure = worker.connection.recv()
                except (EOFError, OSError):
                    yield from _after_death(workers.pop(worker.connection), again, engage)
                    continue
                yield worker.left.popleft(), failure and failure.error()
                if not worker.left and (more := next(waiting, None)):
                    worker.give(more)
                elif not worker.left:
                    workers.pop(worker.connection).stop()
            # In the place of one that died with its last item.
            for chunk in islice(waiting, max(0, number - len(workers))):
                engage(chunk)
    finally:
        for worker in workers.values():
            worker.stop()


def _after_death(worker: _Worker, again: set[str], engage: Callable[[Sequence[str]], None]) -> Iterator[Outcome]:
    """Go on with the chunk of a worker that died; yield the item that it died of if that has happened before."""
    worker.stop()
    item = worker.left[0]
    if item in again:
        worker.left.popleft()
        code = worker.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        yield (
            item,
            MachineError(
                f"the process that scored {item} {how}, twice; perhaps memory is short. Finished work is kept: run the "
                "same command again, with --threads 1 for the least memory."
            ),
        )
    again.add(item)
    if worker.left:
        engage(worker.left)


def _work(setup: Setup, connection: Connection, lifeline: Connection) -> None:
    """Work on chunks until the other side is gone."""
    from threadpoolctl import threadpool_limits

    for number in STOPS:  # the other side decides what a signal to all processes of the terminal means
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    work: Callable[[str], None] | None = None
    with threadpool_limits(limits=1):
        while True:
            for item in connection.recv():
                failure = None
                try:
                    work = work or setup()
                    work(item)
                except Exception as error:
                    failure = _Failure.of(error)
                connection.send(failure)


def _end_with(lifeline: Connection) -> None:
    """End this process, whatever it is at, when the one that started it is gone."""
    lifeline.poll(None)
    _exit(1)
