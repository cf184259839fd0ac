"""Score the answers of a forcing run: in the target language, about the question, and both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.records import Score, State
from harness.runner.prepare import RunOptions
from harness.runner.score import ScoringStage
from harness.scoring.identification import Piece, detect_language, suite_identifier
from harness.scoring.metrics import FORCING, RELEVANCE, TARGET_SHARE, harmonic
from harness.scoring.scorer import Scorer, ScorerOutput, ScoringContext, TextSample
from harness.scoring.validity import MOST_OF_IT, main_language, mean_score
from harness.tracks.forcing.planning import ForcingPlan, source_of
from harness.tracks.forcing.relevance import Answer, JudgedAnswer, Relevance, scoring_context

VERSION = 1
"""Raised whenever the input of a scorer changes; all scores are then computed again."""


@dataclass(frozen=True)
class AnswerSample(TextSample):
    """The answers of a cell; ``target``: the score of their languages."""

    answers: Sequence[Answer]
    target: ScorerOutput


def in_target(pieces: list[Piece], target: str) -> bool:
    """Return whether more than half of a text's characters are in sentences of the target language."""
    total = sum(size for _, size in pieces)
    own = sum(size for code, size in pieces if code == target)
    return own > MOST_OF_IT * total


def target_share(pieces: Sequence[list[Piece]], target: str, signature: str) -> ScorerOutput:
    """Return the share of answers in the target language, with the shares of all languages as its detail.

    An answer without letters is in no language. Kept: the main language of every answer, and whether it counts.
    """
    languages = [main_language(row) for row in pieces]
    hits = [in_target(row, target) for row in pieces]
    shares = {code: [float(code == found) for found in languages] for code in sorted({*languages} - {""})}
    score = mean_score(TARGET_SHARE, [float(hit) for hit in hits], signature, shares)
    return ScorerOutput([score], {"language": languages, "in_target": hits})


def relevance_scores(rated: JudgedAnswer, share: float | None, name: str, signature: str) -> list[Score]:
    """Return the mean rating of a cell's answers, and its harmonic mean with the share in the language."""
    known = [value for value in rated.values if value is not None]
    detail = {**rated.detail, "texts": float(len(known))}
    relevance, forcing = (metric.for_provider(name) for metric in (RELEVANCE, FORCING))
    if not known or share is None:
        note = "no answer was rated" if rated.values else "no answers"
        return [metric.score(None, signature, note, detail=detail) for metric in (relevance, forcing)]
    mean = float(np.mean(known))
    return [relevance.score(mean, signature, detail=detail), forcing.score(harmonic(share, mean), signature)]


@dataclass
class AnswerScorer:
    """A scorer of answers: of their relevance, or (without ``relevance``) of their language."""

    name: str
    signature: str
    relevance: Relevance | None = None
    human: bool = False

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return the scores of the answers of one cell."""
        assert isinstance(sample, AnswerSample)
        if self.relevance is None:
            return sample.target
        rated = self.relevance.rate(sample.answers)
        scores = relevance_scores(rated, sample.target.scores[0].value, self.relevance.name, self.signature)
        return ScorerOutput(scores, {"rating": rated.values, **rated.kept})


def answer_scorers(relevance: Sequence[Relevance]) -> list[Scorer]:
    """Return the scorers of a forcing run: of the target language, and one per scorer of relevance."""
    return [
        AnswerScorer("target", "language:suite+neighbours|majority-of-characters|version:2"),
        *(AnswerScorer(f"{RELEVANCE.name}/{one.name}", one.signature, one) for one in relevance),
    ]


@dataclass
class ForcingScorer(ScoringStage):
    """Scores the answers of a forcing run."""

    plan: ForcingPlan

    @override
    def protocol(self, cell: Cell) -> str:
        return self._protocol

    @cached_property
    def _protocol(self) -> str:
        suite, corpus = self.plan.base.suite, self.plan.base.corpus
        read = corpus.source.vector_fingerprint(corpus.vector_languages, suite.vectors.systems)
        size = suite.metrics.language_fidelity.texts_per_language
        return digest([VERSION, size, read, self.plan.questions.digest], 16)

    @override
    def context(self, cell: Cell) -> ScoringContext:
        return scoring_context(cell.key.language, [])

    @override
    def sample(self, cell: Cell, context: ScoringContext, valid: list[bool] | None) -> AnswerSample:
        """Return the answers of a cell, with the language that each is in."""
        key, run, base = cell.key, self.plan.run, self.plan.base
        generations = run.generations(cell.id)
        asked = self.plan.suite.task(key.task, key.language).labels
        labels = [row.label for row in generations]
        if labels != asked:
            raise UserError(
                f"{run.cell(cell.id)} does not hold an answer to each of {len(asked)} questions. "
                "Delete this folder and run the same command again."
            )
        source, texts = source_of(key.task), [row.text for row in generations]
        identifier = suite_identifier(base.suite, base.corpus)
        pieces = detect_language(identifier, texts, key.language)
        answers = [
            Answer(row.text, self.plan.questions.id_of(row.label, source), source, key.language, main_language(found))
            for row, found in zip(generations, pieces, strict=True)
        ]
        found = target_share(pieces, key.language, identifier.signature)
        return AnswerSample(texts, labels, np.ones(len(texts), dtype=bool), answers, found)


def run_forcing(
    plan: ForcingPlan, relevance: Sequence[Relevance], options: RunOptions, console: Console
) -> dict[State, int]:
    """Fit, generate and score every open cell; return the number of cells by state.

    Raises ``UserError`` where the folder holds another run.
    """
    from harness.runner.generate import run_stages  # loads the engine

    return run_stages(replace(plan, parts=answer_scorers(relevance)), options, console, ForcingScorer)
