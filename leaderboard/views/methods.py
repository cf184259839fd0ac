"""One page per method: description, known limits, entries, steering files, all scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.languages import language
from harness.core.records import IMPORTED
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.summary import digits_of, format_number
from harness.scoring.metrics import Metric
from leaderboard.boards import Board
from leaderboard.text import LONGEST, clean, name_of
from leaderboard.views.doses import of_method
from leaderboard.views.origins import STEERING_ID, EntryOrigin, kind_of_contrast
from leaderboard.views.tables import metric_file

_ARXIV = re.compile(r"arXiv[: ]\s?(\d{4}\.\d{4,5})")
_WEB = re.compile(r"https://[!#$%&*+,./0-9:;=?@A-Z_a-z~-]{4,200}")
_COUNTS = ("texts", "valid_texts", "prompt_tokens", "new_tokens")  # of a cost
_OPTIONS = 60  # of a config
_ENTRIES = 24  # whose metrics are shown next to each other, the best ones
_FILES = 60  # of steering that a page lists
_COLUMNS = (
    *((key, key) for key in ("task", "language", "change", "strength", "norm")),
    ("text", "fitted on"),
    ("seed", "seed"),
)


def method_page(board: Board, method: str, view: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page of a method; ``view``: ranking, origins, grid and sweeps of the board."""
    own = [row for row in board.standings.rows if row.row.entry.method.name == method]
    names, ranking = {row.row.id for row in own}, {row["id"]: row for row in view["overview"]["rows"]}
    note = limits = ""
    for manifest in board.result_set.manifests:
        note = note or manifest.method_notes.get(method, "")
        limits = limits or manifest.method_limits.get(method, "")
    grid = [row for row in view["grid"]["rows"] if row["id"] in names]
    scores = [_scores(board, metric, own[:_ENTRIES]) for metric in board.result_set.metrics]
    return {
        "name": name_of(method),
        "family": board.kind(own[0].row.id),
        "note": clean(note),
        "links": links(note),
        "limits": _limits(board, own, limits),
        "versions": sorted({name_of(row.row.entry.method.version) for row in own}),
        "entries": [_card(board, row, ranking[row.row.id], view["sources"][row.row.id]) for row in own],
        "shown": [board.names[row.row.id] for row in own[:_ENTRIES]],
        "metrics": [line for line in scores if {*line[2], line[3]} != {format_number(None)}],
        "grid": grid if any(cell.words for row in grid for cell in row["cells"]) else [],
        "vectors": steering_files(board, names),
        "sweeps": [sweep for sweep in view["sweeps"] if sweep.method == method],
        "doses": of_method(view["doses"], method),
    }


def links(note: str) -> list[tuple[str, str]]:
    """Return title and address of the sources in a method's description: arXiv ids, and https addresses alone."""
    note = note[:LONGEST]  # as much as is shown
    found = [(f"arXiv {number}", f"https://arxiv.org/abs/{number}") for number in _ARXIV.findall(note)]
    found += [(address, address) for address in (a.rstrip(".,;") for a in _WEB.findall(note))]
    return list(dict.fromkeys(found))


def _limits(board: Board, own: Sequence[RankedEntry], stated: str) -> list[str]:
    """Return the limits that the author states, and those of the results themselves."""
    found = [clean(stated, 1000)] if stated else []
    selection = board.result_set.manifest.selection
    seeds = len(selection.seeds)
    if seeds < 3 and not board.result_set.fixed:
        found.append(f"Measured with {seeds} generation seed{'s' if seeds > 1 else ''}: nothing is ranked below 3.")
    if selection.narrowed:
        found.append(f"Measured in part only: {clean('; '.join(selection.narrowed[:20]))}.")
    paid = [
        f"{language(code).name} ({row.row.name})"
        for code, gains in board.checks.items()
        for row in own
        if (gain := gains.get(row.row.id)) and gain.high is not None and gain.high < 0
    ]
    weak = [
        f"{language(code).name} ({row.row.name})"
        for row in own
        for code, cell in row.languages.items()
        if cell.found and (cell.gain.mean > 0) == (board.headline.direction == "down")
    ]
    if paid:
        found.append(f"Clearly worse than zero-shot in the check, {name_of(', '.join(paid[:8]), 600)}.")
    if weak:
        more = f" and {len(weak) - 8} more" if len(weak) > 8 else ""
        found.append(f"Clearly worse than zero-shot in {name_of(', '.join(weak[:8]), 600)}{more}.")
    models = {row.row.entry.model.name for row in own if row.row.entry.model}
    if len(models) == 1:
        found.append(f"Measured on one model, {name_of(models.pop())}: nothing is known about others.")
    return found


