"""What a run will take and what looks wrong, from files alone: before weights are loaded and hours are spent."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.core.cells import Cell, steering_id
from harness.core.checkpoints import missing_packages, why_not_loaded
from harness.core.devices import choose_device, free_memory
from harness.core.errors import UserError
from harness.core.languages import language
from harness.core.terminal import format_size
from harness.data.prompts import Prompt
from harness.runner.prepare import RunPlan
from harness.runner.resources import (
    Footprint,
    count_parameters,
    gpu_hours,
    gpus_for,
    load_counter,
    measure,
    read_shape,
)

_LARGE = 2e13  # floating-point operations; two cores take minutes for them
_SMALL = 10**9  # bytes of weights that need no word about GPUs
_SAMPLED = 3  # prompts per setting, and sentences per language
_CELL_FILES = 5  # of a scored cell: texts, status, scores and two with artifacts
_CELL_BYTES, _TEXT_BYTES = 38_000, 370  # on disk, with scores: least squares over 784 cells of mini and tiny-real
_MOST_TOKENS_PER_LETTER = 1.0
"""A language is written in bytes where its letters take more tokens than this.

With the tokenizers of Gemma 3 and of the mini suite, parallel text of the suite takes 0.21 to 0.52 a character in Latin
script, 0.47 to 0.64 in Hebrew and 0.62 to 0.78 in Amharic; with one of bytes Hebrew takes more than 1, Amharic more
than 2.
"""


@dataclass
class Preflight:
    """What a run will take: ``facts`` by name, as printed, and ``warnings``. The numbers are of the open cells.

    ``texts``: texts that the model writes, ``most``: tokens of each at most. ``read``: tokens of prompts, ``fit``:
    tokens of texts that are read to fit methods; both estimated. ``parameters`` and ``memory``: None where the files do
    not say. ``longest``: tokens of the longest prompt that was looked at.
    """

    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    parameters: int | None = None
    memory: Footprint | None = None
    longest: int = 0
    texts: int = 0
    most: int = 0
    read: int = 0
    fit: int = 0

    @property
    def large(self) -> bool:
        """Whether the model has work for minutes or more."""
        return 2.0 * (self.parameters or 0) * self.tokens > _LARGE

    @property
    def tokens(self) -> int:
        """Tokens that the model reads and writes, at most."""
        return self.read + self.fit + self.texts * self.most

    def print(self, console: Console) -> None:
        """Print the facts that were not printed yet, then the warnings."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, min_width=10)
        grid.add_column(overflow="fold")
        for name, words in self.facts.items():
            grid.add_row(Text(name), Text(words))
        console.print(grid)
        self.facts.clear()
        self.print_warnings(console)

    def print_warnings(self, console: Console) -> None:
        """Print the warnings that were not printed yet."""
        for words in self.warnings:
            console.print(Text(f"warning: {words}"))
        self.warnings.clear()


def inspect_plan(
    plan: RunPlan,
    cells: Sequence[Cell],
    asked: str | None,
    batch_size: int | None = None,
    throughput: float | None = None,
) -> Preflight:
    """Return what the open ``cells`` of a plan will take, from its text, the tokenizer and the size of the weights.

    ``asked``: the device that was asked for; ``batch_size``: texts at once, if that was asked for; ``throughput``:
    tokens a second, from which hours of GPUs are computed. No weights are loaded. Raises ``UserError`` for text that is
    not there and a tokenizer that cannot be loaded.
    """
    found = Preflight()
    prompted = [cell for cell in cells if cell.key.model]
    if plan.checkpoint is None or plan.model is None or not prompted:
        found.facts["cells"] = f"{len(cells):,} of {len(plan.cells):,} to do; no model is needed"
        return found
    try:
        shape = read_shape(plan.checkpoint)
        tokenizer = load_counter(plan.checkpoint)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(f"{plan.checkpoint.path} cannot be loaded as a causal LM: {why_not_loaded(error)}") from None
    length = getattr(shape, "max_position_embeddings", None)
    missing = missing_packages(plan.checkpoint)
    if missing:
        found.warnings.append(missing)
    found.parameters = count_parameters(plan.checkpoint, shape)
    if found.parameters:
        found.memory = measure(plan.checkpoint, shape, found.parameters, plan.model.dtype)
    _add_model(found, plan, choose_device(asked))
    _add_cells(found, plan, cells)
    _add_prompts(found, plan, prompted, tokenizer, length)
    _add_fits(found, plan, prompted, tokenizer)
    _add_needs(found, batch_size, throughput)
    _add_languages(found, plan, prompted, tokenizer)
    _add_disk(found, plan, cells)
    return found


