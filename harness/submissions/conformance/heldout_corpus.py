"""The text of the bench: read before any method runs, so that every later look at test text is a method's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.data.corpus import Corpus
from harness.data.sources import DataSource, Example, Sentence, open_data
from harness.data.suite import Split, Suite, Task
from harness.submissions.conformance.sandbox import Sandbox

HELD_OUT: tuple[Split, ...] = ("validation", "test")


@dataclass
class WatchedCorpus(Corpus):
    """A corpus that notes who asks for a held-out split."""

    watch: Sandbox | None = None

    def split(self, task: str, language: str, split: Split) -> list[Example]:
        """Return the human texts of one split."""
        if self.watch is not None and split in HELD_OUT:
            self.watch.held_out.append(f"{task}/{language}/{split}")
        return self.known(task, language, split)

    def known(self, task: str, language: str, split: Split) -> list[Example]:
        """Return the texts of a split without a note: for the kit itself."""
        return super().split(task, language, split)


class Replaced(DataSource):
    """A source whose validation and test texts are other strings."""

    def __init__(self, source: DataSource) -> None:
        self.source, self.description, self.revisions = source, source.description, source.revisions

    def rows(self, task: Task, split: Split) -> list[Example]:
        """Return the labelled texts of a split."""
        rows = self.source.rows(task, split)
        return _others(rows) if split in HELD_OUT else rows

    def parallel(self, language: str) -> list[Sentence]:
        """Return human parallel sentences of a language."""
        return self.source.parallel(language)

    def degraded(self, system: str, language: str) -> list[Sentence] | None:
        """Return a system's translations of the parallel sentences."""
        return self.source.degraded(system, language)

    def fingerprint(self, task: Task, splits: Sequence[Split]) -> str:
        """Return the hash of the true text, so that the fit is seeded as before."""
        return self.source.fingerprint(task, splits)

    def vector_fingerprint(self, languages: Sequence[str], systems: Sequence[str]) -> str:
        """Return the hash of the true text, so that the fit is seeded as before."""
        return self.source.vector_fingerprint(languages, systems)


def watched_corpus(suite: Suite, watch: Sandbox) -> WatchedCorpus:
    """Return the suite's text with every split and all vector text read in advance."""
    corpus = WatchedCorpus(suite, open_data(suite, None))
    for task in suite.tasks:
        for language in suite.languages:
            for split in ("train", *HELD_OUT):
                corpus.split(task, language, split)
    for language in corpus.vector_languages:
        corpus.parallel(language)
    corpus.watch = watch
    return corpus


def with_other_held_out_text(corpus: WatchedCorpus) -> WatchedCorpus:
    """Return the same text but for validation and test, which hold other strings.

    The vector text stays, also where it was chosen by what the true held-out text is.
    """
    splits = {key: _others(rows) if key[2] in HELD_OUT else rows for key, rows in corpus._splits.items()}
    return replace(corpus, source=Replaced(corpus.source), _splits=splits)


def _others(rows: list[Example]) -> list[Example]:
    return [replace(row, text=f"{i} {row.text[::-1]}") for i, row in enumerate(rows)]
