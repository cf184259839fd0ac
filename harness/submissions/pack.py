"""From a finished run to a submission: the cells of one method with its settings, compressed and hashed."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.core.cells import entry_of
from harness.core.errors import UserError, pasted
from harness.core.files import canonical_json, staging, sweep
from harness.core.records import (
    CellKey,
    CellStatus,
    Entry,
    Manifest,
    MethodIdentity,
    ModelIdentity,
    format_validation_error,
)
from harness.core.store import CLASSIFIER, Run
from harness.data.suite import Suite, load_suite, restore_suite, suite_files
from harness.submissions.card import Card, CardResult, Hashes, folder_of
from harness.submissions.checksums import sha256
from harness.submissions.facts import build_card_fields, n_expected_cells
from harness.submissions.folder import CARD, CODE
from harness.submissions.submission import find
from harness.submissions.writing import anonymous, without_folders, write_card

_NEXT = "Finish it with the same 'steerboard run' command"


@dataclass(frozen=True)
class PackOptions:
    """What whoever packs says; None and empty leave it to the folder that is there, or to the run."""

    name: str | None = None
    method: str | None = None
    config: dict[str, Any] | None = None
    type: str | None = None
    authors: Sequence[str] = ()
    contact: str | None = None
    licence: str | None = None
    paper: str | None = None
    tuned_on: str | None = None
    code: Path | None = None
    entry_point: str | None = None
    partial: bool = False


@dataclass
class PackResult:
    """What was packed, and in words what of the suite is missing."""

    folder: Path
    card: Card
    missing: list[str] = field(default_factory=list)


def pack(run: Run, out: Path, wishes: PackOptions) -> PackResult:
    """Write a method's cells of a run into ``out``, a submission's folder; other models' results there stay.

    Raises ``UserError`` for an incomplete run (unless ``partial``), unscored cells and missing facts.
    """
    manifest = run.manifest().require_generation_track(run.path)
    before = find(out) if (out / CARD).is_file() else None
    identity = choose(manifest, wishes.method or (before.card.method.name if before else None), wishes.config)
    entries = [entry for entry in manifest.entries if entry.method == identity]
    cells = _cells(run, identity)
    missing = _missing(manifest, entries, cells)
    if missing and not wishes.partial:
        raise UserError(
            f"{run.path} is not complete: {'; '.join(missing)}. {_NEXT}, or give --partial: the submission "
            "then says how much is there, and has no mean on the board."
        )
    body = build_card_fields(out, before.card if before else None, wishes, manifest, identity, cells)
    with staging(_parent(out)) as staged:
        result = _write_result(staged, run, manifest, entries, cells)
        files = _companions(staged, run, out, body, wishes, cells)
        card = _completed(body, result, entries[0].model, files)
        _install(staged, out, result.folder)
    write_card(out, card)
    sweep(out.parent, deep=False)
    return PackResult(out, card, missing)


def check_command(run: Run, packed: PackResult) -> str:
    """Return the command that checks what was packed: on the run's data, by what it was scored by."""
    manifest = run.manifest()
    name = str(manifest.suite["name"])
    ours = name in suite_files()
    words: list[object] = ["submission", "check", packed.folder]
    words += [] if ours else ["--suite", manifest.suite_source]
    shipped = load_suite(name).folder("data") if ours else None
    if manifest.data_source not in {"hub", str(shipped.resolve()) if shipped else ""}:
        words += ["--data", manifest.data_source]
    words += ["--contrast", manifest.contrast] if manifest.contrast else []
    known = [run.scores(cell) for cell in _cells(run, packed.card.identity)]
    parts = [set(scores.parts) for scores in known if scores]
    claimed = {part for part in set.intersection(*parts) if part.startswith(CLASSIFIER)} if parts else set()
    specs = sorted(part.removeprefix(CLASSIFIER) for part in claimed)
    if specs != sorted(manifest.suite["classifiers"]):
        words += [word for spec in specs for word in ("--classifier", _as_given(spec, manifest))]
    return pasted(*words)


