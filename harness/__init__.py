"""The engine of steerboard. Its public API is the module ``steerboard``; its names can be imported from here for one
more release.
"""

from __future__ import annotations

from harness.core.version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> Any:
    import steerboard  # the only import upward, and it goes with the names

    if name not in steerboard.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(steerboard, name)
