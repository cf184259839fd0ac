"""One page per method: what it does, whence its vectors, what it gave, what it is known not to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.languages import language
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.summary import digits_of, format_number
from harness.scoring.metrics import Metric
from harness.tracks.separation import Separation
from leaderboard.boards import Board
from leaderboard.families import row_kind
from leaderboard.text import LONGEST, clean, name_of, slug
from leaderboard.views.grid import GainGrid, GridRow
from leaderboard.views.matrix import Matrix
from leaderboard.views.metrics import metric_file
from leaderboard.views.overview import OverviewRow
from leaderboard.views.plots import Sweep
from leaderboard.views.provenance import VectorTable, vectors
from leaderboard.views.separation import Separations, separations
from leaderboard.views.sources import EntryOrigin

_ARXIV = re.compile(r"arXiv[: ]\s?(\d{4}\.\d{4,5})")
_WEB = re.compile(r"https://[!#$%&*+,./0-9:;=?@A-Z_a-z~-]{4,200}")
_OPTIONS = 60  # of a config
_NONE = format_number(None)
_ENTRIES = 24  # whose metrics stand side by side, the best ones


@dataclass(frozen=True)
class EntryCard:
    """One entry of the method: its config, what lacks, what is flagged, how to make it again."""

    row: OverviewRow
    config: list[tuple[str, str]]
    version: str
    flags: list[str]
    lacking: list[str]
    checked: str
    people: str
    cost: list[tuple[str, str]]
    commands: list[str]


@dataclass(frozen=True)
class MethodPage:
    """Everything about one method.

    ``metrics``: address of its page, metric, values of the ``shown`` entries, human text.
    """

    name: str
    page: str
    family: str
    note: str
    links: list[tuple[str, str]]
    limits: list[str]
    versions: list[str]
    entries: list[EntryCard]
    shown: list[str]
    metrics: list[tuple[str, Metric, list[str], str]]
    grid: list[GridRow]
    vectors: VectorTable | None
    sweeps: list[Sweep]
    separation: Separations | None


def method_file(method: str) -> str:
    """Return the name of a method's page."""
    return f"method-{slug(method)}.html"


def method_pages(board: Board) -> dict[str, str]:
    """Return entry id -> address of its method's page, in the folder of the board."""
    return {name: method_file(row.entry.method.name) for name, row in board.cellset.entries.items()}


def method_page(
    board: Board,
    means: Matrix,
    method: str,
    rows: dict[str, OverviewRow],
    sources: dict[str, EntryOrigin],
    grid: GainGrid,
    sweeps: Sequence[Sweep],
    separated: Sequence[Separation] = (),
) -> MethodPage:
    """Return the page of a method. ``rows``: the rows of the ranking by entry id."""
    own = [row for row in board.standings.rows if row.row.entry.method.name == method]
    note, limit = _said(board, method)
    shown = own[:_ENTRIES]
    lines = [_line(board, means, metric, shown) for metric in board.cellset.metrics]
    rows_of = [row for row in grid.rows if row.id in {standing.row.id for standing in own}]
    return MethodPage(
        name=name_of(method),
        page=method_file(method),
        family=row_kind(own[0].row.entry),
        note=clean(note),
        links=links(note),
        limits=_limits(board, own, limit),
        versions=sorted({name_of(row.row.entry.method.version) for row in own}),
        entries=[_card(board, row, rows[row.row.id], sources[row.row.id]) for row in own],
        shown=[name_of(row.row.name, 160) for row in shown],
        metrics=[line for line in lines if set(line[2]) != {_NONE} or line[3] != _NONE],
        grid=rows_of if any(cell.words for row in rows_of for cell in row.cells) else [],
        vectors=vectors(board, [row.row.id for row in own]),
        sweeps=[sweep for sweep in sweeps if sweep.method == method],
        separation=separations(board, own, separated),
    )


