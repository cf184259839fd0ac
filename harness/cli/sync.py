"""The commands ``steerboard push`` and ``steerboard pull``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import argument, console
from harness.core.errors import pasted

if TYPE_CHECKING:
    from harness.runner.sync import Copied

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be copied; write nothing.")]


def push(
    run_folder: Annotated[Path, argument("RUN", "Folder of a run.")],
    url: Annotated[str, argument("URL", "Folder in a storage, such as s3://BUCKET/FOLDER.")],
    dry_run: DryRun = False,
) -> None:
    """Copy finished cells of a run to a storage such as S3.

    With the manifest, steering files and tuning results, each with its SHA-256. What is there already is not sent
    again, so repeat the command to resume, or to add what was finished since. Several machines may push to one
    folder, also while 'steerboard run' is at work. Any URL of fsspec will do: s3:// (pip install 'steerboard[s3]'),
    gs://, file://. Logins come from the environment; AWS_ENDPOINT_URL names another S3 server. Example:

        steerboard push runs/gemma s3://my-bucket/gemma
    """
    from harness.core.storage import hide_login
    from harness.runner.sync import push_run

    copied = push_run(run_folder, url, console(), dry_run)
    _say(copied, "send" if dry_run else "sent", dry_run)
    if not dry_run:
        typer.echo(f"next: {pasted('pull', hide_login(url), run_folder)}")


def pull(
    url: Annotated[str, argument("URL", "Folder in a storage that was pushed to.")],
    run_folder: Annotated[Path, argument("RUN", "Folder of the run; made if missing.")],
    dry_run: DryRun = False,
) -> None:
    """Copy what was pushed to a storage into a run.

    Every file is checked against its SHA-256. What is finished in the run is never replaced; a cell that has other
    texts in the storage stops the command before anything is copied. Repeat the command to resume. Example:

        steerboard pull s3://my-bucket/gemma runs/gemma
    """
    from harness.runner.sync import pull_run

    copied = pull_run(url, run_folder, console(), dry_run)
    _say(copied, "fetch" if dry_run else "fetched", dry_run)
    if not dry_run:
        typer.echo(f"next: {pasted('board', 'build', run_folder, '--out', 'site')}")


def _say(copied: Copied, done: str, dry_run: bool) -> None:
    """Print what was copied, what was there, and what differs."""
    size = f"{copied.bytes / 1e6:,.1f} MB" if copied.bytes >= 1e5 else f"{copied.bytes:,} bytes"
    line = f"{done} {copied.files:,} files ({size}) of {copied.cells:,} cells; {copied.present:,} were there already"
    if copied.kept:
        line += f"; {copied.kept:,} scores or steering files differ and stay as they are on both sides"
    typer.echo(f"would {line}" if dry_run else line)
