"""From what lm-eval says of one cell to our records: scores, and what is kept per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from harness.core.errors import UnsupportedError
from harness.core.files import digest
from harness.core.records import Generation, PartRecord, Score
from harness.scoring.calibration import macro_f1_of
from harness.scoring.metrics import REPORTED, TASK_MACRO_F1, TASK_SCORE

SIGNATURE = "lm-eval"
_FIRST = ("acc", "f1")  # what is looked at first; after them the task's own order
_LONGEST = 2000  # characters of an answer that are kept


@dataclass(frozen=True)
class EvalResult:
    """What came of one task: an answer per example, scores, and what is kept for resampling examples."""

    texts: list[Generation]
    scores: list[Score]
    kept: dict[str, Any]

    @property
    def part(self) -> PartRecord:
        """How the scores were made."""
        return PartRecord(signature=self.scores[0].signature, metrics=[score.metric for score in self.scores])


def answers(task: Any, results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> EvalResult:
    """Return the answers of a task. ``results`` and ``samples``: as lm-eval gives them for it.

    Raises ``UnsupportedError`` for a task without a metric that is a mean over examples of 0 to 1.
    """
    rows = _of_one_filter(samples)
    name = _headline(results, rows)
    outcomes = [float(row[name]) for row in rows]
    chosen = _chosen(task, rows)
    reported = _reported(results)
    signature = _signature(task, name)
    kept: dict[str, Any] = {"examples": _examples(task, rows), "outcomes": _plain(outcomes), "measure": name}
    stderr = reported.get(name, (0.0, None))[1]
    scores = [
        TASK_SCORE.score(
            float(np.mean(outcomes)),
            signature,
            detail={"texts": len(rows), **({} if stderr is None else {"stderr": stderr})},
        )
    ]
    if chosen is not None:
        labels, gold, predicted = chosen
        kept |= {"labels": labels, "gold": gold, "predictions": predicted}
        value = macro_f1_of(gold, np.array(predicted), len(labels))
        scores.append(TASK_MACRO_F1.score(value, signature, detail={"texts": len(rows)}))
    scores += [_as_reported(key, *numbers, signature) for key, numbers in reported.items()]
    texts = [_text(i, row, chosen) for i, row in enumerate(rows)]
    return EvalResult(texts, scores, kept)


def _of_one_filter(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the samples of the first filter, in the order of the examples."""
    first = samples[0]["filter"]
    return sorted((row for row in samples if row["filter"] == first), key=lambda row: int(row["doc_id"]))


def _headline(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric that is a number from 0 to 1 for every example: accuracy, else F1, else the first."""
    measured = list(rows[0]["metrics"])
    ordered = [*(name for name in _FIRST if name in measured), *(n for n in measured if n not in _FIRST)]
    for name in ordered:
        values = [row.get(name) for row in rows]
        if all(isinstance(v, Real) and 0 <= float(v) <= 1 for v in values):
            return str(name)
    raise UnsupportedError(
        f"of the task's metrics ({', '.join(measured)}) none is a mean over examples of numbers from 0 to 1."
    )


def _chosen(task: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[int], list[int]] | None:
    """Return labels, right and chosen label of every example; None where they differ between examples."""
    if task.OUTPUT_TYPE != "multiple_choice" or getattr(task, "multiple_input", 0):
        return None
    listed = [list(task.doc_to_choice(row["doc"])) for row in rows]
    labels = [str(label) for label in listed[0]]
    if len(labels) > len(rows) or any([str(label) for label in each] != labels for each in listed):
        return None
    gold = [_index(row["target"], labels) for row in rows]
    if any(place is None for place in gold):
        return None
    predicted = [int(np.argmax([float(answer[0]) for answer in row["filtered_resps"]])) for row in rows]
    return labels, [place for place in gold if place is not None], predicted


def _index(target: Any, labels: Sequence[str]) -> int | None:
    if isinstance(target, int) and not isinstance(target, bool):
        return target if 0 <= target < len(labels) else None
    return labels.index(target) if isinstance(target, str) and target in labels else None


def _reported(results: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    """Return what lm-eval itself says: metric -> value and standard error, of the first filter of each."""
    found: dict[str, tuple[float, float | None]] = {}
    for key, value in results.items():
        name, comma, filter_ = key.partition(",")
        number = _number(value)
        if not comma or name.endswith("_stderr") or name in found or number is None:
            continue
        found[name] = (number, _number(results.get(f"{name}_stderr,{filter_}")))
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, Real) and np.isfinite(float(value)) else None


def _as_reported(name: str, value: float, stderr: float | None, signature: str) -> Score:
    detail = {} if stderr is None else {"stderr": stderr}
    return REPORTED.for_provider(name).score(value, signature, detail=detail)


def _signature(task: Any, name: str) -> str:
    from importlib.metadata import version

    shots = task.get_config("num_fewshot") or 0
    return f"{SIGNATURE} {version('lm_eval')}|{name}|version:{task.VERSION}|shots:{shots}"


def _examples(task: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of the examples' names: equal for test sets that are translations of one another."""
    names = [str(row["doc"].get("id", row["doc_id"])) for row in rows]
    return digest(names, 16)


def _plain(outcomes: Sequence[float]) -> list[float]:
    """Return outcomes with whole numbers as such: lists of digits are read several times as fast."""
    return [int(value) if value == int(value) else value for value in outcomes]


def _text(i: int, row: Mapping[str, Any], chosen: tuple[list[str], list[int], list[int]] | None) -> Generation:
    """Return an answer as a text: the label it was to have, and what the model answered."""
    if chosen is not None:
        labels, gold, predicted = chosen
        return Generation(index=i, label=labels[gold[i]], text=labels[predicted[i]], finish_reason="stop")
    answer = row["filtered_resps"][0]
    text = answer if isinstance(answer, str) else ""
    return Generation(index=i, label=str(row["target"])[:_LONGEST], text=text[:_LONGEST], finish_reason="stop")
