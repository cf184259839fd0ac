"""Workers that ``run --workers`` starts on this machine as processes of their own; killed ones are started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import MachineError, UserError, warn
from harness.core.files import sweep
from harness.core.records import Manifest
from harness.core.threads import allowed_threads
from harness.runner.claims import POLL, claims_by_process
from harness.runner.event_log import LOGS
from harness.runner.generate import GenerationStage
from harness.runner.prepare import with_chat
from harness.runner.progress import Tracker
from harness.runner.score import ScoringStage, score_claim
from harness.runner.workers import Outcome

PATIENCE = 10.0  # seconds that a worker has to end before it is killed
_STARTS = 3  # that follow a kill, of one worker that finishes nothing in between


@dataclass
class _Worker:
    """One of the workers; ``kills``: how often it was killed since it last finished a cell."""

    number: int
    log: Path
    words: list[str]
    environment: dict[str, str]
    orders: str
    claims: set[str] = field(default_factory=set)
    kills: int = 0

    def start(self) -> None:
        """Start the process."""
        self.claims = set()
        with self.log.open("a" if self.kills else "w", encoding="utf-8") as output:
            self.process = subprocess.Popen(  # noqa: S603
                self.words,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends them
                text=True,
            )

    def order(self) -> None:
        """Say what to do; before the process reads, it takes seconds to start."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, and its log says why
            self.process.stdin.write(f"{self.orders}\n")
            self.process.stdin.flush()

    def note(self, claims: set[str]) -> None:
        """Note which cells it has claimed now."""
        if self.claims - claims:  # it lives, and has finished one
            self.kills = 0
        self.claims = claims

    def how(self) -> str:
        """Return in words how it ended, with the last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"worker {self.number} {how} ({self.log}: {lines[-1].removeprefix('steerboard: '):.300})"


def work_command(words: Sequence[str]) -> list[str]:
    """Return the command of a worker, to be started as a process."""
    safe = [] if {"", str(Path.cwd())} & {*sys.path} else ["-P"]  # where this program's code is not the one at hand
    return [sys.executable, *safe, "-m", "steerboard", "work", *words]


class Team:
    """The workers of a run on this machine; they end with ``close``, also when this process is killed.

    ``number``: of workers; ``words``: of their command; ``gpus``: to be given to them in turn; ``orders``: what
    ``start_work`` reads.
    """

    def __init__(
        self, run: Path, number: int, words: Sequence[str], gpus: Sequence[str], orders: Mapping[str, Any]
    ) -> None:
        command = work_command(words)
        (run / LOGS).mkdir(exist_ok=True)
        self._run, self._running = run, list[_Worker]()
        self._cells = {*orders["cells"], *map(score_claim, orders["cells"])}
        self.last: _Worker | None = None
        try:
            for i in range(number):
                gpu = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
                log = run / LOGS / f"worker-{i + 1}.log"
                self._running.append(_Worker(i + 1, log, command, {**os.environ, **gpu}, json.dumps(orders)))
                self._running[-1].start()
            for worker in self._running:
                worker.order()
        except BaseException:
            self.close()
            raise

    def look(self) -> int:
        """Return how many workers run; warn of those that ended otherwise than well, and start killed ones again."""
        claims = claims_by_process(self._run)
        for worker in [*self._running]:
            code = worker.process.poll()
            if code is None:
                worker.note(claims.get(worker.process.pid, set()) & self._cells)
                continue
            if code < 0:
                sweep(self._run)  # what it was writing
            again = code < 0 and worker.kills < _STARTS
            if again:
                warn(f"{worker.how()}; started again")
                worker.kills += 1
                _close(worker.process)
                worker.start()
                worker.order()
                continue
            self._running.remove(worker)
            self.last = worker
            if code and self._running:
                warn(f"{worker.how()}; the others go on")
        return len(self._running)

    def close(self, at_once: bool = True) -> None:
        """End the workers, so that they give their cells back; without ``at_once`` they may do so by themselves."""
        processes = [worker.process for worker in self._running]
        if not at_once:
            _wait(processes)
        for process in processes:
            with suppress(OSError):
                process.terminate()
        _wait(processes)
        for process in processes:
            process.kill()
            process.wait()
            _close(process)


@dataclass
class LocalWorkers(GenerationStage):
    """Starts workers on this machine, which write and score texts, and waits until every cell is settled."""

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
        """Start the workers and count the cells that they settle; they go on to score.

        Raises ``MachineError`` where all workers ended before; finished cells stay.
        """
        try:
            left = {cell.id: cell for cell in cells}
            while left:
                running = self.team.look()
                for name, cell in list(left.items()):
                    if self.is_settled(cell):
                        del left[name]
                        tracker.add_texts(self.plan.run.n_texts(name))
                        tracker.finish_cell(f"{cell.title}; {running} workers")
                if left and not running:
                    self._give_up(len(left))
                tracker.advance(0)
                time.sleep(max(POLL, len(left) / 2000) if left else 0)
        except BaseException:
            self.team.close()
            raise

    @override
    def score(self, scoring: type[ScoringStage]) -> int:
        """Wait while the workers score; score here what they have left. Return how many cells needed it."""
        try:
            found = _TeamScoring(self.plan, self.console, look=lambda: self.team.look()).run()
            if "team" in vars(self):
                self.team.close(at_once=False)
            return found
        finally:
            if "team" in vars(self):
                self.team.close()

    @cached_property
    def team(self) -> Team:
        """The workers, started when there is something to do."""
        orders = self.orders()
        words = [*self.words(), "--local", "--threads", str(max(1, allowed_threads() // orders["workers"]))]
        return Team(self.plan.run.path, orders["workers"], words, _gpus(self.device), orders)

    def orders(self) -> dict[str, Any]:
        """Return what workers read that this process starts."""
        cells, texts = ([cell.id for cell in cells] for cells in (self.plan.cells, self.open_cells))
        number = min(self.workers, len(cells))
        return {"workers": number, "methods": list(self.plan.methods), "cells": cells, "open": texts}

    @property
    def model(self) -> str | None:
        """Where workers find the model, None where the hub has it."""
        checkpoint = self.plan.checkpoint
        return str(checkpoint.path.absolute()) if checkpoint and not checkpoint.revision else None

    def words(self) -> list[str]:
        """Return the words of a worker's command after ``steerboard work``."""
        given = {"--model": self.model, "--device": self.device, "--batch-size": self.batch_size}
        options = [[name, str(value)] for name, value in given.items() if value]
        return [str(self.plan.run.path.absolute()), *chain.from_iterable(options)]

    def _give_up(self, left: int) -> NoReturn:
        last = self.team.last
        how = f": {last.how()}" if last else ""
        raise MachineError(
            f"all workers ended while {left} cells were left{how}. Finished cells are kept; run the same command again."
        )


@dataclass
class _TeamScoring(ScoringStage):
    """Waits for the workers of this machine to score, and scores what is left when they have ended."""

    look: Callable[[], int] = lambda: 0

    @override
    def _outcomes(self, cells: Sequence[Cell], names: Sequence[str]) -> Generator[Outcome]:
        if not self.look():
            yield from super()._outcomes(cells, names)


def _wait(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for the end of processes, for a while."""
    until = time.monotonic() + PATIENCE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


def _close(process: subprocess.Popen[str]) -> None:
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
