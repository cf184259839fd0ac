"""The text of a run by role: labelled splits, demonstrations, vector text, contrast pairs."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from harness.core.errors import UserError, warn
from harness.core.files import digest
from harness.data.contrast import ContrastFolder
from harness.data.sources import DataSource, Example, Sentence
from harness.data.suite import Split, Suite


@dataclass(frozen=True)
class Contrast:
    """Pairs for the quality vector: ``good[i]`` is human-written, ``bad[i]`` its degraded version.

    ``source``: how it was degraded, and how many pairs were held out as validation or test text.
    """

    good: list[str]
    bad: list[str]
    source: str


def contrast_kind(source: str) -> str:
    """Return the part of a contrast's source that languages share where they were degraded alike."""
    return ":".join(source.partition(" (")[0].split(":")[:2])


@dataclass
class Corpus:
    """All text of a run, read once, with the roles of the splits enforced.

    Vector text never holds a validation or test sentence of its language, by id or by text; ``dropped`` counts the
    sentences left out for that. ``contrast_folder`` takes precedence over the contrast text of the data.
    """

    suite: Suite
    source: DataSource
    contrast_folder: ContrastFolder | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    _splits: dict[tuple[str, str, Split], list[Example]] = field(default_factory=dict)
    _parallel: dict[str, list[Sentence]] = field(default_factory=dict)
    _contrast_fingerprint: str | None = None
    _kinds: dict[str, str] = field(default_factory=dict)

    def split(self, task: str, language: str, split: Split) -> list[Example]:
        """Return the human-written texts of a split."""
        key = (task, language, split)
        if key not in self._splits:
            self._splits[key] = self.source.rows(self.suite.task(task, language), split)
        return self._splits[key]

    def by_label(self, task: str, language: str, split: Split) -> dict[str, list[Example]]:
        """Return the texts of a split by label, in the task's order of labels."""
        grouped: dict[str, list[Example]] = {label: [] for label in self.suite.task(task, language).labels}
        for row in self.split(task, language, split):
            grouped[row.label].append(row)
        return grouped

    def fingerprint(self, task: str, language: str) -> str:
        """Return the hash of all data that may decide the texts of a cell."""
        parts = [
            self.source.fingerprint(self.suite.task(task, language), ["train"]),
            self.source.vector_fingerprint(self.vector_languages, self.suite.vectors.systems),
        ]
        if self.contrast_folder:
            if self._contrast_fingerprint is None:  # of all languages: a method may fit for another than the cell's
                self._contrast_fingerprint = self.contrast_folder.fingerprint(self.vector_languages)
            parts.append(self._contrast_fingerprint)
        if self.suite.vectors.sentences is not None:
            parts.append(f"at most {self.suite.vectors.sentences} sentences")
        return digest(parts, 16)

    def scoring_fingerprint(self, task: str, language: str) -> str:
        """Return the hash of all data that may decide the scores of a cell."""
        definition = self.suite.task(task, language)
        held_out = self.source.fingerprint(definition, ["validation", "test"])
        return digest([held_out, self.fingerprint(task, language)], 16)

    @property
    def vector_languages(self) -> list[str]:
        """The suite's languages and its reference language."""
        return self.suite.vector_languages

    def demonstrations(self, task: str, language: str) -> dict[str, list[str]]:
        """Return few-shot demonstrations per label: train texts of the label, drawn as the suite says.

        The draw is the same for every method and seed (arXiv 2606.18389: five of the 50 shortest).
        Raises ``UserError`` if a label has too few texts.
        """
        rule = self.suite.few_shot
        chosen = {}
        for label, rows in self.by_label(task, language, "train").items():
            pool = sorted(rows, key=lambda row: (len(row.text), row.id))
            if rule.selection == "shortest":
                pool = pool[: rule.pool]
            if len(pool) < rule.shots:
                raise UserError(
                    f"few-shot needs {rule.shots} train texts of {label!r} ({task}, {language}); there are {len(pool)}."
                )
            draw = random.Random(f"{rule.seed}/{task}/{language}/{label}")
            chosen[label] = [row.text for row in draw.sample(pool, rule.shots)]
        return chosen

    def parallel(self, language: str) -> list[Sentence]:
        """Return the parallel sentences of a language, free of validation and test sentences."""
        if language not in self._parallel:
            ids, texts = self._held_out(language)
            rows = self.source.parallel(language)
            kept = [r for r in rows if r.id not in ids and normalise(r.text) not in texts]
            if not kept:
                raise UserError(f"no parallel text of {language!r} is left outside of test data.")
            self.dropped[language], self._parallel[language] = len(rows) - len(kept), kept
        return self._parallel[language]

    def vector_text(self, language: str) -> list[Sentence]:
        """Return the parallel sentences that vectors are made of: all, or as many as the suite says.

        Which ones depends on their ids alone, so that languages keep translations of one another.
        """
        return _chosen(self.parallel(language), self.suite.vectors.sentences)

    def language_of(self, texts: list[str]) -> str | None:
        """Return the language whose parallel text ``texts`` are, None if they are not one's that was read."""
        for code in self._parallel:
            rows = self.vector_text(code)
            if len(rows) == len(texts) and all(row.text == text for row, text in zip(rows, texts, strict=True)):
                return code
        return None

    def contrast(self, language: str) -> Contrast:
        """Return human-written sentences and their degraded versions.

        They come from the contrast folder, else from the suite's translation systems, else from word noise. Raises
        ``UserError`` if all pairs of the folder are validation or test text.
        """
        folder = self.contrast_folder
        made = folder.made(language) if folder else None
        if folder and made:
            return self._from_folder(folder, language, made.recipe_hash)
        human = self.vector_text(language)
        for system in self.suite.vectors.systems:
            translated = {row.id: row.text for row in self.source.degraded(system, language) or []}
            pairs = [(s.text, translated[s.id]) for s in human if s.id in translated]
            if pairs:
                return Contrast([good for good, _ in pairs], [bad for _, bad in pairs], f"translations:{system}")
        p = self.suite.vectors.word_noise
        noisy = [word_noise(s.text, p, f"{language}/{s.id}") for s in human]
        return Contrast([s.text for s in human], noisy, f"word-noise:{p}")

    def contrast_for_fit(self, language: str) -> Contrast:
        """Return the contrast of a language that a vector is made of; warns where it is of another kind than before."""
        found = self.contrast(language)
        kind = contrast_kind(found.source)
        if kind not in self._kinds:
            self._kinds[kind] = language
            if len(self._kinds) > 1:
                words = ", ".join(f"{name} (such as {code})" for name, code in self._kinds.items())
                warn(f"contrast text is not of one kind: {words}. Means over these languages mix them.")
        return found

    def _from_folder(self, folder: ContrastFolder, language: str, recipe: str) -> Contrast:
        ids, texts = self._held_out(language)
        pairs = folder.pairs(language)
        kept = [p for p in pairs if p.id not in ids and not {normalise(p.original), normalise(p.degraded)} & texts]
        left_out = len(pairs) - len(kept)
        kept = _chosen(kept, self.suite.vectors.sentences)
        if not kept:
            raise UserError(f"no contrast text of {language!r} in {folder.path} is left outside of test data.")
        dropped = f" ({left_out} held out)" if left_out else ""
        source = f"contrast:{folder.name}:{recipe}{dropped}"
        return Contrast([p.original for p in kept], [p.degraded for p in kept], source)

    def _held_out(self, language: str) -> tuple[set[str], set[str]]:
        ids, texts = set(), set()
        for task, by_language in self.suite.definitions.items():
            if language not in self.suite.languages or language not in by_language:
                continue
            for split in ("validation", "test"):
                for row in self.split(task, language, split):
                    ids.add(row.id)
                    texts.add(normalise(row.text))
        return ids, texts


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


