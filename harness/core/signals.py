"""Signals: Ctrl-C, SIGTERM and a closed terminal end a command in one line, from its first moment."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPS = tuple(map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))


@contextmanager
def noting_stops() -> Iterator[list[int]]:
    """Raise ``KeyboardInterrupt`` when a signal stops the block; yield the list of signal numbers received.

    The list is needed when the exception gets lost: raised in a finaliser or in a callback from foreign code, Python
    or that code drops it. An ignored signal, as under nohup, stays ignored. The previous handler is called as well, and
    restored at the end.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for number in STOPS:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and handler is not None:
                before[number] = signal.signal(number, _noting(came, handler))
    hook = sys.unraisablehook
    sys.unraisablehook = lambda found: None if found.exc_type is KeyboardInterrupt else hook(found)
    try:
        yield came
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def hold_back(*numbers: int) -> Iterator[None]:
    """Keep signals from this thread until the end of the block, and from processes started in it until they let them.

    Ctrl-C reaches all processes of a terminal: one that has not come to ignore it yet would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _noting(came: list[int], before: Any) -> Callable[[int, Any], None]:
    def stop(number: int, frame: Any) -> None:
        came.append(number)
        if callable(before):
            before(number, frame)
        raise KeyboardInterrupt

    return stop
