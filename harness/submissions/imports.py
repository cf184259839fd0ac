"""Texts that were written elsewhere as an entry of a run: check the counts, write the cells.

An imported entry is scored and ranked as any other. Its model and setting are those that whoever imports it states, and
its version is ``imported``, by which boards mark it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.records import (
    IMPORTED,
    CellKey,
    CellStatus,
    Entry,
    Generation,
    Manifest,
    MethodIdentity,
    ModelIdentity,
    Setting,
)
from harness.core.redaction import command_line
from harness.core.store import Run
from harness.data.contrast import open_contrast
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import Suite, load_suite
from harness.ranking.results import BASELINE
from harness.runner.plan import select_cells
from harness.runner.prepare import RunOptions, RunPlan, default_run, open_run
from harness.submissions.import_files import ImportedTexts, ImportOptions, read_texts

NOTE = "Imported texts: model, setting and seeds are as stated by whoever imported them; prompts are not known."
DEFAULT_SUITE = "steer11"
_UNKNOWN = "unknown"  # fingerprint and precision of a model that nobody here has seen


@dataclass(frozen=True)
class ImportPlan:
    """An import that is ready to be written. ``cells``: each with why it cannot be compared, empty
    where it can."""

    texts: ImportedTexts
    base: RunPlan
    entry: Entry
    cells: list[tuple[Cell, str]]
    new: bool

    @property
    def run(self) -> Run:
        """The run that the entry is added to."""
        return self.base.run

    @property
    def missing(self) -> list[tuple[Cell, str]]:
        """The cells without the suite's number of texts, and why."""
        return [(cell, reason) for cell, reason in self.cells if reason]


def plan_import(options: ImportOptions, base: RunPlan, manifest: Manifest | None) -> ImportPlan:
    """Return the cells of an import; writes nothing. ``manifest``: of the run in the folder, None for a new one.

    Raises ``UserError`` for another model than the run's, and for other texts under a name that the run has.
    """
    texts = read_texts(options, base.suite)
    model = _model_of(options, manifest, base.run.path)
    method = MethodIdentity(name=options.name, version=IMPORTED, config={"texts": texts.digest})
    setting = cast(Setting, options.setting)  # one of the suite's, as was checked
    entry = Entry(method=method, model=model, setting=setting)
    for old in manifest.entries if manifest else ():
        if (
            old.method.name == options.name
            and old != entry
            and (old.setting == entry.setting or old.method.version != IMPORTED)
        ):
            what = "other texts" if old.method.version == IMPORTED else "a method"
            raise UserError(f"{base.run.path} has {what} under the name {options.name!r}. Choose another --name.")
    selection = base.selection
    assert selection is not None
    cells: list[tuple[Cell, str]] = []
    for task, language in selection.task_languages():
        shared = (base.suite.text_protocol(task, language), base.corpus.fingerprint(task, language))
        for seed in selection.seeds:
            key = CellKey(
                suite=base.suite.name,
                text_protocol=shared[0],
                data=shared[1],
                model=model,
                method=method,
                task=task,
                language=language,
                setting=setting,
                seed=seed,
                texts_per_label=selection.texts_per_label[task],
            )
            cells.append((Cell(key), _missing_reason(texts.group(task, language, seed), key, base.suite)))
    if all(reason for _, reason in cells):
        cell, reason = cells[0]
        raise UserError(f"nothing of {options.path} can be compared in {base.run.path}: {cell.title}: {reason}.")
    return ImportPlan(
        texts, replace(base, cells=[cell for cell, _ in cells], model=model), entry, cells, manifest is None
    )


def open_target(options: RunOptions, model: str, like: Path | None = None) -> tuple[RunPlan, Manifest | None]:
    """Return the suite, text and selection that an import is for: those of the run in the folder, or of a new run.

    ``like``: folder of a run that a new one is to share a table with. Raises ``UserError`` for an option that does not
    fit the run in the folder.
    """
    suite = load_suite(options.suite) if options.suite else None
    run = Run(options.run or _default_run(suite or load_suite(DEFAULT_SUITE), model))
    given = [f"--{name}" for name in ("languages", "tasks", "limit") if getattr(options, name) is not None]
    given += ["--like"] if like and run.exists() else []
    source = run if run.exists() else Run(like) if like else None
    if source is not None:
        manifest = source.manifest().require_generation_track(source.path)
        if suite is not None and manifest.suite["name"] != suite.name:
            raise UserError(f"{source.path} holds a run of suite {manifest.suite['name']!r}. Leave out --suite.")
        if given:
            raise UserError(f"{source.path} holds a run: the texts get its part of the suite. Leave out {given[0]}.")
        plan = replace(open_run(source.path, data=options.data), run=run, selection=manifest.selection)
        return plan, manifest if source is run else None
    suite = suite or load_suite(DEFAULT_SUITE)
    if suite.families:
        raise UserError(f"prompts of suite {suite.name!r} depend on the model. Give a run of it with --run or --like.")
    selection = select_cells(suite, options.languages, options.tasks, None, None, options.limit)
    corpus = Corpus(suite, open_data(suite, options.data), open_contrast(None))
    return RunPlan(run, suite, corpus, None, {}, [], [], selection=selection), None


