"""Claimed against measured: which values may differ by how much, and which do not agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from harness.core.records import CellScores, CellStatus, Score
from harness.submissions.check_cells import EXACT
from harness.submissions.report import Compared

_SIGMAS = 3.0
TOLERANCE = (
    f"tolerance in one cell: {EXACT:g}; for classifiers with several seeds 3 standard deviations of the "
    "measured seeds, divided by the root of their number."
)


@dataclass(frozen=True)
class Gap:
    """One score of one cell, as claimed and as measured. ``words`` says what does not agree."""

    status: CellStatus
    metric: str
    claimed: float | None
    measured: float | None
    words: str

    @property
    def size(self) -> float:
        """How far the two lie apart; 0 where one is not there."""
        known = self.claimed is not None and self.measured is not None
        return abs((self.claimed or 0.0) - (self.measured or 0.0)) if known else 0.0


def tolerance(measured: Score) -> float:
    """Return how far a claim may lie from a measured score: the noise of the seeds, or rounding."""
    values = list(measured.by_seed.values())
    if len(values) < 2:
        return EXACT
    return max(EXACT, _SIGMAS * stdev(values) / math.sqrt(len(values)))


def gaps(status: CellStatus, claimed: CellScores, measured: CellScores) -> Iterator[Gap]:
    """Yield every score that both have, or that only one has of a part that both have."""
    parts = {*claimed.parts} & {*measured.parts}
    mine = {name for part in parts for name in measured.parts[part].metrics}
    theirs = {name for part in parts for name in claimed.parts[part].metrics}
    before = {score.metric: score for score in claimed.scores}
    after = {score.metric: score for score in measured.scores}
    other_ground = claimed.protocol != measured.protocol
    for name in sorted(mine | theirs):
        one, two = before.get(name), after.get(name)
        if one is None or two is None:
            words = "is claimed and not measured" if two is None else "is measured and not claimed"
        elif other_ground or one.signature != two.signature:
            words = "was scored by another recipe or on other human text than here"
        else:
            words = _disagreement(one, two)
        yield Gap(status, name, one.value if one else None, two.value if two else None, words)


def _disagreement(claimed: Score, measured: Score) -> str:
    """Return in words what of a score is not what was measured; empty for nothing."""
    bound = tolerance(measured)
    pairs: list[tuple[str, float | None, float | None]] = [
        ("the value", claimed.value, measured.value),
        ("the value of human text", claimed.human, measured.human),
    ]
    if bound == EXACT:
        pairs += _details(claimed, measured)
    for what, one, two in pairs:
        if (one is None) != (two is None) or abs((one or 0.0) - (two or 0.0)) > bound:
            return f"{what} {_number(one)} is claimed, {_number(two)} measured (tolerance {bound:.2g})"
    if {*claimed.by_seed} != {*measured.by_seed}:
        return "the classifier's seeds are not those of the suite"
    return ""


def _details(claimed: Score, measured: Score) -> list[tuple[str, float | None, float | None]]:
    ends = [(side.interval or (None, None)) for side in (claimed, measured)]
    pairs = [("an end of the interval", ends[0][i], ends[1][i]) for i in (0, 1)]
    pairs += [
        (f"detail {name:.40}", claimed.detail.get(name), measured.detail.get(name))
        for name in sorted({*claimed.detail} | {*measured.detail})
    ]
    return pairs


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.6g}"


def table(found: Sequence[Gap], headline: Iterable[str]) -> list[Compared]:
    """Return the headline metrics by setting and task, and every other metric that does not agree."""
    groups: dict[tuple[str, str], list[Gap]] = {}
    for gap in found:
        key = gap.status.cell
        groups.setdefault((gap.metric, f"{key.task}, {key.setting}"), []).append(gap)
    wanted = {*headline}
    return [
        Compared(
            place,
            name,
            _mean(g.claimed for g in own),
            _mean(g.measured for g in own),
            max(g.size for g in own),
            len(own),
            sum(bool(g.words) for g in own),
        )
        for (name, place), own in sorted(groups.items())
        if name in wanted or any(gap.words for gap in own)
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return fmean(known) if known and len(known) == len(found) else None


def in_words(found: Iterable[Gap]) -> dict[str, list[Gap]]:
    """Return metric -> its gaps that do not agree."""
    wrong: dict[str, list[Gap]] = {}
    for gap in found:
        if gap.words:
            wrong.setdefault(gap.metric, []).append(gap)
    return wrong
