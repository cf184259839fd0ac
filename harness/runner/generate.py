"""The generate stage, which writes the texts of every cell that has none yet, and all stages in their order."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell, sampling_key
from harness.core.interventions import Steering
from harness.core.records import Generation, State
from harness.engine.chat import chat_record
from harness.methods.contract import PromptContext, Reference, SteeringMethod
from harness.runner.cell_runner import CellStage, Texts
from harness.runner.prepare import RunOptions, RunPlan
from harness.runner.progress import Tracker
from harness.runner.score import ScoringStage, reference_texts


@dataclass
class GenerationStage(CellStage):
    """Writes the texts of the cells of a run."""

    @override
    def check(self) -> None:
        """Read all text that open cells need, then load the model."""
        corpus = self.plan.corpus
        cells = [cell for cell in self.plan.cells if self.is_open(cell)]
        for task, language in {(c.key.task, c.key.language): None for c in cells}:
            for split in ("train", "validation", "test"):
                corpus.split(task, language, split)
        for language in corpus.vector_languages if cells else ():
            corpus.parallel(language)
        super().check()

    @override
    def chat(self) -> dict[str, str]:
        return chat_record(self.fitter.model.tokenizer, self.plan.suite.sampling)

    @override
    def texts(self, cell: Cell, method: SteeringMethod, tracker: Tracker) -> Texts:
        if not isinstance(method, Reference):
            return super().texts(cell, method, tracker)
        drawn = reference_texts(method, cell.key, self.plan.suite, self.plan.corpus)
        texts = [
            Generation(index=i, label=label, text=text, finish_reason="reference")
            for label, group in drawn.items()
            for i, text in enumerate(group)
        ]
        tracker.add_texts(len(texts))
        return texts, {"prompt_tokens": 0, "new_tokens": 0, "fit": {}}

    @override
    def write(self, cell: Cell, method: SteeringMethod, steering: Steering, tracker: Tracker) -> Texts:
        from harness.engine.generate import TokenUsage, generate_cell

        key, context, usage = cell.key, self.plan.context(cell), TokenUsage()
        few_shot = key.setting == "few-shot"
        shots = self.plan.corpus.demonstrations(key.task, key.language) if few_shot else {}
        prompts = {
            label: method.prompt(
                PromptContext(**vars(context), label=label, demonstrations=tuple(shots.get(label, ())))
            )
            for label in context.task.labels
        }
        texts = generate_cell(
            self.fitter.model,
            prompts,
            key.texts_per_label,
            steering,
            self.plan.suite.sampling,
            lambda label, index, attempt: sampling_key(key, label, index, attempt),
            self.batch_size,
            tracker.add_texts,
            usage,
        )
        return texts, {
            "demonstrations": shots,
            "redraws": sum(text.attempts - 1 for text in texts),
            "duplicates": sum(text.duplicate for text in texts),
            **vars(usage),
        }


def run_stages(
    plan: RunPlan, options: RunOptions, console: Console, scoring: type[ScoringStage] = ScoringStage
) -> dict[State, int]:
    """Fit, generate and score every open cell; return the number of cells by state."""
    with plan.run.lock():
        states = GenerationStage.start(plan, options, console).states  # frees the model before scoring loads others
        scoring(plan, console).run()
    return states
