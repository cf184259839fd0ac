"""The command ``steerboard import texts``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.helptext import build_group
from harness.cli.options import argument, option, run_options
from harness.core.errors import UserError, pasted

if TYPE_CHECKING:
    from harness.runner.prepare import RunOptions
    from harness.submissions.imports import ImportPlan

_SHOWN = 5  # files or cells that are listed before 'and N more'
_SHOWN_LABELS = 3  # whose numbers are shown one by one

app = build_group(
    "Bring texts that were made elsewhere onto the board.",
    epilog="""
Example, beside the zero-shot row of the same model:

    steerboard run --suite mini --methods zero-shot --run runs/mine
    steerboard import texts my_texts.csv --run runs/mine \\
        --name my-texts --model pocketlm --dry-run
""",
)


@app.command("texts")
@run_options(
    "path name model setting suite run like data languages tasks limit columns map_ task language seed dry_run",
    suite={
        "default": "",
        "help": "Suite whose tasks, labels and counts hold. Default: that of the run in the folder, else steer11.",
    },
    run="Folder of the run to add to, or of a new one. Default: runs/SUITE-MODEL, or a new runs/SUITE-MODEL-imported.",
    languages="For a new run: only these, such as am,he.",
    tasks="For a new run: only these, such as topic.",
    limit={"min": 1, "help": "For a new run: at most this many texts per label."},
)
def texts(
    options: RunOptions,
    path: Annotated[Path, argument("FOLDER_OR_FILE", "Texts: .csv, .tsv, .jsonl or .parquet.")],
    name: Annotated[str, option("NAME", "Name of the entry on the board.")],
    model: Annotated[str, option("NAME", "Model that wrote the texts; you state it, nobody checks it.")],
    setting: Annotated[str, option("SETTING", "zero-shot or few-shot: how it was prompted.")] = "zero-shot",
    like: Annotated[
        Path | None, option("FOLDER", "For a new run: run of another model that the texts are to share a table with.")
    ] = None,
    columns: Annotated[
        str | None, option("ROLE=COLUMN", "Columns of text, label, task, language, seed: text=review,label=stars.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        option("VALUE=LABEL", "What a label stands for: pos=positive; neutral= leaves it out. Repeat.", "--map"),
    ] = None,
    task: Annotated[str | None, option("NAME", "Task of all texts. Default: from columns, paths or labels.")] = None,
    language: Annotated[str | None, option("CODE", "Language of all texts. Default: from columns or paths.")] = None,
    seed: Annotated[int | None, option("NUMBER", "Seed of texts that name none. Default: the suite's first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be imported; write nothing.")] = False,
) -> None:
    r"""Import texts made elsewhere as an entry of a run.

    Columns, tasks, languages and seeds are guessed from the columns and from the words of the paths, and shown
    before anything is written. Examples:

        steerboard import texts data/ --suite steer11 \
            --name pecher-2026 --model meta-llama/Llama-3.1-70B-Instruct
        steerboard import texts he.csv --run runs/mine --name my-texts \
            --model google/gemma-3-1b-it --task sentiment --language he \
            --columns text=review,label=stars --map 5=positive --map 1=negative

    A cell takes the suite's number of texts per label: of more, the first; one with fewer stays missing, and the
    board says why. Ranked entries have all cells, and 3 seeds: name them in a column 'seed' or in file names (seed1,
    seed2). With --run, the texts stand beside the rows of that run. The same import again changes nothing; other
    texts need another --name. Scores come from 'steerboard score'.
    """
    from harness.submissions.import_files import ImportOptions
    from harness.submissions.imports import has_baseline, open_target, plan_import, write_import

    model = Path(model).resolve().name if Path(model).is_dir() else model
    stated = ImportOptions(
        path, name, model, setting, _pairs(columns.split(",") if columns else [], "--columns"),
        _pairs(map_ or [], "--map"), task, language, seed,
    )  # fmt: skip
    base, manifest = open_target(options, model, like)
    plan = plan_import(stated, base, manifest)
    _show_texts(plan)
    if dry_run:
        typer.echo("nothing was written; leave out --dry-run to import")
        return
    with plan.run.lock():
        written = write_import(plan, options)
    if not written:
        typer.echo(f"{plan.run.path}: nothing to do, these texts are already there")
    else:
        typer.echo(f"{plan.run.path}: {written} of {len(plan.cells)} cells written")
    if not has_baseline(plan):
        typer.echo(f"no gain: the run has no zero-shot row of {plan.entry.model.name if plan.entry.model else model}")
    typer.echo(f"next: {pasted('score', plan.run.path)}")


def _pairs(words: list[str], name: str) -> dict[str, str]:
    """Return the left and right sides of ``A=B``; ``UserError`` for anything else."""
    found: dict[str, str] = {}
    for word in words:
        left, sign, right = word.rpartition("=")
        if not sign or not left.strip():
            example = "text=review,label=stars" if name == "--columns" else "pos=positive"
            raise UserError(f"{name} {word!r}: give it as {example}.")
        found[left.strip()] = right.strip()
    return found


def _show_texts(plan: ImportPlan) -> None:
    """Print what was found and where it was found, what is left out, and which cells stay missing."""
    from rich.text import Text

    from harness.core.terminal import TerminalColumn, output, print_table
    from harness.ranking.eligibility import SEEDS

    found, console = plan.texts, output()
    roles = ("text", "label", "task", "language", "seed")
    guesses = Counter("; ".join(f"{role}: {guess.get(role, '-')}" for role in roles) for guess in found.sources)
    lines = [f"{line} ({count} files)" if count > 1 else line for line, count in guesses.items()]
    if other := {own: to for own, to in found.seeds.items() if own and own != str(to)}:
        lines.append("seeds: " + ", ".join(f"{own} stands for {to}" for own, to in other.items()))
    for line in lines:
        console.print(Text(line))
    needed = {cell.key.task: cell.key.texts_per_label for cell, _ in plan.cells}
    words = ", ".join(f"{count} of {task}" for task, count in needed.items())
    columns = [TerminalColumn(head, words=True) for head in ("task", "language", "seeds", "texts", "")]
    title = f"{plan.entry.method.title}, {plan.entry.setting}; texts per label: {words}"
    print_table(console, columns, _rows(plan), title)
    lines = [f"left out: {_first(names)}: {reason}" for reason, names in found.left_out.items()]
    lines += [f"note: {note}" for note in found.notes]
    if plan.missing:
        lines.append(f"not ranked: {len(plan.missing)} of {len(plan.cells)} cells are missing")
    for reason in dict.fromkeys(reason for _, reason in plan.missing):
        strata = Counter(f"{cell.key.task}/{cell.key.language}" for cell, why in plan.missing if why == reason)
        shown = [f"{name} ({count} seeds)" if count > 1 else name for name, count in strata.items()]
        lines.append(f"  {reason}: {_first(shown)}")
    if len(found.seeds) < SEEDS:
        lines.append(f"not ranked: generation seeds: {len(found.seeds)}, {SEEDS} are needed")
    for line in lines:
        console.print(Text(line))


def _rows(plan: ImportPlan) -> list[list[str]]:
    """Return a row for every task and language with texts, its numbers over all seeds."""
    groups: dict[tuple[str, str], list[tuple[int, dict[str, list[str]], str]]] = {}
    for cell, reason in plan.cells:
        key = cell.key
        if by_label := plan.texts.group(key.task, key.language, key.seed):
            groups.setdefault((key.task, key.language), []).append((key.seed, by_label, reason))
    rows = []
    for (task, language), found in groups.items():
        numbers: dict[str, list[int]] = {}
        for _, by_label, _ in found:
            for label, texts in by_label.items():
                numbers.setdefault(label, []).append(len(texts))
        counts = {label: _range(each) for label, each in numbers.items()}
        words = ", ".join(f"{label} {each}" for label, each in counts.items())
        if len(counts) > _SHOWN_LABELS:
            words = f"{_range([n for each in numbers.values() for n in each])} of each of {len(counts)} labels"
        mark = "too few" if any(reason for _, _, reason in found) else ""
        rows.append([task, language, ", ".join(str(seed) for seed, _, _ in found), words, mark])
    return rows


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _first(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
