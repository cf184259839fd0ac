"""All stages of a run in their order: what ``run``, ``demo``, ``tune`` and ``forcing`` do with a plan."""

from __future__ import annotations

from rich.console import Console

from harness.core.records import State
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, RunPlan
from harness.runner.score import ScoringStage


def run_stages(
    plan: RunPlan, options: RunOptions, console: Console, scoring: type[ScoringStage] = ScoringStage
) -> dict[State, int]:
    """Fit, generate and score every open cell; return the number of cells by state."""
    with plan.run.lock():
        states = GenerationStage.start(plan, options, console).states  # frees the model before scoring loads others
        scoring(plan, console).run()
    return states
