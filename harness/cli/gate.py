"""The commands ``steerboard gate ...``: is a run worse than a baseline?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.helptext import Group, build_group
from harness.cli.options import Languages, Methods, Settings, Tasks, Threads, argument, option, split
from harness.core.errors import UserError, pasted
from harness.core.languages import check_known

if TYPE_CHECKING:
    from harness.ranking.gate.report import GateReport

_TABLE = "table"
_FORMATS = (_TABLE, "md", "junit", "json", "github")


class _Checking(Group):
    """``gate RUN`` is short for ``gate check RUN``."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:  # type: ignore[no-untyped-def] # noqa: ANN001
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["check", *args]
        return super().parse_args(ctx, args)


app = build_group(
    "Say whether a run is worse than a baseline. Or better, or the same, or inconclusive. "
    "'steerboard gate RUN --against FILE' is short for 'gate check'.",
    epilog="Exit codes of check: 0 same or better, 1 worse, 2 inconclusive, or bad input.",
    cls=_Checking,
)

Out = Annotated[Path, option("FILE", "Baseline file to write; compressed if it ends in .gz.")]
Format = Annotated[str, option("FORMAT", "table, md, junit, json, or github for annotations.", "--format")]
Output = Annotated[Path | None, option("FILE", "Write that format here, and print the table, too.")]
Tolerances = Annotated[
    list[str] | None,
    option("METRIC=LOSS", "Largest loss that may go undetected: macro_f1/tfidf=0.05, vendi/tfidf=15%."),
]


def _metric(words: str) -> Any:
    return option("METRIC", f"{words}; repeatable.", "--metric")


@app.command("check")
def check(
    run: Annotated[Path, argument("RUN", "Directory of the run to judge.")],
    against: Annotated[Path, option("FILE_OR_RUN", "Baseline file of 'gate calibrate', or a run.")],
    metric: Annotated[list[str] | None, _metric("Only this one, such as macro_f1/tfidf")] = None,
    languages: Languages = None,
    tasks: Tasks = None,
    methods: Methods = None,
    settings: Settings = None,
    format_: Format = _TABLE,
    output: Output = None,
    threads: Threads = None,
) -> None:
    r"""Judge a run: worse, better, same, or inconclusive.

    For every entry and metric, and for the run. Worse is a significant loss that is larger than the differences of
    equal runs. If a loss of the tolerated size in the headline metric could not have been detected, the verdict is
    inconclusive instead of same, and the report says what more seeds would change. Examples:

        steerboard gate runs/mine --against baselines/mini.json.gz

        steerboard gate runs/mine --against runs/before --languages am,he \
            --format md --output comment.md

    Exit code 0: same or better; 1: worse; 2: inconclusive, or bad input.
    """
    check_known("format", [format_], _FORMATS)
    from harness.ranking.gate.calibrate import open_baseline, read_runs
    from harness.ranking.gate.verdicts import Filter, judge

    [new] = read_runs([run])
    base, thresholds = open_baseline(against, new, metric or [])
    only = Filter(split(languages), split(tasks), split(methods), split(settings))
    report = judge(base, new, thresholds, (str(run), str(against)), only)
    _show(report, format_, output)
    raise typer.Exit(report.exit)


@app.command("calibrate")
def calibrate(
    runs: Annotated[list[Path], argument("RUN...", "One run, or several of the same code.")],
    out: Out,
    metric: Annotated[list[str] | None, _metric("Judge this one as well")] = None,
    tolerance: Tolerances = None,
    threads: Threads = None,
) -> None:
    """Measure how far equal runs differ, and write a baseline file.

    Several runs with different seeds show what else differs from run to run; the spread of one run is that of its
    seeds. An existing file is not overwritten; use 'gate accept' for that. Example:

        steerboard gate calibrate runs/mini --out baselines/mini.json.gz
    """
    from harness.ranking.gate.baseline import write_baseline
    from harness.ranking.gate.calibrate import calibrate as calibrate_runs
    from harness.ranking.gate.calibrate import left_out, parse_tolerances, read_runs

    if out.exists():
        raise UserError(
            f"{out} exists. Replace it with a run: {pasted('gate', 'accept', runs[0], '--baseline', out)} "
            "--reason 'why the numbers may change'."
        )
    results = read_runs(runs)
    baseline = calibrate_runs(results, metric or [], parse_tolerances(tolerance or []))
    sha256 = write_baseline(out, baseline)
    typer.echo(f"spread: {baseline.source}")
    for name in baseline.metrics:
        spread, allowed = baseline.spread[name], baseline.tolerance[name]
        limit = f"{100 * allowed.value:g} %" if allowed.relative else f"{allowed.value:g}"
        typer.echo(f"{name:<28} bound {spread.bound:.4g} ({spread.df:g} degrees of freedom), tolerance {limit}")
    for left in left_out(baseline, results[0]):
        typer.echo(f"left out, no entry has all values: {left.name}")
    typer.echo(f"wrote {out}: {len(baseline.packed.entry)} cells, sha256 {sha256}")


@app.command("accept")
def accept(
    run: Annotated[Path, argument("RUN", "Directory of the run that becomes the baseline.")],
    baseline: Annotated[Path, option("FILE", "Baseline file to replace.")],
    reason: Annotated[str, option("REASON", "Why the numbers may change; kept in the file.")] = "",
    drop_method: Annotated[
        list[str] | None, option("METHOD", "Method to drop from the baseline on purpose; repeatable.")
    ] = None,
    threads: Threads = None,
) -> None:
    r"""Make a run the new baseline, with a reason.

    The file keeps the reasons and hashes of all earlier baselines. Refused without a reason, and for a run with
    missing cells, with fewer generation seeds, or without an entry, a language or a task of the old baseline. Example:

        steerboard gate accept runs/mini --baseline baselines/mini.json.gz \
            --reason "longer texts, see #12"
    """
    from harness.ranking.gate.calibrate import accept as replace_baseline

    new, sha256 = replace_baseline(run, baseline, reason, drop_method or [])
    past = new.history[-1]
    typer.echo(f"replaced {baseline}: {past.sha256[:12]} ({past.reason}) with {sha256[:12]} ({new.reason})")


def _show(report: GateReport, format_: str, output: Path | None) -> None:
    """Print the report, or write it to a file and print the table as well."""
    from rich.console import Console

    from harness.core import terminal
    from harness.core.files import write_text
    from harness.ranking.gate.report import as_annotations, as_json, as_junit, as_markdown, print_report

    if format_ == _TABLE and output is not None:
        with output.open("w", encoding="utf-8") as handle:
            print_report(Console(file=handle, width=160), report)
    if format_ == _TABLE or output is not None:
        print_report(terminal.output(), report)
    makers = {"md": as_markdown, "junit": as_junit, "json": as_json, "github": as_annotations}
    if format_ in makers:
        text = makers[format_](report)
        typer.echo(text, nl=False) if output is None else write_text(output, text)
