"""Compare two builds of a board by their published result files: what was added, removed and changed.

Only published numbers are compared; whether a difference between two runs is more than noise, cell by cell, is
the question of ``harness.ranking.compare``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.files import canonical_json
from harness.core.reading import read_json
from harness.core.schema import SCHEMA, format_validation_error
from leaderboard.downloads.records import (
    RESULTS_SCHEMA,
    BoardFacts,
    EntryFacts,
    EstimateFacts,
    FlagFacts,
    ResultFile,
)
from leaderboard.text import WORDS

SMALLEST = 0.0005
"""Changes of a mean or a gain up to this one are not reported."""

COST_SHARE = 0.1
"""Changes of a cost up to this share of the old one are not reported."""

_FILES = ("results.json", "downloads/results.json")  # in the directory of a site
_CLOSE = 1e-9  # of six significant digits

Item = TypeVar("Item", BoardFacts, EntryFacts)


def diff(old: Path, new: Path) -> dict[str, Any]:
    """Return what changed from one build to another, each a result file or the directory of a site.

    ``changed``: whether anything but the date and the version of the program (``program``) did. ``boards_added``,
    ``boards_gone``: titles. ``boards``: those that changed, each with its entries that did; see ``_board``, ``_entry``.
    Raises ``UserError`` for a file that is missing, broken, foreign or of a newer steerboard.
    """
    before, after = read_results(old), read_results(new)
    pairs, gone, added = _match(before.boards, after.boards, _BOARD_KEYS)
    versions = [before.generator.version, after.generator.version]
    boards = [board for one, other in pairs if (board := _board(one, other))]
    return {
        "schema": SCHEMA,
        "old": str(old),
        "new": str(new),
        "old_date": before.date,
        "new_date": after.date,
        "program": versions if versions[0] != versions[1] else None,
        "changed": bool(added or gone or boards),
        "boards_added": [f"{board.title} ({board.id})" for board in added],
        "boards_gone": [f"{board.title} ({board.id})" for board in gone],
        "boards": boards,
    }


def read_results(path: Path) -> ResultFile:
    """Return a result file, given itself or the directory of a site; ``UserError`` where it is not readable."""
    if path.is_dir():
        found = [path / name for name in _FILES if (path / name).is_file()]
        if not found:
            raise UserError(
                f"{path} does not contain {_FILES[0]}. Pass the directory that 'steerboard board build --out DIR' "
                "made, or the file itself."
            )
        path = found[0]
    body = read_json(path, RESULTS_SCHEMA)
    try:
        return ResultFile.model_validate(body)
    except ValidationError as error:
        reason = " ".join(format_validation_error(error).split())
        raise UserError(f"{path} is not a result file of steerboard: {reason}.") from None


# Matching


_BOARD_KEYS: Sequence[Callable[[Any], str]] = (
    lambda board: board.id,
    lambda board: f"{board.suite.name}\n{board.suite.hash}",
    lambda board: board.suite.name,
)
_ENTRY_KEYS: Sequence[Callable[[Any], str]] = (
    lambda entry: entry.id,
    lambda entry: "\n".join((entry.method.title, entry.setting, entry.model.name if entry.model else "")),
)


def _match(
    old: Sequence[Item], new: Sequence[Item], keys: Sequence[Callable[[Any], str]]
) -> tuple[list[tuple[Item, Item]], list[Item], list[Item]]:
    """Return pairs in the order of the new side, then what is left of each side.

    The first key that finds a partner decides; a key that several of a side share finds none.
    """
    left, right = list(old), list(new)
    pairs: list[tuple[Item, Item]] = []
    for key in keys:
        ours, theirs = (Counter(map(key, side)) for side in (left, right))
        shared = {name for name, n in ours.items() if n == theirs[name] == 1}
        by_key = {key(item): item for item in left if key(item) in shared}
        pairs += [(by_key[key(item)], item) for item in right if key(item) in shared]
        left, right = ([item for item in side if key(item) not in shared] for side in (left, right))
    order = {id(item): i for i, item in enumerate(new)}
    return sorted(pairs, key=lambda pair: order[id(pair[1])]), left, right


# Changes


def _board(old: BoardFacts, new: BoardFacts) -> dict[str, Any] | None:
    """Return what changed of one board; None where nothing did.

    ``scope``: changes of the board itself, such as its languages, in words. ``incomparable``: why its numbers cannot
    be compared with the old ones; then only ``added`` and ``gone`` are reported.
    """
    pairs, gone, added = _match(old.entries, new.entries, _ENTRY_KEYS)
    incomparable = _incomparable(old, new)
    compared = [] if incomparable else [_entry(one, other) for one, other in pairs]
    entries = [entry for entry in compared if entry]
    found = {
        "scope": _scope(old, new),
        "incomparable": incomparable,
        "added": [entry.name for entry in added],
        "gone": [entry.name for entry in gone],
        "entries": entries,
    }
    head = {"title": new.title, "old_id": old.id, "new_id": new.id, "headline": new.headline}
    return {**head, **found, "unchanged": len(compared) - len(entries)} if any(found.values()) else None


def _incomparable(old: BoardFacts, new: BoardFacts) -> str:
    if old.suite.hash != new.suite.hash:
        versions = f", version {old.suite.version} → {new.suite.version}"
        named = versions if old.suite.version != new.suite.version else ""
        return f"the suite changed{named} (hash {old.suite.hash[:12]} → {new.suite.hash[:12]})"
    if old.headline != new.headline:
        return f"ranked by another metric ({old.headline} → {new.headline})"
    return ""


def _scope(old: BoardFacts, new: BoardFacts) -> list[str]:
    """Return in words how the boards themselves differ: then means are over other cells or data."""
    before, after = old.selection.model_dump(mode="json"), new.selection.model_dump(mode="json")
    names = [name for name in before if name != "narrowed" and before[name] != after[name]]
    lines = [f"selection changed, {n.replace('_', ' ')}: {_words(before[n])} → {_words(after[n])}" for n in names]
    if before["narrowed"] != after["narrowed"] and not names:
        lines.append(f"selection changed: {_words(before['narrowed'])} → {_words(after['narrowed'])}")
    hashes = old.data_hashes, new.data_hashes
    changed = [name for name in sorted({*hashes[0], *hashes[1]}) if hashes[0].get(name) != hashes[1].get(name)]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        lines.append(f"data changed: {', '.join(changed[:5])}{more}")
    return lines


def _words(value: Any) -> str:
    listed = [f"{name} {item}" for name, item in value.items()] if isinstance(value, dict) else map(str, value)
    return ", ".join(listed) or "none"


def _entry(old: EntryFacts, new: EntryFacts) -> dict[str, Any] | None:
    """Return what changed of one entry; None where nothing did.

    ``changed``: of its identity, in words, where another config, version or model of the same name replaced it.
    ``tier``, ``cells``: before and after in words, None where equal. ``mean``, ``over_zero_shot``: by the headline
    metric, None where within ``SMALLEST``.
    """
    flags_old, flags_new = _flags(old.flags), _flags(new.flags)
    sides = [old, new]
    found = {
        "changed": _identity(old, new),
        "tier": _differing([entry.tier_words for entry in sides]),
        "mean": _shift(old.standing.mean, new.standing.mean),
        "over_zero_shot": _shift(old.standing.over_zero_shot, new.standing.over_zero_shot),
        "cells": _differing([f"{entry.cells.present}/{entry.cells.expected}" for entry in sides]),
        "flags_new": [words for name, words in flags_new.items() if name not in flags_old],
        "flags_gone": [words for name, words in flags_old.items() if name not in flags_new],
        "costs": _costs(old, new),
    }
    return {"name": new.name, "old_id": old.id, "new_id": new.id, **found} if any(found.values()) else None


def _differing(sides: list[str]) -> list[str] | None:
    return sides if sides[0] != sides[1] else None


def _shift(old: EstimateFacts | None, new: EstimateFacts | None) -> dict[str, Any] | None:
    if old is new is None or (old and new and abs(new.mean - old.mean) <= SMALLEST + _CLOSE):
        return None
    return {side: found.model_dump(mode="json") if found else None for side, found in (("old", old), ("new", new))}


def _flags(flags: Sequence[FlagFacts]) -> dict[tuple[str, str, str], str]:
    """Return flags by what is wrong where; their words contain the value, which may move a little."""
    return {(flag.metric, flag.task, flag.words.partition(":")[0]): flag.words for flag in flags}


def _costs(old: EntryFacts, new: EntryFacts) -> list[dict[str, Any]]:
    found = []
    for name in WORDS["costs"]:
        before, after = (getattr(side.cost, name) if side.cost else None for side in (old, new))
        if before and after is not None and abs(after - before) > (COST_SHARE + _CLOSE) * before:
            found.append({"name": name, "old": before, "new": after})
    return found


def _identity(old: EntryFacts, new: EntryFacts) -> list[str]:
    """Return in words how the identities of two entries differ."""
    if old.id == new.id:
        return []
    models = [entry.model.model_dump() if entry.model else {} for entry in (old, new)]
    return [
        *_changes("", {"version": old.method.version}, {"version": new.method.version}),
        *_changes("", old.method.options, new.method.options),
        *_changes("model's ", *models),
    ]


def _changes(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    sides = {name: [_short(side, name) for side in (old, new)] for name in dict.fromkeys([*old, *new])}
    return [f"{prefix}{name} {one} → {other}" for name, (one, other) in sides.items() if one != other]


def _short(side: Mapping[str, Any], name: str) -> str:
    if name not in side:
        return "–"
    text = side[name] if isinstance(side[name], str) else canonical_json(side[name])
    return text if len(text) <= 60 else f"{text[:60]}…"
