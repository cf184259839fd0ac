"""The options that several commands share, and small helpers of theirs.

``run_options`` gives a command any of them: it takes one ``RunOptions`` where typer needs a parameter per option.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from copy import copy
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args, get_type_hints

import typer

from harness.core.errors import UserError, pasted
from harness.core.threads import set_threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from harness.core.cells import Cell
    from harness.core.records import State
    from harness.core.store import Run


def option(metavar: str, text: str, *names: str, **more: Any) -> Any:
    """Return an option with the word for its value, its help and, where they are not the parameter's, its names."""
    return typer.Option(*names, metavar=metavar, help=text, **{"callback": _refuse_url, **more})


def argument(metavar: str, text: str) -> Any:
    """Return an argument with its name in help, and its help."""
    return typer.Argument(metavar=metavar, help=text, callback=_refuse_url)


_URL = re.compile(r"([a-z][a-z0-9+.-]+):(?:/|$)", re.IGNORECASE)


def _refuse_url(value: Any) -> Any:
    """Return the value of an option; ``UserError`` for a path that was written as a URL."""
    for path in value if isinstance(value, list) else [value]:
        if isinstance(path, Path) and (found := _URL.match(str(path))):
            rest = str(path)[found.end() :]
            url = f"{found[1]}://{rest}"
            if found[1].lower() == "file":
                raise UserError(f"file:///{rest} is a URL. Give the path: /{rest}.")
            raise UserError(
                f"{url} is a URL; give a folder or file of this machine. Runs are copied from and to a storage with "
                "'steerboard pull URL RUN' and 'steerboard push RUN URL'."
            )
    return value


ModelName = Annotated[
    str | None,
    option(
        "PATH_OR_ID",
        "Folder of a model or of a LoRA adapter, .gguf file, hub id OWNER/NAME or OWNER/NAME:FILE.gguf. "
        "Default: the suite's own model.",
    ),
]
Revision = Annotated[str | None, option("COMMIT", "Commit or branch of a hub model.")]
Data = Annotated[
    Path | None,
    option("FOLDER", "Folder with TASK/LANGUAGE/SPLIT.jsonl and parallel/LANGUAGE.jsonl, instead of the hub."),
]
ContrastText = Annotated[
    Path | None,
    option("FOLDER", "Folder of 'steerboard contrast': degraded text for the quality vector. Finish it first."),
]
Classifiers = Annotated[
    list[str] | None,
    option(
        "CLASSIFIER",
        "tfidf, frozen:PATH_OR_ID[,prefix=query,pooling=cls], or hf:PATH_OR_ID[,lr=2e-4,epochs=12,seeds=2]. Repeat for "
        "several.",
        "--classifier",
    ),
]
Embeddings = Annotated[
    list[str] | None,
    option(
        "ENCODER",
        "Encoder for Vendi score and pairwise distance: tfidf, or hf:PATH_OR_ID[,prefix=query,pooling=cls]. Repeat for "
        "several.",
        "--embedding",
    ),
]
Identifiers = Annotated[
    list[str] | None,
    option(
        "fasttext:FILE", "A language identifier in addition to the suite's, such as GlotLID's model.", "--language-id"
    ),
]
Plugins = Annotated[list[Path] | None, option("FILE", "Python file with a method. Repeat for several.", "--plugin")]
Device = Annotated[str | None, option("DEVICE", "cpu, cuda, cuda:1. Default: a GPU if any.")]
DeviceMap = Annotated[
    str | None, option("auto", "Spread a model over GPUs, memory and disk (pip install 'steerboard[large]').")
]
BatchSize = Annotated[int | None, option("NUMBER", "Texts at once; changes no text. Default: what fits.", min=1)]


def _use_threads(number: int | None) -> None:
    if number is not None:
        set_threads(number)


Threads = Annotated[
    int | None,
    option(
        "NUMBER",
        "Cores to use at most, threads and worker processes together; changes no result. Default: all cores that "
        "this process may use, or OMP_NUM_THREADS.",
        min=1,
        callback=_use_threads,
        expose_value=False,  # it holds from here on, for everything that the command does
    ),
]
Lock = Annotated[
    Path | None,
    option(
        "FILE",
        "The maintainers' lock that badges of submissions come from; name one that you trust. "
        "Default: that of the checkout that runs.",
    ),
]


