"""Pack a finished run into a submission: the cells of one method with its settings, compressed and hashed."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from harness.core.cells import entry_of
from harness.core.errors import UserError, pasted
from harness.core.files import canonical_json, staging, sweep
from harness.core.records import CellStatus, Entry, Manifest, MethodIdentity, ModelIdentity, fit_of
from harness.core.redaction import hide_secrets
from harness.core.schema import format_validation_error
from harness.core.store import CLASSIFIER, Run
from harness.data.suite import load_suite, prompt_format_of, restore_suite, suite_files
from harness.methods.registry import BUILT_IN
from harness.submissions.card import SCHEMA, Card, CardResult, Hashes, SuiteRef, folder_of, has_todo, write_card
from harness.submissions.check import n_expected_cells
from harness.submissions.check_cells import is_in_order
from harness.submissions.files import CARD, CODE, TEXTS, sha256
from harness.submissions.submission import find

_ENCODER = re.compile(r"((?:frozen|hf):)([^,]*)(,.*|)", re.DOTALL)
_ABSOLUTE = re.compile(r"(?<![\w/.~])~?/(?:[^\s/'\",;:()<>]+/)*([^\s/'\",;:()<>]+)/?")


@dataclass(frozen=True)
class PackOptions:
    """What the packer states; None and empty leave it to the directory that exists, or to the run."""

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


def pack(run: Run, out: Path, options: PackOptions) -> PackResult:
    """Write a method's cells of a run into ``out``, a submission's directory; other models' results there stay.

    Raises ``UserError`` for an incomplete run (unless ``partial``), unscored cells and missing card fields.
    """
    manifest = run.manifest().require_generation_track(run.path)
    before = find(out).card if (out / CARD).is_file() else None
    identity = choose(manifest, options.method or (before.method.name if before else None), options.config)
    entries = [entry for entry in manifest.entries if entry.method == identity]
    cells = _cells(run, identity)
    missing = _missing(manifest, entries, cells)
    if missing and not options.partial:
        raise UserError(
            f"{run.path} is not complete: {'; '.join(missing)}. Finish it with the same 'steerboard run' command, or "
            "pass --partial: the submission then says how much is there, and has no mean on the board."
        )
    fields = _card_fields(out, before, options, manifest, identity, cells)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}. Choose another --out.") from None
    with staging(out.parent) as staged:
        result = _write_result(staged / "results", run, manifest, entries, cells)
        files = _stage_companions(staged, run, out, fields, options, cells)
        card = _complete_card(fields, result, entries[0].model, files)
        _install(staged, out, result.folder)
    write_card(out, card)
    sweep(out.parent, deep=False)
    return PackResult(out, card, missing)


def check_command(run: Run, packed: PackResult) -> str:
    """Return the command that checks what was packed: on the run's data, with the classifiers it was scored by."""
    manifest = run.manifest()
    name = str(manifest.suite["name"])
    shipped = load_suite(name).folder("data") if name in suite_files() else None
    words: list[object] = ["submission", "check", packed.folder]
    words += [] if name in suite_files() else ["--suite", manifest.suite_source]
    if manifest.data_source not in {"hub", str(shipped.resolve()) if shipped else ""}:
        words += ["--data", manifest.data_source]
    words += ["--contrast", manifest.contrast] if manifest.contrast else []
    known = [run.scores(cell) for cell in _cells(run, packed.card.identity)]
    parts = [set(scores.parts) for scores in known if scores]
    scored = {part for part in set.intersection(*parts) if part.startswith(CLASSIFIER)} if parts else set()
    specs = sorted(part.removeprefix(CLASSIFIER) for part in scored)
    if specs != sorted(manifest.suite["classifiers"]):
        words += [word for spec in specs for word in ("--classifier", _as_given(spec, manifest))]
    return pasted(*words)


