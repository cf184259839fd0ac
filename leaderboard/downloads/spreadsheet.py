"""The rankings as CSV, one line per entry, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from harness.ranking.summary import strip_control
from harness.scoring.metrics import LABEL_FIDELITY, LANGUAGE_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI
from leaderboard.downloads.records import BoardFacts, EntryFacts, EstimateFacts, ResultFile

Cell = str | int | float | None

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # what a spreadsheet takes for the beginning of a formula
_SIDES = (VENDI.for_provider("tfidf"), SELF_CHRF, VALID_SHARE, LANGUAGE_FIDELITY, LABEL_FIDELITY)
_COSTS = ("texts_per_second", "seconds_per_1000_valid", "tokens_per_1000_valid")


def results_csv(found: ResultFile) -> str:
    """Return the rankings of all boards, the best entry first; unknown numbers are empty.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    rows = [row for board in found.boards for row in _rows(board)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([_safe(value) for value in row.values()] for row in rows)
    return out.getvalue()


def _rows(board: BoardFacts) -> Iterator[dict[str, Cell]]:
    for entry in board.entries:
        yield {
            **_identity(board, entry),
            **_spans("mean", entry.standing.mean),
            **_spans("vs_zero_shot", entry.standing.over_zero_shot),
            **_spans("vs_few_shot", entry.standing.over_few_shot),
            **_spans("gap_closed", entry.standing.gap_closed),
            "p_vs_zero_shot": entry.standing.over_zero_shot.p if entry.standing.over_zero_shot else None,
            "win_share": entry.standing.win_share,
            "borda": entry.standing.borda,
            "mean_rank": entry.standing.mean_rank,
            **{side.name: board.mean(entry.id, side.name) for side in _SIDES},
            **{name: getattr(entry.cost, name) if entry.cost else None for name in _COSTS},
            "cells": entry.cells.present,
            "cells_expected": entry.cells.expected,
            "flags": "; ".join(flag.words for flag in entry.flags),
            "not_ranked": entry.standing.reason,
        }


def _identity(board: BoardFacts, entry: EntryFacts) -> dict[str, Cell]:
    return {
        "board": board.id,
        "suite": board.suite.name,
        "metric": board.headline,
        "tier": entry.standing.tier,
        "entry": entry.id,
        "name": entry.name,
        "family": entry.family,
        "method": entry.method.title,
        "version": entry.method.version,
        "model": entry.model.name if entry.model else None,
        "setting": entry.setting,
    }


def _spans(name: str, found: EstimateFacts | None) -> dict[str, Cell]:
    return {
        name: found.mean if found else None,
        f"{name}_low": found.low if found else None,
        f"{name}_high": found.high if found else None,
    }


def _safe(value: Cell) -> Cell:
    """Return text on one line that no spreadsheet computes; numbers stay numbers."""
    if not isinstance(value, str):
        return float(f"{value:.6g}") if isinstance(value, float) else value
    text = strip_control(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


_IDENTITY = (*("board", "suite", "metric", "tier", "entry", "name", "family", "method", "version", "model", "setting"),)
_ESTIMATES = ("mean", "vs_zero_shot", "vs_few_shot", "gap_closed")
_COLUMNS = (
    *_IDENTITY,
    *(f"{name}{end}" for name in _ESTIMATES for end in ("", "_low", "_high")),
    *("p_vs_zero_shot", "win_share", "borda", "mean_rank"),
    *(side.name for side in _SIDES),
    *_COSTS,
    *("cells", "cells_expected", "flags", "not_ranked"),
)
