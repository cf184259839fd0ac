"""What a model's readings of texts gave, cached for all runs: means of hidden states and of neurons.

A reading is determined by the model (identity, tokenizer, kind of device, library versions), the pooling and the
texts. It is cached only while the model is as it was loaded, so that a method that changes the model, or steers it,
changes no other fit. The cache is the user's own: no submission brings one, and no checked submission's code
gets to write into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import MachineError, UserError, warn
from harness.core.files import digest, sweep
from harness.core.interventions import ReadAt
from harness.core.records import ModelIdentity, Usage
from harness.core.schema import SafeInt, Versioned
from harness.core.tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates, MlpActivationMeans
    from harness.engine.model import SteerableModel

FOLDER = "activations"
_HEADER = "reading"


@dataclass(frozen=True)
class Reading:
    """Means over texts; ``neurons`` is None for a model without gated MLPs, and where sinks were left out.

    ``usage``: what the reading cost when it was made.
    """

    states: MeanStates
    neurons: MlpActivationMeans | None
    usage: Usage


class ReadingRecord(Versioned):
    """The header of a cached reading; ``key`` is the name of its file."""

    key: str
    n_texts: SafeInt
    n_tokens: SafeInt
    n_last: SafeInt
    excluded: dict[str, Any]
    usage: Usage


class ReadingCache:
    """The cached readings of one loaded model in ``folder``. ``ignored``: a hook that changes nothing."""

    def __init__(
        self, model: SteerableModel, identity: ModelIdentity, folder: Path, ignored: Callable[..., Any]
    ) -> None:
        self._model, self._folder, self._ignored = model, folder, ignored
        self._identity = identity.fitted
        self._loaded = self._state()
        self._writable = True

    def key(self, texts: Sequence[str], exclude_sinks: bool, at: ReadAt = "last") -> str:
        """Return the name of a reading: a hash of everything that determines it."""
        import torch
        import transformers

        model, versions = self._model, [torch.__version__, transformers.__version__]
        neurons = "last token" if at == "last" else "content tokens, gates"
        pooling = {"states": "all tokens but padding", "neurons": neurons, "exclude_sinks": exclude_sinks}
        return digest([self._identity, model.tokenizer_hash, model.device.type, versions, pooling, list(texts)], 16)

    @property
    def usable(self) -> bool:
        """Whether the model is as it was loaded: not steered, no hook of a method on it, no weight changed."""
        return not self._model.hooks.active and self._state() == self._loaded

    def load(self, key: str) -> Reading | None:
        """Return a cached reading; None where there is none and, with a warning, where its file is damaged."""
        from safetensors import SafetensorError

        path = self._path(key)
        if not path.is_file():
            return None
        try:
            arrays, header = load_tensors(path, _HEADER)
            return self._reading(arrays, ReadingRecord.model_validate(header), key)
        except (UserError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
            warn(f"{path} was edited or damaged; its activations are computed again")
            return None

    def save(self, key: str, reading: Reading) -> None:
        """Cache a reading; where the folder cannot be written, say so once and go on without."""
        states, neurons = reading.states, reading.neurons
        arrays = {"mean": states.mean, "norm": states.norm, **({"neurons": neurons.mean} if neurons else {})}
        if neurons and neurons.open is not None:
            arrays["open"] = neurons.open
        record = ReadingRecord(
            key=key,
            n_texts=states.n_texts,
            n_tokens=states.n_tokens,
            n_last=neurons.n_texts if neurons else 0,
            excluded=states.excluded,
            usage=reading.usage,
        )
        if not self._writable:
            return
        try:
            save_tensors(self._path(key), arrays, _HEADER, record.to_json())
            sweep(self._folder, deep=False)
        except MachineError as error:
            self._writable = False
            warn(f"activations are not cached: {error}")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"

    def _reading(self, arrays: dict[str, NDArray[Any]], record: ReadingRecord, key: str) -> Reading:
        """Return the content of a file; ``ValueError`` where it is not that of ``key`` on this model."""
        from harness.engine.activations import MeanStates, MlpActivationMeans

        n_layers = len(self._model.layers)
        shapes = {"mean": (n_layers, self._model.hidden_size), "norm": (n_layers,)}
        neurons, opened = arrays.get("neurons"), arrays.get("open")
        fits = record.key == key and arrays.keys() - {"neurons", "open"} == shapes.keys()
        fits = fits and all(arrays[name].shape == shape for name, shape in shapes.items())
        fits = fits and (neurons is None or (neurons.ndim == 2 and len(neurons) == n_layers))
        fits = fits and (opened is None or (neurons is not None and opened.shape == neurons.shape))
        if not fits or any(array.dtype != np.float64 for array in arrays.values()):
            raise ValueError(key)
        states = MeanStates(arrays["mean"], arrays["norm"], record.n_tokens, record.n_texts, record.excluded)
        means = None if neurons is None else MlpActivationMeans(neurons, record.n_last, opened)
        return Reading(states, means, record.usage)

    def _state(self) -> list[tuple[Any, ...]]:
        """Return every module's hooks and the versions of its weights, which an assignment in place raises."""
        return [
            (
                *(hook for hook in module._forward_hooks.values() if hook != self._ignored),
                *(hook for hook in module._forward_pre_hooks.values() if hook != self._ignored),
                *(mark for weight in module.parameters(recurse=False) for mark in _marks(weight)),
            )
            for module in self._model.model.modules()
        ]


def _marks(weight: Any) -> list[tuple[int, int]]:
    """Return memory and version of a weight, or of the parts of a quantised one.

    Of one that is fetched for each pass there is nothing to compare: what is kept elsewhere cannot be assigned to.
    """
    if weight.is_meta:
        return []
    names = weight.__tensor_flatten__()[0] if hasattr(weight, "__tensor_flatten__") else []
    parts = [getattr(weight, name) for name in names] or [weight]
    return [(part.data_ptr(), part._version) for part in parts]
