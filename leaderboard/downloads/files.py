"""The other downloads: CSV, Parquet and LaTeX; and writing all of them into a directory."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator, Sequence
from string import Template
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.terminal import strip_control
from harness.ranking.results import positions
from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import CORRECTION
from harness.ranking.summary import digits_of, format_interval, format_number
from harness.scoring.metrics import LABEL_FIDELITY, LANGUAGE_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI
from leaderboard.boards import Board
from leaderboard.downloads.bibtex import methods_bib, tex
from leaderboard.downloads.records import BoardFacts, EntryFacts, EstimateFacts, ResultFile, encodable, schema
from leaderboard.downloads.results import results, results_json
from leaderboard.text import ASSETS

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    **dict.fromkeys(("board", "entry", "name", "method", "model", "setting", "task", "language"), _DICTIONARY),
    **{"seed": pa.int64(), "metric": _DICTIONARY, "value": pa.float64(), "human": pa.float64()},
    **dict.fromkeys(("signature", "unit", "direction"), _DICTIONARY),
}

COLUMNS = tuple(_TYPES)
"""All Parquet columns in their order. Texts are stored as a dictionary and numbers into it."""

_FORMULA = tuple("=+-@\t\r＝＋－＠")  # a spreadsheet takes these for the beginning of a formula
_CSV_METRICS = (VENDI.for_provider("tfidf"), SELF_CHRF, VALID_SHARE, LANGUAGE_FIDELITY, LABEL_FIDELITY)
_TEX_METRICS = (VENDI.for_provider("tfidf"), VALID_SHARE, LANGUAGE_FIDELITY)
_COSTS = ("texts_per_second", "seconds_per_1000_valid", "tokens_per_1000_valid")
_REMARK = 600  # characters in a caption


def downloads(boards: Sequence[Board], date: str) -> dict[str, bytes]:
    """Return every download by the name of its file; equal bytes for equal boards and dates.

    ``date``: ISO 8601, or empty where it is unknown. Raises ``UserError`` for another format of date.
    """
    found = results(boards, date)
    texts = {
        "results.json": results_json(found),
        "results-schema.json": schema_json(),
        "results.csv": results_csv(found),
        "methods.bib": methods_bib(found),
        **{f"{board.id}.tex": ranking_tex(board, found.generator.version) for board in found.boards},
    }
    return {"results.parquet": results_parquet(boards), **{name: text.encode() for name, text in texts.items()}}


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
    cells = [{name: _csv_cell(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(cells, dtype=object).to_csv(index=False, lineterminator="\n") if rows else "\n"


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
    lines = [_parquet_lines(board) for board in boards] or [pd.DataFrame(columns=list(COLUMNS), dtype=object)]
    table = pa.Table.from_pandas(pd.concat(lines), pa.schema(_TYPES.items()), preserve_index=False)
    out, texts = io.BytesIO(), [name for name, kind in _TYPES.items() if kind == _DICTIONARY]
    plain = table.replace_schema_metadata(None)  # without the notes of pandas
    pq.write_table(plain, out, compression="zstd", use_dictionary=texts, version="2.6")
    return out.getvalue()


def _parquet_lines(board: Board) -> pd.DataFrame:
    """Return the lines of one board; cells outside of its selection are left out."""
    scores, axes = board.result_set.scores, board.axes
    places = pd.DataFrame({name: positions(scores[name], axis) for name, axis in axes.items()}, index=scores.index)
    places = places[(places >= 0).all(axis=1)].sort_values(list(axes), kind="stable")
    scores = scores.loc[places.index]
    rows = [board.result_set.entries[name] for name in axes["entry"]]
    of_entry: dict[str, list[Any]] = {
        "name": [strip_control(row.name) for row in rows],
        "method": [row.entry.method.title for row in rows],
        "model": [row.entry.model.name if row.entry.model else None for row in rows],
        "setting": [row.entry.setting for row in rows],
    }
    of_metric = {name: [getattr(metric, name) for metric in board.result_set.metrics] for name in ("unit", "direction")}
    columns = {name: _taken(values, places["entry"]) for name, values in of_entry.items()}
    columns |= {name: _taken(values, places["metric"]) for name, values in of_metric.items()}
    columns |= {name: _taken(axes[name], places[name]) for name in axes}
    return scores.assign(board=board.id, signature=scores["signature"].map(encodable), **columns)[list(COLUMNS)]


def _taken(values: Sequence[Any], places: pd.Series) -> pd.Categorical:
    """Return a value per line, text as UTF-8 can hold it; each text is stored once."""
    held = [encodable(value) if isinstance(value, str) else value for value in values]
    return pd.Categorical(held).take(places.to_numpy())


# LaTeX: the ranking of a board, for \\input


def ranking_tex(board: BoardFacts, version: str) -> str:
    """Return a table of tier, entry, headline, gain with interval, diversity and validity, text escaped.

    It needs the package booktabs, and fonts for the scripts that names are written in.
    """
    headline = board.metric(board.headline)
    heads = ["Tier", "Entry", headline.title if headline else board.headline, "vs zero-shot [95 %]"]
    heads += [metric.title.replace(" (tfidf)", "") for metric in _TEX_METRICS]
    return Template((ASSETS / "ranking.tex").read_text(encoding="utf-8")).substitute(
        caption=tex(" ".join(_caption(board, version))),
        id=board.id,
        heads=_tex_row(heads),
        rows="\n".join(_tex_row(_tex_cells(board, entry)) for entry in board.entries),
    )


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
        entry.tier_words,
        entry.name,
        format_number(standing.mean.mean if standing.mean else None),
        format_interval(Estimate(gain.mean, low=gain.low, high=gain.high) if gain else None),
        *(format_number(board.mean(entry.id, m.name), digits_of(m.name)) for m in _TEX_METRICS),
    ]


def _tex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(map(tex, cells))} \\\\"
