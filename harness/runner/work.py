"""Several workers on one run: one that joins a run by its folder alone, and those that ``run --workers`` starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, ClassVar, NoReturn

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell, entry_of
from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import MachineError, UserError, require, warn
from harness.core.records import Manifest, ModelIdentity
from harness.core.store import Run
from harness.core.threads import allowed_threads
from harness.methods.contract import SteeringMethod
from harness.runner.cell_runner import CellStage
from harness.runner.claims import POLL
from harness.runner.generate import GenerationStage
from harness.runner.plan import plan_cells
from harness.runner.prepare import RunPlan, git_commit, library_versions, open_registry, open_text, with_chat
from harness.runner.progress import Tracker
from harness.runner.score import ScoringStage

LOGS = "logs"
_PATIENCE = 10.0  # seconds that a worker has to end before it is killed
_DECIDING = ("steerboard", "commit", "torch", "transformers", "numpy")
"""What decides texts; a worker needs the same versions as the run."""


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
    return RunPlan(run, corpus.suite, corpus, checkpoint, methods, cells, [], model, None, manifest.selection)


def _check_versions(manifest: Manifest, path: Path) -> None:
    """Raise ``UserError`` where other code would write the texts than the run was started with."""
    here = {**library_versions(), "commit": git_commit() or ""}
    there = {**manifest.versions, "commit": manifest.git_commit or ""}
    wrong = [name for name in _DECIDING if here.get(name) != there.get(name)]
    if wrong:
        words = (f"{name} {here.get(name) or 'none'} (the run: {there.get(name) or 'none'})" for name in wrong)
        raise UserError(
            f"this worker has {', '.join(words)}, so its texts might differ from those of {path}. Install the same, or "
            "repeat the 'steerboard run' command with what is here."
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
    """Writes texts as one worker of a run that was started elsewhere; the manifest stays as it is."""

    verb: ClassVar[str] = "work"

    @override
    def is_open(self, cell: Cell) -> bool:
        return not self.is_settled(cell)

    @override
    def check(self) -> None:
        self.read_text()
        CellStage.check(self)
        self.with_chat(self.plan.run.manifest())

    def work(self) -> int:
        """Work until every cell is settled, by this worker or another one; return how many this one wrote."""
        self.check()
        self.run()
        return len(self._own)


@dataclass
class LocalWorkers(GenerationStage):
    """Starts workers on this machine as processes of their own, and waits until every cell is settled."""

    @override
    def check(self) -> None:
        """Read all text and say what the cells take; the workers load the model."""
        if self.device_map:
            raise UserError("--device-map spreads one model over all GPUs. Leave it out, or leave out --workers.")
        found = self.preflight()
        if found.large:
            found.print(self.console)
            if self.asks:
                from harness.runner.probe import confirm_start  # loads the engine

                confirm_start(self.console)
        else:
            found.print_warnings(self.console)
        ScoringStage(self.plan, self.console).prepare(self.open_cells)

    @override
    def with_chat(self, manifest: Manifest) -> Manifest:
        from harness.engine.chat import chat_record
        from harness.engine.weights import load_tokenizer

        if self.plan.checkpoint is None or not any(cell.key.model for cell in self.open_cells):
            return manifest
        record = chat_record(load_tokenizer(self.plan.checkpoint), self.plan.suite.sampling)
        return with_chat(manifest, record, self.plan.run)

    @override
    def run_cells(self, cells: Sequence[Cell], tracker: Tracker) -> None:
        """Start the workers and count the cells that they settle.

        Raises ``MachineError`` where all workers ended before; finished cells stay.
        """
        left = {cell.id: cell for cell in cells}
        with _started(self, min(self.workers, len(cells)), list(left)) as processes:
            running = dict(enumerate(processes, 1))
            while left:
                ended = {number: process for number, process in running.items() if process.poll() is not None}
                for number, process in ended.items():
                    del running[number]
                    if process.returncode and running:
                        warn(f"{_how(self.plan.run.path, number, process.returncode)}; the others go on")
                for name, cell in list(left.items()):
                    if self.is_settled(cell):
                        del left[name]
                        tracker.add_texts(self.plan.run.n_texts(name))
                        tracker.finish_cell(f"{cell.title}; {len(running)} workers")
                if left and not running:
                    number, process = max(ended.items())
                    _give_up(self.plan.run.path, len(left), number, process.returncode)
                tracker.advance(0)
                time.sleep(max(POLL, len(left) / 2000) if left else 0)


def _give_up(run: Path, left: int, number: int, code: int) -> NoReturn:
    raise MachineError(
        f"all workers ended while {left} cells were left: {_how(run, number, code)}. Finished cells are kept; run the "
        "same command again."
    )


def _log(run: Path, number: int) -> Path:
    return run / LOGS / f"worker-{number}.log"


def _how(run: Path, number: int, code: int) -> str:
    """Return in words how a worker ended, with the last line of its log."""
    path = _log(run, number)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"worker {number} {how} ({path}: {lines[-1].removeprefix('steerboard: '):.300})"


@contextmanager
def _started(stage: LocalWorkers, number: int, ids: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start so many workers; they end with the block, also when this process is killed."""
    processes: list[subprocess.Popen[str]] = []
    threads, gpus = max(1, allowed_threads() // number), _gpus(stage.device)
    words = [str(stage.plan.run.path), "--local", "--threads", str(threads)]
    if stage.plan.checkpoint and not stage.plan.checkpoint.revision:
        words += ["--model", str(stage.plan.checkpoint.path)]
    words += ["--device", stage.device] if stage.device else []
    words += ["--batch-size", str(stage.batch_size)] if stage.batch_size else []
    safe = [] if {"", str(Path.cwd())} & {*sys.path} else ["-P"]  # where this program's code is not the one at hand
    try:
        for i in range(number):
            log = _log(stage.plan.run.path, i + 1)
            log.parent.mkdir(exist_ok=True)
            gpu = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
            with log.open("w", encoding="utf-8") as output:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, *safe, "-m", "steerboard", "work", *words],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **gpu},
                    start_new_session=True,  # Ctrl-C reaches this process alone, which ends them
                    text=True,
                )
            processes.append(process)
        orders = {"workers": number, "cells": ids, "methods": list(stage.plan.methods)}
        for process in processes:  # only now, since each takes seconds to start before it reads
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended already, and its log says why
                process.stdin.write(json.dumps(orders) + "\n")
                process.stdin.flush()
        yield processes
        _wait(processes)  # every cell is settled, so they end by themselves
    finally:
        _stop(processes)