def _as_given(spec: str, manifest: Manifest) -> str:
    """Return a classifier as the run's command named it: scores have of a local folder its name alone."""
    kind, _, rest = spec.partition(":")
    for word in (word for command in manifest.commands for word in command):
        given, _, path = word.partition(":")
        if rest and given == kind and Path(path.partition(",")[0]).name == rest.partition(",")[0]:
            return word
    return spec


def _completed(body: dict[str, Any], result: CardResult, model: ModelIdentity | None, files: dict[str, str]) -> Card:
    """Return the card with this result among those of other models."""
    others = [old for old in body["results"] if old["folder"] != result.folder]
    models = [known for known in body["models"] if known["name"] != result.model]
    changes = {
        "results": [*others, result.model_dump()],
        "models": [*models, *([model.model_dump()] if model else [])],
        "files": {**body["files"], **files},
    }
    try:
        return Card.model_validate({**body, **changes})
    except ValidationError as error:
        raise UserError(f"the submission cannot be written: {format_validation_error(error)}.") from None


def choose(manifest: Manifest, name: str | None, config: dict[str, Any] | None) -> MethodIdentity:
    """Return the one method of a run that is meant; ``UserError`` lists those there are."""
    found = {entry.method.model_dump_json(): entry.method for entry in manifest.entries}
    all_names = sorted({method.name for method in found.values()})
    fits = [m for m in found.values() if m.name == name and config in (None, m.config)]
    if name is None and len(all_names) == 1:
        fits = list(found.values())
    if not fits:
        listed = ", ".join(all_names)
        raise UserError(f"--method {name or '(not given)'}: the run has {listed}. Give one of these.")
    if len(fits) > 1:
        configs = "; ".join(f"version {m.version} {canonical_json(m.config)}" for m in fits)
        raise UserError(
            f"the run has {len(fits)} configurations of {fits[0].name}: {configs}. Choose with --config JSON."
        )
    return fits[0]


def _cells(run: Run, identity: MethodIdentity) -> dict[str, CellStatus]:
    found = {}
    for cell in run.cell_ids():
        status = run.status(cell)
        if status is not None and status.cell.method == identity:
            found[cell] = status
    return found


def _missing(manifest: Manifest, entries: Sequence[Entry], cells: dict[str, CellStatus]) -> list[str]:
    """Return in words what the suite asks for and the run does not have."""
    words = [f"narrowed to {part}" for part in manifest.selection.narrowed]
    chosen = manifest.selection
    places = len(chosen.languages) * len(chosen.tasks) * len(chosen.seeds)
    have = [status for status in cells.values() if status.state == "ok" and entry_of(status.cell) in entries]
    if len(have) < places * len(entries):
        others = {f"{s.state}: {s.reason}"[:120] for s in cells.values() if s.state != "ok"}
        why = f" ({'; '.join(sorted(others)[:3])})" if others else ""
        words.append(f"{len(have)} of {places * len(entries)} cells have texts{why}")
    return words


def _parent(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}. Choose another --out.") from None
    return out.parent


