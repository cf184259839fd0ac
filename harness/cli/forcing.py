"""The command ``steerboard forcing``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

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
    Seeds,
    SuiteName,
    console,
    numbers,
    report,
    split,
)
from harness.core.errors import UserError, unknown

if TYPE_CHECKING:
    from harness.runner.prepare import RunOptions
    from harness.tracks.forcing.questions import Half


def forcing(
    suite: SuiteName = "steer11",
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="Folder of the run. Default: runs/SUITE-forcing-MODEL."),
    ] = None,
    model: ModelName = None,
    revision: Revision = None,
    data: Data = None,
    contrast: ContrastText = None,
    sources: Annotated[
        str, typer.Option(metavar="CODES", help="Languages that the questions are in, such as en,de.")
    ] = "en",
    languages: Annotated[
        str | None,
        typer.Option(metavar="CODES", help="Target languages, such as am,he. Default: all of the suite."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Only these. Default: all of the suite that steer, and zero-shot."),
    ] = None,
    seeds: Seeds = None,
    relevance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORER",
            help="tfidf (the default), hf:PATH_OR_ID or judge:PATH_OR_ID. Repeat for several.",
        ),
    ] = None,
    questions: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="NAME",
            help="test, or validation: the questions for choosing layer and strength.",
        ),
    ] = "test",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Tokens of an answer at most. Default: 64, or fewer by the suite."),
    ] = None,
    plugin: Plugins = None,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    batch_size: BatchSize = 64,
) -> None:
    r"""Measure whether steering turns answers into another language.

    A model gets a question in a source language, nothing else, and the steering that a method fits for the
    target language. Scored are the share of answers in the target language, their relevance, and the harmonic
    mean of the two. Run the same command again to go on; with another --relevance only that is added.

    Relevance: 'tfidf' and 'hf:ENCODER' ask whether an answer's own question is the nearest of all, corrected
    for guessing; 'judge:CHAT-MODEL' asks a local chat model. Examples:

        steerboard forcing --suite mini --languages am,he \
            --methods zero-shot,language --seeds 1

        steerboard forcing --model google/gemma-2-9b-it --sources en,de \
            --relevance judge:Qwen/Qwen3-8B
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
        methods=split(methods),
        seeds=numbers(seeds, "--seeds"),
        plugins=plugin or [],
        device=device,
        dtype=dtype,
        device_map=device_map,
        batch_size=batch_size,
    )
    _forcing(options, split(sources) or [], _half(questions), max_new_tokens, relevance or ["tfidf"])


def _half(name: str) -> Half:
    if name not in ("test", "validation"):
        raise unknown("split of the questions", name, ["test", "validation"])
    return cast("Half", name)


def _forcing(options: RunOptions, sources: list[str], half: Half, max_new_tokens: int | None, specs: list[str]) -> None:
    from harness.tracks.forcing.planning import plan_forcing
    from harness.tracks.forcing.relevance import open_relevance
    from harness.tracks.forcing.running import run_forcing

    if options.languages == []:
        raise UserError("no target language is named. Give --languages, such as am,he.")
    planned = plan_forcing(options, sources, half, max_new_tokens)
    corpus = planned.base.corpus

    def human(code: str) -> list[str]:
        return [row.text for row in corpus.parallel(code)]

    scorers = [open_relevance(spec, planned.questions, human, options.device) for spec in dict.fromkeys(specs)]
    states = run_forcing(planned, scorers, options, console())
    report(planned.prepared, states)
    _show(planned.prepared.run.path, [scorer.name for scorer in scorers])
    raise typer.Exit(1 if any(state.endswith("error") for state in states) else 0)


def _show(folder: Path, names: list[str]) -> None:
    """Print the tables of a run, once per scorer of relevance."""
    from harness.core.store import Run
    from harness.core.terminal import output
    from harness.ranking.results import collect
    from harness.tracks.forcing.tables import print_forcing

    shown = output()
    for cellset in collect([Run(folder)]):
        for name in names:
            print_forcing(shown, cellset, name)
