"""What every part of the scoring is given and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score

Rows = Sequence[tuple[str, str]]
"""Texts with their labels."""


@dataclass(frozen=True)
class ScoringContext:
    """The human text of one task and language, by role, and what the model was asked there.

    ``test`` is the split that the suite scores on; ``examples`` is a digest of its ids in their order: test
    sets with equal digests hold translations of one another. ``vectors``: text that vectors are made of,
    human and degraded. ``prompts``: label -> the suite's zero-shot prompt. ``demonstrations``: label -> what
    a few-shot prompt shows.
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


@dataclass(frozen=True)
class TextSample:
    """The texts of a cell and their labels. ``valid``: which of them pass every check of validity."""

    texts: Sequence[str]
    labels: Sequence[str]
    valid: NDArray[np.bool_]

    def subset(self, mask: NDArray[np.bool_]) -> TextSample:
        """Return the texts where ``mask`` is true."""
        chosen = [int(i) for i in np.flatnonzero(mask)]
        return TextSample([self.texts[i] for i in chosen], [self.labels[i] for i in chosen], self.valid[chosen])


@dataclass(frozen=True)
class ScorerOutput:
    """What a part found: scores, and JSON that is kept beside them per text or per test example."""

    scores: list[Score]
    artifacts: dict[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """A part of the scoring: one idea, a few metrics.

    ``signature``: everything but texts and data that decides its values. ``human``: whether the same scores
    of human text stand beside (``Score.human``).
    """

    name: str
    signature: str
    human: bool

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """Return the scores of the texts of one cell."""
        ...