Languages = Annotated[str | None, option("CODES", "Only these, such as am,he.")]
Tasks = Annotated[str | None, option("NAMES", "Only these, such as topic.")]
Methods = Annotated[str | None, option("NAMES", "Only these, such as zero-shot,language.")]
Settings = Annotated[str | None, option("NAMES", "Only these: zero-shot, few-shot.")]


class _RunOptions:
    """The options behind the fields of ``harness.runner.prepare.RunOptions``."""

    suite: Annotated[str, option("NAME_OR_FILE", "Name of a shipped suite, or path of a suite's .yaml.")]
    run: Annotated[Path | None, option("FOLDER", "Folder of the run. Default: runs/SUITE-MODEL.", "--run")] = None
    model: ModelName = None
    revision: Revision = None
    data: Data = None
    contrast: ContrastText = None
    languages: Languages = None
    tasks: Tasks = None
    methods: Methods = None
    settings: Settings = None
    seeds: Annotated[str | None, option("NUMBERS", "Only these generation seeds, such as 1,2 or 1-3.")] = None
    limit: Annotated[int | None, option("NUMBER", "At most this many texts per label.")] = None
    vector_sentences: Annotated[
        int | None,
        option("NUMBER", "Fit vectors on at most this many parallel sentences per language and contrast pairs."),
    ] = None
    prompt_format: Annotated[
        str | None,
        option(
            "FORMAT",
            "auto, chat (the tokenizer's template), base (the beginning of a document, for models that do not follow "
            "instructions) or instruction. Default: chat where there is a template, else base.",
        ),
    ] = None
    classifiers: Classifiers = None
    embeddings: Embeddings = None
    identifiers: Identifiers = None
    plugins: Plugins = None
    engine: Annotated[
        str | None,
        option(
            "ENGINE",
            "What writes texts: transformers, or vllm for large models (steerboard docs vllm). Default: what the run "
            "folder has, else transformers.",
        ),
    ] = None
    device: Device = None
    dtype: Annotated[
        str | None,
        option(
            "PRECISION",
            "auto, float32, bfloat16, float16. Default: auto, what the run folder has, else what the device does fast.",
        ),
    ] = None
    device_map: DeviceMap = None
    batch_size: BatchSize = None
    threads: Threads = None
    workers: Annotated[
        int | None,
        option(
            "NUMBER",
            "Processes that write texts: one per GPU, or on the CPU with the threads divided; changes no result there. "
            "Default: 1; with ray one per GPU, or per node.",
            min=1,
        ),
    ] = None
    executor: Annotated[
        str,
        option(
            "NAME",
            "Where the workers run: local (this machine), ray (processes of Ray, on a cluster with --address), slurm "
            "(array jobs of 'steerboard work').",
        ),
    ] = "local"
    address: Annotated[
        str | None,
        option(
            "HOST:PORT",
            "Ray cluster to join, or auto for that of this machine. Default: Ray is started here, for this command.",
        ),
    ] = None
    slurm: Annotated[
        list[str] | None,
        option("KEY=VALUE", "Option of sbatch for every worker, such as partition=gpu. Repeat for several.", "--slurm"),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="Start long work without a question.")] = False
    tuned: Annotated[bool, typer.Option("--tuned", help="Use what 'steerboard tune' chose for this run folder.")] = (
        False
    )


_DIGITS = 18  # of a number
_LONGEST_RANGE = 10_000  # numbers


