"""Copy finished cells between a run's folder and a storage, both ways: what one side has and the other does not.

Nothing that is finished is replaced. Of a cell that both sides have, only scores travel, to a side whose scorers are
some of the other's. The manifests are merged by the rules of a second start of the run.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path

from rich.console import Console

from harness.core.cells import cell_id
from harness.core.errors import InvalidFileError, MachineError, UserError, pasted, warn
from harness.core.files import run_lock, write_bytes
from harness.core.reading import parse_json, read_bytes
from harness.core.records import CellScores, CellStatus, Manifest, Selection
from harness.core.schema import Kind, parse_record
from harness.core.storage import CELL_FILES, NAMES, SWEEP, Push, Storage, StoredFile
from harness.core.store import KEPT, TEXTS, Run
from harness.data.suite import restore_suite
from harness.runner.plan import merge_selections
from harness.runner.prepare import merge_manifests
from harness.runner.progress import Tracker, progress_bar

_SCORES = (*KEPT, "scores.json")
_PARTS = ("", SWEEP)  # the run, and the search of 'steerboard tune' within it
_BATCH_FILES, _BATCH_BYTES = 64, 2**26  # in memory at once
_INDEXED = 500  # files sent until an index names them: what a machine that dies has sent is not lost
_PUSH_AGAIN = "Push again from where the run is, to another folder."

Files = dict[str, StoredFile]
"""Name in the run -> file."""

Units = dict[str, Files]
"""What is there as a whole or not at all, such as the texts of a cell, or its scores -> its files."""


@dataclass(frozen=True)
class Copied:
    """What was copied, or would be. ``present``: files that were there already.

    ``kept``: number of things that differ on both sides and stay as they are, such as the cost of a fit.
    """

    files: int
    bytes: int
    cells: int
    present: int
    kept: int


@dataclass
class _Remote:
    """What a storage holds of a run. ``manifests``: part of the run -> all that were pushed, by SHA-256."""

    units: Units = field(default_factory=dict)
    manifests: dict[str, Files] = field(default_factory=dict)


def push_run(folder: Path, url: str, console: Console, dry_run: bool = False) -> Copied:
    """Copy finished cells of a run, its steering files and tuning results to a storage; a command may be writing it.

    Raises ``UserError`` where the storage holds another run or other texts of a finished cell; then nothing is sent.
    """
    Run(folder).manifest()
    storage = Storage(url)
    remote = _read_remote(storage.pushes())
    known = _read_manifests(storage, remote)
    units: Units = {}
    manifests: Files = {}
    for part in _PARTS:
        run = Run(folder / part)
        if run.exists():
            if part in known:
                _merge(run.manifest(), known[part], storage.name)
            stored = _stored(run, "manifest.json")
            if stored.sha256 not in remote.manifests.get(part, {}):
                manifests[f"{part}manifest.json"] = stored
            units |= _list_units(run, part)
    packages = _compare(units, remote.units, folder, storage.name)
    if manifests:
        packages.insert(0, manifests)
    copied = _count(packages, units, remote.units)
    if packages and not dry_run:
        with progress_bar(console, "push", copied.files, "files", announced=False) as tracker:
            _send(Run(folder), storage, packages, tracker, copied.bytes)
    return copied


def pull_run(url: str, folder: Path, console: Console, dry_run: bool = False) -> Copied:
    """Copy what a storage holds of a run into its folder, which is made where there is none.

    The manifest is written last: a pull that is stopped leaves the run as it was, with cells that no entry has, and
    the same pull again completes it. Raises ``UserError`` where the folder holds another run or other texts of a
    finished cell, and for anything that is not what was pushed; nothing of that is written.
    """
    storage = Storage(url)
    remote = _read_remote(storage.pushes())
    if "" not in remote.manifests:
        raise UserError(f"{storage.name} holds no run. Push one: {pasted('push', 'RUN', storage.name)}")
    manifests = _read_manifests(storage, remote)
    with nullcontext() if dry_run else run_lock(folder, "RUN"):
        units: Units = {}
        for part in _PARTS:
            run = Run(folder / part)
            units |= _list_units(run, part)
            if part in manifests and run.exists():
                manifests[part] = _merge(run.manifest(), manifests[part], storage.name)
        packages = _compare(remote.units, units, storage.name, folder)
        copied = _count(packages, remote.units, units)
        if dry_run:
            return copied
        free = shutil.disk_usage(folder).free
        if copied.bytes > free:
            raise MachineError(
                f"{folder} has room for {free:,} bytes, and {copied.bytes:,} are to come. Free space and run the same "
                "command again."
            )
        if packages:
            with progress_bar(console, "pull", copied.files, "files", announced=False) as tracker:
                _fetch(Run(folder), storage, packages, tracker, copied.bytes)
        for part, manifest in manifests.items():
            run = Run(folder / part)
            if not run.exists() or run.manifest() != manifest:
                run.write_manifest(manifest)
    return copied


# What is where


def _unit(name: str) -> str:
    """Return the unit that a file belongs to."""
    folder, _, file = name.rpartition("/")
    if "cells/" in name:
        return f"{folder}/scores" if file in _SCORES else folder
    return name.partition(".")[0] if "steering/" in name else name


def _stored(run: Run, name: str) -> StoredFile:
    return StoredFile(sha256=run.files.digest(name), size=run.files.version(name)[1])


def _list_units(run: Run, part: str) -> Units:
    """Return what a run holds that may travel; names begin with ``part``."""
    found: Units = {}
    for name, scorers in _list_files(run, part):
        if NAMES.fullmatch(part + name) and run.files.version(name)[1]:  # else damaged
            stored = _stored(run, name).model_copy(update={"scorers": scorers})
            found.setdefault(_unit(part + name), {})[part + name] = stored
    return found


def _list_files(run: Run, part: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of files that may travel, ``scores.json`` with its scorers."""
    for folder, pattern in (("steering", "*.safetensors"), ("steering", "*.cost.json"), ("separation", "*.json")):
        yield from ((f"{folder}/{path.name}", ()) for path in sorted((run.path / folder).glob(pattern)))
    if not part and run.files.exists("tuned.json"):
        yield "tuned.json", ()
    for name in run.cell_ids():
        status, cell = run.status(name), f"cells/{name}"
        if status is None or status.state not in {"ok", "skipped"}:
            continue
        if status.state == "ok":
            if not run.finished(name):
                warn(f"{run.cell(name)} does not count: its texts are damaged. Repeat the 'steerboard run' command.")
                continue
            yield f"{cell}/{TEXTS}", ()
            head = run.read_scores_head(name)
            texts = run.generations_digest(name)
            if head and head["generations_sha256"] == texts and not run.lost(name, head.get("kept", {})):
                yield from ((f"{cell}/{file}", ()) for file in KEPT)
                yield f"{cell}/scores.json", tuple(sorted(head.get("parts", {})))
        yield f"{cell}/status.json", ()


