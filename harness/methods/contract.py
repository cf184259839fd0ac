"""The plug-in contract: what an author writes, and what the harness passes to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator

from harness.core.errors import UserError
from harness.core.interventions import ReadAt, Site, Steering
from harness.core.records import MethodIdentity, Setting
from harness.core.schema import refuse_flags
from harness.data.corpus import Contrast, Corpus
from harness.data.prompts import Prompt, Question, suite_prompt
from harness.data.suite import Suite, Task

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates, MlpActivationMeans
    from harness.engine.model import SteerableModel


class MethodConfig(BaseModel):
    """Typed, validated config of a method. Unknown fields are refused.

    In a suite file any field may be a list of values: that is the sweep. ``by_language``: fields that may also
    be a mapping from language codes to values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    _no_flags = field_validator("*", mode="before")(refuse_flags)
    by_language: ClassVar[tuple[str, ...]] = ()

    def for_language(self, code: str) -> Self:
        """Return the config with a single value for every field; ``UserError`` for a mapping without the language."""
        values = {name: value for name in self.by_language if isinstance(value := getattr(self, name), dict)}
        for name, value in values.items():
            if code not in value:
                has = ", ".join(value) or "none"
                raise UserError(f"option {name!r} has no value for {code!r}; it has {has}. Give it one for {code!r}.")
        return self.model_copy(update={name: value[code] for name, value in values.items()})


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
    """A cell, and the label and the index of the text that a prompt is written for.

    ``demonstrations``: in few-shot only. ``index``: counts within the label, from 0; where answers hold several texts
    it counts answers.
    """

    label: str = ""
    demonstrations: tuple[str, ...] = ()
    index: int = 0

    def suite_prompt(self) -> Prompt:
        """Return the suite's own prompt for this setting and label."""
        return suite_prompt(self.task, self.setting, self.label, self.demonstrations)


def _train_texts(corpus: Corpus, task: Task) -> dict[str, list[str]]:
    groups = corpus.by_label(task.name, task.language, "train")
    return {label: [row.text for row in rows] for label, rows in groups.items()}


@dataclass(frozen=True)
class ReferenceContext(CellContext):
    """A cell whose texts a reference takes from human train text or makes up itself."""

    rng: np.random.Generator
    _corpus: Corpus

    def train(self) -> dict[str, list[str]]:
        """Return the human train texts of the task by label."""
        return _train_texts(self._corpus, self.task)


class _Engine(Protocol):
    """A loaded model as a fit sees it; ``FitContext`` documents the methods of the same name."""

    @property
    def model(self) -> SteerableModel: ...

    @property
    def n_layers(self) -> int: ...

    @property
    def sandwich_norm(self) -> bool: ...

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates: ...

    def neuron_means(self, texts: list[str], at: ReadAt = "last") -> MlpActivationMeans: ...

    def states(
        self, texts: list[str], at: ReadAt = "last", layers: Sequence[int] | None = None, site: Site = "layer_output"
    ) -> NDArray[np.float32]: ...

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[np.float64]: ...

    def progress(self, words: str) -> None: ...


