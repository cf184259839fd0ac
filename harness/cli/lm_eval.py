"""The command ``steerboard lm-eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import console, finish, option, report, run_options, split
from harness.core.errors import UserError, require

if TYPE_CHECKING:
    from harness.runner.prepare import RunOptions


@run_options(
    "tasks suite run model revision data contrast languages methods seeds limit include_path apply_chat_template "
    "plugins device dtype device_map batch_size threads",
    suite={"default": "steer11", "help": "Suite whose text the methods are fitted on: a name, or the path of a .yaml."},
    run="Folder of the run. Default: runs/SUITE-MODEL-understanding.",
    languages="Only these, such as am,he. The reference language (en) is a control and in no mean; without "
    "this option it is run as well.",
    methods="Only these, such as zero-shot,language. Default: the suite's that steer.",
    seeds="Seeds of what a task draws, such as its shots. Default: one, for most draw none.",
    limit={"help": "At most this many examples of every task, spread over it.", "min": 2},
)
def lm_eval(
    options: RunOptions,
    tasks: Annotated[
        str,
        option(
            "NAMES",
            "Tasks of the suite (topic,sentiment), tasks, groups or tags of lm-eval (belebele,xnli_de), "
            "or TASK:LANGUAGE where a name does not say the language.",
        ),
    ],
    include_path: Annotated[
        list[Path] | None, option("FOLDER", "Folder with further lm-eval task files. Repeat for several.")
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Ask in the model's chat template; as in lm-eval.")
    ] = False,
) -> None:
    r"""Let steered models answer tasks of lm-eval.

    The understanding track: every method x language x task, accuracy or F1 with lm-eval's standard error,
    paired statistics over the examples, and English as a control that must not get worse. The unsteered row is
    zero-shot. Run the same command again to resume. Example:

        steerboard lm-eval --model google/gemma-2-9b-it \
            --methods zero-shot,language,clas \
            --tasks topic,sentiment,belebele --languages am,da,en
    """
    require("run")
    from harness.tracks.understanding.running import run_grid, silence_lm_eval

    silence_lm_eval()
    from harness.tracks.understanding.planning import plan_grid

    names = split(tasks)
    if not names:
        raise UserError(f"--tasks {tasks!r} does not name a task. Give some, such as topic,sentiment.")
    try:
        plan = plan_grid(options, names, include_path or [], apply_chat_template)
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise UserError("lm-eval is not installed. Install it: pip install 'steerboard[lm-eval]'.") from None
    states = run_grid(plan, options, console())
    report(plan.run, plan.cells, states)
    finish(plan.run, states)
