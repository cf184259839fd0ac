"""A linear axis with round ticks, and where values lie on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import quantiles

from harness.ranking.summary import format_number

_FEW = 6  # values, of which none is called an outlier


@dataclass(frozen=True)
class Scale:
    """A stretch of numbers from ``start`` to ``stop`` on pixels from ``left`` to ``right``.

    ``left`` may lie right of ``right``, as on an axis that points up.
    """

    start: float
    stop: float
    step: float
    left: float
    right: float

    def at(self, value: float) -> float:
        """Return the pixel of a value; the end of the axis for a value beyond it."""
        share = (min(max(value, self.start), self.stop) - self.start) / (self.stop - self.start)
        return round(self.left + share * (self.right - self.left), 1)

    def beyond(self, value: float) -> int:
        """Return -1 or 1 for a value below or above the axis, 0 for one on it."""
        slack = 1e-9 * (self.stop - self.start)
        return -1 if value < self.start - slack else 1 if value > self.stop + slack else 0

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and text of every round number on the axis."""
        first, last = math.ceil(self.start / self.step - 1e-9), math.floor(self.stop / self.step + 1e-9)
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        values = [i * self.step for i in range(first, last + 1)]
        return [(self.at(value), format_number(value, digits)) for value in values]


def scale(values: Iterable[float], left: float, right: float, ticks: int = 4) -> Scale:
    """Return an axis with about so many ticks that holds all values; 0 to 1 where there are none."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Scale(0.0, 1.0, 0.5, left, right)
    low, high = min(known), max(known)
    step = _step(max(high - low, 1e-3 * max(abs(low), abs(high), 1e-3)), ticks)
    start = math.floor(low / step + 1e-9) * step
    stop = math.ceil(high / step - 1e-9) * step
    return Scale(start, stop if stop > start else start + step, step, left, right)


def tight(values: Iterable[float], left: float, right: float, ticks: int = 4) -> Scale:
    """Return an axis that ends at the least and the greatest of these values, with round ticks between."""
    known = list(values)
    low, high = min(known), max(known)
    return Scale(low, high, _step(high - low, ticks), left, right)


def without_outliers(values: Iterable[float]) -> list[float]:
    """Return the values within the outer fences of Tukey (1977): the middle half, and three times it around.

    All of them where they are few, where the middle half is one value, and where the others would take less
    than half of an axis.
    """
    known = [value for value in values if math.isfinite(value)]
    if len(known) < _FEW:
        return known
    lower, _, upper = quantiles(known, n=4, method="inclusive")
    reach = 3 * (upper - lower)
    inner = [value for value in known if lower - reach <= value <= upper + reach]
    squashed = max(known) - min(known) > 2 * (max(inner) - min(inner))
    return inner if reach and squashed else known


def _step(span: float, ticks: int) -> float:
    """Return 1, 2 or 5 times a power of ten, so that there are ``ticks`` to about twice as many."""
    power = 10.0 ** math.floor(math.log10(span / ticks))
    return next((power * m for m in (1, 2, 5, 10) if span / (power * m) <= 2 * ticks), power * 10)
