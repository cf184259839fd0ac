"""The command ``steerboard tune``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import console, failed, option, report, run_options, say_next, split
from harness.core.errors import UserError, pasted

if TYPE_CHECKING:
    from harness.core.records import Tuned
    from harness.runner.prepare import RunOptions


@run_options(
    "suite run model revision data contrast languages tasks methods settings layers strengths by_language limit "
    "vector_sentences prompt_format plugins engine device dtype device_map batch_size threads yes",
    run="Folder of the run that will use the choice.",
    methods="Tune these. Default: all of the suite that name a grid.",
)
def tune(
    options: RunOptions,
    layers: Annotated[str | None, option("LAYERS", "Layers to try: indices or depths, such as 0.21,0.48,12.")] = None,
    strengths: Annotated[str | None, option("STRENGTHS", "Strengths to try, such as 0.1,0.2,0.4.")] = None,
    by_language: Annotated[
        bool, typer.Option("--by-language", help="Choose both in every language by itself.")
    ] = False,
) -> None:
    r"""Choose layer and strength of methods on validation text.

    The choice is for 'run --tuned'. Writes texts with every configuration of the methods' grids, with a seed
    that no score uses, trains the tfidf classifier on them and tests it on the validation split. Of the
    configurations whose texts are about as valid as the unsteered ones, the best is taken. The choice, all results
    and pictures are in RUN/tuned.json and RUN/tuning/. Run the same command again to resume. Example:

        steerboard tune --suite steer11 --model google/gemma-2-9b-it \
            --methods language,quality
        steerboard run --suite steer11 --model google/gemma-2-9b-it --tuned
    """
    from harness.data.suite import Suite, load_suite
    from harness.runner.generate import run_stages
    from harness.runner.prepare import default_run, plan_run, shipped_model
    from harness.runner.tune import evaluate_grid, tuning_suite
    from harness.runner.tuned import write_tuned

    overrides: dict[str, list[Any]] = {}
    if layers is not None:
        overrides["layer"] = _numbers(layers, "--layers")
    if strengths is not None:
        overrides["strength"] = [float(value) for value in _numbers(strengths, "--strengths")]
    named = load_suite(options.suite)
    target = options.run or default_run(named, options.model or shipped_model(named))
    base: list[Suite] = []

    def transform(suite: Suite, registry: Any) -> Suite:
        base.append(suite)
        return tuning_suite(suite, registry, options.methods, overrides)

    inner = replace(options, run=target / "tuning", methods=None)
    plan = plan_run(inner, transform)
    if plan.run.exists() and plan.run.manifest().suite_hash != plan.suite.hash:  # one folder, one grid of results
        raise UserError(
            f"{plan.run.path} holds a sweep of another suite, other methods or other values. "
            "Repeat its command, remove that folder to sweep again, or choose another --run folder."
        )
    states = run_stages(plan, inner, console())
    report(plan.run, plan.cells, states)
    tuned = evaluate_grid(plan, base[0].for_format(plan.suite.sampling.template), by_language)
    path = write_tuned(target, tuned)
    _write_surface(target / "tuning", tuned)
    _show(tuned, target / "tuning", by_language)
    typer.echo(f"choice: {path}")
    if not states.get("ok"):
        say_next(target, states)
        raise typer.Exit(1)
    typer.echo(f"next: {pasted('run', '--suite', options.suite, '--run', target, '--tuned', *_same(options))}")
    raise typer.Exit(int(failed(states)))


def _same(options: RunOptions) -> list[object]:
    """Return the options of this command that the run needs, too, as words of a command."""
    names = ("model", "revision", "data", "contrast", "engine", "dtype", "vector_sentences", "prompt_format")
    given = [(f"--{name.replace('_', '-')}", getattr(options, name)) for name in names if getattr(options, name)]
    given += [("--plugin", path) for path in options.plugins]
    return [word for pair in given for word in pair]


def _write_surface(folder: Path, tuned: Tuned) -> None:
    """Write the grid of results as surface.csv, and a picture per method."""
    import pandas as pd

    from harness.core.files import write_text
    from leaderboard.charts import heatmap_svg

    columns = ["method", *dict.fromkeys(field for point in tuned.surface for field in point.options)]
    columns += [
        "macro_f1",
        "gain",
        "valid",
        "language_fidelity",
        "label_fidelity",
        "distinct_2",
        "eligible",
        "chosen",
        "cells",
        "cells_expected",
        "texts",
        "tokens",
        "seconds",
    ]
    rows = [{**point.model_dump(), **point.options} for point in tuned.surface]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    write_text(folder / "surface.csv", frame.to_csv(index=False, lineterminator="\n"))
    for method in tuned.methods:
        points = [point for point in tuned.surface if point.method == method]
        write_text(folder / f"surface-{method}.svg", heatmap_svg(method, points))


def _show(tuned: Tuned, folder: Path, by_language: bool) -> None:
    """Print the grid of results, the best first within a method, and the choice."""
    from harness.core.terminal import TerminalColumn, output, print_table
    from harness.ranking.summary import format_number, format_signed

    columns = [
        *(TerminalColumn(name, words=True) for name in ("method", "configuration")),
        *(TerminalColumn(name) for name in ("macro-F1", "gain")),
        TerminalColumn("valid", drop=1),
        TerminalColumn("texts", drop=2),
        TerminalColumn("", words=True),
    ]
    rows = []
    for point in sorted(tuned.surface, key=lambda p: (p.method, p.macro_f1 is None, -(p.macro_f1 or 0.0))):
        numbers = [format_number(point.macro_f1), format_signed(point.gain), format_number(point.valid)]
        mark = "chosen" if point.chosen else "" if point.eligible else "not eligible"
        rows.append([point.method, _words(point.options), *numbers, str(point.texts), mark])
    print_table(output(), columns, rows, "validation macro-F1 (tfidf)")
    for name, method in tuned.methods.items():
        cost = f"{method.configurations} configurations, {method.texts} texts, {method.seconds:.0f} s"
        none = method.options is None
        words = "nothing passes the gate; its default stays" if none else _words(method.options or {})
        typer.echo(f"{name}: {words} ({cost})")
    typer.echo(f"pictures and surface.csv: {folder}")
    typer.echo(_conclusion(tuned, by_language))


def _conclusion(tuned: Tuned, by_language: bool) -> str:
    """Return the gain in a sentence, and how reliable it is."""
    from harness.ranking.summary import format_signed

    gains = [f"{point.method} {format_signed(point.gain)}" for point in tuned.surface if point.chosen]
    if not gains:
        return "No configuration passes: the methods keep their defaults."
    if by_language:
        return (
            "The table is over all languages; the choice is the best of several in each, on few texts, so expect "
            "much less on test text, which the next command measures."
        )
    return (
        f"Against unsteered text the choice gains {', '.join(gains)} macro-F1 on validation text. It is the "
        "best of several there, so expect less on test text, which the next command measures."
    )


def _words(options: dict[str, Any]) -> str:
    return ", ".join(f"{field}={_value(value)}" for field, value in options.items())


def _value(value: object) -> str:
    return " ".join(f"{code}:{one}" for code, one in value.items()) if isinstance(value, dict) else str(value)


def _numbers(text: str, option: str) -> list[int | float]:
    parts = split(text) or []
    try:
        found = [float(part) if "." in part or "e" in part.lower() else int(part) for part in parts]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise UserError(f"{option} {text!r}: give numbers, such as 0.2,0.4.")
    return found
