"""The command ``steerboard contrast``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.helptext import build_group
from harness.cli.options import argument, console, option, run_options, split
from harness.core.errors import pasted
from harness.core.languages import check_known

if TYPE_CHECKING:
    from harness.data.backtranslation import Job, Translator
    from harness.data.contrast import ContrastManifest
    from harness.runner.prepare import RunOptions

app = build_group(
    "Make or import contrast text for the method 'quality'. Contrast text is human sentences next to "
    "degraded versions of them; the method steers from the degraded to the human text.",
    epilog="""
Example, without a translation model:

    steerboard contrast build --translator noise --out contrast/noise
    steerboard run --suite steer11 --model google/gemma-2-9b-it \\
        --contrast contrast/noise
""",
)
Out = Annotated[Path, option("FOLDER", "Folder for LANGUAGE.jsonl and contrast.json; it may hold other languages.")]


@app.command("build")
@run_options(
    "out languages translator revision pivots noise suite data limit batch_size threads device dtype",
    languages="Only these, such as am,da. Default: all.",
    revision="Commit, branch or pull request (refs/pr/N) of a hub model.",
    suite={"default": "steer11", "help": "Suite whose languages and text are taken."},
    limit={"min": 1, "help": "At most this many sentences."},
    batch_size="Sentences per batch. Default: 64.",
    dtype="auto, float32, bfloat16, float16. Default: auto, float32 on the CPU, else as stored.",
)
def build(
    options: RunOptions,
    out: Out,
    translator: Annotated[
        str,
        option("FOLDER_OR_ID", "Folder or hub id of a translation model, a template with {src} and {tgt}, or: noise."),
    ] = "facebook/nllb-200-distilled-600M",
    pivots: Annotated[str | None, option("CODES", "Languages on the way, in order. Default: de,zh,de.")] = None,
    noise: Annotated[
        float | None,
        option("PROBABILITY", "Probability of word noise, after every hop. Default: 0.01; 0.3 for --translator noise."),
    ] = None,
) -> None:
    r"""Degrade human sentences by translating them back and forth.

    Word noise is added after every hop. The sentences are the suite's parallel text, without any validation
    or test text. Run the same command again to resume after an interruption. As published (arXiv 2606.18389):

        steerboard contrast build --languages am,da --out contrast/nllb \
            --translator facebook/nllb-200-distilled-600M \
            --revision refs/pr/45 --dtype float16

    Weights are read from safetensors alone; hub models that have them only in a pull request need
    --revision. One model per pair of languages, and no model at all:

        steerboard contrast build --out contrast/opus --languages da \
            --translator 'Helsinki-NLP/opus-mt-{src}-{tgt}' --pivots en

        steerboard contrast build --translator noise --out contrast/noise

    Languages are named by their codes in the suite (am), or by the model's own (amh_Ethi).
    """
    from harness.data.backtranslation import NOISE_ALONE, PUBLISHED_NOISE, PUBLISHED_PIVOTS, plan
    from harness.data.corpus import Corpus
    from harness.data.sources import open_data
    from harness.data.suite import load_suite

    definition = load_suite(options.suite)
    corpus = Corpus(definition, open_data(definition, options.data))
    chosen = options.languages or definition.languages
    check_known("language", chosen, corpus.vector_languages)
    opened = _open(translator, options)
    alone = opened.kind == "noise"
    way = split(pivots) if pivots is not None else ([] if alone else PUBLISHED_PIVOTS)
    probability = noise if noise is not None else (NOISE_ALONE if alone else PUBLISHED_NOISE)
    jobs = plan(corpus, list(dict.fromkeys(chosen)), opened, way or [], probability, options.limit)
    _make_all(out, jobs, opened)
    model = () if definition.folder("model") else ("--model", "MODEL")
    typer.echo(f"next: {pasted('run', '--suite', options.suite, '--contrast', out, *model)}")


@app.command("import")
def import_(
    file: Annotated[Path, argument("FILE", 'JSON: {"good": [...], "bad": [...]}.')],
    language: Annotated[str, option("CODE", "Code of its language, such as sk.")],
    out: Out,
    source: Annotated[str | None, option("WORDS", "Where the file comes from, for the records.")] = None,
) -> None:
    r"""Import pairs of good and degraded texts from a file.

    "good" and "bad" are lists of equal length: this is the published format (arXiv 2606.18389), one file per
    language. Pairs of equal texts and empty ones are dropped. Example:

        steerboard contrast import pairs_flor_sk.json --language sk \
            --out contrast/published
    """
    from harness.core.files import file_digest
    from harness.data.contrast import BuildRecipe, ContrastFolder, check_code, read_published
    from harness.runner.prepare import library_versions

    check_code(language, "--language")
    pairs = read_published(file)
    recipe = BuildRecipe(kind="import", text=file_digest(file))
    folder = ContrastFolder(out)
    with folder.lock():
        if folder.holds(language, recipe):
            typer.echo(f"{folder.pairs_path(language)}: nothing to do, this file is already there")
            return
        made = folder.add(language, recipe, pairs, source or file.name, library_versions())
    typer.echo(_in_words(folder.pairs_path(language), made))
    typer.echo(f"next: {pasted('run', '--suite', 'SUITE', '--model', 'MODEL', '--contrast', out)}")


def _open(name: str, options: RunOptions) -> Translator:
    """Return the translator; word noise alone loads no library of models."""
    if name == "noise":
        from harness.data.backtranslation import Translator as NoTranslator

        return NoTranslator()
    from harness.data.translators import open_translator

    return open_translator(name, options.revision, options.device, options.dtype, options.batch_size or 64)


def _make_all(out: Path, jobs: list[Job], translator: Translator) -> None:
    from harness.data.backtranslation import make
    from harness.data.contrast import ContrastFolder
    from harness.runner.prepare import library_versions
    from harness.runner.progress import progress_bar

    folder = ContrastFolder(out)
    with folder.lock():
        finished = [job.language for job in jobs if folder.holds(job.language, job.recipe)]
        for job in jobs:
            path = folder.pairs_path(job.language)
            if job.language in finished:
                typer.echo(f"{path}: finished before")
                continue
            total = len(job.sentences) * len(job.hops)
            with progress_bar(
                console(), f"translate {job.language}", total, "translations", announced=False
            ) as tracker:
                made = make(folder, job, translator, library_versions(), tracker.advance)
            typer.echo(_in_words(path, made))


def _in_words(path: Path, made: ContrastManifest) -> str:
    counts = {"with equal texts": made.dropped_equal, "with an empty text": made.dropped_empty}
    dropped = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    return f"{path}: {made.pairs} pairs ({made.source})" + (f"; dropped: {dropped}" if dropped else "")
