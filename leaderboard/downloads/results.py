"""From boards to the published result file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import harness
from harness.core.errors import UserError
from harness.core.records import Manifest, MethodIdentity
from harness.ranking.cost import Cost
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.summary import strip_control
from harness.scoring.metrics import Metric, metric
from leaderboard.boards import Board
from leaderboard.downloads.records import (
    DATE,
    RESULTS_SCHEMA,
    BoardFacts,
    CellFacts,
    CostFacts,
    EntryFacts,
    EstimateFacts,
    FlagFacts,
    LanguageGainFacts,
    MetricFacts,
    MissingFacts,
    ProgramInfo,
    ResultFile,
    StandingFacts,
    SuiteFacts,
    published,
    rounded,
    whole,
)
from leaderboard.downloads.values import human_by_metric, values_by_entry
from leaderboard.families import row_kind

_NOTE = 1000  # characters of a method's line


def results(boards: Sequence[Board], date: str) -> ResultFile:
    """Return what boards say, with a date in ISO 8601 (or none: empty) that the caller gives.

    Equal boards and dates give equal results. Raises ``UserError`` for another kind of date.
    """
    if not re.fullmatch(DATE, date):
        raise UserError(f"date {date!r} is not ISO 8601; write it as 2026-06-30 or 2026-06-30T12:00:00Z.")
    return ResultFile(
        schema_version=RESULTS_SCHEMA,
        generator=ProgramInfo(name="steerboard", version=harness.__version__),
        date=date,
        boards=[board_facts(board) for board in boards],
    )


def results_json(found: ResultFile) -> str:
    """Return the file's text: one line, without blanks, keys in the order of the schema."""
    body = found.model_dump(mode="python", by_alias=True)
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{whole(text)}\n"


def board_facts(board: Board) -> BoardFacts:
    """Return what one board says."""
    cellset, ranked = board.cellset, board.standings
    manifest = cellset.manifest
    found = board.cube
    human, human_by_entry = human_by_metric(found)
    notes = note_lines(cellset.manifests or [manifest])
    return BoardFacts(
        id=board.id,
        title=strip_control(board.title),
        suite=_suite(manifest),
        selection=manifest.selection,
        data_hashes=manifest.data_hashes,
        headline=board.headline.name,
        reason=ranked.reason,
        relative=ranked.relative,
        notes=list(ranked.notes),
        metrics=[_metric(item, cellset.signatures.get(item.name, [])) for item in map(metric, found.metrics)],
        entries=[
            _entry(standing, board.costs.get(standing.row.id), notes.get(standing.row.entry.method.name, ""))
            for standing in ranked.rows
        ],
        values=values_by_entry(found),
        human=human,
        human_by_entry=human_by_entry,
    )


def note_lines(manifests: Iterable[Manifest]) -> dict[str, str]:
    """Return method name -> the first line of its description, as the first run that has one says."""
    found: dict[str, str] = {}
    for manifest in manifests:
        for name, note in manifest.method_notes.items():
            if note and name not in found:
                found[name] = strip_control(note[:_NOTE])
    return found


def _suite(manifest: Manifest) -> SuiteFacts:
    version = manifest.suite.get("version")
    return SuiteFacts(
        name=strip_control(str(manifest.suite["name"])),
        version=version if isinstance(version, int) else None,
        hash=manifest.suite_hash,
    )


def _metric(metric: Metric, signatures: Sequence[str]) -> MetricFacts:
    return MetricFacts(**asdict(metric), signatures=list(signatures))


def _entry(standing: RankedEntry, cost: Cost | None, note: str) -> EntryFacts:
    row = standing.row
    method = MethodIdentity.model_validate(published(row.entry.method.model_dump()))
    return EntryFacts(
        id=row.id,
        name=strip_control(row.name),
        family=row_kind(row.entry),
        method=method,
        model=row.entry.model,
        setting=row.entry.setting,
        note=note,
        standing=_standing(standing),
        flags=[FlagFacts.of(flag) for flag in standing.flags],
        cost=_cost(cost) if cost else None,
        cells=CellFacts(present=row.present, expected=row.expected),
        missing=[MissingFacts.of(item) for item in row.missing],
    )


def _standing(standing: RankedEntry) -> StandingFacts:
    languages = {
        code: LanguageGainFacts(
            mean=mean,
            low=rounded(cell.gain.low),
            high=rounded(cell.gain.high),
            p=rounded(cell.p),
            found=cell.found,
        )
        for code, cell in standing.languages.items()
        if (mean := rounded(cell.gain.mean)) is not None
    }
    return StandingFacts(
        tier=standing.tier,
        reason=standing.reason,
        mean=EstimateFacts.of(standing.mean),
        over_zero_shot=EstimateFacts.of(standing.over_zero_shot),
        over_few_shot=EstimateFacts.of(standing.over_few_shot),
        gap_closed=EstimateFacts.of(standing.gap_closed),
        win_share=rounded(standing.win_rate),
        borda=rounded(standing.borda),
        mean_rank=rounded(standing.mean_rank),
        languages=languages,
    )


def _cost(cost: Cost) -> CostFacts:
    found = {name: getattr(cost, name) for name in CostFacts.model_fields}
    return CostFacts.model_validate(
        {name: rounded(value) if isinstance(value, float) else value for name, value in found.items()}
    )
