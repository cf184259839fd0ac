"""The stage that lets steered models answer tasks: every cell that has no answers yet."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.records import CellScores, Generation, State
from harness.core.store import ANSWERS
from harness.data.suite import DATE
from harness.engine.chat import chat_use
from harness.methods.contract import CellContext, Skip
from harness.runner.cell_runner import run_cell, say_damage
from harness.runner.fit import Fitter
from harness.runner.prepare import RunOptions, with_chat
from harness.runner.progress import Tracker, progress_bar
from harness.tracks.separation.separation import analyse, pending
from harness.tracks.understanding.planning import EvalPlan, examples, manifest_of_grid
from harness.tracks.understanding.results import EvalResult, answers
from harness.tracks.understanding.tasks import TaskLanguage

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel


_REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
_RESAMPLES = 100  # of lm-eval's own standard errors, where they have no formula


@dataclass
class EvalStage:
    """Lets the model answer the cells of a grid; it is loaded when the first cell needs it."""

    grid: EvalPlan
    console: Console
    device: str | None = None
    device_map: str | None = None
    batch_size: int = 64
    _fitter: Fitter | None = None
    _lm: Any = None
    _steering: Steering | None = None

    def run(self) -> dict[State, int]:
        """Answer every unfinished cell; return how many cells are in which state."""
        run = self.grid.base.run
        open_cells = [(cell, place) for cell, place in self.grid.cells if self.is_open(cell)]
        if open_cells:
            say_damage(run, [cell for cell, _ in open_cells])
            with progress_bar(self.console, "answer", len(open_cells)) as tracker:
                for cell, place in open_cells:
                    tracker.say(cell.title)
                    self._one(cell, place, tracker)
                    tracker.finish_cell(cell.title)
        states: dict[State, int] = {}
        for cell, _ in self.grid.cells:
            status = run.status(cell.id)
            if status:
                states[status.state] = states.get(status.state, 0) + 1
        return states

    @property
    def fitter(self) -> Fitter:
        """The fits of the run, on the loaded model."""
        if self._fitter is None:
            self._fitter = Fitter(self.grid.base, self._load(), self.batch_size)
        return self._fitter

    def is_open(self, cell: Cell) -> bool:
        """Say whether a cell has work left: not answered or scored, or skipped for what no longer holds."""
        run = self.grid.base.run
        status = run.status(cell.id)
        if status is not None and status.state == "skipped":
            try:
                return self._unsupported(cell) is None
            except Exception:  # it is tried as any open cell is, and the failure recorded there
                return True
        scores = run.scores(cell.id) if run.finished(cell.id) else None
        return scores is None or bool(run.lost(scores))

    def _unsupported(self, cell: Cell) -> Skip | None:
        suite, key = self.grid.base.suite, self.grid.fit_cell(cell).key
        task = suite.task(key.task, key.language)
        return self.grid.method(cell).supports(CellContext(suite, task, "zero-shot", key.seed, 1))

    def _one(self, cell: Cell, place: TaskLanguage, tracker: Tracker) -> None:
        run = self.grid.base.run
        found: list[EvalResult] = []

        def work() -> Skip | tuple[list[Generation], dict[str, Any]]:
            skip = self._unsupported(cell)
            if skip is not None:
                return skip
            done, extra = self._answer(cell, place, tracker)
            found.append(done)
            return done.texts, extra

        run_cell(run, cell, work)
        if found:  # the texts are written: their digest is in the scores
            tracker.add_texts(len(found[0].texts))
            record = CellScores(
                cell_id=cell.id,
                generations_sha256=run.generations_digest(cell.id),
                protocol=cell.key.text_protocol,
                parts={ANSWERS: found[0].part},
                scores=found[0].scores,
            )
            run.write_scores(record, {ANSWERS: found[0].kept})

    def _answer(self, cell: Cell, place: TaskLanguage, tracker: Tracker) -> tuple[EvalResult, dict[str, Any]]:
        """Return the answers of a cell and what its status says beyond state and times."""
        fitter, method, fitted = self.fitter, self.grid.method(cell), self.grid.fit_cell(cell)
        fitter.say = tracker.say
        name, steering = fitter.steering(fitted, method)
        task = self.grid.tasks[place.name]
        tracker.say(cell.title)
        started = time.monotonic()
        self._steering = steering
        chosen = examples(task, self.grid.limit)
        with fitter.model.searching_as_shipped():
            results = run_lm_eval(self._model(), task, place.name, cell.key.seed, chosen, self.grid.chat)
        done = answers(task, results["results"][place.name], results["samples"][place.name])
        return done, {
            "seconds": round(time.monotonic() - started, 3),
            "device": str(fitter.model.device),
            "steering": name,
            "steering_sha256": fitter.file_hash(name),
            "fit": fitter.cost(fitted, method),
        }

    def _model(self) -> Any:
        """Return lm-eval's view of the loaded model; the cell at hand decides how it is steered."""
        if self._lm is None:
            from harness.tracks.understanding.lm import SteeredLM

            lm = SteeredLM.around(
                self.fitter.model, batch_size=self.batch_size, steering=lambda request: self._steering
            )
            for kind in _REQUESTS:  # the run has a bar of its own
                setattr(lm, kind, partial(getattr(lm, kind), disable_tqdm=True))
            self._lm = lm
        return self._lm

    def _load(self) -> SteerableModel:
        from harness.core.devices import choose_device
        from harness.engine.model import load_model

        checkpoint, identity = self.grid.base.checkpoint, self.grid.base.model
        if checkpoint is None or identity is None:
            raise UserError("tasks are answered by a model. Give --model.")
        device = choose_device(self.device)
        self.console.print(f"loading {checkpoint.name} ({identity.dtype}, {device})")
        return load_model(checkpoint, identity.dtype, device, self.device_map)


def run_lm_eval(lm: Any, task: Any, name: str, seed: int, chosen: Sequence[int] | None, chat: bool) -> dict[str, Any]:
    """Return what lm-eval's own ``evaluate`` says of one task, with all that draws seeded by ``seed``.

    ``chosen``: the positions of the examples that are asked; None for all.
    """
    import numpy as np
    import torch
    from lm_eval.evaluator import evaluate

    random.seed(seed)
    np.random.seed(seed)  # samplers and metrics of lm-eval draw from the global ones
    torch.manual_seed(seed)
    task.set_fewshot_seed(seed=seed)
    found: dict[str, Any] = evaluate(
        lm=lm,
        task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
        samples=None if chosen is None else {name: list(chosen)},
        bootstrap_iters=_RESAMPLES,
        log_samples=True,
        apply_chat_template=chat,
    )
    return found


def silence_lm_eval() -> None:
    """Keep lm-eval's bars and remarks off the terminal; call it before anything of it is imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def run_grid(grid: EvalPlan, options: RunOptions, console: Console) -> dict[State, int]:
    """Fit and answer every open cell, then measure what steering does to the separation of languages.

    Returns how many cells are in which state.
    """
    run = grid.base.run
    with run.lock():
        manifest = manifest_of_grid(grid, options)
        answerer = EvalStage(grid, console, options.device, options.device_map, options.batch_size)
        if any(answerer.is_open(cell) for cell, _ in grid.cells):
            model = answerer.fitter.model  # a bad checkpoint is one error, not one in every cell
            chat = chat_use(model.tokenizer).record(DATE) if grid.chat else {}
            manifest = with_chat(manifest, chat, run)
        run.write_manifest(manifest)
        states = answerer.run()
        _separate(answerer, console)
    return states


def _separate(answerer: EvalStage, console: Console) -> None:
    """Measure the separation of languages under every method; what is there stays, and loads no model."""
    grid = answerer.grid
    fits = [grid.fit_cell(cell) for cell, _ in grid.cells if grid.method(cell).has_fit]
    cells = list({cell.id: cell for cell in fits if cell.key.task == fits[0].key.task}.values())
    prepared = replace(grid.base, cells=cells)
    if pending(prepared):
        analyse(prepared, answerer.fitter, lambda words: console.print(f"  {words}"))
