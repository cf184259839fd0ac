"""One try at a cell: whatever comes of it ends as a status, and a failure ends nothing else."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable
from typing import Any

from harness.core.cells import Cell
from harness.core.errors import BrokenFileError, UnsupportedError, in_words, is_infrastructure, warn
from harness.core.records import CellStatus, Generation, State
from harness.core.store import Run
from harness.methods.contract import Skip

Work = Callable[[], Skip | tuple[list[Generation], dict[str, Any]]]
"""Does a cell: its texts and what its status says beyond state and times, or why it is not done."""


def say_damage(run: Run, cells: Iterable[Cell]) -> None:
    """Say in one line which cells are written again because their texts are not what was written."""
    found = [words for cell in cells if (words := run.damage(cell.id))]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        warn(f"{', '.join(found[:3])}{more}; written again")


def run_cell(run: Run, cell: Cell, work: Work) -> CellStatus:
    """Do a cell and write its texts and status; return the status.

    Raises ``BrokenFileError`` for a file of the run itself, for which no method is at fault, and
    ``MachineError`` where texts or status cannot be written.
    """
    before = run.status(cell.id)
    started = time.monotonic()
    texts: list[Generation] = []
    extra: dict[str, Any] = {}
    state: State = "ok"
    reason = ""
    try:
        done = work()
        if isinstance(done, Skip):
            state, reason = "skipped", done.reason
        else:
            texts, extra = done
    except BrokenFileError:
        raise
    except UnsupportedError as error:
        state, reason = "skipped", in_words(error)
    except (Exception, SystemExit) as error:  # a method's failure is recorded and ends nothing else
        state = "infra_error" if is_infrastructure(error) else "method_error"
        reason = in_words(error)
    status = CellStatus(
        cell=cell.key,
        state=state,
        reason=reason.encode("utf-8", "replace").decode(),  # a method may say anything, half characters too
        attempts=(before.attempts if before else 0) + 1,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{"seconds": round(time.monotonic() - started, 3), **extra},
    )
    run.write_cell(cell.id, status, texts)
    return status
