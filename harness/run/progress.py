"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LOG_EVERY = 30.0  # seconds between lines where there is no terminal


@dataclass
class Tracker:
    """Counts finished cells and, for a rate, the texts written in them."""

    console: Console
    title: str
    total: int
    bar: Progress | None = None
    done: int = 0
    texts: int = 0
    started: float = field(default_factory=time.monotonic)
    stopped: Callable[[], bool] = lambda: False
    _logged: float = field(default_factory=time.monotonic)

    def add_texts(self, count: int) -> None:
        """Count texts that were written."""
        self.texts += count
        self._show()

    def finish_cell(self, title: str) -> None:
        """Count one cell as finished. Raises ``KeyboardInterrupt`` where Ctrl-C was pressed and got lost."""
        self.done += 1
        self.title = title
        self._show()
        if self.stopped():
            raise KeyboardInterrupt

    def say(self, words: str) -> None:
        """Show what is going on inside of a cell."""
        self.title = words
        self._show()

    @property
    def rate(self) -> float:
        """Texts per second since the start."""
        return self.texts / max(time.monotonic() - self.started, 1e-9)

    def _show(self) -> None:
        speed = f"{self.rate:.1f} texts/s" if self.texts else ""
        if self.bar is not None:
            task = self.bar.task_ids[0]
            self.bar.update(task, completed=self.done, speed=speed, cell=self.title)
        elif time.monotonic() - self._logged > _LOG_EVERY:
            self._logged = time.monotonic()
            self.console.print(f"  {self.done}/{self.total} cells {speed} {self.title}")


@contextmanager
def noting_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield what says whether Ctrl-C was pressed in the block.

    It raises at once, as ever; but where it hits a finaliser or a callback from foreign code, Python or
    that code drops the exception, and the run would go on.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield lambda: False
        return
    pressed: list[int] = []

    def handler(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def track(console: Console, stage: str, total: int) -> Iterator[Tracker]:
    """Show progress of ``total`` cells of a stage while the block runs."""
    with noting_ctrl_c() as stopped, _shown(console, stage, total) as tracker:
        tracker.stopped = stopped
        yield tracker


@contextmanager
def _shown(console: Console, stage: str, total: int) -> Iterator[Tracker]:
    if not console.is_terminal:
        console.print(f"{stage}: {total} cells")
        yield Tracker(console, "", total)
        return
    columns = (
        TextColumn(f"{stage:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[cell]}"),
    )
    with Progress(*columns, console=console) as bar:
        bar.add_task(stage, total=total, speed="", cell="")
        yield Tracker(console, "", total, bar)
