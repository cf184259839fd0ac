"""The command ``steerboard contrast``."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Make or import contrast text: human sentences beside degraded versions of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    pass
