"""The stage in which steered models answer tasks: every cell that has no answers yet."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell
from harness.core.interventions import Steering
from harness.core.records import CellScores, State
from harness.core.store import ANSWERS
from harness.data.suite import DATE
from harness.engine.chat import chat_use
from harness.methods.contract import SteeringMethod
from harness.runner.cell_runner import CellStage, Texts
from harness.runner.prepare import RunOptions
from harness.runner.progress import Tracker
from harness.tracks.separation import analyse, pending
from harness.tracks.understanding.planning import EvalPlan, examples
from harness.tracks.understanding.results import EvalResult, answers

_REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
_RESAMPLES = 100  # of lm-eval's standard errors, where they have no formula


@dataclass
class EvalStage(CellStage):
    """Lets the steered model answer the cells of a grid."""

    plan: EvalPlan
    _lm: Any = None
    _steering: Steering | None = None
    _results: dict[str, EvalResult] = field(default_factory=dict)

    verb: ClassVar[str] = "answer"

    @override
    def chat(self) -> dict[str, str]:
        return chat_use(self.fitter.model.tokenizer).record(DATE) if self.plan.chat else {}

    @override
    def is_done(self, cell: Cell) -> bool:
        run = self.plan.run
        scores = run.scores(cell.id) if run.finished(cell.id) else None
        return scores is not None and not run.lost(scores)

    @override
    def run_cell(self, cell: Cell, tracker: Tracker) -> None:
        super().run_cell(cell, tracker)
        if found := self._results.pop(cell.id, None):  # only now: the scores hold the digest of the written texts
            tracker.add_texts(len(found.texts))
            record = CellScores(
                cell_id=cell.id,
                generations_sha256=self.plan.run.generations_digest(cell.id),
                protocol=cell.key.text_protocol,
                parts={ANSWERS: found.part},
                scores=found.scores,
            )
            self.plan.run.write_scores(record, {ANSWERS: found.kept})

    @override
    def write(self, cell: Cell, method: SteeringMethod, steering: Steering, tracker: Tracker) -> Texts:
        name = self.plan.task_of[cell.id].name
        task, self._steering = self.plan.tasks[name], steering
        chosen = examples(task, self.plan.limit)
        with self.fitter.model.with_checkpoint_generation_config():
            results = run_lm_eval(self._model(), task, name, cell.key.seed, chosen, self.plan.chat)
        found = self._results[cell.id] = answers(task, results["results"][name], results["samples"][name])
        return found.texts, {}

    def _model(self) -> Any:
        """Return lm-eval's view of the loaded model, steered as the current cell is."""
        if self._lm is None:
            from harness.tracks.understanding.lm import SteeredLM

            model = self.fitter.model
            self._lm = SteeredLM.around(model, batch_size=self.batch_size, steering=lambda request: self._steering)
            for kind in _REQUESTS:  # the run has its own progress bar
                setattr(self._lm, kind, partial(getattr(self._lm, kind), disable_tqdm=True))
        return self._lm


def run_lm_eval(lm: Any, task: Any, name: str, seed: int, chosen: Sequence[int] | None, chat: bool) -> dict[str, Any]:
    """Return the results of lm-eval's ``evaluate`` for one task, with all draws seeded by ``seed``.

    ``chosen``: the positions of the examples that are used; None for all.
    """
    import numpy as np
    import torch
    from lm_eval.evaluator import evaluate

    random.seed(seed)
    np.random.seed(seed)  # samplers and metrics of lm-eval draw from the global generators
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


def run_grid(plan: EvalPlan, options: RunOptions, console: Console) -> dict[State, int]:
    """Fit and answer every open cell, then measure how steering changes the separation of languages.

    Returns the number of cells by state. A separation that is there already loads no model.
    """
    with plan.run.lock():
        stage = EvalStage.start(plan, options, console)
        fits = [plan.fit_cell(cell) for cell in plan.cells if plan.method(cell).has_fit]
        cells = {cell.id: cell for cell in fits if cell.key.task == fits[0].key.task}
        base = replace(plan.base, cells=list(cells.values()))
        if pending(base):
            analyse(base, stage.fitter, lambda words: console.print(f"  {words}"))
    return stage.states
