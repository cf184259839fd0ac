"""Check a submission, in the order in which an error makes the rest pointless, and a pull request.

Nothing of either is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.cells import entry_of
from harness.core.errors import BrokenFileError, InvalidFileError, UserError, pasted
from harness.core.interventions import load_steering
from harness.core.reading import read_bytes
from harness.core.records import CellKey, CellStatus, Entry, Manifest
from harness.core.store import Run
from harness.methods.plugins import inspect_source
from harness.methods.registry import BUILT_IN, FORMER_MODULES, SUBMISSIONS
from harness.submissions.card import Card, CardResult, has_todo
from harness.submissions.check_cells import check_cell
from harness.submissions.duplicates import clashes, compare_texts
from harness.submissions.files import (
    CARD,
    CODE,
    MAX_CELLS,
    PACK_AGAIN,
    InvalidSubmissionError,
    list_submissions,
    printable,
    scan,
)
from harness.submissions.lockfile import NO_LOCK, LockFile, Lockfile
from harness.submissions.protocol import CheckInputs, Protocol, check_manifest, expected_cells, resolve_protocol
from harness.submissions.report import SubmissionReport
from harness.submissions.submission import Submission, siblings

_MAINTAINERS = "Leave it as it is: the maintainers change it, in a change of its own."
_LOCKED = ("baselines", ".github")


@dataclass
class CheckOutcome:
    """A submission whose files are what they have to be, as far as ``report`` has no problem.

    By directory of a model's results: ``protocols`` they were checked against, ``statuses`` cell -> status.
    ``siblings``: other submissions in the same directory.
    """

    folder: Path
    report: SubmissionReport
    submission: Submission | None = None
    protocols: dict[str, Protocol] = field(default_factory=dict)
    statuses: dict[str, dict[str, CellStatus]] = field(default_factory=dict)
    siblings: list[Submission] = field(default_factory=list)


def check_files(
    folder: Path,
    inputs: CheckInputs,
    online: bool = False,
    lock: LockFile = NO_LOCK,
    others: Iterable[Card] | None = None,
) -> CheckOutcome:
    """Check all that can be checked without scoring: paths, sizes, schema, hashes, identity, completeness.

    ``online``: whether human text may come from the hub. ``lock``: what the maintainers checked before.
    ``others``: the submissions that it must not clash with, by default those of its directory. Raises
    ``UserError`` where ``folder`` is not a directory.
    """
    if folder.is_symlink() or not folder.is_dir():
        problem = "is a link" if folder.is_symlink() else "is not a directory"
        raise UserError(f"{folder} {problem}. Pass the directory of a submission: submissions/NAME.")
    report = SubmissionReport(folder.resolve().name)
    done = CheckOutcome(folder, report)
    files, problems = scan(folder)
    report.refuse(*problems)
    if problems:
        return done
    try:
        done.submission = submission = Submission(folder, files, lock)
    except InvalidSubmissionError as error:
        report.refuse(error)
        return done
    card, done.siblings = submission.card, siblings(folder)
    _check_card(folder, card, report)
    report.refuse(*clashes(card, [other.card for other in done.siblings] if others is None else others))
    report.refuse(*submission.broken)
    if not report.problems:  # what follows unpacks and reads files: only those that are meant
        for result in card.results:
            _check_result(done, submission, result, inputs, online)
        _check_companions(done, submission)
        compare_texts(submission, done.siblings, report)
    return done


def _check_card(folder: Path, card: Card, report: SubmissionReport) -> None:
    name = folder.resolve().name
    if card.name != name:
        report.add("problem", CARD, f"the name is {card.name!r}, the directory's {name!r}", "Make them equal.")
    people = [text for author in card.authors for text in (author.name, author.affiliation or "")]
    if any(map(has_todo, [card.contact, card.method.does, card.tuned_on.words, card.licence, *people])):
        report.add("problem", CARD, "has a line that is still to be filled in", "Replace every TODO.")
    if not card.results:
        hint = f"Pack a finished run: {pasted('submission', 'pack', 'RUN', '--out', folder)}"
        report.add("problem", CARD, "has no results yet", hint)
    own = BUILT_IN.get(card.method.name)
    if own and (card.entry_point or "").partition(":")[0] not in {own, FORMER_MODULES.get(card.method.name)}:
        problem = f"the method's name {card.method.name!r} is that of a built-in one"
        report.add("problem", CARD, problem, f"Choose another name, or use type code with entry_point {own}.")
    report.facts |= {"method": card.method_title, "type": card.type, "suite": card.suite_title}


def _check_result(
    done: CheckOutcome, submission: Submission, result: CardResult, inputs: CheckInputs, online: bool
) -> None:
    report, card, run = done.report, submission.card, submission.run(result)
    file = f"results/{result.folder}/manifest.json"
    try:
        manifest = run.manifest().require_generation_track(file)
        protocol = resolve_protocol(card, manifest, inputs, file, online)
        problems = list(check_manifest(card, result, manifest, protocol, file))
    except InvalidFileError as error:
        report.refuse(error)
        return
    except UserError as error:
        report.add("problem", file, str(error))
        return
    report.refuse(*problems)
    if problems:
        return
    if protocol.corpus is None:
        problem = "the human text is not available: its hashes were not compared"
        report.add("note", file, problem, "Pass it with --data DIR.")
    done.protocols[result.folder] = protocol
    _check_cells(done, submission, run, expected_cells(card, manifest, protocol.suite, card.model(result)), protocol)
    _check_complete(done, result, manifest)


def _check_cells(
    done: CheckOutcome, submission: Submission, run: Run, expected: dict[str, CellKey], protocol: Protocol
) -> None:
    """Check every cell: a finding for each that is not right, and for texts that are there twice."""
    root, report = f"results/{run.path.name}", done.report
    there: dict[str, set[str]] = {}
    for path in submission.files:
        parts = path.split("/")
        if path.startswith(f"{root}/") and len(parts) == 4:
            there.setdefault(parts[2], set()).add(parts[3])
    if len(there) > MAX_CELLS:
        report.add("problem", root, f"has more than {MAX_CELLS:,} cells", "Remove some.")
        return
    found = done.statuses[run.path.name] = {}
    seen: dict[str, str] = {}
    for cell, names in sorted(there.items()):
        try:
            status, texts_sha256 = check_cell(run, cell, names, expected, protocol.suite)
        except InvalidSubmissionError as error:
            report.refuse(error)
            continue
        found[cell] = status
        if texts_sha256 in seen and status.cell.model is not None:
            problem = f"holds the very texts of cell {seen[texts_sha256]}, which has another seed, setting or language"
            report.add("problem", f"{root}/{cell}", problem, "Submit what was generated.")
        if texts_sha256:
            seen[texts_sha256] = cell


def n_expected_cells(manifest: Manifest, entries: Iterable[Entry]) -> int:
    """Return how many cells the whole suite has for these entries."""
    suite = manifest.suite
    return len([*entries]) * len(suite["languages"]) * len(suite["tasks"]) * len(suite["seeds"])


def _check_complete(done: CheckOutcome, result: CardResult, manifest: Manifest) -> None:
    report, file = done.report, f"results/{result.folder}"
    narrowed, expected = manifest.selection.narrowed, n_expected_cells(manifest, manifest.entries)
    statuses = done.statuses.get(result.folder, {}).values()
    n_cells = sum(status.state == "ok" for status in statuses)
    if (result.n_cells, result.n_expected) != (n_cells, expected):
        counts = f"{result.n_cells} of {result.n_expected} cells, there are {n_cells} of {expected}"
        report.add("problem", file, f"{CARD} says {counts}", PACK_AGAIN)
    elif n_cells < expected or narrowed:
        words = f" ({'; '.join(narrowed)})" if narrowed else ""
        hint = "The board shows it without a mean."
        report.add("note", file, f"partial: {n_cells} of {expected} cells{words}", hint)
    settings = {entry_of(status.cell).setting for status in statuses}
    words = ", ".join(sorted(settings)) or "nothing"
    report.facts[result.model or "no model"] = f"{n_cells} of {expected} cells, {words}"


def _check_companions(done: CheckOutcome, submission: Submission) -> None:
    """Look at the code, which does not run, and at steering files."""
    report, card = done.report, submission.card
    if CODE in card.files:
        try:
            found = inspect_source(done.folder / CODE, CODE, submission.reader.read(CODE))
        except UserError as error:
            report.add("problem", CODE, str(error).removeprefix(CODE).lstrip(":, "), "Repair it.")
            return
        if card.method.name not in found:
            problem = f"registers no method {card.method.name!r}; it has {', '.join(found) or 'none'}"
            report.add("problem", CODE, problem, "Name the class with @register(...).")
        if card.method.name != card.name:
            problem = f"the method is {card.method.name!r}, the directory {card.name!r}"
            report.add("problem", CODE, problem, "Rename the directory, or the method.")
    if card.type == "vectors":
        _check_steering(done, submission)


def _check_steering(done: CheckOutcome, submission: Submission) -> None:
    statuses = [status for found in done.statuses.values() for status in found.values()]
    used = {f"steering/{status.steering}.safetensors": status for status in statuses if status.steering}
    files = {*submission.card.files}
    for path in sorted({*used} ^ files):
        problem = "is missing; a cell names it" if path in used else "is used by no cell"
        done.report.add("problem", path, problem, PACK_AGAIN)
    for path in sorted({*used} & files):
        key = used[path].cell
        try:
            header = load_steering(Path(path), submission.reader.read(path)).provenance
        except BrokenFileError as error:
            done.report.add("problem", path, str(error), PACK_AGAIN)
            continue
        model = key.model.fitted if key.model else None
        expected = (key.method.model_dump(mode="json"), model, key.language, key.task, key.data)
        if tuple(header.get(field) for field in ("method", "model", "language", "task", "data")) != expected:
            problem = "its header is of another method, model, language, task or data than its name"
            done.report.add("problem", path, problem, PACK_AGAIN)


# The changes of a pull request


def read_changed(path: Path) -> list[str]:
    """Return the paths that ``git diff --name-only -z`` wrote into a file; what is not UTF-8 is escaped."""
    return [part.decode("utf-8", "backslashreplace") for part in read_bytes(path).split(b"\0") if part]


def check_changes(changed: Iterable[str], repository: Path, lock: Lockfile) -> tuple[SubmissionReport, list[str]]:
    """Return the report on the changed paths of a pull request, and the names of the submissions to check.

    Nothing in ``repository`` is believed. ``lock``: what the target branch has checked. Nothing is reported where
    no path is below ``submissions/``.
    """
    report, names = SubmissionReport("pull request"), []
    paths = sorted({*changed})
    inside = [path for path in paths if path.split("/")[0] == SUBMISSIONS]
    if not inside:
        return report, []
    try:
        folders, problems = list_submissions(repository / SUBMISSIONS)
    except InvalidSubmissionError as error:
        report.add("problem", SUBMISSIONS, error.problem, "Restore the directory.")
        return report, []
    for problem in problems:
        report.add("problem", f"{SUBMISSIONS}/{problem.name}", problem.problem, problem.hint)
    valid = {folder.name for folder in folders}
    invalid = {problem.name for problem in problems}
    for path in inside:
        name, _, below = path.removeprefix(f"{SUBMISSIONS}/").partition("/")
        if name in valid and below:
            names += [] if name in names else [name]
        elif path == f"{SUBMISSIONS}/README.md":
            report.add("note", path, "is changed")
        elif name.startswith(".") or (printable(name) not in invalid and not below):
            report.add("problem", printable(path), "is not part of a submission", _MAINTAINERS)
        elif printable(name) not in invalid:
            _add_removed(report, name, lock)
    _check_others([path for path in paths if path not in {*inside}], report)
    return report, names


def _check_others(paths: list[str], report: SubmissionReport) -> None:
    for path in paths:
        if path.split("/")[0] in _LOCKED or path.rpartition("/")[2] == ".gitattributes":
            report.add("problem", printable(path), "is changed together with submissions", _MAINTAINERS)
    if paths:
        what = f"changes {len(paths)} files outside of {SUBMISSIONS}/ as well"
        report.add("note", ".", what, "Review them as code.")


def _add_removed(report: SubmissionReport, name: str, lock: Lockfile) -> None:
    file = f"{SUBMISSIONS}/{printable(name)}"
    if file in {finding.file for finding in report.findings}:
        return
    if name in lock.submissions:
        hint = f"Restore it. Maintainers remove it with: steerboard submission list --allow-removed {name}"
        report.add("problem", file, "was published and is removed", hint)
    else:
        report.add("note", file, "is removed")
