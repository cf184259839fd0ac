"""What the user asked for, and the run that follows from it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.core.cells import Cell, entry_id, entry_of
from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import UserError, require, unknown, warn
from harness.core.records import Entry, Manifest, ModelIdentity, Selection, Tuned
from harness.core.store import Run
from harness.data.contrast import ContrastFolder, open_contrast
from harness.data.corpus import Corpus
from harness.data.sources import LocalData, open_data
from harness.data.suite import MethodSpec, Suite, load_suite, restore_suite
from harness.methods.contract import SteeringMethod
from harness.methods.registry import Registry, load_registry, parse_methods, pick_methods
from harness.runner.plan import describe_subset, plan_cells, select_cells
from harness.runner.tuned import apply_tuning, check_tuned, read_tuned
from harness.scoring.scorer import Scorer
from harness.scoring.scorers import build_scorers


@dataclass(frozen=True)
class RunOptions:
    """The options of ``steerboard run``; None leaves the choice to the suite or to the machine."""

    suite: str
    run: Path | None = None
    model: str | None = None
    revision: str | None = None
    data: Path | None = None
    contrast: Path | None = None
    languages: list[str] | None = None
    tasks: list[str] | None = None
    methods: list[str] | None = None
    settings: list[str] | None = None
    seeds: list[int] | None = None
    limit: int | None = None
    classifiers: list[str] | None = None
    embeddings: list[str] | None = None
    identifiers: list[str] | None = None
    plugins: list[Path] = field(default_factory=list)
    device: str | None = None
    dtype: str | None = None
    device_map: str | None = None
    batch_size: int = 64
    tuned: bool = False


@dataclass(frozen=True)
class RunPlan:
    """A run that is ready to go: its folder, its text, its methods, its cells.

    ``methods`` is keyed by the JSON of a method's identity, as it stands in a cell's key; ``parts`` are those
    of the scoring.
    """

    run: Run
    suite: Suite
    corpus: Corpus
    checkpoint: Checkpoint | None
    methods: dict[str, SteeringMethod]
    cells: list[Cell]
    parts: list[Scorer]
    model: ModelIdentity | None = None
    tuned: Tuned | None = None

    def method(self, cell: Cell) -> SteeringMethod:
        """Return the configured method of a cell."""
        return self.methods[cell.key.method.model_dump_json()]


def default_run(suite: Suite, model: str | None) -> Path:
    """Return the run folder for a suite and a model: ``runs/<suite>-<model>``."""
    name = Path(model).resolve().name if model and Path(model).is_dir() else model
    return Path("runs") / "-".join(filter(None, [suite.name, (name or "").replace("/", "--")]))


def plan_run(options: RunOptions, derive: Callable[[Suite, Registry], Suite] | None = None) -> RunPlan:
    """Check everything that can be checked without loading a model; nothing is written yet.

    ``derive`` makes the suite that is run out of the one that is named. Raises ``UserError`` for any bad
    option.
    """
    require("run")
    suite = load_suite(options.suite)
    registry = load_registry(options.plugins)
    for problem in registry.problems:
        warn(f"method not usable: {problem}")
    model = options.model or shipped_model(suite)
    checkpoint = _of_a_family(suite, model, options, registry) if suite.families else None
    suite = suite.for_model(checkpoint.model_type) if checkpoint else suite
    suite = derive(suite, registry) if derive else suite
    tuned = read_tuned(options.run or default_run(suite, model)) if options.tuned else None
    methods = _methods(suite.methods, options, registry, tuned)
    selection = _selection(options, suite)
    corpus = Corpus(suite, open_data(suite, options.data), open_contrast(options.contrast))
    run = Run(options.run or default_run(suite, model))
    needs_model = any(method.needs_model for method in methods)
    if not needs_model:
        checkpoint = None
    elif model and checkpoint is None:
        checkpoint = resolve_checkpoint(model, options.revision)
    identity = _identity(checkpoint, options, run.manifest() if run.exists() else None)
    parts = build_scorers(suite, corpus, options.classifiers, options.embeddings, options.identifiers)
    cells = plan_cells(suite, selection, methods, identity, corpus)
    if not cells:
        raise UserError(
            "nothing to run: none of the methods has one of the settings. "
            f"Methods: {', '.join(m.name for m in methods)}; "
            f"settings: {', '.join(selection.settings)}."
        )
    if tuned is not None:
        check_tuned(tuned, run.path, suite, identity, _data_hashes(cells))
    by_identity = {method.identity.model_dump_json(): method for method in methods}
    return RunPlan(run, suite, corpus, checkpoint, by_identity, cells, parts, identity, tuned)


def manifest_of(prepared: RunPlan, options: RunOptions) -> Manifest:
    """Return the manifest to write, grown from the one that is there; call it with the run folder locked.

    Raises ``UserError`` where the folder holds a run of another suite, model, data or size.
    """
    run = prepared.run
    manifest = new_manifest(prepared, options)
    if not run.exists():
        return manifest
    old = run.manifest()
    _check_contrast(old, prepared)
    return merge_manifests(old, manifest, run)


def open_run(
    path: Path,
    classifiers: list[str] | None,
    data: Path | None,
    contrast: Path | None = None,
    embeddings: list[str] | None = None,
    identifiers: list[str] | None = None,
) -> RunPlan:
    """Return a finished or half-finished run for scoring, from its manifest alone.

    ``data`` and ``contrast`` are the new places of folders that were moved; the other lists are what to
    score with, by default the suite's. Raises ``UserError`` where the folder holds no run or its data has
    moved or changed.
    """
    require("run")
    run = Run(path)
    manifest = run.manifest().of_texts(path)
    suite = restore_suite(manifest.suite)
    folder = data or (None if manifest.data_source == "hub" else Path(manifest.data_source))
    corpus = Corpus(suite, open_data(suite, folder), _reopen_contrast(manifest, contrast))
    changed = _changed(manifest, corpus)
    if changed:
        also = f", or the contrast text in {corpus.contrast_folder.path}," if corpus.contrast_folder else ""
        option = "--data or --contrast" if also else "--data"
        raise UserError(
            f"the data of {changed} in {corpus.source.description}{also} is not what the run was made "
            f"with. Give the right folder with {option}."
        )
    parts = build_scorers(suite, corpus, classifiers, embeddings, identifiers)
    cells = []
    for cell_id in run.cell_ids():
        status = run.status(cell_id)
        if status is not None:
            cells.append(Cell(status.cell))
    return RunPlan(run, suite, corpus, None, {}, cells, parts)


def _reopen_contrast(manifest: Manifest, moved: Path | None) -> ContrastFolder | None:
    if manifest.contrast is None and moved is not None:
        raise UserError("the run was made without contrast text; leave out --contrast.")
    place = moved or (Path(manifest.contrast) if manifest.contrast else None)
    if place and not place.is_dir():
        raise UserError(
            f"the run's contrast text is no longer in {place}. Put it back, or give its new place with --contrast."
        )
    return open_contrast(place)


def _changed(manifest: Manifest, corpus: Corpus) -> str | None:
    """Return the first task and language whose text is not what a manifest says, None if all are."""
    names = (name.split("/") for name in manifest.data_hashes)
    changed = (
        f"{task}/{language}"
        for task, language in names
        if corpus.fingerprint(task, language) != manifest.data_hashes[f"{task}/{language}"]
    )
    return next(changed, None)


def _data_hashes(cells: Sequence[Cell]) -> dict[str, str]:
    return {f"{cell.key.task}/{cell.key.language}": cell.key.data for cell in cells}


def shipped_model(suite: Suite) -> str | None:
    """Return the folder of the model that a suite ships, None where it ships none."""
    folder = suite.folder("model")
    return str(folder) if folder else None


def _methods(
    specs: list[MethodSpec], options: RunOptions, registry: Registry, tuned: Tuned | None = None
) -> list[SteeringMethod]:
    """Return the methods of a suite's list, or the ones asked for, with the list's or the tuned options."""
    wanted = specs if options.methods is None else pick_methods(specs, options.methods)
    return parse_methods(registry, apply_tuning(wanted, tuned.methods, registry) if tuned else wanted)


def _of_a_family(suite: Suite, model: str | None, options: RunOptions, registry: Registry) -> Checkpoint:
    """Return the checkpoint that decides the family, after what needs none: it may be a long download."""
    _methods([*suite.methods, *(m for f in suite.families.values() for m in f.methods)], options, registry)
    _selection(options, suite)
    if model is None:
        raise UserError(f"the prompts of suite {suite.name!r} depend on the model. Give --model (also for references).")
    return resolve_checkpoint(model, options.revision)


def _identity(checkpoint: Checkpoint | None, options: RunOptions, old: Manifest | None) -> ModelIdentity | None:
    """Return the model's identity; the precision of an earlier start of the run is kept."""
    if checkpoint is None:
        return None
    if options.dtype not in {None, "float32", "bfloat16", "float16"}:
        raise unknown("dtype", str(options.dtype), ["float32", "bfloat16", "float16"])
    dtype = options.dtype or (old.model.dtype if old and old.model else None)
    if dtype is None:
        from harness.core.devices import choose_device, choose_dtype

        dtype = choose_dtype(choose_device(options.device), checkpoint)
    return ModelIdentity(
        name=checkpoint.name,
        revision=checkpoint.revision,
        fingerprint=checkpoint.fingerprint,
        dtype=dtype,
    )


