"""The scorer contract: what every scorer is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.metrics import metric

Rows = Sequence[tuple[str, str]]
"""Texts with their labels."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class ScoringContext:
    """The human-written text of one task and language, by role, and the prompts of the suite.

    ``test`` is the split that the suite scores on; ``examples`` is a digest of its ids in order: test sets with
    equal digests are translations of one another. ``vectors``: text that vectors are made of, human and degraded.
    ``prompts``: label -> zero-shot prompt. ``demonstrations``: label -> what a few-shot prompt shows.
    """

    task: str
    language: str
    labels: list[str]
    train: Rows
    validation: Rows
    test: Rows
    examples: str
    vectors: Sequence[str]
    prompts: Mapping[str, str]
    demonstrations: Mapping[str, Sequence[str]]


class PerContext(Generic[Value]):
    """What is made from a scoring context, kept for the last one: cells come sorted by task and language."""

    def __init__(self, make: Callable[[ScoringContext], Value]) -> None:
        self._make = make
        self._last: tuple[ScoringContext, Value] | None = None

    def __call__(self, context: ScoringContext) -> Value:
        """Return the value of ``context``, made on first use."""
        if self._last is None or self._last[0] is not context:
            self._last = context, self._make(context)
        return self._last[1]


@dataclass(frozen=True)
class TextSample:
    """The texts of a cell and their labels. ``valid``: which of them pass every validity check.

    ``human``: human train texts of the same task, language and seed, as many as a curve needs or as there are.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    valid: NDArray[np.bool_]
    human: TextSample | None = field(default=None, kw_only=True)

    def subset(self, mask: NDArray[np.bool_]) -> TextSample:
        """Return the texts where ``mask`` is true."""
        chosen = [int(i) for i in np.flatnonzero(mask)]
        return TextSample([self.texts[i] for i in chosen], [self.labels[i] for i in chosen], self.valid[chosen])


@dataclass(frozen=True)
class ScorerOutput:
    """Scores, and JSON that is stored next to them per text or per test example."""

    scores: list[Score]
    artifacts: dict[str, Any] = field(default_factory=dict)


def scores_of_all_and_valid(sample: TextSample, score: Callable[[Sequence[str]], list[Score]]) -> list[Score]:
    """Return the scores of all texts, then those of the valid ones under their own names."""
    whole = score(sample.texts)
    valid = whole if sample.valid.all() else score(sample.subset(sample.valid).texts)
    return [*whole, *(one.model_copy(update={"metric": metric(one.metric).on_valid_texts.name}) for one in valid)]


class Scorer(Protocol):
    """One idea, a few metrics.

    ``signature``: everything but texts and data that decides the values. ``human``: whether the scores of
    human-written text are reported next to them (``Score.human``).
    """

    name: str
    signature: str
    human: bool

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return the scores of the texts of one cell."""
        ...
