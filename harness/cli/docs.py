"""The command ``steerboard docs``: the pages of ``docs/``, which an installed package has with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import argument
from harness.core.errors import unknown


def pages() -> dict[str, Path]:
    """Return the pages by name: inside the wheel, else beside the package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_docs"
    root = installed if installed.is_dir() else package.parent / "docs"
    return {path.stem: path for path in sorted(root.glob("*")) if path.suffix in {".md", ".json"}}


def docs(page: Annotated[str | None, argument("PAGE", "Name of a page. Default: all names.")] = None) -> None:
    """Print a page of the documentation, or list the pages.

    They are Markdown, and the schemas of files. Example:

        steerboard docs methods
    """
    found = pages()
    if page is None:
        for name, path in found.items():
            first = path.read_text(encoding="utf-8").split("\n", 1)[0]
            typer.echo(f"{name:<18} {first.removeprefix('# ') if path.suffix == '.md' else 'JSON Schema'}")
        return
    name = Path(page).stem if page.endswith((".md", ".json")) else page
    if name not in found:
        raise unknown("page", page, found)
    typer.echo(found[name].read_text(encoding="utf-8"), nl=False)
