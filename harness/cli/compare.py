"""The command ``steerboard compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Threads, argument, option
from harness.core.languages import check_known

_TABLE = "table"


def compare(
    run_a: Annotated[Path, argument("RUN_A", "Folder of the run before.")],
    run_b: Annotated[Path, argument("RUN_B", "Folder of the run after.")],
    metric: Annotated[
        list[str] | None, option("METRIC", "Only this one, such as macro_f1/tfidf; repeat for several, or: all.")
    ] = None,
    threads: Threads = None,
    format_: Annotated[str, option("FORMAT", "table, md, json or csv.", "--format")] = _TABLE,
) -> None:
    """Compare two runs of a suite, entry by entry.

    Is B better or worse, or can nothing be said? Every entry of A is compared with the same method and setting in B,
    paired by task, language and seed, with a 95 % interval and a verdict per metric. "No clear difference" comes with
    the smallest difference that would have been found. Example, before and after a change:

        steerboard run --suite mini --run runs/before
        steerboard run --suite mini --run runs/after
        steerboard compare runs/before runs/after

    For a comment on a pull request: --format md. Runs of different suites, data or sizes are refused;
    of runs that only overlap, the common cells are compared.
    """
    check_known("format", [format_], (_TABLE, "md", "json", "csv"))
    from harness.core.store import Run
    from harness.core.terminal import output
    from harness.ranking import render as rendering
    from harness.ranking.compare import compare as compare_runs

    found = compare_runs(Run(run_a), Run(run_b), metric or [])
    if format_ == _TABLE:
        rendering.print_comparison(output(), found)
        return
    texts = {"md": rendering.as_markdown, "json": rendering.as_json, "csv": rendering.as_csv}
    typer.echo(texts[format_](found), nl=False)
