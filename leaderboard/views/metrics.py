"""One page per metric: every entry in every language, beside human text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.core.languages import Language, language
from harness.ranking.summary import digits_of, format_number
from harness.scoring.metrics import Metric
from leaderboard.boards import Board
from leaderboard.rendering import sort_value
from leaderboard.text import clean, name_of, slug
from leaderboard.views.matrix import Matrix
from leaderboard.views.overview import OverviewCell

_SIGNATURES = 4
_PLAIN = re.compile(r"[a-z0-9_]{1,40}(\.valid)?(/(?!valid$)[a-z0-9]{1,40})?")


@dataclass(frozen=True)
class MetricRow:
    """One entry: its mean over all cells, then by language."""

    id: str
    name: str
    page: str
    reference: bool
    flagged: bool
    mean: OverviewCell
    cells: list[OverviewCell]


@dataclass(frozen=True)
class MetricPage:
    """One metric of the entries and in the languages that have a value of it.

    ``human``: of human text, over all and by language; empty where unknown. ``left_out``: entries without.
    """

    metric: Metric
    page: str
    signatures: list[str]
    more_signatures: int
    languages: list[Language]
    human: list[str]
    rows: list[MetricRow]
    left_out: int


def metric_file(metric: Metric) -> str:
    """Return the name of a metric's page: plain for those that ship, marked where another could have it."""
    ours = metric.definition and _PLAIN.fullmatch(metric.name)
    return f"metric-{re.sub(r'[_/.]', '-', metric.name) if ours else slug(metric.name)}.html"


def metric_page(board: Board, means: Matrix, metric: Metric, pages: dict[str, str]) -> MetricPage:
    """Return the table of one metric, in the order of the ranking."""
    digits, ids = digits_of(metric.name), [standing.row.id for standing in board.standings.rows]
    there = [
        code
        for code in board.cellset.manifest.selection.languages
        if any(means.level(metric, name, language=code) is not None for name in ids)
    ]
    codes: list[str | None] = [None, *there]
    rows = []
    for standing in board.standings.rows:
        name = standing.row.id
        values = [means.level(metric, name, language=code) for code in codes]
        if all(value is None for value in values):
            continue
        first, *cells = [OverviewCell(format_number(value, digits), sort_value(value)) for value in values]
        title, flagged = name_of(standing.row.name, 160), standing.flagged
        rows.append(MetricRow(name, title, pages[name], standing.reference, flagged, first, cells))
    signatures = board.cellset.signatures.get(metric.name, [])
    return MetricPage(
        metric=metric,
        page=metric_file(metric),
        signatures=[clean(signature) for signature in signatures[:_SIGNATURES]],
        more_signatures=max(len(signatures) - _SIGNATURES, 0),
        languages=[language(code) for code in codes if code],
        human=[format_number(value, digits) for value in _human(board, means, metric, codes)],
        rows=rows,
        left_out=len(ids) - len(rows),
    )


def _human(board: Board, means: Matrix, metric: Metric, codes: list[str | None]) -> list[float | None]:
    """Return human text's values; empty where no cell has one."""
    found = []
    for code in codes:
        beside = (means.beside(metric, name, language=code) for name in board.cellset.entries)
        found.append(next((value for value in beside if value is not None), None))
    return found if any(value is not None for value in found) else []
