"""Interventions as data, the result of a fit, and their file. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import BrokenFileError, DamagedFileError, MachineError, UserError, unknown
from harness.core.tensors import load_tensors, save_tensors

Site = Literal["layer_output", "mlp_neurons"]
Operation = Literal["add", "scale"]
Unit = Literal["residual", "raw"]
Positions = Literal["all", "prompt", "generated"]
ReadAt = Literal["last", "mean"]
"""Which tokens of a text are read: the last one, or the mean over all but special tokens."""

_WORDS = {"site": Site, "operation": Operation, "unit": Unit, "positions": Positions}
SCHEMA = 1
_HEADER = "steerboard"


@dataclass(frozen=True)
class Intervention:
    """One change to the forward pass, at one site of one layer.

    Sites: ``layer_output``, the residual stream h after decoder layer l (layers count from 0), and
    ``mlp_neurons``, the input x of the layer's ``mlp.down_proj``. Operations: ``add``, h becomes
    h + s x vector, and ``scale``, h[j] becomes h[j] x (1 + s x vector[j]). ``vector``: float32, shape
    [hidden size] or [neurons]. s is ``strength`` (unit ``raw``) or ``strength`` x ``residual_norm``
    (unit ``residual``, for vectors added to the residual stream). ``positions``: ``all``, ``prompt``
    (before the first new token is predicted) or ``generated`` (from the position that predicts it);
    padding is never steered.
    Raises ``UserError`` for any other word and for numbers that are not finite.
    """

    site: Site
    layer: int
    operation: Operation
    vector: NDArray[np.float32]
    strength: float
    unit: Unit
    residual_norm: float
    positions: Positions = "all"

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in get_args(words):
                raise unknown(name, str(getattr(self, name)), get_args(words))
        if self.unit == "residual" and (self.site, self.operation) != ("layer_output", "add"):
            raise UserError("unit 'residual' is for vectors added at layer_output; use 'raw' elsewhere.")
        if self.vector.ndim != 1:
            raise UserError(f"the vector has shape {list(self.vector.shape)}, not [hidden size].")
        if not isinstance(self.layer, int) or self.layer < 0:
            raise UserError(f"layer {self.layer!r} is not an index; layers count from 0.")
        if not np.isfinite([*self.vector, self.strength, self.residual_norm, self.raw_strength]).all():
            raise UserError("the vector or its strength is not finite. Fit it again.")

    @property
    def raw_strength(self) -> float:
        """The factor of the vector in units of the hidden state."""
        return self.strength * (self.residual_norm if self.unit == "residual" else 1.0)


@dataclass(frozen=True)
class Steering:
    """The interventions of a fitted method (none for unsteered) and the provenance of the fit."""

    interventions: tuple[Intervention, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def save_steering(path: Path, steering: Steering) -> None:
    """Write a steering file: safetensors, everything but the tensors as JSON in its header."""
    named = {f"intervention.{i}": item for i, item in enumerate(steering.interventions)}
    tensors = {name: np.asarray(item.vector, dtype=np.float32) for name, item in named.items()}
    items = []
    for name, item in named.items():
        items.append({**{k: v for k, v in vars(item).items() if k != "vector"}, "tensor": name})
    header = {"schema": SCHEMA, "interventions": items, "provenance": steering.provenance}
    save_tensors(path, tensors, _HEADER, header)


def load_steering(path: Path, data: bytes | None = None) -> Steering:
    """Read a steering file, or its bytes ``data``; ``BrokenFileError`` if it is foreign or of a newer schema.

    ``DamagedFileError``, a subclass, if it is not as it was written.
    """
    from safetensors import SafetensorError

    try:
        tensors, header = load_tensors(path, _HEADER, data)
        if header.get("schema", 0) > SCHEMA:
            raise UserError(f"a newer schema ({header['schema']}). Upgrade steerboard.")
        provenance = header["provenance"]
        if not isinstance(provenance, dict):
            raise TypeError("the provenance is not an object")
        items = [dict(item) for item in header["interventions"]]
        return Steering(tuple(Intervention(vector=tensors[item.pop("tensor")], **item) for item in items), provenance)
    except (DamagedFileError, MachineError):
        raise
    except UserError as error:
        raise BrokenFileError(f"{path}: {error}") from None
    except (SafetensorError, OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not a steering file ({error}). Delete it and run again.") from None


def check_model(
    steering: Steering,
    model: dict[str, Any],
    tokenizer: str,
    where: str,
    remedy: str = "Delete the file, and it is fitted again.",
) -> None:
    """Raise ``BrokenFileError`` for a steering that was fitted on another model than ``model`` (an identity as JSON).

    Weights are compared by fingerprint, the tokenizer by hash. A header without either passes: then the author is
    trusted. ``remedy``: the next step for the message.
    """
    given = steering.provenance.get("model")
    fitted = given if isinstance(given, dict) else {}
    if fitted.get("fingerprint", model["fingerprint"]) != model["fingerprint"]:
        raise BrokenFileError(
            f"{where} was fitted on {_model_in_words(fitted)}, this model is {_model_in_words(model)}. {remedy}"
        )
    if steering.provenance.get("tokenizer", tokenizer) != tokenizer:
        raise BrokenFileError(f"{where} was fitted with another tokenizer than {model['name']} has here. {remedy}")


def _model_in_words(model: dict[str, Any]) -> str:
    revision = f" at revision {model['revision']}" if model.get("revision") else ""
    return f"{model.get('name')}{revision} (weights {model.get('fingerprint')})"
