"""The texts that no model writes: what references draw for a cell, and the human text that its scores need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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
    labels, number = suite.task(key.task, key.language).labels, key.texts_per_label
    context = ReferenceContext(
        suite=suite,
        task=suite.task(key.task, key.language),
        setting=key.setting,
        seed=key.seed,
        texts_per_label=number,
        _corpus=corpus,
        rng=np.random.default_rng(int(digest(axes), 16)),
    )
    drawn = reference.texts(context)
    found = {label: len(texts) for label, texts in drawn.items()}
    if found != dict.fromkeys(labels, number):
        raise UserError(f"reference {reference.name!r} gave {found}, not {number} each.")
    for label, texts in drawn.items():
        for text in texts:
            if not isinstance(text, str) or has_lone_surrogate(text):
                raise UserError(f"reference {reference.name!r} gave {text!r:.80} for {label!r}, which is not a text.")
    return {label: list(drawn[label]) for label in labels}  # a plug-in's dict may have another order


@dataclass
class ReferenceTexts:
    """The human text that scores need; that of one task and language is kept."""

    suite: Suite
    corpus: Corpus
    _last: ScoringContext | None = None
    _curve: tuple[tuple[str, str, int], TextSample | None] | None = None

    def context(self, task: str, language: str) -> ScoringContext:
        """Return the human text of a task and language."""
        if self._last is None or (self._last.task, self._last.language) != (task, language):
            self._last = self._read(task, language)
        return self._last

    def human(self, key: CellKey) -> TextSample | None:
        """Return the texts that the row ``human`` has for a cell's task, language, seed and number.

        None where the train split is too small.
        """
        drawn = _unless_too_small(lambda: reference_texts(Human(), key, self.suite, self.corpus))
        if drawn is None:
            return None
        rows = [(text, label) for label, group in drawn.items() for text in group]
        return TextSample([t for t, _ in rows], [label for _, label in rows], np.ones(len(rows), dtype=bool))

    def curve(self, key: CellKey) -> TextSample | None:
        """Return the human texts for the curves of cells of a task, language and seed; None where there are too few.

        They are drawn as the row ``human`` draws them, of the largest number in the curve that the train split has.
        Cells with fewer texts have the same ones.
        """
        settings, place = self.suite.metrics.curve, (key.task, key.language, key.seed)
        if settings is None:
            return None
        if self._curve is None or self._curve[0] != place:
            numbers = sorted({*settings.sizes, settings.human} - {0}, reverse=True)
            drawn = (self.human(key.model_copy(update={"texts_per_label": number})) for number in numbers)
            self._curve = place, next((sample for sample in drawn if sample), None)
        return self._curve[1]

    def demonstrations(self, task: str, language: str) -> dict[str, list[str]]:
        """Return label -> the texts that few-shot prompts show; none where the train split is too small for that."""
        return _unless_too_small(lambda: self.corpus.demonstrations(task, language)) or {}

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
            demonstrations=self.demonstrations(task, language),
        )


Drawn = TypeVar("Drawn")


def _unless_too_small(draw: Callable[[], Drawn]) -> Drawn | None:
    """Return the result of ``draw``, None where there is too little text; broken files still raise."""
    try:
        return draw()
    except (BrokenFileError, MachineError):
        raise
    except UserError:
        return None


def _rows(examples: list[Example]) -> list[tuple[str, str]]:
    return [(row.text, row.label) for row in examples]
