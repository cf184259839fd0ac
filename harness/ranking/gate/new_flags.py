"""Flags that a run carries and its baseline did not: copies, another language, collapse."""

from __future__ import annotations

from dataclasses import replace

from harness.ranking.flags import Flag, flags
from harness.ranking.gate.scope import ComparedSlice
from harness.ranking.results import ResultSet


def new_flags(seen: ComparedSlice) -> list[tuple[str, str]]:
    """Return entry and words of every flag that is new.

    Both sides are cut to the entries that both have, as some bounds hang on the unsteered entries.
    """
    before = flags(_only(seen.base, [pair.a.id for pair in seen.pairs]))
    now = flags(_only(seen.new, [pair.b.id for pair in seen.pairs]))
    found = []
    for pair in seen.pairs:
        known = {_place(flag) for flag in before[pair.a.id]}
        found += [(pair.name, flag.words) for flag in now[pair.b.id] if _place(flag) not in known]
    return found


def _only(cellset: ResultSet, names: list[str]) -> ResultSet:
    lines = cellset.scores
    entries = {name: cellset.entries[name] for name in names}
    return replace(cellset, entries=entries, scores=lines[lines["entry"].isin(names)])


def _place(flag: Flag) -> tuple[str, str]:
    """Return the metric and where it broke its bound: a task, or a language of it, as the words say."""
    return flag.metric.name, flag.words.rpartition(" in ")[2].partition(",")[0]
