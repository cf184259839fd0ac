"""The commands ``steerboard method ...``: starting a method of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Start a method of your own, and check it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The method's name, such as my-method.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write. Default: submissions/NAME/method.py where there is a folder "
            "submissions, else NAME.py."
        ),
    ] = None,
) -> None:
    """Write a starter file with comments: a complete method, ready to be changed."""
    from harness.starter import next_commands, write_starter

    path = write_starter(name, out)
    typer.echo(f"wrote {path}: a method that works. Change it, then:")
    for command in next_commands(name, path):
        typer.echo(f"  {command}")