def _default_run(suite: Suite, model: str) -> Path:
    """Return the folder of the model's run; where there is none another one, which the model can still be run in."""
    own = default_run(suite, model)
    return own if Run(own).exists() else own.with_name(f"{own.name}-{IMPORTED}")


def _model_of(options: ImportOptions, manifest: Manifest | None, path: Path) -> ModelIdentity:
    """Return the stated model: that of the run, or one of which only the name is known."""
    own = manifest.model if manifest else None
    if own is None:
        return ModelIdentity(name=options.model, fingerprint=_UNKNOWN, dtype=_UNKNOWN)
    if own.name != options.model:
        raise UserError(
            f"{path} holds a run of model {own.name!r}, not {options.model!r}. Give that name if the texts are of it, "
            f"else another --run folder, with --like {path}: a board shows both."
        )
    return own


def _missing_reason(found: Mapping[str, Sequence[str]], key: CellKey, suite: Suite) -> str:
    if not found:
        return "no texts were imported"
    short = [
        f"{len(found.get(label, []))} of {key.texts_per_label} texts of {label!r}"
        for label in suite.task(key.task, key.language).labels
        if len(found.get(label, [])) < key.texts_per_label
    ]
    more = f" (and {len(short) - 1} more labels)" if len(short) > 1 else ""
    return f"{short[0]}{more}" if short else ""


def write_import(plan: ImportPlan, options: RunOptions) -> int:
    """Write the cells that are not there yet, then the entry; return the number of cells written.

    Call it with the run folder locked. An import that is stopped leaves cells that no entry has; the same import again
    completes it.
    """
    run, written = plan.run, 0
    for cell, reason in plan.cells:
        if run.finished(cell.id) or (reason and run.status(cell.id)):
            continue
        status, texts = _content(plan, cell, reason)
        run.write_cell(cell.id, status, texts)
        written += 1
    manifest = None if plan.new else run.manifest()
    if manifest is None or plan.entry not in manifest.entries:
        run.write_manifest(_manifest(plan, options, manifest))
    return written


def _content(plan: ImportPlan, cell: Cell, reason: str) -> tuple[CellStatus, list[Generation]]:
    key, number = cell.key, cell.key.texts_per_label
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if reason:
        return CellStatus(cell=key, state="skipped", reason=reason, finished=finished), []
    found = plan.texts.group(key.task, key.language, key.seed)
    texts: list[Generation] = []
    for label in plan.base.suite.task(key.task, key.language).labels:
        seen: set[str] = set()
        for index, text in enumerate(found[label][:number]):
            again = text in seen or not text.strip()
            seen.add(text)
            texts.append(Generation(index=index, label=label, text=text, finish_reason="imported", duplicate=again))
    most = max(map(len, found.values()))
    reason = f"the first {number} of up to {most} texts of a label" if most > number else ""
    duplicates = sum(text.duplicate for text in texts)
    return CellStatus(cell=key, state="ok", reason=reason, finished=finished, duplicates=duplicates), texts


def _manifest(plan: ImportPlan, options: RunOptions, old: Manifest | None) -> Manifest:
    """Return the manifest with the entry; what the run says of texts that it wrote itself stays."""
    if old is None:
        new = plan.base.manifest(replace(options, suite=options.suite or plan.base.suite.name))
        base = new.model_copy(update={"engine": "", "entries": []})
    else:
        base = old
    command = command_line()
    return base.model_copy(
        update={
            "model": base.model or plan.entry.model,
            "entries": [*base.entries, plan.entry],
            "method_notes": {**base.method_notes, plan.entry.method.name: NOTE},
            "commands": [*base.commands, *([command] if command not in base.commands else [])],
        }
    )


def has_baseline(plan: ImportPlan) -> bool:
    """Say whether the run has the zero-shot row that the entry's gain is relative to."""
    manifest = None if plan.new else plan.run.manifest()
    entries = manifest.entries if manifest else []
    return any(old.method.name == BASELINE and old.model == plan.entry.model for old in entries)
