"""The other downloads: CSV, Parquet and LaTeX; and writing all of them into a directory."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.files import write_bytes, write_text
from harness.core.types import IntArray
from harness.ranking.results import positions
from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import CORRECTION
from harness.ranking.summary import digits_of, format_interval, format_number, strip_control
from harness.scoring.metrics import LABEL_FIDELITY, LANGUAGE_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI
from leaderboard.boards import Board
from leaderboard.downloads.bibtex import methods_bib, tex
from leaderboard.downloads.records import BoardFacts, EntryFacts, EstimateFacts, ResultFile, encodable, schema
from leaderboard.downloads.results import results, results_json

TEXT_COLUMNS = (
    *("board", "entry", "name", "method", "model", "setting"),
    *("task", "language", "metric", "signature", "unit", "direction"),
)
"""Parquet columns of text; each is stored as a dictionary and numbers into it."""

COLUMNS = (
    *("board", "entry", "name", "method", "model", "setting", "task", "language", "seed", "metric"),
    *("value", "human", "signature", "unit", "direction"),
)
"""All Parquet columns in their order. ``seed`` is an integer, ``value`` and ``human`` are doubles."""

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # a spreadsheet takes these for the beginning of a formula
_CSV_METRICS = (VENDI.for_provider("tfidf"), SELF_CHRF, VALID_SHARE, LANGUAGE_FIDELITY, LABEL_FIDELITY)
_TEX_METRICS = (VENDI.for_provider("tfidf"), VALID_SHARE, LANGUAGE_FIDELITY)
_COSTS = ("texts_per_second", "seconds_per_1000_valid", "tokens_per_1000_valid")
_REMARK = 600  # characters in a caption


def write_downloads(boards: Sequence[Board], out: Path, date: str, found: ResultFile | None = None) -> list[Path]:
    """Write every download into ``out`` and return the paths; equal bytes for equal boards and dates.

    ``date``: ISO 8601, or empty where it is unknown. ``found``: the results, if they are made.
    Raises ``UserError`` for another format of date and for a directory that cannot be written.
    """
    found = found or results(boards, date)
    texts = {
        "results.json": results_json(found),
        "results-schema.json": schema_json(),
        "results.csv": results_csv(found),
        "methods.bib": methods_bib(found),
        **{f"{board.id}.tex": ranking_tex(board, found.generator.version) for board in found.boards},
    }
    write_bytes(out / "results.parquet", results_parquet(boards))
    for name, text in texts.items():
        write_text(out / name, text)
    return sorted([out / "results.parquet", *(out / name for name in texts)])


@functools.cache
def schema_json() -> str:
    """Return the JSON Schema of the result file as text."""
    return json.dumps(schema(), ensure_ascii=False, indent=1) + "\n"


# CSV: the rankings, one line per entry


def results_csv(found: ResultFile) -> str:
    """Return the rankings of all boards, the best entry first; unknown numbers are empty.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    rows = [_csv_row(board, entry) for board in found.boards for entry in board.entries]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    return out.getvalue()


def _csv_row(board: BoardFacts, entry: EntryFacts) -> dict[str, Any]:
    standing, gain = entry.standing, entry.standing.over_zero_shot
    return {
        "board": board.id,
        "suite": board.suite.name,
        "metric": board.headline,
        "tier": standing.tier,
        "entry": entry.id,
        "name": entry.name,
        "family": entry.family,
        "method": entry.method.title,
        "version": entry.method.version,
        "model": entry.model.name if entry.model else None,
        "setting": entry.setting,
        **_csv_interval("mean", standing.mean),
        **_csv_interval("vs_zero_shot", gain),
        **_csv_interval("vs_few_shot", standing.over_few_shot),
        **_csv_interval("gap_closed", standing.gap_closed),
        "p_vs_zero_shot": gain.p if gain else None,
        "win_share": standing.win_share,
        "borda": standing.borda,
        "mean_rank": standing.mean_rank,
        **{metric.name: board.mean(entry.id, metric.name) for metric in _CSV_METRICS},
        **{name: getattr(entry.cost, name) if entry.cost else None for name in _COSTS},
        "cells": entry.cells.present,
        "cells_expected": entry.cells.expected,
        "flags": "; ".join(flag.words for flag in entry.flags),
        "not_ranked": standing.reason,
    }


def _csv_interval(name: str, found: EstimateFacts | None) -> dict[str, float | None]:
    ends = {"": "mean", "_low": "low", "_high": "high"}
    return {f"{name}{end}": getattr(found, field) if found else None for end, field in ends.items()}


