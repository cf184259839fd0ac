"""Interventions that the tests of steering files store."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.core.interventions import Intervention

HIDDEN = 16  # of the tiny models


def vector(seed: int, size: int = HIDDEN) -> Any:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def added(**changes: Any) -> Intervention:
    """Return a vector added at layer 1 with an odd strength of 0.3 x 1.7, or what the test says instead."""
    fields: dict[str, Any] = {
        "site": "layer_output",
        "layer": 1,
        "operation": "add",
        "vector": vector(1),
        "strength": 0.3,
        "unit": "residual",
        "residual_norm": 1.7,
        "positions": "all",
    }
    return Intervention(**{**fields, **changes})


SCALED = {"site": "mlp_neurons", "operation": "scale", "unit": "raw", "vector": vector(7, 24)}
THREE = (
    added(),
    added(layer=2, vector=vector(2), strength=-2.3, unit="raw"),
    added(vector=vector(3), strength=0.7, unit="raw"),
)