_Row = TypeVar("_Row", bound=_HasId)


def _chosen(rows: list[_Row], count: int | None) -> list[_Row]:
    """Return ``count`` rows by the hash of their ids, in their order; all for None."""
    if count is None or len(rows) <= count:
        return rows
    last = sorted(digest(row.id) for row in rows)[count - 1]
    return [row for row in rows if digest(row.id) <= last]


def normalise(text: str) -> str:
    """Return the form in which two texts count as the same: NFKC, case-folded, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def word_noise(text: str, probability: float, key: str) -> str:
    """Return ``text`` with words dropped, swapped with the next one or repeated at random.

    Each word is changed with ``probability``, in one of the three ways with equal chance (arXiv 2606.18389,
    ``backtranslate_nib.py``). The noise depends on ``key``, ``text`` and ``probability`` alone. A text never becomes
    empty: if every word is dropped, it is returned as it was.
    """
    draw = random.Random(digest([key, text, probability]))
    words, noisy, i = text.split(), [], 0
    while i < len(words):
        word = words[i]
        kind = draw.choice(("drop", "swap", "repeat")) if draw.random() < probability else "keep"
        if kind == "swap" and i + 1 < len(words):
            noisy += [words[i + 1], word]
            i += 1
        elif kind == "repeat":
            noisy += [word, word]
        elif kind != "drop":
            noisy.append(word)
        i += 1
    return " ".join(noisy) or text
