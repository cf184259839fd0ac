"""Where the steering of an lm-eval request comes from: a steering file, or a method fitted per language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.cells import Cell
from harness.core.checkpoints import Checkpoint
from harness.core.errors import BrokenFileError, UserError
from harness.core.interventions import Intervention, Steering, check_model, load_steering
from harness.core.languages import unknown_language
from harness.data.contrast import open_contrast
from harness.data.sources import open_data
from harness.data.suite import Suite, load_suite
from harness.methods.contract import CellContext, SteeringMethod
from harness.methods.registry import load_registry
from harness.runner.fit import Fitter
from harness.runner.plan import plan_cells, select_cells
from harness.runner.prepare import RunOptions, RunPlan, plan_run
from harness.tracks.understanding.sources import Arguments, classes_of, finite, named, single
from harness.tracks.understanding.tasks_by_language import OURS, language_of

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

_OTHER_MODEL = "Give pretrained= the model that it was fitted on."


class SteeringSource(Protocol):
    """What gives every request its steering, once it is bound to the loaded model.

    ``known``: the names of the options that it takes. ``left``: arguments that are none of them.
    """

    known: list[str]
    left: dict[str, Any]

    def bind(self, model: SteerableModel, checkpoint: Checkpoint, dtype: str) -> None:
        """Take the model that is steered; ``UserError`` where the steering does not fit it."""

    def of(self, task_name: str | None) -> Steering:
        """Return the steering of the requests of an lm-eval task."""


def open_source(given: Arguments) -> SteeringSource:
    """Return the source that the arguments name, checked as far as it can be without a model."""
    if given.steering.endswith(".safetensors"):
        return FileSource(given)
    return MethodSource(given)


class FileSource:
    """One steering file for all requests, whatever their language.

    ``layer`` picks the interventions of one layer, ``strength`` replaces the strength of all. ``language``
    says which language the file must have been fitted for.
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
            items = _at_layer(items, given.layer, self.path)
        if given.strength is not None:
            strength = finite(given.strength)
            items = tuple(replace(item, strength=strength) for item in items)
        self.steering = Steering(items, steering.provenance)

    def bind(self, model: SteerableModel, checkpoint: Checkpoint, dtype: str) -> None:
        """Check the file's model, its layers and the size of its vectors."""
        identity = {
            "name": checkpoint.name,
            "revision": checkpoint.revision,
            "fingerprint": checkpoint.fingerprint,
        }
        check_model(self.steering, identity, model.tokenizer_hash, self.path, _OTHER_MODEL)
        for item in self.steering.interventions:
            check_fit(item, model, self.path)

    def of(self, task_name: str | None) -> Steering:
        """Return the file's steering."""
        return self.steering


