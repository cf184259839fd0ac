"""Checks of the texts that a method leads to: equal in every batch size, unsteered at strength 0."""

from __future__ import annotations

from typing import Any

from harness.core.cells import Cell
from harness.core.interventions import Steering
from harness.methods.contract import SteeringMethod
from harness.methods.controls import Control
from harness.submissions.conformance.bench import Fit
from harness.submissions.conformance.method_under_test import ConformanceCheck, Failed, MethodUnderTest, Skipped

_BATCHES = (16, 3, 1)


def batches(trial: MethodUnderTest) -> str:
    """The texts of a cell are the same in batches of 1, 3 and 16."""
    count, codes = 0, []
    for cell in trial.pair():
        prompts, steering = trial.asked(cell), trial.steered(cell)
        large, *others = (trial.bench.texts(cell, prompts, steering, size) for size in _BATCHES)
        for size, texts in zip(_BATCHES[1:], others, strict=True):
            for one, other in zip(large, texts, strict=True):
                if one != other:
                    raise Failed(
                        f"{cell.title}: {one!r:.40} in batches of {_BATCHES[0]}, {other!r:.40} in batches of "
                        f"{size}. Is the strength so high that rounding decides?"
                    )
        count += len(large)
        codes.append(cell.key.language)
    return f"{count} texts ({', '.join(codes)}) are equal in batches of {', '.join(map(str, sorted(_BATCHES)))}"


def strength_zero(trial: MethodUnderTest) -> str:
    """Where a method has a strength, 0 gives the unsteered texts."""
    if not trial.configured().has_fit:
        raise Skipped("the method steers nothing")
    name, zero = _at_zero(trial)
    count = 0
    for cell in trial.pair():
        trial.steered(cell)
        own = Cell(cell.key.model_copy(update={"method": zero.identity}))
        done = trial.bench.fit(zero, own, trial.fitter or trial.bench.fitter())
        if done.steering is None:
            raise Failed(f"the fit of {cell.key.language!r} with {name}=0 ends with: {_told(done)}")
        prompts = trial.asked(cell)
        plain = trial.bench.texts(cell, prompts, Steering(), _BATCHES[0])
        steered = trial.bench.texts(cell, prompts, done.steering, _BATCHES[0])
        for one, other in zip(plain, steered, strict=True):
            if one != other:
                raise Failed(
                    f"{cell.title}: with {name}=0 the text is {other!r:.40}, unsteered it is {one!r:.40}. "
                    "Give the option to Intervention(strength=...) as it is, or set strength_field = None "
                    "in the class where 0 does not mean unsteered."
                )
        count += len(plain)
    return f"{count} texts with {name}=0 are the unsteered ones, bit for bit"


def _at_zero(trial: MethodUnderTest) -> tuple[str, SteeringMethod]:
    """Return the name of the strength and the method with a strength of 0; a control's is its target's."""
    method = trial.configured()
    owner = method.target if isinstance(method, Control) else method
    name = owner.strength_field
    value: Any = getattr(owner.config, name, None) if name else None
    if name is None or isinstance(value, bool) or not isinstance(value, int | float):
        raise Skipped("not declared: Config has no number called 'strength', or as strength_field says")
    if isinstance(method, Control):
        return name, trial.build(options={**method.config.options, name: 0})
    return name, trial.build(**{name: 0})


def _told(done: Fit) -> str:
    return done.error or done.skipped


CHECKS = (ConformanceCheck("batch size", batches), ConformanceCheck("strength 0", strength_zero))
