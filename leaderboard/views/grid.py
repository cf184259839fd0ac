"""Entries by languages: where a method wins, where it loses, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.languages import Language, language
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_interval, format_number, format_signed
from leaderboard.boards import Board
from leaderboard.text import name_of
from leaderboard.views.matrix import Matrix

FULL = 0.08
"""Gain in F1 that is shown in the full colour, at the least; larger gains stretch it."""


@dataclass(frozen=True)
class GridCell:
    """One entry in one language. ``tint``: -1 to 1, the colour; ``mark``: ▲ or ▼ for a discovery."""

    gain: str
    level: str
    tint: float
    mark: str
    words: str


@dataclass(frozen=True)
class GridRow:
    """One entry in all languages."""

    id: str
    name: str
    reference: bool
    flagged: bool
    cells: list[GridCell]


@dataclass(frozen=True)
class GainGrid:
    """The table of gains over zero-shot by language, in the order of the ranking."""

    languages: list[Language]
    rows: list[GridRow]
    n: int

    @property
    def known(self) -> bool:
        """Whether any cell has a gain or a level: without one there is no table."""
        return any(cell.gain or cell.words for row in self.rows for cell in row.cells)


def grid(board: Board, means: Matrix) -> GainGrid:
    """Return the grid of the headline metric. ``n``: cells behind one value."""
    selection = board.cellset.manifest.selection
    n = len(selection.tasks) * len(selection.seeds)
    gains = [
        abs(cell.gain.mean) for row in board.standings.rows if not row.reference for cell in row.languages.values()
    ]
    full = max([FULL, *gains])
    down = board.headline.direction == "down"
    rows = []
    for standing in board.standings.rows:
        cells = []
        for code in selection.languages:
            level = means.level(board.headline, standing.row.id, language=code)
            found = standing.languages.get(code)
            gain, mark = (found.gain, found.found) if found else (None, False)
            cells.append(_cell(level, gain, mark, full, down, n))
        flagged = standing.flagged
        name = name_of(standing.row.name, 160)
        rows.append(GridRow(standing.row.id, name, standing.reference, flagged, cells))
    return GainGrid([language(code) for code in selection.languages], rows, n)


def _cell(level: float | None, gain: Estimate | None, found: bool, full: float, down: bool, n: int) -> GridCell:
    if gain is None:
        return GridCell(
            "", format_number(level), 0.0, "", f"{format_number(level)}, n = {n} cells" if level is not None else ""
        )
    better = -gain.mean if down else gain.mean
    mark = ("▲" if better > 0 else "▼") if found else ""
    stands = ", stands up to correction over the grid" if found else ""
    words = f"{format_interval(gain)}, level {format_number(level)}, n = {n} cells{stands}"
    return GridCell(
        format_signed(gain.mean), format_number(level), round(max(-1.0, min(1.0, better / full)), 2), mark, words
    )
