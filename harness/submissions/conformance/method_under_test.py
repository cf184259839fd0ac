"""The method on trial: what the checks share of it, and how a check says what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.core.cells import Cell
from harness.core.interventions import Steering
from harness.data.prompts import Prompt
from harness.methods.contract import PromptContext, SteeringMethod
from harness.methods.registry import Registry
from harness.submissions.conformance.bench import Fit, TestBench
from harness.submissions.conformance.fitting import WatchedFitter

Verdict = Literal["ok", "FAILED", "skipped"]


class Failed(Exception):  # noqa: N818
    """The check failed: what was found, and what to do."""


class Skipped(Exception):  # noqa: N818
    """The check does not apply, or there is nothing to look at, for this reason."""


@dataclass
class MethodUnderTest:
    """A method and the bench that it is on. The fields after ``options`` are what earlier checks found."""

    bench: TestBench
    registry: Registry
    name: str
    options: dict[str, Any]
    method: SteeringMethod | None = None
    supported: list[Cell] = field(default_factory=list)
    prompts: dict[str, dict[str, Prompt]] = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    fitter: WatchedFitter | None = None
    determined: bool = False
    calls: int = 0
    complete: bool = False

    @property
    def cls(self) -> type[SteeringMethod]:
        """The method's class."""
        return self.registry.get(self.name)

    def build(self, **changes: Any) -> SteeringMethod:
        """Return a new instance of the method, with changed options if any."""
        (method,) = self.registry.configure(self.name, {**self.options, **changes})
        return method

    def configured(self) -> SteeringMethod:
        """Return the method; ``Skipped`` where its config did not pass."""
        if self.method is None:
            raise Skipped("the method could not be set up; see config")
        return self.method

    def cells(self) -> list[Cell]:
        """Return the supported cells; ``Skipped`` where there is none."""
        self.configured()
        if not self.supported:
            raise Skipped("no cell is supported; see supports")
        return self.supported

    def groups(self) -> dict[tuple[str, str], Cell]:
        """Return the first supported cell of every task and language: what is fitted once."""
        first: dict[tuple[str, str], Cell] = {}
        for cell in self.cells():
            first.setdefault((cell.key.task, cell.key.language), cell)
        return first

    def steering(self) -> list[Fit]:
        """Return the sound fits of the main task; ``Skipped`` where the method has none."""
        cells = self.cells()
        if not self.configured().has_fit:
            raise Skipped("the method steers nothing")
        good = [fit for fit in self.fits if fit.steering and fit.cell.key.task == cells[0].key.task]
        if not good:
            raise Skipped("there is no sound fit to look at; see fit")
        return good

    def pair(self) -> list[Cell]:
        """Return a cell each of two languages with other scripts: Amharic and Hebrew where supported."""
        task = self.cells()[0].key.task
        cells = {c.key.language: c for c in reversed(self.cells()) if c.key.task == task}
        wanted = [code for code in ("am", "he") if code in cells] or list(cells)[:2]
        return [cells[code] for code in wanted]

    def steered(self, cell: Cell) -> Steering:
        """Return the steering of a cell: none for a method without a fit."""
        if not self.configured().has_fit:
            return Steering()
        for fit in self.steering():
            if fit.steering and fit.cell.key.language == cell.key.language:
                return fit.steering
        raise Skipped(f"there is no sound fit for {cell.key.language!r}; see fit")

    def asked(self, cell: Cell) -> dict[str, Prompt]:
        """Return the prompts of a cell by label; ``Skipped`` where they did not pass."""
        if cell.id not in self.prompts:
            raise Skipped("there are no sound prompts; see prompt")
        return self.prompts[cell.id]

    def ask(self, method: SteeringMethod, cell: Cell) -> dict[str, Any]:
        """Return what the method's ``prompt`` gives for every label of a cell."""
        key, context = cell.key, self.bench.context(cell)
        corpus = self.bench.corpus
        shots = corpus.demonstrations(key.task, key.language) if key.setting == "few-shot" else {}
        with self.bench.watch.on():
            return {
                label: method.prompt(
                    PromptContext(**vars(context), label=label, demonstrations=tuple(shots.get(label, ())))
                )
                for label in context.task.labels
            }


@dataclass(frozen=True)
class ConformanceCheck:
    """One promise of the contract and the function that looks whether it is kept."""

    name: str
    run: Callable[[MethodUnderTest], str]


@dataclass(frozen=True)
class CheckResult:
    """How a check ended, in a line."""

    check: str
    verdict: Verdict
    words: str
