"""What the difference-of-means methods share: their config, and one unit vector added at a layer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.errors import UserError
from harness.methods.base import FitContext, MethodConfig
from harness.steering.interventions import Intervention, Steering


class VectorConfig(MethodConfig):
    """Where and how strongly a unit vector is added.

    ``layer``: a layer index, or a depth below 1 as fraction of the layers. ``strength``: in units of
    the mean residual norm at that layer (``residual``), or a plain factor as in the paper (``raw``).
    """

    layer: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = 0.21
    strength: float = Field(default=0.2, allow_inf_nan=False)
    unit: Literal["residual", "raw"] = "residual"


def add_direction(
    ctx: FitContext,
    config: VectorConfig,
    direction: NDArray[np.float64],
    residual_norm: NDArray[np.float64],
    provenance: dict[str, Any],
) -> Steering:
    """Return the steering that adds unit(direction[layer]) at the output of the config's layer.

    ``direction`` has shape [layers, hidden size], ``residual_norm`` [layers].
    Raises ``UserError`` where the direction vanishes: there is then nothing to steer along.
    """
    layer = ctx.layer(config.layer)
    norm = float(np.linalg.norm(direction[layer]))
    if not np.isfinite(norm) or norm == 0.0:
        raise UserError(f"the two means are equal at layer {layer}: there is no direction to add.")
    intervention = Intervention(
        site="layer_output",
        layer=layer,
        operation="add",
        vector=(direction[layer] / norm).astype(np.float32),
        strength=config.strength,
        unit=config.unit,
        residual_norm=float(residual_norm[layer]),
        positions="all",
    )
    details = {**provenance, "norm_before_unit": norm, "n_layers": ctx.n_layers}
    return Steering((intervention,), details)
