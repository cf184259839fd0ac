"""The fit stage: from text and a model to a steering file, each fit done once per run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.cells import Cell, steering_id
from harness.errors import BrokenFileError
from harness.files import digest, write_bytes
from harness.methods.base import FitContext, SteeringMethod
from harness.run.options import Prepared
from harness.steering.interventions import Steering

if TYPE_CHECKING:
    from harness.steering.activations import MeanStates
    from harness.steering.model import SteerableModel


@dataclass
class Fitter:
    """Fits methods on one model; keeps steering and mean states in memory and in the run folder."""

    prepared: Prepared
    model: SteerableModel
    batch_size: int = 64
    _steering: dict[str, Steering] = field(default_factory=dict)
    _means: dict[str, MeanStates] = field(default_factory=dict)

    def steering(self, cell: Cell, method: SteeringMethod) -> tuple[str | None, Steering]:
        """Return the steering of a cell and the name of its file, None where it steers nothing."""
        if type(method).fit is SteeringMethod.fit:
            return None, Steering()
        name = steering_id(cell.key)
        if name not in self._steering:
            stored = self.prepared.run.steering(name)
            self._steering[name] = stored or self._fit(name, cell, method)
        steering = self._steering[name]
        return (name if steering.interventions else None), steering

    def _fit(self, name: str, cell: Cell, method: SteeringMethod) -> Steering:
        key, suite = cell.key, self.prepared.suite
        context = FitContext(
            suite=suite,
            task=suite.task(key.task, key.language),
            corpus=self.prepared.corpus,
            n_layers=len(self.model.layers),
            mean_states=self.mean_states,
            rng=np.random.default_rng(int(digest(["fit", name]), 16)),
        )
        fitted = method.fit(context)
        provenance = {
            **fitted.provenance,
            "method": key.method.model_dump(mode="json"),
            "model": key.model.model_dump(mode="json") if key.model else None,
            "language": key.language,
            "task": key.task,
            "data": key.data,
            "layer_convention": "0-based; output of layer l is the residual stream after it",
        }
        steering = Steering(fitted.interventions, provenance)
        self.prepared.run.write_steering(name, steering)
        return steering

    def mean_states(self, texts: list[str]) -> MeanStates:
        """Return the mean hidden states of the model over ``texts``, run at most once per run."""
        model = self.prepared.model
        assert model is not None
        name = digest([model.model_dump(mode="json"), texts], 16)
        if name not in self._means:
            path = self.prepared.run.path / "activations" / f"{name}.safetensors"
            if not path.is_file():
                from harness.steering.activations import mean_states

                _save(path, mean_states(self.model, texts, self.batch_size))
            self._means[name] = _load(path)
        return self._means[name]


def _save(path: Path, means: MeanStates) -> None:
    from safetensors.numpy import save

    counts = np.array([means.n_tokens, means.n_texts], dtype=np.int64)
    write_bytes(path, save({"mean": means.mean, "norm": means.norm, "counts": counts}))


def _load(path: Path) -> MeanStates:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from harness.steering.activations import MeanStates

    try:
        tensors = load_file(path)
        n_tokens, n_texts = (int(n) for n in tensors["counts"])
        return MeanStates(tensors["mean"], tensors["norm"], n_tokens, n_texts)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BrokenFileError(f"{path} holds no mean states ({error}). Delete it and run again.") from None
