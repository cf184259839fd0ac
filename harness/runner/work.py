"""A worker of a run that was started elsewhere: it joins by the folder alone, writes texts, and scores."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell, entry_of
from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import UserError, require
from harness.core.records import OWN_ENGINE, Manifest, ModelIdentity
from harness.core.store import Run
from harness.methods.contract import SteeringMethod
from harness.runner.cell_runner import CellStage
from harness.runner.event_log import record_stages
from harness.runner.generate import GenerationStage
from harness.runner.plan import plan_cells
from harness.runner.prepare import RunPlan, git_commit, library_versions, open_registry, open_text
from harness.runner.score import ScoringStage
from harness.scoring.scorers import scorers_of

_DECIDING = ("steerboard", "commit", "torch", "transformers", "numpy", "scikit-learn", "sacrebleu", "vllm")
"""What decides texts and scores; a worker needs the same versions as the run."""


@dataclass(frozen=True)
class WorkOptions:
    """The options of ``steerboard work``: where things are on this machine, if not where the manifest says."""

    data: Path | None = None
    contrast: Path | None = None
    model: str | None = None
    plugins: list[Path] = field(default_factory=list)
    device: str | None = None
    device_map: str | None = None
    batch_size: int | None = None


def join_run(path: Path, options: WorkOptions, only: Collection[str] | None = None) -> RunPlan:
    """Return the plan of a run, from its manifest alone: every cell of its entries in all that was selected so far.

    ``only``: JSON of the identities of the methods that are needed, None for all. Raises ``UserError`` where the folder
    holds no run, and where versions, model, data or methods of this machine are not those that the run was started
    with.
    """
    require("run")
    run = Run(path)
    manifest = run.manifest().require_generation_track(path)
    _check_versions(manifest, path)
    corpus = open_text(manifest, options.data, options.contrast)
    methods = _methods(manifest, options.plugins, only)
    model = manifest.model if any(method.needs_model for method in methods.values()) else None
    checkpoint = _checkpoint(manifest, model, options.model, path) if model else None
    cells = plan_cells(corpus.suite, manifest.selection, list(methods.values()), model, corpus)
    # Cells of a method share its identity as one object, and a comparison for every cell would take long.
    keys = {(id(cell.key.method), cell.key.setting): cell.key for cell in cells}
    known = {pair for pair, key in keys.items() if entry_of(key) in manifest.entries}
    cells = [cell for cell in cells if (id(cell.key.method), cell.key.setting) in known]
    parts = scorers_of(manifest, corpus)
    return RunPlan(run, corpus.suite, corpus, checkpoint, methods, cells, parts, model, None, manifest.selection)


def _check_versions(manifest: Manifest, path: Path) -> None:
    """Raise ``UserError`` where other code would write and score the texts than the run was started with."""
    here = {**library_versions(manifest.model.engine if manifest.model else OWN_ENGINE), "commit": git_commit() or ""}
    there = {**manifest.versions, "commit": manifest.git_commit or ""}
    wrong = [name for name in _DECIDING if here.get(name) != there.get(name)]
    if wrong:
        words = (f"{name} {here.get(name) or 'none'} (the run: {there.get(name) or 'none'})" for name in wrong)
        raise UserError(
            f"this worker has {', '.join(words)}, so its texts or scores might differ from those of {path}. Install "
            "the same, or repeat the 'steerboard run' command with what is here."
        )


def _methods(manifest: Manifest, plugins: list[Path], only: Collection[str] | None) -> dict[str, SteeringMethod]:
    """Return the methods of a run's entries by the JSON of their identity."""
    registry = open_registry(plugins or [path for path in map(Path, manifest.plugins) if path.is_file()])
    found: dict[str, SteeringMethod] = {}
    for identity in (entry.method for entry in manifest.entries):
        name = identity.model_dump_json()
        if name in found or (only is not None and name not in only):
            continue
        made = [m for m in registry.configure(identity.name, identity.config) if m.identity == identity]
        if not made:
            raise UserError(
                f"the method {identity.name!r} of this machine is not version {identity.version} with the options that "
                "the run has. Use the code that the run was started with."
            )
        found[made[0].identity.model_dump_json()] = made[0]
    return found


def _checkpoint(manifest: Manifest, known: ModelIdentity, given: str | None, path: Path) -> Checkpoint:
    """Return the model of a run, with the weights that it was started with."""
    name = None if known.revision else manifest.model_path  # what the hub names is where this machine keeps it
    found = resolve_checkpoint(given or name or known.name, known.revision)
    if found.fingerprint != known.fingerprint:
        raise UserError(
            f"the model {found.path} has the fingerprint {found.fingerprint}, the run in {path} is of "
            f"{known.name} {known.fingerprint}. Give its folder with --model."
        )
    return found


@dataclass
class WorkStage(GenerationStage):
    """Writes and scores texts as one worker of a run that was started elsewhere; the manifest stays as it is.

    ``scored``: the cells to score once their texts are there, by default those of the plan.
    """

    scored: list[Cell] | None = None

    verb: ClassVar[str] = "work"

    @override
    def is_open(self, cell: Cell) -> bool:
        return not self.is_settled(cell)

    @override
    def check(self) -> None:
        self.read_text()
        CellStage.check(self)
        self.with_chat(self.plan.run.manifest())

    def work(self) -> tuple[int, int]:
        """Work until every cell is settled and scored, by this worker or others; return how many this one did of both.

        Raises ``UserError`` as ``ScoringStage.run``.
        """
        self.check()
        self.run()
        self._fitter = None  # frees the model before scorers load others
        cells = self.plan.cells if self.scored is None else self.scored
        scoring = ScoringStage(replace(self.plan, cells=cells), self.console)
        scoring.run()
        if self.scored is None:  # else the command that started this worker does so
            record_stages(self.plan.run)
        return len(self._own), scoring.count


def start_work(path: Path, options: WorkOptions, console: Console, local: bool = False) -> WorkStage:
    """Return one worker of a run. ``local``: ``run --workers`` started it, says on stdin what to do, and ends it.

    Raises ``UserError`` as ``join_run``.
    """
    orders = json.loads(sys.stdin.readline()) if local else {}
    if local:
        threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True, name="lifeline").start()
    return join_work(path, options, console, orders)


def join_work(path: Path, options: WorkOptions, console: Console, orders: Mapping[str, Any]) -> WorkStage:
    """Return one worker of a run; ``orders``: of the command that started it, none where a user did.

    Raises ``UserError`` as ``join_run``.
    """
    plan, scored = join_run(path, options, orders.get("methods")), None
    if orders:
        known = {cell.id: cell for cell in plan.cells}
        texts, scored = ([known[name] for name in orders[kind] if name in known] for kind in ("open", "cells"))
        plan = replace(plan, cells=texts)
    where = (options.device, options.device_map, options.batch_size)
    return WorkStage(plan, console, *where, workers=orders.get("workers", 1), scored=scored)


def _end_with(stream: IO[str]) -> None:
    """End this process when the one at the other end of a pipe is gone."""
    stream.read()
    os.kill(os.getpid(), signal.SIGTERM)
