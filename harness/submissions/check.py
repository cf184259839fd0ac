"""The check of a submission, in the order in which an error makes the rest pointless. Runs nothing of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.cells import entry_of
from harness.core.errors import BrokenFileError, UserError, pasted
from harness.core.interventions import load_steering
from harness.core.records import CellKey, CellStatus
from harness.methods.plugins import inspect_source
from harness.methods.registry import BUILT_IN, FORMER_MODULES
from harness.submissions import limits
from harness.submissions.card import Card, CardResult, read_card, unfilled
from harness.submissions.check_cells import check_cell_files
from harness.submissions.facts import n_expected_cells
from harness.submissions.folder import CARD, CODE, scan
from harness.submissions.lockfile import NO_LOCK, LockFile, method_of, suite_of
from harness.submissions.others import cards_beside, clashes
from harness.submissions.protocol import CheckInputs, Protocol, expected_cells, manifest_problems, resolve_protocol
from harness.submissions.report import SubmissionReport
from harness.submissions.shared_texts import compare_texts
from harness.submissions.strict_io import InvalidSubmissionError
from harness.submissions.submission import Submission, SubmittedRun

_AGAIN = "Pack it again with 'steerboard submission pack'."


@dataclass
class CheckOutcome:
    """A submission whose files are what they have to be, as far as ``report`` has no problem.

    ``ground``: what the results of a folder were held against; ``statuses``: folder -> cell -> status.
    """

    folder: Path
    report: SubmissionReport
    submission: Submission | None = None
    ground: dict[str, Protocol] = field(default_factory=dict)
    statuses: dict[str, dict[str, CellStatus]] = field(default_factory=dict)


def check_files(
    folder: Path,
    places: CheckInputs,
    online: bool = False,
    lock: LockFile = NO_LOCK,
    beside: Iterable[Card] | None = None,
) -> CheckOutcome:
    """Check all that can be checked without scoring: paths, sizes, schema, hashes, identity, completeness.

    ``online``: whether human text may come from the hub. ``lock``: what the maintainers checked before.
    ``beside``: the submissions that it must not clash with, by default those of its directory. Raises
    ``UserError`` where ``folder`` is not a folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        what = "is a link" if folder.is_symlink() else "is no folder"
        raise UserError(f"{folder} {what}. Give the folder of a submission: submissions/NAME.")
    report = SubmissionReport(folder.resolve().name)
    done = CheckOutcome(folder, report)
    files, problems = scan(folder)
    for problem in problems:
        report.refused(problem)
    if problems:
        return done
    try:
        card = read_card(folder)
    except InvalidSubmissionError as error:
        report.refused(error)
        return done
    done.submission = Submission(folder, card, files, lock)
    _check_card(folder, card, report)
    for problem in clashes(card, cards_beside(folder) if beside is None else beside):
        report.refused(problem)
    for problem in done.submission.broken:
        report.refused(problem)
    if not report.problems:  # what follows unpacks and reads files: only those that are meant
        for result in card.results:
            _check_result(done, card, result, files, places, online)
        _check_companions(done, card)
        compare_texts(done.submission, report)
    return done


def _check_card(folder: Path, card: Card, report: SubmissionReport) -> None:
    name = folder.resolve().name
    if card.name != name:
        report.problem(CARD, f"the name is {card.name!r}, the folder's {name!r}", "Make them equal.")
    stated = [
        card.contact,
        card.method.does,
        card.tuned_on.words,
        card.licence,
        *(a.name for a in card.authors),
    ]
    if any(unfilled(words) for words in [*stated, *(author.name for author in card.authors)]):
        report.problem(CARD, "has a line that is still to be filled in", "Replace every TODO.")
    if not card.results:
        todo = f"Pack a finished run: {pasted('submission', 'pack', 'RUN', '--out', folder)}"
        report.problem(CARD, "has no results yet", todo)
    own = BUILT_IN.get(card.method.name)
    if own and (card.entry_point or "").partition(":")[0] not in {own, FORMER_MODULES.get(card.method.name)}:
        what = f"the method's name {card.method.name!r} is that of a built-in one"
        report.problem(CARD, what, f"Choose another name, or take type code with entry_point {own}.")
    report.facts |= {
        "method": method_of(card),
        "type": card.type,
        "suite": suite_of(card),
    }


