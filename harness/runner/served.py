"""A run whose texts another engine writes: fits are made first, by the own engine, which then leaves the memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from typing_extensions import override

from harness.core.cells import Cell, steering_id
from harness.core.devices import free_cache
from harness.core.errors import BrokenFileError, UserError, require
from harness.core.interventions import Steering
from harness.methods.contract import SteeringMethod
from harness.runner.cell_runner import CellStage
from harness.runner.claims import Claims
from harness.runner.fit import Fitter
from harness.runner.progress import Tracker


@dataclass
class StoredFits(Fitter):
    """The fits of a run for a model whose states are not read: those that were made, and why others ``failed``."""

    failed: dict[str, Exception | SystemExit] = field(default_factory=dict)

    @override
    def __post_init__(self) -> None:
        """Nothing is read, so there is no cache of readings."""

    @override
    def steering(self, cell: Cell, method: SteeringMethod) -> tuple[str | None, Steering]:
        """As ``Fitter``; raises ``UnsupportedError`` for a steering that the engine cannot apply."""
        from harness.engine.vllm.model import check_supported

        name, steering = super().steering(cell, method)
        check_supported(steering)
        return name, steering

    @override
    def _fit(self, name: str, cell: Cell, method: SteeringMethod) -> NoReturn:
        raise self.failed.get(name) or UserError(f"{self._path(cell)} was removed while the run went on. Run it again.")


def open_served(stage: CellStage) -> StoredFits:
    """Return the fits of a run, on a model that vLLM loads when the first text is to be written.

    Raises ``UserError`` for a model or a device that vLLM does not take.
    """
    plan = stage.plan
    if plan.checkpoint is None or plan.model is None:
        raise UserError("this run has no model. Give --model.")
    require("vllm")
    from harness.engine.vllm.loading import open_model

    model: Any = open_model(plan.checkpoint, plan.model.dtype, stage.device, stage.device_map, stage.batch_size)
    return StoredFits(plan, model)


def make_fits(
    cells: Sequence[Cell], stored: Fitter, load: Callable[[], Fitter], claims: Claims, tracker: Tracker
) -> None:
    """Make the fits of cells that have no file yet, on the model that ``load`` loads and that is then let go."""
    assert isinstance(stored, StoredFits)
    plan, own = stored.plan, None
    for cell in cells:
        method, name = plan.method(cell), steering_id(plan.fit_cell(cell).key)
        if not method.has_fit or name in stored.failed or plan.run.steering_path(name).is_file():
            continue
        try:
            if method.supports(plan.context(cell)) is not None:
                continue
            own = own or load()
            own.say, own.exclusive = tracker.status, claims.exclusive
            own.steering(cell, method)
        except BrokenFileError:
            raise
        except (Exception, SystemExit) as error:  # its cells record it
            stored.failed[name] = error
    if own is not None:
        del own
        gc.collect()  # hooks and layers refer to each other
        free_cache()
