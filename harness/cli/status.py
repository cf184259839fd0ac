"""The command ``steerboard status``: where a run stands."""

from __future__ import annotations

import io
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import argument
from harness.core.errors import UserError, pasted
from harness.core.redaction import hide_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from harness.runner.run_status import Reason, RunStatus
    from harness.runner.status_reader import StatusReader

_EVERY = 5.0  # seconds between two looks; longer where a look takes long
_SHOWN = 5  # reasons, damaged files and workers, at most
_LONGEST = 300  # characters of a reason

_STATES = {
    "empty": "not begun: it was stopped before its first cell",
    "starting": "starting: a process reads the text and loads the model",
    "running": "running",
    "stopped": "not finished, and no process works on it",
    "failed": "ended, with failed cells",
    "finished": "finished",
}


def status(
    run_folder: Annotated[Path, argument("RUN", "Folder of a run.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every few seconds until the run ends or Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Show where a run stands.

    Cells by state, rate and time left, failures by reason, workers and disk; also while another process works on
    it, and without torch. It reads files alone and changes none. Example:

        steerboard status runs/gemma
    """
    from harness.core.terminal import format_json, output
    from harness.runner.status_reader import StatusReader

    reader, console = StatusReader(run_folder), output()
    if watch and (as_json or not console.is_terminal):
        raise UserError("--watch needs a terminal, and prints no JSON. In a script, repeat 'status --json'.")
    if watch:
        _watch(reader, console)
    elif as_json:
        typer.echo(format_json(reader.read().to_json()))
    else:
        print_status(console, reader.read())


def print_status(console: Console, found: RunStatus) -> None:
    """Print where a run stands: counts and rate, a table by method and setting, reasons, what to do next."""
    from rich.table import Table
    from rich.text import Text

    from harness.core.terminal import strip_control

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=9)
    grid.add_column(overflow="fold")
    for name, words in _lines(found).items():
        grid.add_row(Text(name), Text(strip_control(words)))
    console.print(grid)
    if found.methods:
        console.print()
        _print_methods(console, found)
    for title, lines in (
        ("failed", _reasons([reason for reason in found.reasons if reason.state != "skipped"])),
        ("skipped", _reasons([reason for reason in found.reasons if reason.state == "skipped"])),
        ("damaged", found.damaged[:_SHOWN] + _more(len(found.damaged), "files")),
        ("workers", _workers(found)),
    ):
        if lines:
            console.print(Text(title, style="bold"))
            for line in lines:
                console.print(Text(f"  {strip_control(line)}"), overflow="fold")
    console.print(Text(f"next: {_next(found)}"), soft_wrap=True)  # whole, to be pasted


def _lines(found: RunStatus) -> dict[str, str]:
    from harness.core.terminal import clock, format_size
    from harness.data.suite import prompt_format_of
    from harness.runner.run_status import suite_name

    lines = {"run": str(found.path)}
    if found.manifest:
        manifest, model = found.manifest, found.manifest.model
        on = f"{model.title} ({model.dtype}), prompts: {prompt_format_of(manifest.suite)}" if model else "no model"
        track = "" if manifest.track == "generation" else f", {manifest.track}"
        lines["suite"] = "; ".join([f"{suite_name(manifest)}{track}, {on}", *manifest.selection.narrowed])
    stage = {"generate": ": writing texts", "score": ": scoring"}.get(found.stage or "", "")
    lock = "; a process holds the lock" if found.locked else ""
    lines["state"] = f"{_STATES[found.state]}{stage}{lock}"
    if found.manifest:
        ok, parts = found.states.get("ok", 0), {"skipped": found.states.get("skipped", 0), "failed": found.failed}
        others = "".join(f", {n:,} {name}" for name, n in {**parts, "not run": found.not_run}.items() if n)
        lines["generated"] = f"{ok:,} of {found.expected:,} cells{others}"
        scoring = sum(worker.scoring for worker in found.workers if worker.alive)
        lines["scored"] = f"{found.scored:,} of {ok:,} cells" + (f", {scoring:,} being scored" if scoring else "")
    if found.unexpected:
        lines["other"] = f"{found.unexpected:,} cells that the manifest does not name, or twice"
    if found.speed:
        tokens = f", {found.speed.tokens / found.speed.seconds:,.0f} tokens/s" if found.speed.tokens else ""
        rate = f"{60 * found.speed.cells / found.speed.seconds:.1f} cells/min{tokens}"
        lines["rate"] = f"{rate} over the last {clock(found.speed.seconds)}"
        then = ", then the scoring" if found.stage == "generate" else ""
        lines["left"] = f"{clock(found.left)}{then}" if found.left is not None else "unknown"
    if found.last is not None:
        lines["latest"] = f"a cell ended {clock(max(0.0, time.time() - found.last))} ago"
    if found.seconds:
        lines["work"] = f"{clock(found.seconds['generate'])} of writing texts, {clock(found.seconds['fit'])} of fits"
    if found.manifest and (stages := found.manifest.stages):
        most = (f"{format_size(cost.peak_memory)} ({name}, {clock(cost.seconds)})" for name, cost in stages.items())
        lines["memory"] = f"at most {', '.join(most)}"
    free = "" if found.free is None else f"; {format_size(found.free)} are free"
    lines["disk"] = f"{format_size(found.size)}{free}"
    return lines


def _print_methods(console: Console, found: RunStatus) -> None:
    """Print a row per method: cells with texts of those expected, by setting, and what became of the others."""
    from harness.core.terminal import TerminalColumn, print_table, strip_control

    settings = list(dict.fromkeys(row.setting for row in found.methods))
    names = list(dict.fromkeys(row.method for row in found.methods))
    by_name = {(row.method, row.setting): row for row in found.methods}
    rows = []
    for name in names:
        mine = [by_name.get((name, setting)) for setting in settings]
        known = [row for row in mine if row]
        rest = [sum(getattr(row, field) for row in known) for field in ("scored", "skipped", "failed")]
        counts = [f"{row.ok}/{row.expected}" if row else "–" for row in mine]
        rows.append([strip_control(name), *counts, *(str(n) if n else "–" for n in rest)])
    heads = [*("no prompt" if setting == "none" else setting for setting in settings), "scored", "skipped", "failed"]
    print_table(
        console,
        [TerminalColumn("method", words=True), *map(TerminalColumn, heads)],
        rows,
        "cells with texts, of those expected",
    )


def _reasons(reasons: list[Reason]) -> list[str]:
    lines = []
    for reason in reasons[:_SHOWN]:
        words = reason.reason if len(reason.reason) <= _LONGEST else f"{reason.reason[:_LONGEST]}..."
        state = "" if reason.state == "skipped" else f"{reason.state}: "
        such = "such as " if reason.cells > 1 else ""
        lines.append(
            f"{reason.cells:,} × {state}{words or '(no reason)'} [{such}{reason.example}, cells/{reason.cell}]"
        )
    return lines + _more(len(reasons), "reasons")


def _workers(found: RunStatus) -> list[str]:
    from harness.core.terminal import clock

    shown = sorted(found.workers, key=lambda worker: worker.heartbeat)
    lines = [
        f"{worker.name}: {'scores' if worker.scoring else 'works on'} {worker.claims}, "
        f"heartbeat {clock(worker.heartbeat)} ago" + ("" if worker.alive else " (dead)")
        for worker in shown[:_SHOWN]
    ]
    return lines + _more(len(shown), "workers")


def _more(count: int, noun: str) -> list[str]:
    return [f"and {count - _SHOWN} more {noun}"] if count > _SHOWN else []


def _next(found: RunStatus) -> str:
    """Return what to do about a run in this state."""
    from harness.core.terminal import strip_control

    if found.state == "starting":
        return "wait for it; the same command shows its first cells."
    if found.state == "running":
        return pasted("board", "serve", found.path)
    if found.state == "finished":
        return pasted("board", "build", found.path, "--out", "site")
    if found.state == "stopped" and not (found.not_run or found.damaged):
        return pasted("score", found.path)
    words = found.manifest.commands[-1] if found.manifest and found.manifest.commands else []
    command = hide_secrets(shlex.join(words))
    if words[:1] != ["steerboard"] or command != strip_control(command):  # or not fit to be pasted
        command = "the command that made the run, once more"
    before = "remove the damaged files, then " if found.damaged else "fix what failed, then " if found.failed else ""
    return f"{before}{command}"


def _watch(reader: StatusReader, console: Console) -> None:
    """Show where a run stands in one place of the terminal, until it ends or Ctrl-C."""
    from rich.console import Console as Page
    from rich.live import Live
    from rich.text import Text

    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            began = time.monotonic()
            found, page = reader.read(), io.StringIO()
            print_status(Page(file=page, width=console.width, force_terminal=True), found)
            live.update(Text.from_ansi(page.getvalue()), refresh=True)
            if found.state not in {"starting", "running"}:
                return
            time.sleep(max(_EVERY, 4 * (time.monotonic() - began)))
