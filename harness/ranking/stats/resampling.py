"""Scores of stored predictions under resampled test examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.core.store import ANSWERS, CLASSIFIER, CURVE
from harness.scoring.metrics import (
    ACCURACY,
    CURVE_F1,
    CURVE_MIXED_F1,
    MACRO_F1,
    TASK_MACRO_F1,
    TASK_SCORE,
    Metric,
    curve_classifier,
)
from harness.scoring.subsampling import generator

Indices = NDArray[np.int64] | NDArray[np.uint8]
Draws = NDArray[np.float32]
Measure = Literal["macro_f1", "accuracy", "mean"]
_MEASURES: dict[str, Measure] = {
    MACRO_F1.name: "macro_f1",
    ACCURACY.name: "accuracy",
    CURVE_F1.name: "macro_f1",
    CURVE_MIXED_F1.name: "macro_f1",
    TASK_MACRO_F1.name: "macro_f1",
    TASK_SCORE.name: "mean",
}

_BATCH = 2**18  # predictions at once: what they are counted into stays in the cache
_EXAMPLES, _LABELS = 20_000, 1000  # beyond, no test set of a suite is resampled


@dataclass(frozen=True)
class Predictions:
    """The predictions of one cell by one classifier: ``predictions`` is (classifier seed, example).

    Of tasks that the model answers itself one row, for the measure ``mean`` of outcomes from 0 to 1.
    ``examples``: digest of the test examples; equal ones hold the same examples in the same order.
    """

    examples: str
    labels: list[str]
    gold: Indices
    predictions: Indices | NDArray[np.float64]

    def same_test(self, other: Predictions) -> bool:
        """Return whether both were tested on the same examples with the same labels."""
        return (self.examples, self.labels) == (other.examples, other.labels) and np.array_equal(self.gold, other.gold)


def measure_of(metric: Metric) -> Measure | None:
    """Return how the metric follows from predictions, None where it does not."""
    return _MEASURES.get(metric.name.partition("/")[0].partition(".")[0])


def load_predictions(
    metric: Metric, kept: dict[str, Any], of: Literal["predictions", "human"] = "predictions"
) -> Predictions | None:
    """Return the predictions behind a metric from those stored with a cell; None without valid ones.

    A classifier that was trained on valid text alone has its own predictions only where that is another text.
    ``of``: for a point of a curve, whether the cell's texts were trained on or the human ones beside them.
    """
    try:
        if metric.name == TASK_SCORE.name:
            return _outcomes(kept[ANSWERS])
        if metric.group == "understanding":
            part = kept[ANSWERS]
            rows = [part["predictions"]]
        elif metric.group == "curve":
            part = kept[f"{CURVE}{curve_classifier(metric.name)}"]
            by_seed = part[of][metric.name]
            rows = [by_seed[seed] for seed in sorted(by_seed)]
        else:
            base, _, provider = metric.name.partition("/")
            part = kept[f"{CLASSIFIER}{provider}"]
            own = f"{MACRO_F1.name}{base.removeprefix(ACCURACY.name).removeprefix(MACRO_F1.name)}/{provider}"
            found = part["predictions"]
            by_seed = found[own if own in found else f"{MACRO_F1.name}/{provider}"]
            rows = [by_seed[seed] for seed in sorted(by_seed)]
        labels, gold = [str(label) for label in part["labels"]], _indices(part["gold"])
        record = Predictions(str(part["examples"]), labels, gold, np.array([_indices(row) for row in rows]))
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        return None
    return record if _is_valid(record) else None


def _outcomes(part: dict[str, Any]) -> Predictions | None:
    outcomes = np.array(part["outcomes"], dtype=np.float64)[None]
    n = outcomes.shape[1]
    fine = 2 <= n <= _EXAMPLES and outcomes.ndim == 2 and 0 <= outcomes.min() <= outcomes.max() <= 1
    return Predictions(str(part["examples"]), [], np.zeros(n, dtype=np.int64), outcomes) if fine else None


def _indices(values: Any) -> Indices:
    """Return label indices as an array, as they were read where they are one."""
    return values if isinstance(values, np.ndarray) else np.array(values, dtype=np.int64)


def _is_valid(kept: Predictions) -> bool:
    """Return whether gold labels and predictions are labels of as many examples, one per label."""
    if kept.gold.ndim != 1 or kept.predictions.ndim != 2 or kept.predictions.shape[1] != len(kept.gold):
        return False
    n, count = len(kept.gold), len(kept.labels)
    if not 2 <= n <= _EXAMPLES or count > min(_LABELS, n):
        return False
    both = (kept.gold, kept.predictions)
    return len(kept.predictions) > 0 and all(part.min() >= 0 and part.max() < count for part in both)


def draw_weights(examples: str, n: int, count: int) -> Draws:
    """Return how often each of ``n`` test examples is in each of ``count`` resamples: (count, n).

    ``examples``: the digest of the example set. The same resamples for all entries, classifiers and runs,
    and for test sets that are translations of one another, so that differences stay paired.
    """
    draw = generator("test examples", examples, n, count)
    return draw.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float32)


def inflate_variance(draws: Draws, n: int, labels: int = 1) -> Draws:
    """Return bootstrap values (..., resamples) with their variance multiplied by n / (n - labels).

    A bootstrap of ``n`` examples estimates the variance of a mean as (n - 1) / n of what it is. Macro-F1
    over ``labels`` labels is a mean of as many ratios, each about its own centre, and loses as many degrees
    of freedom: with 30 examples of 7 labels the plain bootstrap finds three quarters of the variance.
    """
    centre = draws.mean(axis=-1, keepdims=True, dtype=np.float64)
    factor = (n / max(n - labels, 1)) ** 0.5
    return np.asarray(centre + (draws - centre) * factor, dtype=np.float32)


def bootstrap_scores(measure: Measure, cells: Sequence[Predictions], weights: Draws) -> Draws:
    """Return the measure of every cell, mean over its classifier seeds, under every draw: (cell, draw).

    ``cells``: tested on the same examples. ``weights`` (draw, example): how often a draw holds an example.
    Macro-F1 is over the fixed list of labels, a label that neither occurs nor is predicted counting as 0.
    """
    gold, size = cells[0].gold, len(cells[0].labels)
    every = np.concatenate([cell.predictions for cell in cells])
    step = max(1, _BATCH // len(gold))
    parts = [_score(measure, gold, every[i : i + step], size, weights) for i in range(0, len(every), step)]
    counts = np.array([len(cell.predictions) for cell in cells])
    sums = np.add.reduceat(np.concatenate(parts), np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
    return np.asarray(sums / counts[:, None], dtype=np.float32)


def _score(measure: Measure, gold: Indices, rows: Any, size: int, weights: Draws) -> Draws:
    """Return a measure of every row (of predictions or outcomes) under every draw."""
    if measure == "macro_f1":
        return _macro_f1(gold, rows, size, weights)
    # outcomes are fractions, whose sum single precision does not hold
    sums = _count(rows == gold, weights) if measure == "accuracy" else rows @ weights.T.astype(np.float64)
    return np.asarray(sums / weights.sum(axis=1), dtype=np.float32)


def _macro_f1(gold: Indices, predicted: Indices, size: int, weights: Draws) -> Draws:
    """Return macro-F1 of every row of predictions under every draw.

    Counts are whole numbers, which single precision holds: it does not matter how they are added up. So the
    last label's predictions are the rest, and hits are looked for among a label's own examples alone.
    """
    shape = (len(predicted), len(weights))
    left = np.broadcast_to(weights.sum(axis=1), shape)  # predictions that are of none of the labels so far
    total = np.zeros(shape, np.float32)
    for label in range(size):
        own = gold == label
        last = label == size - 1
        found = left if last else _count(predicted == label, weights)
        left = left if last else left - found
        hits = _count(predicted[:, own] == label, weights[:, own])
        both = found + weights[:, own].sum(axis=1)
        hits *= 2
        total += np.divide(hits, both, out=hits, where=both > 0)  # without examples and predictions there are no hits
    total /= np.float32(size)
    return total


def _count(which: NDArray[np.bool_], weights: Draws) -> Draws:
    """Return how many examples of every row are marked under every draw: (row, draw)."""
    return np.asarray(which.astype(np.float32) @ weights.T)
