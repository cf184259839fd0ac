"""The generate stage, which writes the texts of every cell that has none yet, and all stages in their order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell, sampling_key, steering_id
from harness.core.errors import UserError
from harness.core.records import OWN_ENGINE, Generation, PromptRecord, State
from harness.data.corpus import normalise
from harness.data.prompts import Prompt
from harness.engine.chat import chat_record
from harness.methods.contract import CellContext, Reference, Skip, SteeringMethod
from harness.runner.cell_runner import CellStage, Failure, Texts, attempt, write_cell
from harness.runner.claims import POLL, Claims
from harness.runner.event_log import record_stages
from harness.runner.fit import READING, Fitter, fit_claim
from harness.runner.human_text import reference_texts
from harness.runner.preflight import Preflight, inspect_plan
from harness.runner.prepare import RunOptions, RunPlan
from harness.runner.progress import Tracker
from harness.runner.score import ScoringStage
from harness.runner.served import make_fits, open_served

if TYPE_CHECKING:
    from harness.engine.generate import CellRequest


@dataclass
class GenerationStage(CellStage):
    """Writes the texts of the cells of a run, beside any other workers of it."""

    _own: set[str] = field(default_factory=set)
    _reading: tuple[float, bool] = (0.0, False)
    _claims: Claims | None = None

    @override
    def check(self) -> None:
        """Read all text that open cells need, say what they take, and load the model; ask before work of many minutes.

        The libraries of the scoring workers are loaded meanwhile.
        """
        cells = self.open_cells
        found = self.preflight()
        if found.large:
            found.print(self.console)
        else:
            found.print_warnings(self.console)
        ScoringStage(self.plan, self.console).prepare(cells)
        super().check()
        if found.large:
            from harness.runner.probe import confirm_start, probe_model  # loads the engine

            if not self.served:
                self.console.print("probing the model")
                probe_model(found, self.fitter.model, self.plan, cells)
                found.print(self.console)
            if self.asks:
                confirm_start(self.console)

    def preflight(self, throughput: float | None = None) -> Preflight:
        """Read all text that open cells need, and return what these cells take, with hours at so many tokens/s."""
        self.read_text()
        return inspect_plan(self.plan, self.open_cells, self.device, self.batch_size, throughput)

    def read_text(self) -> None:
        """Read all text that open cells need, so that a gap in it ends the command before any work."""
        corpus, cells = self.plan.corpus, self.open_cells
        for task, language in {(c.key.task, c.key.language): None for c in cells}:
            for split in ("train", "validation", "test"):
                corpus.split(task, language, split)
        for language in self._vector_languages(cells):
            corpus.parallel(language)

    def _vector_languages(self, cells: list[Cell]) -> list[str]:
        """Return the languages whose parallel text the fits or the scores of cells need, in the suite's order."""
        every = self.plan.suite.vector_languages
        asked: set[str] = set()
        for cell in cells:
            if asked.issuperset(every):
                break
            try:
                asked.update(self.plan.method(cell).vector_languages(self.plan.context(cell)))
            except (Exception, SystemExit):  # it asks for all; a failure is recorded by its cells
                asked.update(every)
        if cells and self.plan.parts:  # the language identifier of the scores is trained on all
            asked.update(every)
        return [code for code in every if code in asked]

    @override
    def chat(self) -> dict[str, str]:
        return chat_record(self.fitter.model.tokenizer, self.plan.suite.sampling)

    @property
    def served(self) -> bool:
        """Whether another engine writes the texts."""
        return self.plan.model is not None and self.plan.model.engine != OWN_ENGINE

    @override
    def open_fitter(self) -> Fitter:
        return open_served(self) if self.served else super().open_fitter()

    @override
    def run_cells(self, cells: Sequence[Cell], tracker: Tracker) -> None:
        """Claim and run cells, those of the model together: each is written with the last of its texts.

        It ends when every cell is settled, by this worker or another one.
        """
        with Claims(self.plan.run.path) as self._claims:
            if self.served:
                make_fits(cells, self.fitter, super().open_fitter, self._claims, tracker)
            requests = self._requests(self._claims, cells, tracker)
            first = next(requests, None)
            if first is None:
                return
            from harness.engine.generate import GenerationQueue

            model: Any = self.fitter.model
            with closing(model) if self.served else nullcontext():  # another engine stops with its texts
                queue = GenerationQueue(model, self.batch_size, tracker.add_texts)
                for request, found in queue.write(chain([first], requests)):
                    cell, record = request.name
                    done = attempt(partial(self._complete, request, found, record))
                    self._write(self._claims, cell, done, request.seconds)
                    tracker.finish_cell(f"{cell.title}; {queue.active} texts at once")

    def _requests(self, claims: Claims, cells: Sequence[Cell], tracker: Tracker) -> Iterator[CellRequest | None]:
        """Yield what the model is to write, fitted; finish the cells that need none, or cannot be written.

        None where this worker has enough, or others have all that is left.
        """
        for cell in self._claimed(claims, cells, tracker):
            if cell is None:
                yield None
                continue
            started = time.monotonic()
            prepared: Texts | CellRequest | Failure = attempt(partial(self._prepare, cell, tracker))
            claims.release(fit_claim(self._fit_of(cell)))
            if isinstance(prepared, Failure | tuple):
                self._write(claims, cell, prepared, time.monotonic() - started)
                tracker.finish_cell(cell.title)
            else:
                yield prepared

    def _claimed(self, claims: Claims, cells: Sequence[Cell], tracker: Tracker) -> Iterator[Cell | None]:
        """Yield cells as this worker claims them, with their fit where it is still to be made; None as ``_requests``.

        Cells whose fit another worker makes come later; also other fits while one reads text, which all need: this
        worker would wait for it. Those that others have finished are counted.
        """
        left, busy = list(cells), True
        while left:
            taken, found = claims.taken(), False
            for position, cell in enumerate(left):
                if cell.id in self._own or cell.id in taken or self.is_settled(cell):
                    continue
                name = self._fit_of(cell)
                fit = "" if not name or self.plan.run.steering_path(name).is_file() else fit_claim(name)
                if fit in taken or (fit and busy and self._others_read(claims)):
                    continue
                while not self._has_room(claims, len(left) - position):
                    yield None
                if self._take(claims, cell, fit):
                    found = True
                    self._own.add(cell.id)
                    yield cell
            started = time.monotonic()
            left = [cell for cell in left if not self._is_over(claims, cell, tracker)]
            ended = time.monotonic()
            busy = found or bool(claims.held)
            again = ended + max(POLL, 10 * (ended - started))  # many cells: to look costs less than the work
            while left and not found and time.monotonic() < again:
                if claims.held:
                    yield None
                else:
                    time.sleep(POLL / 10)

    def _take(self, claims: Claims, cell: Cell, fit: str) -> bool:
        """Claim a cell, and its fit where that is still to be made; return whether this worker has both."""
        if fit and not claims.take(fit):
            self._reading = time.monotonic() + POLL, True  # whoever has it has just begun, by reading text
            return False
        if claims.take(cell.id) and not self.is_settled(cell):  # by the worker that had it before
            return True
        claims.release(fit)
        claims.release(cell.id)
        return False

    def _others_read(self, claims: Claims) -> bool:
        """Say whether another worker reads text to fit a method, as it was at most ``POLL`` seconds ago."""
        until, found = self._reading
        if time.monotonic() >= until:
            found = any(name.startswith(READING) for name in claims.taken())
            self._reading = time.monotonic() + POLL, found
        return found

    def _has_room(self, claims: Claims, left: int) -> bool:
        """Say whether this worker may claim a cell: not more than its share of those that may be ``left``."""
        workers = max(self.workers, claims.workers)
        return workers == 1 or len(claims.held) < max(1, left // workers)

    def _is_over(self, claims: Claims, cell: Cell, tracker: Tracker) -> bool:
        if cell.id in self._own:
            return cell.id not in claims.held
        if not self.is_settled(cell):
            return False
        tracker.finish_cell(cell.title)
        return True

    def is_settled(self, cell: Cell) -> bool:
        """Say whether a cell needs no more work: it is done, or ended otherwise since the run was last started."""
        run = self.plan.run
        status = run.status(cell.id)
        if status is None or status.state == "ok":
            return status is not None and self.is_done(cell)
        return run.files.version(f"cells/{cell.id}/status.json")[0] >= self._since

    @cached_property
    def _since(self) -> int:
        """The time when the manifest was written, which every start of the run does; of the system of files."""
        files = self.plan.run.files
        return files.version("manifest.json")[0] if files.exists("manifest.json") else 0

    def _fit_of(self, cell: Cell) -> str:
        """Return the name of the file with the fit of a cell; empty where nothing is fitted."""
        return steering_id(self.plan.fit_cell(cell).key) if self.plan.method(cell).has_fit else ""

    def _write(self, claims: Claims, cell: Cell, done: Texts | Failure, seconds: float) -> None:
        """Write what became of a claimed cell, unless another worker has, and give it back."""
        if not self.is_settled(cell):
            write_cell(self.plan.run, cell, done, seconds)
            path = self.plan.run.cell(cell.id) / "status.json"
            if path.stat().st_mtime_ns < self._since:  # by the clock of a machine that is behind
                os.utime(path, ns=(self._since, self._since))
        claims.release(cell.id)

    def _prepare(self, cell: Cell, tracker: Tracker) -> Skip | Texts | CellRequest:
        method = self.plan.method(cell)
        skip = method.supports(self.plan.context(cell))
        if skip is not None:
            return skip
        return (
            self.draw(cell, method, tracker) if isinstance(method, Reference) else self.request(cell, method, tracker)
        )

    def score(self, scoring: type[ScoringStage]) -> int:
        """Score what needs it; return how many cells did."""
        self._fitter = None  # frees the model before scorers load others
        return scoring(self.plan, self.console).run()

    def draw(self, cell: Cell, method: Reference, tracker: Tracker) -> Texts:
        """Return the texts of a reference."""
        drawn = reference_texts(method, cell.key, self.plan.suite, self.plan.corpus)
        texts = [
            Generation(index=i, label=label, text=text, finish_reason="reference")
            for label, group in drawn.items()
            for i, text in enumerate(group)
        ]
        tracker.add_texts(len(texts))
        return texts, {"prompt_tokens": 0, "new_tokens": 0, "fit": {}}

    def request(self, cell: Cell, method: SteeringMethod, tracker: Tracker) -> CellRequest:
        """Fit the steering of a cell; return what the model is to write, named by cell and fields of its status."""
        from harness.engine.generate import CellRequest

        if self._claims:
            self.fitter.exclusive = self._claims.exclusive
        steering, record = self.fit(cell, method, tracker)
        prompts, question = self.plan.prompts(cell)
        record = {**record, "demonstrations": self.plan.demonstrations(cell)}
        key, sampling = cell.key, self.plan.suite.sampling
        return CellRequest(
            (cell, record),
            prompts,
            key.texts_per_label,
            steering,
            sampling,
            partial(sampling_key, key),
            question=question,
        )

    def _complete(self, request: CellRequest, found: list[Generation] | Exception, record: dict[str, Any]) -> Texts:
        """Return the texts of a cell, edited by its method, with the fields of its status; raise what ended it."""
        if isinstance(found, Exception):
            raise found
        cell, started = request.name[0], time.monotonic()
        texts = _edit(self.plan.method(cell), self.plan.context(cell), found)
        request.seconds += time.monotonic() - started
        edited = sum(new.text != old.text for new, old in zip(texts, found, strict=True))
        fields = {
            "redraws": sum(text.attempts - 1 for text in texts),
            "duplicates": sum(text.duplicate for text in texts),
            "prompts": _prompt_record(request, edited),
        }
        return texts, {**record, **fields, **vars(request.usage)}


def _edit(method: SteeringMethod, context: CellContext, found: list[Generation]) -> list[Generation]:
    """Return texts as their method edits them; those that are empty or equal an earlier one then are marked."""
    own = [text.text for text in found]
    edited = method.edit(context, own)
    if edited == own:
        return found
    if len(edited) != len(own):
        raise UserError(f"edit gave {len(edited)} texts for {len(own)}; return one for each.")
    texts, seen = [], {""}
    for text, words in zip(found, edited, strict=True):
        new = " ".join(words.split())
        form = normalise(new)
        texts.append(text.model_copy(update={"text": new, "duplicate": form in seen}))
        seen.add(form)
    return texts


def _prompt_record(request: CellRequest, edited: int) -> PromptRecord | None:
    """Return what the prompts of a cell add to the suite's protocol, None for nothing."""
    every = [p for given in request.prompts.values() for p in ([given] if isinstance(given, Prompt) else given)]
    record = PromptRecord(
        sampling=list({tuple(p.sampling.items()): p.sampling for p in every if p.sampling}.values()),
        texts_per_answer=max(prompt.texts_per_answer for prompt in every),
        rejected=request.rejected if request.question else None,
        kept=request.kept if request.question else None,
        edited=edited,
    )
    return None if record == PromptRecord() else record


def run_stages(
    plan: RunPlan,
    options: RunOptions,
    console: Console,
    scoring: type[ScoringStage] = ScoringStage,
    done: Callable[[int], None] = lambda count: None,
    generation: type[GenerationStage] = GenerationStage,
) -> dict[State, int]:
    """Fit, generate and score every open cell; return the number of cells by state.

    ``done`` gets the number of cells that were generated or scored.
    """
    with plan.run.lock(shared=True):
        stage = generation.start(plan, options, console)
        states = stage.states
        worked = stage.count + stage.score(scoring)
        if worked:
            record_stages(plan.run)
        done(worked)
    return states