def run_options(names: str, **changed: str | dict[str, Any]) -> Callable[..., Any]:
    """Let a command take the named shared options as its first parameter, ``options: RunOptions``.

    ``names``: fields of RunOptions and parameters of the command, in the order of its help. ``changed``: field ->
    another help text, or a dict of other attributes of the option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = get_type_hints(_RunOptions, include_extras=True)
        hints = get_type_hints(command, localns={"RunOptions": Any}, include_extras=True)
        own = inspect.signature(command).parameters
        parameters = []
        for name in names.split():
            kind = hints[name] if name in own else shared[name]
            default = own[name].default if name in own else getattr(_RunOptions, name, inspect.Parameter.empty)
            if name in changed:
                base, info = get_args(kind)
                info, change = copy(info), changed[name]
                attributes = dict(change) if isinstance(change, dict) else {"help": change}
                default = attributes.pop("default", default)
                vars(info).update(attributes)
                kind = Annotated[base, info]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))

        @wraps(command)
        def wrapper(**given: Any) -> None:
            from harness.runner.prepare import RunOptions

            given.pop("threads", None)  # in force since it was read
            read = {name: _READ.get(name, lambda value: value)(given.pop(name)) for name in [*given] if name not in own}
            command(RunOptions(**read), **given)

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
        return wrapper

    return decorate


def console() -> Console:
    """Return the console of progress and remarks: stderr, so that stdout can be piped."""
    from rich.console import Console

    return Console(stderr=True)


def split(text: str | None) -> list[str] | None:
    """Return the parts of a list written with commas; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str | None, option: str) -> list[int] | None:
    """Return whole numbers and ranges with commas, such as 1,3,5-7; ``UserError`` for anything else."""
    parts = split(text)
    if parts is None:
        return None
    found: list[int] = []
    for part in parts:
        first, dash, last = part.partition("-")
        ends = [first.strip(), last.strip() if dash else first.strip()]
        if not all(end.isascii() and end.isdigit() and len(end) <= _DIGITS for end in ends):
            raise UserError(f"{option} {text!r}: give whole numbers, such as 1,2,3 or 1-3.")
        low, high = map(int, ends)
        if not low <= high < low + _LONGEST_RANGE:
            raise UserError(f"{option} {text!r}: the range {part} is empty or too long; write it as 1-3.")
        found += range(low, high + 1)
    return found


def pairs(words: list[str] | None) -> dict[str, str]:
    """Return options of sbatch written as KEY=VALUE, or KEY for a switch; ``UserError`` for anything else."""
    found = {}
    for word in words or ():
        key, _, value = word.removeprefix("--").partition("=")
        if not re.fullmatch("[a-z][a-z_-]*", key) or not (value or word.endswith(key)) or "\n" in value:
            raise UserError(f"--slurm {word!r} is not KEY=VALUE with an option of sbatch; write it as time=4:00:00.")
        found[key] = value
    return found


_READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("languages", "tasks", "methods", "settings"), split),
    "seeds": partial(numbers, option="--seeds"),
    "slurm": pairs,
    "plugins": lambda paths: paths or [],
}
"""Field of RunOptions -> how the words of its option are read; others are taken as they are."""


def failed(states: Mapping[State, int]) -> bool:
    """Say whether any cell ended in an error."""
    return any(state.endswith("error") for state in states)


def report(run: Run, cells: Sequence[Cell], states: Mapping[State, int]) -> None:
    """Print on stderr how many cells are in which state, and why the first failed."""
    counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    typer.echo(f"run {run.path}: {len(cells)} cells, {counts}", err=True)
    for cell in cells if failed(states) else ():
        status = run.status(cell.id)
        if status and status.state.endswith("error"):
            typer.echo(f"first failure: {cell.title}: {status.reason}", err=True)
            break


def say_next(folder: Path, states: Mapping[State, int]) -> None:
    """Print what to do after a run: build a board, or fix it first where no cell has texts."""
    if states.get("ok"):
        typer.echo(f"next: {pasted('board', 'build', folder, '--out', 'site')}")
        return
    if states.get("method_error"):
        what = (
            "Fix the method (the first failure is above; 'steerboard method test' finds more), then run the same "
            "command again."
        )
    elif states.get("infra_error"):
        what = (
            "Fix what failed on this machine (the first failure is above; with too little memory, a smaller "
            "--batch-size), then run the same command again."
        )
    else:
        what = "All were skipped, for the reasons above. Choose other --methods, --languages or another --model."
    typer.echo(f"next: no cell has texts. {what}")


_LARGE = 2000  # cells; to rank them takes longer than to see that all are finished


def finish(run: Run, states: Mapping[State, int], done: int = 1) -> NoReturn:
    """Print the results of a run and what to do next, and end the command: with code 1 where a cell failed.

    ``done``: cells that were worked on, where that is counted. Where a large run had nothing left to do, its results
    are what they were: how to see them is printed instead.
    """
    if done or sum(states.values()) <= _LARGE:
        summarise(run.path)
    else:
        typer.echo(f"nothing was left to do; its results: {pasted('score', run.path)}")
    say_next(run.path, states)
    raise typer.Exit(int(failed(states)))


def summarise(folder: Path) -> None:
    """Print the results of a run on stdout: a table, remarks, and in a sentence which entry is best."""
    from harness.core.store import Run
    from harness.core.terminal import output
    from harness.ranking.results import collect
    from harness.ranking.summary import print_summary

    for result_set in collect([Run(folder)]):
        print_summary(output(), result_set)
