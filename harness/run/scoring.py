"""The score stage: scores what is not yet scored, by the suite's protocol, from files alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from harness.cells import Cell
from harness.corpus import Corpus
from harness.errors import UserError
from harness.files import digest
from harness.records import CellScores, Score
from harness.run.options import Prepared
from harness.run.progress import track
from harness.scoring.classifiers import Classifier, Human
from harness.scoring.metrics import macro_f1

VERSION = 1
"""Raised whenever a score's definition changes; older scores are then computed again."""


def _one_blas_thread() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits


@dataclass
class Scorer:
    """Scores the cells of a run; keeps the identifier and the human text of one task at hand."""

    prepared: Prepared
    console: Console
    _identifier: Any = None
    _human: dict[tuple[str, str], Human] = field(default_factory=dict)

    def run(self) -> int:
        """Score every generated cell that lacks a score; return how many were scored."""
        jobs = []
        for cell in self.prepared.cells:
            if self.prepared.run.finished(cell.id):
                old = self._valid(cell)
                missing = self._missing(old)
                if old is None or missing:
                    jobs.append((cell, old, missing))
        jobs.sort(key=lambda job: (job[0].key.task, job[0].key.language))
        if jobs:
            # The matrices are small: more threads of BLAS only wait for one another.
            with _one_blas_thread(), track(self.console, "score", len(jobs)) as tracker:
                for cell, old, missing in jobs:
                    self._one(cell, old, missing)
                    tracker.finish_cell(cell.title)
        return len(jobs)

    def _protocol(self, cell: Cell) -> str:
        """Hash of what decides a cell's scores, the classifiers aside: these have signatures."""
        data = self.prepared.corpus.scoring_fingerprint(cell.key.task, cell.key.language)
        suite = self.prepared.suite
        return digest([VERSION, suite.metrics.model_dump(), suite.scored_split, data], 16)

    def _valid(self, cell: Cell) -> CellScores | None:
        """Return the stored scores if they are of these texts, by this protocol, on this data."""
        scores = self.prepared.run.scores(cell.id)
        if scores is None or scores.protocol != self._protocol(cell):
            return None
        texts = self.prepared.run.generations_digest(cell.id)
        return scores if scores.generations_sha256 == texts else None

    def _missing(self, old: CellScores | None) -> list[Classifier]:
        """Return the classifiers that the stored scores lack, by name and recipe."""
        have = {(score.metric, score.signature) for score in old.scores} if old else set()
        return [
            classifier
            for classifier in self.prepared.classifiers
            if (macro_f1(classifier.name).name, classifier.signature) not in have
        ]

    def _one(self, cell: Cell, old: CellScores | None, missing: list[Classifier]) -> None:
        from harness.scoring.downstream import downstream

        run, key = self.prepared.run, cell.key
        generations = run.generations(cell.id)
        human = self._human_text(key.task, key.language)
        if len(generations) != key.texts_per_label * len(human.labels):
            raise UserError(
                f"{run.cell(cell.id)} holds {len(generations)} texts, not {key.texts_per_label} for each "
                f"of {len(human.labels)} labels. Delete this folder and run the same command again."
            )
        scores = list(old.scores) if old else self._text_scores(cell)
        predictions = run.predictions(cell.id) if old else {}
        for classifier in missing:
            score, found = downstream(generations, human, classifier)
            scores = [s for s in scores if s.metric != score.metric] + [score]
            predictions[classifier.name] = found
        record = CellScores(
            cell_id=cell.id,
            generations_sha256=run.generations_digest(cell.id),
            protocol=self._protocol(cell),
            scores=scores,
        )
        run.write_scores(record, predictions)

    def _text_scores(self, cell: Cell) -> list[Score]:
        """Return the scores that need no classifier of labels."""
        from harness.scoring.diversity import distinct_2, self_chrf

        texts = [row.text for row in self.prepared.run.generations(cell.id)]
        settings = self.prepared.suite.metrics
        return [
            distinct_2(texts, settings.distinct_2),
            self_chrf(texts, settings.self_chrf),
            self._languages().fidelity(texts, cell.key.language),
        ]

    def _languages(self) -> Any:
        if self._identifier is None:
            from harness.scoring.validity import LanguageIdentifier

            corpus: Corpus = self.prepared.corpus
            size = self.prepared.suite.metrics.language_fidelity.texts_per_language
            self._identifier = LanguageIdentifier(
                {
                    code: [sentence.text for sentence in corpus.parallel(code)[:size]]
                    for code in corpus.vector_languages
                }
            )
        return self._identifier

    def _human_text(self, task: str, language: str) -> Human:
        if (task, language) not in self._human:
            corpus, scored = self.prepared.corpus, self.prepared.suite.scored_split
            self._human.clear()  # cells come sorted: one task and language at a time
            self._human[task, language] = Human(
                labels=self.prepared.suite.task(task, language).labels,
                validation=[(r.text, r.label) for r in corpus.split(task, language, "validation")],
                test=[(r.text, r.label) for r in corpus.split(task, language, scored)],
            )
        return self._human[task, language]
