"""steerboard: which steering method makes the best synthetic data for a language?

A method author needs only the names below; they are loaded on first use, so that importing the
package stays cheap.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing itself takes long to load, and Ctrl-C may come meanwhile
if TYPE_CHECKING:
    from typing import Any

    from harness.methods.base import (
        CellContext,
        MethodConfig,
        PromptContext,
        Reference,
        ReferenceContext,
        Skip,
        SteeringMethod,
        register,
    )
    from harness.methods.fit_context import FitContext
    from harness.prompts import Prompt
    from harness.steering.interventions import Intervention, Steering

__version__ = "0.1.0"

_HOMES = {
    "CellContext": "harness.methods.base",
    "FitContext": "harness.methods.fit_context",
    "Intervention": "harness.steering.interventions",
    "MethodConfig": "harness.methods.base",
    "Prompt": "harness.prompts",
    "PromptContext": "harness.methods.base",
    "Reference": "harness.methods.base",
    "ReferenceContext": "harness.methods.base",
    "Skip": "harness.methods.base",
    "Steering": "harness.steering.interventions",
    "SteeringMethod": "harness.methods.base",
    "register": "harness.methods.base",
}
__all__ = [
    "CellContext",
    "FitContext",
    "Intervention",
    "MethodConfig",
    "Prompt",
    "PromptContext",
    "Reference",
    "ReferenceContext",
    "Skip",
    "Steering",
    "SteeringMethod",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