def _card(board: Board, standing: RankedEntry, row: dict[str, Any], origin: EntryOrigin) -> dict[str, Any]:
    """Return one entry: its row of the ranking, config, flags, missing cells, cost, and how to make it again."""
    method, cost = standing.row.entry.method, board.costs.get(standing.row.id)
    figures: list[tuple[str, str]] = []
    if cost and not standing.reference:
        counts = {name.replace("_", " "): getattr(cost, name) for name in _COUNTS}
        figures = [(title, "–" if value is None else f"{value:,}") for title, value in counts.items()]
        figures += [
            ("seconds of generation", f"{cost.seconds:,.0f}"),
            ("texts per second", format_number(cost.texts_per_second, 1)),
            ("seconds of fits", format_number(cost.fit_seconds, 1)),
            ("seconds of tuning", format_number(cost.tuning_seconds, 1)),
            ("device", name_of(", ".join(cost.devices)) or "–"),
        ]
    if board.kind(standing.row.id) == IMPORTED:  # nobody knows what they cost
        figures = figures[:2]
    if board.track != "generation":  # figures that are recorded for texts only are left out
        figures = [(title.replace("texts", "answers"), value) for title, value in figures if value != "–"]
    return {
        "row": row,
        "config": [(name_of(key), name_of(value, 200)) for key, value in sorted(method.config.items())[:_OPTIONS]],
        "version": name_of(method.version),
        "flags": [clean(flag.words) for flag in standing.flags],
        "missing_reasons": [clean(reason) for reason in standing.missing_reasons[:20]],
        "checked": clean(origin.checked, 600),
        "people": origin.people,
        "cost": figures,
        "commands": origin.commands,
    }


def _scores(board: Board, metric: Metric, shown: Sequence[RankedEntry]) -> tuple[str, Metric, list[str], str]:
    """Return the address of a metric's page, the metric, the values of some entries, human-written text."""
    digits = digits_of(metric.name)
    values = [format_number(board.level(metric, row.row.id), digits) for row in shown]
    human = (board.level(metric, row.row.id, column="human") for row in shown)
    first = next((value for value in human if value is not None), None)
    return metric_file(metric), metric, values, format_number(first, digits)


def steering_files(board: Board, entries: set[str]) -> dict[str, Any] | None:
    """Return the provenance of the steering files of entries; None where the entries used none.

    ``rules``: how they were fitted; ``broken``: files that cannot be read, and why.
    """
    used = [
        (file, run)
        for index, (run, _) in board.result_set.cells.items()
        if index[0] in entries and (file := board.result_set.work[index].steering)
    ]
    files = dict(sorted(used, key=lambda file: file[0]))
    if not files:
        return None
    lines, rules, kinds, broken = [], set(), set(), []
    for name, run in list(files.items())[:_FILES]:
        if not STEERING_ID.fullmatch(name):  # it becomes part of a path
            broken.append(f"{name_of(name)}: not a name of a steering file")
            continue
        try:
            steering = run.steering(name)
        except (UserError, OSError, ValueError) as error:
            broken.append(clean(f"{name}: {error}"))
            continue
        if steering is not None:
            lines.append({"file": name_of(name), **_steering(steering)})
            rules.add(_rule(steering.provenance))
            kinds.add(kind_of_contrast(steering.provenance))
    if len(kinds - {""}) > 1:
        names = ", ".join(sorted(kinds - {""}))
        rules.add(f"The contrast text is not of one kind ({clean(names)}): means over languages mix them.")
    lines.sort(key=lambda line: (line["task"], line["language"], line["file"]))
    return {
        "lines": lines,
        "more": max(len(files) - _FILES, 0),
        "rules": sorted(rules - {""}),
        "broken": broken,
        "columns": [(key, title) for key, title in _COLUMNS if any(line[key] != "–" for line in lines)],
    }


def _steering(steering: Steering) -> dict[str, str]:
    """Return the data that a steering was fitted on, and its change of the model."""
    found, items = steering.provenance, steering.interventions
    change, strength, norm = "nothing: the model runs unsteered", "–", "–"
    if items:
        layers, first = sorted({item.layer for item in items}), items[0]
        shown = ", ".join(map(str, layers[:12])) + (" ..." if len(layers) > 12 else "")
        change = f"{first.operation} at {first.site} of layer {shown}, {first.positions} positions"
        strength = f"{first.strength:g} {first.unit}"
        norm = format_number(float(np.linalg.norm(first.vector.astype(np.float64))), 2)
    return {
        "language": name_of(language(str(found.get("language", "–"))).name),
        "task": name_of(found.get("task") or "–"),
        "change": clean(change),
        "strength": name_of(strength),
        "norm": norm,
        "text": _read_text(found.get("counts")),
        "seed": name_of(found.get("seed", "–")),
    }


def _read_text(counts: object) -> str:
    """Return how much text was read for a fit, in total."""
    if not isinstance(counts, Mapping):
        return "–"
    parts = [part for part in counts.values() if isinstance(part, Mapping)]
    texts, tokens = (sum(n for part in parts if type(n := part.get(key)) is int) for key in ("texts", "tokens"))
    return f"{texts:,} texts" + (f", {tokens:,} tokens" if tokens else "")


def _rule(provenance: Mapping[str, Any]) -> str:
    """Return in words how the vector is computed from states, and which tokens were read."""
    found = provenance.get("fit")
    fit = found if isinstance(found, Mapping) else {}
    contrast = f"contrast text: {fit['contrast']}" if fit.get("contrast") else None
    words = [fit.get("rule"), contrast, provenance.get("token_rule")]
    return "; ".join(clean(str(word)) for word in words if word)
