"""The command ``steerboard tune``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    BatchSize,
    ContrastText,
    Data,
    Device,
    DeviceMap,
    Dtype,
    Languages,
    Limit,
    ModelName,
    Plugins,
    Revision,
    Settings,
    SuiteName,
    Tasks,
    console,
    report,
    say_next,
    split,
)
from harness.core.errors import UserError, pasted

if TYPE_CHECKING:
    from harness.core.records import GridPoint, Tuned
    from harness.runner.prepare import RunOptions, RunPlan


def tune(
    suite: SuiteName,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="Folder of the run that will use the choice."),
    ] = None,
    model: ModelName = None,
    revision: Revision = None,
    data: Data = None,
    contrast: ContrastText = None,
    languages: Languages = None,
    tasks: Tasks = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Tune these. Default: all of the suite that name a grid."),
    ] = None,
    settings: Settings = None,
    layers: Annotated[
        str | None,
        typer.Option(metavar="LAYERS", help="Layers to try: indices or depths, such as 0.21,0.48,12."),
    ] = None,
    strengths: Annotated[
        str | None, typer.Option(metavar="STRENGTHS", help="Strengths to try, such as 0.1,0.2,0.4.")
    ] = None,
    limit: Limit = None,
    plugin: Plugins = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    batch_size: BatchSize = 64,
) -> None:
    r"""Choose layer and strength of methods on validation text.

    The choice is for 'run --tuned'. Writes texts with every configuration of the methods' grids, with a seed
    that no score uses, trains the tfidf classifier on them and tests it on the validation split. Of the
    configurations whose texts are about as valid as the unsteered ones, the best is taken. Choice, surface
    and pictures lie in RUN/tuned.json and RUN/tuning/. Run the same command again to go on. Example:

        steerboard tune --suite steer11 --model google/gemma-2-9b-it \
            --methods language,quality
        steerboard run --suite steer11 --model google/gemma-2-9b-it --tuned
    """
    from harness.runner.prepare import RunOptions

    options = RunOptions(
        suite=suite,
        run=run_folder,
        model=model,
        revision=revision,
        data=data,
        contrast=contrast,
        languages=split(languages),
        tasks=split(tasks),
        settings=split(settings),
        limit=limit,
        plugins=plugin or [],
        device=device,
        dtype=dtype,
        device_map=device_map,
        batch_size=batch_size,
    )
    overrides: dict[str, list[Any]] = {}
    if layers is not None:
        overrides["layer"] = _numbers(layers, "--layers")
    if strengths is not None:
        overrides["strength"] = [float(value) for value in _numbers(strengths, "--strengths")]
    _tune(options, split(methods), overrides)


def _tune(options: RunOptions, methods: list[str] | None, overrides: dict[str, list[Any]]) -> None:
    from harness.data.suite import Suite, load_suite
    from harness.runner.pipeline import run_stages
    from harness.runner.prepare import default_run, plan_run, shipped_model
    from harness.runner.tune import evaluate_grid, tuning_suite
    from harness.runner.tuned import write_tuned

    named = load_suite(options.suite)
    target = options.run or default_run(named, options.model or shipped_model(named))
    base: list[Suite] = []

    def derive(suite: Suite, registry: Any) -> Suite:
        base.append(suite)
        return tuning_suite(suite, registry, methods, overrides)

    inner = replace(options, run=target / "tuning")
    prepared = plan_run(inner, derive)
    _check_sweep(prepared)
    states = run_stages(prepared, inner, console())
    report(prepared, states)
    tuned = evaluate_grid(prepared, base[0])
    path = write_tuned(target, tuned)
    _show(tuned, _write_surface(target / "tuning", tuned))
    typer.echo(f"choice: {path}")
    if not states.get("ok"):
        say_next(target, states)
        raise typer.Exit(1)
    typer.echo(f"next: {pasted('run', '--suite', options.suite, '--run', target, '--tuned', *_same(options))}")
    raise typer.Exit(1 if any(state.endswith("error") for state in states) else 0)


def _check_sweep(prepared: RunPlan) -> None:
    """Refuse to add another sweep to a folder: what was tried would no longer be one surface."""
    run = prepared.run
    if run.exists() and run.manifest().suite_hash != prepared.suite.hash:
        raise UserError(
            f"{run.path} holds a sweep of another suite, other methods or other values. "
            "Repeat its command, remove that folder to sweep anew, or choose another --run folder."
        )


def _same(options: RunOptions) -> list[object]:
    """Return the options of this command that the run needs, too, as words of a command."""
    names = ("model", "revision", "data", "contrast", "dtype")
    given = [(f"--{name}", getattr(options, name)) for name in names if getattr(options, name)]
    given += [("--plugin", path) for path in options.plugins]
    return [word for pair in given for word in pair]


def _write_surface(folder: Path, tuned: Tuned) -> list[Path]:
    """Write the surface as CSV and a picture per method; return the paths."""
    import csv
    import io

    from harness.core.files import write_text
    from leaderboard.charts.heatmap import heatmap_svg

    fields = list(dict.fromkeys(field for point in tuned.surface for field in point.options))
    rest = ["macro_f1", "gain", "valid", "eligible", "chosen", "cells", "cells_expected", "texts", "tokens"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", *fields, *rest, "seconds"])
    for point in tuned.surface:
        values = [getattr(point, name) for name in (*rest, "seconds")]
        writer.writerow([point.method, *(point.options.get(field, "") for field in fields), *values])
    paths = [folder / "surface.csv"]
    write_text(paths[0], text.getvalue())
    for method in tuned.methods:
        points = [point for point in tuned.surface if point.method == method]
        paths.append(folder / f"surface-{method}.svg")
        write_text(paths[-1], heatmap_svg(method, points))
    return paths


def _show(tuned: Tuned, paths: list[Path]) -> None:
    """Print the surface, the best first within a method, and what was chosen."""
    from harness.core.terminal import TerminalColumn, output, print_table
    from harness.ranking.summary import format_number, format_signed

    columns = [
        TerminalColumn("method", words=True),
        TerminalColumn("configuration", words=True),
        TerminalColumn("macro-F1"),
        TerminalColumn("gain"),
        TerminalColumn("valid", drop=1),
        TerminalColumn("texts", drop=2),
        TerminalColumn("", words=True),
    ]
    rows = []
    for point in sorted(tuned.surface, key=lambda p: (p.method, p.macro_f1 is None, -(p.macro_f1 or 0.0))):
        mark = "chosen" if point.chosen else "" if point.eligible else "not eligible"
        cells = [
            format_number(point.macro_f1),
            format_signed(point.gain),
            format_number(point.valid),
            str(point.texts),
            mark,
        ]
        rows.append([point.method, _words(point), *cells])
    print_table(output(), columns, rows, "validation macro-F1 (tfidf)")
    for name, method in tuned.methods.items():
        cost = f"{method.configurations} configurations, {method.texts} texts, {method.seconds:.0f} s"
        choice = "nothing passes the gate; its default stays" if method.options is None else ""
        words = choice or ", ".join(f"{k}={v}" for k, v in method.options.items())  # type: ignore[union-attr]
        typer.echo(f"{name}: {words} ({cost})")
    typer.echo(f"pictures and surface.csv: {paths[0].parent}")
    typer.echo(_conclusion(tuned))


def _conclusion(tuned: Tuned) -> str:
    """Return in a sentence what was gained, and how far that can be relied on."""
    from harness.ranking.summary import format_signed

    gains = [f"{point.method} {format_signed(point.gain)}" for point in tuned.surface if point.chosen]
    if not gains:
        return "No configuration passes: the methods keep their defaults."
    return (
        f"Against unsteered text the choice gains {', '.join(gains)} macro-F1 on validation text. It is the "
        "best of several there, so expect less on test text, which the next command measures."
    )


def _words(point: GridPoint) -> str:
    return ", ".join(f"{field}={value}" for field, value in point.options.items())


def _numbers(text: str, option: str) -> list[int | float]:
    parts = split(text) or []
    try:
        found = [float(part) if "." in part or "e" in part.lower() else int(part) for part in parts]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise UserError(f"{option} {text!r}: give numbers, such as 0.2,0.4.")
    return found
