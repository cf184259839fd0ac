"""The commands ``steerboard submission ...``: new, pack, check, list, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.helptext import Group
from harness.cli.options import Classifiers, ContrastText, Data, Lock, console
from harness.cli.verify import Folder, Format, OwnSuite, badge_of, known, show, verify
from harness.core.errors import UserError, require, unknown

if TYPE_CHECKING:
    from harness.submissions.check import CheckOutcome
    from harness.submissions.lockfile import LockFile
    from harness.submissions.protocol import CheckInputs

app = typer.Typer(
    cls=Group,
    help="Hand in a method or its texts, and check what others hand in. See 'steerboard docs submitting'.",
    epilog="The way: new, run, pack, check; then 'steerboard board build submissions --out site'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass


@app.command("pack")
def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished and scored run.")],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder of the submission; its last part is the name. It may exist."),
    ],
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The method to pack. Default: that of the folder, or the run's only."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Its options as JSON, where the run has it with several."),
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="code (default), vectors, or outputs (texts alone)."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name. Default: the last part of --out.")] = None,
    author: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who made it. Repeat for several.")] = None,
    contact: Annotated[str | None, typer.Option(metavar="ADDRESS", help="E-mail or https address.")] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="SPDX_ID", help="SPDX id for the texts, such as CC-BY-4.0 or CC0-1.0."),
    ] = None,
    paper: Annotated[str | None, typer.Option(metavar="REFERENCE", help="arXiv id, DOI or https address.")] = None,
    tuned_on: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="none, train or validation, and how: 'validation: 12 strengths'."),
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The method's file, for type code. Default: DIR/method.py."),
    ] = None,
    entry_point: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CLASS", help="Class of an installed package, instead of a file."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Pack a run with missing cells.")] = False,
) -> None:
    r"""Make a submission of one method of a run.

    It is the method's cells, compressed and hashed, and submission.yaml. What is in the folder already (who,
    which licence, code, results of other models) stays. Baselines and references of the run are not packed:
    the board has them. Nothing is asked. Example:

        steerboard submission pack runs/gemma --method my-method \
            --out submissions/my-method
    """
    from harness.core.store import Run
    from harness.submissions.pack import PackOptions, check_command, pack

    if type_ not in {None, "code", "vectors", "outputs"}:
        raise unknown("type", str(type_), ["code", "vectors", "outputs"])
    wishes = PackOptions(
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
    packed = pack(Run(run), out, wishes)
    for result in packed.card.results:
        typer.echo(f"{packed.folder}: {result.n_cells} of {result.n_expected} cells of {result.model or 'no model'}")
    for words in packed.missing:
        typer.echo(f"partial: {words}")
    typer.echo(f"next: {check_command(Run(run), packed)}")


def _options(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        found = text
    if found is not None and not isinstance(found, dict):
        raise UserError(f"--config {text!r:.80}: give a JSON object, such as '{{\"strength\": 0.2}}'.")
    return found


@app.command("check")
def check(
    folder: Folder,
    data: Data = None,
    classifier: Classifiers = None,
    contrast: ContrastText = None,
    suite: OwnSuite = None,
    rescore: Annotated[
        bool,
        typer.Option("--rescore/--no-rescore", help="Score every text from scratch, or look at the files only."),
    ] = True,
    write: Annotated[
        bool,
        typer.Option("--write", help="For maintainers: write what was measured into the lock."),
    ] = False,
    lock: Lock = None,
    output: Format = "table",
) -> None:
    """Check a submission; nothing of it is executed.

    Nothing in it counts as a check, either. Looks at paths, sizes, schema, hashes, identity of method, model,
    suite and data, and completeness; scores every text again by the suite's protocol and compares with the
    claim; looks for copies and collapse.

    Exit code 0: fine. 1: problems, each in one line: file, what, what to do. 2: bad input. Example:

        steerboard submission check submissions/my-method --classifier tfidf
    """
    from harness.submissions.lockfile import open_lock
    from harness.submissions.protocol import CheckInputs

    known(output)
    if write and not rescore:
        raise UserError("--write needs what was measured. Leave out --no-rescore.")
    places = CheckInputs(suite, data, contrast)
    show(_checked(folder, places, classifier, rescore, write, open_lock(lock, new=write)).report, output)


def _checked(
    folder: Path,
    places: CheckInputs,
    classifiers: list[str] | None,
    rescore: bool,
    write: bool,
    lock: LockFile,
) -> CheckOutcome:
    from harness.submissions.check import check_files

    if write:
        lock.check_writable()
    checked = check_files(folder, places, online=rescore, lock=lock)
    report = checked.report
    if rescore and not report.problems:
        require("run")
        if write and checked.submission is not None:
            from harness.submissions.record import check_version

            check_version(checked.submission, lock)  # before minutes of scoring
        from harness.submissions.rescore import rescored

        with rescored(checked, classifiers, console()) as measured:
            if write:
                from harness.submissions.record import write_record

                kept = write_record(checked, measured, lock)
                report.facts["badge"] = f"{kept.badge}; {len(kept.measured) // 2} cells differ from the claim"
    if checked.submission is not None and "badge" not in report.facts:
        report.facts["badge"] = badge_of(checked.submission)
    return checked


@app.command("check-changes")
def check_changes(
    changed: Annotated[
        Path, typer.Argument(metavar="LIST", help="File with the changed paths: 'git diff --name-only -z'.")
    ],
    repository: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Checkout of the pull request; none of its code runs.")
    ],
    lock: Lock = None,
    rescore: Annotated[bool, typer.Option("--rescore/--no-rescore", help="As for 'submission check'.")] = True,
    output: Format = "table",
) -> None:
    """Check the submissions that a pull request touches.

    Refused are links, stray files, files that only whoever checks writes, unknown paths below submissions/,
    the removal of a published submission, and changes of baselines/, .github/ or .gitattributes beside
    submissions. Exit codes as for 'check'. Example:

        steerboard submission check-changes changed --repository proposed
    """
    from harness.submissions.changes import changes, read_changed
    from harness.submissions.lockfile import against, open_lock
    from harness.submissions.protocol import CheckInputs
    from harness.submissions.report import Finding, SubmissionReport, render

    known(output)
    checks = open_lock(lock)
    found = changes(read_changed(changed), repository, checks.body)
    reports = [found.report]
    for name in found.names:
        try:
            done = _checked(repository / "submissions" / name, CheckInputs(), None, rescore, False, checks)
        except UserError as error:  # one that cannot be checked does not hide the others
            reports.append(SubmissionReport(name, [Finding("problem", name, str(error))]))
            continue
        entry = checks.body.submissions.get(name)
        words = against(entry, done.submission) if entry and done.submission else ""
        if words:
            done.report.problem("submission.yaml", f"differs from what was published: {words}", "")
        reports.append(done.report)
    for report in reports:
        if report.findings or report is not found.report:
            typer.echo(render(report, output), nl=False)
    raise typer.Exit(1 if any(report.problems for report in reports) else 0)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the folder; with code, of the method, too.")],
    type_: Annotated[
        str,
        typer.Option("--type", metavar="TYPE", help="code (a method.py), vectors, or outputs (texts alone)."),
    ] = "code",
    suite: Annotated[str, typer.Option(metavar="NAME_OR_FILE", help="The suite that it is for.")] = "steer11",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder. Default: submissions/NAME.")] = None,
) -> None:
    """Start a submission: submission.yaml, and a method that works.

    Three types: code can be run again by anybody; vectors are data that the engine applies; outputs
    are texts alone, for closed models. Example:

        steerboard submission new my-method --type code
    """
    from harness.submissions.scaffold import new_submission, next_commands

    folder = new_submission(name, type_, suite, out)
    typer.echo(f"wrote {folder}: fill in the lines with TODO, then:")
    for line in next_commands(name, folder, type_, suite):
        typer.echo(f"  {line}")


@app.command("list")
def list_(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds submissions.")] = Path("submissions"),
    output: Annotated[str, typer.Option("--format", metavar="FORMAT", help="table, json or md.")] = "table",
    lock: Lock = None,
    allow_removed: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="For maintainers: take a submission that goes on purpose out of the lock."),
    ] = None,
) -> None:
    """List submissions with type, method, models, cells and badge.

    Badges: self-reported (as submitted), rescored (from the texts), reproduced (the texts, too); they come from
    the maintainers' lock alone. Exit code 1 where something is not a submission or cannot be read, and where
    a published language, task, text or score is lost or changed under the same version.
    """
    from harness.submissions.listing import listing
    from harness.submissions.lockfile import open_lock

    if output not in {"table", "json", "md"}:
        raise unknown("format", output, ["table", "json", "md"])
    if not root.is_dir():
        raise UserError(f"{root} is no folder. Give the one that holds submissions.")
    checks = open_lock(lock)
    for name in allow_removed or []:
        checks.withdraw(name)
    text, fine = listing(root, output, checks)
    typer.echo(text, nl=False)
    raise typer.Exit(0 if fine else 1)


app.command("verify")(verify)
