"""All stages of a run in their order: what ``run``, ``demo`` and ``tune`` do with a prepared run."""

from __future__ import annotations

from rich.console import Console

from harness.core.records import State
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, RunPlan, manifest_of
from harness.runner.score import ScoringStage


def run_stages(prepared: RunPlan, options: RunOptions, console: Console) -> dict[State, int]:
    """Fit, generate and score every open cell; return how many cells are in which state."""
    with prepared.run.lock():
        manifest = manifest_of(prepared, options)
        generator = GenerationStage(prepared, console, options.device, options.device_map, options.batch_size)
        generator.check()
        prepared.run.write_manifest(generator.recorded(manifest))
        states = generator.run()
        ScoringStage(prepared, console).run()
    return states