@dataclass(frozen=True)
class FitContext:
    """What ``fit`` gets. One fit serves all seeds and settings of a task in a language.

    Nothing here leads to validation or test text. ``rng`` is seeded by model, method, task, language
    and data.
    """

    suite: Suite
    task: Task
    engine: _Engine
    rng: np.random.Generator
    _corpus: Corpus
    _stored_fit: Callable[[SteeringMethod, str], Steering] | None = None

    @property
    def language(self) -> str:
        """The language code that is fitted for."""
        return self.task.language

    @property
    def languages(self) -> list[str]:
        """All languages of the suite, the reference language among them."""
        return self._corpus.vector_languages

    @property
    def n_layers(self) -> int:
        """How many decoder layers the model has."""
        return self.engine.n_layers

    @property
    def sandwich_norm(self) -> bool:
        """Whether a norm follows the MLP inside the model's layers: gains of neurons saturate there."""
        return self.engine.sandwich_norm

    @property
    def model(self) -> SteerableModel:
        """The model, its tokenizer and layers, for fits that need more than means. Leave it as it is."""
        return self.engine.model

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        """Return the mean hidden state of every layer over all tokens, without sinks if asked.

        Equal texts are read once: what was read is cached for all runs.
        """
        return self.engine.mean_states(texts, exclude_sinks)

    def states(
        self, texts: list[str], at: ReadAt = "last", layers: Sequence[int] | None = None, site: Site = "layer_output"
    ) -> NDArray[np.float32]:
        """Return the state of every text: float32, [texts, layers, size], by default of all layers.

        ``last``: at the last token; ``mean``: the mean over all tokens but special ones. It takes 4 bytes x texts x
        layers x size of memory and is read again by every call: ask for the layers that are needed.
        """
        return self.engine.states(texts, at, layers, site)

    def neuron_means(self, texts: list[str], at: ReadAt = "last") -> MlpActivationMeans:
        """Return the mean input of every ``mlp.down_proj`` over the last tokens of ``texts``.

        With ``mean`` over all tokens but special ones; then ``open`` says how often each neuron's gate is open.
        """
        return self.engine.neuron_means(texts, at)

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[np.float64]:
        """Return mean ||h' - h|| / ||h|| over ``texts`` for every layer: what a steering really does."""
        return self.engine.residual_change(steering, texts)

    def progress(self, words: str) -> None:
        """Report progress; shown next to the progress bar."""
        self.engine.progress(words)

    def parallel(self, code: str) -> list[str]:
        """Return the parallel sentences of a language, free of validation and test text."""
        return [sentence.text for sentence in self._corpus.vector_text(code)]

    def pairs(self, code: str, other: str) -> list[tuple[str, str]]:
        """Return the parallel sentences of two languages as pairs of translations."""
        there = {sentence.id: sentence.text for sentence in self._corpus.vector_text(other)}
        return [(s.text, there[s.id]) for s in self._corpus.vector_text(code) if s.id in there]

    def contrast(self) -> Contrast:
        """Return human and degraded versions of sentences of the cell's language."""
        return self._corpus.contrast_for_fit(self.language)

    def train(self) -> dict[str, list[str]]:
        """Return the human train texts of the task by label."""
        return _train_texts(self._corpus, self.task)

    def dropped(self, code: str) -> int:
        """Return how many parallel sentences were left out because they are validation or test text."""
        self._corpus.parallel(code)
        return self._corpus.dropped.get(code, 0)

    def layer(self, depth: int | float) -> int:
        """Return a layer index: an int as it is, a fraction f as round(f x number of layers)."""
        last = self.n_layers - 1
        index = depth if isinstance(depth, int) else min(round(depth * self.n_layers), last)
        if not 0 <= index <= last:
            raise UserError(f"layer {depth} is outside of this model's 0 to {last}.")
        return index

    def fit(self, method: SteeringMethod, code: str) -> Steering:
        """Return what another method fits for a language: the very fit that its own cells use."""
        if self._stored_fit is None:
            return method.fit(replace(self, task=self.suite.task(self.task.name, code)))
        return self._stored_fit(method, code)