def _selection(options: RunOptions, suite: Suite) -> Selection:
    return select_cells(suite, options.languages, options.tasks, options.settings, options.seeds, options.limit)


def new_manifest(prepared: RunPlan, options: RunOptions) -> Manifest:
    """Return the manifest of a run as if it were its first start."""
    source, checkpoint = prepared.corpus.source, prepared.checkpoint
    contrast = prepared.corpus.contrast_folder
    cells, methods = prepared.cells, prepared.methods.values()
    entries = {entry_id(entry_of(cell.key)): entry_of(cell.key) for cell in cells}
    return Manifest(
        suite=prepared.suite.dump(),
        suite_hash=prepared.suite.hash,
        suite_source=options.suite,
        model=prepared.model,
        model_path=str(checkpoint.folder.resolve()) if checkpoint else None,
        data_source=str(source.root.resolve()) if isinstance(source, LocalData) else "hub",
        data_revisions=source.revisions,
        contrast=str(contrast.path.resolve()) if contrast else None,
        data_hashes=_data_hashes(cells),
        entries=list(entries.values()),
        selection=_selection(options, prepared.suite),
        plugins=[str(path) for path in options.plugins],
        tuning=prepared.tuned.methods if prepared.tuned else {},
        method_notes={m.name: (m.__doc__ or "").strip().split("\n")[0] for m in methods},
        method_limits={m.name: " ".join(m.known_limitations.split()) for m in methods if m.known_limitations},
        versions=library_versions(),
        git_commit=_git_commit(),
        device=options.device or "auto",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commands=[["steerboard", *sys.argv[1:]]],
    )


