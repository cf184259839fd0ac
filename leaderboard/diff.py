"""Two builds of a board against each other, from their published result files: what came, went and moved.

This compares what was published; whether a difference between two runs is more than noise, cell by cell, says
``harness.ranking.compare``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.files import canonical_json
from harness.core.reading import read_json
from harness.core.records import format_validation_error
from leaderboard.downloads.records import (
    RESULTS_SCHEMA,
    BoardFacts,
    EntryFacts,
    EstimateFacts,
    FlagFacts,
    ResultFile,
)

SMALLEST = 0.0005
"""Changes of a mean or a gain up to this one are not reported."""

COSTS = {
    "seconds_per_1000_valid": "seconds per 1,000 valid texts",
    "tokens_per_1000_valid": "tokens per 1,000 valid texts",
    "texts_per_second": "texts per second",
}
"""Fields of the cost that are compared."""

COST_SHARE = 0.1
"""Changes of a cost up to this share of the old one are not reported."""

_PLACES = ("results.json", "downloads/results.json")  # in the folder of a site
_CLOSE = 1e-9  # of six significant digits

Item = TypeVar("Item", BoardFacts, EntryFacts)


@dataclass(frozen=True)
class Shift:
    """An estimate before and after; None where it was or is not known."""

    old: EstimateFacts | None
    new: EstimateFacts | None


@dataclass(frozen=True)
class CostShift:
    """A cost before and after; ``name`` is the field, ``title`` what it is."""

    name: str
    title: str
    old: float
    new: float


@dataclass(frozen=True)
class EntryDiff:
    """What changed of one entry; empty where nothing did.

    ``changed``: of its identity, in words, where another config, version or model of the same name took its
    place. ``tier``, ``cells``: before and after in words, None where equal. ``mean``, ``gain``: by the
    headline metric and over zero-shot, None where within ``SMALLEST``.
    """

    name: str
    old_id: str
    new_id: str
    changed: list[str]
    tier: tuple[str, str] | None
    mean: Shift | None
    gain: Shift | None
    cells: tuple[str, str] | None
    flags_new: list[str]
    flags_gone: list[str]
    costs: list[CostShift]

    @property
    def empty(self) -> bool:
        """Whether nothing changed."""
        found = (self.changed, self.tier, self.mean, self.gain, self.cells, self.flags_new, self.flags_gone)
        return not any(found) and not self.costs


@dataclass(frozen=True)
class BoardDiff:
    """What changed of one board. ``scope``: of the board itself, such as its languages, in words.

    ``incomparable``: why its numbers cannot be held against the old ones; then only ``added`` and ``gone``
    are told. ``entries``: those of both builds of which something changed; ``unchanged`` counts the others.
    """

    title: str
    old_id: str
    new_id: str
    headline: str
    scope: list[str]
    incomparable: str
    added: list[str]
    gone: list[str]
    entries: list[EntryDiff]
    unchanged: int

    @property
    def empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.scope or self.incomparable or self.added or self.gone or self.entries)


@dataclass(frozen=True)
class Diff:
    """All that two builds say about each other. ``program``: versions that wrote them, where they differ."""

    old: str
    new: str
    old_date: str
    new_date: str
    program: tuple[str, str] | None
    added: list[str]
    gone: list[str]
    boards: list[BoardDiff]

    @property
    def empty(self) -> bool:
        """Whether nothing changed but the date and the version of the program."""
        return not (self.added or self.gone) and all(board.empty for board in self.boards)


def diff(old: Path, new: Path) -> Diff:
    """Return what changed from one build to another, each a result file or the folder of a site.

    Raises ``UserError`` for a file that is missing, broken, foreign or of a newer steerboard.
    """
    before, after = read_results(old), read_results(new)
    pairs, gone, added = _partners(before.boards, after.boards, _BOARD_KEYS)
    versions = before.generator.version, after.generator.version
    return Diff(
        old=str(old),
        new=str(new),
        old_date=before.date,
        new_date=after.date,
        program=versions if versions[0] != versions[1] else None,
        added=[f"{board.title} ({board.id})" for board in added],
        gone=[f"{board.title} ({board.id})" for board in gone],
        boards=[_board(one, other) for one, other in pairs],
    )


def read_results(path: Path) -> ResultFile:
    """Return a result file, given itself or the folder of a site; ``UserError`` where it is not readable."""
    if path.is_dir():
        found = [path / place for place in _PLACES if (path / place).is_file()]
        if not found:
            raise UserError(
                f"{path} holds no {_PLACES[0]}. Give the folder that 'steerboard board build --out DIR' "
                "made, or the file itself."
            )
        path = found[0]
    body = read_json(path, RESULTS_SCHEMA)
    try:
        return ResultFile.model_validate(body)
    except ValidationError as error:
        reason = " ".join(format_validation_error(error).split())
        raise UserError(f"{path} is not a result file of steerboard: {reason}.") from None


# Who belongs to whom


def _model(entry: EntryFacts) -> str:
    return entry.model.name if entry.model else ""


_BOARD_KEYS = (
    lambda board: board.id,
    lambda board: f"{board.suite.name}\n{board.suite.hash}",
    lambda board: board.suite.name,
)
_ENTRY_KEYS = (
    lambda entry: entry.id,
    lambda entry: "\n".join((entry.method.title, entry.setting, _model(entry))),
)


def _partners(
    old: Sequence[Item], new: Sequence[Item], keys: Sequence[Any]
) -> tuple[list[tuple[Item, Item]], list[Item], list[Item]]:
    """Return pairs in the order of the new side, then what is left of each side.

    The first key that finds a partner decides; one that several of a side share, finds none.
    """
    left, right = list(old), list(new)
    pairs: list[tuple[Item, Item]] = []
    for key in keys:
        ours, theirs = [key(item) for item in left], [key(item) for item in right]
        shared = {name for name in ours if ours.count(name) == theirs.count(name) == 1}
        by_key = {name: item for name, item in zip(ours, left, strict=True) if name in shared}
        pairs += [(by_key[name], item) for name, item in zip(theirs, right, strict=True) if name in shared]
        left = [item for name, item in zip(ours, left, strict=True) if name not in shared]
        right = [item for name, item in zip(theirs, right, strict=True) if name not in shared]
    order = {id(item): i for i, item in enumerate(new)}
    return sorted(pairs, key=lambda pair: order[id(pair[1])]), left, right


# What changed


def _board(old: BoardFacts, new: BoardFacts) -> BoardDiff:
    pairs, gone, added = _partners(old.entries, new.entries, _ENTRY_KEYS)
    incomparable = _incomparable(old, new)
    found = [] if incomparable else [_entry(one, other) for one, other in pairs]
    entries = [entry for entry in found if not entry.empty]
    return BoardDiff(
        title=new.title,
        old_id=old.id,
        new_id=new.id,
        headline=new.headline,
        scope=_scope(old, new),
        incomparable=incomparable,
        added=[entry.name for entry in added],
        gone=[entry.name for entry in gone],
        entries=entries,
        unchanged=len(found) - len(entries),
    )


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
    lines = [
        f"selection changed, {name.replace('_', ' ')}: {_told(before[name])} → {_told(after[name])}" for name in names
    ]
    if before["narrowed"] != after["narrowed"] and not names:
        lines.append(f"selection changed: {_told(before['narrowed'])} → {_told(after['narrowed'])}")
    hashes = old.data_hashes, new.data_hashes
    changed = [name for name in sorted({*hashes[0], *hashes[1]}) if hashes[0].get(name) != hashes[1].get(name)]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        lines.append(f"data changed: {', '.join(changed[:5])}{more}")
    return lines


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "none"
    return ", ".join(map(str, value)) or "none"


def _entry(old: EntryFacts, new: EntryFacts) -> EntryDiff:
    flags_old, flags_new = _flags(old.flags), _flags(new.flags)
    return EntryDiff(
        name=new.name,
        old_id=old.id,
        new_id=new.id,
        changed=_identity(old, new),
        tier=_differing(_tier(old), _tier(new)),
        mean=_shift(old.standing.mean, new.standing.mean),
        gain=_shift(old.standing.over_zero_shot, new.standing.over_zero_shot),
        cells=_differing(_cells(old), _cells(new)),
        flags_new=[words for name, words in flags_new.items() if name not in flags_old],
        flags_gone=[words for name, words in flags_old.items() if name not in flags_new],
        costs=_costs(old, new),
    )


def _differing(old: str, new: str) -> tuple[str, str] | None:
    return (old, new) if old != new else None


def _tier(entry: EntryFacts) -> str:
    if entry.standing.tier is not None:
        return str(entry.standing.tier)
    return "flag" if entry.flagged else "–"


def _cells(entry: EntryFacts) -> str:
    return f"{entry.cells.present}/{entry.cells.expected}"


def _shift(old: EstimateFacts | None, new: EstimateFacts | None) -> Shift | None:
    if old is None or new is None:
        return None if old is new else Shift(old, new)
    return Shift(old, new) if abs(new.mean - old.mean) > SMALLEST + _CLOSE else None


def _flags(flags: Sequence[FlagFacts]) -> dict[tuple[str, str, str], str]:
    """Return flags by what is wrong where; their words hold the value, which may move a little."""
    return {(flag.metric, flag.task, flag.words.partition(":")[0]): flag.words for flag in flags}


def _costs(old: EntryFacts, new: EntryFacts) -> list[CostShift]:
    found = []
    for name, title in COSTS.items():
        before = getattr(old.cost, name) if old.cost else None
        after = getattr(new.cost, name) if new.cost else None
        if before and after is not None and abs(after - before) > (COST_SHARE + _CLOSE) * before:
            found.append(CostShift(name, title, before, after))
    return found


def _identity(old: EntryFacts, new: EntryFacts) -> list[str]:
    """Return in words how the identities of two entries differ."""
    if old.id == new.id:
        return []
    found = _changes("", {"version": old.method.version}, {"version": new.method.version})
    found += _changes("", old.method.options, new.method.options)
    models = [entry.model.model_dump() if entry.model else {} for entry in (old, new)]
    return found + _changes("model's ", *models)


def _changes(prefix: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*old, *new])
    sides = {name: tuple(_json(side[name]) if name in side else "–" for side in (old, new)) for name in names}
    return [f"{prefix}{name} {one} → {other}" for name, (one, other) in sides.items() if one != other]


def _json(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