class SteeringMethod:
    """A way to make a language model write labelled text in a language.

    A method says what to ask (``prompt``) and how to steer (``fit``); it never touches hooks.
    All parts are optional. The first line of its docstring is what the board shows. ``search_space``: the
    values of config fields that ``steerboard tune`` tries. ``strength_field``: the config field that
    leaves the texts unsteered at 0, where Config has it; None where 0 does not mean that. ``test_config``:
    options for a short fit, used by ``steerboard method test``. ``known_limitations``: one or two sentences
    that the method's page on the board shows.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    search_space: ClassVar[dict[str, list[Any]]] = {}
    settings: ClassVar[tuple[Setting, ...]] = ("zero-shot", "few-shot")
    needs_model: ClassVar[bool] = True
    strength_field: ClassVar[str | None] = "strength"
    test_config: ClassVar[dict[str, Any]] = {}
    known_limitations: ClassVar[str] = ""

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
    def has_fit(self) -> bool:
        """Whether the method defines ``fit``."""
        return type(self).fit is not SteeringMethod.fit

    @property
    def has_check(self) -> bool:
        """Whether the method defines ``check``."""
        return type(self).check is not SteeringMethod.check

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return why the method cannot do this cell, or None."""
        return None

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return the languages whose parallel text ``fit`` asks for; by default all of the suite's.

        Their text is looked for before the model is loaded. A method without a fit reads none.
        """
        return ctx.suite.vector_languages if self.has_fit else []

    def texts_to_read(self, ctx: CellContext, parallel: int) -> dict[str, int]:
        """Return about how many texts ``fit`` reads beyond the parallel text of ``vector_languages``, by what is read.

        It serves the estimate before a run. ``parallel``: sentences of the cell's language. Equal names count once;
        a text that a vector is trained on counts three times per step, for its gradient.
        """
        return {}

    def fit(self, ctx: FitContext) -> Steering:
        """Return the interventions for the cell's language; by default none."""
        return Steering()

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the prompt of one text; by default the suite's for setting and label."""
        return ctx.suite_prompt()

    def check(self, ctx: PromptContext, text: str) -> Prompt | None:
        """Return a yes-or-no question about a text that was written; None to take it as it is, the default.

        The unsteered model answers with its likeliest tokens. Without a yes the text is drawn again, as a duplicate is.
        """
        return None

    def edit(self, ctx: CellContext, texts: list[str]) -> list[str]:
        """Return what is kept of the texts of a cell, one for each; by default the texts themselves."""
        return texts


RENAMED = {"grid": "search_space", "quick": "test_config", "limits": "known_limitations", "steers": "has_fit"}
"""Attributes of ``SteeringMethod`` by their name in version 0.1.0."""


class Reference(SteeringMethod):
    """A row that uses no model: floor or ceiling for everything else."""

    settings: ClassVar[tuple[Setting, ...]] = ("none",)
    needs_model: ClassVar[bool] = False

    def texts(self, ctx: ReferenceContext) -> dict[str, list[str]]:
        """Return ``ctx.texts_per_label`` texts for every label of the task."""
        raise NotImplementedError(f"reference {self.name!r} writes no texts")


def cell_prompts(
    method: SteeringMethod, context: CellContext, demonstrations: Mapping[str, list[str]]
) -> tuple[dict[str, list[Prompt]], Question | None]:
    """Return the prompts of all texts of a cell by label, and the method's ``check``, None where it has none."""

    def of(label: str, index: int) -> PromptContext:
        shots = tuple(demonstrations.get(label, ()))
        return PromptContext(**vars(context), label=label, demonstrations=shots, index=index)

    prompts = {
        label: [method.prompt(of(label, index)) for index in range(context.texts_per_label)]
        for label in context.task.labels
    }
    if not method.has_check:
        return prompts, None
    return prompts, lambda label, index, text: method.check(of(label, index), text)


Method = TypeVar("Method", bound=type[SteeringMethod])


def check_name(name: str) -> None:
    """Refuse a method name that could not be a directory name or a word of a command."""
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name):
        raise UserError(f"method name {name!r}: use ASCII letters, digits, '-', '_' and '.' only.")
    if not name[0].isalnum():
        raise UserError(f"method name {name!r}: start with a letter or a digit.")


def register(name: str) -> Callable[[Method], Method]:
    """Name a method class, so that the registry finds it in its module.

    Raises ``UserError`` for a class that is not a ``SteeringMethod`` and for an invalid name.
    """
    check_name(name)

    def mark(cls: Method) -> Method:
        if not (isinstance(cls, type) and issubclass(cls, SteeringMethod)):
            raise UserError(f"method {name!r}: the class must derive from SteeringMethod.")
        cls.name = name
        return cls

    return mark
