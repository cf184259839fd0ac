"""The run's own fitter, made to count, to fail on demand and to tell of a provenance that is no JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from harness.core.cells import Cell
from harness.core.files import canonical_json
from harness.core.interventions import Steering
from harness.methods.contract import FitContext
from harness.runner.fit import Fitter

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates, MlpActivationMeans


class InterruptionError(RuntimeError):
    """The failure that the kit makes in the middle of a fit."""


@dataclass
class Calls:
    """Counts calls to the engine and passes through the model; one of them can be made to fail."""

    number: int = 0
    active: bool = False
    break_at: int | None = None

    @contextmanager
    def counting(self, break_at: int | None = None) -> Iterator[None]:
        """Count from 0 inside the block."""
        self.number, self.break_at, self.active = 0, break_at, True
        try:
            yield
        finally:
            self.active = False

    def count(self) -> None:
        """Count a call; raises ``InterruptionError`` at the one that is to fail."""
        if not self.active:
            return
        self.number += 1
        if self.number == self.break_at:
            raise InterruptionError(f"call {self.number} failed on purpose")


class WatchedFitter(Fitter):
    """The fitter of the runs. ``problem`` says what of a provenance cannot be written down."""

    def __init__(self, *arguments: Any, calls: Calls) -> None:
        self.calls = calls
        self.problem = ""
        super().__init__(*arguments)

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        """Return the mean hidden states of the model over ``texts``."""
        self.calls.count()
        return super().mean_states(texts, exclude_sinks)

    def neuron_means(self, texts: list[str]) -> MlpActivationMeans:
        """Return the mean neurons of the model over ``texts``."""
        self.calls.count()
        return super().neuron_means(texts)

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[Any]:
        """Return how far a steering moves the residual stream over ``texts``, per layer."""
        self.calls.count()
        return super().residual_change(steering, texts)

    def progress(self, words: str) -> None:
        """Show what a fit is doing."""
        self.calls.count()
        super().progress(words)

    def _header(self, cell: Cell, ctx: FitContext, fitted: Steering, seed: int) -> dict[str, Any]:
        """Return the header of the steering file, without what of it is no JSON."""
        header = super()._header(cell, ctx, fitted, seed)
        try:
            canonical_json(header)
        except (TypeError, ValueError) as error:
            self.problem = str(error)
            header = {k: v for k, v in header.items() if k not in fitted.provenance} | {"fit": {}}
        return header
