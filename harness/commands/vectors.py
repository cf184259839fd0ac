"""The command ``steerboard vectors``."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Look at steering files, and export them to other programs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass
