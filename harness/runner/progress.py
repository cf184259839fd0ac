"""Progress of long work: two fixed lines on a terminal, one line a minute in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from harness.core.signals import noting_stops
from harness.core.terminal import clock

_LOG_EVERY = 60.0  # seconds between lines where there is no terminal
_AVERAGED = 3600.0  # seconds that the remaining time is estimated from: a cell of a large model takes minutes


@dataclass
class Tracker:
    """Counts finished cells and, for a rate, the texts written in them. ``title``: the current work."""

    console: Console
    stage: str
    total: int
    unit: str = "cells"
    bar: Progress | None = None
    title: str = ""
    done: int = 0
    texts: int = 0
    started: float = field(default_factory=time.monotonic)
    stopped: Callable[[], bool] = lambda: False

    def add_texts(self, count: int) -> None:
        """Count texts that were written."""
        self.texts += count
        self._show()

    def advance(self, count: int = 1) -> None:
        """Count so many as finished; raises ``KeyboardInterrupt`` where a library swallowed that of a signal."""
        self.done += count
        self._show()
        if self.stopped():
            raise KeyboardInterrupt

    def finish_cell(self, title: str) -> None:
        """Count one cell as finished; see ``advance``."""
        self.title = title
        self.advance()

    def status(self, words: str) -> None:
        """Show the current work inside a cell."""
        self.title = words
        self._show()

    @property
    def rate(self) -> float:
        """Texts per second since the start."""
        return self.texts / max(time.monotonic() - self.started, 1e-9)

    def line(self) -> str:
        """Return the state as a line for a log: counts, rate, elapsed and remaining time, current work."""
        elapsed = time.monotonic() - self.started
        left = f"{clock(elapsed / self.done * (self.total - self.done))} left" if self.done else "left unknown"
        speed = [f"{self.rate:.1f} texts/s"] if self.texts else []
        parts = [f"{self.stage}: {self.done}/{self.total} {self.unit}", *speed, f"{clock(elapsed)} elapsed", left]
        return f"  {', '.join(parts)}" + (f"; {self.title}" if self.title else "")

    def _show(self) -> None:
        if self.bar is not None:
            speed = f"{self.rate:.1f} texts/s" if self.texts else ""
            self.bar.update(self.bar.task_ids[0], completed=self.done, speed=speed, title=self.title)


class _TwoLines(Progress):
    """Numbers and times on one line, cut never; the current work on the other, cut where it is too long."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(f"  {task.fields['title']}", style="dim", no_wrap=True, overflow="ellipsis")


@contextmanager
def progress_bar(
    console: Console, stage: str, total: int, unit: str = "cells", announced: bool = True
) -> Iterator[Tracker]:
    """Show the progress of ``total`` cells of a stage while the block runs; a log begins with a line if announced."""
    tracker = Tracker(console, stage, total, unit)
    with noting_stops() as stops, _bar(tracker) if console.is_terminal else _log(tracker, announced):
        tracker.stopped = lambda: bool(stops)
        yield tracker


@contextmanager
def _bar(tracker: Tracker) -> Iterator[None]:
    whole = Column(no_wrap=True)
    columns: list[ProgressColumn] = [
        TextColumn(tracker.stage, table_column=whole),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[speed]}", table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TextColumn("elapsed,", table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("left", table_column=whole),
    ]
    with _TwoLines(*columns, console=tracker.console, expand=True, speed_estimate_period=_AVERAGED) as bar:
        bar.add_task(tracker.stage, total=tracker.total, speed="", title="")
        tracker.bar = bar
        yield


@contextmanager
def _log(tracker: Tracker, announced: bool) -> Iterator[None]:
    """Print the tracker's line once a minute, also while one cell or one fit takes longer."""
    if announced:
        tracker.console.print(f"{tracker.stage}: {tracker.total} {tracker.unit}", soft_wrap=True)
    over = threading.Event()

    def log() -> None:
        while not over.wait(_LOG_EVERY):
            tracker.console.print(Text(tracker.line()), soft_wrap=True)

    thread = threading.Thread(target=log, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
