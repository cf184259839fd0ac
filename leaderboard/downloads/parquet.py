"""All values of all boards as one long Parquet table: a line per entry, metric, task, language and seed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.ranking.summary import strip_control
from leaderboard.boards import Board
from leaderboard.cube import finite, places_on
from leaderboard.downloads.records import whole

NAMES = (
    *("board", "entry", "name", "method", "model", "setting"),
    *("task", "language", "metric", "signature", "unit", "direction"),
)
"""Columns of text; each is stored as a dictionary and numbers into it."""

COLUMNS = (
    *("board", "entry", "name", "method", "model", "setting", "task", "language", "seed", "metric"),
    *("value", "human", "signature", "unit", "direction"),
)
"""All columns in their order. ``seed`` is an integer, ``value`` and ``human`` are doubles."""


def results_parquet(boards: Sequence[Board]) -> bytes:
    """Return the file's bytes, equal for equal boards; values in full precision, null where unknown.

    Lines come in the order of boards, entries (the best first), metrics, tasks, languages and seeds.
    """
    tables = [_table(board) for board in boards]
    table = pa.concat_tables(tables).unify_dictionaries() if tables else _empty()
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", use_dictionary=list(NAMES), version="2.6")
    return out.getvalue()


def _empty() -> Any:
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = dict.fromkeys(NAMES, text) | {"seed": pa.int64(), "value": pa.float64(), "human": pa.float64()}
    return pa.schema([(name, kinds[name]) for name in COLUMNS]).empty_table()


def _table(board: Board) -> Any:
    """Return the lines of one board; those of cells outside of its selection are left out."""
    cellset = board.cellset
    chosen, scores = cellset.manifest.selection, cellset.scores
    entries = [standing.row.id for standing in board.standings.rows]
    metrics = cellset.metrics
    axes: dict[str, list[Any]] = {
        "entry": entries,
        "metric": [metric.name for metric in metrics],
        "task": chosen.tasks,
        "language": chosen.languages,
        "seed": chosen.seeds,
    }
    places = {name: places_on(scores[name], axis) for name, axis in axes.items()}
    order = np.lexsort([places[name] for name in reversed(axes)])
    order = order[np.logical_and.reduce([places[name] >= 0 for name in axes])[order]]
    places = {name: place[order] for name, place in places.items()}
    signatures = sorted(scores["signature"].unique().tolist())
    columns = {
        "board": _named([board.id], np.zeros(len(order), dtype=np.int64)),
        **_of_entries(board, entries, places["entry"]),
        **{name: _named(axes[name], places[name]) for name in ("task", "language", "metric")},
        "seed": pa.array(np.array(chosen.seeds, dtype=np.int64)[places["seed"]]),
        "signature": _named(signatures, places_on(scores["signature"], signatures)[order]),
        "unit": _named([metric.unit for metric in metrics], places["metric"]),
        "direction": _named([metric.direction for metric in metrics], places["metric"]),
        **{name: pa.array(finite(scores[name])[order], from_pandas=True) for name in ("value", "human")},
    }
    return pa.table([columns[name] for name in COLUMNS], names=list(COLUMNS))


def _of_entries(board: Board, entries: Sequence[str], places: NDArray[np.int64]) -> dict[str, Any]:
    rows = [board.cellset.entries[name] for name in entries]
    found: dict[str, list[str | None]] = {
        "entry": list(entries),
        "name": [strip_control(row.name) for row in rows],
        "method": [row.entry.method.title for row in rows],
        "model": [row.entry.model.name if row.entry.model else None for row in rows],
        "setting": [row.entry.setting for row in rows],
    }
    return {name: _named(names, places) for name, names in found.items()}


def _named(names: Sequence[str | None], places: NDArray[np.int64]) -> Any:
    """Return a column of text as numbers into its different values, each of which stands once."""
    texts = [None if name is None else whole(name) for name in names]
    listed = [text for text in dict.fromkeys(texts) if text is not None]
    numbers = np.array([-1 if text is None else listed.index(text) for text in texts], dtype=np.int32)
    found = numbers[places]
    codes = pa.array(found, mask=found < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(listed, type=pa.string()))
