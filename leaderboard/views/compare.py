"""Two entries head to head: paired differences of all pairs by metric and by slice, for the page and its script."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.core.languages import language
from harness.core.records import Direction
from harness.core.types import FloatArray
from harness.core.workers import map_forked
from harness.ranking.slices import Slice, SliceRanking
from harness.ranking.stats.estimates import Estimate, to_square
from harness.ranking.stats.multiplicity import holm
from harness.ranking.stats.variance import Contrasts, means, moments
from harness.ranking.summary import digits_of, format_interval, format_number, p_value
from harness.ranking.values import collect_metric
from harness.scoring.metrics import Metric
from leaderboard.boards import Board
from leaderboard.charts import IntervalBar, Scale, interval_axis, interval_bar
from leaderboard.text import name_of
from leaderboard.views.tables import metric_file

LEVEL = 0.05
UNDECIDED = "inconclusive"

_MANY = 50  # entries whose pairs are tested in several processes

UNKNOWN = 65_535
"""Half widths are encoded in two bytes: steps of the row's unit, rounded up, or this."""

UNKNOWN_P = 255
"""P-values are encoded in one byte, or this."""


class PairRow(NamedTuple):
    """All pairs of entries in one metric, or in the headline in a task or language.

    ``mean`` (n) NaN where an entry has missing values; ``half`` (half widths of 95 % intervals) and ``p`` (of each
    pair by itself) (n, n), NaN where there is none.
    """

    title: str
    metric: Metric
    mean: FloatArray
    half: FloatArray
    p: FloatArray

    def estimate(self, i: int, j: int) -> Estimate | None:
        """Return the difference of two entries with its own 95 % interval; None where a value is missing."""
        mean, half = float(self.mean[i] - self.mean[j]), float(self.half[i, j])
        if np.isnan(mean):
            return None
        return Estimate(mean) if np.isnan(half) else Estimate(mean, low=mean - half, high=mean + half)


def pairs_in_slice(ranking: SliceRanking, metric: Metric, title: str, names: Sequence[str]) -> PairRow:
    """Return all pairs of ``names`` in a slice of the headline."""
    arrays = _reorder(names, ranking.entries, ranking.mean, ranking.ci_half_width, ranking.pair_p)
    return PairRow(title, metric, *arrays)


def pairs_in_metric(board: Board, metric: Metric, names: Sequence[str]) -> PairRow:
    """Return all pairs of ``names`` in a metric over all tasks, languages and seeds."""
    evidence = collect_metric(board.result_set, metric)
    entries = sorted(evidence.complete)
    rows = np.array([evidence.position[name] for name in entries], dtype=np.int64)
    found, n = moments(evidence.strata, evidence.examples, Contrasts.pairs(rows)), len(rows)
    mean = means(evidence.strata, Contrasts.means(rows))
    arrays = _reorder(names, entries, mean, to_square(found.ci_half_width, n, 0.0), to_square(found.p, n, 1.0))
    return PairRow(metric.title, metric, *arrays)


def _reorder(names: Sequence[str], entries: Sequence[str], mean: FloatArray, *pairs: FloatArray) -> list[FloatArray]:
    """Return means (n) and arrays of pairs (n, n) over ``entries`` in the order of ``names``; NaN for others."""
    squares = (pd.DataFrame(array, entries, entries).reindex(index=names, columns=names) for array in pairs)
    return [array.to_numpy() for array in (pd.Series(mean, entries).reindex(names), *squares)]


@dataclass(frozen=True)
class PairTable:
    """Rows with p-values corrected over all of them and all pairs (Holm 1979); ``comparisons``: number of tests.

    ``p`` (rows, pairs) in the order of ``numpy.triu_indices``, rounded up as the page gets them.
    """

    rows: list[PairRow]
    p: FloatArray
    comparisons: int

    def adjusted(self, row: int, i: int, j: int) -> float | None:
        """Return the p of two entries in a row, None where there is none; 1 for an entry and itself."""
        p = float(to_square(self.p[row], len(self.rows[row].mean), 1.0)[i, j])
        return None if np.isnan(p) else p

    def encoded(self) -> list[dict[str, Any]]:
        """Return the rows for the script: means, null where unknown; half widths and p of pairs a < b in base64."""
        found = []
        for row, p in zip(self.rows, self.p, strict=True):
            half = row.half[np.triu_indices(len(row.mean), 1)]
            known = ~np.isnan(half)
            unit = float(half[known].max(initial=0.0)) / (UNKNOWN - 1) or 1.0
            steps = np.full(len(half), UNKNOWN)
            steps[known] = np.minimum(np.ceil(half[known] / unit), UNKNOWN - 1)
            found.append(
                {
                    "means": [None if np.isnan(mean) else round(float(mean), 9) for mean in row.mean],
                    "unit": unit,
                    "half": base64.b64encode(steps.astype("<u2").tobytes()).decode(),
                    "p": base64.b64encode(_steps(p).astype("u1").tobytes()).decode(),
                    "way": row.metric.direction,
                    "digits": digits_of(row.metric.name),
                }
            )
        return found


def pair_table(rows: Sequence[PairRow]) -> PairTable:
    """Return a table of rows, which is one family of tests."""
    if not rows:
        return PairTable([], np.empty((0, 0)), 0)
    upper = np.triu_indices(len(rows[0].mean), 1)
    raw = np.array([row.p[upper] for row in rows])
    steps = _steps(holm(raw))
    p = np.where(steps <= 100, steps / 1000, (steps - 90) / 100)
    return PairTable(list(rows), np.where(steps == UNKNOWN_P, np.nan, p), int((~np.isnan(raw)).sum()))


