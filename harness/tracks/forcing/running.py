"""All stages of a forcing run: fit, generate, score; each goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.records import Manifest, State, UsageByStep
from harness.runner.fit import Fitter
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, manifest_of
from harness.tracks.forcing.planning import TRACK, ForcingPlan, source_of
from harness.tracks.forcing.relevance import Relevance
from harness.tracks.forcing.scoring import ForcingScorer

if TYPE_CHECKING:
    from harness.methods.contract import SteeringMethod


@dataclass
class ForcingFitter(Fitter):
    """Fits what a run of the base suite would fit for a cell's target language."""

    forcing: ForcingPlan = field(kw_only=True)

    @override
    def steering(self, cell: Cell, method: SteeringMethod) -> tuple[str | None, Steering]:
        return super().steering(self.forcing.fit_cell(cell), method)

    @override
    def cost(self, cell: Cell, method: SteeringMethod) -> UsageByStep:
        return super().cost(self.forcing.fit_cell(cell), method)


@dataclass
class ForcingGenerator(GenerationStage):
    """Writes the answers; the steering is that of the base suite in the target language."""

    forcing: ForcingPlan = field(kw_only=True)

    @override
    def _loaded(self) -> Fitter:
        if self._fitter is None:
            model = self._load()
            self._fitter = ForcingFitter(self.forcing.base, model, self.batch_size, forcing=self.forcing)
        return self._fitter


def run_forcing(
    forcing: ForcingPlan, relevance: Sequence[Relevance], options: RunOptions, console: Console
) -> dict[State, int]:
    """Fit, generate and score every open cell; return how many cells are in which state.

    Raises ``UserError`` where the folder holds another run.
    """
    prepared = forcing.prepared
    with prepared.run.lock():
        manifest = _manifest(forcing, options)
        states = _generate(forcing, options, console, manifest)
        ForcingScorer(forcing, relevance, console).run()
    return states


def _generate(forcing: ForcingPlan, options: RunOptions, console: Console, manifest: Manifest) -> dict[State, int]:
    """Write all answers; the model is let go of before a judge is loaded."""
    prepared = forcing.prepared
    generator = ForcingGenerator(
        prepared, console, options.device, options.device_map, options.batch_size, forcing=forcing
    )
    generator.check()
    prepared.run.write_manifest(generator.recorded(manifest))
    return generator.run()


def _manifest(forcing: ForcingPlan, options: RunOptions) -> Manifest:
    prepared = forcing.prepared
    run = prepared.run
    if run.exists():
        old = run.manifest()
        if old.track != TRACK:
            raise UserError(f"{run.path} holds a run of the {old.track} track. Choose another --run folder.")
        if old.suite_hash != prepared.suite.hash:
            raise UserError(
                f"{run.path} holds a run with other --sources, --split or --max-new-tokens, of another suite "
                "or with other questions. Choose another --run folder."
            )
    found = manifest_of(prepared, options)
    chosen = found.selection
    own = [f"{task}/{code}" for task, code in chosen.places() if source_of(task) == code]  # in no mean
    selection = chosen.model_copy(update={"absent": own if len(own) < len(chosen.places()) else []})
    return found.model_copy(update={"track": TRACK, "selection": selection})
