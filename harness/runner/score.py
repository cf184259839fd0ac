"""The score stage: scores what is not yet scored, by the suite's protocol, from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from harness.core.cells import Cell
from harness.core.errors import DamagedFileError, UserError, machine_failures
from harness.core.files import digest
from harness.core.records import CellScores, PartRecord, Score
from harness.core.store import KEPT, kept_in
from harness.runner.prepare import RunPlan
from harness.runner.progress import progress_bar
from harness.runner.reference_texts import ReferenceTexts
from harness.scoring.scorer import Scorer, ScorerOutput, ScoringContext, TextSample
from harness.scoring.validity import ValidityScorer

VERSION = 2
"""Raised whenever what a part is given changes; all scores are then computed again."""


VALIDITY = "validity"
"""The part that decides which texts are valid; the others depend on it."""


def _one_blas_thread() -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits


@dataclass
class ScoringStage:
    """Scores the cells of a run part by part; keeps what one task and language need at hand."""

    prepared: RunPlan
    console: Console
    _places: ReferenceTexts = field(init=False)
    _human: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    _protocols: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = ReferenceTexts(self.prepared.suite, self.prepared.corpus)

    def run(self) -> int:
        """Score every generated cell that lacks a score; return how many were scored.

        Raises ``DamagedFileError`` at the end for cells whose texts are not what was written.
        """
        jobs, damaged = [], []
        for cell in self.prepared.cells:
            if self.prepared.run.finished(cell.id):
                old = self._valid(cell)
                missing = self._missing(old)
                if any(part.name == VALIDITY for part in missing):
                    old = None
                missing += self._to_rebuild(old, missing)
                if missing:
                    jobs.append((cell, old, missing))
            elif words := self.prepared.run.damage(cell.id):
                damaged.append(words)
        jobs.sort(key=lambda job: (job[0].key.task, job[0].key.language, job[0].key.seed))
        if jobs:
            # The matrices are small: more threads of BLAS only wait for one another.
            with _one_blas_thread(), progress_bar(self.console, "score", len(jobs)) as tracker:
                for cell, old, missing in jobs:
                    with machine_failures(f"scoring {cell.title}"):
                        self._one(cell, old, missing)
                    tracker.finish_cell(cell.title)
        if damaged:
            more = f" (and {len(damaged) - 1} more cells)" if len(damaged) > 1 else ""
            raise DamagedFileError(
                f"{damaged[0]}{more}. Repeat the 'steerboard run' command: what is missing is written again."
            )
        return len(jobs)

    def _to_rebuild(self, old: CellScores | None, missing: Sequence[Scorer]) -> list[Scorer]:
        """Return the parts beside ``missing`` whose scores are there, but not what they kept."""
        lost = self.prepared.run.lost(old) if old else set()
        return [
            part
            for part in self.prepared.parts
            if old and kept_in(part.name) in lost and part.name in old.parts and part not in missing
        ]

    def _protocol(self, cell: Cell) -> str:
        """Hash of what decides a cell's scores, the recipes of the parts aside."""
        task, language = cell.key.task, cell.key.language
        if (task, language) not in self._protocols:
            data = self.prepared.corpus.scoring_fingerprint(task, language)
            suite = self.prepared.suite
            shown = [suite.scored_split, suite.few_shot.model_dump(), suite.task(task, language).prompts]
            settings = suite.metrics.model_dump(exclude={"embeddings"})
            self._protocols[task, language] = digest([VERSION, settings, shown, data], 16)
        return self._protocols[task, language]

    def _valid(self, cell: Cell) -> CellScores | None:
        """Return the stored scores if they are of these texts, by this protocol, on this data."""
        scores = self.prepared.run.scores(cell.id)
        if scores is None or scores.protocol != self._protocol(cell):
            return None
        texts = self.prepared.run.generations_digest(cell.id)
        return scores if scores.generations_sha256 == texts else None

    def _missing(self, old: CellScores | None) -> list[Scorer]:
        """Return the parts that the stored scores lack, by name and recipe.

        All of them where validity is among these: it decides which texts the others call valid.
        """
        have = {name: part.signature for name, part in old.parts.items()} if old else {}
        parts = self.prepared.parts
        missing = [part for part in parts if have.get(part.name) != part.signature]
        return list(parts) if any(part.name == VALIDITY for part in missing) else missing

    def _one(self, cell: Cell, old: CellScores | None, missing: Sequence[Scorer]) -> None:
        run, key = self.prepared.run, cell.key
        place = self._places.place(key.task, key.language)
        scores = list(old.scores) if old else []
        parts = dict(old.parts) if old else {}
        lost = run.lost(old) if old else set(KEPT)
        kept = {
            **({} if KEPT[0] in lost else run.predictions(cell.id)),
            **({} if KEPT[1] in lost else run.text_checks(cell.id)),
        }
        sample = self._sample(cell, place, kept.get(VALIDITY, {}).get("valid"))
        for part in missing:
            found = part.score(sample, place)
            stale = {*(parts[part.name].metrics if part.name in parts else ())}
            scores = [s for s in scores if s.metric not in stale] + self._beside(cell, part, found, place)
            parts[part.name] = PartRecord(signature=part.signature, metrics=[score.metric for score in found.scores])
            kept.pop(part.name, None)
            kept |= {part.name: found.artifacts} if found.artifacts else {}
        order = {score.metric: i for i, score in enumerate(old.scores if old else [])}
        scores.sort(key=lambda score: order.get(score.metric, len(order)))  # what is rebuilt keeps its index
        record = CellScores(
            cell_id=cell.id,
            generations_sha256=run.generations_digest(cell.id),
            protocol=self._protocol(cell),
            parts=parts,
            scores=scores,
        )
        run.write_scores(record, kept)

    def _sample(self, cell: Cell, place: ScoringContext, valid: list[bool] | None) -> TextSample:
        """Return the texts of a cell; ``valid``: what an earlier check of the same texts found."""
        run, key = self.prepared.run, cell.key
        generations = run.generations(cell.id)
        if len(generations) != key.texts_per_label * len(place.labels):
            raise UserError(
                f"{run.cell(cell.id)} holds {len(generations)} texts, not {key.texts_per_label} for each "
                f"of {len(place.labels)} labels. Delete this folder and run the same command again."
            )
        texts, labels = [g.text for g in generations], [g.label for g in generations]
        if valid is None:
            return self._checked(texts, labels, place)
        return TextSample(texts, labels, np.array(valid, dtype=bool))

    def _checked(self, texts: Sequence[str], labels: Sequence[str], place: ScoringContext) -> TextSample:
        """Return texts with the mask of those that pass the checks of validity."""
        validity = next(part for part in self.prepared.parts if isinstance(part, ValidityScorer))
        return TextSample(texts, labels, validity.check(texts, labels, place)[0])

    def _beside(self, cell: Cell, part: Scorer, found: ScorerOutput, place: ScoringContext) -> list[Score]:
        """Return scores with the value of human text beside each, where the part is compared with that."""
        if not part.human:
            return found.scores
        human = self._of_human(cell, part, place)
        return [score.model_copy(update={"human": human.get(score.metric)}) for score in found.scores]

    def _of_human(self, cell: Cell, part: Scorer, place: ScoringContext) -> dict[str, float]:
        """Return a part's values of human text of the same task, language, seed and number."""
        key = cell.key
        name = (part.name, key.task, key.language, key.seed, key.texts_per_label)
        if name not in self._human:
            self._human = {known: v for known, v in self._human.items() if known[1:] == name[1:]}
            drawn = self._places.human(key)
            scores = part.score(self._checked(drawn.texts, drawn.labels, place), place).scores if drawn else []
            self._human[name] = {s.metric: s.value for s in scores if s.value is not None}
        return self._human[name]
