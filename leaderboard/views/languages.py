"""One page per language: who leads there, task by task, and how the texts are."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.languages import Language, language
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.slices import SliceRanking
from harness.ranking.summary import digits_of, format_interval, format_number
from harness.scoring.metrics import Metric
from leaderboard.boards import Board
from leaderboard.charts.forest import IntervalBar, axis, interval_bar
from leaderboard.charts.scale import Scale
from leaderboard.rendering import sort_value
from leaderboard.text import name_of
from leaderboard.views.matrix import Matrix
from leaderboard.views.overview import OverviewCell, shapes_axis


@dataclass(frozen=True)
class LanguageRow:
    """One entry in the language. ``tasks``: headline by task; ``others``: the other metrics."""

    id: str
    name: str
    page: str
    reference: bool
    flagged: bool
    tier: str
    gain: OverviewCell
    strip: IntervalBar | None
    level: OverviewCell
    tasks: list[OverviewCell]
    others: list[OverviewCell]


@dataclass(frozen=True)
class LanguagePage:
    """Everything about one language."""

    language: Language
    sentence: str
    reason: str
    tasks: list[str]
    metrics: list[Metric]
    human: list[str]
    rows: list[LanguageRow]
    axis: Scale


def language_page(board: Board, means: Matrix, code: str, pages: dict[str, str]) -> LanguagePage:
    """Return the page of a language: tiers and intervals are of this language alone."""
    field = board.field(language=code)
    entries = [row.row.id for row in board.standings.rows]
    metrics = [
        metric
        for metric in board.cellset.metrics
        if metric.primary
        and metric != board.headline
        and any(means.level(metric, name, language=code) is not None for name in entries)
    ]
    gains = {name: field.estimate(name, board.zero_shot.get(name)) if field else None for name in entries}
    shown = [row for row in board.standings.rows if shapes_axis(row)]
    on = axis(gains[row.row.id] for row in shown)
    tasks = list(board.cellset.manifest.selection.tasks)
    rows = [
        LanguageRow(
            id=row.row.id,
            name=name_of(row.row.name, 160),
            page=pages[row.row.id],
            reference=row.reference,
            flagged=row.flagged,
            tier=_tier(field, row),
            gain=OverviewCell(format_interval(gains[row.row.id]), sort_value(gains[row.row.id])),
            strip=interval_bar(gains[row.row.id], on),
            level=_cell(board.headline, means, row.row.id, code),
            tasks=[_cell(board.headline, means, row.row.id, code, task) for task in tasks],
            others=[_cell(metric, means, row.row.id, code) for metric in metrics],
        )
        for row in board.standings.rows
    ]
    rows.sort(key=lambda row: _order(row, board.headline))
    human = [format_number(_human(metric, means, board, code), digits_of(metric.name)) for metric in metrics]
    reason = field.reason if field else "no entry is complete here"
    words = _sentence(rows, board.headline, language(code))
    return LanguagePage(language(code), words, reason, tasks, metrics, human, rows, on)


def _tier(field: SliceRanking | None, standing: RankedEntry) -> str:
    """Return the tier in the language, ``flag`` for a flagged entry, else a dash."""
    tier = field.tiers.get(standing.row.id) if field else None
    if tier is not None:
        return str(tier)
    return "flag" if standing.flagged else "–"


def _cell(metric: Metric, means: Matrix, entry: str, code: str, task: str | None = None) -> OverviewCell:
    value = means.level(metric, entry, task, code)
    return OverviewCell(format_number(value, digits_of(metric.name)), sort_value(value))


def _human(metric: Metric, means: Matrix, board: Board, code: str) -> float | None:
    found = (means.beside(metric, name, language=code) for name in board.cellset.entries)
    return next((value for value in found if value is not None), None)


def _order(row: LanguageRow, metric: Metric) -> tuple[bool, float, str]:
    value = float(row.level.sort) if row.level.sort else 0.0
    return (not row.level.sort, value if metric.direction == "down" else -value, row.name)


def _sentence(rows: list[LanguageRow], metric: Metric, of: Language) -> str:
    written = [row for row in rows if not row.reference and row.level.sort]
    if not written:
        return f"No entry has all its {of.name} cells yet."
    best = [row for row in written if row.tier == "1"] or [row for row in written if not row.flagged]
    if not best:
        return f"Every entry that has all its {of.name} cells is flagged."
    first = best[0]
    words = f"Highest {metric.title} in {of.name}: {first.name}, {first.level.text}"
    peers = sum(row.tier == "1" for row in written) - 1
    if first.tier != "1":
        return f"{words}."
    return f"{words}. " + (
        f"{peers} more in its tier cannot be told from it."
        if peers
        else "It differs significantly from every other entry."
    )
