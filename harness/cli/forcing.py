"""The command ``steerboard forcing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from harness.cli.options import console, failed, option, report, run_options, split
from harness.core.errors import UserError
from harness.core.languages import check_known

if TYPE_CHECKING:
    from harness.runner.prepare import RunOptions
    from harness.tracks.forcing.questions import Half


@run_options(
    "suite run model revision data contrast sources languages methods seeds relevance half max_new_tokens "
    "plugins device dtype device_map batch_size threads yes",
    suite={"default": "steer11"},
    run="Folder of the run. Default: runs/SUITE-forcing-MODEL.",
    languages="Target languages, such as am,he. Default: all of the suite.",
    methods="Only these. Default: all of the suite that steer, and zero-shot.",
)
def forcing(
    options: RunOptions,
    sources: Annotated[str, option("CODES", "Languages that the questions are in, such as en,de.")] = "en",
    relevance: Annotated[
        list[str] | None,
        option("SCORER", "tfidf (the default), hf:PATH_OR_ID or judge:PATH_OR_ID. Repeat for several."),
    ] = None,
    half: Annotated[
        str, option("NAME", "test, or validation: the questions for choosing layer and strength.", "--split")
    ] = "test",
    max_new_tokens: Annotated[
        int | None, option("NUMBER", "Tokens of an answer at most. Default: 64, or fewer by the suite.", min=1)
    ] = None,
) -> None:
    r"""Measure whether steering turns answers into another language.

    A model gets a question in a source language, nothing else, and the steering that a method fits for the
    target language. Scored are the share of answers in the target language, their relevance, and the harmonic
    mean of the two. Run the same command again to resume; with another --relevance only that is added.

    Relevance: 'tfidf' and 'hf:ENCODER' ask whether an answer's own question is the nearest of all, corrected
    for guessing; 'judge:CHAT-MODEL' asks a local chat model. Examples:

        steerboard forcing --suite mini --languages am,he \
            --methods zero-shot,language --seeds 1

        steerboard forcing --model google/gemma-2-9b-it --sources en,de \
            --relevance judge:Qwen/Qwen3-8B
    """
    from harness.core.store import Run
    from harness.core.terminal import output
    from harness.ranking.results import collect
    from harness.tracks.forcing.planning import plan_forcing
    from harness.tracks.forcing.relevance import open_relevance
    from harness.tracks.forcing.scoring import run_forcing
    from harness.tracks.forcing.tables import print_forcing

    check_known("split of the questions", [half], ["test", "validation"])
    if options.languages == []:
        raise UserError("no target language is named. Give --languages, such as am,he.")
    plan = plan_forcing(options, split(sources) or [], cast("Half", half), max_new_tokens)

    def human(code: str) -> list[str]:
        return [row.text for row in plan.base.corpus.parallel(code)]

    specs = dict.fromkeys(relevance or ["tfidf"])
    scorers = [open_relevance(spec, plan.questions, human, options.device) for spec in specs]
    states = run_forcing(plan, scorers, options, console())
    report(plan.run, plan.cells, states)
    for result_set in collect([Run(plan.run.path)]):
        for scorer in scorers:
            print_forcing(output(), result_set, scorer.name)
    raise typer.Exit(int(failed(states)))
