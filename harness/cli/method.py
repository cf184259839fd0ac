"""The commands ``steerboard method ...``: start a method of your own, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.helptext import build_group
from harness.cli.options import Plugins, Threads, argument, option

app = build_group("Start a method of your own, and check it.")


@app.command("new")
def new(
    name: Annotated[str, argument("NAME", "The method's name, such as my-method.")],
    out: Annotated[
        Path | None,
        option(
            "FILE",
            "File to write. Default: submissions/NAME/method.py where there is a folder submissions, else NAME.py.",
        ),
    ] = None,
) -> None:
    """Write a starter file: a complete method with comments.

    It is ready to be run, and to be changed. Example:

        steerboard method new my-method
    """
    from harness.methods.template import next_commands, write_template

    path = write_template(name, out)
    typer.echo(f"wrote {path}: a method that works. Change it, then:")
    for command in next_commands(name, path):
        typer.echo(f"  {command}")


@app.command("test")
def test(
    method: Annotated[str, argument("FILE_OR_NAME", "Python file with a method, or a method's name.")],
    options: Annotated[
        str | None, option("JSON", "Config to test with, as JSON: '{\"layer\": 1}'. Default: the defaults.")
    ] = None,
    plugin: Plugins = None,
    threads: Threads = None,
    output: Annotated[str, option("FORMAT", "text, or json for machines.", "--format")] = "text",
) -> None:
    """Check whether a method keeps the contract.

    On the small model that ships, in under a minute. Exit code 0: all checks passed. 1: one failed. 2: the
    method could not be loaded.
    """
    import json

    from harness.core.errors import UserError, require
    from harness.core.languages import check_known

    check_known("format", [output], ["text", "json"])
    try:
        config = json.loads(options) if options else {}
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UserError(f"--options {options!r:.80}: give a JSON object, such as '{{\"layer\": 1}}'.")
    require("run")
    require("test")
    from harness.submissions.conformance.kit import check_method

    passed = check_method(method, config, plugin or [], as_json=output == "json")
    raise typer.Exit(0 if passed else 1)
