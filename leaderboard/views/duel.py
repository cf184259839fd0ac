"""Two entries head to head: paired differences by metric and by scope, for the page and for its script."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.core.languages import language
from harness.core.records import Direction
from harness.ranking.slices import Slice
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import digits_of, format_interval, format_number, p_value
from leaderboard.boards import Board
from leaderboard.charts.forest import IntervalBar, axis, interval_bar
from leaderboard.charts.scale import Scale
from leaderboard.text import name_of
from leaderboard.views.metrics import metric_file
from leaderboard.views.pairs import LEVEL, PairTable, of_field, of_metric, packed, pair_table


@dataclass(frozen=True)
class HeadToHeadRow:
    """One row: both means, the difference A - B with its interval, and what follows from it.

    ``page``: of the metric, empty for a scope of the headline. ``p``: corrected over the table.
    """

    title: str
    page: str
    a: str
    b: str
    difference: str
    p: str
    verdict: str
    strip: IntervalBar | None


@dataclass(frozen=True)
class HeadToHead:
    """The pair that the page opens with, and the numbers of all pairs for its script.

    ``metrics``: of all tasks and languages, the headline first; ``parts``: the headline by task and language,
    none where there is one of each. With both the number of tests that verdicts are corrected for.
    """

    names: list[tuple[str, str]]
    a: str
    b: str
    sentence: str
    metrics: list[HeadToHeadRow]
    metric_tests: int
    parts: list[HeadToHeadRow]
    part_tests: int
    axis: Scale
    data: dict[str, object]


def head_to_head(board: Board) -> HeadToHead | None:
    """Return the page's data; None where fewer than two entries are complete anywhere."""
    single = [field for field in board.fields if field.scope.task is None or field.scope.language is None]
    fields = sorted(single, key=lambda field: field.scope.language is not None)  # all, tasks, languages
    order = [row.row.id for row in board.standings.rows]
    known = {name for field in fields for name in field.entries}
    ids = [name for name in order if name in known]
    if len(ids) < 2:
        return None
    headline = board.headline
    others = [metric for metric in board.cellset.metrics if metric.primary and metric != headline]
    whole = [of_field(field, headline, headline.title, ids) for field in fields if _is_whole(field.scope)]
    whole += [of_metric(board, metric, metric.title, ids) for metric in others]
    metrics = pair_table([row for row in whole if (row.mean == row.mean).sum() > 1])
    parts = pair_table(
        [of_field(field, headline, scope_name(field.scope), ids) for field in fields if not _is_whole(field.scope)]
    )
    a, b = _opening(board, ids)
    i, j = ids.index(a), ids.index(b)
    on = axis(row.estimate(i, j) for row in parts.rows)
    names = [(name, name_of(board.cellset.entries[name].name, 120)) for name in ids]
    of_metrics, of_parts = ([_row(table, k, i, j, on) for k in range(len(table.rows))] for table in (metrics, parts))
    return HeadToHead(
        names=names,
        a=a,
        b=b,
        sentence=sentence(names[i][1], names[j][1], of_metrics, of_parts),
        metrics=of_metrics,
        metric_tests=metrics.comparisons,
        parts=of_parts,
        part_tests=parts.comparisons,
        axis=on,
        data={
            "level": LEVEL,
            "entries": ids,
            "names": [title for _, title in names],
            "tables": {"metrics": _packed(metrics), "parts": _packed(parts)},
        },
    )


def _is_whole(scope: Slice) -> bool:
    return scope.task is None and scope.language is None


def _opening(board: Board, names: list[str]) -> tuple[str, str]:
    """Return the best entry that models wrote and the next one; without flags, where there are two such."""
    rows = [row for row in board.standings.rows if row.row.id in names]
    rows.sort(key=lambda row: (row.reference, bool(row.flags)))
    return rows[0].row.id, rows[1].row.id


def scope_name(scope: Slice) -> str:
    """Return what a scope covers, in words."""
    words = [language(scope.language).name] if scope.language else []
    words += [name_of(scope.task)] if scope.task else []
    return ", ".join(words) or "all"


def _row(table: PairTable, k: int, i: int, j: int, on: Scale) -> HeadToHeadRow:
    row, digits = table.rows[k], digits_of(table.rows[k].metric.name)
    found, p = row.estimate(i, j), table.adjusted(k, i, j)
    a, b = (format_number(None if row.mean[n] != row.mean[n] else float(row.mean[n]), digits) for n in (i, j))
    return HeadToHeadRow(
        title=row.title,
        page=metric_file(row.metric),
        a=a,
        b=b,
        difference=format_interval(found, digits),
        p=p_words(p),
        verdict=verdict(found, p, row.metric.direction),
        strip=interval_bar(found, on),
    )


def p_words(p: float | None) -> str:
    """Return a corrected p-value, which is rounded up: no smaller one is told apart than 0.001."""
    return "≤ 0.001" if p is not None and p <= 0.001 else p_value(p)


def verdict(found: Estimate | None, p: float | None, direction: Direction) -> str:
    """Say in two words which entry is better, by the corrected p; the page's script says the same."""
    if found is None:
        return "not measured"
    if p is None:
        return "no interval"
    if p > LEVEL or found.mean == 0:
        return "cannot tell"
    side = "A" if (found.mean > 0) != (direction == "down") else "B"
    return f"{side} {'higher' if direction == 'none' else 'better'}"


def sentence(a: str, b: str, metrics: list[HeadToHeadRow], parts: list[HeadToHeadRow]) -> str:
    """Say what the tables say; the page's script says the same."""
    ends = {
        "A better": f"{a} is better than {b}",
        "B better": f"{b} is better than {a}",
        "cannot tell": f"{a} and {b} cannot be told apart",
    }
    first = metrics[0].verdict if metrics else "not measured"
    words = f"Over all: {ends.get(first, first)}."
    words += _counted("In parts", parts) + _counted("In other metrics", metrics[1:])
    return words


def _counted(where: str, rows: list[HeadToHeadRow]) -> str:
    if not rows:
        return ""
    found = Counter(row.verdict for row in rows)
    said = [f"{words} in {found[words]}" for words in ("A better", "B better", "cannot tell")]
    return f" {where}: {', '.join(said)}."


def _packed(table: PairTable) -> list[dict[str, object]]:
    return [
        {**found, "way": row.metric.direction, "digits": digits_of(row.metric.name)}
        for found, row in zip(packed(table), table.rows, strict=True)
    ]
