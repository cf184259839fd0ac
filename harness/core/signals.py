"""Stopping: Ctrl-C, SIGTERM and a closed terminal end a command in one line, from its first moment."""

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
    """Raise ``KeyboardInterrupt`` where a signal stops the block; yield the numbers of those that came.

    The list matters where the exception gets lost: it hits a finaliser or a callback from foreign code, and
    Python or that code drops it. A signal that is ignored, as by nohup and in the background of a script,
    stays ignored. What handled a signal before the block is called as well, and put back at its end.
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


def _noting(came: list[int], before: Any) -> Callable[[int, Any], None]:
    def stop(number: int, frame: Any) -> None:
        came.append(number)
        if callable(before):
            before(number, frame)
        raise KeyboardInterrupt

    return stop
