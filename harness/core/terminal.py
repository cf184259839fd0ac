"""Tables for a terminal of any width: numbers are never cut, and columns left out are named."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

PIPED = 140
"""Width if the output is not a terminal and COLUMNS is not set."""

_NARROWEST = 16  # width that words are wrapped to at least


@dataclass(frozen=True)
class TerminalColumn:
    """A column of a table. ``words`` are wrapped, numbers are not.

    ``drop``: 0 for a column that always stays; of the others the highest is left out first.
    """

    head: str
    words: bool = False
    drop: int = 0


def output() -> Console:
    """Return the console for results, as wide as the terminal, COLUMNS or ``PIPED``."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if known else PIPED)


def print_table(
    console: Console,
    columns: Sequence[TerminalColumn],
    rows: Sequence[Sequence[str | Text]],
    title: str = "",
    gap: int = 2,
) -> None:
    """Print a table that fits: without columns that may be dropped if need be, else row by row.

    ``gap``: blanks between two columns.
    """
    if title:
        console.print(Text(title, style="bold"))
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = [
        max(cell_len(column.head), *(cell_len(row[i].plain) for row in cells), 0) for i, column in enumerate(columns)
    ]
    left = list(range(len(columns)))
    spare = sorted((i for i in left if columns[i].drop), key=lambda i: (columns[i].drop, i))
    while spare and _needed(columns, widths, left, gap) > console.width:
        left.remove(spare.pop())
    if _needed(columns, widths, left, gap) > console.width:
        _stacked(console, columns, cells)
        return
    console.print(_grid(columns, widths, left, cells, gap))
    gone = [columns[i].head for i in range(len(columns)) if i not in left]
    if gone:
        whole = _needed(columns, widths, range(len(columns)), gap)
        line = f"not shown at {console.width} columns: {', '.join(gone)}; COLUMNS={whole} shows all"
        console.print(Text(line, style="dim"))


def _needed(columns: Sequence[TerminalColumn], widths: Sequence[int], shown: Sequence[int], gap: int) -> int:
    """Return the minimal width of a table, with its words wrapped."""
    least = [min(widths[i], _NARROWEST) if columns[i].words else widths[i] for i in shown]
    return sum(least) + gap * (len(least) - 1)


def _grid(
    columns: Sequence[TerminalColumn],
    widths: Sequence[int],
    shown: Sequence[int],
    rows: Sequence[Sequence[Text]],
    gap: int,
) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for i in shown:
        if columns[i].words:
            grid.add_column(Text(columns[i].head), overflow="fold")
        else:
            grid.add_column(Text(columns[i].head), justify="right", no_wrap=True, min_width=widths[i])
    for row in rows:
        grid.add_row(*(row[i] for i in shown))
    return grid


def _stacked(console: Console, columns: Sequence[TerminalColumn], rows: Sequence[Sequence[Text]]) -> None:
    """Print every row as lines of head and value, name first, for very narrow terminals."""
    name = next((i for i, column in enumerate(columns) if column.words), 0)
    for row in rows:
        console.print(row[name], overflow="fold")
        for i, (column, cell) in enumerate(zip(columns, row, strict=True)):
            if i != name and cell.plain not in {"", "–"}:
                console.print(Text.assemble(f"  {column.head or 'note'}: ", cell), overflow="fold")


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def format_size(number: float) -> str:
    """Return a number of bytes in words: 1.1 GB."""
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number / 1e3:.0f} kB"


def strip_control(text: str) -> str:
    """Return text from outside on one line, without control and direction characters."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))


def format_json(value: Any) -> str:
    """Return indented JSON that is safe to show: characters that cannot be seen, or act on a terminal, are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)
