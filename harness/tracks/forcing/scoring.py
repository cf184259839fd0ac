"""Scores the answers of a forcing run: in the target language, about the question, and both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

from harness.core.cells import Cell
from harness.core.errors import UserError, machine_failures
from harness.core.files import digest
from harness.core.records import CellScores, PartRecord, Score
from harness.core.threads import limit_blas_threads
from harness.runner.progress import progress_bar
from harness.scoring.harmonic import harmonic
from harness.scoring.identification import Identifier, Piece, detect_language, suite_identifier
from harness.scoring.metrics import FORCING, RELEVANCE, TARGET_SHARE
from harness.scoring.scorer import ScorerOutput
from harness.scoring.validity import MOST_OF_IT, main_language, mean_score
from harness.tracks.forcing.planning import ForcingPlan, source_of
from harness.tracks.forcing.relevance import Answer, JudgedAnswer, Relevance

VERSION = 1
"""Raised whenever what the parts are given changes; all scores are then computed again."""

TARGET = "target"
_LANGUAGE = "language:suite+neighbours|majority-of-characters|version:2"


def in_target(pieces: list[Piece], target: str) -> bool:
    """Return whether more than half of a text's characters stand in sentences of the target language."""
    total = sum(size for _, size in pieces)
    own = sum(size for code, size in pieces if code == target)
    return own > MOST_OF_IT * total


def target_share(pieces: Sequence[list[Piece]], target: str, signature: str) -> ScorerOutput:
    """Return the share of answers in the target language; its detail is what the languages' shares are.

    An answer without letters is in no language. Kept are the main language and the verdict per answer.
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
    if not known or share is None:
        note = "no answer was rated" if rated.values else "no answers"
        return [
            metric.for_provider(name).score(None, signature, note, detail=detail) for metric in (RELEVANCE, FORCING)
        ]
    mean = float(np.mean(known))
    return [
        RELEVANCE.for_provider(name).score(mean, signature, detail=detail),
        FORCING.for_provider(name).score(harmonic(share, mean), signature),
    ]


@dataclass
class ForcingScorer:
    """Scores the cells of a forcing run part by part; what is scored by the same recipe stays."""

    forcing: ForcingPlan
    relevance: Sequence[Relevance]
    console: Console
    _identifier: Identifier | None = None
    _protocol: str = field(init=False)

    def __post_init__(self) -> None:
        suite, corpus = self.forcing.base.suite, self.forcing.base.corpus
        read = corpus.source.vector_fingerprint(corpus.vector_languages, suite.vectors.systems)
        size = suite.metrics.language_fidelity.texts_per_language
        self._protocol = digest([VERSION, size, read, self.forcing.questions.digest], 16)

    def run(self) -> int:
        """Score every generated cell that lacks a score; return how many were scored."""
        prepared = self.forcing.prepared
        done = [cell for cell in prepared.cells if prepared.run.finished(cell.id)]
        jobs = [(cell, old, missing) for cell in done for old, missing in [self._missing(cell)] if missing]
        if jobs:
            with limit_blas_threads(), progress_bar(self.console, "score", len(jobs)) as tracker:
                for cell, old, missing in jobs:
                    with machine_failures(f"scoring {cell.title}"):
                        self._one(cell, old, missing)
                    tracker.finish_cell(cell.title)
        return len(jobs)

    def _missing(self, cell: Cell) -> tuple[CellScores | None, list[str]]:
        """Return the stored scores where they are of these texts and this protocol, and what they lack."""
        run = self.forcing.prepared.run
        old = run.scores(cell.id)
        if old and (old.protocol, old.generations_sha256) != (
            self._protocol,
            run.generations_digest(cell.id),
        ):
            old = None
        if old and run.lost(old):
            old = None
        have = {name: part.signature for name, part in old.parts.items()} if old else {}
        wanted = {TARGET: _LANGUAGE, **{_part(one): one.signature for one in self.relevance}}
        return old, [name for name, signature in wanted.items() if have.get(name) != signature]

    def _one(self, cell: Cell, old: CellScores | None, missing: Sequence[str]) -> None:
        run = self.forcing.prepared.run
        answers, pieces = self._answers(cell)
        language = target_share(pieces, cell.key.language, self._known_by().signature)
        share = language.scores[0].value
        found = {TARGET: (_LANGUAGE, language)}
        for one in self.relevance:
            if _part(one) in missing:
                rated = one.rate(answers)
                scores = relevance_scores(rated, share, one.name, one.signature)
                found[_part(one)] = (one.signature, ScorerOutput(scores, {"rating": rated.values, **rated.kept}))
        stale = {metric for name in found if old and name in old.parts for metric in old.parts[name].metrics}
        kept = run.text_checks(cell.id) if old else {}
        record = CellScores(
            cell_id=cell.id,
            generations_sha256=run.generations_digest(cell.id),
            protocol=self._protocol,
            parts={**(old.parts if old else {}), **{name: _record(*part) for name, part in found.items()}},
            scores=[
                *(score for score in (old.scores if old else []) if score.metric not in stale),
                *(score for _, scored in found.values() for score in scored.scores),
            ],
        )
        run.write_scores(record, {**kept, **{name: scored.artifacts for name, (_, scored) in found.items()}})

    def _answers(self, cell: Cell) -> tuple[list[Answer], list[list[Piece]]]:
        """Return the answers of a cell, and their sentences as languages and sizes."""
        key, prepared = cell.key, self.forcing.prepared
        generations = prepared.run.generations(cell.id)
        asked = prepared.suite.task(key.task, key.language).labels
        if [row.label for row in generations] != asked:
            raise UserError(
                f"{prepared.run.cell(cell.id)} does not hold an answer to each of {len(asked)} questions. "
                "Delete this folder and run the same command again."
            )
        source, questions = source_of(key.task), self.forcing.questions
        pieces = detect_language(self._known_by(), [row.text for row in generations], key.language)
        answers = [
            Answer(row.text, questions.id_of(row.label, source), source, key.language, main_language(found))
            for row, found in zip(generations, pieces, strict=True)
        ]
        return answers, pieces

    def _known_by(self) -> Identifier:
        """Return what tells languages apart: trained on the suite's own text, when it is first needed."""
        if self._identifier is None:
            self._identifier = suite_identifier(self.forcing.base.suite, self.forcing.base.corpus)
        return self._identifier


def _part(one: Relevance) -> str:
    return f"{RELEVANCE.name}/{one.name}"


def _record(signature: str, scored: ScorerOutput) -> PartRecord:
    return PartRecord(signature=signature, metrics=[score.metric for score in scored.scores])
