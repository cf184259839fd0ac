"""The commands ``steerboard gate ...``: is a run worse than a baseline?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.helptext import Group
from harness.cli.options import split
from harness.core.errors import UserError, pasted, unknown

if TYPE_CHECKING:
    from harness.ranking.gate.report import GateReport

_TABLE = "table"
_FORMATS = (_TABLE, "md", "junit", "json", "github")


class _Checking(Group):
    """``gate RUN`` is ``gate check RUN``: what is no command is the argument of that one."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:  # type: ignore[no-untyped-def] # noqa: ANN001
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["check", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Checking,
    help="Say whether a run is worse than a baseline. Or better, or the same, or that nothing can be said. "
    "'steerboard gate RUN --against FILE' is short for 'gate check'.",
    epilog="Exit codes of check: 0 same or better, 1 worse, 2 cannot tell, or bad input.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Against = Annotated[
    Path,
    typer.Option("--against", metavar="FILE_OR_RUN", help="Baseline file of 'gate calibrate', or a run."),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="METRIC", help="Only this one, such as macro_f1/tfidf; repeatable."),
]


@app.callback()
def _group() -> None:
    pass


@app.command("check")
def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run to judge.")],
    against: Against,
    metric: Metrics = None,
    languages: Annotated[str | None, typer.Option(metavar="CODES", help="Look at these alone, such as am,he.")] = None,
    tasks: Annotated[str | None, typer.Option(metavar="NAMES", help="Look at these alone, such as topic.")] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Look at these alone, such as language,clas.")
    ] = None,
    settings: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Look at these alone: zero-shot, few-shot.")
    ] = None,
    format_: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="table, md, junit, json, or github for annotations."),
    ] = _TABLE,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write that format here, and print the table as well."),
    ] = None,
) -> None:
    r"""Judge a run: worse, better, same, or cannot tell.

    For every entry and metric, and in all. Worse is a significant loss that is larger than differences of
    equal runs are. A gate that could not have seen a loss of the tolerated size in the headline metric says
    so instead of 'same', and what more seeds would change. Examples:

        steerboard gate runs/mine --against baselines/mini.json.gz

        steerboard gate runs/mine --against runs/before --languages am,he \
            --format md --output comment.md

    Exit code 0: same or better; 1: worse; 2: cannot tell, or bad input.
    """
    if format_ not in _FORMATS:
        raise unknown("format", format_, _FORMATS)
    from harness.ranking.gate.scope import Filter

    narrowing = Filter(split(languages), split(tasks), split(methods), split(settings))
    report = _judged(run, against, metric or [], narrowing)
    _show(report, format_, output)
    raise typer.Exit(report.exit)


@app.command("calibrate")
def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="One run, or several of the same code."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Baseline file to write; compressed if it ends in .gz."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="METRIC", help="Look at this one as well; repeatable."),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=LOSS",
            help="Largest loss that may stay unseen: macro_f1/tfidf=0.05, vendi/tfidf=15%.",
        ),
    ] = None,
) -> None:
    """Measure how far equal runs differ, and write a baseline file.

    Several runs with seeds of their own show what else differs from run to run; of one run, the spread is
    that of its seeds. An existing file is not overwritten: that is what 'gate accept' is for. Example:

        steerboard gate calibrate runs/mini --out baselines/mini.json.gz
    """
    from harness.ranking.gate.baseline import write_baseline
    from harness.ranking.gate.calibrate import calibrated, read_runs, without_values
    from harness.ranking.gate.tolerances import parsed

    if out.exists():
        raise UserError(
            f"{out} exists. Replace it by a run: {pasted('gate', 'accept', runs[0], '--into', out)} "
            "--reason 'why the numbers may change'."
        )
    cellsets = read_runs(runs)
    baseline = calibrated(cellsets, metric or [], parsed(tolerance or []))
    seal = write_baseline(out, baseline)
    typer.echo(f"spread: {baseline.source}")
    for name in baseline.metrics:
        spread, allowed = baseline.spread[name], baseline.tolerance[name]
        limit = f"{100 * allowed.value:g} %" if allowed.relative else f"{allowed.value:g}"
        typer.echo(f"{name:<28} bound {spread.bound:.4g} ({spread.df:g} degrees of freedom), tolerance {limit}")
    for left in without_values(baseline, cellsets[0]):
        typer.echo(f"left out, no entry has all values: {left.name}")
    typer.echo(f"wrote {out}: {len(baseline.packed.entry)} cells, sha256 {seal}")


@app.command("accept")
def accept(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run that is the new baseline.")],
    into: Annotated[Path, typer.Option(metavar="FILE", help="Baseline file to replace.")],
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Why the numbers may change; kept in the file.")] = "",
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="Method that the baseline loses on purpose; repeatable."),
    ] = None,
) -> None:
    r"""Make a run the new baseline, with a reason.

    The file keeps all reasons and hashes of before. Refused without a reason, for a run that lacks cells, for
    one with fewer generation seeds, and for one that lacks an entry, a language or a task of the old
    baseline. Example:

        steerboard gate accept runs/mini --into baselines/mini.json.gz \
            --reason "longer texts, see #12"
    """
    from harness.ranking.gate.calibrate import accept as replaced

    baseline, seal = replaced(run, into, reason, without or [])
    past = baseline.history[-1]
    typer.echo(f"replaced {into}: {past.sha256[:12]} ({past.reason}) by {seal[:12]} ({baseline.reason})")


def _judged(run: Path, against: Path, metrics: list[str], narrowing) -> GateReport:  # type: ignore[no-untyped-def] # noqa: ANN001
    from harness.ranking.gate.baseline import read_baseline
    from harness.ranking.gate.calibrate import opened, read_runs, rulers_of, with_new
    from harness.ranking.gate.verdicts import chosen, judge

    [new] = read_runs([run])
    names = (str(run), str(against))
    if against.is_dir():
        [base] = read_runs([against])
        rulers = with_new(rulers_of(base, metrics), new)
        return judge(base, new, chosen(rulers, metrics), names, narrowing)
    with opened(read_baseline(against)[0]) as (base, rulers):
        return judge(base, new, chosen(with_new(rulers, new), metrics), names, narrowing)


def _show(report: GateReport, format_: str, output: Path | None) -> None:
    from rich.console import Console

    from harness.core import terminal
    from harness.core.files import write_text
    from harness.ranking.gate import report_ci as machines
    from harness.ranking.gate import report_text as rendering

    if format_ == _TABLE or output is not None:
        console = terminal.output()
        if format_ == _TABLE and output is not None:
            with output.open("w", encoding="utf-8") as handle:
                rendering.print_report(Console(file=handle, width=160), report)
        rendering.print_report(console, report)
    makers = {
        "md": rendering.as_markdown,
        "junit": machines.as_junit,
        "json": machines.as_json,
        "github": machines.as_annotations,
    }
    if format_ in makers:
        text = makers[format_](report)
        if output is None:
            typer.echo(text, nl=False)
        else:
            write_text(output, text)
