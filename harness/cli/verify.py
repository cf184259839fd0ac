"""``steerboard submission verify``, and what the commands on submissions share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import BatchSize, ContrastText, Data, Device, Lock, ModelName, Revision, console
from harness.core.errors import require, unknown

if TYPE_CHECKING:
    from harness.submissions.report import SubmissionReport
    from harness.submissions.submission import Submission

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a submission, such as submissions/my-method.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="table for people; json, md (for a comment) or junit for machines.",
    ),
]
OwnSuite = Annotated[
    str | None,
    typer.Option("--suite", metavar="FILE", help="File of the suite, where it is not one that ships."),
]


def badge_of(submission: Submission) -> str:
    """Return the badge of a submission, and why an entry of the lock does not count for it."""
    return f"{submission.badge}{f' ({submission.note})' if submission.note else ''}"


def known(form: str) -> None:
    """Refuse a format that there is not."""
    from harness.submissions.report import FORMATS

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)


def show(report: SubmissionReport, form: str) -> None:
    """Print a report and end with its exit code."""
    from harness.submissions.report import render

    typer.echo(render(report, form), nl=False)
    raise typer.Exit(1 if report.problems else 0)


def verify(
    folder: Folder,
    sample: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="How many cells to generate again.")] = 3,
    model: ModelName = None,
    revision: Revision = None,
    data: Data = None,
    contrast: ContrastText = None,
    suite: OwnSuite = None,
    device: Device = None,
    batch_size: BatchSize = 64,
    seed: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Which cells are drawn. Default: another number each time."),
    ] = None,
    at_least: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Share of texts that have to be equal."),
    ] = 0.9,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run method.py or the entry point. Read it first.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Note it in the maintainers' lock, after 'check --write'.")
    ] = False,
    lock: Lock = None,
    output: Format = "table",
) -> None:
    r"""Generate some cells again, with the model, and compare texts.

    From steering files, which are data that the engine applies, or from code, which runs only with
    --run-code. Texts alone (type outputs) cannot be verified. The same texts come out on the device and with
    the versions of the manifest; elsewhere rounding may change some. Example:

        steerboard submission verify submissions/my-method --sample 3 \
            --model google/gemma-2-9b-it
    """
    import secrets

    from harness.submissions.check import check_files
    from harness.submissions.lockfile import open_lock
    from harness.submissions.protocol import CheckInputs
    from harness.submissions.submission import InvalidSubmissionError, find

    known(output)
    checks = open_lock(lock)
    checked = check_files(folder, CheckInputs(suite, data, contrast), online=True, lock=checks)
    if not checked.report.problems:
        require("run")
        from harness.submissions.record import mark_reproduced
        from harness.submissions.reproduce import SpotCheck, reproduce

        if run_code:
            typer.echo(f"warning: code of {folder} runs on this machine, with your rights", err=True)
        drawn = secrets.randbelow(10**6) if seed is None else seed
        wanted = SpotCheck(sample, drawn, at_least, model, revision, device, batch_size)
        found = reproduce(checked, wanted, run_code, console())
        if write and found is not None and not mark_reproduced(checked, found, checks):
            todo = "Run 'steerboard submission check --write' first."
            checked.report.problem(str(checks.path), "has no entry of what lies here", todo)
    if checked.submission is not None:
        try:
            checked.report.facts["badge"] = badge_of(find(folder, checks))
        except InvalidSubmissionError as error:  # code that ran can have written there
            checked.report.refused(error)
    show(checked.report, output)
