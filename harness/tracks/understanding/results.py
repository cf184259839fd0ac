"""From lm-eval's results of one cell to our records: answers, scores, and what is kept per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Real
from typing import Any

import numpy as np

from harness.core.errors import UnsupportedError
from harness.core.files import digest
from harness.core.records import Generation, PartRecord, Score
from harness.scoring.classification import macro_f1_of
from harness.scoring.metrics import REPORTED, TASK_MACRO_F1, TASK_SCORE

SIGNATURE = "lm-eval"
_FIRST = ("acc", "f1")  # preferred as the headline; after them the task's order
_LONGEST = 2000  # characters of an answer that are kept


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
    signature = f"{SIGNATURE} {version('lm_eval')}|{name}|version:{task.VERSION}|shots:{shots}"
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
    for name in [*(name for name in _FIRST if name in measured), *(n for n in measured if n not in _FIRST)]:
        values = [row.get(name) for row in rows]
        if all(isinstance(v, Real) and 0 <= float(v) <= 1 for v in values):
            return str(name)
    raise UnsupportedError(
        f"none of the task's metrics ({', '.join(measured)}) is a mean over examples of numbers from 0 to 1."
    )


def _chosen(task: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[int], list[int]] | None:
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


def _text(i: int, row: Mapping[str, Any], chosen: tuple[list[str], list[int], list[int]] | None) -> Generation:
    """Return an answer as a text: the right label, and the model's answer."""
    if chosen is not None:
        labels, gold, predicted = chosen
        return Generation(index=i, label=labels[gold[i]], text=labels[predicted[i]], finish_reason="stop")
    answer = row["filtered_resps"][0]
    text = answer if isinstance(answer, str) else ""
    return Generation(index=i, label=str(row["target"])[:_LONGEST], text=text[:_LONGEST], finish_reason="stop")
