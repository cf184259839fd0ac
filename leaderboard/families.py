"""Families: what a row of a board is there for. Pages colour and filter by them, downloads name them."""

from __future__ import annotations

from typing import Literal

from harness.core.records import Entry
from harness.ranking.gains import FEW_SHOT
from harness.ranking.results import BASELINE

RowKind = Literal["steering", "baseline", "control", "reference"]

FAMILIES: tuple[RowKind, ...] = ("steering", "baseline", "control", "reference")
"""All families, in the order in which they are listed."""


def row_kind(entry: Entry) -> RowKind:
    """Return the family of an entry.

    ``reference``: no model wrote the texts. ``baseline``: zero-shot and few-shot, unsteered. ``control``: a
    method that stands for what remains when another's claim is taken away. ``steering``: everything else.
    """
    if entry.setting == "none":
        return "reference"
    if entry.method.name in {BASELINE, FEW_SHOT}:
        return "baseline"
    return "control" if "of" in entry.method.config else "steering"