def _check_result(
    done: CheckOutcome, card: Card, result: CardResult, files: dict[str, int], places: CheckInputs, online: bool
) -> None:
    report, run = done.report, SubmittedRun(done.folder, result.folder)
    file = f"results/{result.folder}/manifest.json"
    try:
        manifest = run.manifest().require_generation_track(file)
        ground = resolve_protocol(card, manifest, places, file, online)
        problems = list(manifest_problems(card, result, manifest, ground, file))
    except UserError as error:
        report.refused(
            error if isinstance(error, InvalidSubmissionError) else InvalidSubmissionError(file, str(error), "")
        )
        return
    for problem in problems:
        report.refused(problem)
    if problems:
        return
    if ground.corpus is None:
        todo = "Give it with --data DIR."
        report.note(file, "the human text is not at hand: its hashes were not compared", todo)
    done.ground[result.folder] = ground
    wanted = expected_cells(card, manifest, ground.suite, card.model(result))
    _check_cells(done, run, wanted, ground, files)
    _check_complete(done, result, manifest.selection.narrowed, n_expected_cells(manifest, manifest.entries))


def _check_cells(
    done: CheckOutcome, run: SubmittedRun, wanted: dict[str, CellKey], ground: Protocol, files: dict[str, int]
) -> None:
    """Check every cell: a line for each that is not right, and for texts that are there twice."""
    there: dict[str, set[str]] = {}
    for file in files:
        parts = file.split("/")
        if parts[:2] == ["results", run.folder] and len(parts) == 4:
            there.setdefault(parts[2], set()).add(parts[3])
    if len(there) > limits.CELLS:
        done.report.problem(f"results/{run.folder}", f"has more than {limits.CELLS:,} cells", "Remove some.")
        return
    found: dict[str, CellStatus] = {}
    seen: dict[str, str] = {}
    for cell, names in sorted(there.items()):
        try:
            status, sha256 = check_cell_files(run, cell, names, wanted, ground.suite)
        except InvalidSubmissionError as problem:
            done.report.refused(problem)
            continue
        found[cell] = status
        if sha256 in seen and status.cell.model is not None:
            what = f"holds the very texts of cell {seen[sha256]}, which has another seed, setting or language"
            done.report.problem(f"results/{run.folder}/{cell}", what, "Submit what was generated.")
        if sha256:
            seen[sha256] = cell
    done.statuses[run.folder] = found


def _check_complete(done: CheckOutcome, result: CardResult, narrowed: list[str], whole: int) -> None:
    report, file = done.report, f"results/{result.folder}"
    ready = sum(status.state == "ok" for status in done.statuses.get(result.folder, {}).values())
    if (result.n_cells, result.n_expected) != (ready, whole):
        what = f"{CARD} says {result.n_cells} of {result.n_expected} cells, there are {ready} of {whole}"
        report.problem(file, what, _AGAIN)
    elif ready < whole or narrowed:
        words = f" ({'; '.join(narrowed)})" if narrowed else ""
        report.note(file, f"partial: {ready} of {whole} cells{words}", "The board shows it without a mean.")
    settings = {entry_of(status.cell).setting for status in done.statuses.get(result.folder, {}).values()}
    name = result.model or "no model"
    report.facts[name] = f"{ready} of {whole} cells, {', '.join(sorted(settings)) or 'nothing'}"


def _check_companions(done: CheckOutcome, card: Card) -> None:
    """Look at the code, which does not run, and at steering files."""
    report = done.report
    if CODE in card.files:
        try:
            found = inspect_source(done.folder / CODE, CODE)
        except UserError as error:
            report.problem(CODE, str(error).removeprefix(CODE).lstrip(":, "), "Repair it.")
            return
        if card.method.name not in found:
            what = f"registers no method {card.method.name!r}; it has {', '.join(found) or 'none'}"
            report.problem(CODE, what, "Name the class with @register(...).")
        if card.method.name != card.name:
            todo = "Rename the folder, or the method."
            report.problem(CODE, f"the method is {card.method.name!r}, the folder {card.name!r}", todo)
    if card.type == "vectors":
        _check_steering(done, card)


def _check_steering(done: CheckOutcome, card: Card) -> None:
    used = {
        status.steering: status
        for statuses in done.statuses.values()
        for status in statuses.values()
        if status.steering
    }
    files = {file.removeprefix("steering/").removesuffix(".safetensors"): file for file in card.files}
    for name in sorted({*used} ^ {*files}):
        what = "is missing; a cell names it" if name in used else "is used by no cell"
        done.report.problem(f"steering/{name}.safetensors", what, _AGAIN)
    for name in sorted({*used} & {*files}):
        key = used[name].cell
        try:
            header = load_steering(done.folder / files[name]).provenance
        except BrokenFileError as error:
            done.report.problem(files[name], str(error).replace(f"{done.folder}/", ""), _AGAIN)
            continue
        model = key.model.model_dump(mode="json") if key.model else None
        wanted = (key.method.model_dump(mode="json"), model, key.language, key.task, key.data)
        if tuple(header.get(field) for field in ("method", "model", "language", "task", "data")) != wanted:
            what = "its header is of another method, model, language, task or data than its name"
            done.report.problem(files[name], what, _AGAIN)
