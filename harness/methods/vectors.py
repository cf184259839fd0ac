"""What the difference-of-means methods share: their config, and one unit vector added at a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Positions, Steering
from harness.methods.contract import MethodConfig
from harness.methods.fit_context import FitContext

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates

Depth = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]
"""A layer index, or a depth below 1 as fraction of the layers."""

DEPTHS = [0.21, 0.48, 0.74]  # of arXiv 2606.18389
STRENGTHS = [0.05, 0.1, 0.2, 0.4]


class VectorConfig(MethodConfig):
    """Where and how strongly a unit vector is added.

    ``layer``: a layer index, or a depth below 1 as fraction of the layers. ``strength``: in units of
    the mean residual norm at that layer (``residual``), or a plain factor as in the paper (``raw``).
    ``positions``: all, prompt or generated. ``exclude_sinks``: leave special tokens and outliers of
    norm out of the means; the paper takes all tokens.
    """

    layer: Depth = 0.21
    strength: float = Field(default=0.2, allow_inf_nan=False)
    unit: Literal["residual", "raw"] = "residual"
    positions: Positions = "all"
    exclude_sinks: bool = False


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
        positions=config.positions,
    )
    details = {
        "token_rule": "all tokens but padding" + (" and sinks" if config.exclude_sinks else ""),
        "residual_norm": [float(value) for value in residual_norm],
        "norm_before_unit": norm,
        **provenance,
    }
    return Steering((intervention,), details)


def sample_counts(means: dict[str, MeanStates]) -> dict[str, dict[str, int]]:
    """Return texts and tokens of every mean, as JSON."""
    return {name: {"texts": m.n_texts, "tokens": m.n_tokens} for name, m in means.items()}


def excluded_tokens(means: dict[str, MeanStates]) -> dict[str, Any]:
    """Return the reports of excluded sink tokens, as JSON; empty where none were looked for."""
    return {name: m.excluded for name, m in means.items() if m.excluded}