def _as_given(spec: str, manifest: Manifest) -> str:
    """Return a classifier as the run's command named it.

    Scores have only the name of a local directory, and not every option.
    """
    kind, _, rest = spec.partition(":")
    name, *wanted = rest.split(",")
    for word in (word for command in manifest.commands for word in command):
        given, _, path = word.partition(":")
        named, *options = path.split(",")
        names = {named, Path(named).name, *(option.removeprefix("name=") for option in options)}
        shown = sorted(option for option in options if not option.startswith(("name=", "batches=")))
        same = len(shown) == len(wanted) and all(map(str.startswith, shown, wanted))  # a prefix: without its colon
        if rest and given == kind and name in names and same:
            return word
    return spec


def choose(manifest: Manifest, name: str | None, config: dict[str, Any] | None) -> MethodIdentity:
    """Return the one method of a run that is meant; ``UserError`` lists those there are."""
    found = {entry.method.model_dump_json(): entry.method for entry in manifest.entries}
    all_names = sorted({method.name for method in found.values()})
    fits = [m for m in found.values() if m.name == name and config in (None, m.config)]
    if name is None and len(all_names) == 1:
        fits = list(found.values())
    if not fits:
        raise UserError(f"--method {name or '(not given)'}: the run has {', '.join(all_names)}. Pass one of these.")
    if len(fits) > 1:
        configs = "; ".join(f"version {m.version} {canonical_json(m.config)}" for m in fits)
        raise UserError(
            f"the run has {len(fits)} configurations of {fits[0].name}: {configs}. Choose with --config JSON."
        )
    return fits[0]


def _cells(run: Run, identity: MethodIdentity) -> dict[str, CellStatus]:
    statuses = {cell: run.status(cell) for cell in run.cell_ids()}
    return {cell: status for cell, status in statuses.items() if status and status.cell.method == identity}


def _missing(manifest: Manifest, entries: Sequence[Entry], cells: Mapping[str, CellStatus]) -> list[str]:
    """Return in words what the suite asks for and the run does not have."""
    chosen = manifest.selection
    words = [f"narrowed to {part}" for part in chosen.narrowed]
    expected = len(chosen.languages) * len(chosen.tasks) * len(chosen.seeds) * len(entries)
    n_cells = sum(status.state == "ok" and entry_of(status.cell) in entries for status in cells.values())
    if n_cells < expected:
        others = {f"{s.state}: {s.reason}"[:120] for s in cells.values() if s.state != "ok"}
        why = f" ({'; '.join(sorted(others)[:3])})" if others else ""
        words.append(f"{n_cells} of {expected} cells have texts{why}")
    return words


# submission.yaml


def _card_fields(
    out: Path,
    before: Card | None,
    options: PackOptions,
    manifest: Manifest,
    identity: MethodIdentity,
    cells: Mapping[str, CellStatus],
) -> dict[str, Any]:
    """Return the fields of submission.yaml, with the results and files of other models as they are.

    Raises ``UserError`` that names everything that nobody has stated yet.
    """
    old: dict[str, Any] = before.model_dump(mode="json", by_alias=True) if before else {}
    stated = {
        "authors": [{"name": name} for name in options.authors] or old.get("authors"),
        "contact": options.contact or old.get("contact"),
        "licence": options.licence or old.get("licence"),
    }
    if missing := [f"--{name.removesuffix('s')}" for name, value in stated.items() if not value]:
        raise UserError(f"say whose submission this is: {', '.join(missing)} (or {out}/{CARD}).")
    ref = {
        "name": manifest.suite["name"],
        "hash": manifest.suite_hash,
        "prompt_format": prompt_format_of(manifest.suite),
    }
    suite = SuiteRef.model_validate(ref).model_dump()
    kind = options.type or old.get("type") or "code"
    same = before is not None and (before.identity, old["suite"], old["type"]) == (identity, suite, kind)
    if identity.name in BUILT_IN and kind != "code":
        raise UserError(f"{identity.name!r} is built in, so its type is code. Leave out --type {kind}.")
    does = old["method"]["does"] if old and old["method"]["name"] == identity.name else "TODO"
    if has_todo(does):
        does = manifest.method_notes.get(identity.name, "")
    entry_point = options.entry_point or old.get("entry_point") or BUILT_IN.get(identity.name)
    done = [status for status in cells.values() if status.state == "ok"]
    fits = fit_of(done)  # each counted once
    seconds = sum(status.seconds for status in done) + (fits.seconds if fits else 0.0)
    devices = ", ".join(sorted({status.device for status in done if status.device}))
    return {
        "schema": SCHEMA,
        "name": options.name or out.resolve().name,
        "version": old.get("version", 1),
        **stated,
        "paper": options.paper or old.get("paper"),
        "method": {"name": identity.name, "version": identity.version, "does": (does or identity.name)[:300]},
        "type": kind,
        "entry_point": entry_point if kind == "code" and not options.code else None,
        "config": identity.config,
        "models": old["models"] if same else [],
        "suite": suite,
        "compute": {"device": devices[:100] or "none", "hours": round(seconds / 3600, 4)},
        "tuned_on": _tuned_on(options, old, manifest, identity.name),
        "files": old["files"] if same else {},
        "results": old["results"] if same else [],
    }


