"""What the methods have in common whose idea is in the prompt: each can be steered by another method as well."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.records import MethodIdentity, Setting
from harness.methods.contract import CellContext, FitContext, MethodConfig, Skip, SteeringMethod
from harness.methods.controls import Configure


class PromptMethod(SteeringMethod):
    """A way to prompt, unsteered or with the steering of ``target``; ``bind`` gives it that method."""

    strength_field: ClassVar[str | None] = None
    target: SteeringMethod | None = None

    class Config(MethodConfig):
        """``steering``: the method whose steering is applied as well, None for none; ``options``: its config."""

        steering: str | None = None
        options: dict[str, Any] = Field(default={})

    def bind(self, configure: Configure) -> None:
        """Take the steering method from the registry; ``UserError`` for one that does not steer, or prompts itself."""
        name, options = self.config.steering, self.config.options
        if name is None:
            if options:
                raise UserError(f"method {self.name!r}: options {options} are of a steering method. Name it: steering.")
            return
        found = configure(name, options)
        if len(found) != 1:
            raise UserError(f"method {self.name!r}: give single options of {name!r}, not a sweep.")
        (self.target,) = found
        if not self.target.has_fit or type(self.target).prompt is not SteeringMethod.prompt:
            raise UserError(f"method {self.name!r}: {name!r} is not a steering method. Name one, such as language.")
        both = tuple(setting for setting in self.settings if setting in self.target.settings)
        self.settings: tuple[Setting, ...] = both  # type: ignore[misc]

    @property
    def identity(self) -> MethodIdentity:
        """Name, version and config, with the whole identity of the steering method where there is one."""
        config = self.config.model_dump(mode="json", exclude={"steering", "options"})
        if self.target:
            target = self.target.identity
            config |= {"steering": target.name, "steering_version": target.version, "options": target.config}
        return MethodIdentity(name=self.name, version=self.version, config=config)

    @property
    def has_fit(self) -> bool:
        """Whether a steering method is named."""
        return self.target is not None

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return what the steering method returns."""
        return self.target.supports(ctx) if self.target else None

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return what the steering method returns."""
        return self.target.vector_languages(ctx) if self.target else []

    def texts_to_read(self, ctx: CellContext, parallel: int) -> dict[str, int]:
        """Return what the steering method returns."""
        return self.target.texts_to_read(ctx, parallel) if self.target else {}

    def fit(self, ctx: FitContext) -> Steering:
        """Return the very fit of the steering method's own cells."""
        return ctx.fit(self.target, ctx.language) if self.target else Steering()


def is_base(ctx: CellContext) -> bool:
    """Say whether the model is to go on with a document, as it follows no instructions."""
    return ctx.suite.sampling.template == "base"


NO_BASE = Skip("a model that only continues a text follows no such instruction (prompt format base)")
"""Why methods that ask for something beyond a text leave base models out."""
