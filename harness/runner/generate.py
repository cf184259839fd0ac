"""The generate stage: writes the texts of every cell that has none yet."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.core.cells import Cell, sampling_key
from harness.core.errors import UserError
from harness.core.records import Generation, Manifest, State
from harness.engine.chat import chat_record
from harness.methods.contract import CellContext, PromptContext, Reference, Skip, SteeringMethod
from harness.runner.cell_runner import run_cell, say_damage
from harness.runner.prepare import RunPlan, with_chat
from harness.runner.progress import Tracker, progress_bar
from harness.runner.reference_texts import reference_texts

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel
    from harness.runner.fit import Fitter


@dataclass
class GenerationStage:
    """Writes the texts of the cells of a run; the model is loaded when the first cell needs it."""

    prepared: RunPlan
    console: Console
    device: str | None = None
    device_map: str | None = None
    batch_size: int = 64
    _fitter: Fitter | None = None

    def run(self) -> dict[State, int]:
        """Generate every unfinished cell; return how many cells are in which state."""
        run = self.prepared.run
        open_cells = [cell for cell in self.prepared.cells if self._open(cell)]
        if open_cells:
            say_damage(run, open_cells)
            with progress_bar(self.console, "generate", len(open_cells)) as tracker:
                for cell in open_cells:
                    tracker.say(cell.title)
                    self._one(cell, tracker)
                    tracker.finish_cell(cell.title)
        states: dict[State, int] = {}
        for cell in self.prepared.cells:
            status = run.status(cell.id)
            if status:
                states[status.state] = states.get(status.state, 0) + 1
        return states

    def _open(self, cell: Cell) -> bool:
        """Say whether a cell has work left: no texts yet, and not skipped for a reason that still holds."""
        status = self.prepared.run.status(cell.id)
        if status is not None and status.state == "skipped":
            try:
                return self.prepared.method(cell).supports(self._context(cell)) is None
            except Exception:  # it is tried as any open cell is, and the failure recorded there
                return True
        return not self.prepared.run.finished(cell.id)

    def check(self) -> None:
        """Read the text and load the model that open cells need, before the run is written down.

        A gap shows now and not in an hour; a bad checkpoint is one error, not one in every cell.
        """
        corpus = self.prepared.corpus
        cells = [cell for cell in self.prepared.cells if self._open(cell)]
        for task, language in {(c.key.task, c.key.language): None for c in cells}:
            for split in ("train", "validation", "test"):
                corpus.split(task, language, split)
        for language in corpus.vector_languages if cells else ():
            corpus.parallel(language)
        if any(cell.key.model for cell in cells):
            self._loaded()

    def recorded(self, manifest: Manifest) -> Manifest:
        """Return the manifest with how the loaded model's chat template is used; as it is without a model.

        Raises ``UserError`` where the template cannot be used, or was used otherwise for earlier texts.
        """
        if self._fitter is None:
            return manifest
        chat = chat_record(self._fitter.model.tokenizer, self.prepared.suite.sampling)
        return with_chat(manifest, chat, self.prepared.run)

    def _one(self, cell: Cell, tracker: Tracker) -> None:
        def work() -> Skip | tuple[list[Generation], dict[str, Any]]:
            method = self.prepared.method(cell)
            return method.supports(self._context(cell)) or self._texts(cell, method, tracker)

        run_cell(self.prepared.run, cell, work)

    def _context(self, cell: Cell) -> CellContext:
        key, suite = cell.key, self.prepared.suite
        task = suite.task(key.task, key.language)
        return CellContext(suite, task, key.setting, key.seed, key.texts_per_label)

    def _texts(self, cell: Cell, method: SteeringMethod, tracker: Tracker) -> tuple[list[Generation], dict[str, Any]]:
        """Return the texts of a cell and what its status says beyond state and times."""
        if isinstance(method, Reference):
            texts = self._reference(cell, method)
            tracker.add_texts(len(texts))
            return texts, {"prompt_tokens": 0, "new_tokens": 0, "fit": {}}
        from harness.engine.generate import TokenUsage, generate_cell

        fitter = self._loaded()
        fitter.say = tracker.say
        name, steering = fitter.steering(cell, method)
        prompts, demonstrations = self._prompts(cell, method)
        key, usage = cell.key, TokenUsage()
        tracker.say(cell.title)
        started = time.monotonic()
        texts = generate_cell(
            fitter.model,
            prompts,
            key.texts_per_label,
            steering,
            self.prepared.suite.sampling,
            lambda label, index, attempt: sampling_key(key, label, index, attempt),
            self.batch_size,
            tracker.add_texts,
            usage,
        )
        return texts, {
            "seconds": round(time.monotonic() - started, 3),
            "device": str(fitter.model.device),
            "steering": name,
            "steering_sha256": fitter.file_hash(name),
            "demonstrations": demonstrations,
            "redraws": sum(text.attempts - 1 for text in texts),
            "duplicates": sum(text.duplicate for text in texts),
            **vars(usage),
            "fit": fitter.cost(cell, method),
        }

    def _prompts(self, cell: Cell, method: SteeringMethod) -> tuple[dict[str, Any], dict[str, Any]]:
        key, context = cell.key, self._context(cell)
        shots: dict[str, list[str]] = {}
        if key.setting == "few-shot":
            shots = self.prepared.corpus.demonstrations(key.task, key.language)
        prompts = {
            label: method.prompt(
                PromptContext(**vars(context), label=label, demonstrations=tuple(shots.get(label, ())))
            )
            for label in context.task.labels
        }
        return prompts, shots

    def _reference(self, cell: Cell, method: Reference) -> list[Generation]:
        key = cell.key
        drawn = reference_texts(method, key, self.prepared.suite, self.prepared.corpus)
        return [
            Generation(index=i, label=label, text=text, finish_reason="reference")
            for label, texts in drawn.items()
            for i, text in enumerate(texts)
        ]

    def _loaded(self) -> Fitter:
        if self._fitter is None:
            from harness.runner.fit import Fitter

            self._fitter = Fitter(self.prepared, self._load(), self.batch_size)
        return self._fitter

    def _load(self) -> SteerableModel:
        from harness.core.devices import choose_device
        from harness.engine.model import load_model

        checkpoint, identity = self.prepared.checkpoint, self.prepared.model
        if checkpoint is None or identity is None:
            raise UserError("this run has no model. Give --model.")
        device = choose_device(self.device)
        self.console.print(f"loading {checkpoint.name} ({identity.dtype}, {device})")
        return load_model(checkpoint, identity.dtype, device, self.device_map)
