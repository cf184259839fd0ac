"""Two builds of a board against each other as text: for the terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.core.records import SCHEMA
from harness.core.terminal import TerminalColumn, print_table
from harness.ranking.render import escaped, row_of
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_interval, format_number, format_signed, strip_control
from harness.scoring.metrics import metric
from leaderboard.diff import BoardDiff, Diff, EntryDiff, Shift
from leaderboard.downloads.records import EstimateFacts

_HEADS = ("entry", "what", "before", "after")
_SAME = "Nothing changed."
_EXPLAINED = (
    "Means, and gains over zero-shot, with 95 % intervals. An interval is of one build; whether two runs "
    "differ by more than noise, cell by cell, says 'steerboard compare'."
)

Row = tuple[str, str, str, str]


def print_diff(console: Console, found: Diff) -> None:
    """Print what changed: a table per board."""
    for line in _heading(found):
        console.print(Text(strip_control(line)))
    for board in _changed(found):
        console.print(Text(f"\n{strip_control(board.title)} ({strip_control(board.new_id)})", style="bold"))
        for line in _remarks(board):
            console.print(Text(f"- {strip_control(line)}"))
        rows = list(_rows(board))
        if rows:
            columns = [TerminalColumn(head, words=True) for head in _HEADS]
            print_table(console, columns, [[strip_control(cell) for cell in row] for row in rows])
    if not found.empty:
        console.print(Text(_EXPLAINED, style="dim"))
    console.print(Text(strip_control(conclusion(found))))


def conclusion(found: Diff) -> str:
    """Return in a sentence how much changed."""
    if found.empty:
        return _SAME
    boards = _changed(found)
    entries = [entry for board in boards for entry in board.entries]
    counts = {
        "changed": len(entries),
        "new": sum(len(board.added) for board in boards),
        "gone": sum(len(board.gone) for board in boards),
        "in another tier": sum(bool(entry.tier) for entry in entries),
    }
    words = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return f"Of the entries {words}." if words else "No entry changed; what did is listed above."


def as_markdown(found: Diff) -> str:
    """Return what changed as GitHub's Markdown; text from outside can form no markup."""
    lines = ["### The board: what changed", "", *(f"{escaped(line)}  " for line in _heading(found))]
    for board in _changed(found):
        lines += ["", f"#### {escaped(board.title)} ({escaped(board.new_id)})"]
        remarks = [f"- {escaped(line)}" for line in _remarks(board)]
        lines += ["", *remarks] if remarks else []
        rows = list(_rows(board))
        if rows:
            lines += ["", row_of(_HEADS), row_of(("---",) * len(_HEADS))]
            lines += [row_of(tuple(escaped(cell) for cell in row)) for row in rows]
    lines += ["", _SAME if found.empty else f"<sub>{_EXPLAINED}</sub>"]
    return "\n".join(lines) + "\n"


def as_json(found: Diff) -> str:
    """Return what changed as JSON, boards without changes left out."""
    body = {
        "schema": SCHEMA,
        "old": found.old,
        "new": found.new,
        "old_date": found.old_date,
        "new_date": found.new_date,
        "program": list(found.program) if found.program else None,
        "changed": not found.empty,
        "boards_added": found.added,
        "boards_gone": found.gone,
        "boards": [_board_record(board) for board in _changed(found)],
    }
    return json.dumps(body, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


# In words


def _changed(found: Diff) -> list[BoardDiff]:
    return [board for board in found.boards if not board.empty]


def _heading(found: Diff) -> Iterator[str]:
    yield f"before: {found.old} ({found.old_date or 'no date'})"
    yield f"after: {found.new} ({found.new_date or 'no date'})"
    if found.program:
        yield f"written by steerboard {found.program[0]} → {found.program[1]}"
    yield from (f"new board: {title}" for title in found.added)
    yield from (f"board gone: {title}" for title in found.gone)


def _remarks(board: BoardDiff) -> Iterator[str]:
    if board.old_id != board.new_id:
        yield f"this board was {board.old_id}"
    if board.incomparable:
        yield f"not comparable: {board.incomparable}"
    yield from board.scope
    if board.scope and board.entries:
        yield "numbers below are of other cells or data than before"
    if board.unchanged and not board.incomparable:
        yield f"{board.unchanged} {'entry' if board.unchanged == 1 else 'entries'} unchanged"


def _rows(board: BoardDiff) -> Iterator[Row]:
    """Yield a line per change: entry, what changed, before, after."""
    yield from ((name, "new entry", "", "") for name in board.added)
    yield from ((name, "entry gone", "", "") for name in board.gone)
    for entry in board.entries:
        yield from _entry_rows(entry, metric(board.headline).title)


def _entry_rows(entry: EntryDiff, headline: str) -> Iterator[Row]:
    name = entry.name
    yield from ((name, f"changed: {words}", "", "") for words in entry.changed)
    if entry.tier:
        yield (name, "tier", *entry.tier)
    if entry.mean:
        yield (name, f"mean {headline}", _mean(entry.mean.old), _mean(entry.mean.new))
    if entry.gain:
        yield (name, "vs zero-shot", _gain(entry.gain.old), _gain(entry.gain.new))
    if entry.cells:
        yield (name, "cells", *entry.cells)
    yield from ((name, "flag appeared", "", words) for words in entry.flags_new)
    yield from ((name, "flag gone", words, "") for words in entry.flags_gone)
    for cost in entry.costs:
        percent = f"{format_signed(100 * (cost.new / cost.old - 1), 0)} %"
        yield (name, cost.title, f"{cost.old:.4g}", f"{cost.new:.4g} ({percent})")


def _gain(found: EstimateFacts | None) -> str:
    return format_interval(Estimate(found.mean, low=found.low, high=found.high) if found else None)


def _mean(found: EstimateFacts | None) -> str:
    """Return a mean, which unlike a difference has no sign, with its interval."""
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return format_number(found.mean)
    return f"{format_number(found.mean)} [{format_number(found.low)}, {format_number(found.high)}]"


# As records


def _board_record(board: BoardDiff) -> dict[str, Any]:
    return {
        "title": board.title,
        "old_id": board.old_id,
        "new_id": board.new_id,
        "headline": board.headline,
        "scope": board.scope,
        "incomparable": board.incomparable,
        "added": board.added,
        "gone": board.gone,
        "entries": [_entry_record(entry) for entry in board.entries],
        "unchanged": board.unchanged,
    }


def _entry_record(entry: EntryDiff) -> dict[str, Any]:
    return {
        "name": entry.name,
        "old_id": entry.old_id,
        "new_id": entry.new_id,
        "changed": entry.changed,
        "tier": list(entry.tier) if entry.tier else None,
        "mean": _shift_record(entry.mean),
        "over_zero_shot": _shift_record(entry.gain),
        "cells": list(entry.cells) if entry.cells else None,
        "flags_new": entry.flags_new,
        "flags_gone": entry.flags_gone,
        "costs": [{"name": cost.name, "old": cost.old, "new": cost.new} for cost in entry.costs],
    }


def _shift_record(shift: Shift | None) -> dict[str, Any] | None:
    if shift is None:
        return None
    return {
        side: found.model_dump(mode="json") if found else None
        for side, found in (("old", shift.old), ("new", shift.new))
    }
