"""The fit stage: from text and a model to a steering file, each fit done once per run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cells import Cell, steering_id
from harness.core.errors import DamagedFileError, warn
from harness.core.files import digest, file_digest
from harness.core.interventions import Steering, check_model
from harness.core.records import UsageByStep
from harness.core.tensors import load_tensors, save_tensors
from harness.methods.contract import FitContext, SteeringMethod
from harness.runner.prepare import RunPlan, library_versions
from harness.runner.usage import UsageMeter, cost_key, read_cost, write_cost

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates, MlpActivationMeans
    from harness.engine.model import SteerableModel

_HEADER_DETAILS = ("token_rule", "bos_rule", "counts", "residual_norm")
"""What a method's fit says that belongs to the header of every steering file."""


@dataclass
class Fitter:
    """Fits methods on one model; keeps steering and activations in memory and in the run folder.

    It is the ``Engine`` of the fit contexts.
    """

    prepared: RunPlan
    model: SteerableModel
    batch_size: int = 64
    say: Callable[[str], None] = lambda words: None
    _fitting: str = ""
    _steering: dict[str, Steering] = field(default_factory=dict)
    _read: dict[str, dict[str, Any]] = field(default_factory=dict)
    _applied: dict[str, set[str]] | None = None
    _costs: dict[Path, UsageByStep] = field(default_factory=dict)
    _meter: UsageMeter = field(default_factory=UsageMeter)

    def steering(self, cell: Cell, method: SteeringMethod) -> tuple[str | None, Steering]:
        """Return the steering of a cell and the name of its file, None where it steers nothing."""
        if not method.has_fit:
            return None, Steering()
        name = steering_id(cell.key)
        if name not in self._steering:
            self._steering[name] = self._stored(name) or self._fit(name, cell, method)
        self._meter.use(self._cost_of(self.prepared.run.steering_path(name)))
        steering = self._steering[name]
        return (name if steering.interventions else None), steering

    def _stored(self, name: str) -> Steering | None:
        """Return a fit of the run folder; None, after one line, where it is not what was written."""
        run, path = self.prepared.run, self.prepared.run.steering_path(name)
        try:
            stored = run.steering(name)
        except DamagedFileError:
            warn(f"{path} was edited or damaged; it is fitted again")
            return None
        if stored is None:
            return None
        if self._applied is None:
            self._applied = run.applied(cell.id for cell in self.prepared.cells)
        if file_digest(path) not in self._applied.get(name, {file_digest(path)}):
            warn(f"{path} is not the file that finished cells were written with; it is fitted again")
            return None
        self._check(name, stored)
        return stored

    def file_hash(self, name: str | None) -> str | None:
        """Return the SHA-256 of a fit's file, None for no fit."""
        return file_digest(self.prepared.run.steering_path(name)) if name else None

    def cost(self, cell: Cell, method: SteeringMethod) -> UsageByStep:
        """Return what the fit of a cell's steering took, part by part; nothing where none is fitted."""
        return self._cost_of(self.prepared.run.steering_path(steering_id(cell.key))) if method.has_fit else {}

    @property
    def n_layers(self) -> int:
        """How many decoder layers the model has."""
        return len(self.model.layers)

    @property
    def sandwich_norm(self) -> bool:
        """Whether a norm follows the MLP inside its layers."""
        from harness.engine.hooks import has_sandwich_norm

        return has_sandwich_norm(self.model.layers[0])

    def progress(self, words: str) -> None:
        """Show what the fit at hand is doing."""
        self.say(f"{self._fitting}: {words}" if self._fitting else words)

    def _check(self, name: str, stored: Steering) -> None:
        model = self.prepared.model
        if model is not None:
            where = str(self.prepared.run.steering_path(name))
            check_model(stored, model.model_dump(mode="json"), self.model.tokenizer_hash, where)

    def _cost_of(self, path: Path) -> UsageByStep:
        if path not in self._costs:
            self._costs[path] = read_cost(path)
        return self._costs[path]

    def _fit(self, name: str, cell: Cell, method: SteeringMethod) -> Steering:
        path = self.prepared.run.steering_path(name)
        outer, self._fitting = self._fitting, f"fitting {method.name}, {cell.key.task}, {cell.key.language}"
        self.say(self._fitting)
        try:
            with self._meter.part(cost_key(path), self.model) as measured:
                steering = self._fitted(name, cell, method)
        finally:
            self._fitting = outer
        self._costs[path] = measured.parts
        write_cost(path, measured.parts)  # first, so that no steering is without
        self.prepared.run.write_steering(name, steering)
        return steering

    def _fitted(self, name: str, cell: Cell, method: SteeringMethod) -> Steering:
        key, suite = cell.key, self.prepared.suite
        seed = int(digest(["fit", name], 16), 16)
        context = FitContext(
            suite=suite,
            task=suite.task(key.task, key.language),
            engine=self,
            rng=np.random.default_rng(seed),
            _corpus=self.prepared.corpus,
            _stored_fit=lambda other, code: self._fit_of(cell, other, code),
        )
        fitted = method.fit(context)
        header = self._header(cell, context, fitted, seed) if fitted.interventions else {}
        return Steering(fitted.interventions, header)

    def _fit_of(self, cell: Cell, method: SteeringMethod, code: str) -> Steering:
        """Return a method's fit for another cell than the one at hand, with its details as it gave them."""
        data = self.prepared.corpus.fingerprint(cell.key.task, code)
        changes = {"method": method.identity, "language": code, "data": data}
        _, steering = self.steering(Cell(cell.key.model_copy(update=changes)), method)
        header = steering.provenance
        lifted = {name: header[name] for name in _HEADER_DETAILS if name in header}
        return Steering(steering.interventions, {**lifted, **header.get("fit", {})})

    def _header(self, cell: Cell, ctx: FitContext, fitted: Steering, seed: int) -> dict[str, Any]:
        """Return what a steering file says of how it came about, as JSON."""
        key, details = cell.key, dict(fitted.provenance)
        lifted = {name: details.pop(name) for name in _HEADER_DETAILS if name in details}
        if "residual_norm" not in lifted:
            own = self.mean_states(ctx.parallel(key.language))
            lifted["residual_norm"] = [float(value) for value in own.norm]
        return {
            "method": key.method.model_dump(mode="json"),
            "model": key.model.model_dump(mode="json") if key.model else None,
            "tokenizer": self.model.tokenizer_hash,
            "language": key.language,
            "task": key.task,
            "data": key.data,
            "layer_convention": "0-based; output of layer l is the residual stream after it",
            "n_layers": self.n_layers,
            "hidden_size": self.model.hidden_size,
            "token_rule": "the method's own",
            "bos_rule": "no BOS and no other special token added to the texts that are read",
            "counts": {},
            **lifted,
            "seed": seed,
            "versions": library_versions(),
            "fit": details,
        }

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        """Return the mean hidden states of the model over ``texts``, run at most once per run."""
        from harness.engine.activations import MeanStates, mean_states

        def run() -> dict[str, Any]:
            return vars(
                mean_states(
                    self.model,
                    texts,
                    self.batch_size,
                    exclude_sinks=exclude_sinks,
                    progress=self._counting(texts),
                )
            )

        return MeanStates(**self._once(["mean states", exclude_sinks, texts], run))

    def neuron_means(self, texts: list[str]) -> MlpActivationMeans:
        """Return the mean neurons of the model over ``texts``, run at most once per run."""
        from harness.engine.activations import MlpActivationMeans, mean_mlp_activations

        def run() -> dict[str, Any]:
            return vars(mean_mlp_activations(self.model, texts, self.batch_size, self._counting(texts)))

        return MlpActivationMeans(**self._once(["neuron means", texts], run))

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[np.float64]:
        """Return how far a steering moves the residual stream over ``texts``, per layer."""
        from harness.engine.activations import relative_residual_shift

        return relative_residual_shift(self.model, steering, texts, progress=self._counting(texts))

    def _counting(self, texts: list[str]) -> Callable[[int], None]:
        """Return what counts the sentences that a reading is through with, and shows it."""
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            self.progress(f"{done} of {len(texts)} sentences read")

        return count

    def _once(self, what: list[Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what ``run`` measures, from memory or the run folder where it was measured before."""
        model = self.prepared.model
        assert model is not None
        name = digest([model.model_dump(mode="json"), *what], 16)
        path = self.prepared.run.path / "activations" / f"{name}.safetensors"
        if name not in self._read:
            stored = _load(path) if path.is_file() else None
            if stored is None:
                with self._meter.part(cost_key(path), self.model) as measured:
                    stored = run()
                write_cost(path, measured.parts)
                _save(path, stored)
                stored = _load(path)  # exactly what a later start reads
            assert stored is not None
            self._read[name] = stored
        self._meter.use(self._cost_of(path))
        return self._read[name]


def _save(path: Path, fields: dict[str, Any]) -> None:
    arrays = {k: v for k, v in fields.items() if isinstance(v, np.ndarray)}
    save_tensors(path, arrays, "fields", {k: v for k, v in fields.items() if k not in arrays})


def _load(path: Path) -> dict[str, Any] | None:
    """Return what was measured; None, after one line, where the file is not what was written."""
    from safetensors import SafetensorError

    try:
        arrays, rest = load_tensors(path, "fields")
        return {**arrays, **rest}
    except (DamagedFileError, SafetensorError, LookupError, TypeError, ValueError, AttributeError):
        warn(f"{path} was edited or damaged; what it holds is measured again")
        return None
