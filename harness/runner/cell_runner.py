"""Run cells one by one: whatever becomes of a cell is written as its status, and a failure ends nothing else."""

from __future__ import annotations

import datetime
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from rich.console import Console

from harness.core.cells import Cell
from harness.core.checkpoints import require_packages
from harness.core.devices import choose_device
from harness.core.errors import (
    BrokenFileError,
    DamagedFileError,
    UnsupportedError,
    UserError,
    in_words,
    is_infrastructure,
    warn,
)
from harness.core.interventions import Steering
from harness.core.records import CellStatus, Generation, Manifest, State
from harness.core.store import Run
from harness.methods.contract import Skip, SteeringMethod
from harness.runner.claims import Claims
from harness.runner.event_log import log_event, logged_stage
from harness.runner.prepare import RunOptions, RunPlan, with_chat
from harness.runner.progress import Tracker, progress_bar

if TYPE_CHECKING:
    from harness.runner.fit import Fitter

Texts = tuple[list[Generation], dict[str, Any]]
"""The texts of a cell, and the fields of its status beyond state and times."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """Why a cell has no texts: its state, and the reason in words."""

    state: State
    reason: str


def attempt(work: Callable[[], Skip | Result]) -> Result | Failure:
    """Return the result of a part of a cell's work, or why there is none.

    Raises ``BrokenFileError`` for a file of the run itself, for which no method is at fault.
    """
    try:
        done = work()
    except BrokenFileError:
        raise
    except UnsupportedError as error:
        return Failure("skipped", in_words(error))
    except (Exception, SystemExit) as error:  # a method's failure is recorded and ends nothing else
        return Failure("infra_error" if is_infrastructure(error) else "method_error", in_words(error))
    return Failure("skipped", done.reason) if isinstance(done, Skip) else done


def write_cell(run: Run, cell: Cell, done: Texts | Failure, seconds: float) -> CellStatus:
    """Write what became of a cell and return its status; raises ``MachineError`` where that fails.

    ``seconds``: what its work took, unless the fields of its texts say so.
    """
    before = run.status(cell.id)
    failure = done if isinstance(done, Failure) else Failure("ok", "")
    texts, extra = ([], {}) if isinstance(done, Failure) else done
    status = CellStatus(
        cell=cell.key,
        state=failure.state,
        reason=failure.reason.encode("utf-8", "replace").decode(),  # it may hold unpaired surrogates
        attempts=(before.attempts if before else 0) + 1,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{"seconds": round(seconds, 3), **extra},
    )
    run.write_cell(cell.id, status, texts)
    reason = {"reason": status.reason} if status.reason else {}
    log_event(run.path, "cell", cell=cell.id, state=status.state, seconds=status.seconds, **reason)
    return status


def run_cell(run: Run, cell: Cell, work: Callable[[], Skip | Texts]) -> CellStatus:
    """Do the work of a cell and write its texts and status; return the status."""
    started = time.monotonic()
    done = attempt(work)
    return write_cell(run, cell, done, time.monotonic() - started)


@dataclass
class CellStage(ABC):
    """Fits and runs the open cells of a plan; loads the model when the first cell needs it.

    ``asks``: whether somebody at a terminal is asked before long work. ``workers``: how many processes of this
    machine work on the run. ``count``: how many cells were run.
    """

    plan: RunPlan
    console: Console
    device: str | None = None
    device_map: str | None = None
    batch_size: int | None = None
    asks: bool = False
    workers: int = 1
    count: int = 0
    _fitter: Fitter | None = None

    verb: ClassVar[str] = "generate"

    @abstractmethod
    def run_cells(self, cells: Sequence[Cell], tracker: Tracker) -> None:
        """Run open cells and write what becomes of each, whatever it is."""

    @abstractmethod
    def chat(self) -> dict[str, str]:
        """Return how the chat template of the loaded model is used."""

    @classmethod
    def start(cls, plan: RunPlan, options: RunOptions, console: Console) -> Self:
        """Load the model that open cells need, write the manifest, and run every open cell; see ``begin``."""
        stage = cls.begin(plan, options, console)
        stage.run()
        return stage

    @classmethod
    def begin(cls, plan: RunPlan, options: RunOptions, console: Console) -> Self:
        """Load the model that open cells need and write the manifest.

        Call it with the run folder locked. A bad checkpoint or a gap in the text is one error before the run is
        written down, instead of one in every cell.
        """
        workers = options.workers or 1
        stage = cls(plan, console, options.device, options.device_map, options.batch_size, not options.yes, workers)
        plan.manifest(options)  # refuses a folder that holds another run
        if plan.checkpoint and any(cell.key.model for cell in stage.open_cells):
            require_packages(plan.checkpoint, options.device_map)
        stage.check()
        with Claims(plan.run.path) as claims, claims.exclusive("manifest"):  # others may have added to it since
            plan.run.write_manifest(stage.with_chat(plan.manifest(options)))
            plan.run.date_start(cell.id for cell in stage.open_cells)
        return stage

    def with_chat(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the use of the chat template; as it is where no model was loaded.

        Raises ``UserError`` where the template cannot be used, or was used otherwise for earlier texts.
        """
        return manifest if self._fitter is None else with_chat(manifest, self.chat(), self.plan.run)

    def check(self) -> None:
        """Load the model if an open cell has one."""
        if any(cell.key.model for cell in self.open_cells):
            _ = self.fitter

    def run(self) -> None:
        """Run every open cell."""
        run, open_cells = self.plan.run, self.open_cells
        self.count = len(open_cells)
        if not open_cells:
            return
        damaged = []
        for cell in open_cells:
            try:
                run.has_texts(cell.id)
            except DamagedFileError as error:
                damaged.append(str(error))
        if damaged:
            more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
            warn(f"{', '.join(damaged[:3])}{more}; written again")
        with (
            logged_stage(run.path, self.verb, len(open_cells)),
            progress_bar(self.console, self.verb, len(open_cells)) as tracker,
        ):
            self.run_cells(open_cells, tracker)

    @cached_property
    def open_cells(self) -> list[Cell]:
        """The cells that have work left when the stage begins."""
        return [cell for cell in self.plan.cells if self.is_open(cell)]

    @property
    def states(self) -> dict[State, int]:
        """Number of cells of the plan by state."""
        found = (self.plan.run.status(cell.id) for cell in self.plan.cells)
        return dict(Counter(status.state for status in found if status))

    def is_open(self, cell: Cell) -> bool:
        """Say whether a cell has work left: it is not done, or was skipped for a reason that no longer holds."""
        status = self.plan.run.status(cell.id)
        if status is not None and status.state == "skipped":
            try:
                return self.plan.method(cell).supports(self.plan.context(cell)) is None
            except Exception:  # it is run as any open cell is, and the failure recorded there
                return True
        return not self.is_done(cell)

    def is_done(self, cell: Cell) -> bool:
        """Say whether a cell has everything that this stage writes."""
        return self.plan.run.finished(cell.id)

    @property
    def fitter(self) -> Fitter:
        """The fits of the run, on the loaded model."""
        if self._fitter is None:
            self._fitter = self.open_fitter()
        return self._fitter

    def open_fitter(self) -> Fitter:
        """Load the model."""
        from harness.engine.architectures import check_model
        from harness.engine.model import load_model
        from harness.runner.fit import Fitter

        checkpoint, identity = self.plan.checkpoint, self.plan.model
        if checkpoint is None or identity is None:
            raise UserError("this run has no model. Give --model.")
        device = choose_device(self.device)
        self.console.print(f"loading {checkpoint.name} ({identity.dtype}, {device})")
        model = load_model(checkpoint, identity.dtype, device, self.device_map)
        check_model(model, checkpoint.name)
        return Fitter(self.plan, model, self.batch_size or 64)

    def fit(self, cell: Cell, method: SteeringMethod, tracker: Tracker) -> tuple[Steering, dict[str, Any]]:
        """Return the steering of a cell, fitted where it is not yet, and the fields of its status about it."""
        fitter = self.fitter
        fitter.say = tracker.status
        name, steering = fitter.steering(cell, method)
        return steering, {
            "device": str(fitter.model.device),
            "steering": name,
            "steering_sha256": fitter.file_hash(name),
            "fit": fitter.cost(cell, method),
        }
