"""The steering of lm-eval requests: from a steering file, or from a method that is fitted per language."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.core.checkpoints import Checkpoint
from harness.core.errors import BrokenFileError, UserError, warn
from harness.core.interventions import Intervention, Steering, check_model, load_steering
from harness.core.languages import unknown_language
from harness.core.store import Run
from harness.data.contrast import open_contrast
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import Suite, load_suite
from harness.methods.contract import SteeringMethod
from harness.methods.registry import Registry, load_registry, pick_methods
from harness.runner.fit import Fitter
from harness.runner.plan import plan_cells, select_cells
from harness.runner.prepare import RunPlan, identity_of
from harness.tracks.understanding.tasks import OURS, language_of

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

_OTHER_MODEL = "Give pretrained= the model that it was fitted on."


@dataclass(frozen=True)
class Arguments:
    """The arguments of the model type that lm-eval's ``hf`` does not have.

    ``more``: all others, options of the method's Config among them. ``layer`` and ``strength``: None where
    not given.
    """

    steering: str
    language: str | None = None
    layer: Any = None
    strength: Any = None
    suite: str = "steer11"
    data: str | None = None
    contrast: str | None = None
    task: str | None = None
    run: str | None = None
    plugin: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class FileSource:
    """One steering file for all requests, whatever their language.

    ``layer`` picks the interventions of one layer, ``strength`` replaces the strength of all. ``language``
    says which language the file must have been fitted for. ``known``: the names of the options that a source takes;
    ``left``: the other arguments.
    """

    def __init__(self, given: Arguments) -> None:
        self.path = given.steering
        self.known, self.left = ["layer", "strength"], dict(given.more)
        steering = _read(Path(given.steering))
        fitted = steering.provenance.get("language")
        if given.language and fitted not in {None, given.language}:
            raise UserError(
                f"{self.path} was fitted for language {fitted!r}, not {given.language!r}. Leave language= "
                "out, and it steers every request."
            )
        items = steering.interventions
        if given.layer is not None:
            there = sorted({item.layer for item in items})
            if isinstance(given.layer, bool) or given.layer not in there:
                layers = ", ".join(map(str, there)) or "none"
                raise UserError(f"{self.path} does not steer layer {given.layer!r}; its layers: {layers}.")
            items = tuple(item for item in items if item.layer == given.layer)
        if given.strength is not None:
            strength = finite(given.strength)
            items = tuple(replace(item, strength=strength) for item in items)
        self.steering = Steering(items, steering.provenance)

    def bind(self, model: SteerableModel, checkpoint: Checkpoint, dtype: str) -> None:
        """Check the file's model, its layers and the size of its vectors."""
        identity = identity_of(checkpoint, dtype).model_dump(exclude={"dtype"})
        check_model(self.steering, identity, model.tokenizer_hash, self.path, _OTHER_MODEL)
        for item in self.steering.interventions:
            check_fit(item, model, self.path)

    def steering_for(self, task_name: str | None) -> Steering:
        """Return the file's steering."""
        return self.steering


class MethodSource:
    """A method, fitted for a language when its first request comes.

    The language is the one given, else that of the task's name; the task that a fit is for is the
    one given, else the request's own if the suite has it, else the suite's first in that language.
    """

    def __init__(self, given: Arguments) -> None:
        self.given = given
        self.suite = load_suite(given.suite)
        registry = load_registry([Path(given.plugin)] if given.plugin else [])
        for problem in registry.problems:
            warn(f"method not usable: {problem}")
        self.known, options = _options(registry, given)
        self.left = {name: value for name, value in given.more.items() if name not in self.known}
        self.method = _configured(registry, self.suite, given.steering, options)
        self._data = open_data(self.suite, Path(given.data) if given.data else None)
        self._contrast = open_contrast(Path(given.contrast) if given.contrast else None)
        select_cells(self.suite, [given.language] if given.language else None, [given.task] if given.task else None)
        self._temporary = None if given.run else TemporaryDirectory(prefix="steerboard-")
        self._run = Run(Path(given.run or self._temporary.name))  # type: ignore[union-attr]
        self._fits: dict[tuple[str, str], Steering] = {}

    def bind(self, model: SteerableModel, checkpoint: Checkpoint, dtype: str) -> None:
        """Take the model that the method is fitted on; the method's layer must exist there."""
        config = getattr(self.method, "target", self.method).config
        layer, last = getattr(config, "layer", None), len(model.layers) - 1
        if isinstance(layer, int) and not 0 <= layer <= last:  # else it is seen after a long fit
            raise UserError(f"layer {layer} is outside of this model's 0 to {last}.")
        suite = self.suite.for_model(checkpoint.model_type)
        suite = suite.for_format(suite.default_format(checkpoint.has_chat_template))
        corpus = Corpus(suite, self._data, self._contrast)
        methods = {self.method.identity.model_dump_json(): self.method}
        self._plan = RunPlan(self._run, suite, corpus, checkpoint, methods, [], [], identity_of(checkpoint, dtype))
        self._model = model

    def steering_for(self, task_name: str | None) -> Steering:
        """Return the fit for the language of a task. Raises ``UserError`` where its name does not say it."""
        code = self.given.language or language_of(task_name)
        if code is None:
            raise UserError(f"task {task_name!r} does not name a language; give language=am, or another.")
        if code not in self.suite.languages:
            raise unknown_language(code, self.suite.languages, f"It is that of task {task_name!r}.")
        axes = (self.given.task or self._task(task_name, code), code)
        if axes not in self._fits:
            self._fits[axes] = self._fit(*axes)
        return self._fits[axes]

    def _task(self, task_name: str | None, code: str) -> str:
        own = OURS.fullmatch(task_name or "")
        defined = [task for task, by_language in self.suite.definitions.items() if code in by_language]
        return own["task"] if own and own["task"] in defined else defined[0]

    def _fit(self, task: str, code: str) -> Steering:
        plan, method = self._plan, self.method
        cells = plan_cells(plan.suite, select_cells(plan.suite, [code], [task]), [method], plan.model, plan.corpus)
        if not cells:
            raise UserError(f"method {method.name!r} has none of the settings of suite {plan.suite.name!r}.")
        skip = method.supports(plan.context(cells[0]))
        if skip is not None:
            raise UserError(f"method {method.name!r} does not support language {code!r}: {skip.reason}.")
        with _generating_as_a_run(self._model):
            return Fitter(replace(plan, cells=cells), self._model).steering(cells[0], method)[1]


