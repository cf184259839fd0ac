"""The commands ``steerboard submission ...``: new, pack, check, list, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands.helptext import Group
from harness.commands.options import Classifiers, ContrastText, Data, console
from harness.commands.verify import Folder, Format, OwnSuite, badge_of, known, show, verify
from harness.errors import UserError, require, unknown

app = typer.Typer(
    cls=Group,
    help="Hand in a method or its texts, and check what others hand in. See docs/submitting.md.",
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
        typer.Option(
            metavar="FOLDER", help="Folder of the submission; its last part is the name. It may exist."
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The method to pack. Default: that of the folder, or the run's only."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Its options as JSON, where the run has it with several."),
    ] = None,
    road: Annotated[
        str | None,
        typer.Option(metavar="ROAD", help="code (default), steering (its files) or outputs (texts alone)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name. Default: the last part of --out.")
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Who made it. Repeat for several.")
    ] = None,
    contact: Annotated[str | None, typer.Option(metavar="ADDRESS", help="E-mail or https address.")] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="SPDX_ID", help="SPDX id for the texts, such as CC-BY-4.0 or CC0-1.0."),
    ] = None,
    paper: Annotated[
        str | None, typer.Option(metavar="REFERENCE", help="arXiv id, DOI or https address.")
    ] = None,
    tuned_on: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="none, train or validation, and how: 'validation: 12 strengths'."),
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The method's file, for road code. Default: DIR/method.py."),
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
    from harness.store import Run
    from harness.submissions.packing import Wishes, check_command, pack

    if road not in {None, "code", "steering", "outputs"}:
        raise unknown("road", str(road), ["code", "steering", "outputs"])
    wishes = Wishes(
        name=name,
        method=method,
        config=_options(config),
        road=road,
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
        typer.echo(f"{packed.folder}: {result.cells} of {result.of} cells of {result.model or 'no model'}")
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
        typer.Option(
            "--rescore/--no-rescore", help="Score every text from scratch, or look at the files only."
        ),
    ] = True,
    write: Annotated[
        bool, typer.Option("--write", help="Keep what was measured: measured/ and check.json.")
    ] = False,
    output: Format = "table",
) -> None:
    """Check a submission; nothing of it is executed.

    Looks at paths, sizes, schema, hashes, identity of method, model, suite and data, and completeness; scores
    every text anew by the suite's protocol and compares with the claim; looks for copies and collapse.

    Exit code 0: fine. 1: problems, each in one line: file, what, what to do. 2: bad input. Example:

        steerboard submission check submissions/my-method --classifier tfidf
    """
    from harness.submissions.checking import check_files
    from harness.submissions.ground import Places

    known(output)
    checked = check_files(folder, Places(suite, data, contrast), online=rescore)
    report = checked.report
    if rescore and not report.problems:
        require("run")
        from harness.submissions.rescoring import rescored

        with rescored(checked, classifier, console()) as measured:
            if write:
                from harness.submissions.keeping import keep

                kept = keep(checked, measured)
                report.facts["badge"] = f"{kept.badge}; {len(kept.files) // 2} cells differ from the claim"
    if checked.submission is not None and "badge" not in report.facts:
        report.facts["badge"] = badge_of(checked.submission)
    show(report, output)


@app.command("new")
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the folder; with code, of the method, too.")
    ],
    road: Annotated[
        str,
        typer.Option(
            metavar="ROAD", help="code (a method.py), steering (fitted files) or outputs (texts alone)."
        ),
    ] = "code",
    suite: Annotated[str, typer.Option(metavar="NAME_OR_FILE", help="The suite that it is for.")] = "steer11",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder. Default: submissions/NAME.")
    ] = None,
) -> None:
    """Start a submission: submission.yaml, and a method that works.

    Three roads: code can be run again by anybody; steering files are data that the engine applies; outputs
    are texts alone, for closed models. Example:

        steerboard submission new my-method --road code
    """
    from harness.submissions.scaffold import new_submission, next_commands

    folder = new_submission(name, road, suite, out)
    typer.echo(f"wrote {folder}: fill in the lines with FILL IN, then:")
    for line in next_commands(name, folder, road, suite):
        typer.echo(f"  {line}")


@app.command("list")
def list_(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds submissions.")] = Path(
        "submissions"
    ),
    output: Annotated[str, typer.Option("--format", metavar="FORMAT", help="table, json or md.")] = "table",
    lock: Annotated[
        bool, typer.Option("--lock", help="Also renew published.json, which guards what is published.")
    ] = False,
    withdraw: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --lock: a submission that was removed on purpose."),
    ] = None,
) -> None:
    """List submissions with road, method, models, cells and badge.

    Badges: claimed (as handed in), re-scored (from the texts), regenerated (the texts, too). --lock refuses
    where a published language, task, file or score is lost or changed under the same version.
    """
    from harness.submissions.listing import listing
    from harness.submissions.published import renew

    if output not in {"table", "json", "md"}:
        raise unknown("format", output, ["table", "json", "md"])
    if not root.is_dir():
        raise UserError(f"{root} is no folder. Give the one that holds submissions.")
    if lock:
        renew(root, tuple(withdraw or ()))
    text, fine = listing(root, output)
    typer.echo(text, nl=False)
    raise typer.Exit(0 if fine else 1)


app.command("verify")(verify)
