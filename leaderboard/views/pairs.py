"""All pairs of entries in the rows of a table: differences, intervals, p-values corrected over the table."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.types import FloatArray
from harness.ranking.slices import SliceRanking
from harness.ranking.stats.estimates import Estimate, to_square
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.variance import Contrasts, means, moments
from harness.ranking.values import collect_metric
from harness.scoring.metrics import Metric
from leaderboard.boards import Board

LEVEL = 0.05

UNKNOWN = 65_535
"""Half widths are handed to the page in two bytes: steps of the row's unit, rounded up, or this."""

UNKNOWN_P = 255
"""P-values are handed to the page in one byte (``rounded``), or this."""


@dataclass(frozen=True)
class PairRow:
    """One row of a table, for all pairs of ``names``: a metric, or the headline in a task or language.

    ``mean`` (n) NaN where an entry lacks something; ``half`` and ``p`` (n, n), NaN where there is none.
    ``p`` is of each pair by itself.
    """

    title: str
    metric: Metric
    mean: FloatArray
    half: FloatArray
    p: FloatArray

    def estimate(self, i: int, j: int) -> Estimate | None:
        """Return the difference of two entries with its own 95 % interval; None where one lacks something."""
        mean, half = float(self.mean[i] - self.mean[j]), float(self.half[i, j])
        if np.isnan(mean):
            return None
        return Estimate(mean) if np.isnan(half) else Estimate(mean, low=mean - half, high=mean + half)


def of_field(field: SliceRanking, metric: Metric, title: str, names: Sequence[str]) -> PairRow:
    """Return the row of a scope of the headline."""
    return _row(title, metric, names, field.entries, field.mean, field.ci_half_width, field.pair_p)


def of_metric(board: Board, metric: Metric, title: str, names: Sequence[str]) -> PairRow:
    """Return the row of a metric over all tasks, languages and seeds."""
    evidence = collect_metric(board.cellset, metric)
    entries = sorted(evidence.complete)
    rows = np.array([evidence.position[name] for name in entries], dtype=np.int64)
    found, count = moments(evidence.strata, evidence.examples, Contrasts.pairs(rows)), len(rows)
    mean = means(evidence.strata, Contrasts.means(rows))
    half, p = to_square(found.ci_half_width, count, 0.0), to_square(found.p, count, 1.0)
    return _row(title, metric, names, entries, mean, half, p)


def _row(
    title: str,
    metric: Metric,
    names: Sequence[str],
    entries: Sequence[str],
    mean: FloatArray,
    half: FloatArray,
    p: FloatArray,
) -> PairRow:
    """Return a row in the order of ``names`` from arrays in that of ``entries``."""
    place = {name: i for i, name in enumerate(entries)}
    index = np.array([place.get(name, -1) for name in names])
    there = np.flatnonzero(index >= 0)
    own = np.full(len(names), np.nan)
    own[there] = mean[index[there]]
    squares = [np.full((len(names), len(names)), np.nan) for _ in range(2)]
    for square, source in zip(squares, (half, p), strict=True):
        square[np.ix_(there, there)] = source[np.ix_(index[there], index[there])]
    return PairRow(title, metric, own, *squares)


@dataclass(frozen=True)
class PairTable:
    """Rows with p-values corrected over all of them and all pairs; ``comparisons``: how many tests these are.

    ``p`` (rows, pairs) in the order of ``numpy.triu_indices``, adjusted by Holm and rounded up (``rounded``).
    """

    rows: list[PairRow]
    p: FloatArray
    comparisons: int

    def adjusted(self, row: int, i: int, j: int) -> float | None:
        """Return the p of two entries in a row, None where there is none; 1 for an entry and itself."""
        if i == j:
            return 1.0
        a, b, n = min(i, j), max(i, j), len(self.rows[row].mean)
        p = float(self.p[row, a * n - a * (a + 1) // 2 + b - a - 1])
        return None if np.isnan(p) else p


def pair_table(rows: Sequence[PairRow]) -> PairTable:
    """Correct the p-values of all rows and pairs as one family (Holm 1979)."""
    if not rows:
        return PairTable([], np.empty((0, 0)), 0)
    upper = np.triu_indices(len(rows[0].mean), 1)
    raw = np.array([row.p[upper] for row in rows])
    return PairTable(list(rows), _decoded(_encoded(holm(raw))), int((~np.isnan(raw)).sum()))


def packed(table: PairTable) -> list[dict[str, object]]:
    """Return the rows for the script: means, null where unknown; half widths and p of pairs a < b, packed."""
    return [_packed(row, p) for row, p in zip(table.rows, table.p, strict=True)]


def _packed(row: PairRow, p: FloatArray) -> dict[str, object]:
    half = row.half[np.triu_indices(len(row.mean), 1)]
    known = ~np.isnan(half)
    unit = float(half[known].max(initial=0.0)) / (UNKNOWN - 1) or 1.0
    steps = np.full(len(half), UNKNOWN)
    steps[known] = np.minimum(np.ceil(half[known] / unit), UNKNOWN - 1)
    return {
        "means": [None if np.isnan(mean) else round(float(mean), 9) for mean in row.mean],
        "unit": unit,
        "half": base64.b64encode(steps.astype("<u2").tobytes()).decode(),
        "p": base64.b64encode(_encoded(p).astype("u1").tobytes()).decode(),
    }


def _encoded(p: FloatArray) -> FloatArray:
    """Return p-values in steps, rounded up: thousandths up to 0.1, then hundredths."""
    fine = np.ceil(np.round(p * 1000, 6))
    coarse = 100 + np.ceil(np.round((p - 0.1) * 100, 6))
    return np.where(np.isnan(p), UNKNOWN_P, np.where(p <= 0.1, np.maximum(fine, 1), coarse))


def _decoded(steps: FloatArray) -> FloatArray:
    p = np.where(steps <= 100, steps / 1000, (steps - 90) / 100)
    return np.where(steps == UNKNOWN_P, np.nan, p)
