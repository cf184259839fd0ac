"""The command ``steerboard lm-eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    BatchSize,
    ContrastText,
    Data,
    Device,
    DeviceMap,
    Dtype,
    ModelName,
    Plugins,
    Revision,
    console,
    numbers,
    report_cells,
    say_next,
    split,
    summarise,
)
from harness.core.errors import UserError

if TYPE_CHECKING:
    from harness.runner.prepare import RunOptions


def lm_eval(
    tasks: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Tasks of the suite (topic,sentiment), tasks, groups or tags of lm-eval (belebele,xnli_de), "
            "or TASK:LANGUAGE where a name says no language.",
        ),
    ],
    suite: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_FILE",
            help="Suite whose text the methods are fitted on: a name, or the path of a .yaml.",
        ),
    ] = "steer11",
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="Folder of the run. Default: runs/SUITE-MODEL-understanding."),
    ] = None,
    model: ModelName = None,
    revision: Revision = None,
    data: Data = None,
    contrast: ContrastText = None,
    languages: Annotated[
        str | None,
        typer.Option(
            metavar="CODES",
            help="Only these, such as am,he. The reference language (en) is a check and in no mean; without "
            "this option it is run as well.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Only these, such as zero-shot,language. Default: the suite's that steer."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Seeds of what a task draws, such as its shots. Default: one, for most draw none.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=2, metavar="NUMBER", help="At most this many examples of every task, spread over it."),
    ] = None,
    include_path: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Folder with further lm-eval task files. Repeat for several."),
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Ask in the model's chat template; as in lm-eval.")
    ] = False,
    plugin: Plugins = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    batch_size: BatchSize = 64,
) -> None:
    r"""Let steered models answer tasks of lm-eval.

    The understanding track: every method x language x task, accuracy or F1 with lm-eval's standard error,
    paired statistics over the examples, and English as a check that must not get worse. The unsteered row is
    zero-shot. Run the same command again to go on. Example:

        steerboard lm-eval --model google/gemma-2-9b-it \
            --methods zero-shot,language,clas \
            --tasks topic,sentiment,belebele --languages am,da,en
    """
    from harness.core.errors import require
    from harness.data.suite import load_suite
    from harness.runner.prepare import RunOptions, default_run, shipped_model
    from harness.tracks.understanding.running import silence_lm_eval

    require("run")
    silence_lm_eval()
    named = load_suite(suite)
    plain = default_run(named, model or shipped_model(named))
    options = RunOptions(
        suite=suite,
        run=run_folder or plain.with_name(f"{plain.name}-understanding"),
        model=model,
        revision=revision,
        data=data,
        contrast=contrast,
        languages=split(languages),
        methods=split(methods),
        seeds=numbers(seeds, "--seeds"),
        limit=limit,
        plugins=plugin or [],
        device=device,
        dtype=dtype,
        device_map=device_map,
        batch_size=batch_size,
    )
    names = split(tasks)
    if not names:
        raise UserError(f"--tasks {tasks!r} names no task. Give some, such as topic,sentiment.")
    failed = _run(options, names, include_path or [], apply_chat_template)
    raise typer.Exit(1 if failed else 0)


def _run(options: RunOptions, names: list[str], folders: list[Path], chat: bool) -> bool:
    """Answer and analyse; print what came of it; return whether any cell failed."""
    from harness.tracks.understanding.planning import plan_grid
    from harness.tracks.understanding.running import run_grid

    try:
        grid = plan_grid(options, names, folders, chat)
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise UserError("lm-eval is not installed. Install it: pip install 'steerboard[lm-eval]'.") from None
    states = run_grid(grid, options, console())
    report_cells(grid.base.run, [cell for cell, _ in grid.cells], states)
    summarise(grid.base.run.path)
    say_next(grid.base.run.path, states)
    return any(state.endswith("error") for state in states)