def _read_remote(pushes: Sequence[Push]) -> _Remote:
    """Return what pushes hold together. Of texts that differ the first count, with scores of them alone."""
    found = _Remote()
    for push in pushes:
        units: Units = {}
        for name, stored in push.files.items():
            if name.endswith("manifest.json"):
                found.manifests.setdefault(name.removesuffix("manifest.json"), {})[stored.sha256] = stored
            else:
                units.setdefault(_unit(name), {})[name] = stored
        other = {unit for unit in units.keys() & found.units if _texts(units[unit]) != _texts(found.units[unit])}
        for unit, files in units.items():
            if unit.removesuffix("/scores") not in other and _adds(unit, files, found.units.get(unit)):
                found.units[unit] = files
    return found


def _texts(files: Files) -> str | None:
    """Return the SHA-256 of the texts of a cell, None for a cell that was skipped and for anything else."""
    return next((stored.sha256 for name, stored in files.items() if name.endswith(TEXTS)), None)


def _adds(unit: str, files: Files, there: Files | None) -> bool:
    """Say whether a side that has ``there`` of a unit, or nothing, gets these files."""
    return there is None or (unit.endswith("/scores") and _scorers(files) > _scorers(there))


def _scorers(files: Files) -> set[str]:
    return {scorer for stored in files.values() for scorer in stored.scorers}