def _csv_cell(value: Any) -> Any:
    """Return text on one line that no spreadsheet computes; numbers stay numbers."""
    if not isinstance(value, str):
        return float(f"{value:.6g}") if isinstance(value, float) else value
    text = strip_control(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


# Parquet: one line per entry, metric, task, language and seed


def results_parquet(boards: Sequence[Board]) -> bytes:
    """Return all values of all boards as the bytes of one long table, equal for equal boards.

    Values have full precision, null where unknown. Lines come in the order of boards, entries (the best first),
    metrics, tasks, languages and seeds.
    """
    kinds = dict.fromkeys(TEXT_COLUMNS, pa.dictionary(pa.int32(), pa.string()))
    kinds |= {"seed": pa.int64(), "value": pa.float64(), "human": pa.float64()}
    empty = pa.schema([(name, kinds[name]) for name in COLUMNS]).empty_table()
    table = pa.concat_tables(map(_parquet_table, boards)).unify_dictionaries() if boards else empty
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", use_dictionary=list(TEXT_COLUMNS), version="2.6")
    return out.getvalue()


def _parquet_table(board: Board) -> Any:
    """Return the lines of one board; cells outside of its selection are left out."""
    scores, axes = board.cellset.scores, board.axes
    places = {name: positions(scores[name], axis) for name, axis in axes.items()}
    order = np.lexsort([places[name] for name in reversed(axes)])
    order = order[np.logical_and.reduce([places[name] >= 0 for name in axes])[order]]
    places = {name: place[order] for name, place in places.items()}
    rows = [board.cellset.entries[name] for name in axes["entry"]]
    signatures, metrics = sorted(scores["signature"].unique().tolist()), board.cellset.metrics
    texts: Mapping[str, tuple[Sequence[str | None], IntArray]] = {
        "board": ([board.id], np.zeros(len(order), dtype=np.int64)),
        "entry": (axes["entry"], places["entry"]),
        "name": ([strip_control(row.name) for row in rows], places["entry"]),
        "method": ([row.entry.method.title for row in rows], places["entry"]),
        "model": ([row.entry.model.name if row.entry.model else None for row in rows], places["entry"]),
        "setting": ([row.entry.setting for row in rows], places["entry"]),
        **{name: (axes[name], places[name]) for name in ("task", "language", "metric")},
        "signature": (signatures, positions(scores["signature"], signatures)[order]),
        "unit": ([metric.unit for metric in metrics], places["metric"]),
        "direction": ([metric.direction for metric in metrics], places["metric"]),
    }
    columns = {name: _dictionary(*column) for name, column in texts.items()}
    columns["seed"] = pa.array(np.array(axes["seed"], dtype=np.int64)[places["seed"]])
    for name in ("value", "human"):
        columns[name] = pa.array(scores[name].to_numpy(dtype=np.float64)[order], from_pandas=True)
    return pa.table([columns[name] for name in COLUMNS], names=list(COLUMNS))


def _dictionary(names: Sequence[str | None], places: IntArray) -> Any:
    """Return a column of text as indices into its distinct values."""
    texts = [None if name is None else encodable(name) for name in names]
    listed = [text for text in dict.fromkeys(texts) if text is not None]
    indices = np.array([-1 if text is None else listed.index(text) for text in texts], dtype=np.int32)[places]
    codes = pa.array(indices, mask=indices < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(listed, type=pa.string()))


# LaTeX: the ranking of a board, for \\input


def ranking_tex(board: BoardFacts, version: str) -> str:
    """Return a table of tier, entry, headline, gain with interval, diversity and validity, text escaped.

    It needs the package booktabs, and fonts for the scripts that names are written in.
    """
    headline = board.metric(board.headline)
    heads = ["Tier", "Entry", headline.title if headline else board.headline, "vs zero-shot [95 %]"]
    heads += [metric.title.replace(" (tfidf)", "") for metric in _TEX_METRICS]
    lines = [
        "% needs \\usepackage{booktabs}; names in other scripts than Latin: XeLaTeX or LuaLaTeX and a font",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{tex(' '.join(_caption(board, version)))}}}",
        f"  \\label{{tab:{board.id}}}",
        r"  \begin{tabular}{rlrlrrr}",
        r"    \toprule",
        _tex_row(heads),
        r"    \midrule",
        *(_tex_row(_tex_cells(board, entry)) for entry in board.entries),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(board: BoardFacts, version: str) -> Iterator[str]:
    yield f"{board.title}, by steerboard {version}."
    if board.selection.narrowed:
        yield f"Narrowed run: {'; '.join(board.selection.narrowed)[:_REMARK]}."
    if board.reason:
        yield f"Not ranked: {board.reason[:_REMARK]}."
    else:
        yield f"Entries of a tier do not differ significantly from its first (paired differences, {CORRECTION}, 5 %)."


def _tex_cells(board: BoardFacts, entry: EntryFacts) -> list[str]:
    standing, gain = entry.standing, entry.standing.over_zero_shot
    return [
        str(standing.tier) if standing.tier is not None else "flag" if entry.flagged else "–",
        entry.name,
        format_number(standing.mean.mean if standing.mean else None),
        format_interval(Estimate(gain.mean, low=gain.low, high=gain.high) if gain else None),
        *(format_number(board.mean(entry.id, m.name), digits_of(m.name)) for m in _TEX_METRICS),
    ]


def _tex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(map(tex, cells))} \\\\"
