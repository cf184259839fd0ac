"""Which runs, cells and entries of two runs may be held against each other, and what else differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.records import Entry, Manifest, Selection
from harness.ranking.results import EntryRow, ResultSet

_AXES = ("tasks", "languages", "seeds")


@dataclass(frozen=True)
class EntryPair:
    """An entry of A and its partner in B."""

    a: EntryRow
    b: EntryRow

    @property
    def name(self) -> str:
        """What both are called, or both names."""
        return self.a.name if self.a.name == self.b.name else f"{self.a.name} → {self.b.name}"

    @property
    def changed(self) -> list[str]:
        """What of the method differs, such as ``strength 0.2 → 0.3``."""
        one, other = self.a.entry.method, self.b.entry.method
        fields: dict[str, tuple[object, object]] = {"version": (one.version, other.version)}
        for option in sorted({*one.options, *other.options}):
            fields[option] = (one.options.get(option), other.options.get(option))
        return [f"{field} {old} → {new}" for field, (old, new) in fields.items() if old != new]


def common_selection(a: Manifest, b: Manifest) -> Selection:
    """Return what both runs cover. Raises ``UserError``, with what differs, where they do not compare."""
    if a.suite_hash != b.suite_hash:
        raise UserError(
            f"the runs are of different suites: {_suite(a)} and {_suite(b)}{_where(a.suite, b.suite)}. "
            "Only runs of one suite can be compared: run both with the same."
        )
    common = _overlap(a, b)
    _check_sizes(a, b, common)
    _check_data(a, b, common)
    return common


def _overlap(a: Manifest, b: Manifest) -> Selection:
    axes = {}
    for axis in _AXES:
        one, other = getattr(a.selection, axis), getattr(b.selection, axis)
        axes[axis] = [value for value in one if value in other]
        if not axes[axis]:
            raise UserError(f"the runs have no {axis} in common: {format_list(one)} against {format_list(other)}.")
    return a.selection.model_copy(update=axes)


def _check_sizes(a: Manifest, b: Manifest, common: Selection) -> None:
    for task in common.tasks:
        one, other = (side.selection.texts_per_label[task] for side in (a, b))
        if one != other:
            raise UserError(
                f"the runs differ in texts per label of {task}: {one} against {other}. "
                "Only cells of one size can be compared: run both with the same --limit."
            )


def _check_data(a: Manifest, b: Manifest, common: Selection) -> None:
    places = [f"{task}/{code}" for task in common.tasks for code in common.languages]
    pairs = [(place, a.data_hashes.get(place), b.data_hashes.get(place)) for place in places]
    different = [place for place, one, other in pairs if one and other and one != other]
    if different:
        raise UserError(
            f"the runs are of different data in {format_list(different)}. "
            "Only runs of the same human text can be compared: run both with the same --data."
        )


def _suite(manifest: Manifest) -> str:
    return f"{manifest.suite['name']} ({manifest.suite_hash})"


def _where(a: dict[str, Any], b: dict[str, Any]) -> str:
    fields = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    return f", which differ in {format_list(fields)}" if fields else ""


def excluded_axes(a: Selection, b: Selection, common: Selection) -> list[str]:
    """Return in words, axis by axis, what only one of the runs covers."""
    words = []
    for axis in _AXES:
        left = {
            side: [value for value in getattr(chosen, axis) if value not in getattr(common, axis)]
            for side, chosen in (("A", a), ("B", b))
        }
        alone = [f"{format_list(values)} (only {side})" for side, values in left.items() if values]
        if alone:
            words.append(f"{axis} left out: {'; '.join(alone)}")
    return words


def environment_diff(a: Manifest, b: Manifest) -> list[tuple[str, str, str]]:
    """Return what differs between how the runs came about: versions, commit, device, model, text."""
    sides = [_facts(a), _facts(b)]
    facts = sorted({*sides[0], *sides[1]})
    shown = [(fact, *(side.get(fact) or "–" for side in sides)) for fact in facts]
    return [(fact, one, other) for fact, one, other in shown if one != other]


def _facts(manifest: Manifest) -> dict[str, str | None]:
    model = manifest.model
    return {
        "device": manifest.device,
        "git commit": manifest.git_commit,
        "data": manifest.data_source,
        "contrast text": manifest.contrast,
        "plug-ins": format_list(manifest.plugins) if manifest.plugins else None,
        "model": model.name if model else None,
        "model weights": model.fingerprint if model else None,
        "model revision": model.revision if model else None,
        "precision": model.dtype if model else None,
        **{f"version of {name}": version for name, version in manifest.versions.items()},
    }


def match_entries(a: ResultSet, b: ResultSet) -> tuple[list[EntryPair], list[str], list[str]]:
    """Return the pairs of entries in the order of A, and the names of those that have no partner.

    An entry's partner is the same entry; else the only one of the same method and config, model aside; else
    the only one of the same method title. Each with the same setting.
    """
    left, right = dict(a.entries), dict(b.entries)
    found: dict[str, str] = {}
    for same in (_whole, _config, _title):
        keys = [_unique(rows, same) for rows in (left, right)]
        for key in keys[0].keys() & keys[1].keys():
            found[keys[0][key]] = keys[1][key]
            del left[keys[0][key]], right[keys[1][key]]
    pairs = [EntryPair(row, b.entries[found[name]]) for name, row in a.entries.items() if name in found]
    return pairs, [row.name for row in left.values()], [row.name for row in right.values()]


def _whole(entry: Entry) -> str:
    return digest(entry.model_dump(mode="json"))


def _config(entry: Entry) -> str:
    return digest([entry.method.model_dump(mode="json"), entry.setting])


def _title(entry: Entry) -> str:
    return digest([entry.method.title, entry.setting])


def _unique(rows: dict[str, EntryRow], same: Callable[[Entry], str]) -> dict[str, str]:
    """Return key -> entry id, for keys that only one entry has."""
    groups: dict[str, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(same(row.entry), []).append(name)
    return {key: names[0] for key, names in groups.items() if len(names) == 1}


def format_list(values: Sequence[object], most: int = 6) -> str:
    """Return values in words, with commas, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown or "none"