def _tuned_on(options: PackOptions, old: Mapping[str, Any], manifest: Manifest, name: str) -> dict[str, Any]:
    if options.tuned_on:
        split, _, words = options.tuned_on.partition(":")
        return {"split": split, "words": words.strip() or "see the method's description"}
    if tuned := manifest.tuning.get(name):
        words = f"steerboard tune: the best of {tuned.configurations} configurations"
        return {"split": "validation", "words": words}
    known = old.get("tuned_on")
    if known and not has_todo(known["words"]):
        return dict(known)
    return {"split": "none", "words": "default options, not tuned"}


def _complete_card(
    fields: dict[str, Any], result: CardResult, model: ModelIdentity | None, files: dict[str, str]
) -> Card:
    """Return the card with this result among those of other models."""
    others = [old for old in fields["results"] if old["folder"] != result.folder]
    models = [known for known in fields["models"] if known["name"] != result.model]
    changes = {
        "results": [*others, result.model_dump()],
        "models": [*models, *([model.model_dump()] if model else [])],
        "files": {**fields["files"], **files},
    }
    try:
        return Card.model_validate({**fields, **changes})
    except ValidationError as error:
        raise UserError(f"the submission cannot be written: {format_validation_error(error)}.") from None


# Files


def _write_result(
    root: Path, run: Run, manifest: Manifest, entries: list[Entry], cells: Mapping[str, CellStatus]
) -> CardResult:
    """Write the directory of a model's results; return what submission.yaml says of it."""
    files: dict[str, str] = {}
    texts: dict[str, str] = {}
    suite = restore_suite(manifest.suite)

    def put(name: str, data: bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files[name] = sha256(data)

    for cell, status in cells.items():
        public = status.model_copy(update={"demonstrations": {}, "reason": without_folders(status.reason)})
        put(f"{cell}/status.json", (canonical_json(public.to_json()) + "\n").encode())
        if status.state == "ok":
            scores = run.scores(cell)
            if scores is None:
                raise UserError(f"cell {cell} has no scores. Score it first: {pasted('score', run.path)}")
            if not is_in_order(run.generations(cell), status.cell, suite):  # a reference may have its own order
                raise UserError(
                    f"{run.cell(cell)} does not hold {status.cell.texts_per_label} texts per label in the suite's "
                    "order. Delete this directory and repeat the 'steerboard run' command."
                )
            data = (run.cell(cell) / "generations.jsonl").read_bytes()
            texts[cell] = sha256(data)
            put(f"{cell}/{TEXTS}", gzip.compress(data, mtime=0))
            put(f"{cell}/scores.json.gz", _compact(scores.model_copy(update={"kept": {}}).to_json()))
            put(f"{cell}/predictions.json.gz", _compact({**run.text_checks(cell), **run.predictions(cell)}))
    own = anonymous(_narrow(manifest, entries)).to_json()
    put("manifest.json", (json.dumps(own, ensure_ascii=False, sort_keys=True) + "\n").encode())
    listing = Hashes(files=dict(sorted(files.items())), texts=texts).to_json()
    data = (json.dumps(listing, indent=0, sort_keys=True) + "\n").encode()
    (root / "hashes.json").write_bytes(data)
    model = entries[0].model.name if entries[0].model else None
    counts = {"n_cells": len(texts), "n_expected": n_expected_cells(manifest, entries)}
    return CardResult(model=model, folder=folder_of(model), **counts, hashes=sha256(data))


def _compact(value: Any) -> bytes:
    return gzip.compress(canonical_json(value).encode(), mtime=0)


def _narrow(manifest: Manifest, entries: list[Entry]) -> Manifest:
    """Return the manifest of the entries of one method alone."""
    names = {entry.method.name for entry in entries}
    changes: dict[str, Any] = {
        name: {method: value for method, value in getattr(manifest, name).items() if method in names}
        for name in ("method_notes", "method_limits", "tuning")
    }
    if entries[0].model is None:
        changes |= {"model": None, "model_path": None}
    return manifest.model_copy(update={**changes, "entries": entries})


def _stage_companions(
    staged: Path, run: Run, out: Path, fields: Mapping[str, Any], options: PackOptions, cells: Mapping[str, CellStatus]
) -> dict[str, str]:
    """Stage the code or the steering files; return path -> SHA-256."""
    kind, found, sources = fields["type"], {}, {}
    if kind == "vectors":
        names = sorted({status.steering for status in cells.values() if status.steering})
        sources = {f"steering/{name}.safetensors": run.steering_path(name) for name in names}
    elif kind == "code" and fields["entry_point"] is None:
        sources = {CODE: options.code or out / CODE}
    for name, source in sources.items():
        if not source.is_file():
            raise UserError(f"{source} is missing, and type {kind} needs it. Pass another --type.")
        data = source.read_bytes()
        found[name] = sha256(data)
        applied = {status.steering_sha256 for status in cells.values() if status.steering == source.stem}
        if applied - {None, found[name]}:
            raise UserError(
                f"{source} is not the file that the texts were written with. Put it back, or generate the texts "
                "again in another --run directory."
            )
        (staged / name).parent.mkdir(exist_ok=True)
        (staged / name).write_bytes(data)
    return found


def _install(staged: Path, out: Path, folder: str) -> None:
    """Move what was staged into the submission."""
    shutil.rmtree(out / "results" / folder, ignore_errors=True)
    (out / "results").mkdir(exist_ok=True)
    (staged / "results").rename(out / "results" / folder)
    for path in [*staged.glob(CODE), *staged.glob("steering/*")]:
        target = out / path.relative_to(staged)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


# No directory of the machine that ran is published.


def without_folders(text: str) -> str:
    """Return text with every absolute path reduced to its last part."""
    return _ABSOLUTE.sub(r"\1", text)


def name_alone(word: str) -> str:
    """Return a word of a command, a path in it (also after ``--x=`` and ``hf:``) reduced to its last part."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if encoder := _ENCODER.fullmatch(value):  # what is typed after it may have any sign
        return f"{option}{equals}{encoder[1]}{name_alone(encoder[2])}{encoder[3]}"
    head, mark, tail = (option, equals, value) if equals else word.rpartition(":")
    deep = tail.count("/") > 1 or tail.startswith(("/", "~", "./", "../")) or tail == ".."
    return f"{head}{mark}{PurePath(tail).name or 'folder'}" if deep else word


def anonymous(manifest: Manifest) -> Manifest:
    """Return a manifest that names no directory of the machine that ran."""
    source = manifest.data_source
    return manifest.model_copy(
        update={
            "suite_source": PurePath(manifest.suite_source).name,
            "model_path": manifest.model_path and PurePath(manifest.model_path).name,
            "data_source": source if source == "hub" else PurePath(source).name,
            "contrast": manifest.contrast and PurePath(manifest.contrast).name,
            "plugins": [PurePath(path).name for path in manifest.plugins],
            "stages": {},  # of all methods of the run, on that machine
            "commands": [[name_alone(hide_secrets(word)) for word in words] for words in manifest.commands],
        }
    )