def _compare(source: Units, target: Units, where: object, other: object) -> list[Files]:
    """Return what to copy, a whole cell at a time and cells last; ``UserError`` for a cell with other texts."""
    both = source.keys() & target.keys()
    conflicts = sorted(unit for unit in both if _texts(source[unit]) != _texts(target[unit]))
    if conflicts:
        more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
        raise UserError(
            f"{conflicts[0]}{more} is finished in {where} and in {other}, with other texts: nothing was copied. Delete "
            "that folder of the run to take the texts of the storage, or choose another folder."
        )
    wanted: Units = {}
    for unit, files in source.items():
        if _adds(unit, files, target.get(unit)):
            wanted.setdefault(unit.removesuffix("/scores"), {}).update(files)
    return [wanted[unit] for unit in sorted(wanted, key=lambda unit: ("cells/" in unit, unit))]


def _count(packages: Sequence[Files], source: Units, target: Units) -> Copied:
    files = sum(map(len, packages))
    return Copied(
        files=files,
        bytes=sum(map(_size, packages)),
        cells=sum(map(_is_cell, packages)),
        present=sum(len(files) for unit, files in source.items() if files == target.get(unit)),
        kept=sum(
            files != target[unit] and not (_adds(unit, files, target[unit]) or _adds(unit, target[unit], files))
            for unit, files in source.items()
            if unit in target and (unit.endswith("/scores") or "cells/" not in unit)
        ),
    )


def _size(files: Files) -> int:
    return sum(stored.size for stored in files.values())


def _is_cell(files: Files) -> bool:
    return "cells/" in next(iter(files))


# Manifests


def _read_manifests(storage: Storage, remote: _Remote) -> dict[str, Manifest]:
    """Return the manifest of every part of the run in a storage, merged from all that were pushed."""
    found: dict[str, Manifest] = {}
    for part, files in remote.manifests.items():
        label = f"{storage.name}: {part}manifest.json"
        read = (_parse(data, label, Manifest) for stored in files.values() for data in storage.read([stored]))
        found[part] = reduce(partial(_merge, where=storage.name), read)
    return found


def _parse(data: bytes, label: str, kind: type[Kind]) -> Kind:
    """Return a record of a storage, which is never repaired there."""
    try:
        parse_json(data, label, strict=True)  # a number such as NaN could not be written again
        return parse_record(data, label, kind)
    except InvalidFileError as error:
        raise InvalidFileError(error.name, error.problem, _PUSH_AGAIN) from None


def _merge(local: Manifest, remote: Manifest, where: str) -> Manifest:
    """Return a manifest with what that in a storage adds; what describes the machine, such as folders, stays."""
    other = "another folder"
    for what, same in (
        (f"of the {remote.track} track", local.track == remote.track),
        ("with another suite of the same hash", local.suite_hash != remote.suite_hash or local.suite == remote.suite),
        ("with other contrast text", (local.contrast is None) == (remote.contrast is None)),
        (
            "for which the chat template was used in another way",
            not (local.model and remote.model) or local.chat == remote.chat,
        ),
    ):
        if not same:
            raise UserError(f"{where} holds a run {what}. Choose {other}.")
    merged = merge_manifests(remote, local, where, partial(_merge_selections, local, where), other)
    lists = {}
    for name in ("entries", "plugins", "commands"):  # in the local order, so that machines come to rest
        ours = getattr(local, name)
        lists[name] = [*ours, *(item for item in getattr(remote, name) if item not in ours)]
    created = min(filter(None, (local.created, remote.created)), default="")
    return merged.model_copy(update={**lists, "created": created})


def _merge_selections(manifest: Manifest, where: str, old: Selection, new: Selection) -> Selection:
    if old == new:
        return new
    if manifest.track == "understanding":  # a manifest does not have what its selection is made of
        raise UserError(
            f"{where} holds a run of other languages or seeds. Give 'steerboard lm-eval' the same, or choose another "
            "folder."
        )
    both = merge_selections(restore_suite(manifest.suite), old, new)
    return both.model_copy(update={"absent": list(dict.fromkeys([*new.absent, *old.absent]))})


