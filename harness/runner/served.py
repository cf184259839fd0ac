"""A run whose texts another engine writes: fits are made first, by the own engine, which then leaves the memory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from typing_extensions import override

from harness.core.cells import Cell, steering_id
from harness.core.errors import BrokenFileError, UserError
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
    def _fit(self, name: str, cell: Cell, method: SteeringMethod) -> NoReturn:
        raise self.failed.get(name) or UserError(f"{self._path(cell)} was removed while the run went on. Run it again.")


def serve_model(stage: CellStage, cells: Sequence[Cell], claims: Claims, tracker: Tracker) -> StoredFits:
    """Make the fits that cells need, then load the model into vLLM and return both.

    Raises ``UserError`` where vLLM does not load the model, or does not steer it.
    """
    plan, failed = stage.plan, _make_fits(stage, cells, claims, tracker)
    from harness.engine.vllm.model import load_vllm

    assert plan.checkpoint is not None
    assert plan.model is not None
    tracker.status(f"loading {plan.checkpoint.name} into vLLM")
    model: Any = load_vllm(plan.checkpoint, plan.model.dtype, stage.device, stage.device_map, stage.batch_size)
    return StoredFits(plan, model, failed=failed)


def _make_fits(
    stage: CellStage, cells: Sequence[Cell], claims: Claims, tracker: Tracker
) -> dict[str, Exception | SystemExit]:
    """Make the fits that no file has yet; return the errors of those that failed, by the name of the file."""
    plan, failed = stage.plan, dict[str, Exception | SystemExit]()
    for cell in cells:
        method, name = plan.method(cell), steering_id(plan.fit_cell(cell).key)
        if not method.has_fit or name in failed or plan.run.steering_path(name).is_file():
            continue
        try:
            if method.supports(plan.context(cell)) is not None:
                continue
            stage.fitter.say, stage.fitter.exclusive = tracker.status, claims.exclusive
            stage.fitter.steering(cell, method)
        except BrokenFileError:
            raise
        except (Exception, SystemExit) as error:  # its cells record it
            failed[name] = error
    stage.release_model()
    gc.collect()  # hooks and layers refer to each other
    from harness.core.devices import free_cache

    free_cache()
    return failed