def _add_model(found: Preflight, plan: RunPlan, device: str) -> None:
    assert plan.checkpoint is not None
    assert plan.model is not None
    words = f"{plan.checkpoint.name} in {plan.model.dtype} on {device}"
    if plan.checkpoint.quantised:
        words += f", quantised by {plan.checkpoint.quantised}"
    if found.parameters and found.memory:
        size = found.memory.weights
        words += f": {_count(found.parameters)} parameters, {format_size(size)}"
        free = free_memory(device)
        if free is not None and size > free:
            found.warnings.append(
                f"the model takes {format_size(size)} of memory, {format_size(free)} are free on {device}."
            )
    found.facts["model"] = words
    chosen = plan.suite.sampling.template
    found.facts["prompts"] = {
        "chat": "chat: an instruction, by the tokenizer's template",
        "base": "base: the beginning of a document that the model continues",
        "instruction": "instruction: plain text with headings for instruction and response",
    }[chosen]
    if not plan.checkpoint.has_chat_template:
        found.warnings.append(
            f"{plan.checkpoint.name} has no chat template; its prompts have the format {chosen}. "
            "If it follows instructions, get the tokenizer files with its template."
        )


def _add_cells(found: Preflight, plan: RunPlan, cells: Sequence[Cell]) -> None:
    keys = [cell.key for cell in cells]
    counts = {
        ("language", "languages"): len({key.language for key in keys}),
        ("task", "tasks"): len({key.task for key in keys}),
        ("entry", "entries"): len({(id(key.method), key.setting) for key in keys}),
        ("seed", "seeds"): len({key.seed for key in keys}),
    }
    words = ", ".join(f"{n} {one if n == 1 else several}" for (one, several), n in counts.items())
    found.facts["cells"] = f"{len(cells):,} of {len(plan.cells):,} to do: {words}"


def _add_prompts(
    found: Preflight, plan: RunPlan, cells: Sequence[Cell], tokenizer: Any, context_length: int | None
) -> None:
    """Estimate the tokens of prompts and texts from three prompts of each setting."""
    sampling = plan.suite.sampling
    found.most = sampling.max_new_tokens
    words = []
    for setting in dict.fromkeys(cell.key.setting for cell in cells):
        group = [cell for cell in cells if cell.key.setting == setting]
        prompts = [first for cell in spread(group) if (first := _first_prompt(plan, cell, tokenizer))[0]]
        if not prompts:
            continue
        sizes = [size for size, _ in prompts]
        of_label = fmean(size * different for size, different in prompts)
        found.read += round(of_label * sum(_n_labels(plan, cell) for cell in group))
        found.texts += sum(_n_labels(plan, cell) * cell.key.texts_per_label for cell in group)
        found.longest = max(found.longest, *sizes)
        words.append(f"{round(fmean(sizes)):,} ({setting})")
        if context_length is not None and max(sizes) + sampling.max_new_tokens > context_length:
            found.warnings.append(
                f"the context of {context_length:,} tokens is short: a {setting} prompt has {max(sizes):,}, which "
                f"leaves {max(0, context_length - max(sizes)):,} of {sampling.max_new_tokens} for the text."
            )
    found.facts["texts"] = f"{found.texts:,} to write, of at most {found.most} tokens"
    found.facts["tokens"] = (
        f"at most {_count(found.texts * found.most)} to write; {', '.join(words)} in a prompt, {_count(found.read)} in "
        "all"
    )


def _add_fits(found: Preflight, plan: RunPlan, cells: Sequence[Cell], tokenizer: Any) -> None:
    """Count the texts that fits read, each once: parallel text by language, then what a method says of its own."""
    corpus, sizes, own = plan.corpus, dict[str, int](), dict[str, int]()
    fits = {(id(cell.key.method), cell.key.task, cell.key.language): cell for cell in cells}
    for cell in fits.values():
        method, context = plan.method(cell), plan.context(cell)
        if not method.has_fit or plan.run.steering_path(steering_id(plan.fit_cell(cell).key)).is_file():
            continue
        try:
            codes = method.vector_languages(context)
            for code in codes:
                sizes.setdefault(code, len(corpus.vector_text(code)))
            own.update(method.texts_to_read(context, sizes.get(cell.key.language, 0)))
        except UserError:
            raise
        except (Exception, SystemExit):  # noqa: S112  # of a plug-in; its cells record it
            continue
    if not sizes:
        return
    lengths = {
        code: fmean(len(tokenizer(row.text)["input_ids"]) for row in spread(corpus.vector_text(code))) for code in sizes
    }
    found.fit = round(sum(n * lengths[code] for code, n in sizes.items()) + sum(own.values()) * fmean(lengths.values()))
    more = f", then {sum(own.values()):,} texts in {len(own)} fits" if own else ""
    found.facts["fitting"] = (
        f"{sum(sizes.values()):,} sentences in {len(sizes)} languages to read{more}; about {_count(found.fit)} tokens"
    )