def _steps(p: FloatArray) -> FloatArray:
    """Return p-values in steps that fit a byte, rounded up: thousandths up to 0.1, then hundredths."""
    fine = np.ceil(np.round(p * 1000, 6))
    coarse = 100 + np.ceil(np.round((p - 0.1) * 100, 6))
    return np.where(np.isnan(p), UNKNOWN_P, np.where(p <= 0.1, np.maximum(fine, 1), coarse))


class HeadToHeadRow(NamedTuple):
    """Both means, the difference A - B with its interval, the p corrected over the table, and the verdict.

    ``page``: of the metric.
    """

    title: str
    page: str
    a: str
    b: str
    difference: str
    p: str
    verdict: str
    strip: IntervalBar | None


def head_to_head(board: Board) -> dict[str, Any] | None:
    """Return the pair that the page opens with, and the numbers of all pairs for its script.

    None where fewer than two entries are complete anywhere. ``metrics``: over all tasks and languages, the headline
    first; ``parts``: the headline by task and language, none where there is one of each. With both the number of
    tests that verdicts are corrected for.
    """
    single = [ranking for ranking in board.slices if ranking.scope.task is None or ranking.scope.language is None]
    slices = sorted(single, key=lambda ranking: ranking.scope.language is not None)  # all, tasks, languages
    known = {name for ranking in slices for name in ranking.entries}
    ids = [name for name in board.axes["entry"] if name in known]
    if len(ids) < 2:
        return None
    headline, whole = board.headline, Slice(None, None)
    others = [metric for metric in board.result_set.metrics if metric.primary and metric != headline]
    on_all = [one for one in slices if one.scope == whole]
    in_parts = [one for one in slices if one.scope != whole]
    makes = [partial(pairs_in_slice, one, headline, headline.title, ids) for one in on_all]
    makes += [partial(pairs_in_metric, board, metric, ids) for metric in others]
    makes += [partial(pairs_in_slice, one, headline, slice_name(one.scope), ids) for one in in_parts]
    rows = map_forked(lambda make: make(), makes, len(ids) >= _MANY)
    n = len(rows) - len(in_parts)
    metrics = pair_table([row for row in rows[:n] if (row.mean == row.mean).sum() > 1])
    parts = pair_table(rows[n:])
    opening = [row for row in board.standings.rows if row.row.id in ids]
    opening.sort(key=lambda row: (row.reference, bool(row.flags)))  # the best that models wrote, without flags
    a, b = opening[0].row.id, opening[1].row.id
    i, j = ids.index(a), ids.index(b)
    axis = interval_axis(row.estimate(i, j) for row in parts.rows)
    names = [(name, name_of(board.result_set.entries[name].name, 120)) for name in ids]
    of_metrics, of_parts = ([_row(table, k, i, j, axis) for k in range(len(table.rows))] for table in (metrics, parts))
    return {
        "names": names,
        "a": a,
        "b": b,
        "sentence": sentence(names[i][1], names[j][1], of_metrics, of_parts),
        "metrics": of_metrics,
        "metric_tests": metrics.comparisons,
        "parts": of_parts,
        "part_tests": parts.comparisons,
        "axis": axis,
        "data": {
            "level": LEVEL,
            "entries": ids,
            "names": [title for _, title in names],
            "tables": {"metrics": metrics.encoded(), "parts": parts.encoded()},
        },
    }


def slice_name(scope: Slice) -> str:
    """Return the language and task of a slice in words."""
    words = [language(scope.language).name] if scope.language else []
    words += [name_of(scope.task)] if scope.task else []
    return ", ".join(words) or "all"


def _row(table: PairTable, k: int, i: int, j: int, axis: Scale) -> HeadToHeadRow:
    row, digits = table.rows[k], digits_of(table.rows[k].metric.name)
    found, p = row.estimate(i, j), table.adjusted(k, i, j)
    a, b = (format_number(None if row.mean[n] != row.mean[n] else float(row.mean[n]), digits) for n in (i, j))
    return HeadToHeadRow(
        row.title,
        metric_file(row.metric),
        a,
        b,
        format_interval(found, digits),
        p_words(p),
        verdict(found, p, row.metric.direction),
        interval_bar(found, axis),
    )


def p_words(p: float | None) -> str:
    """Return a corrected p-value, which is rounded up: 0.001 is the smallest step."""
    return "≤ 0.001" if p is not None and p <= 0.001 else p_value(p)


def verdict(found: Estimate | None, p: float | None, direction: Direction) -> str:
    """Return in two words which entry is better, by the corrected p; the page's script does the same."""
    if found is None:
        return "not measured"
    if p is None:
        return "no interval"
    if p > LEVEL or found.mean == 0:
        return UNDECIDED
    side = "A" if (found.mean > 0) != (direction == "down") else "B"
    return f"{side} {'higher' if direction == 'none' else 'better'}"


def sentence(a: str, b: str, metrics: list[HeadToHeadRow], parts: list[HeadToHeadRow]) -> str:
    """Return a summary of the tables; the page's script does the same."""
    ends = {
        "A better": f"{a} is better than {b}",
        "B better": f"{b} is better than {a}",
        UNDECIDED: f"{a} and {b} cannot be distinguished",
    }
    first = metrics[0].verdict if metrics else "not measured"
    words = f"Overall: {ends.get(first, first)}."
    for where, rows in (("In parts", parts), ("In other metrics", metrics[1:])):
        found = Counter(row.verdict for row in rows)
        counts = ", ".join(f"{verdict} in {found[verdict]}" for verdict in ("A better", "B better", UNDECIDED))
        words += f" {where}: {counts}." if rows else ""
    return words
