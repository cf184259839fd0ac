"""Reports of the differences between two builds of a board: for the terminal, as Markdown, as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.core.terminal import TerminalColumn, format_json, print_table, strip_control
from harness.ranking.render import escaped, row_of
from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_interval, format_number, format_signed
from harness.scoring.metrics import metric
from leaderboard.text import WORDS, counted

_HEADS = ("entry", "what", "before", "after")
_SAME = "Nothing changed."
_EXPLAINED = (
    "Means, and gains over zero-shot, with 95 % intervals. An interval is of one build; whether two runs "
    "differ by more than noise, cell by cell, is answered by 'steerboard compare'."
)


def print_diff(console: Console, found: Mapping[str, Any]) -> None:
    """Print what changed, see ``leaderboard.diff.diff``: a table per board."""
    for line in _heading(found):
        console.print(Text(strip_control(line)))
    for board in found["boards"]:
        console.print(Text(f"\n{strip_control(board['title'])} ({strip_control(board['new_id'])})", style="bold"))
        for line in _remarks(board):
            console.print(Text(f"- {strip_control(line)}"))
        rows = [[strip_control(cell) for cell in row] for row in _rows(board)]
        if rows:
            print_table(console, [TerminalColumn(head, words=True) for head in _HEADS], rows)
    if found["changed"]:
        console.print(Text(_EXPLAINED, style="dim"))
    console.print(Text(strip_control(conclusion(found))))


def conclusion(found: Mapping[str, Any]) -> str:
    """Return in a sentence how much changed."""
    if not found["changed"]:
        return _SAME
    boards = found["boards"]
    entries = [entry for board in boards for entry in board["entries"]]
    counts = {
        "changed": len(entries),
        "new": sum(len(board["added"]) for board in boards),
        "gone": sum(len(board["gone"]) for board in boards),
        "in another tier": sum(bool(entry["tier"]) for entry in entries),
    }
    words = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return f"Of the entries {words}." if words else "No entry changed; other changes are listed above."


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return what changed as GitHub's Markdown; text from outside can form no markup."""
    lines = ["### The board: what changed", "", *(f"{escaped(line)}  " for line in _heading(found))]
    for board in found["boards"]:
        lines += ["", f"#### {escaped(board['title'])} ({escaped(board['new_id'])})"]
        remarks = [f"- {escaped(line)}" for line in _remarks(board)]
        lines += ["", *remarks] if remarks else []
        rows = [row_of(tuple(escaped(cell) for cell in row)) for row in _rows(board)]
        if rows:
            lines += ["", row_of(_HEADS), row_of(("---",) * len(_HEADS)), *rows]
    lines += ["", f"<sub>{_EXPLAINED}</sub>" if found["changed"] else _SAME]
    return "\n".join(lines) + "\n"


def as_json(found: Mapping[str, Any]) -> str:
    """Return what changed as JSON, boards without changes left out; signs that cannot be seen are escaped."""
    return format_json(found) + "\n"


def _heading(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"before: {found['old']} ({found['old_date'] or 'no date'})"
    yield f"after: {found['new']} ({found['new_date'] or 'no date'})"
    if found["program"]:
        yield "written by steerboard {} → {}".format(*found["program"])
    yield from (f"new board: {title}" for title in found["boards_added"])
    yield from (f"board gone: {title}" for title in found["boards_gone"])


def _remarks(board: Mapping[str, Any]) -> Iterator[str]:
    if board["old_id"] != board["new_id"]:
        yield f"this board was {board['old_id']}"
    if board["incomparable"]:
        yield f"not comparable: {board['incomparable']}"
    yield from board["scope"]
    if board["scope"] and board["entries"]:
        yield "numbers below are of other cells or data than before"
    if board["unchanged"] and not board["incomparable"]:
        yield f"{counted(board['unchanged'], 'entry')} unchanged"


def _rows(board: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a line per change: entry, what changed, before, after."""
    yield from ((name, "new entry", "", "") for name in board["added"])
    yield from ((name, "entry gone", "", "") for name in board["gone"])
    title = metric(board["headline"]).title
    for entry in board["entries"]:
        yield from ((entry["name"], *row) for row in _entry_rows(entry, title))


def _entry_rows(entry: Mapping[str, Any], headline: str) -> Iterator[tuple[str, str, str]]:
    yield from ((f"changed: {words}", "", "") for words in entry["changed"])
    if entry["tier"]:
        yield ("tier", *entry["tier"])
    if mean := entry["mean"]:
        yield (f"mean {headline}", _mean(mean["old"]), _mean(mean["new"]))
    if gain := entry["over_zero_shot"]:
        yield ("vs zero-shot", _gain(gain["old"]), _gain(gain["new"]))
    if entry["cells"]:
        yield ("cells", *entry["cells"])
    yield from (("flag appeared", "", words) for words in entry["flags_new"])
    yield from (("flag gone", words, "") for words in entry["flags_gone"])
    for cost in entry["costs"]:
        percent = f"{format_signed(100 * (cost['new'] / cost['old'] - 1), 0)} %"
        yield (WORDS["costs"][cost["name"]], f"{cost['old']:.4g}", f"{cost['new']:.4g} ({percent})")


def _gain(found: Mapping[str, float] | None) -> str:
    return format_interval(Estimate(found["mean"], low=found["low"], high=found["high"]) if found else None)


def _mean(found: Mapping[str, float] | None) -> str:
    """Return a mean, which unlike a difference has no sign, with its interval."""
    if found is None:
        return "–"
    mean, low, high = (format_number(found[name]) for name in ("mean", "low", "high"))
    return mean if found["low"] is None or found["high"] is None else f"{mean} [{low}, {high}]"
