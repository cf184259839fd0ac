"""The stage in which steered models answer tasks, and what becomes of lm-eval's results: answers and scores."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import UnsupportedError
from harness.core.files import digest
from harness.core.interventions import Steering
from harness.core.records import CellScores, Generation, PartRecord, Score, State
from harness.core.store import ANSWERS
from harness.data.suite import DATE
from harness.engine.chat import chat_use
from harness.methods.contract import Skip, SteeringMethod
from harness.runner.cell_runner import CellStage, Texts, run_cell
from harness.runner.prepare import RunOptions
from harness.runner.progress import Tracker
from harness.scoring.classification import macro_f1_of
from harness.scoring.metrics import REPORTED, TASK_MACRO_F1, TASK_SCORE
from harness.tracks.separation import analyse, pending
from harness.tracks.understanding.planning import EvalPlan, examples

_REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
_FIRST = ("acc", "f1")  # preferred as the headline; after them the task's order
_LONGEST = 2000  # characters of an answer that are kept
_RESAMPLES = 100  # of lm-eval's standard errors, where they have no formula


Chosen = tuple[list[str], list[int], list[int]]
"""The labels of a task; the right and the chosen one of every example, as indices."""


@dataclass(frozen=True)
class EvalResult:
    """The result of one task: an answer per example, scores, and what is kept for resampling examples."""

    texts: list[Generation]
    scores: list[Score]
    kept: dict[str, Any]

    @property
    def part(self) -> PartRecord:
        """The recipe of the scores."""
        return PartRecord(signature=self.scores[0].signature, metrics=[score.metric for score in self.scores])


def answers(task: Any, results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> EvalResult:
    """Return the answers of a task. ``results`` and ``samples``: as lm-eval gives them for it.

    Raises ``UnsupportedError`` for a task without a metric that is a mean over examples of 0 to 1.
    """
    first = samples[0]["filter"]
    rows = sorted((row for row in samples if row["filter"] == first), key=lambda row: int(row["doc_id"]))
    name = _headline(rows)
    outcomes = [float(row[name]) for row in rows]
    chosen = _chosen(task, rows)
    reported = _reported(results)
    shots = task.get_config("num_fewshot") or 0
    signature = f"lm-eval {version('lm_eval')}|{name}|version:{task.VERSION}|shots:{shots}"
    # Equal for test sets that are translations of one another.
    ids = digest([str(row["doc"].get("id", row["doc_id"])) for row in rows], 16)
    # Whole numbers as such: lists of digits are read several times as fast.
    plain = [int(value) if value == int(value) else value for value in outcomes]
    kept: dict[str, Any] = {"examples": ids, "outcomes": plain, "measure": name}
    size = {"texts": float(len(rows))}
    detail = size | _stderr(reported.get(name, (0.0, None))[1])
    scores = [TASK_SCORE.score(float(np.mean(outcomes)), signature, detail=detail)]
    if chosen is not None:
        labels, gold, predicted = chosen
        kept |= {"labels": labels, "gold": gold, "predictions": predicted}
        value = macro_f1_of(gold, np.array(predicted), len(labels))
        scores.append(TASK_MACRO_F1.score(value, signature, detail=size))
    for key, (value, stderr) in reported.items():
        scores.append(REPORTED.for_provider(key).score(value, signature, detail=_stderr(stderr)))
    return EvalResult([_text(i, row, chosen) for i, row in enumerate(rows)], scores, kept)


def _headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric that is a number from 0 to 1 for every example: accuracy, else F1, else the first."""
    measured = list(rows[0]["metrics"])
    for name in sorted(measured, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
        if all(isinstance(value := row.get(name), Real) and 0 <= float(value) <= 1 for row in rows):
            return str(name)
    raise UnsupportedError(
        f"none of the task's metrics ({', '.join(measured)}) is a mean over examples of numbers from 0 to 1."
    )


def _chosen(task: Any, rows: Sequence[Mapping[str, Any]]) -> Chosen | None:
    """Return labels, right and chosen label of every example; None where the labels differ between examples."""
    if task.OUTPUT_TYPE != "multiple_choice" or getattr(task, "multiple_input", 0):
        return None
    listed = [[str(label) for label in task.doc_to_choice(row["doc"])] for row in rows]
    labels = listed[0]
    if len(labels) > len(rows) or any(each != labels for each in listed):
        return None
    gold = [_index(row["target"], labels) for row in rows]
    if any(index is None for index in gold):
        return None
    predicted = [int(np.argmax([float(answer[0]) for answer in row["filtered_resps"]])) for row in rows]
    return labels, [index for index in gold if index is not None], predicted


def _index(target: Any, labels: Sequence[str]) -> int | None:
    if isinstance(target, int) and not isinstance(target, bool):
        return target if 0 <= target < len(labels) else None
    return labels.index(target) if isinstance(target, str) and target in labels else None


def _reported(results: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    """Return lm-eval's own numbers: metric -> value and standard error, of the first filter of each."""

    def number(value: Any) -> float | None:
        return float(value) if isinstance(value, Real) and np.isfinite(float(value)) else None

    found: dict[str, tuple[float, float | None]] = {}
    for key, value in results.items():
        name, comma, filter_ = key.partition(",")
        known = number(value)
        if comma and not name.endswith("_stderr") and name not in found and known is not None:
            found[name] = (known, number(results.get(f"{name}_stderr,{filter_}")))
    return found


def _stderr(value: float | None) -> dict[str, float]:
    return {} if value is None else {"stderr": value}


def _text(i: int, row: Mapping[str, Any], chosen: Chosen | None) -> Generation:
    """Return an answer as a text: the right label, and the model's answer."""
    if chosen is not None:
        labels, gold, predicted = chosen
        return Generation(index=i, label=labels[gold[i]], text=labels[predicted[i]], finish_reason="stop")
    answer = row["filtered_resps"][0]
    text = answer if isinstance(answer, str) else ""
    return Generation(index=i, label=str(row["target"])[:_LONGEST], text=text[:_LONGEST], finish_reason="stop")


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
        return scores is not None and not run.lost(scores.cell_id, scores.kept)

    @override
    def run_cells(self, cells: Sequence[Cell], tracker: Tracker) -> None:
        """Run cells, one after the other."""
        for cell in cells:
            tracker.status(cell.title)
            self.run_cell(cell, tracker)
            tracker.finish_cell(cell.title)

    def run_cell(self, cell: Cell, tracker: Tracker) -> None:
        """Run one cell, whatever becomes of it."""
        method = self.plan.method(cell)

        def work() -> Skip | Texts:
            return method.supports(self.plan.context(cell)) or self.write(cell, method, tracker)

        run_cell(self.plan.run, cell, work)
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

    def write(self, cell: Cell, method: SteeringMethod, tracker: Tracker) -> Texts:
        """Fit the steering of a cell and return its answers."""
        self._steering, record = self.fit(cell, method, tracker)
        tracker.status(cell.title)
        started = time.monotonic()
        name = self.plan.task_of[cell.id].name
        task = self.plan.tasks[name]
        chosen = examples(task, self.plan.limit)
        with self.fitter.model.with_checkpoint_generation_config():
            results = run_lm_eval(self._model(), task, name, cell.key.seed, chosen, self.plan.chat)
        found = self._results[cell.id] = answers(task, results["results"][name], results["samples"][name])
        return found.texts, {"seconds": round(time.monotonic() - started, 3), **record}

    def _model(self) -> Any:
        """Return lm-eval's view of the loaded model, steered as the current cell is."""
        if self._lm is None:
            from harness.tracks.understanding.lm import SteeredLM

            model = self.fitter.model
            self._lm = SteeredLM.around(
                model, batch_size=self.batch_size or 64, steering=lambda request: self._steering
            )
            for kind in _REQUESTS:  # the run has its own progress bar
                setattr(self._lm, kind, partial(getattr(self._lm, kind), disable_tqdm=True))
        return self._lm


def run_lm_eval(lm: Any, task: Any, name: str, seed: int, chosen: Sequence[int] | None, chat: bool) -> dict[str, Any]:
    """Return the results of lm-eval's ``evaluate`` for one task, with all draws seeded by ``seed``.

    ``chosen``: the positions of the examples that are used; None for all.
    """
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
