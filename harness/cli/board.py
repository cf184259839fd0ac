"""The commands ``steerboard board ...``: build, serve, diff."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.helptext import build_group
from harness.cli.options import Lock, Threads, argument, option
from harness.core.errors import UserError, require
from harness.core.languages import check_known

app = build_group("Build, view and compare leaderboards. They are static pages, made from result files alone.")

Runs = Annotated[list[Path], argument("PATH...", "Run folders, submissions, or folders that hold some.")]
Date = Annotated[
    str | None, option("DATE", "Date on the pages, such as 2026-11-24. Default: that of the newest run, not today's.")
]

_TABLE = "table"


@app.command("build")
def build(
    runs: Runs,
    out: Annotated[Path, option("FOLDER", "Folder for the site; index.html is its first page.")],
    date: Date = None,
    lock: Lock = None,
    threads: Threads = None,
) -> None:
    """Build the leaderboard: static pages and downloads.

    They work from disk and make no network requests. Runs of one suite, selection and data share a table; all others
    get tables of their own. Private results are built by the same command. Equal files and date give equal
    bytes. A submission that fails the check of its files is named and not shown. Example:

        steerboard board build runs/gemma runs/llama submissions --out site
    """
    require("board")
    typer.echo(f"board: {built(runs, out, date, lock)}")


@app.command("serve")
def serve(
    runs: Runs,
    port: Annotated[int, option("NUMBER", "Port on this machine; 0 takes a free one.", max=65535, min=0)] = 8321,
    out: Annotated[Path | None, option("FOLDER", "Keep the site here. Default: a temporary folder.")] = None,
    date: Date = None,
    lock: Lock = None,
    threads: Threads = None,
) -> None:
    """Show the leaderboard on this machine alone.

    It is rebuilt, and open pages reload, when a run changes. Example:

        steerboard board serve runs/gemma
    """
    require("board")
    from tempfile import TemporaryDirectory

    from leaderboard.serve import serve as serve_site

    with contextlib.ExitStack() as stack:
        folder = out or Path(stack.enter_context(TemporaryDirectory(prefix="steerboard-")))
        serve_site(lambda: built(runs, folder, date, lock), runs, port, typer.echo)


@app.command("diff")
def diff(
    old: Annotated[Path, argument("OLD", "A site, or its results.json, before.")],
    new: Annotated[Path, argument("NEW", "A site, or its results.json, after.")],
    format_: Annotated[str, option("FORMAT", "table, md or json.", "--format")] = _TABLE,
) -> None:
    """Say what changed from one build of a board to another.

    Entries, tiers, scores, flags and cost. Example:

        steerboard board diff site-before site --format md
    """
    check_known("format", [format_], (_TABLE, "md", "json"))
    require("board")
    from leaderboard import diff_report
    from leaderboard.diff import diff as compare_builds

    found = compare_builds(old, new)
    if format_ == _TABLE:
        from harness.core.terminal import output

        diff_report.print_diff(output(), found)
        return
    typer.echo({"md": diff_report.as_markdown, "json": diff_report.as_json}[format_](found), nl=False)


def built(runs: list[Path], out: Path, date: str | None = None, lock: Path | None = None) -> Path:
    """Build a site and return its first page. Raises ``UserError`` for a date that is none."""
    from harness.submissions.lockfile import open_lock
    from leaderboard.build import build_site

    if date:
        try:
            datetime.date.fromisoformat(date)
        except ValueError:
            raise UserError(f"--date {date!r} is not a date. Write it as 2026-11-24.") from None
    return build_site(runs, out, date or "", open_lock(lock))
