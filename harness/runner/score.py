"""The score stage: score what has no score yet, by the suite's protocol, from files alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console

from harness.core.cells import Cell
from harness.core.errors import DamagedFileError, MachineError, UserError, machine_failures
from harness.core.files import digest
from harness.core.records import CellScores, PartRecord, Score
from harness.core.store import CLASSIFIER, CURVE, KEPT, Run, kept_in
from harness.core.threads import allowed_threads, limit_blas_threads
from harness.data.contrast import ContrastFolder
from harness.data.corpus import Corpus
from harness.data.sources import DataSource
from harness.data.suite import Suite
from harness.runner.claims import POLL, Claims
from harness.runner.event_log import log_event, logged_stage
from harness.runner.human_text import ReferenceTexts
from harness.runner.prepare import RunPlan
from harness.runner.progress import Tracker, progress_bar
from harness.runner.workers import Outcome, run_in_workers, start_server
from harness.scoring.scorer import Scorer, ScorerOutput, ScoringContext, TextSample
from harness.scoring.scorers import build_scorers, scorers_of
from harness.scoring.validity import ValidityScorer

VERSION = 2
"""Raised whenever the input of a scorer changes; all scores are then computed again."""

VALIDITY = "validity"
"""The scorer that decides which texts are valid; the others depend on it."""


def _place(cell: Cell) -> tuple[str, str]:
    """Return what decides the human-written text that a cell's scores need."""
    return cell.key.task, cell.key.language


def score_claim(cell: str) -> str:
    """Return the name by which a process claims the scoring of a cell, by its id."""
    return f"score-{cell}"


LIGHT = frozenset(
    {VALIDITY, "lexical", "embedding/tfidf", "leakage", "membership", "hidden", f"{CLASSIFIER}tfidf", f"{CURVE}tfidf"}
)
"""Scorers that load no model, so that several processes can run them in little memory."""

LEAST_CHUNK, WORTH_WORKERS = 16, 2000
"""Cells of a chunk that a large group is cut into; texts from which on workers save more than their start takes."""


