"""Public API of steerboard: everything that the author of a steering method imports.

    from steerboard import MethodConfig, Prompt, PromptContext, SteeringMethod, register

``python -m steerboard`` is the command line. Names load on first use, so that importing this module costs nothing.
"""

from __future__ import annotations

import importlib

from harness.core.version import __version__ as __version__

TYPE_CHECKING = False  # importing typing would cost more than everything else here
if TYPE_CHECKING:
    from typing import Any

    from harness.core.interventions import Intervention, Steering
    from harness.data.prompts import Prompt
    from harness.methods.contract import (
        CellContext,
        FitContext,
        MethodConfig,
        PromptContext,
        Reference,
        ReferenceContext,
        Skip,
        SteeringMethod,
        register,
    )

_MODULES = {
    "CellContext": "harness.methods.contract",
    "FitContext": "harness.methods.contract",
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
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


if __name__ == "__main__":
    from harness.cli.main import main

    main()
