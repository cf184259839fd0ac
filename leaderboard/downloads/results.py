"""From boards to the published result file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from harness.core.errors import UserError
from harness.core.terminal import strip_control
from harness.core.types import FloatArray
from harness.core.version import __version__
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.stats.estimates import Estimate
from leaderboard.boards import Board
from leaderboard.downloads.records import (
    DATE,
    RESULTS_SCHEMA,
    BoardFacts,
    CostFacts,
    EstimateFacts,
    FlagFacts,
    ResultFile,
    encodable,
    rounded,
    rounded_all,
)

_NOTE = 1000  # characters of a method's description
_STANDING = ("tier", "reason", "borda", "mean_rank")
_POWERS = 10.0 ** np.arange(23)  # a double holds them exactly
_TIE = 1e-6  # of a step: far more than a product's rounding
_ESTIMATES = ("mean", "over_zero_shot", "over_few_shot", "gap_closed")


def results(boards: Sequence[Board], date: str, values: bool = True) -> ResultFile:
    """Return the numbers of boards, with a date in ISO 8601 (or none: empty) that the caller gives.

    ``values``: with those of every cell, which are most of it. Equal boards and dates give equal results.
    Raises ``UserError`` for a date in another format.
    """
    if not re.fullmatch(DATE, date):
        raise UserError(f"date {date!r} is not ISO 8601; write it as 2026-06-30 or 2026-06-30T12:00:00Z.")
    generator = {"name": "steerboard", "version": __version__}
    facts = [board_facts(board, values) for board in boards]
    found = {"schema": RESULTS_SCHEMA, "generator": generator, "date": date, "boards": facts}
    return ResultFile.model_validate(found)


def results_json(found: ResultFile) -> str:
    """Return the file's text: one line, without blanks, keys in the order of the schema."""
    body = found.model_dump(mode="python", by_alias=True)
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{encodable(text)}\n"


def board_facts(board: Board, values: bool = True) -> BoardFacts:
    """Return the published numbers of one board; ``values``: with those of every cell."""
    result_set, ranked, manifest = board.result_set, board.standings, board.result_set.manifest
    notes: dict[str, str] = {}
    for each in result_set.manifests or [manifest]:  # the first run that describes a method counts
        for name, note in each.method_notes.items():
            notes.setdefault(name, "") or notes.update({name: strip_control(note[:_NOTE])})
    version = manifest.suite.get("version")
    human, human_by_entry = _human(board) if values else ({}, {})
    return BoardFacts.model_validate(
        {
            "id": board.id,
            "title": strip_control(board.title),
            "suite": {
                "name": strip_control(str(manifest.suite["name"])),
                "version": version if type(version) is int else None,
                "hash": manifest.suite_hash,
            },
            "selection": manifest.selection,
            "data_hashes": manifest.data_hashes,
            "headline": board.headline.name,
            "reason": ranked.reason,
            "relative": ranked.relative,
            "notes": list(ranked.notes),
            "metrics": [
                {**asdict(metric), "signatures": list(result_set.signatures.get(metric.name, []))}
                for metric in result_set.metrics
            ],
            "entries": [_entry(board, row, notes.get(row.row.entry.method.name, "")) for row in ranked.rows],
            "values": _by_entry(board, board.array("value")) if values else {},
            "human": human,
            "human_by_entry": human_by_entry,
        }
    )


def _entry(board: Board, standing: RankedEntry, note: str) -> dict[str, Any]:
    row, cost = standing.row, board.costs.get(standing.row.id)
    return {
        "id": row.id,
        "name": strip_control(row.name),
        "family": board.kind(row.id),
        "method": _finite(row.entry.method.model_dump()),
        "model": row.entry.model,
        "setting": row.entry.setting,
        "note": note,
        "standing": rounded_all(
            {
                **{name: getattr(standing, name) for name in _STANDING},
                "win_share": standing.win_rate,
                **{name: _fields(getattr(standing, name), EstimateFacts.model_fields) for name in _ESTIMATES},
                "languages": {
                    code: {**own, "p": gain.p, "found": gain.found}
                    for code, gain in standing.languages.items()
                    if (own := _fields(gain.gain, ("mean", "low", "high")))
                },
            }
        ),
        "flags": [
            rounded_all({name: getattr(flag, name) for name in FlagFacts.model_fields} | {"metric": flag.metric.name})
            for flag in standing.flags
        ],
        "cost": rounded_all({name: getattr(cost, name) for name in CostFacts.model_fields}) if cost else None,
        "cells": {"present": row.present, "expected": row.expected},
        "missing": [asdict(item) for item in row.missing],
    }


def _fields(found: Estimate | None, names: Iterable[str]) -> dict[str, float | None] | None:
    """Return some fields of an estimate; None where its mean is unknown."""
    known = found is not None and rounded(found.mean) is not None
    return {name: getattr(found, name) for name in names} if known else None


def _finite(value: Any) -> Any:
    """Return JSON values with null for numbers that are not finite."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def significant(values: FloatArray) -> FloatArray:
    """Return numbers with six significant digits, each as close as a double can be; NaN stays NaN.

    Six digits as a whole number, times or by a power of ten that a double holds exactly, round once: the double that is
    nearest. Python's own formatting takes five times as long; it does what is left, such as numbers near a tie.
    """
    size = np.abs(values)
    common = (size >= 1e-15) & (size < 1e20)
    exponent = np.floor(np.log10(size, where=common, out=np.zeros(values.shape))).astype(np.int64)
    up, down = _POWERS[np.maximum(5 - exponent, 0)], _POWERS[np.maximum(exponent - 5, 0)]
    with np.errstate(invalid="ignore"):  # of infinities
        steps = values * up / down
        whole = np.rint(steps)
        clear = common & (np.abs(np.abs(steps - whole) - 0.5) > _TIE)
    clear &= (np.abs(whole) >= 1e5) & (np.abs(whole) < 1e6)
    found = np.asarray(whole / up * down)
    found[~clear] = [float(f"{value:.6g}") for value in values[~clear].tolist()]
    return found


def _human(board: Board) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of human-written text that all entries share, and by entry those that differ."""
    values = board.array("human")
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    shared = significant(np.where(low == high, low, np.nan))
    return _by_metric(board, shared), _by_entry(board, np.where(low < high, values, np.nan))


def _by_entry(board: Board, values: FloatArray) -> dict[str, Any]:
    """Return entry -> metric -> task -> language -> value per seed, without entries and metrics without values."""
    found = {entry: _by_metric(board, own) for entry, own in zip(board.axes["entry"], significant(values), strict=True)}
    return {entry: own for entry, own in found.items() if own}


def _by_metric(board: Board, numbers: FloatArray) -> dict[str, Any]:
    metrics, tasks, languages = (board.axes[axis] for axis in ("metric", "task", "language"))
    finite, plain = np.isfinite(numbers), numbers.astype(object)
    plain[np.isnan(numbers)] = None
    return {
        metric: {task: dict(zip(languages, by_code, strict=True)) for task, by_code in zip(tasks, own, strict=True)}
        for metric, own, known in zip(metrics, plain.tolist(), finite, strict=True)
        if known.any()
    }