@dataclass
class ScoringStage:
    """Scores the cells of a plan by its scorers, reusing every stored score made by the same recipe.

    Other processes may score the same cells: each claims those that it is at. ``count``: how many cells this one has
    scored. Tracks override ``protocol``, ``context`` and ``sample``.
    """

    plan: RunPlan
    console: Console
    count: int = 0
    _claims: Claims | None = None
    _human: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    _protocols: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reference = ReferenceTexts(self.plan.suite, self.plan.corpus)

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Let the libraries be loaded with which workers score cells that are about to be generated, if they will."""
        threads = allowed_threads()
        if threads > 1 and any(part.name in LIGHT for part in self.plan.parts) and self.chunks(cells, threads):
            start_server()

    def run(self) -> int:
        """Score every generated cell that has scores missing, or wait until others have; return how many had some.

        Scorers that load no model run in worker processes where there is enough to do, all others afterwards in this
        one. A cell that fails does not stop the others, unless the machine is at fault; the first error is raised at
        the end, or ``DamagedFileError`` for cells whose texts have changed since they were written.
        """
        light = [part.name for part in self.plan.parts if part.name in LIGHT]
        heavy = [part.name for part in self.plan.parts if part.name not in LIGHT]
        open_cells, damaged = self._open_cells()
        first, second = ([cell for cell, names in open_cells if not names.isdisjoint(kind)] for kind in (light, heavy))
        failed: dict[str, Exception] = {}
        with self._stage(len(open_cells)):
            failed |= self._score_all(first, light, "score")
            second = [cell for cell in second if cell.id not in failed]
            failed |= self._score_all(second, heavy, "score with models" if first else "score")
        if failed:
            raise next(failed[cell.id] for cell, _ in open_cells if cell.id in failed)
        if damaged:
            more = f" (and {len(damaged) - 1} more cells)" if len(damaged) > 1 else ""
            raise DamagedFileError(
                f"{damaged[0]}{more}. Repeat the 'steerboard run' command: missing texts are written again."
            )
        return len(open_cells)

    @contextmanager
    def _stage(self, count: int) -> Iterator[None]:
        """Log the stage, and claim what is scored in it, if there is anything to do."""
        if not count:
            yield
            return
        with logged_stage(self.plan.run.path, "score", count), Claims(self.plan.run.path) as self._claims:
            yield

    def _open_cells(self) -> tuple[list[tuple[Cell, set[str]]], list[str]]:
        """Return the cells with the names of the scorers that they need, sorted; and what is damaged."""
        found, damaged = [], []
        for cell in self.plan.cells:
            try:
                if not self.plan.run.has_texts(cell.id):
                    continue
            except DamagedFileError as error:
                damaged.append(str(error))
                continue
            if missing := self._missing(cell)[1]:
                found.append((cell, {part.name for part in missing}))
        found.sort(key=lambda pair: (pair[0].key.task, pair[0].key.language, pair[0].key.seed))
        return found, damaged

    def _score_all(self, cells: Sequence[Cell], names: Sequence[str], title: str) -> dict[str, Exception]:
        """Score cells by the named scorers; return the errors of those that failed, by cell id."""
        failed: dict[str, Exception] = {}
        if not cells:
            return failed
        left = {cell.id: cell for cell in cells}
        with progress_bar(self.console, title, len(cells)) as tracker:
            look = time.monotonic() + POLL
            while left:
                with closing(self._outcomes([*left.values()], names)) as done:
                    for name, error in done:
                        if self._claims:
                            self._claims.release(score_claim(name))
                        if isinstance(error, MachineError):
                            raise error
                        if error is not None:
                            failed[name] = error
                        self.count += error is None
                        tracker.finish_cell(left.pop(name).title)
                        if self._claims and self._claims.workers > 1 and time.monotonic() > look:
                            look = self._drop_scored(left, names, tracker)
                look = self._drop_scored(left, names, tracker)
                while left and time.monotonic() < look:
                    tracker.advance(0)
                    time.sleep(POLL / 10)
        return failed

    def _drop_scored(self, left: dict[str, Cell], names: Sequence[str], tracker: Tracker) -> float:
        """Count what other processes have scored; return when to look again: it is to cost little beside the work."""
        started = time.monotonic()
        held = self._claims.held if self._claims else set()
        for name, cell in [*left.items()]:
            if score_claim(name) not in held and not self._is_open(cell, names):
                tracker.finish_cell(left.pop(name).title)
        ended = time.monotonic()
        return ended + max(POLL, 20 * (ended - started))

    def _is_open(self, cell: Cell, names: Sequence[str]) -> bool:
        """Say whether a cell still needs one of the named scorers."""
        try:
            return any(part.name in names for part in self._missing(cell)[1])
        except UserError:  # to be said by whoever scores it
            return True

    def _outcomes(self, cells: Sequence[Cell], names: Sequence[str]) -> Generator[Outcome]:
        """Yield a cell's id when it is scored, with its error if any; those that other processes have are left out."""
        threads = allowed_threads()
        everywhere = threads * (self._claims.workers if self._claims else 1)
        chunks = self.chunks(cells, everywhere) if LIGHT.issuperset(names) else []
        if min(threads, len(chunks)) > 1:
            plan = self.plan
            worker = ScoringWorker(
                plan.run.path, plan.suite, plan.corpus.source, plan.corpus.contrast_folder, tuple(names)
            )
            yield from run_in_workers(worker, self.claimed(chunks, cells, names), threads)
            return
        # The matrices are small: more threads of BLAS only wait for one another.
        with limit_blas_threads() if LIGHT.issuperset(names) else nullcontext():
            by_id = {cell.id: cell for cell in cells}
            for (name,) in self.claimed([[cell.id] for cell in cells], cells, names):
                yield name, self._error_of(by_id[name], names)

    def claimed(
        self, chunks: Sequence[Sequence[str]], cells: Sequence[Cell], names: Sequence[str]
    ) -> Iterator[list[str]]:
        """Yield what this process gets of chunks of the ids of ``cells``, each claimed when it is asked for.

        Those of the last task and language come first, whose human-written text is at hand, then those of tasks and
        languages that no other process is at. Each claim ends with its cell's outcome.
        """
        if self._claims is None:  # nobody else can be at it
            yield from map(list, chunks)
            return
        by_id = {cell.id: cell for cell in cells}
        waiting: dict[tuple[str, str], deque[Sequence[str]]] = {}
        for chunk in chunks:
            waiting.setdefault(_place(by_id[chunk[0]]), deque()).append(chunk)
        last: tuple[str, str] | None = None
        while waiting:
            if last not in waiting:
                taken = self._claims.taken()
                busy = {_place(cell) for cell in cells if score_claim(cell.id) in taken} if taken else set()
                last = next((place for place in waiting if place not in busy), next(iter(waiting)))
            chunk = waiting[last].popleft()
            if not waiting[last]:
                del waiting[last]
            if mine := [name for name in chunk if self._claim(by_id[name], names)]:
                yield mine

    def _claim(self, cell: Cell, names: Sequence[str]) -> bool:
        assert self._claims is not None
        claim = score_claim(cell.id)
        if not self._claims.take(claim):
            return False
        if self._is_open(cell, names):
            return True
        self._claims.release(claim)  # scored by the process that had it before
        return False

    def _error_of(self, cell: Cell, names: Sequence[str]) -> Exception | None:
        try:
            self.score(cell, names)
        except Exception as error:
            return error
        return None

    def chunks(self, cells: Sequence[Cell], threads: int) -> list[list[str]]:
        """Return the ids of cells in chunks for so many workers; none where too few texts would make workers worth it.

        A chunk is of one task and language, whose human-written text is then read and counted once.
        """
        size = max(-(-len(cells) // (4 * threads)), LEAST_CHUNK)
        texts = sum(len(self.plan.suite.task(c.key.task, c.key.language).labels) * c.key.texts_per_label for c in cells)
        if texts < WORTH_WORKERS:
            return []
        groups = groupby(cells, key=_place)
        ids = [[cell.id for cell in group] for _, group in groups]
        return [group[i : i + size] for group in ids for i in range(0, len(group), size)]

    def score(self, cell: Cell, names: Sequence[str]) -> None:
        """Score a cell by those of the named scorers that it has no scores of, and write it.

        Failures of the machine are ``MachineError``.
        """
        began = time.monotonic()
        with machine_failures(f"scoring {cell.title}"):
            old, missing = self._missing(cell)
            wanted = [part for part in missing if part.name in names]
            if wanted:  # else another process has been quicker
                self._score(cell, old, wanted)
        seconds = round(time.monotonic() - began, 3)
        log_event(self.plan.run.path, "scored", stage="score", cell=cell.id, seconds=seconds)

    def protocol(self, cell: Cell) -> str:
        """Return the hash of what decides a cell's scores, except for the scorers' recipes."""
        task, language = cell.key.task, cell.key.language
        if (task, language) not in self._protocols:
            data = self.plan.corpus.scoring_fingerprint(task, language)
            suite = self.plan.suite
            shown = [suite.scored_split, suite.few_shot.model_dump(), suite.task(task, language).prompts]
            settings = suite.metrics.model_dump(exclude={"embeddings", "curve"})
            self._protocols[task, language] = digest([VERSION, settings, shown, data], 16)
        return self._protocols[task, language]

    def context(self, cell: Cell) -> ScoringContext:
        """Return the human text that a cell's scores need."""
        return self._reference.context(cell.key.task, cell.key.language)

    def sample(self, cell: Cell, context: ScoringContext, valid: list[bool] | None) -> TextSample:
        """Return the texts of a cell; ``valid``: the result of an earlier check of the same texts."""
        run, key = self.plan.run, cell.key
        generations = run.generations(cell.id)
        if len(generations) != key.texts_per_label * len(context.labels):
            raise UserError(
                f"{run.cell(cell.id)} holds {len(generations)} texts, not {key.texts_per_label} for each "
                f"of {len(context.labels)} labels. Delete this folder and run the same command again."
            )
        texts, labels = [g.text for g in generations], [g.label for g in generations]
        if valid is None:
            return replace(self._checked(texts, labels, context), human=self._reference.curve(key))
        return TextSample(texts, labels, np.array(valid, dtype=bool), human=self._reference.curve(key))

    def _missing(self, cell: Cell) -> tuple[CellScores | None, list[Scorer]]:
        """Return the stored scores that still count, and the scorers that have to run.

        Scores count if they are of these texts, by this protocol, on this data. Scorers run whose scores or kept
        results are missing or of another recipe; all of them where validity is, which decides which texts the others
        call valid.
        """
        run, parts = self.plan.run, self.plan.parts
        head = run.read_scores_head(cell.id)
        if head and (head["protocol"], head["generations_sha256"]) != (
            self.protocol(cell),
            run.generations_digest(cell.id),
        ):
            head = None
        have = {name: part["signature"] for name, part in head.get("parts", {}).items()} if head else {}
        missing = [part for part in parts if have.get(part.name) != part.signature]
        if any(part.name == VALIDITY for part in missing):
            return None, list(parts)
        lost = run.lost(cell.id, head.get("kept", {})) if head else set()
        missing += [p for p in parts if p not in missing and p.name in have and kept_in(p.name) in lost]
        return run.scores(cell.id) if head and missing else None, missing

    def _score(self, cell: Cell, old: CellScores | None, missing: Sequence[Scorer]) -> None:
        run = self.plan.run
        context = self.context(cell)
        scores = list(old.scores) if old else []
        parts = dict(old.parts) if old else {}
        lost = run.lost(cell.id, old.kept) if old else set(KEPT)
        kept = {
            **({} if KEPT[0] in lost else run.predictions(cell.id)),
            **({} if KEPT[1] in lost else run.text_checks(cell.id)),
        }
        sample = self.sample(cell, context, kept.get(VALIDITY, {}).get("valid"))
        for part in missing:
            found = part.score(sample, context)
            stale = {*(parts[part.name].metrics if part.name in parts else ())}
            scores = [s for s in scores if s.metric not in stale] + self._with_human(cell, part, found, context)
            parts[part.name] = PartRecord(signature=part.signature, metrics=[score.metric for score in found.scores])
            kept.pop(part.name, None)
            kept |= {part.name: found.artifacts} if found.artifacts else {}
        order = {score.metric: i for i, score in enumerate(old.scores if old else [])}
        scores.sort(key=lambda score: order.get(score.metric, len(order)))  # a score made again keeps its index
        record = CellScores(
            cell_id=cell.id,
            generations_sha256=run.generations_digest(cell.id),
            protocol=self.protocol(cell),
            parts=parts,
            scores=scores,
        )
        run.write_scores(record, kept)

    def _checked(self, texts: Sequence[str], labels: Sequence[str], context: ScoringContext) -> TextSample:
        """Return texts with the mask of those that pass the checks of validity."""
        validity = next(part for part in self.plan.parts if isinstance(part, ValidityScorer))
        return TextSample(texts, labels, validity.check(texts, labels, context)[0])

    def _with_human(self, cell: Cell, part: Scorer, found: ScorerOutput, context: ScoringContext) -> list[Score]:
        """Return scores next to those of human text of equal task, language, seed and number, for scorers with that."""
        if not part.human:
            return found.scores
        key = cell.key
        name = (part.name, key.task, key.language, key.seed, key.texts_per_label)
        if name not in self._human:
            self._human = {known: v for known, v in self._human.items() if known[1:] == name[1:]}
            drawn = self._reference.human(key)
            scores = part.score(self._checked(drawn.texts, drawn.labels, context), context).scores if drawn else []
            self._human[name] = {s.metric: s.value for s in scores if s.value is not None}
        return [score.model_copy(update={"human": self._human[name].get(score.metric)}) for score in found.scores]


@dataclass(frozen=True)
class ScoringWorker:
    """What a worker process needs to score cells of a run by the named scorers."""

    run: Path
    suite: Suite
    source: DataSource
    contrast: ContrastFolder | None
    names: tuple[str, ...]

    def __call__(self) -> Callable[[str], None]:
        """Return what scores the cell with an id."""
        corpus, run = Corpus(self.suite, self.source, self.contrast), Run(self.run)
        light = LIGHT.issuperset(self.names)
        found = build_scorers(self.suite, corpus, ["tfidf"], ["tfidf"]) if light else scorers_of(run.manifest(), corpus)
        parts = [part for part in found if part.name in {*self.names, VALIDITY}]
        stage = ScoringStage(RunPlan(run, self.suite, corpus, None, {}, [], parts), Console(quiet=True))

        def score(name: str) -> None:
            status = run.status(name)
            assert status is not None  # the cell was seen before it was given away
            stage.score(Cell(status.cell), self.names)

        return score