def _check_contrast(old: Manifest, prepared: RunPlan) -> None:
    """Refuse to grow a run by cells with other contrast text, also where they share no language."""
    folder, path = prepared.corpus.contrast_folder, prepared.run.path
    if (old.contrast is None) != (folder is None):
        has = f"contrast text from {old.contrast}" if old.contrast else "no contrast text given"
        raise UserError(f"{path} holds a run with {has}. Give the same --contrast, or another --run folder.")
    if folder and _changed(old, prepared.corpus):
        raise UserError(
            f"{path} holds a run on other data or other contrast text than that in {folder.path}. "
            "Choose another --run folder."
        )


def merge_manifests(old: Manifest, new: Manifest, run: Run) -> Manifest:
    """Return ``old`` grown by what ``new`` adds; ``UserError`` where the two do not belong together."""
    for what, before, now in (
        ("suite", old.suite_hash, new.suite_hash),
        ("model", old.model or new.model, new.model or old.model),
    ):
        if before != now:
            raise UserError(f"{run.path} holds a run of another {what}. Choose another --run folder.")
    shared = old.data_hashes.keys() & new.data_hashes.keys()
    if any(old.data_hashes[name] != new.data_hashes[name] for name in shared):
        raise UserError(f"{run.path} holds a run on other data. Choose another --run folder.")
    sizes = old.selection.texts_per_label
    if any(sizes.get(t, n) != n for t, n in new.selection.texts_per_label.items()):
        raise UserError(
            f"{run.path} holds a run with another number of texts per label ({sizes}). "
            "Give the same --limit, or another --run folder."
        )
    entries: dict[str, Entry] = {entry_id(e): e for e in [*old.entries, *new.entries]}
    return new.model_copy(
        update={
            "selection": _union(restore_suite(new.suite), old.selection, new.selection),
            "entries": list(entries.values()),
            "model": new.model or old.model,
            "model_path": new.model_path or old.model_path,
            "data_hashes": {**old.data_hashes, **new.data_hashes},
            "data_revisions": {**old.data_revisions, **new.data_revisions},
            "method_notes": {**old.method_notes, **new.method_notes},
            "method_limits": {**old.method_limits, **new.method_limits},
            "tuning": {**old.tuning, **new.tuning},
            "chat": new.chat or old.chat,
            "plugins": list(dict.fromkeys([*old.plugins, *new.plugins])),
            "created": old.created,
            "commands": [*old.commands, *(c for c in new.commands if c not in old.commands)],
        }
    )


def with_chat(manifest: Manifest, chat: dict[str, str], run: Run) -> Manifest:
    """Return a manifest that says how the chat template is used.

    Raises ``UserError`` where the run's texts were written with another use of it.
    """
    old = run.manifest() if run.exists() else None
    if old is not None and old.model is not None and old.chat != chat:
        before, now = (json.dumps(use) if use else "as it is" for use in (old.chat, chat))
        raise UserError(
            f"{run.path} holds texts of prompts for which the chat template was used in another way (then: "
            f"{before}, now: {now}). Choose another --run folder."
        )
    return manifest.model_copy(update={"chat": chat})


def _union(suite: Suite, old: Selection, new: Selection) -> Selection:
    orders: dict[str, Sequence[str] | Sequence[int]] = {
        "languages": suite.languages,
        "tasks": list(suite.tasks),
        "settings": list(suite.settings),
        "seeds": suite.seeds,
    }
    fields = {
        name: [v for v in order if v in getattr(old, name) or v in getattr(new, name)] for name, order in orders.items()
    }
    sizes = {**old.texts_per_label, **new.texts_per_label}
    both = Selection.model_validate({**fields, "texts_per_label": sizes})
    return both.model_copy(update={"narrowed": describe_subset(suite, both)})


def library_versions() -> dict[str, str]:
    """Return the versions of what decides texts and scores."""
    found = {"python": platform.python_version()}
    for package in ("steerboard", "torch", "transformers", "scikit-learn", "sacrebleu", "numpy"):
        installed = _version(package)
        if installed is not None:
            found[package] = installed
    return found


@cache
def _version(package: str) -> str | None:
    """Return the version of a package, None where it is not installed; every steering file asks for them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the checkout that the package lies in, None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        shown = subprocess.run(  # noqa: S603
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()
