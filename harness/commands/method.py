"""The command ``steerboard method``."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Start a method of your own, and check it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass
