"""Controls: what a method gives when the one thing that it claims is taken away.

Every control names the method it controls and shares that method's config, layer and strength with it.
A gain that its controls have too is no gain of the method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering
from harness.core.records import MethodIdentity, Setting
from harness.data.prompts import Prompt
from harness.methods.contract import CellContext, MethodConfig, PromptContext, Skip, SteeringMethod, register
from harness.methods.fit_context import FitContext

Configure = Callable[[str, dict[str, Any]], list[SteeringMethod]]


class Control(SteeringMethod):
    """A variant of another method; ``bind`` gives it that method."""

    limits: ClassVar = "No proposal: it shows what of a gain remains without what the method claims."
    target: SteeringMethod

    class Config(MethodConfig):
        """``of``: the method that is controlled; ``options``: that method's config."""

        of: str = "language"
        options: dict[str, Any] = Field(default={})

    def bind(self, configure: Configure) -> None:
        """Take the controlled method from the registry; ``UserError`` where it is none to control."""
        found = configure(self.config.of, self.config.options)
        if len(found) != 1:
            raise UserError(f"control {self.name!r}: give single options of {self.config.of!r}, not a sweep.")
        (self.target,) = found
        if isinstance(self.target, Control) or not self.target.steers:
            raise UserError(
                f"control {self.name!r}: {self.config.of!r} steers nothing of its own. "
                "Name a method that does, such as language."
            )
        self.settings: tuple[Setting, ...] = self.target.settings  # type: ignore[misc]

    @property
    def identity(self) -> MethodIdentity:
        """Name, version and config, with all of the controlled method's identity."""
        own = self.config.model_dump(mode="json", exclude={"of", "options"})
        target = self.target.identity
        config = {"of": target.name, "of_version": target.version, "options": target.config, **own}
        return MethodIdentity(name=self.name, version=self.version, config=config)

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return what the controlled method returns."""
        return self.target.supports(ctx)

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the controlled method's prompt."""
        return self.target.prompt(ctx)

    def _changed(self, fitted: Steering, items: list[Intervention], rule: str, **more: Any) -> Steering:
        """Return ``fitted`` with other interventions and a line in its provenance that says why."""
        details = {**fitted.provenance, "control": {"of": self.config.of, "rule": rule, **more}}
        return Steering(tuple(items), details)


@register("random")
class RandomVector(Control):
    """Control: a random direction of equal norm, or the same gains on random neurons."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's interventions with their vectors replaced by chance, seeded."""
        fitted = ctx.fit(self.target, ctx.language)
        items = [replace(item, vector=self._drawn(item, ctx.rng)) for item in fitted.interventions]
        return self._changed(fitted, items, "random direction of equal norm; gains permuted over neurons")

    @staticmethod
    def _drawn(item: Intervention, rng: np.random.Generator) -> Any:
        if item.operation == "scale":  # as many neurons, the same gains
            return rng.permutation(item.vector)
        drawn = rng.standard_normal(len(item.vector))
        drawn *= np.linalg.norm(item.vector) / np.linalg.norm(drawn)
        return drawn.astype(np.float32)


@register("negated")
class NegatedVector(Control):
    """Control: minus the fitted vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's interventions with the opposite sign."""
        fitted = ctx.fit(self.target, ctx.language)
        items = [replace(item, vector=-item.vector) for item in fitted.interventions]
        return self._changed(fitted, items, "the opposite sign")


@register("other-language")
class OtherLanguage(Control):
    """Control: what the method fits for another language of the suite."""

    class Config(Control.Config):
        """``language``: whose fit is taken; by default the next in the suite's list."""

        language: str | None = None

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's interventions fitted for the other language."""
        code = self._other(ctx)
        fitted = ctx.fit(self.target, code)
        return self._changed(fitted, list(fitted.interventions), "fitted for another language", language=code)

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return the target's reason, or that there is no language but the cell's own to take."""
        if self._other(ctx) != ctx.language:
            return self.target.supports(ctx)
        if self.config.language:
            return Skip(f"{ctx.language} is the language that the vector is taken from")
        return Skip(f"suite {ctx.suite.name!r} has no other language")

    def _other(self, ctx: CellContext | FitContext) -> str:
        codes = ctx.suite.languages
        at = codes.index(ctx.language) if ctx.language in codes else -1
        following: str = codes[(at + 1) % len(codes)]
        return self.config.language or following


@register("shuffled")
class ShuffledLabels(Control):
    """Control: the method fitted on real text whose grouping is by chance."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's fit on text with shuffled languages, qualities or labels."""
        fitted = ctx.with_shuffled_labels().fit(self.target, ctx.language)
        return self._changed(fitted, list(fitted.interventions), "labels of the text shuffled")
