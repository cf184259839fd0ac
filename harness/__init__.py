"""steerboard: which steering method makes the best synthetic data for a language?

A method author needs only the names below; they are loaded on first use, so that importing the
package stays cheap.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing itself takes long to load, and Ctrl-C may come meanwhile
if TYPE_CHECKING:
    from typing import Any

    from harness.core.interventions import Intervention, Steering
    from harness.data.prompts import Prompt
    from harness.methods.contract import (
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

__version__ = "0.1.0"

_HOMES = {
    "CellContext": "harness.methods.contract",
    "FitContext": "harness.methods.fit_context",
    "Intervention": "harness.core.interventions",
    "MethodConfig": "harness.methods.contract",
    "Prompt": "harness.data.prompts",
    "PromptContext": "harness.methods.contract",
    "Reference": "harness.methods.contract",
    "ReferenceContext": "harness.methods.contract",
    "Skip": "harness.methods.contract",
    "Steering": "harness.core.interventions",
    "SteeringMethod": "harness.methods.contract",
    "register": "harness.methods.contract",
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
