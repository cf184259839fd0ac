"""Run cells one by one: whatever becomes of a cell is written as its status, and a failure ends nothing else."""

from __future__ import annotations

import datetime
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rich.console import Console

from harness.core.cells import Cell
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
from harness.runner.prepare import RunOptions, RunPlan, with_chat
from harness.runner.progress import Tracker, progress_bar

if TYPE_CHECKING:
    from harness.runner.fit import Fitter

Texts = tuple[list[Generation], dict[str, Any]]
"""The texts of a cell, and the fields of its status beyond state and times."""


def run_cell(run: Run, cell: Cell, work: Callable[[], Skip | Texts]) -> CellStatus:
    """Do the work of a cell and write its texts and status; return the status.

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
        reason=reason.encode("utf-8", "replace").decode(),  # a method's message may hold unpaired surrogates
        attempts=(before.attempts if before else 0) + 1,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{"seconds": round(time.monotonic() - started, 3), **extra},
    )
    run.write_cell(cell.id, status, texts)
    return status


@dataclass
class CellStage(ABC):
    """Fits and runs the open cells of a plan; loads the model when the first cell needs it."""

    plan: RunPlan
    console: Console
    device: str | None = None
    device_map: str | None = None
    batch_size: int = 64
    _fitter: Fitter | None = None

    verb: ClassVar[str] = "generate"

    @abstractmethod
    def write(self, cell: Cell, method: SteeringMethod, steering: Steering, tracker: Tracker) -> Texts:
        """Return the texts of a cell under its steering."""

    @abstractmethod
    def chat(self) -> dict[str, str]:
        """Return how the chat template of the loaded model is used."""

    @classmethod
    def start(cls, plan: RunPlan, options: RunOptions, console: Console) -> Self:
        """Load the model that open cells need, write the manifest, and run every open cell.

        Call it with the run folder locked. A bad checkpoint or a gap in the text is one error before the run is
        written down, instead of one in every cell.
        """
        stage = cls(plan, console, options.device, options.device_map, options.batch_size)
        manifest = plan.manifest(options)
        stage.check()
        plan.run.write_manifest(stage.with_chat(manifest))
        stage.run()
        return stage

    def with_chat(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the use of the chat template; as it is where no model was loaded.

        Raises ``UserError`` where the template cannot be used, or was used otherwise for earlier texts.
        """
        return manifest if self._fitter is None else with_chat(manifest, self.chat(), self.plan.run)

    def check(self) -> None:
        """Load the model if an open cell has one."""
        if any(cell.key.model for cell in self.plan.cells if self.is_open(cell)):
            _ = self.fitter

    def run(self) -> None:
        """Run every open cell."""
        run = self.plan.run
        open_cells = [cell for cell in self.plan.cells if self.is_open(cell)]
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
        with progress_bar(self.console, self.verb, len(open_cells)) as tracker:
            for cell in open_cells:
                tracker.status(cell.title)
                self.run_cell(cell, tracker)
                tracker.finish_cell(cell.title)

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

    def run_cell(self, cell: Cell, tracker: Tracker) -> None:
        """Run one cell, whatever becomes of it."""
        run_cell(self.plan.run, cell, lambda: self._work(cell, tracker))

    @property
    def fitter(self) -> Fitter:
        """The fits of the run, on the loaded model."""
        if self._fitter is None:
            from harness.core.devices import choose_device
            from harness.engine.model import load_model
            from harness.runner.fit import Fitter

            checkpoint, identity = self.plan.checkpoint, self.plan.model
            if checkpoint is None or identity is None:
                raise UserError("this run has no model. Give --model.")
            device = choose_device(self.device)
            self.console.print(f"loading {checkpoint.name} ({identity.dtype}, {device})")
            model = load_model(checkpoint, identity.dtype, device, self.device_map)
            self._fitter = Fitter(self.plan, model, self.batch_size)
        return self._fitter

    def _work(self, cell: Cell, tracker: Tracker) -> Skip | Texts:
        method = self.plan.method(cell)
        return method.supports(self.plan.context(cell)) or self.texts(cell, method, tracker)

    def texts(self, cell: Cell, method: SteeringMethod, tracker: Tracker) -> Texts:
        """Fit the steering of a cell and write its texts."""
        fitter = self.fitter
        fitter.say = tracker.status
        name, steering = fitter.steering(cell, method)
        tracker.status(cell.title)
        started = time.monotonic()
        texts, extra = self.write(cell, method, steering, tracker)
        return texts, {
            "seconds": round(time.monotonic() - started, 3),
            "device": str(fitter.model.device),
            "steering": name,
            "steering_sha256": fitter.file_hash(name),
            "fit": fitter.cost(cell, method),
            **extra,
        }
