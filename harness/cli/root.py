"""The command ``steerboard`` and its groups; heavy imports are inside the commands, so that help is quick."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import (
    bench,
    board,
    compare,
    contrast,
    docs,
    doctor,
    forcing,
    gate,
    imports,
    lm_eval,
    method,
    status,
    submission,
    sync,
    tune,
    vectors,
)
from harness.cli.helptext import SETTINGS, Group, wrapped
from harness.cli.options import (
    BatchSize,
    Classifiers,
    ContrastText,
    Data,
    Device,
    DeviceMap,
    Embeddings,
    Identifiers,
    Plugins,
    Threads,
    argument,
    console,
    failed,
    finish,
    option,
    report,
    run_options,
    say_next,
    summarise,
)
from harness.core.errors import UserError, pasted
from harness.core.languages import check_known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.core.cells import Cell
    from harness.core.records import State
    from harness.core.store import Run
    from harness.runner.generate import GenerationStage
    from harness.runner.prepare import RunOptions

app = typer.Typer(
    name="steerboard",
    help="Benchmark steering methods for multilingual synthetic data, and rank them on a board.",
    epilog="Start with 'steerboard demo': everything once, offline, in minutes.",
    cls=Group,
    context_settings=SETTINGS,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(board.app, name="board")
app.add_typer(contrast.app, name="contrast")
app.add_typer(imports.app, name="import")
app.add_typer(vectors.app, name="vectors")
app.add_typer(method.app, name="method")
app.add_typer(gate.app, name="gate")
app.add_typer(submission.app, name="submission")
app.command("tune")(tune.tune)
app.command("lm-eval")(lm_eval.lm_eval)
app.command("forcing")(forcing.forcing)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("docs")(docs.docs)
app.command("bench")(bench.bench)
app.command("compare")(compare.compare)
app.command("push")(sync.push)
app.command("pull")(sync.pull)


_RUN = (
    "suite run model revision data contrast languages tasks methods settings seeds limit vector_sentences "
    "prompt_format classifiers embeddings identifiers plugins engine device dtype device_map batch_size threads "
    "tuned yes"
)
_RUN_HERE = _RUN.replace("threads", "threads workers executor address slurm")


def _version(wanted: bool) -> None:
    if wanted:
        from harness.core.version import __version__

        typer.echo(f"steerboard {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
@run_options(_RUN_HERE)
def run(options: RunOptions) -> None:
    r"""Generate and score every cell of a suite.

    Run the same command again to resume: finished cells are never touched, so a killed run continues where it
    stopped. Example:

        steerboard run --suite steer11 --model google/gemma-2-9b-it \
            --languages am,he
    """
    check_known("executor", [options.executor], ("local", "ray", "slurm"))
    for name, given in (("ray", options.address and "--address"), ("slurm", options.slurm and "--slurm")):
        if given and options.executor != name:
            raise UserError(f"{given} is for --executor {name}. Add that, or leave it out.")
    if options.executor == "slurm":
        _submit(options)
        return
    run, states, done = _run(options)
    finish(run, states, done)


@app.command()
def work(
    run_folder: Annotated[Path, argument("RUN", "Folder of a run that 'steerboard run' has started.")],
    model: Annotated[
        str | None, option("PATH_OR_ID", "The run's model, where it has another path on this machine.")
    ] = None,
    data: Data = None,
    contrast: ContrastText = None,
    plugin: Plugins = None,
    device: Device = None,
    device_map: DeviceMap = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    local: Annotated[bool, typer.Option("--local", hidden=True)] = False,
) -> None:
    """Write and score texts of a run together with other processes.

    Start it as often as you like, on any machine that has the run's folder, while 'steerboard run' is at work or
    after it: each worker claims cells that nobody else has, and ends when all have texts and scores. Cells of a
    worker that dies are taken over, within a minute. Scorers are those of the 'steerboard run' command. Example:

        steerboard work runs/gemma --device cuda:1
    """
    from harness.runner.work import WorkOptions, start_work

    where = WorkOptions(data, contrast, model, plugin or [], device, device_map, batch_size)
    stage = start_work(run_folder, where, console(), local)
    written, scored = stage.work()
    states = stage.states
    report(stage.plan.run, stage.plan.cells, states)
    typer.echo(f"{written} cells written, {scored} scored")
    if not local:  # else the run that started this says it
        say_next(run_folder, states)
    raise typer.Exit(int(failed(states)))


@app.command()
@run_options(_RUN.replace("batch_size", "batch_size throughput"))
def plan(
    options: RunOptions,
    throughput: Annotated[
        float | None,
        option("NUMBER", "Tokens a second of all GPUs that hold the model together: shows GPU hours.", min=1e-3),
    ] = None,
) -> None:
    r"""Show what a run will take, without loading the model's weights.

    Cells, texts, tokens, sentences to read, memory, GPUs and disk, and what looks wrong: no chat template, a language
    that the tokenizer does not know, a context too short for few-shot prompts. It takes the options of
    'steerboard run', which shows the same, then measures the model's speed and the expected time. Example:

        steerboard plan --suite steer11 --model google/gemma-2-9b-it \
            --languages am,he
    """
    from harness.core.terminal import output
    from harness.runner.generate import GenerationStage
    from harness.runner.prepare import plan_run

    gc.disable()  # it looks through all modules and rows again and again, a tenth of the time
    try:
        planned = plan_run(replace(options, weights=False), scored=False)
        stage = GenerationStage(planned, console(), options.device, options.device_map, options.batch_size)
        stage.preflight(throughput).print(output())
    finally:
        gc.enable()


@app.command()
def score(
    run_folder: Annotated[Path, argument("RUN", "Folder of a run.")],
    classifier: Classifiers = None,
    embedding: Embeddings = None,
    language_id: Identifiers = None,
    data: Data = None,
    contrast: ContrastText = None,
    threads: Threads = None,
) -> None:
    """Score the texts of a run that have no score yet.

    Also by further classifiers, embeddings and language identifiers; what is scored stays. Without --classifier,
    the classifiers are those of the commands that made the run. Example:

        steerboard score runs/gemma --embedding hf:sentence-transformers/LaBSE
    """
    from harness.runner.event_log import record_stages
    from harness.runner.prepare import open_run
    from harness.runner.score import ScoringStage

    plan = open_run(run_folder, classifier, data, contrast, embedding, language_id)
    with plan.run.lock(shared=True):
        stage = ScoringStage(plan, console())
        if stage.run():
            record_stages(plan.run)
    typer.echo(f"{stage.count} cells scored")
    summarise(run_folder)


@app.command()
def demo(
    run_folder: Annotated[Path, option("FOLDER", "Folder of the run.", "--run")] = Path("runs/demo"),
    out: Annotated[Path, option("FOLDER", "Folder for the page.")] = Path("site"),
    threads: Threads = None,
) -> None:
    """Run the mini suite offline and build its board, in minutes.

    Every method of the suite writes and scores texts with the small model that ships; the last line names the
    page to open. Run it again to resume. Few-shot prompts take the most time, so only the few-shot baseline has
    them; 'steerboard run --suite mini --run runs/demo' adds them for all methods.
    """
    from harness.runner.prepare import RunOptions

    run, states, _ = _run(RunOptions(suite="mini", run=run_folder), is_shown)
    summarise(run.path)
    if not states.get("ok"):
        say_next(run.path, states)
        raise typer.Exit(1)
    typer.echo("These numbers show that the machinery works; they say nothing about large models.")
    typer.echo(f"board: {board.built([run.path], out)}")
    raise typer.Exit(int(failed(states)))


@app.command("list")
def list_(
    what: Annotated[str, argument("WHAT", "methods, suites, tasks or languages.")],
    suite: Annotated[str, option("NAME_OR_FILE", "Suite whose tasks and languages are listed.")] = "steer11",
    plugin: Plugins = None,
) -> None:
    """List methods, suites, tasks or languages."""
    from harness.cli import list as listing

    makers: dict[str, Callable[[], listing.Lines]] = {
        "methods": lambda: listing.methods(plugin or []),
        "suites": listing.suites,
        "tasks": lambda: listing.tasks(suite),
        "languages": lambda: listing.languages(suite),
    }
    check_known("list", [what], makers)
    _show(makers[what]())


@app.command()
def suites() -> None:
    """List the suites, their classifiers and what these cost.

    The costs are rough. 'steerboard run --classifier' chooses others.
    """
    from harness.cli import list as listing

    _show(listing.suites())


def _show(lines: list[tuple[str, str]]) -> None:
    for name, text in lines:
        line = f"{name:<22} {text}".rstrip()
        typer.echo(wrapped(line, 23) if sys.stdout.isatty() else line)


def is_shown(cell: Cell) -> bool:
    """Return whether the demo has a cell."""
    return cell.key.setting != "few-shot" or cell.key.method.name == "few-shot"


def _run(options: RunOptions, keep: Callable[[Cell], bool] | None = None) -> tuple[Run, Mapping[State, int], int]:
    """Generate and score; return the run, how many cells are in which state, and how many were worked on.

    ``keep``: which cells of the plan to run, by default all.
    """
    from harness.runner.generate import run_stages
    from harness.runner.prepare import plan_run

    plan = plan_run(options)
    if keep:
        plan = replace(plan, cells=[cell for cell in plan.cells if keep(cell)])
    done: list[int] = []
    with _generation(options) as generation:
        states = run_stages(plan, options, console(), done=done.append, generation=generation)
    report(plan.run, plan.cells, states)
    return plan.run, states, sum(done)


def _generation(options: RunOptions) -> AbstractContextManager[type[GenerationStage]]:
    """Return what generates: this process, processes that it starts, or those of Ray, which is there in the block."""
    from harness.runner.generate import GenerationStage
    from harness.runner.local import LocalWorkers

    if options.executor == "ray":
        from harness.runner.ray_executor import RayWorkers, ray_session

        return ray_session(options.address, RayWorkers)
    return nullcontext(LocalWorkers if (options.workers or 1) > 1 else GenerationStage)


def _submit(options: RunOptions) -> None:
    """Submit the workers of a run as jobs of SLURM, and say what to do next."""
    from harness.runner.prepare import plan_run
    from harness.runner.slurm_executor import submit_run

    plan = plan_run(options)
    job = submit_run(plan, options, console())
    if job:
        typer.echo(f"submitted {options.workers or 1} workers as SLURM job {job}")
        typer.echo(f"next: {pasted('status', plan.run.path)}")
    else:
        typer.echo(f"every cell has its texts and scores; next: {pasted('board', 'build', plan.run.path)}")