def links(note: str) -> list[tuple[str, str]]:
    """Return title and address of what a method's line names: arXiv ids, and https addresses alone."""
    note = note[:LONGEST]  # as much as is shown
    found = [(f"arXiv {number}", f"https://arxiv.org/abs/{number}") for number in _ARXIV.findall(note)]
    found += [(address, address) for address in (a.rstrip(".,;") for a in _WEB.findall(note))]
    return list(dict.fromkeys(found))


def _said(board: Board, method: str) -> tuple[str, str]:
    """Return what the runs say of a method: its line and its known limits."""
    note = limits = ""
    for manifest in board.cellset.manifests:
        note = note or manifest.method_notes.get(method, "")
        limits = limits or manifest.method_limits.get(method, "")
    return note, limits


def _limits(board: Board, own: Sequence[RankedEntry], said: str) -> list[str]:
    """Return what the author says, and what the results themselves limit."""
    found = [clean(said, 1000)] if said else []
    selection = board.cellset.manifest.selection
    seeds = len(selection.seeds)
    if seeds < 3 and not board.cellset.fixed:
        found.append(f"Measured with {seeds} generation seed{'s' if seeds > 1 else ''}: nothing is ranked below 3.")
    if selection.narrowed:
        found.append(f"Measured in part only: {clean('; '.join(selection.narrowed[:20]))}.")
    paid = [
        f"{language(code).name} ({row.row.name})"
        for code, gains in board.checks.items()
        for row in own
        if (gain := gains.get(row.row.id)) and gain.high is not None and gain.high < 0
    ]
    if paid:
        found.append(f"Clearly worse than zero-shot in the check, {name_of(', '.join(paid[:8]), 600)}.")
    weak = [
        f"{language(code).name} ({row.row.name})"
        for row in own
        for code, cell in row.languages.items()
        if cell.found and (cell.gain.mean > 0) == (board.headline.direction == "down")
    ]
    if weak:
        more = f" and {len(weak) - 8} more" if len(weak) > 8 else ""
        found.append(f"Clearly worse than zero-shot in {name_of(', '.join(weak[:8]), 600)}{more}.")
    models = {row.row.entry.model.name for row in own if row.row.entry.model}
    if len(models) == 1:
        found.append(f"Measured on one model, {name_of(models.pop())}: nothing is known of others.")
    return found


def _card(board: Board, standing: RankedEntry, row: OverviewRow, source: EntryOrigin) -> EntryCard:
    method, cost = standing.row.entry.method, board.costs.get(standing.row.id)
    figures: list[tuple[str, str]] = []
    if cost and not standing.reference:
        figures = [
            ("texts", f"{cost.texts:,}"),
            ("valid texts", _count(cost.valid_texts)),
            ("prompt tokens", _count(cost.prompt_tokens)),
            ("new tokens", _count(cost.new_tokens)),
            ("seconds of generation", f"{cost.seconds:,.0f}"),
            ("texts per second", format_number(cost.texts_per_second, 1)),
            ("seconds of fits", format_number(cost.fit_seconds, 1)),
            ("seconds of tuning", format_number(cost.tuning_seconds, 1)),
            ("device", name_of(", ".join(cost.devices)) or "–"),
        ]
    if board.track != "generation":  # what is only recorded of texts is left out
        figures = [(what.replace("texts", "answers"), value) for what, value in figures if value != "–"]
    return EntryCard(
        row=row,
        config=[(name_of(key), name_of(value, 200)) for key, value in sorted(method.config.items())[:_OPTIONS]],
        version=name_of(method.version),
        flags=[clean(flag.words) for flag in standing.flags],
        lacking=[clean(reason) for reason in standing.lacking[:20]],
        checked=clean(source.checked, 600),
        people=source.people,
        cost=figures,
        commands=source.commands,
    )


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _line(
    board: Board, means: Matrix, metric: Metric, shown: Sequence[RankedEntry]
) -> tuple[str, Metric, list[str], str]:
    digits = digits_of(metric.name)
    values = [format_number(means.level(metric, row.row.id), digits) for row in shown]
    human = next((value for row in shown if (value := means.beside(metric, row.row.id)) is not None), None)
    return metric_file(metric), metric, values, format_number(human, digits)
