"""Build contrast text: hops of the sentences through the pivots, word noise, chunks to resume from. No torch here."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from harness.core.errors import UserError
from harness.core.files import digest, write_jsonl
from harness.core.reading import read_jsonl
from harness.data.contrast import BuildRecipe, ContrastFolder, ContrastKind, ContrastManifest, ContrastPair, ModelSource
from harness.data.corpus import Corpus, word_noise
from harness.data.sources import Sentence

CHUNK = 256
"""Sentences that go through all hops together: at most these are lost when a process is killed."""

PUBLISHED_PIVOTS = ["de", "zh", "de"]  # arXiv 2606.18389: deu_Latn, zho_Hans, deu_Latn
PUBLISHED_NOISE = 0.01
NOISE_ALONE = 0.3  # without a translation model


class Translator:
    """Translation models, with their own codes of languages. This one has no model: word noise is all there is."""

    name = "noise"
    kind: ContrastKind = "noise"
    dtype: str | None = None
    """The precision of the models."""
    max_length: int | None = None
    """Tokens of a text and of a translation at most."""

    def code(self, language: str) -> str:
        """Return the translator's own code of a language; ``UserError`` if it has none."""
        return language

    def sources(self, path: Sequence[str]) -> list[ModelSource]:
        """Return the models of the hops of a path, each once."""
        return []

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        """Return the translations of ``texts``, in order."""
        return texts


@dataclass(frozen=True)
class Job:
    """A language to build: its sentences and its recipe."""

    language: str
    sentences: list[Sentence]
    recipe: BuildRecipe

    @property
    def chunks(self) -> list[list[Sentence]]:
        """The sentences in the fixed groups that are finished together."""
        size = self.recipe.chunk or CHUNK
        return [self.sentences[i : i + size] for i in range(0, len(self.sentences), size)]

    @property
    def hops(self) -> list[tuple[str, str]]:
        """Source and target of every translation; word noise alone counts as one."""
        return list(pairwise(self.recipe.path)) or [(self.language, self.language)]


def plan(
    corpus: Corpus,
    languages: Sequence[str],
    translator: Translator,
    pivots: Sequence[str],
    noise: float,
    limit: int | None = None,
) -> list[Job]:
    """Return the languages to build, of the first ``limit`` parallel sentences of each.

    Raises ``UserError`` for languages that the translator does not know and for a probability out of range.
    """
    if not 0 <= noise < 1 or (translator.kind == "noise" and noise == 0):
        raise UserError(f"--noise {noise:g} is not a probability of word noise; give 0.01 or 0.3, say.")
    if translator.kind == "noise" and pivots:
        raise UserError("--pivots need a translation model; --translator noise takes none.")
    jobs = []
    for language in languages:
        sentences = corpus.parallel(language)[:limit]
        path = path_of(language, pivots, translator)
        recipe = BuildRecipe(
            kind=translator.kind,
            translator=translator.name,
            models=translator.sources(path),
            pivots=list(pivots),
            path=path,
            noise=noise,
            dtype=translator.dtype,
            max_length=translator.max_length,
            chunk=CHUNK,
            text=digest([[s.id, s.text] for s in sentences], 16),
        )
        jobs.append(Job(language, sentences, recipe))
    return jobs


def path_of(language: str, pivots: Sequence[str], translator: Translator) -> list[str]:
    """Return the translator's codes from the language through the pivots and back.

    A hop from a language to itself is left out: with the pivots de, zh, de, German goes through Chinese alone.
    Raises ``UserError`` if no hop is left.
    """
    if translator.kind == "noise":
        return [language]
    codes = [translator.code(code) for code in (language, *pivots, language)]
    path = [codes[0], *(after for before, after in pairwise(codes) if before != after)]
    if len(path) == 1:
        raise UserError(f"--pivots {','.join(pivots)} leave no translation of {language!r}; give another.")
    return path


def degrade(
    sentences: Sequence[Sentence], job: Job, translator: Translator, advance: Callable[[int], None]
) -> list[ContrastPair]:
    """Return the sentences with their translations through all hops, with word noise after every hop.

    The noise depends on language, sentence id, hop number and text alone, so it is the same in every order and
    batch. ``advance`` is called after every hop with the number of texts.
    """
    texts = [sentence.text for sentence in sentences]
    for number, (source, target) in enumerate(job.hops, 1):
        texts = translator.translate(texts, source, target)
        keys = [f"{job.language}/{sentence.id}/{number}" for sentence in sentences]
        if job.recipe.noise:
            texts = [word_noise(t, job.recipe.noise, key) for t, key in zip(texts, keys, strict=True)]
        advance(len(texts))
    return [ContrastPair(s.id, s.text, text.strip()) for s, text in zip(sentences, texts, strict=True)]


def make(
    folder: ContrastFolder, job: Job, translator: Translator, versions: dict[str, str], advance: Callable[[int], None]
) -> ContrastManifest:
    """Build a language that is missing in the directory, which the caller has locked.

    Chunks that an earlier start finished are kept, so the result is that of a single start. ``advance`` is called
    with the number of further translations.
    """
    parts = folder.path / ".parts" / f"{job.language}-{job.recipe.hash}"
    pairs: list[ContrastPair] = []
    for number, sentences in enumerate(job.chunks):
        path = parts / f"{number:04}.jsonl"
        done = _read_part(path, sentences)
        if done is None:
            done = degrade(sentences, job, translator, advance)
            write_jsonl(path, (pair.to_json() for pair in done))
        else:
            advance(len(done) * len(job.hops))
        pairs += done
    recipe = job.recipe
    source = f"word noise {recipe.noise:g}" if recipe.noise else "no word noise"
    if recipe.kind != "noise":
        source = f"{recipe.translator}, {' > '.join(recipe.path)}, {source} after every hop"
    made = folder.add(job.language, recipe, pairs, source, versions)
    shutil.rmtree(parts, ignore_errors=True)
    with contextlib.suppress(OSError):  # another language may have parts
        parts.parent.rmdir()
    return made


def _read_part(path: Path, sentences: Sequence[Sentence]) -> list[ContrastPair] | None:
    """Return the pairs of a finished chunk, None if it is missing or not of these sentences."""
    try:
        rows = read_jsonl(path)
    except UserError:
        return None
    pairs = [ContrastPair(str(row.get("id")), str(row.get("good")), str(row.get("bad"))) for row in rows]
    same = [(p.id, p.original) for p in pairs] == [(s.id, s.text) for s in sentences]
    return pairs if same else None
