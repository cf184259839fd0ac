"""The commands ``steerboard submission ...``: new, pack, check, check-changes, list, verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.helptext import Group
from harness.cli.options import (
    BatchSize,
    Classifiers,
    ContrastText,
    Data,
    Device,
    Lock,
    ModelName,
    Revision,
    Threads,
    console,
)
from harness.core.errors import InvalidFileError, UserError, require, unknown

if TYPE_CHECKING:
    from harness.submissions.check import CheckOutcome
    from harness.submissions.lockfile import LockFile
    from harness.submissions.protocol import CheckInputs
    from harness.submissions.submission import Submission

app = typer.Typer(
    cls=Group,
    help="Submit a method or its texts, and check submissions. See 'steerboard docs submitting'.",
    epilog="In this order: new, run, pack, check; then 'steerboard board build submissions --out site'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A submission's directory, such as submissions/my-method.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="table for people; json, md (for a comment) or junit for machines."
    ),
]
OwnSuite = Annotated[
    str | None, typer.Option("--suite", metavar="FILE", help="File of the suite, where it is not one that ships.")
]
Rescore = Annotated[
    bool, typer.Option("--rescore/--no-rescore", help="Score every text from scratch, or look at the files only.")
]


@app.callback()
def _group() -> None:
    pass


@app.command("pack")
def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished and scored run.")],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Directory of the submission; its last part is the name. It may exist."),
    ],
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The method to pack. Default: that of the directory, or the run's only."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="JSON", help="Its options as JSON, where the run has it with several.")
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="code (default), vectors, or outputs (texts alone).")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name. Default: the last part of --out.")] = None,
    author: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who made it. Repeat for several.")] = None,
    contact: Annotated[str | None, typer.Option(metavar="ADDRESS", help="E-mail or https address.")] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX_ID", help="SPDX id for the texts, such as CC-BY-4.0 or CC0-1.0.")
    ] = None,
    paper: Annotated[str | None, typer.Option(metavar="REFERENCE", help="arXiv id, DOI or https address.")] = None,
    tuned_on: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="none, train or validation, and how: 'validation: 12 strengths'."),
    ] = None,
    code: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The method's file, for type code. Default: DIR/method.py.")
    ] = None,
    entry_point: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="Class of an installed package, instead of a file.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Pack a run with missing cells.")] = False,
) -> None:
    r"""Make a submission of one method of a run.

    It holds the method's cells, compressed and hashed, and submission.yaml. What is in the directory already
    (authors, licence, code, results of other models) stays. Baselines and references of the run are not packed:
    the board has them. Nothing is asked. Example:

        steerboard submission pack runs/gemma --method my-method \
            --out submissions/my-method
    """
    from harness.core.store import Run
    from harness.submissions.pack import PackOptions, check_command, pack
    from harness.submissions.template import TYPES

    if type_ is not None:
        _check_known("type", type_, TYPES)
    options = PackOptions(
        name=name,
        method=method,
        config=_options(config),
        type=type_,
        authors=author or (),
        contact=contact,
        licence=licence,
        paper=paper,
        tuned_on=tuned_on,
        code=code,
        entry_point=entry_point,
        partial=partial,
    )
    packed = pack(Run(run), out, options)
    for result in packed.card.results:
        counts = f"{result.n_cells} of {result.n_expected} cells"
        typer.echo(f"{packed.folder}: {counts} of {result.model or 'no model'}")
    for words in packed.missing:
        typer.echo(f"partial: {words}")
    typer.echo(f"next: {check_command(Run(run), packed)}")


def _options(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        found = text
    if found is not None and not isinstance(found, dict):
        raise UserError(f"--config {text!r:.80}: pass a JSON object, such as '{{\"strength\": 0.2}}'.")
    return found


def _check_known(kind: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise unknown(kind, value, known)


@app.command("check")
def check(
    folder: Folder,
    data: Data = None,
    classifier: Classifiers = None,
    contrast: ContrastText = None,
    suite: OwnSuite = None,
    rescore: Rescore = True,
    write: Annotated[
        bool, typer.Option("--write", help="For maintainers: write what was measured into the lockfile.")
    ] = False,
    lock: Lock = None,
    threads: Threads = None,
    output: Format = "table",
) -> None:
    """Check a submission; nothing of it is executed.

    Nothing in it counts as a check, either. Looks at paths, sizes, schema, hashes, identity of method, model,
    suite and data, and completeness; rescores every text by the suite's protocol and compares with the submitted
    scores; looks for copies and collapse.

    Exit code 0: fine. 1: problems, each in one line: file, what, what to do. 2: bad input. Example:

        steerboard submission check submissions/my-method --classifier tfidf
    """
    from harness.submissions.lockfile import open_lock
    from harness.submissions.protocol import CheckInputs
    from harness.submissions.report import FORMATS, render

    _check_known("format", output, FORMATS)
    if write and not rescore:
        raise UserError("--write needs what was measured. Leave out --no-rescore.")
    inputs = CheckInputs(suite, data, contrast)
    report = _checked(folder, inputs, classifier, rescore, write, open_lock(lock, new=write)).report
    typer.echo(render(report, output), nl=False)
    raise typer.Exit(1 if report.problems else 0)


def _checked(
    folder: Path, inputs: CheckInputs, classifiers: list[str] | None, rescore: bool, write: bool, lock: LockFile
) -> CheckOutcome:
    from harness.submissions.check import check_files

    if write:
        lock.check_writable()
    checked = check_files(folder, inputs, online=rescore, lock=lock)
    report, submission = checked.report, checked.submission
    if rescore and submission is not None and not report.problems:
        require("run")
        from harness.submissions.changes import check_version
        from harness.submissions.rescore import rescored, write_record

        if write:
            check_version(submission, lock)  # before minutes of scoring
        with rescored(checked, classifiers, console()) as result:
            if write:
                entry = write_record(checked, result, lock)
                report.facts["badge"] = f"{entry.badge}; {len(entry.measured) // 2} cells differ from the claim"
    if submission is not None:
        report.facts.setdefault("badge", _badge(submission))
    return checked


def _badge(submission: Submission) -> str:
    """Return the badge of a submission, and why an entry of the lockfile does not count for it."""
    return f"{submission.badge}{f' ({submission.note})' if submission.note else ''}"


@app.command("check-changes")
def check_changes(
    changed: Annotated[
        Path, typer.Argument(metavar="LIST", help="File with the changed paths: 'git diff --name-only -z'.")
    ],
    repository: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Checkout of the pull request; none of its code runs.")
    ],
    lock: Lock = None,
    rescore: Rescore = True,
    threads: Threads = None,
    output: Format = "table",
) -> None:
    """Check the submissions that a pull request touches.

    Refused are links, stray files, files that only whoever checks writes, unknown paths below submissions/, the
    removal of a published submission, and changes of baselines/, .github/ or .gitattributes together with
    submissions. Exit codes as for 'check'. Example:

        steerboard submission check-changes changed --repository proposed
    """
    from harness.submissions.changes import check_against
    from harness.submissions.check import check_changes, read_changed
    from harness.submissions.lockfile import open_lock
    from harness.submissions.protocol import CheckInputs
    from harness.submissions.report import FORMATS, SubmissionReport, render
    from harness.submissions.submission import ChangedError

    _check_known("format", output, FORMATS)
    locked = open_lock(lock)
    changes, names = check_changes(read_changed(changed), repository, locked.body)
    reports = []
    for name in names:
        try:
            done = _checked(repository / "submissions" / name, CheckInputs(), None, rescore, False, locked)
        except UserError as error:  # one that cannot be checked does not hide the others
            report = SubmissionReport(name)
            report.add("problem", name, str(error))
        else:
            report, entry = done.report, locked.body.submissions.get(name)
            try:
                if entry and done.submission:
                    check_against(entry, done.submission)
            except ChangedError as error:
                report.add("problem", "submission.yaml", f"differs from what was published: {error}")
        reports.append(report)
    for report in [changes, *reports] if changes.findings else reports:
        typer.echo(render(report, output), nl=False)
    raise typer.Exit(1 if any(report.problems for report in [changes, *reports]) else 0)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the directory; with code, of the method, too.")],
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="code (a method.py), vectors, or outputs (texts alone).")
    ] = "code",
    suite: Annotated[str, typer.Option(metavar="NAME_OR_FILE", help="The suite that it is for.")] = "steer11",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Directory. Default: submissions/NAME.")] = None,
) -> None:
    """Start a submission: submission.yaml, and a method that works.

    Three types: code can be run again by anybody; vectors are data that the engine applies; outputs are texts alone,
    for closed models. Example:

        steerboard submission new my-method --type code
    """
    from harness.submissions.template import new_submission, next_commands

    folder = new_submission(name, type_, suite, out)
    typer.echo(f"wrote {folder}: fill in the lines with TODO, then:")
    for line in next_commands(name, folder, type_, suite):
        typer.echo(f"  {line}")


@app.command("list")
def list_(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of submissions.")] = Path("submissions"),
    output: Annotated[str, typer.Option("--format", metavar="FORMAT", help="table, json or md.")] = "table",
    lock: Lock = None,
    allow_removed: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="For maintainers: take a removed submission out of the lockfile."),
    ] = None,
) -> None:
    """List submissions with type, method, models, cells and badge.

    Badges: self-reported (as submitted), rescored (from the texts), reproduced (some texts, too); they come from the
    maintainers' lockfile alone. Exit code 1 where something is not a submission or cannot be read, and where a
    published language, task, text or score is lost or changed under the same version.
    """
    from harness.submissions.lockfile import open_lock
    from harness.submissions.report import LIST_FORMATS, list_report

    _check_known("format", output, LIST_FORMATS)
    if not root.is_dir():
        raise UserError(f"{root} is not a directory. Pass the one that holds submissions.")
    locked = open_lock(lock)
    for name in allow_removed or []:
        locked.remove(name)
    text, fine = list_report(root, output, locked)
    typer.echo(text, nl=False)
    raise typer.Exit(0 if fine else 1)


@app.command("verify")
def verify(
    folder: Folder,
    sample: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="How many cells to generate again.")] = 3,
    model: ModelName = None,
    revision: Revision = None,
    data: Data = None,
    contrast: ContrastText = None,
    suite: OwnSuite = None,
    device: Device = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Which cells are drawn. Default: another number each time.")
    ] = None,
    at_least: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Share of texts that have to be equal.")
    ] = 0.9,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run method.py or the entry point. Read it first.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Record it in the maintainers' lockfile, after 'check --write'.")
    ] = False,
    lock: Lock = None,
    output: Format = "table",
) -> None:
    r"""Generate some cells again, with the model, and compare texts.

    From steering files, which are data that the engine applies, or from code, which runs only with --run-code. Texts
    alone (type outputs) cannot be verified. The same texts come out on the device and with the versions of the
    manifest; elsewhere rounding may change some. Example:

        steerboard submission verify submissions/my-method --sample 3 \
            --model google/gemma-2-9b-it
    """
    import secrets

    from harness.submissions.check import check_files
    from harness.submissions.lockfile import open_lock
    from harness.submissions.protocol import CheckInputs
    from harness.submissions.report import FORMATS, render
    from harness.submissions.submission import find

    _check_known("format", output, FORMATS)
    locked = open_lock(lock)
    checked = check_files(folder, CheckInputs(suite, data, contrast), online=True, lock=locked)
    report = checked.report
    if not report.problems:
        require("run")
        from harness.submissions.reproduce import SpotCheck, mark_reproduced, reproduce

        if run_code:
            typer.echo(f"warning: code of {folder} runs on this machine, with your rights", err=True)
        drawn = secrets.randbelow(10**6) if seed is None else seed
        wanted = SpotCheck(sample, drawn, at_least, model, revision, device, batch_size)
        found = reproduce(checked, wanted, run_code, console())
        if write and found is not None and not mark_reproduced(checked, found, locked):
            hint = "Run 'steerboard submission check --write' first."
            report.add("problem", str(locked.path), "has no entry of these files", hint)
    if checked.submission is not None:
        try:
            report.facts["badge"] = _badge(find(folder, locked))
        except InvalidFileError as error:  # code that ran can have written there
            report.refuse(error)
    typer.echo(render(report, output), nl=False)
    raise typer.Exit(1 if report.problems else 0)