class MethodSource:
    """A method, fitted for a language when its first request comes.

    The language is the one given, else the one that the task's name names; the task that a fit is for is the
    one given, else the task's own where it is of the suite, else the suite's first in that language.
    """

    def __init__(self, given: Arguments) -> None:
        self.given = given
        self.suite = load_suite(given.suite)
        registry = load_registry([Path(given.plugin)] if given.plugin else [])
        classes = classes_of(registry, given)
        self.known = [*dict.fromkeys(name for cls in classes for name in cls.Config.model_fields)]
        self.left = {name: value for name, value in given.more.items() if name not in self.known}
        options = named(classes, given)
        self.method = single(registry, self.suite, given.steering, options)
        open_data(self.suite, Path(given.data) if given.data else None)
        open_contrast(Path(given.contrast) if given.contrast else None)
        select_cells(self.suite, [given.language] if given.language else None, [given.task] if given.task else None)
        self._temporary = None if given.run else TemporaryDirectory(prefix="steerboard-")
        self._run = Path(given.run or self._temporary.name)  # type: ignore[union-attr]
        self._fits: dict[tuple[str, str], Steering] = {}
        self._fitter: Fitter | None = None

    def bind(self, model: SteerableModel, checkpoint: Checkpoint, dtype: str) -> None:
        """Take the model that the method is fitted on; the method's layer must be there."""
        config = getattr(self.method, "target", self.method).config
        layer, last = getattr(config, "layer", None), len(model.layers) - 1
        if isinstance(layer, int) and not 0 <= layer <= last:  # else it is seen after a long fit
            raise UserError(f"layer {layer} is outside of this model's 0 to {last}.")
        self._bound = (model, checkpoint, dtype)

    def of(self, task_name: str | None) -> Steering:
        """Return the fit for the language of a task. Raises ``UserError`` where its name says none."""
        code = self.given.language or language_of(task_name)
        if code is None:
            raise UserError(f"task {task_name!r} names no language; give language=am, or another.")
        if code not in self.suite.languages:
            raise unknown_language(code, self.suite.languages, f"It is that of task {task_name!r}.")
        place = (self.given.task or self._task(task_name, code), code)
        if place not in self._fits:
            self._fits[place] = self._fit(*place)
        return self._fits[place]

    def _task(self, task_name: str | None, code: str) -> str:
        own = OURS.fullmatch(task_name or "")
        defined = [task for task, by_language in self.suite.definitions.items() if code in by_language]
        return own["task"] if own and own["task"] in defined else defined[0]

    def _fit(self, task: str, code: str) -> Steering:
        fitter = self._fitter = self._fitter or self._open(task, code)
        prepared = fitter.prepared
        (method,) = prepared.methods.values()
        chosen = select_cells(prepared.suite, [code], [task])
        cell = plan_cells(prepared.suite, chosen, [method], prepared.model, prepared.corpus)[0]
        _check_supported(method, prepared.suite, cell)
        with _generating_as_a_run(fitter.model):
            return fitter.steering(cell, method)[1]

    def _open(self, task: str, code: str) -> Fitter:
        model, checkpoint, dtype = self._bound
        options = self._options_of_a_run(task, code, checkpoint, dtype)
        prepared: RunPlan = plan_run(options, lambda suite, registry: self._with_method(suite))
        return Fitter(prepared, model)

    def _options_of_a_run(self, task: str, code: str, checkpoint: Checkpoint, dtype: str) -> RunOptions:
        given = self.given
        return RunOptions(
            suite=given.suite,
            run=self._run,
            model=checkpoint.name if checkpoint.revision else str(checkpoint.folder),
            revision=checkpoint.revision,
            data=Path(given.data) if given.data else None,
            contrast=Path(given.contrast) if given.contrast else None,
            languages=[code],
            tasks=[task],
            classifiers=["tfidf"],  # nothing is scored here
            embeddings=["tfidf"],
            plugins=[Path(given.plugin)] if given.plugin else [],
            dtype=dtype,
        )

    def _with_method(self, suite: Suite) -> Suite:
        config = self.method.config.model_dump(mode="json", exclude_unset=True)
        return suite.model_copy(update={"methods": [{self.given.steering: config}]})


def check_fit(item: Intervention, model: SteerableModel, where: str) -> None:
    """Refuse an intervention at a layer, or of a size, that the model does not have."""
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
    except BrokenFileError as error:  # it need not be ours: nothing is to be deleted here
        reason = str(error).removesuffix(" Delete it and run again.")
        raise UserError(f"{reason} Give RUN/steering/*.safetensors.") from None


def _at_layer(items: tuple[Intervention, ...], layer: Any, path: str) -> tuple[Intervention, ...]:
    there = sorted({item.layer for item in items})
    if isinstance(layer, bool) or layer not in there:
        raise UserError(f"{path} steers no layer {layer!r}; its layers: {', '.join(map(str, there)) or 'none'}.")
    return tuple(item for item in items if item.layer == layer)


def _check_supported(method: SteeringMethod, suite: Suite, cell: Cell) -> None:
    key = cell.key
    task = suite.task(key.task, key.language)
    skip = method.supports(CellContext(suite, task, key.setting, key.seed, key.texts_per_label))
    if skip is not None:
        raise UserError(f"method {method.name!r} does not do language {key.language!r}: {skip.reason}.")


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
