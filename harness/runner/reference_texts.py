"""The human text that scores need, by task and language, and the human sample that stands beside a cell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.core.errors import BrokenFileError, MachineError, UserError
from harness.core.files import digest
from harness.core.reading import has_lone_surrogate
from harness.core.records import CellKey
from harness.data.corpus import Corpus
from harness.data.prompts import suite_prompt
from harness.data.sources import Example
from harness.data.suite import Suite
from harness.methods.contract import Reference, ReferenceContext
from harness.methods.references import Human
from harness.scoring.scorer import ScoringContext, TextSample


def reference_texts(reference: Reference, key: CellKey, suite: Suite, corpus: Corpus) -> dict[str, list[str]]:
    """Return what a reference draws for a cell: label -> texts, in the task's order of labels.

    Equal keys give equal draws. Raises ``UserError`` where labels, numbers or texts are not as asked for.
    """
    axes = ["reference", reference.name, key.task, key.language, key.seed]
    context = ReferenceContext(
        suite=suite,
        task=suite.task(key.task, key.language),
        setting=key.setting,
        seed=key.seed,
        texts_per_label=key.texts_per_label,
        _corpus=corpus,
        rng=np.random.default_rng(int(digest(axes), 16)),
    )
    return _checked(reference, reference.texts(context), context)


def _checked(reference: Reference, drawn: dict[str, list[str]], context: ReferenceContext) -> dict[str, list[str]]:
    """Return a plug-in's texts in the order that all files have, whatever the order of its dict."""
    found = {label: len(texts) for label, texts in drawn.items()}
    if found != dict.fromkeys(context.task.labels, context.texts_per_label):
        raise UserError(f"reference {reference.name!r} gave {found}, not {context.texts_per_label} each.")
    for label, texts in drawn.items():
        for text in texts:
            if not isinstance(text, str) or has_lone_surrogate(text):
                raise UserError(f"reference {reference.name!r} gave {text!r:.80} for {label!r}, which is not a text.")
    return {label: list(drawn[label]) for label in context.task.labels}


def sample_of(texts: dict[str, list[str]]) -> TextSample:
    """Return texts by label as a sample in which nothing is checked yet."""
    rows = [(text, label) for label, group in texts.items() for text in group]
    return TextSample([t for t, _ in rows], [label for _, label in rows], np.ones(len(rows), dtype=bool))


@dataclass
class ReferenceTexts:
    """Human text by task and language, read when it is first asked for; one place at a time is kept."""

    suite: Suite
    corpus: Corpus
    _place: dict[tuple[str, str], ScoringContext] = field(default_factory=dict)

    def place(self, task: str, language: str) -> ScoringContext:
        """Return the human text of a task and language; cells come sorted, so the last one is kept."""
        if (task, language) not in self._place:
            self._place.clear()
            self._place[task, language] = self._read(task, language)
        return self._place[task, language]

    def human(self, key: CellKey) -> TextSample | None:
        """Return human train text of a cell's task, language, seed and number, as the row ``human`` has it.

        None where the train split is too small.
        """
        try:
            return sample_of(reference_texts(Human(), key, self.suite, self.corpus))
        except (BrokenFileError, MachineError):
            raise
        except UserError:
            return None

    def _read(self, task: str, language: str) -> ScoringContext:
        definition, corpus = self.suite.task(task, language), self.corpus
        test = corpus.split(task, language, self.suite.scored_split)
        contrast = corpus.contrast(language)
        vectors = [row.text for row in corpus.parallel(language)]
        return ScoringContext(
            task=task,
            language=language,
            labels=definition.labels,
            train=_rows(corpus.split(task, language, "train")),
            validation=_rows(corpus.split(task, language, "validation")),
            test=_rows(test),
            examples=digest([row.id for row in test], 16),
            vectors=list(dict.fromkeys([*vectors, *contrast.good, *contrast.bad])),
            prompts={label: suite_prompt(definition, "zero-shot", label).user for label in definition.labels},
            demonstrations=self._demonstrations(task, language),
        )

    def _demonstrations(self, task: str, language: str) -> dict[str, list[str]]:
        try:
            return self.corpus.demonstrations(task, language)
        except (BrokenFileError, MachineError):
            raise
        except UserError:  # too little train text for few-shot: then there was none
            return {}


def _rows(examples: list[Example]) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in examples]
