"""Writing all downloads of boards into a folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from harness.core.files import write_bytes, write_text
from leaderboard.boards import Board
from leaderboard.downloads.bibtex import methods_bib
from leaderboard.downloads.latex import ranking_tex
from leaderboard.downloads.parquet import results_parquet
from leaderboard.downloads.records import ResultFile, schema
from leaderboard.downloads.results import results, results_json
from leaderboard.downloads.spreadsheet import results_csv

RESULTS = "results.json"
SCHEMA_FILE = "results-schema.json"


def write_downloads(boards: Sequence[Board], out: Path, date: str, found: ResultFile | None = None) -> list[Path]:
    """Write every download into ``out`` and return the paths; equal bytes for equal boards and dates.

    ``date``: ISO 8601, or empty where it is not known. ``found``: the results, if they are made.
    Raises ``UserError`` for another kind of date and for a folder that cannot be written.
    """
    found = found or results(boards, date)
    texts = {
        RESULTS: results_json(found),
        SCHEMA_FILE: schema_json(),
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