def _add_needs(found: Preflight, batch_size: int | None, throughput: float | None) -> None:
    """Say what memory the weights and the texts that are written at once take, how many GPUs, and for how long."""
    if found.memory is None or found.parameters is None:
        return
    length = found.longest + found.most
    gpus, texts, size = gpus_for(found.memory, length, batch_size)
    found.facts["memory"] = (
        f"{format_size(found.memory.total(texts, length))}: the weights, and {format_size(found.memory.text(length))} "
        f"for each of {texts} texts of {length:,} tokens at once"
    )
    if found.memory.weights > _SMALL:
        found.facts["memory"] += f"; {gpus} GPU{'s' if gpus > 1 else ''} of {format_size(size)}"
    work = 2.0 * found.parameters * found.tokens
    found.facts["work"] = f"at most {_count(found.tokens)} tokens, {work:.2g} floating-point operations"
    if throughput:
        hours = gpu_hours(found.tokens, throughput, gpus)
        found.facts["work"] += f"; {hours:,.1f} GPU hours at {throughput:,.0f} tokens/s of {gpus} together"


def _add_languages(found: Preflight, plan: RunPlan, cells: Sequence[Cell], tokenizer: Any) -> None:
    """Warn of languages that the tokenizer writes in bytes or as unknown tokens, by their parallel text."""
    missing = []
    for code in dict.fromkeys(cell.key.language for cell in cells):
        text = " ".join(row.text for row in spread(plan.corpus.vector_text(code), 20))
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = sum(token == tokenizer.unk_token_id for token in tokens) / max(len(tokens), 1)
        rate = len(tokens) / max(len(text), 1)
        if rate > _MOST_TOKENS_PER_LETTER:
            missing.append(f"{language(code).name} ({rate:.1f} tokens per character)")
        elif unknown > 0.01:
            missing.append(f"{language(code).name} ({unknown:.0%} unknown tokens)")
    if missing:
        found.warnings.append(f"the tokenizer hardly knows {', '.join(missing)}: texts will be short or wrong.")


def _add_disk(found: Preflight, plan: RunPlan, cells: Sequence[Cell]) -> None:
    need = len(cells) * _CELL_BYTES + found.texts * _TEXT_BYTES
    folder = plan.run.path
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    files = len(cells) * _CELL_FILES
    found.facts["disk"] = f"about {format_size(need)} in {plan.run.path}, {files:,} files; {format_size(free)} are free"
    if need > free:
        found.warnings.append(
            f"the disk of {plan.run.path} has {format_size(free)} left, the run takes about {format_size(need)}."
        )


def _first_prompt(plan: RunPlan, cell: Cell, tokenizer: Any) -> tuple[int, int]:
    """Return the number of tokens of a cell's first prompt, and of different prompts of its label.

    Zeros where its method fails, which the cell itself records.
    """
    try:
        prompts = next(iter(plan.prompts(cell)[0].values()))
        return len(encode_prompt(tokenizer, plan, prompts[0])), len({*prompts})
    except (Exception, SystemExit):
        return 0, 0


def encode_prompt(tokenizer: Any, plan: RunPlan, prompt: Prompt) -> list[int]:
    """Return the tokens of a prompt in the format of a plan."""
    from harness.engine.chat import render

    text = render(tokenizer, prompt, plan.suite.sampling.template, plan.suite.sampling.date)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _n_labels(plan: RunPlan, cell: Cell) -> int:
    return len(plan.suite.task(cell.key.task, cell.key.language).labels)


def spread(items: Sequence[Any], count: int = _SAMPLED) -> list[Any]:
    """Return at most ``count`` items, evenly spread."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _count(number: float) -> str:
    """Return a number in words: 268 million."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"