def _write_result(
    staged: Path, run: Run, manifest: Manifest, entries: list[Entry], cells: dict[str, CellStatus]
) -> CardResult:
    """Write the folder of a model's results; return what submission.yaml says of it."""
    root = staged / "results"
    files: dict[str, str] = {}
    texts: dict[str, str] = {}
    suite = restore_suite(manifest.suite)

    def put(name: str, data: bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files[name] = sha256(data)

    for cell, status in cells.items():
        shown = status.model_copy(update={"demonstrations": {}, "reason": without_folders(status.reason)})
        put(f"{cell}/status.json", (canonical_json(shown.to_json()) + "\n").encode())
        if status.state == "ok":
            scores = run.scores(cell)
            if scores is None:
                raise UserError(f"cell {cell} has no scores. Score it first: {pasted('score', run.path)}")
            _check_order(run, cell, status.cell, suite)
            data = (run.cell(cell) / "generations.jsonl").read_bytes()
            texts[cell] = sha256(data)
            put(f"{cell}/generations.jsonl.gz", gzip.compress(data, mtime=0))
            put(f"{cell}/scores.json.gz", compact(scores.model_copy(update={"kept": {}}).to_json()))
            put(f"{cell}/predictions.json.gz", compact({**run.text_checks(cell), **run.predictions(cell)}))
    own = anonymous(_narrowed(manifest, entries)).to_json()
    put("manifest.json", (json.dumps(own, ensure_ascii=False, sort_keys=True) + "\n").encode())
    listing = Hashes(files=dict(sorted(files.items())), texts=texts).to_json()
    data = (json.dumps(listing, indent=0, sort_keys=True) + "\n").encode()
    (root / "hashes.json").write_bytes(data)
    model = entries[0].model.name if entries[0].model else None
    counts = {"n_cells": len(texts), "n_expected": n_expected_cells(manifest, entries)}
    return CardResult(model=model, folder=folder_of(model), **counts, hashes=sha256(data))


def _check_order(run: Run, cell: str, key: CellKey, suite: Suite) -> None:
    """Refuse texts that are not as they were written, and those of a reference in another order of labels."""
    labels = suite.task(key.task, key.language).labels
    expected = [(label, index) for label in labels for index in range(key.texts_per_label)]
    if [(text.label, text.index) for text in run.generations(cell)] != expected:
        raise UserError(
            f"{run.cell(cell)} does not hold {key.texts_per_label} texts per label in the suite's order. "
            "Delete this folder and repeat the 'steerboard run' command."
        )


def compact(value: Any) -> bytes:
    """Return gzipped JSON, equal bytes for equal values."""
    return gzip.compress(canonical_json(value).encode(), mtime=0)


def _narrowed(manifest: Manifest, entries: list[Entry]) -> Manifest:
    """Return the manifest of the entries of one method alone."""
    names = {entry.method.name for entry in entries}
    changes: dict[str, Any] = {
        name: {method: value for method, value in getattr(manifest, name).items() if method in names}
        for name in ("method_notes", "method_limits", "tuning")
    }
    if entries[0].model is None:
        changes |= {"model": None, "model_path": None}
    return manifest.model_copy(update={**changes, "entries": entries})


def _companions(
    staged: Path, run: Run, out: Path, body: dict[str, Any], wishes: PackOptions, cells: dict[str, CellStatus]
) -> dict[str, str]:
    """Stage the code or the steering files; return path -> SHA-256."""
    names = sorted({status.steering for status in cells.values() if status.steering})
    sources: dict[str, Path] = {}
    if body["type"] == "vectors":
        sources = {f"steering/{name}.safetensors": run.steering_path(name) for name in names}
    elif body["type"] == "code" and body["entry_point"] is None:
        sources = {CODE: wishes.code or out / CODE}
    found = {}
    for name, source in sources.items():
        if not source.is_file():
            raise UserError(f"{source} is missing, and type {body['type']} needs it. Give another --type.")
        data = source.read_bytes()
        _check_applied(source, sha256(data), cells)
        path = staged / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        found[name] = sha256(data)
    return found


def _check_applied(source: Path, found: str, cells: dict[str, CellStatus]) -> None:
    """Refuse a steering file that is not the one that the cells were written with."""
    applied = {status.steering_sha256 for status in cells.values() if status.steering == source.stem}
    if applied - {None, found}:
        raise UserError(
            f"{source} is not the file that the texts were written with. Put it back, or make the texts "
            "again in another --run folder."
        )


def _install(staged: Path, out: Path, folder: str) -> None:
    """Move what was staged into the submission."""
    shutil.rmtree(out / "results" / folder, ignore_errors=True)
    (out / "results").mkdir(exist_ok=True)
    (staged / "results").rename(out / "results" / folder)
    for path in [*staged.glob("method.py"), *staged.glob("steering/*")]:
        target = out / path.relative_to(staged)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
