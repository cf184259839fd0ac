"""The largest loss that the gate may miss without saying so, by metric."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.errors import UserError
from harness.ranking.gate.baseline import Tolerance
from harness.scoring.metrics import MACRO_F1, SHARE, Metric

_F1 = Tolerance(value=0.05)
_SHARE = Tolerance(value=0.10)
_REST = Tolerance(value=0.15, relative=True)


def default_tolerance(metric: Metric) -> Tolerance:
    """Return 0.05 for F1, 0.10 for shares, 15 % of the baseline's mean for all else."""
    if metric.unit == MACRO_F1.unit:
        return _F1
    return _SHARE if metric.unit == SHARE else _REST


def parsed(options: Sequence[str]) -> dict[str, Tolerance]:
    """Return what ``METRIC=VALUE`` or ``METRIC=PERCENT%`` says; ``UserError`` for anything else."""
    found = {}
    for option in options:
        name, _, text = option.rpartition("=")
        relative = text.endswith("%")
        try:
            value = float(text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            value = 0.0
        if not name or not 0 < value < float("inf"):
            raise UserError(f"--tolerance {option!r:.60}: give METRIC=VALUE, such as macro_f1/tfidf=0.05, vendi=15%.")
        found[name] = Tolerance(value=value, relative=relative)
    return found