SteeringSource = FileSource | MethodSource
"""Gives every request its steering, once it is bound to the loaded model."""


def open_source(given: Arguments) -> SteeringSource:
    """Return the source that the arguments name, checked as far as it can be without a model."""
    return FileSource(given) if given.steering.endswith(".safetensors") else MethodSource(given)


def _options(registry: Registry, given: Arguments) -> tuple[list[str], dict[str, Any]]:
    """Return the names that the method's Config takes, and the given options as it has them.

    ``strength`` stands for the method's strength field, whatever its name. A control passes the options that it
    does not have itself on to the method that it controls.
    """
    own = registry.get(given.steering)
    fields = own.Config.model_fields
    controls = {"of", "options"} <= fields.keys()
    target = registry.get(str(given.more.get("of", fields["of"].default))) if controls else own
    known = list(dict.fromkeys([*fields, *target.Config.model_fields]))
    options = {name: value for name, value in given.more.items() if name in known}
    if given.layer is not None:
        options["layer"] = given.layer
    if given.strength is not None:
        called = target.strength_field or ""
        options[called if called in target.Config.model_fields else "strength"] = finite(given.strength)
    inner = {name: options.pop(name) for name in list(options) if controls and name not in fields}
    return known, {**options, "options": {**options.get("options", {}), **inner}} if inner else options


def _configured(registry: Registry, suite: Suite, name: str, options: dict[str, Any]) -> SteeringMethod:
    """Return the one configured method that is meant, with the suite's options where none are given."""
    found: dict[str, SteeringMethod] = {}
    for spec in pick_methods(suite.methods, [name]):
        own = spec[name] if isinstance(spec, dict) else {}
        for method in registry.configure(name, {**(own or {}), **options}):
            found.setdefault(method.identity.model_dump_json(), method)
    method, *more = found.values()
    if more:
        raise UserError(
            f"method {name!r} has lists of options in suite {suite.name!r}, {1 + len(more)} points in all. "
            "Give one value of each."
        )
    if not method.has_fit:
        raise UserError(
            f"method {name!r} steers nothing: lm-eval writes the prompts. Leave steering= out, or name one "
            "that steers, such as language."
        )
    return method


def finite(strength: Any) -> float:
    """Return a strength as a number; ``UserError`` for anything else, infinity and NaN among them."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
        raise UserError(f"strength={strength} is not a finite number. Give one such as 0.2.")
    return float(strength)


def check_fit(item: Intervention, model: SteerableModel, where: str) -> None:
    """Raise ``UserError`` for an intervention at a layer, or of a size, that the model does not have."""
    from harness.engine.hooks import down_projection

    if item.layer >= len(model.layers):
        raise UserError(
            f"{where} steers layer {item.layer}, this model has layers 0 to {len(model.layers) - 1}. {_OTHER_MODEL}"
        )
    size, what = model.hidden_size, "hidden size"
    if item.site == "mlp_neurons":
        projection: Any = down_projection(model.layers[item.layer], required=item.layer)
        size, what = int(projection.in_features), "number of MLP neurons"
    if len(item.vector) != size:
        raise UserError(
            f"{where} has a vector of {len(item.vector)} numbers, the model's {what} is {size}. {_OTHER_MODEL}"
        )


def _read(path: Path) -> Steering:
    if not path.is_file():
        raise UserError(f"the steering file {path} does not exist. Give RUN/steering/*.safetensors.")
    try:
        return load_steering(path)
    except BrokenFileError as error:  # it may not be ours: nothing is to be deleted here
        reason = str(error).removesuffix(" Delete it and run again.")
        raise UserError(f"{reason} Give RUN/steering/*.safetensors.") from None


@contextmanager
def _generating_as_a_run(model: SteerableModel) -> Iterator[None]:
    """Give the network the plain generation config of a run while a method is fitted."""
    from transformers import GenerationConfig

    network = model.model
    before = network.generation_config
    network.generation_config = GenerationConfig(eos_token_id=before.eos_token_id)
    try:
        yield
    finally:
        network.generation_config = before