def _wait(processes: list[subprocess.Popen[str]]) -> None:
    """Wait for the end of processes, for a while."""
    until = time.monotonic() + _PATIENCE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    """End processes that still work, so that they give their cells back."""
    for process in processes:
        with suppress(OSError):
            process.terminate()
    _wait(processes)
    for process in processes:
        process.kill()
        process.wait()
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()


def _gpus(device: str | None) -> list[str]:
    """Return the GPUs to give to workers, as CUDA_VISIBLE_DEVICES names them; none where the user chose one."""
    if device not in (None, "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",")[:count] if shown else [str(i) for i in range(count)]


def start_work(path: Path, options: WorkOptions, console: Console, local: bool = False) -> WorkStage:
    """Return one worker of a run. ``local``: ``run --workers`` started it, says on stdin what to do, and ends it.

    Raises ``UserError`` as ``join_run``.
    """
    orders = json.loads(sys.stdin.readline()) if local else {}
    if local:
        threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True, name="lifeline").start()
    plan = join_run(path, options, orders.get("methods"))
    if local:
        wanted = frozenset(orders["cells"])
        plan = replace(plan, cells=[cell for cell in plan.cells if cell.id in wanted])
    where = (options.device, options.device_map, options.batch_size)
    return WorkStage(plan, console, *where, workers=orders.get("workers", 1))


def _end_with(stream: IO[str]) -> None:
    """End this process when the one at the other end of a pipe is gone."""
    stream.read()
    os.kill(os.getpid(), signal.SIGTERM)
