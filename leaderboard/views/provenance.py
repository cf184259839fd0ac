"""Where vectors come from: the headers of steering files, one line per file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering
from harness.core.languages import language
from harness.core.store import Run
from harness.ranking.summary import format_number
from leaderboard.boards import Board
from leaderboard.text import clean, name_of

_FILES = 60  # that a page lists
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class VectorLine:
    """One steering file: for what it was fitted, what it changes, from how much text."""

    file: str
    language: str
    task: str
    change: str
    strength: str
    norm: str
    text: str
    seed: str


_COLUMNS = [
    *((key, key) for key in ("task", "language", "change", "strength", "norm")),
    ("text", "fitted on"),
    ("seed", "seed"),
]


@dataclass(frozen=True)
class VectorTable:
    """The steering files of a method. ``rules``: how they were fitted; ``broken``: what cannot be read."""

    lines: list[VectorLine]
    more: int
    rules: list[str]
    broken: list[str]

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Field and title of what is said of any file."""
        return [(key, title) for key, title in _COLUMNS if any(getattr(line, key) != "–" for line in self.lines)]


def vectors(board: Board, entries: Sequence[str]) -> VectorTable | None:
    """Return what the steering files of entries say; None where the entries used none."""
    files = dict(sorted(_files(board, entries), key=lambda file: file[0]))
    if not files:
        return None
    lines, rules, broken = [], set(), []
    for name, run in list(files.items())[:_FILES]:
        if not _ID.fullmatch(name):  # it becomes part of a path
            broken.append(f"{name_of(name)}: no name of a steering file")
            continue
        try:
            steering = run.steering(name)
        except (UserError, OSError, ValueError) as error:
            broken.append(clean(f"{name}: {error}"))
            continue
        if steering is not None:
            lines.append(_line(name, steering))
            rules |= _rules(steering.provenance)
    lines.sort(key=lambda line: (line.task, line.language, line.file))
    return VectorTable(lines, max(len(files) - _FILES, 0), sorted(rules), broken)


def _files(board: Board, entries: Iterable[str]) -> Iterable[tuple[str, Run]]:
    chosen = set(entries)
    for place, (run, _) in board.cellset.cells.items():
        steering = board.cellset.work[place].steering if place[0] in chosen else None
        if steering:
            yield steering, run


def _line(name: str, steering: Steering) -> VectorLine:
    found = steering.provenance
    items = steering.interventions
    first = items[0] if items else None
    return VectorLine(
        file=name_of(name),
        language=name_of(language(str(found.get("language", "–"))).name),
        task=name_of(found.get("task") or "–"),
        change=clean(_change(items)),
        strength=name_of(f"{first.strength:g} {first.unit}") if first else "–",
        norm=format_number(float(np.linalg.norm(first.vector.astype(np.float64))), 2) if first else "–",
        text=_counts(found.get("counts")),
        seed=name_of(found.get("seed", "–")),
    )


def _change(items: Sequence[Intervention]) -> str:
    """Say what is changed where: add at layer_output of layer 9."""
    if not items:
        return "nothing: the model runs unsteered"
    layers = sorted({item.layer for item in items})
    shown = ", ".join(map(str, layers[:12])) + (" ..." if len(layers) > 12 else "")
    first = items[0]
    return f"{first.operation} at {first.site} of layer {shown}, {first.positions} positions"


def _counts(counts: object) -> str:
    """Return how much text was read, in all."""
    if not isinstance(counts, Mapping):
        return "–"
    parts = [part for part in counts.values() if isinstance(part, Mapping)]
    texts, tokens = (sum(_number(part.get(key)) for part in parts) for key in ("texts", "tokens"))
    return f"{texts:,} texts" + (f", {tokens:,} tokens" if tokens else "")


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _rules(provenance: Mapping[str, Any]) -> set[str]:
    """Return in words how the vector follows from states, and which tokens were read."""
    fit = provenance.get("fit")
    rule = fit.get("rule") if isinstance(fit, Mapping) else None
    contrast = fit.get("contrast") if isinstance(fit, Mapping) else None
    words = [rule, f"contrast text: {contrast}" if contrast else None, provenance.get("token_rule")]
    said = "; ".join(clean(str(word)) for word in words if word)
    return {said} if said else set()
