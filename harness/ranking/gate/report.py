"""What the gate says of a run: lines, and the verdict that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.ranking.stats.estimates import Estimate
from harness.scoring.metrics import Metric

GateVerdict = Literal["worse", "cannot tell", "better", "same"]

EXIT: dict[GateVerdict, int] = {"same": 0, "better": 0, "worse": 1, "cannot tell": 2}


@dataclass(frozen=True)
class GateRow:
    """One metric of one entry. ``difference``: the run minus the baseline.

    ``p``: one-sided, towards the side where the difference lies, adjusted so that 0.05 is the level of every
    line; ``bound``: what a difference must exceed; ``findable``: the smallest loss that would have been
    found; ``tolerance``: the largest that may be missed; ``how``: which seeds were compared with which.
    ``decides``: whether a line that cannot tell makes the whole report one. ``chances``: seeds of the run,
    and how often a loss of the size of the tolerance would be found with them.
    """

    entry: str
    metric: Metric
    verdict: GateVerdict
    reason: str = ""
    base: float | None = None
    new: float | None = None
    difference: Estimate | None = None
    p: float | None = None
    bound: float | None = None
    findable: float | None = None
    tolerance: float | None = None
    how: str = ""
    decides: bool = True
    chances: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class GateReport:
    """What the gate says. ``reason``: why nothing could be compared at all.

    ``flags``: entry and words of what is wrong now and was not in the baseline. ``absent``: entries that
    the run lacks; ``fresh``: entries without a baseline, not judged. ``notes``: what else to know.
    """

    run: str
    against: str
    suite: str
    lines: list[GateRow] = field(default_factory=list)
    flags: list[tuple[str, str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    environment: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def verdict(self) -> GateVerdict:
        """Worse if any line is, else cannot tell if one that decides cannot, else better if any is."""
        found = {line.verdict for line in self.lines}
        if self.flags or "worse" in found:
            return "worse"
        unclear = any(line.verdict == "cannot tell" and line.decides for line in self.lines)
        if self.reason or self.absent or unclear or not found - {"cannot tell"}:
            return "cannot tell"
        return "better" if "better" in found else "same"

    @property
    def exit(self) -> int:
        """0 for same or better, 1 for worse, 2 where it cannot be told."""
        return EXIT[self.verdict]