# Copies


def _batches(packages: Sequence[Files]) -> Iterator[list[Files]]:
    """Yield packages together that fit in memory."""
    batch: list[Files] = []
    n_files = size = 0
    for package in packages:
        if batch and (n_files + len(package) > _BATCH_FILES or size + _size(package) > _BATCH_BYTES):
            yield batch
            batch, n_files, size = [], 0, 0
        batch.append(package)
        n_files, size = n_files + len(package), size + _size(package)
    if batch:
        yield batch


def _send(run: Run, storage: Storage, packages: Sequence[Files], tracker: Tracker, total: int) -> None:
    """Send packages, and after every few hundred files the index that names them."""
    there, done = storage.objects(), 0
    named: Files = {}
    for batch in _batches(packages):
        objects: dict[str, bytes] = {}
        for package in batch:
            read = {name: read_bytes(run.path / name) for name in package}
            if any(hashlib.sha256(data).hexdigest() != package[name].sha256 for name, data in read.items()):
                warn(f"{next(iter(package))} was written while it was read: push again to send it")
                continue
            named |= package
            objects |= {package[name].sha256: data for name, data in read.items()}
        new = {digest: data for digest, data in objects.items() if there.get(digest) != len(data)}
        storage.write(new)
        there |= {digest: len(data) for digest, data in new.items()}
        done += sum(map(_size, batch))
        _show(tracker, batch, done, total)
        if len(named) >= _INDEXED:
            storage.write_push(named)
            named = {}
    if named:
        storage.write_push(named)


def _fetch(run: Run, storage: Storage, packages: Sequence[Files], tracker: Tracker, total: int) -> None:
    """Write packages into a run, each after a check of the whole of it, and of a cell the status last."""
    done = 0
    for batch in _batches(packages):
        stored = {name: item for package in batch for name, item in package.items()}
        data = dict(zip(stored, storage.read(list(stored.values())), strict=True))
        for package in filter(_is_cell, batch):
            _check_cell(run, {name: data[name] for name in package}, storage.name)
        for package in batch:
            for name in sorted(package, key=_order):
                write_bytes(run.path / name, data[name])
        done += sum(map(_size, batch))
        _show(tracker, batch, done, total)


def _order(name: str) -> int:
    """Return when a file is written: a steering file after its cost, a status after all else of its cell."""
    file = name.rpartition("/")[2]
    return CELL_FILES.index(file) if file in CELL_FILES else -file.endswith(".cost.json")


def _show(tracker: Tracker, batch: Sequence[Files], done: int, total: int) -> None:
    tracker.title = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
    tracker.advance(sum(map(len, batch)))


def _check_cell(run: Run, files: Mapping[str, bytes], where: str) -> None:
    """Refuse files that are not a whole finished cell, or not the scores of the one that the run has."""
    folder = next(iter(files)).rpartition("/")[0]
    found = {name.rpartition("/")[2]: data for name, data in files.items()}
    name, label = folder.rpartition("/")[2], f"{where}: {folder}"
    texts = hashlib.sha256(found[TEXTS]).hexdigest() if TEXTS in found else None
    if texts or "status.json" in found:
        status = _parse(found.get("status.json", b""), f"{label}/status.json", CellStatus)
        expected = status.generations_sha256 or texts if status.state == "ok" else None
        if cell_id(status.cell) != name or status.state not in {"ok", "skipped"}:
            raise InvalidFileError(label, "holds the status of another cell, or of one that failed", _PUSH_AGAIN)
        if texts != expected or (status.state == "ok" and not texts):
            raise InvalidFileError(label, "does not hold the texts that its status is of", _PUSH_AGAIN)
    if not found.keys().isdisjoint(_SCORES):
        scores = _parse(found.get("scores.json", b""), f"{label}/scores.json", CellScores)
        texts = texts or run.files.digest(f"{folder}/{TEXTS}")
        if scores.cell_id != name or scores.generations_sha256 != texts or not found.keys() >= set(_SCORES):
            raise InvalidFileError(label, "holds scores of other texts, or not all of them", _PUSH_AGAIN)
