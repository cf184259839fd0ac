"""The plug-in contract: what an author writes, and what the harness hands to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.records import MethodIdentity, Setting
from harness.core.strict import refuse_flags
from harness.data.corpus import Corpus
from harness.data.prompts import Prompt, suite_prompt
from harness.data.suite import Suite, Task
from harness.methods.fit_context import FitContext


class MethodConfig(BaseModel):
    """Typed, validated config of a method. Unknown fields are refused.

    In a suite file any field may be a list of values: that is the sweep.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _no_flags = field_validator("*", mode="before")(refuse_flags)


@dataclass(frozen=True)
class Skip:
    """Why a method does not run on a cell; stored and shown."""

    reason: str


@dataclass(frozen=True)
class CellContext:
    """The cell that a method is asked about."""

    suite: Suite
    task: Task
    setting: Setting
    seed: int
    texts_per_label: int

    @property
    def language(self) -> str:
        """The language code of the cell."""
        return self.task.language


@dataclass(frozen=True)
class PromptContext(CellContext):
    """A cell and the label that a prompt is written for; ``demonstrations`` in few-shot only."""

    label: str = ""
    demonstrations: tuple[str, ...] = ()

    def suite_prompt(self) -> Prompt:
        """Return the suite's own prompt for this setting and label."""
        return suite_prompt(self.task, self.setting, self.label, self.demonstrations)


@dataclass(frozen=True)
class ReferenceContext(CellContext):
    """A cell whose texts a reference takes from human train text or makes up itself."""

    rng: np.random.Generator
    _corpus: Corpus

    def train(self) -> dict[str, list[str]]:
        """Return the human train texts of the task by label."""
        groups = self._corpus.by_label(self.task.name, self.language, "train")
        return {label: [row.text for row in rows] for label, rows in groups.items()}


class SteeringMethod:
    """A way to make a language model write labelled text in a language.

    A method says what to ask (``prompt``) and how to steer (``fit``); it never touches hooks.
    All three parts are optional. The first line of its docstring is what the board shows. ``grid``
    names the values of config fields that ``steerboard tune`` tries. ``strength_field`` names the config
    field that at 0 leaves the texts unsteered, where Config has one; None where 0 does not mean that.
    ``quick`` holds options for a short fit; ``steerboard method test`` uses them. ``limits``: what the method
    is known not to do or not to be, in one or two sentences; its page on the board shows them.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    grid: ClassVar[dict[str, list[Any]]] = {}
    settings: ClassVar[tuple[Setting, ...]] = ("zero-shot", "few-shot")
    needs_model: ClassVar[bool] = True
    strength_field: ClassVar[str | None] = "strength"
    quick: ClassVar[dict[str, Any]] = {}
    limits: ClassVar[str] = ""

    class Config(MethodConfig):
        """A method without options."""

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    @property
    def identity(self) -> MethodIdentity:
        """Name, version and full config: the method's part of a cell's identity."""
        config = self.config.model_dump(mode="json")
        return MethodIdentity(name=self.name, version=self.version, config=config)

    @property
    def steers(self) -> bool:
        """Whether the method has a fit of its own."""
        return type(self).fit is not SteeringMethod.fit

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return why the method cannot do this cell, or None."""
        return None

    def fit(self, ctx: FitContext) -> Steering:
        """Return the interventions for the cell's language; by default none."""
        return Steering()

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the prompt of one label; by default the suite's for the setting."""
        return ctx.suite_prompt()


class Reference(SteeringMethod):
    """A row that uses no model: floor or ceiling for everything else."""

    settings: ClassVar[tuple[Setting, ...]] = ("none",)
    needs_model: ClassVar[bool] = False

    def texts(self, ctx: ReferenceContext) -> dict[str, list[str]]:
        """Return ``ctx.texts_per_label`` texts for every label of the task."""
        raise NotImplementedError(f"reference {self.name!r} writes no texts")


Method = TypeVar("Method", bound=type[SteeringMethod])


def check_name(name: str) -> None:
    """Refuse a method name that could not be a folder's name or a word of a command."""
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name):
        raise UserError(f"method name {name!r}: use ASCII letters, digits, '-', '_' and '.' only.")
    if not name[0].isalnum():
        raise UserError(f"method name {name!r}: start with a letter or a digit.")


def register(name: str) -> Callable[[Method], Method]:
    """Name a method class, so that the registry finds it in its module.

    Raises ``UserError`` for a class that is no ``SteeringMethod`` or a name that is no slug.
    """
    check_name(name)

    def mark(cls: Method) -> Method:
        if not (isinstance(cls, type) and issubclass(cls, SteeringMethod)):
            raise UserError(f"method {name!r}: the class must derive from SteeringMethod.")
        cls.name = name
        return cls

    return mark
